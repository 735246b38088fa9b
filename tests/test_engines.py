"""Engines: every item comes back once, other processes take the place of dead ones, errors end all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from transferlens.training import engines
from transferlens.util.errors import DataError, ParameterError, SweepError


@dataclass(frozen=True)
class Task:
    """Note each call in a folder. The process of "kill" dies the first times, that of "poison" always."""

    folder: Path
    times: int = 0

    def __call__(self, item, report):
        with (self.folder / str(item)).open("a") as file:
            file.write(f"{os.getpid()}\n")
        report(f"{item} begun")
        tries = len((self.folder / str(item)).read_text().splitlines())
        if item == "poison" or (item == "kill" and tries <= self.times):
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "bad":
            raise DataError("clips are gone")
        if item == "long":
            time.sleep(60)
        return f"{item} done"


def lines(folder, item):
    return (folder / str(item)).read_text().splitlines()


def run(task, items, **options):
    return dict(engines.in_processes(task, items, **({"workers": 2} | options)))


def test_every_item_once_and_reports(tmp_path):
    items, reports = [str(i) for i in range(6)], {}
    results = run(Task(tmp_path), items, report=reports.__setitem__)
    assert results == {item: f"{item} done" for item in items}
    assert reports == {item: f"{item} begun" for item in items}
    seen = [pid for item in items for pid in lines(tmp_path, item)]
    assert len(seen) == 6
    assert len(set(seen)) <= 2  # processes are used again
    assert str(os.getpid()) not in seen


# Tasks that need no torch: their workers do without it.
BEGIN = """
import sys
from pathlib import Path
from test_engines import Task, engines, run
engines.PRELOADED = []
"""
SCRIPT = """
print("script runs")
run(Task(Path(sys.argv[1])), ["a", "b"])
"""


def test_the_script_that_asks_is_not_run_again_by_its_workers(tmp_path):
    (tmp_path / "script.py").write_text(BEGIN + SCRIPT)
    argv = [sys.executable, tmp_path / "script.py", tmp_path]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path + [str(Path(__file__).parent)])}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "script runs\n"
    assert (tmp_path / "b").exists()


def test_workers_have_the_variables_of_their_parent_and_no_older_ones(monkeypatch):
    monkeypatch.setenv("TRANSFERLENS_CALL", "older")
    monkeypatch.setenv("TRANSFERLENS_NEW", "1")
    engines._adopt({"TRANSFERLENS_NEW": "2"})
    assert {name: value for name, value in os.environ.items() if name.startswith(engines.OURS)} == {
        "TRANSFERLENS_NEW": "2"
    }


def slow(item, report):
    report("begun")
    time.sleep(0.5)


@pytest.mark.parametrize(("free", "at_once"), [(1, 1), (10**15, 3)])
def test_as_many_at_once_as_memory_suffices_for(monkeypatch, caplog, free, at_once):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    running, most = set(), []

    def begun(item, value):
        running.add(item)
        most.append(len(running))

    for item, _ in engines.in_processes(slow, list("abcd"), workers=3, spare_memory=True, report=begun):
        running.remove(item)
    assert max(most) == at_once
    assert ("memory suffices for 1 runs at once" in caplog.text) == (at_once == 1)


def test_an_item_whose_process_dies_is_done_by_another(tmp_path):
    results = run(Task(tmp_path, times=engines.DEATHS - 1), ["kill", "a", "b"])
    assert results == {"kill": "kill done", "a": "a done", "b": "b done"}
    assert len(lines(tmp_path, "kill")) == engines.DEATHS


def test_an_item_that_always_kills_is_given_up_and_the_others_are_done(tmp_path):
    results = run(Task(tmp_path), ["poison", "a", "b"])
    assert (results["a"], results["b"]) == ("a done", "b done")
    assert isinstance(results["poison"], engines.Died)
    assert f"{engines.DEATHS} processes died on it" in str(results["poison"])


def test_deaths_after_progress_do_not_count(tmp_path):
    reached = iter(range(100))
    times = 2 * engines.DEATHS
    results = run(Task(tmp_path, times=times), ["kill"], reached=lambda item: next(reached))
    assert results == {"kill": "kill done"}


def test_errors_end_all_and_leave_no_process(tmp_path):
    with pytest.raises(DataError, match="clips are gone"):
        run(Task(tmp_path), ["long", "bad", "c"])
    assert [
        child for child in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
    ] == []
    assert not (tmp_path / "c").exists()


PARENT = """
run(Task(Path(sys.argv[1])), ["long", "a"])
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", BEGIN + PARENT, str(tmp_path)], cwd=Path(__file__).parent)
    while not ((tmp_path / "long").exists() and (tmp_path / "a").exists()):
        time.sleep(0.05)
    workers = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@dataclass(frozen=True)
class Unreadable:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_processes_that_never_begin_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "FALSE_STARTS", 2)
    with pytest.raises(SweepError, match="2 workers died before they began, the last with code 3: is memory short"):
        run(Unreadable(), ["a"], workers=1)


def test_without_ray_one_line_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ParameterError, match="pip install"):
        list(engines.on_ray(len, ["a"], address=None, cpus=1, gpus=0))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "a b:99999999", "nothing", "localhost:x"])
def test_a_cluster_that_does_not_answer_is_an_error_at_once(address):
    with pytest.raises(ParameterError, match=f"address='{address}' is not a Ray cluster that can be reached"):
        list(engines.on_ray(print, [1], address=address, cpus=1, gpus=0))
