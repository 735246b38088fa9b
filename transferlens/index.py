"""What is known of the files below a folder, kept beside them, so that listing thousands opens only what is new.

The index is never the truth: a line counts only while the file has the size and time of change that it had, and the
whole of it may be deleted at any time. It is one file, replaced whole, so that it is safe on file systems shared by
machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transferlens.errors import CheckpointError
from transferlens.files import complete_or_absent

__all__ = ["NAME", "read_through"]

NAME = ".index.tsv"
# Share of the files, in the index and new or gone, from which on it is written anew.
STALE = 0.01


def _walk(folder: Path, suffixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Path and stamp of each file: its size and time of change."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(Path(entry.path), suffixes)
            elif entry.name.endswith(tuple(suffixes)):
                status = entry.stat()
                yield entry.path, f"{status.st_size}-{status.st_mtime_ns}"


def _known(path: Path, n_columns: int) -> dict[tuple[str, str], list[str]]:
    """The lines of an index by relative path and stamp; none where it is not to be had, or is not what was written."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    if digest != _digest(text):
        return {}
    rows = (line.split("\t") for line in text.split("\n"))
    return {(row[0], row[1]): row[2:] for row in rows if len(row) == n_columns + 2}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_through(
    folder: Path, *, suffixes: Sequence[str], read: Callable[[Path], Sequence[str]], n_columns: int
) -> tuple[dict[Path, Sequence[str]], list[str]]:
    """What `read` gives for every file below a folder; files whose lines in the index are current are not opened.

    Parameters
    ----------
    folder : Path
    suffixes : sequence of str
        How the files' names end.
    read : callable
        Takes a path, gives `n_columns` words without tabs or line ends; raises CheckpointError for files that cannot
        be read, which are not remembered.
    n_columns : int > 0

    Returns
    -------
    found : dict of Path to sequence of str
        In the order of the paths.
    problems : list of str
        The errors' messages.
    """
    index = folder / NAME
    known, found, problems, opened = _known(index, n_columns), {}, [], 0
    lines = []
    start = len(str(folder)) + 1
    for path, stamp in sorted(_walk(folder, suffixes)):
        row = known.get((path[start:], stamp))
        if row is None:
            opened += 1
            try:
                row = read(Path(path))
            except CheckpointError as error:
                problems.append(str(error))
                continue
        found[Path(path)] = row
        lines.append("\t".join([path[start:], stamp, *row]))
    new = opened - len(problems)
    gone = len(known) - (len(found) - new)
    if new + gone > STALE * len(found):
        with contextlib.suppress(OSError), complete_or_absent(index) as beside:  # it is a help, no need
            text = "\n".join(lines)
            beside.write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
    return found, problems
