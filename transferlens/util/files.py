"""Files that are complete or absent, and the hashes that tell one content from another."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transferlens.util import processes
from transferlens.util.errors import DataError, ParameterError

# Seconds after which nobody is still writing what lies beside a file.
OLD = 60.0
# What h5py raises where a file is damaged.
UNREADABLE = (OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)

__all__ = [
    "UNREADABLE",
    "array",
    "check_space",
    "check_writable",
    "clear_left",
    "complete_or_absent",
    "content_hash",
    "expanded",
    "write_csv",
    "write_text",
]


@contextlib.contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Yield a path to write beside `path`; on leaving it is flushed to disk and renamed, on an error removed.

    Whoever is killed in between leaves `path` as it was: the old content, or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Host and process keep two writers of one file apart; the last one to finish wins, whole.
    host = platform.node()
    start = f".{path.name}.{host}-"
    for left in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        process = left.name.removeprefix(start).removesuffix(".tmp")
        if process.isdecimal() and not processes.is_alive(int(process)):  # else of a host with a longer name
            left.unlink(missing_ok=True)  # its writer was killed
    beside = path.with_name(f".{path.name}.{host}-{os.getpid()}.tmp")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, and a file is to be written there", str(path))
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename not in (None, str(beside)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def clear_left(path: Path) -> None:
    """Remove what killed writers of a file, just written, have left beside it, on whatever machine.

    Of a run that is its snapshot's too. What is nearly as new as the file may still be written by another.
    """
    now = path.stat().st_mtime
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if now - left.stat().st_mtime > OLD:
                left.unlink()


def check_writable(name: str, folder: Path) -> None:
    """Refuse a folder that is none and cannot be made one, before work is done for it.

    Raises
    ------
    ParameterError
        Naming the option, the folder and the reason.
    """
    folders = (folder, *folder.absolute().parents)
    existing = next(parent for parent in folders if parent.exists() or parent.is_symlink())
    if not existing.is_dir():
        what = "is a file" if existing.exists() else "is a link that leads nowhere"
        raise ParameterError(f"{name}={str(folder)!r} must be a folder: {existing} {what}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ParameterError(f"{name}={str(folder)!r} must be a folder that can be written to: {existing} cannot")


def expanded(path: str | Path) -> Path:
    """With ``~`` replaced.

    Raises
    ------
    ParameterError
        Where there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ParameterError(f"{path} cannot be found: {error}") from error


def array(dataset: Any) -> Any:
    """What an HDF5 data set holds; refused, before memory is taken, where it claims to be larger than its file.

    Nothing here is compressed.
    """
    if dataset.nbytes > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} claims {dataset.nbytes} bytes, more than its file has")
    return dataset[()]


def check_space(path: Path, nbytes: int) -> None:
    """Refuse to write what does not fit: HDF5 takes a full disk badly.

    Raises
    ------
    DataError
        Where less than `nbytes` and a little more is free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < 1.05 * nbytes + 1e6:
        raise DataError(
            f"{path} needs {nbytes / 1e6:.0f} MB and {path.parent} has {free / 1e6:.0f} MB free: make room, "
            "or name another folder"
        )


def content_hash(value: Any) -> str:
    """Sha256 in hexadecimal of a value made of dicts, sequences, texts, numbers and None.

    Examples
    --------
    >>> content_hash({"a": 1, "b": (2, 3)}) == content_hash({"b": [2, 3], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_text(text: str, path: Path) -> None:
    """Write text in UTF-8; complete or absent."""
    with complete_or_absent(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be in no encoding


def write_csv(rows: Sequence[Any], path: Path, *, kind: type | None = None) -> None:
    """Write dataclass instances of one type, or dicts of the same keys, a line each under their names.

    Complete or absent. `kind` is the type where there may be no rows.
    """
    tables = [row if isinstance(row, dict) else dict(_fields(row)) for row in rows]
    names = list(tables[0]) if kind is None else [field.name for field in dataclasses.fields(kind)]
    with complete_or_absent(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(table.values() for table in tables)


def _fields(row: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(row, field.name)) for field in dataclasses.fields(row))
