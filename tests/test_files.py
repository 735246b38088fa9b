"""Files that are complete or absent, and the hash of settings."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferlens.util.errors import DataError, ParameterError
from transferlens.util.files import (
    check_space,
    check_writable,
    clear_left,
    complete_or_absent,
    content_hash,
    file_name,
    plain_cell,
    write_csv,
    write_text,
)


def test_written_whole(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with complete_or_absent(path) as beside:
        beside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_complete_or_absent(tmp_path):
    path = tmp_path / "deep" / "data"
    with pytest.raises(ZeroDivisionError), complete_or_absent(path, folder=True) as beside:
        (beside / "half").mkdir(parents=True)
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    (path.parent / f".data.{platform.node()}-999999999.tmp" / "half").mkdir(parents=True)  # its writer was killed
    with complete_or_absent(path, folder=True) as beside:
        beside.mkdir()
        (beside / "x.txt").write_text("new")
        assert not path.exists()
    assert (path / "x.txt").read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), complete_or_absent(path) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_and_a_living_one_s_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".x.txt.{platform.node()}-{ended.pid}.tmp"
    living = tmp_path / f".x.txt.{platform.node()}-{os.getppid()}.tmp"
    elsewhere = tmp_path / ".x.txt.another-host-1.tmp"
    for file in (left, living, elsewhere):
        file.write_text("")
    with complete_or_absent(tmp_path / "x.txt") as beside:
        beside.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([living, elsewhere, tmp_path / "x.txt"])


def test_what_any_writer_left_goes_where_nobody_writes(tmp_path):
    for name in (".a.h5.other-1.tmp", ".a.partial.here-2.tmp", ".ab.h5.other-1.tmp", "a.h5", ".a.claim"):
        (tmp_path / name).write_text("")
        if name.endswith("tmp"):
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".a.h5.other-3.tmp").write_text("being written")
    clear_left(tmp_path / "a.h5")
    assert {path.name for path in tmp_path.iterdir()} == {
        ".ab.h5.other-1.tmp",
        ".a.h5.other-3.tmp",
        "a.h5",
        ".a.claim",
    }


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    check_writable("runs", tmp_path / "new" / "deep")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ParameterError, match=f"runs='{folder}' must be a folder: {tmp_path}/file is a file"):
            check_writable("runs", folder)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc, where nobody can make a folder")
def test_folder_that_cannot_be_made():
    with pytest.raises(ParameterError, match="cache='/proc/x' must be a folder that can be written to: /proc is not"):
        check_writable("cache", Path("/proc/x"))


def test_folder_that_is_a_link_to_nowhere(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(
        ParameterError, match=f"runs='{tmp_path}/link/new' must be a folder: .*link is a link to something"
    ):
        check_writable("runs", tmp_path / "link" / "new")


def test_no_room(tmp_path):
    check_space(tmp_path / "x", 1000)
    with pytest.raises(DataError, match="needs [0-9.]+ MB and .* MB free: make room"):
        check_space(tmp_path / "x", 10**18)


def test_hash_is_of_content():
    assert content_hash({"a": (1, 2), "b": None}) == content_hash({"b": None, "a": [1, 2]})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})


def test_csv(tmp_path):
    @dataclass
    class Row:
        name: str
        value: float

    write_csv([Row("a, b", 0.1), Row("ü", 1 / 3)], tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == 'name,value\n"a, b",0.1\nü,0.3333333333333333\n'


@pytest.mark.parametrize("text", ["=1+1", "+1 b", "-a", "@sum(a)", "\tx", "=HYPERLINK(0)", "'=1", "''-x"])
def test_no_cell_of_text_is_a_formula(tmp_path, text):
    write_csv([{"text": text}], tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["text"] == f"'{text}"


def test_cells_hold_no_control_characters(tmp_path):
    write_csv([{"a": "\r=1\x1b", "b": "two\nlines"}], tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == b'a,b\n\\r=1\\x1b,"two\nlines"\n'


CELLS = st.one_of(st.text("='+-@\t1a\",\n"), st.text(st.characters(exclude_categories=("C", "Z"))))


@settings(max_examples=20)
@given(st.lists(CELLS, min_size=1))
def test_cells_are_read_as_they_were_written(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    write_csv([{"text": text, "last": 1} for text in texts], path)
    with path.open(newline="", encoding="utf-8") as file:
        assert [plain_cell(row["text"]) for row in csv.DictReader(file)] == texts


def test_numbers_are_written_as_numbers(tmp_path):
    write_csv([{"a": -0.5, "b": "-3", "c": "it's", "d": "+1.5", "e": None, "f": "\udcff"}], tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "a,b,c,d,e,f\n-0.5,-3,it's,+1.5,,\\udcff\n"


NAMES = st.one_of(
    st.text(),
    st.text("./\\-aA\0 ", max_size=6),
    st.text("ä日😀", min_size=30, max_size=120),
    st.sampled_from(
        ["..", ".", "", "CON", "nul.txt", "COM1", "x.", "e\u0301", "\u212b", "\ud800", "/etc/passwd", "a" * 246]
    ),
)


@given(NAMES, st.integers(20, 150))
def test_a_name_of_a_file_is_safe_whatever_the_text(text, most):
    name = file_name(text, most=most)
    assert 0 < len(name.encode()) <= most
    assert Path(name).name == name
    assert not set(name) & set('/\\\0:*?"<>| \n') and ".." not in name
    assert name[0] not in ".-" and name[-1] != "."
    assert name.isprintable()
    assert file_name(name, most=most) == name


@given(st.lists(NAMES, unique=True))
def test_names_of_files_differ_where_texts_do(texts):
    assert len(set(map(file_name, texts))) == len(texts)


@given(st.from_regex(r"[bd-kmo-z0-9_]([A-Za-z0-9_-]|\.[a-z]){0,45}", fullmatch=True).filter(str.isascii))
def test_plain_names_stay(text):
    assert file_name(text) == text or text[:3].lower() == "prn"


def test_files_of_a_host_with_a_longer_name_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "gpu")
    others = tmp_path / ".a.txt.gpu-2-999999999.tmp"
    mine = tmp_path / ".a.txt.gpu-999999999.tmp"
    for path in (others, mine):
        path.touch()
    write_text("new", tmp_path / "a.txt")
    assert others.exists()
    assert not mine.exists()


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    for error in (OSError("write failed"), OSError(28, "No space left on device")):
        with pytest.raises(OSError, match=r"a\.txt") as found, complete_or_absent(tmp_path / "a.txt"):
            raise error
        assert found.value.errno
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"is a folder.*a\.txt'"):
        write_text("new", tmp_path / "a.txt")
