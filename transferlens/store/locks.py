"""Claims on runs: which process trains one, so that no two do, on one machine or on many that share the store.

A claim is a small file beside the run, made by whoever is first. Its holder changes the file's time every few seconds.
A claim is taken over when its holder is a process of this machine that has gone, or when its time has stood still for a
minute of watching; clocks of machines are not compared. Claims save work, no more: were two processes to train one run
after all, each would write the same file, whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transferlens.util import processes
from transferlens.util.errors import DataError
from transferlens.util.lazy import psutil

__all__ = ["BEAT", "PATIENCE", "claim", "holder"]

SUFFIX = ".claim"
# Seconds between two signs of life, and without one after which a holder is taken for dead.
BEAT, PATIENCE = 10.0, 60.0

# Claims of others: what was seen of them, since when, and when last [s].
_seen: dict[Path, tuple[tuple[str, int], float, float]] = {}


def _path(run: Path) -> Path:
    return run.with_suffix(SUFFIX)


def _machine() -> str:
    """This machine since it was started, as far as numbers of processes are its own: containers have theirs."""
    parts = [platform.node(), f"{psutil.boot_time():.0f}"]
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _read(path: Path) -> tuple[dict[str, Any], tuple[str, int]]:
    """A claim, and what tells whether it is the same one and has been touched since."""
    text, changed = path.read_text(encoding="utf-8", errors="replace"), path.stat().st_mtime_ns
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = {}  # being written, or damaged: its time decides
    return content if isinstance(content, dict) else {}, (text, changed)


def _is_dead(path: Path, content: dict[str, Any], stamp: tuple[str, int]) -> bool:
    pid, begun = content.get("pid"), content.get("started")
    if content.get("machine") == _machine() and isinstance(pid, int) and pid > 0:
        started = processes.started(pid)
        if started is None:
            return True
        if isinstance(begun, float):
            return started > 0 and abs(started - begun) > 1
    now = time.monotonic()
    before, since, last = _seen.get(path, (None, now, now))
    if before != stamp or now - last > BEAT:  # who looks seldom, or was cut off from the store, has watched nothing
        since = now
    _seen[path] = stamp, since, now
    return now - since > PATIENCE


def holder(run: Path) -> str | None:
    """Who trains a run, in words: None where nobody does. What a dead process has left is cleared away.

    Parameters
    ----------
    run : Path
        The run's file, which need not be there yet.
    """
    path = _path(run)
    try:
        content, stamp = _read(path)
    except OSError:
        return None
    if not _is_dead(path, content, stamp):
        machine = [*str(content.get("machine", "")).split(), "?"][0]
        return f"process {content.get('pid', '?')} on {machine}"
    _seen.pop(path, None)
    # Of several that find it dead one can move it; what was moved may be the claim of who was faster.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
        if aside.read_text(encoding="utf-8", errors="replace") != stamp[0]:
            os.link(aside, path)
    except OSError:
        pass
    with contextlib.suppress(OSError):
        aside.unlink()
    return None


@contextlib.contextmanager
def claim(run: Path) -> Iterator[bool]:
    """Hold a run while it is trained.

    Parameters
    ----------
    run : Path
        The run's file, which need not be there yet.

    Yields
    ------
    mine : bool
        False where another process holds it.

    Raises
    ------
    DataError
        Where something else lies in the claim's place.
    """
    path = _path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {
            "machine": _machine(),
            "pid": os.getpid(),
            "started": processes.started(os.getpid()),
            "token": uuid.uuid4().hex,
        }
    )
    if holder(run) is not None:
        yield False
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        if path.is_symlink() or path.is_dir():
            raise DataError(f"{path} is a folder or a link where a file is to be made: remove it") from None
        yield False
        return
    except OSError:
        path.unlink(missing_ok=True)  # the disk is full: nobody need wait for it
        raise
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == text:
                path.unlink()


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
