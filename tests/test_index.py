"""The index of a store: unchanged files are not opened, and it never decides what is listed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transferlens.store import index
from transferlens.util.errors import CheckpointError


class Reader:
    """Returns the text of a file, and records which files were opened."""

    def __init__(self):
        self.opened = []

    def __call__(self, path):
        self.opened.append(path.name)
        text = path.read_text()
        if text == "bad":
            raise CheckpointError(f"{path.name} is bad")
        return f"{path.stem} {text}"


def listed(folder, version="1", read=None):
    read = read or Reader()
    found, problems = index.read_through(folder, suffixes=(".h5", ".partial"), read=read, version=version)
    return {Path(path).relative_to(folder).as_posix(): text for path, text in found.items()}, problems, read.opened


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        (tmp_path / "set" / f"{name}.h5").write_text(name * 3)
    (tmp_path / "c.partial").write_text("cc")
    (tmp_path / "notes.txt").write_text("other")
    return tmp_path


def test_second_time_opens_nothing_and_says_the_same(folder):
    first, again = listed(folder), listed(folder)
    assert first[2] == ["c.partial", "a.h5", "b.h5"]
    assert again[2] == []
    assert first[0] == again[0] == {"c.partial": "c cc", "set/a.h5": "a aaa", "set/b.h5": "b bbb"}


def test_changed_new_and_gone_files(folder):
    listed(folder)
    (folder / "set" / "a.h5").write_text("other length")
    status = (folder / "c.partial").stat()
    (folder / "c.partial").write_text("dd")  # as long as before
    os.utime(folder / "c.partial", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (folder / "set" / "b.h5").unlink()
    (folder / "new.h5").write_text("n")
    found, _, opened = listed(folder)
    assert found == {"c.partial": "c dd", "new.h5": "new n", "set/a.h5": "a other length"}
    assert opened == ["c.partial", "new.h5", "a.h5"]
    assert listed(folder)[2] == []
    assert "b.h5" not in (folder / index.NAME).read_text()


def test_files_that_cannot_be_read_are_said_every_time(folder):
    (folder / "bad.h5").write_text("bad")
    for _ in range(2):
        found, problems, _ = listed(folder)
        assert problems == ["bad.h5 is bad"]
        assert len(found) == 3


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a\tb\n", b"set/a.h5\tstamp\tx\ty\tz\n" * 3])
def test_a_damaged_index_is_made_anew(folder, content):
    first = listed(folder)[0]
    (folder / index.NAME).write_bytes(content)
    assert listed(folder)[0] == first
    assert listed(folder)[2] == []


def test_an_index_of_another_version_is_not_used(folder):
    listed(folder)
    assert listed(folder, version="2")[2] == ["c.partial", "a.h5", "b.h5"]
    assert listed(folder, version="2")[2] == []


def test_files_that_go_while_they_are_listed_are_no_problem(folder):
    class Slow(Reader):
        def __call__(self, path):
            if path.name == "a.h5":
                path.unlink()
                raise CheckpointError(f"{path} does not exist")
            return super().__call__(path)

    found, problems, _ = listed(folder, read=Slow())
    assert (list(found), problems) == (["c.partial", "set/b.h5"], [])


def test_links_that_lead_up_or_nowhere_and_names_in_no_encoding(folder):
    (folder / "loop").symlink_to(".")
    (folder / "set" / "up").symlink_to("..")
    (folder / "gone.h5").symlink_to("nothing")
    (folder / "itself.h5").symlink_to("itself.h5")
    (folder / "set" / os.fsdecode(b"\xff.h5")).write_text("odd")
    first, again = listed(folder), listed(folder)
    assert len(first[0]) == 4
    assert first[0] == again[0]
    assert (first[1], again[2]) == ([], [])


def test_an_index_that_cannot_be_written_is_done_without(folder):
    (folder / index.NAME).mkdir()
    assert listed(folder)[0] == listed(folder)[0]


def test_names_are_relative_so_that_a_store_can_be_moved(folder, tmp_path_factory):
    first = listed(folder)[0]
    moved = tmp_path_factory.mktemp("moved") / "store"
    folder.rename(moved)
    found, _, opened = listed(moved)
    assert found == first
    assert opened == []
