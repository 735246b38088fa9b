"""Which processes live; interrupts that Python ignored are raised again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref

import pytest

from transferlens.util import processes


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
