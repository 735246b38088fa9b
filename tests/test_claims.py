"""Claims: one holder at a time, dead holders found, living ones left alone, nothing left behind."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import threading
import time

import pytest

from transferlens.store import locks
from transferlens.util.errors import DataError

HOLD = """
import sys, time
from pathlib import Path
from transferlens.store import locks as claims
with claims.claim(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    return tmp_path / "data" / "run.h5"


def names(run):
    return sorted(path.name for path in run.parent.iterdir())


def other_process(run):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_one_holder_at_a_time_and_nothing_left(run):
    with locks.claim(run) as mine:
        assert mine
        assert names(run) == ["run.claim"]
        with locks.claim(run) as second:
            assert not second
        assert names(run) == ["run.claim"]  # the one that did not hold it took nothing away
    assert names(run) == []
    assert locks.holder(run) is None


def test_a_holder_that_was_killed_is_followed_at_once(run):
    process = other_process(run)
    assert f"process {process.pid} on " in locks.holder(run)
    with locks.claim(run) as mine:
        assert not mine
    process.kill()
    process.wait()
    with locks.claim(run) as mine:
        assert mine
    assert names(run) == []


def test_a_number_that_another_process_has_now_is_no_holder(run):
    with locks.claim(run):
        content = json.loads((run.with_suffix(".claim")).read_text())
        run.with_suffix(".claim").write_text(json.dumps(content | {"started": content["started"] - 1000}))
        assert locks.holder(run) is None


@pytest.mark.parametrize("text", ['{"machine": "elsewhere", "pid": 1}', "", "\0\xff", "[1]"])
def test_a_claim_of_another_machine_ends_when_its_time_stands_still(run, text, monkeypatch):
    run.parent.mkdir()
    path = run.with_suffix(".claim")
    path.write_text(text)
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    assert locks.holder(run) is not None
    for _ in range(3):  # it lives: someone touches it
        time.sleep(0.2)
        path.touch()
        assert locks.holder(run) is not None
    time.sleep(0.4)
    assert locks.holder(run) is None
    assert names(run) == []


def test_a_holder_gives_signs_of_life(run, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with locks.claim(run):
        before = run.with_suffix(".claim").stat().st_mtime_ns
        time.sleep(0.3)
        assert run.with_suffix(".claim").stat().st_mtime_ns > before


def test_who_was_slower_does_not_take_away_what_the_faster_one_made(run, monkeypatch):
    """Two find a claim dead; the first takes it over between the second's look and its move."""
    run.parent.mkdir()
    path = run.with_suffix(".claim")
    path.write_text("dead")

    def dead(path, content, stamp):
        path.write_text("of the faster one")
        return True

    monkeypatch.setattr(locks, "_is_dead", dead)
    locks.holder(run)
    assert path.read_text() == "of the faster one"
    assert names(run) == ["run.claim"]


def test_of_many_threads_one_gets_it(run):
    got, gate = [], threading.Barrier(8)

    def ask():
        gate.wait()
        with locks.claim(run) as mine:
            got.append(mine)
            time.sleep(0.2)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_lies_in_a_claims_place_is_named(tmp_path, kind):
    place = tmp_path / "run.claim"
    place.mkdir() if kind == "folder" else place.symlink_to(tmp_path / "nowhere" / "x")
    message = "run.claim is a folder or a link where a file is to be made: remove it"
    with pytest.raises(DataError, match=message), locks.claim(tmp_path / "run.h5"):
        pass


@pytest.mark.parametrize(
    "text",
    [
        '{"machine": ""}',
        "[" * 100_000,
        '{"pid": -5, "machine": MACHINE}',
        '{"pid": 1, "started": "x", "machine": MACHINE}',
    ],
)
def test_a_claim_is_data(tmp_path, text):
    (tmp_path / "run.claim").write_text(text.replace("MACHINE", json.dumps(locks._machine())))
    assert isinstance(locks.holder(tmp_path / "run.h5"), str)
