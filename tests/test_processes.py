"""Which processes live; interrupts that Python swallowed are raised again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref

import pytest

from transferlens.util import processes


def test_living_dead_and_dead_but_not_asked_after():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.is_alive(process.pid)
    assert processes.started(process.pid) == pytest.approx(time.time(), abs=60)
    process.kill()
    while processes.is_alive(process.pid):  # dead at once, though nobody has asked after it
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{process.pid}") or sys.platform != "linux"  # noqa: PTH110
    process.wait()
    assert not processes.is_alive(process.pid)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["ctrl-c", "term"]
)
def test_an_interrupt_while_an_object_is_cleaned_up_is_raised_again(number, raised, capsys):
    class Thing:
        pass

    def handler(*_):
        raise raised

    def cleaned_up(_):
        signal.raise_signal(number)

    before = signal.signal(number, handler)
    thing = Thing()
    watch = weakref.ref(thing, cleaned_up)
    try:
        with processes.insisting():
            with pytest.raises(raised):
                del thing  # swallowed here
                for _ in range(200):
                    time.sleep(0.01)  # and raised again here
            assert watch() is None
    finally:
        signal.signal(number, before)
    assert "Traceback" not in capsys.readouterr().err


def test_other_errors_that_python_swallows_are_shown_as_ever(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)

    class Thing:
        def __del__(self):
            raise ValueError("lost")

    with processes.insisting():
        Thing()
    assert [lost.exc_type for lost in shown] == [ValueError]
    assert sys.unraisablehook == shown.append
