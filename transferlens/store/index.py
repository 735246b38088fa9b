"""An index of the files below a folder, so that listing thousands of them opens only new and changed ones.

The index is only a help. A line of it counts while its file has the size and the time of change that it had when it was
read, and the index may be deleted at any time. It is one file, which is replaced as a whole, so that it is safe on file
systems that several machines share.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transferlens.util.errors import CheckpointError
from transferlens.util.files import complete_or_absent

NAME = ".index.tsv"
# The index is written again if this share of the files was added or removed.
STALE = 0.01


def _walk(folder: str, suffixes: Sequence[str], above: Sequence[Path] = ()) -> Iterator[tuple[str, str]]:
    """Yield the path, and the size and time of change, of each file. Links to a folder above are not followed."""
    above = [*above, Path(folder).resolve()]
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if not (entry.is_symlink() and Path(entry.path).resolve() in above):
                    yield from _walk(entry.path, suffixes, above)
            elif entry.name.endswith(tuple(suffixes)):
                with contextlib.suppress(FileNotFoundError):  # removed since
                    status = entry.stat()
                    yield entry.path, f"{status.st_size}-{status.st_mtime_ns}"


def _load(path: Path, version: str) -> dict[tuple[str, str], str]:
    """Return the texts of an index by relative path and stamp; none if it is missing, damaged or of another version."""
    try:
        digest, _, text = path.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
    except OSError:
        return {}
    if digest != _digest(text, version):
        return {}
    rows = (line.split("\t") for line in text.split("\n"))
    return {(row[0], row[1]): row[2] for row in rows if len(row) == 3}


def _save(path: Path, version: str, lines: Sequence[str]) -> None:
    text = "\n".join(lines)
    with contextlib.suppress(OSError), complete_or_absent(path) as beside:  # listing works without an index
        beside.write_text(f"{_digest(text, version)}\n{text}", encoding="utf-8", errors="surrogateescape")


def _digest(text: str, version: str) -> str:
    return hashlib.sha256(f"{version}\n{text}".encode(errors="surrogateescape")).hexdigest()


def read_through(
    folder: Path, *, suffixes: Sequence[str], read: Callable[[Path], str], version: str
) -> tuple[dict[str, str], list[str]]:
    """Return the text that `read` gives for every file below a folder, from the index or from the file.

    Parameters
    ----------
    folder : Path
    suffixes : sequence of str
        Endings of the files' names.
    read : callable
        Takes a path and returns a text without tabs and line ends. Raises CheckpointError if the file cannot be read;
        such files are read again every time.
    version : str
        Version of the texts; an index of another version is not used.

    Returns
    -------
    texts : dict of str to str
        By path, in the order of the paths.
    problems : list of str
        Messages of the errors.
    """
    index = folder / NAME
    known, texts, problems, lines, n_new = _load(index, version), {}, [], [], 0
    start = len(str(folder)) + 1
    for path, stamp in sorted(_walk(str(folder), suffixes)):
        text = known.get((path[start:], stamp))
        if text is None:
            try:
                text = read(Path(path))
            except CheckpointError as error:
                if Path(path).exists():  # else it was removed since
                    problems.append(str(error))
                continue
            n_new += 1
        texts[path] = text
        lines.append(f"{path[start:]}\t{stamp}\t{text}")
    n_removed = len(known) - (len(texts) - n_new)
    if n_new + n_removed > STALE * len(texts):
        _save(index, version, lines)
    return texts, problems
