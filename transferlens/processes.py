"""Processes of this machine: which of them live, and how this one is told to leave."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from transferlens.lazy import psutil

__all__ = ["insisting", "is_alive", "started"]

# Seconds after which an interrupt that Python swallowed is raised again.
AGAIN = 0.05


def started(pid: int) -> float | None:
    """When a process was started [s]; None where there is none, or a dead one its parent has not asked after."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return 0.0


def is_alive(pid: int) -> bool:
    """Whether a process runs on this machine."""
    return started(pid) is not None


@contextlib.contextmanager
def insisting() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM are heard whenever they come.

    Python swallows what is raised while an object is being cleaned up, the exception of a signal too; it is raised
    again.
    """
    usual = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
        if number is None:
            usual(lost)
        else:
            # Sent to the main thread, so that a call it waits in ends.
            threading.Timer(AGAIN, signal.pthread_kill, [threading.main_thread().ident, number]).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual
