"""Which processes live; interrupts that Python ignored are raised again."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import weakref
from types import SimpleNamespace

import psutil
import pytest

from transferlens.util import processes


def machine(root, cgroup, **files):
    """A folder like that of a machine's root: what its /proc says of this process's cgroup, and files below /sys."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


NONE = 9223372036854771712  # version 1 without a limit
V1 = "5:cpuset:/x\n4:memory:/a/b\n2:cpu,cpuacct:/a\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"memory.max": 10**6, "memory.current": 4 * 10**5}, 6 * 10**5),
        ("0::/\n", {"memory.max": 10, "memory.current": 8, "memory.stat": "anon 3\ninactive_file 2"}, 4),
        ("0::/\n", {"memory.max": 10, "memory.current": 11}, 0),
        ("0::/\n", {"memory.max": "max", "memory.current": 4}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/b/memory.current": 1, "a/memory.max": 7, "a/memory.current": 4}, 3),
        ("0::/a/b\n", {"a/b/memory.max": 3, "a/b/memory.current": 1, "a/memory.max": 9, "a/memory.current": 4}, 2),
        ("0::/not/seen\n", {"memory.max": 9, "memory.current": 4}, 5),
        ("0::/../b\n", {"memory.max": 9, "memory.current": 4}, 5),
        ("0::/\n", {}, None),
        ("", {"memory.max": 9, "memory.current": 4}, None),
        (V1, {"memory/a/b/memory.limit_in_bytes": NONE, "memory/a/b/memory.usage_in_bytes": 4}, None),
        (V1, {"memory/a/memory.limit_in_bytes": 90, "memory/a/memory.usage_in_bytes": 40}, 50),
        (V1, {"memory/memory.limit_in_bytes": 90, "memory/memory.usage_in_bytes": 40}, 50),
        (
            V1,
            {
                "memory/a/b/memory.limit_in_bytes": 90,
                "memory/a/b/memory.usage_in_bytes": 80,
                "memory/a/b/memory.stat": "inactive_file 1\ntotal_inactive_file 30",
            },
            40,
        ),
    ],
)
def test_free_memory_is_what_the_limits_of_a_container_leave(cgroup, files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    assert processes.free_memory(machine(tmp_path, cgroup, **files)) == (10**9 if expected is None else expected)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"memory.max": 10**6, "memory.current": 4 * 10**5}, 10**6),
        ("0::/a/b\n", {"a/b/memory.max": 9, "a/memory.max": 7, "memory.max": "max"}, 7),
        ("0::/\n", {"memory.max": "max"}, math.inf),
        ("", {}, math.inf),
        (V1, {"memory/a/b/memory.limit_in_bytes": NONE, "memory/a/memory.limit_in_bytes": 90}, 90),
    ],
)
def test_the_limit_of_a_container_does_not_depend_on_what_is_taken(cgroup, files, expected, tmp_path):
    assert processes.memory_limit(machine(tmp_path, cgroup, **files)) == expected


def test_free_memory_is_never_more_than_the_machine_has(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5))
    assert processes.free_memory(machine(tmp_path, "0::/", **{"memory.max": 9, "memory.current": 0})) == 5
    assert processes.free_memory(tmp_path / "no proc") == 5


@pytest.mark.parametrize(
    ("cgroup", "files", "share"),
    [
        ("0::/\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/\n", {"cpu.max": "350000 100000"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "20000 10000"}, 2),
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "1600000 100000"}, 8),
        (V1, {"cpu/a/cpu.cfs_quota_us": 200000, "cpu/a/cpu.cfs_period_us": 100000}, 2),
        (V1, {"cpu/a/cpu.cfs_quota_us": -1, "cpu/a/cpu.cfs_period_us": 100000}, 8),
        (V1, {"cpu/cpu.cfs_quota_us": 100000, "cpu/cpu.cfs_period_us": 100000}, 1),
    ],
)
def test_cores_are_those_that_the_quota_of_a_container_allows(cgroup, files, share, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert processes.cores(machine(tmp_path, cgroup, **files)) == share


def test_living_processes_zombies_and_dead_ones():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.is_alive(process.pid)
    process.kill()
    while processes.is_alive(process.pid):  # dead at once, although its parent has not asked for its exit code
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{process.pid}") or sys.platform != "linux"  # noqa: PTH110
    process.wait()
    assert not processes.is_alive(process.pid)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["ctrl-c", "term"]
)
def test_an_interrupt_while_an_object_is_finalised_is_raised_again(number, raised, capsys):
    class Thing:
        pass

    def handler(*_):
        raise raised

    def finaliser(_):
        signal.raise_signal(number)

    before = signal.signal(number, handler)
    thing = Thing()
    watch = weakref.ref(thing, finaliser)
    try:
        with processes.reraise_lost_signals():
            with pytest.raises(raised):
                del thing  # ignored here
                for _ in range(200):
                    time.sleep(0.01)  # and raised again here
            assert watch() is None
    finally:
        signal.signal(number, before)
    assert "Traceback" not in capsys.readouterr().err


def test_other_errors_that_python_ignores_are_shown_as_usual(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)

    class Thing:
        def __del__(self):
            raise ValueError("lost")

    with processes.reraise_lost_signals():
        Thing()
    assert [lost.exc_type for lost in shown] == [ValueError]
    assert sys.unraisablehook == shown.append
