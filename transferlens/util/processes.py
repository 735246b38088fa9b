"""This process and others: which ones live, what it may use, signals that must not be lost, freed memory that is kept.

A container, or a job of a cluster, may use less than its machine has. Linux tells its limits in the folders of its
cgroup: version 1 has a tree of folders per controller, version 2 one tree for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from transferlens.util.lazy import psutil

# Limit, use, and the field of memory.stat that counts cached pages of files which the system can take back.
_MEMORY = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
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


def cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use, at least 1.

    It is the smaller of its affinity and the share of time that its cgroup allows; `root` is where /proc and /sys are.
    """
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = []
    for version, folder in _cgroups("cpu", root):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version == 1 else ("cpu.max",)
        numbers = " ".join(_content(folder / name) for name in names).split()
        if len(numbers) == 2 and numbers[0] not in ("max", "-1"):
            shares.append(int(numbers[0]) // int(numbers[1]))
    return max(1, min([known, *shares]))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory has run out; torch raises a RuntimeError then."""
    said = isinstance(error, RuntimeError) and re.search("allocate memory|out of memory", str(error))
    return isinstance(error, MemoryError) or bool(said)


def free_memory(root: Path = Path("/")) -> int:
    """Return the memory that this process may still take [bytes].

    It is the smaller of what the machine has, and what the limits of the process's cgroup leave; `root` is where /proc
    and /sys are.
    """
    left = [psutil.virtual_memory().available]
    for version, folder in _cgroups("memory", root):
        limit, usage, cached = _MEMORY[version]
        numbers = [_content(folder / name) for name in (limit, usage)]
        if all(map(str.isdecimal, numbers)):
            fields = dict(line.split(" ", 1) for line in _content(folder / "memory.stat").splitlines())
            left.append(int(numbers[0]) - int(numbers[1]) + int(fields.get(cached, 0)))
    return max(0, min(left))


def memory_limit(root: Path = Path("/")) -> float:
    """Return the memory that the limits of the process's cgroup allow in all [bytes]; infinite without a limit."""
    limits = [_content(folder / _MEMORY[version][0]) for version, folder in _cgroups("memory", root)]
    return min((int(limit) for limit in limits if limit.isdecimal()), default=math.inf)


def _cgroups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield the version and folder of this process's cgroup, and of those above it, whose limits hold too.

    A container sees its own cgroup as the top of the tree, also where /proc names it by its path on the machine.
    """
    for line in _content(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        folder = top / path.lstrip("/")
        yield from ((1 if controllers else 2, each) for each in (folder, *folder.parents) if each.is_relative_to(top))


def _content(path: Path) -> str:
    """Return what a small file contains, without the space around; nothing if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def forget_most_memory() -> None:
    """Count `most_memory` from now on, where the system can: on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def most_memory() -> int:
    """Return the most memory that this process has taken so far, or since `forget_most_memory` [bytes]."""
    if found := re.search(r"^VmHWM:\s*(\d+) kB$", _content(Path("/proc/self/status")), re.MULTILINE):
        return 1024 * int(found[1])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def interrupted_by_term() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM too, with its number: what is opened is closed, as after Ctrl+C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    usual = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual or signal.SIG_DFL)


@contextlib.contextmanager
def reraise_lost_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt and SystemExit once more if Python has ignored them.

    Python ignores an exception that is raised while an object is finalised, also the exception of a signal that arrives
    just then. Inside this context the signal is sent again a moment later.
    """
    usual = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        """Send the signal of a lost exception again; report other lost exceptions as usual."""
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
