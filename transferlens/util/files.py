"""Files on disk: written completely or not at all, checked for free space, and hashed.

Every file of the package is written through `complete_or_absent`: to a temporary name, which is then renamed.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import functools
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from transferlens.util import processes
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.text import printable

Result = TypeVar("Result")

# Age after which a temporary file is no longer being written [s].
OLD = 60.0
# Age of a file [s] from which any later change gives it another modification time: clocks of file systems are coarse.
SETTLED = 2.0
# Names of devices on Windows, whatever their ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(\.|\Z)", re.IGNORECASE)
# A text cell that spreadsheets would take for a formula, or one that `_cell` returned for it; numbers are harmless.
_FORMULA = re.compile(r"'*(?![+-]?[\d.]+\Z)[=+\-@\t]")


def file_name(text: str, *, most: int = 100) -> str:
    """Return a name for a file or folder, made of any text: safe, and at most `most` bytes long.

    Different texts have different names, except those that were made to share one (32 bits of a hash tell them apart).

    Words of letters, digits, "-", "_" and "." stay as they are, unless they are too long or have a meaning of their
    own, such as ".." or "CON". Any other text is changed, and followed by a hash of it.

    Examples
    --------
    >>> file_name("low-1-0"), file_name("../etc/passwd")
    ('low-1-0', '_._etc_passwd-7fef78f5')
    """
    name = re.sub(r"[^\w.-]|\.(?=\.)", "_", unicodedata.normalize("NFC", text))
    name = re.sub(r"\A[.-]|\.\Z|\A\Z", "_", f"_{name}" if _DEVICES.match(name) else name)
    if name == text and len(name.encode()) <= most:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: most - 9].decode(errors='ignore')}-{digest}"


@contextlib.contextmanager
def complete_or_absent(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, and rename it to `path` on leaving.

    The file is flushed to disk before it is renamed. If an error is raised or the process is killed, `path` stays as
    it was: its old content, or absent. With `folder` the caller makes a folder; `path` must be absent or empty. An
    OSError names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The host's and the process' names keep two writers of one file apart; the last one to finish replaces the other.
    start = f".{path.name}.{platform.node()}-"
    for left in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        process = left.name.removeprefix(start).removesuffix(".tmp")
        if process.isdecimal() and not processes.is_alive(int(process)):  # else of a host with a longer name
            _remove(left)  # its writer was killed
    beside = path.with_name(f"{start}{os.getpid()}.tmp")
    if path.is_dir() and not folder:
        raise IsADirectoryError(errno.EISDIR, "is a folder, and a file is to be written there", str(path))
    try:
        yield beside
        if not folder:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename not in (None, str(beside)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    """Remove a file, or a folder and all that it holds, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear_left(path: Path) -> None:
    """Remove temporary files of a file, and of its checkpoint (``.partial``), whose writers were killed on any machine.

    A temporary file that is nearly as new as `path` may be in use, and is kept.
    """
    now = path.stat().st_mtime
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if now - left.stat().st_mtime > OLD:
                left.unlink()


def check_folder(name: str, folder: Path) -> Path:
    """Return the nearest folder that exists; raise ParameterError, naming an option, if it is something else."""
    folders = (folder, *folder.absolute().parents)
    existing = next(parent for parent in folders if parent.exists() or parent.is_symlink())
    if not existing.is_dir():
        what = "is a file" if existing.exists() else "is a link to something that does not exist"
        raise ParameterError(f"{name}={str(folder)!r} must be a folder: {existing} {what}")
    return existing


def check_writable(name: str, folder: Path) -> None:
    """Raise ParameterError, naming an option, if its folder cannot be made or written to."""
    existing = check_folder(name, folder)
    try:
        Path(tempfile.mkdtemp(dir=existing)).rmdir()  # what permissions do not tell, as of /proc
    except OSError as error:
        raise ParameterError(
            f"{name}={str(folder)!r} must be a folder that can be written to: {existing} is not writable"
        ) from error


def check_new(name: str, path: Path, *endings: str) -> None:
    """Raise ParameterError, naming an option, if a file with such an ending cannot be made or would replace another."""
    check_writable(name, path.parent)
    if path.suffix.lower() not in endings or path.exists() or path.is_symlink():
        exists = "is a folder" if path.is_dir() else "exists already"
        what = exists if path.exists() or path.is_symlink() else f"does not end in {' or '.join(endings)}"
        raise ParameterError(f"{name}={str(path)!r} {what}: name a new file, such as new{endings[0]}")


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home folder; raise ParameterError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ParameterError(f"{path} cannot be found: {error}") from error


def once_per_state(verify: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a check of a file's content: in one process it is repeated only after the file has changed."""
    # A file that fails is not remembered.
    remembered = functools.lru_cache(maxsize=4096)(lambda path, given, *state: verify(path, *given))

    @functools.wraps(verify)
    def check(path: Path, *given: Hashable) -> Result:
        """Return what `verify` returns, and raise what it raises."""
        status = path.stat()
        if time.time() - status.st_mtime <= SETTLED:
            return verify(path, *given)
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return remembered(path.resolve(), given, *state)

    return check


def check_space(path: Path, nbytes: int) -> None:
    """Raise DataError if a file does not fit on its disk with a small reserve: HDF5 may crash on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < (needed := 1.05 * nbytes + 1e6):
        raise DataError(
            f"{path} needs {needed / 1e6:.1f} MB and {path.parent} has {free / 1e6:.1f} MB free: make room, "
            "or name another folder"
        )


def content_hash(value: Any) -> str:
    """Return the sha256, in hexadecimal, of a value made of dicts, sequences, texts, numbers and None.

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
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names may not be valid text


def write_csv(rows: Sequence[Any], path: Path | None, *, kind: type | None = None) -> None:
    """Write a table, one line per row below a header; complete or absent, or to stdout if `path` is None.

    The rows are instances of one dataclass, `kind`, or dicts with the same keys; `kind` is needed if there may be none.
    Text that spreadsheets would take for a formula begins with an apostrophe; `plain_cell` returns it as it was.
    Control characters are written as escapes.
    """
    table = [row if isinstance(row, dict) else dataclasses.asdict(row) for row in rows]
    names = list(table[0]) if kind is None else [field.name for field in dataclasses.fields(kind)]
    lines = [names, *([_cell(value) for value in row.values()] for row in table)]
    if path is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
        return
    with (
        complete_or_absent(path) as beside,
        beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(lines)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value, keep="\n\t")
    return f"'{text}" if _FORMULA.match(text) else text


def plain_cell(cell: str) -> str:
    """Return the text that `write_csv` has written as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
