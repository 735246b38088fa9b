"""Freed memory, kept by the process for its next arrays."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import signal
import sys
import threading
from collections.abc import Iterator

from transferlens.util.lazy import psutil

__all__ = ["insisting", "is_alive", "keep_freed_memory", "started"]

# Of glibc's mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, instead of giving activations back to the system and faulting them in again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            libc.mallopt(option, value)


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
