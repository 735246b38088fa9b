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

from transferlens.util.errors import CheckpointError
from transferlens.util.files import complete_or_absent

__all__ = ["NAME", "read_through"]

NAME = ".index.tsv"
# Share of the files, in the index and new or gone, from which on it is written anew.
STALE = 0.01


def _walk(folder: str, suffixes: Sequence[str], above: Sequence[Path] = ()) -> Iterator[tuple[str, str]]:
    """Path and stamp of each file: its size and time of change. Links that lead back up are not followed."""
    above = [*above, Path(folder).resolve()]
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if not (entry.is_symlink() and Path(entry.path).resolve() in above):
                    yield from _walk(entry.path, suffixes, above)
            elif entry.name.endswith(tuple(suffixes)):
                with contextlib.suppress(FileNotFoundError):  # gone since
                    status = entry.stat()
                    yield entry.path, f"{status.st_size}-{status.st_mtime_ns}"


def _known(path: Path, version: str) -> dict[tuple[str, str], str]:
    """The lines of an index by relative path and stamp; none where it is not to be had, or is not what was written."""
    try:
        digest, _, text = path.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
    except OSError:
        return {}
    if digest != _digest(text, version):
        return {}
    rows = (line.split("\t") for line in text.split("\n"))
    return {(row[0], row[1]): row[2] for row in rows if len(row) == 3}


def _digest(text: str, version: str) -> str:
    return hashlib.sha256(f"{version}\n{text}".encode(errors="surrogateescape")).hexdigest()


def read_through(
    folder: Path, *, suffixes: Sequence[str], read: Callable[[Path], str], version: str
) -> tuple[dict[str, str], list[str]]:
    """What `read` gives for every file below a folder; files whose lines in the index are current are not opened.

    Parameters
    ----------
    folder : Path
    suffixes : sequence of str
        How the files' names end.
    read : callable
        Takes a path, gives a text without tabs and line ends; raises CheckpointError for files that cannot be read,
        which are not remembered.
    version : str
        Of what `read` gives: an index of another one is not used.

    Returns
    -------
    found : dict of str to str
        By path, in their order.
    problems : list of str
        The errors' messages.
    """
    index = folder / NAME
    known, found, problems, new = _known(index, version), {}, [], 0
    lines = []
    start = len(str(folder)) + 1
    for path, stamp in sorted(_walk(str(folder), suffixes)):
        text = known.get((path[start:], stamp))
        if text is None:
            try:
                text = read(Path(path))
            except CheckpointError as error:
                if Path(path).exists():  # else gone since
                    problems.append(str(error))
                continue
            new += 1
        found[path] = text
        lines.append(f"{path[start:]}\t{stamp}\t{text}")
    gone = len(known) - (len(found) - new)
    if new + gone > STALE * len(found):
        with contextlib.suppress(OSError), complete_or_absent(index) as beside:  # it is a help, no need
            text = "\n".join(lines)
            beside.write_text(f"{_digest(text, version)}\n{text}", encoding="utf-8", errors="surrogateescape")
    return found, problems
