"""Locks on runs: which process trains a run, so that no two do, on one machine or on many that share the store.

A lock is a small file beside the run, a soft lease of filelock (https://py-filelock.readthedocs.io): its holder changes
the file's time every `BEAT` seconds. Another process takes it over at once if the holder was a process of this machine
that has ended. Otherwise it removes the lock after the file's time has not changed for `PATIENCE` seconds of watching;
the clocks of machines are never compared. Locks only save work: if two processes trained the same run, both would
write the same complete file.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from transferlens.util import processes
from transferlens.util.errors import DataError
from transferlens.util.lazy import filelock

SUFFIX = ".lock"
# Seconds between two changes of a lock's time, and without a change after which its holder counts as dead.
BEAT, PATIENCE = 10.0, 60.0

# Locks of others: the file's time, when it was first seen with this time, and when it was last seen [s].
_watched: dict[Path, tuple[int, float, float]] = {}


def holder(run: Path) -> str | None:
    """Return the process that holds a run, in words; None if there is none. The lock of a dead process is removed."""
    path = run.with_suffix(SUFFIX)
    if path.is_file():
        with contextlib.suppress(OSError), lock(run):
            pass
    if not path.is_file():
        return None
    owner = filelock.SoftFileLease(path).owner
    return f"process {owner.pid} on {owner.hostname.partition('?')[0]}" if owner else "an unknown process"


@contextlib.contextmanager
def lock(run: Path) -> Iterator[bool]:
    """Lock a run, whose file need not exist, while it is trained; yield False if another process has locked it.

    Raise DataError if the lock's path is a folder or a link.
    """
    path = run.with_suffix(SUFFIX)
    if path.is_dir() or path.is_symlink():
        raise DataError(f"{path} is a folder or a link, and a lock file is to be made there: remove it")
    lease = filelock.SoftFileLease(
        path, lease_duration=PATIENCE, heartbeat_interval=BEAT, blocking=False, thread_local=False
    )
    try:
        yield _acquire(lease, path)
    finally:
        with contextlib.suppress(OSError):
            lease.release()  # does nothing if it is not held


def _acquire(lease: filelock.SoftFileLease, path: Path) -> bool:
    """Acquire a lock that is free or whose holder has died, and return whether it is held now."""
    owner = lease.owner
    # filelock would look for the process here, too, if it runs on another machine of the same name.
    if owner is None or _machine(owner) == _this_machine():
        if _try(lease):
            return True
        if owner and owner == lease.owner and not processes.is_alive(owner.pid):
            lease.force_break()  # filelock keeps the lock of a zombie, and any lock on NFS
            return _try(lease)
    if _stands_still(path):
        lease.force_break()  # acquired at the next look, as others may find it dead at the same moment
    return False


def _try(lease: filelock.SoftFileLease) -> bool:
    for _ in range(2):  # filelock 4.1 removes the lock of a dead process at one attempt and acquires it at the next
        with contextlib.suppress(filelock.Timeout, filelock.LeaseSettingsMismatch):
            lease.acquire()
            return True
    return False


def _machine(owner: filelock.OwnerRecord) -> tuple[str, int]:
    """Return the name of the holder's machine, with its process namespace, and the id of the machine's last start."""
    return owner.hostname, (owner.start or 0) >> 64


@functools.cache
def _this_machine() -> tuple[str, int]:
    with tempfile.TemporaryDirectory() as folder, filelock.SoftFileLease(Path(folder, "lock")) as lease:
        return _machine(lease.owner)


def _stands_still(path: Path) -> bool:
    """Return whether the time of a lock has not changed during `PATIENCE` seconds of watching."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return False
    now = time.monotonic()
    before, since, last = _watched.get(path, (None, now, now))
    if changed != before or now - last > BEAT:  # a pause, also of the file system, is not watching
        since = now
    _watched[path] = changed, since, now
    return now - since > PATIENCE
