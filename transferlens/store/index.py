"""An index of the files below a folder, so that listing thousands of them opens only new and changed ones.

The index only saves time, and may be deleted. A line of it is valid as long as its file has the size and modification
time that it had when it was read. The index is one file, which is replaced as a whole, so that it is safe on file
systems that several machines share.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                continue
            if is_folder:
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


def _save(path: Path, version: str, lines: Mapping[tuple[str, str], str]) -> None:
    text = "\n".join("\t".join((*key, line)) for key, line in lines.items())
    with contextlib.suppress(OSError), complete_or_absent(path) as beside:  # listing works without an index
        beside.write_text(f"{_digest(text, version)}\n{text}", encoding="utf-8", errors="surrogateescape")


def _digest(text: str, version: str) -> str:
    return hashlib.sha256(f"{version}\n{text}".encode(errors="surrogateescape")).hexdigest()


def read_through(
    folder: Path, *, suffixes: Sequence[str], read: Callable[[Path], str], version: str
) -> tuple[dict[str, str], list[str]]:
    """Return what `read` gives for every file below a folder, sorted by path, and the messages of its errors.

    It returns a text without tabs and line ends, or raises CheckpointError; such files are read again every time.
    An index that was written with another version is not used.
    """
    index, start = folder / NAME, len(str(folder)) + 1
    known, lines, texts, problems = _load(index, version), {}, {}, []
    for path, stamp in sorted(_walk(str(folder), suffixes)):
        key = path[start:], stamp
        try:
            texts[path] = lines[key] = known[key] if key in known else read(Path(path))
        except CheckpointError as error:
            if Path(path).exists():  # else it was removed since
                problems.append(str(error))
    if len(known.keys() ^ lines.keys()) > STALE * len(texts):
        _save(index, version, lines)
    return texts, problems
