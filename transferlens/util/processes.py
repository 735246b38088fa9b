"""This process and others: which ones live, signals that must not be lost, and freed memory that is kept."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator

from transferlens.util.lazy import psutil

# Options of glibc's mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
# Seconds after which a signal whose exception was lost is sent again.
AGAIN = 0.05


def is_alive(pid: int) -> bool:
    """Return whether a process runs on this machine; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_memory() -> int:
    """Return the most memory that this process has taken so far [bytes]."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def reraise_lost_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt and SystemExit once more if Python has ignored them.

    Python ignores an exception that is raised while an object is finalised, also the exception of a signal that arrives
    just then. Inside this context the signal is sent again a moment later.
    """
    usual = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
        if number is None:
            usual(lost)
        else:
            # To the main thread, so that a call in which it waits ends.
            threading.Timer(AGAIN, signal.pthread_kill, [threading.main_thread().ident, number]).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory, so that the system need not provide the same pages again for every mini-batch."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            libc.mallopt(option, value)
