"""Locks: one holder at a time, dead holders are found, living ones are left alone, nothing is left behind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from transferlens.store import locks
from transferlens.util import processes
from transferlens.util.errors import DataError

HOLD = """
import sys, time
from pathlib import Path
from transferlens.store import locks
with locks.lock(Path(sys.argv[1])) as is_held:
    print(is_held, flush=True)
    time.sleep(60)
"""
# A process of its own numbering, as in a container; it shares the name of the machine.
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

# A complete lock of a process that does not exist.
OF_DEAD = "filelock/2\npid=2147483647\nhost={host}\nmode=lease\ntoken=ab\nduration={duration}\nstart={start}\n"


@pytest.fixture
def run(tmp_path):
    return tmp_path / "data" / "run.h5"


@pytest.fixture
def path(run):
    """The lock's file, in a folder that exists."""
    run.parent.mkdir()
    return run.with_suffix(".lock")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.2)
    monkeypatch.setattr(locks, "PATIENCE", 0.3)


def wait_until_free(run):
    deadline = time.monotonic() + 30
    while locks.holder(run):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert names(run) == []


def names(run):
    return sorted(path.name for path in run.parent.iterdir())


def other_process(run, prefix=(), answer="True"):
    process = subprocess.Popen([*prefix, sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"{answer}\n"
    return process


def fields_of_this_process(run):
    """What a lock of this process says, by name."""
    with locks.lock(run):
        return dict(line.split("=") for line in run.with_suffix(".lock").read_text().splitlines()[1:])


def test_one_holder_at_a_time_and_nothing_left(run):
    with locks.lock(run) as is_held:
        assert is_held
        assert names(run) == ["run.lock"]
        assert f"process {os.getpid()} on " in locks.holder(run)
        with locks.lock(run) as second:
            assert not second
        assert names(run) == ["run.lock"]  # the one that did not hold it took nothing away
    assert names(run) == []
    assert locks.holder(run) is None


@pytest.mark.parametrize("is_zombie", [False, True])
def test_a_holder_that_was_killed_is_followed_at_once(run, is_zombie):
    process = other_process(run)
    assert f"process {process.pid} on " in locks.holder(run)
    with locks.lock(run) as is_held:
        assert not is_held
    process.kill()
    if is_zombie:  # dead, but its parent has not asked for its exit code
        while processes.is_alive(process.pid):
            time.sleep(0.01)
    else:
        process.wait()
    with locks.lock(run) as is_held:
        assert is_held
    assert names(run) == []
    process.wait()


def test_a_process_with_the_number_of_a_dead_one_is_not_the_holder(run):
    fields = fields_of_this_process(run)
    with locks.lock(run):
        path = run.with_suffix(".lock")
        path.write_text(path.read_text().replace(fields["start"], str(int(fields["start"]) - 1000)))
        assert locks.holder(run) is None


@pytest.mark.parametrize(
    "text",
    [
        OF_DEAD.format(host="elsewhere", duration=60.0, start=1),
        OF_DEAD.format(host="elsewhere", duration=7.0, start=1),
        OF_DEAD.format(host="elsewhere", duration=60.0, start=1).replace("lease", "newer"),
        "",  # a machine that lost its power has not written what it had begun
        "\0\xff",
        "[1]",
    ],
)
def test_a_lock_that_cannot_be_judged_ends_when_its_time_stands_still(run, path, text, short):
    path.write_text(text)
    for _ in range(8):  # it lives: someone touches it
        path.touch()
        assert locks.holder(run) is not None
        time.sleep(0.05)
    wait_until_free(run)


def test_a_machine_of_the_same_name_is_another_one(run, path):
    """Its process has a number that does not exist here."""
    fields = fields_of_this_process(run)
    text = OF_DEAD.format(host=fields["host"], duration=60.0, start="{start}")
    path.write_text(text.format(start=fields["start"]))
    assert locks.holder(run) is None  # of this machine
    path.write_text(text.format(start=int(fields["start"]) ^ 1 << 100))
    assert locks.holder(run) == f"process 2147483647 on {fields['host'].partition('?')[0]}"
    with locks.lock(run) as is_held:
        assert not is_held


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode != 0,
    reason="processes cannot be given numbers of their own here",
)
def test_containers_that_share_a_name(run, short):
    """The number of a holder means another process, or none, in the other container."""
    with locks.lock(run):
        other_process(run, CONTAINER, answer="False").kill()
    container = other_process(run, CONTAINER)
    assert locks.holder(run).startswith("process 1 on ")
    with locks.lock(run) as is_held:
        assert not is_held
    container.kill()
    container.wait()
    wait_until_free(run)


@pytest.mark.parametrize("when", [0, 4e9])
def test_clocks_are_not_compared(run, when):
    with locks.lock(run):
        for _ in range(3):
            os.utime(run.with_suffix(".lock"), (when, when))
            with locks.lock(run) as is_held:
                assert not is_held


def test_who_looks_seldom_has_watched_nothing(run, path, short):
    """A waiting process that slept, or was cut off from the store, cannot tell whether the holder lives."""
    path.write_text("of another machine")
    for _ in range(4):
        assert locks.holder(run) is not None
        time.sleep(0.25)


def test_a_holder_gives_signs_of_life(run, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with locks.lock(run):
        before = run.with_suffix(".lock").stat().st_mtime_ns
        time.sleep(0.3)
        assert run.with_suffix(".lock").stat().st_mtime_ns > before


@pytest.mark.parametrize("left", [False, True], ids=["free", "dead"])
def test_of_many_threads_one_gets_it(run, path, left):
    """Also where all find that the holder has died: who is slower does not take away what the faster one made."""
    if left:
        fields = fields_of_this_process(run)
        path.write_text(OF_DEAD.format(host=fields["host"], duration=60.0, start=fields["start"]))
    answers, gate = [], threading.Barrier(8)

    def ask():
        gate.wait()
        with locks.lock(run) as is_held:
            answers.append(is_held)
            time.sleep(0.2)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    assert multiprocessing.active_children() == []
    assert names(run) == []


def test_who_finds_that_a_time_stands_still_takes_nothing_at_this_look(run, path, short):
    """Others may find it at the same moment, and would remove the lock that the first one has made since."""
    path.write_text("of another machine")
    while names(run):
        with locks.lock(run) as is_held:
            assert not is_held
        time.sleep(0.05)
    with locks.lock(run) as is_held:
        assert is_held


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_lies_in_a_locks_place_is_named(tmp_path, kind):
    place = tmp_path / "run.lock"
    place.mkdir() if kind == "folder" else place.symlink_to(tmp_path / "nowhere" / "x")
    message = "run.lock is a folder or a link, and a lock file is to be made there: remove it"
    with pytest.raises(DataError, match=message), locks.lock(tmp_path / "run.h5"):
        pass


@pytest.mark.parametrize(
    "text",
    [
        '{"machine": ""}',
        "[" * 100_000,
        OF_DEAD.format(host="HERE", duration=60.0, start=1).replace("2147483647", "-5"),
        OF_DEAD.format(host="HERE", duration="1e999", start="x"),
        OF_DEAD.format(host="HERE", duration=60.0, start="9" * 500),
        OF_DEAD.format(host="", duration="nan", start=1),
    ],
)
def test_a_damaged_lock_is_held_by_an_unknown_process(run, path, text):
    path.write_text(text.replace("HERE", fields_of_this_process(run)["host"]))
    assert isinstance(locks.holder(run), str)
    with locks.lock(run) as is_held:
        assert not is_held


@pytest.fixture
def full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    with pytest.raises(OSError, match="No space left"):
        (disk / "other").write_bytes(bytes(100_000))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_no_lock(full_disk):
    with pytest.raises(OSError, match="No space left"), locks.lock(full_disk / "run.h5"):
        pass
    assert names(full_disk / "run.h5") == ["other"]
    (full_disk / "other").unlink()
    with locks.lock(full_disk / "run.h5") as is_held:
        assert is_held
