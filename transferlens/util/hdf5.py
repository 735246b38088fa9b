"""Open HDF5 files for reading: nothing outside of a file is read, whatever the file holds.

HDF5 files can name other files to read (links, external storage, virtual data sets) and programs to load (filters), can
be nested without end, and can declare more than they hold. The package writes nothing of this, and `opened` refuses it.
It gives no access to h5py's own groups, which would follow it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from transferlens.util.errors import MachineError, TransferLensError
from transferlens.util.files import once_per_state
from transferlens.util.hdf5_bytes import Damaged, check_heaps, text_lengths
from transferlens.util.lazy import h5py

# Far more than a run of the largest network has: members of groups, groups above one, attributes of a group.
MOST_MEMBERS, DEEPEST, MOST_ATTRIBUTES = 50_000, 16, 1000
# Bytes that are read at once: of a file to verify it, and at most of texts.
PIECE, MOST_TEXT = 2**20, 2**28
SIGNATURE = b"\x89HDF\r\n\x1a\n"
# How the tags of all seals begin, and the longest seal [bytes].
TAGS, LONGEST_SEAL = b"transferlens ", 64
REFERENCE = 16  # bytes that stand for a text in a data set: its length (4), and where it is
# What h5py raises for damaged files.
_UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError)
# System errors that a damaged file causes: it names places that no file has.
_OF_CONTENT = {errno.EINVAL, errno.EFBIG, errno.EOVERFLOW, errno.ERANGE}
_LOCK = re.compile("unable to lock file|file locking")
_RIGHTS, _FILES = "ask its owner for the right to read it", "raise the limit of open files (ulimit -n)"
_REMEDIES = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: "end other programs, or use a machine with more memory",
}


class Crc32:
    """The checksum crc32, to be used as one of `hashlib`."""

    digest_size = 4

    def __init__(self) -> None:
        self._value = 0

    def update(self, content: Any) -> None:
        """Go on with more content."""
        self._value = zlib.crc32(content, self._value)

    def digest(self) -> bytes:
        """Return the checksum of all content."""
        return self._value.to_bytes(self.digest_size, "big")


@dataclass(frozen=True, eq=False)
class Seal:
    """What follows the HDF5 content of a file, and HDF5 ignores: a tag, and the checksum of all bytes before the tag.

    Attributes
    ----------
    tag : bytes
    checksum : callable
        As `hashlib.sha256`.
    broken : str
        Reason to give if the checksum does not match.
    verify_unsealed : callable
        Verifies an open file without the tag, or raises `Damaged`; the default raises before HDF5 opens the file.
    """

    tag: bytes
    checksum: Callable[[], Any]
    broken: str = "its checksum does not match its content"
    verify_unsealed: Callable[[Group], None] | None = None

    def write(self, path: Path) -> None:
        """Seal a file, in place of the seal that it has."""
        with path.open("r+b") as file:
            start = self._start(file)
            seal = self._of(file, start)
            file.seek(start)
            file.write(seal)
            file.truncate()

    def verify(self, file: BinaryIO) -> bool:
        """Return whether an open file is sealed; raise `Damaged` if the checksum does not match."""
        start = self._start(file)
        file.seek(start)
        found = file.read()
        if found and found != self._of(file, start):
            raise Damaged(self.broken)
        return bool(found)

    def _start(self, file: BinaryIO) -> int:
        """Return where the seal of an open file begins, or would begin if there is none."""
        end = os.fstat(file.fileno()).st_size
        start = max(0, end - len(self.tag) - self.checksum().digest_size)
        file.seek(start)
        return start if file.read(len(self.tag)) == self.tag else end

    def _of(self, file: BinaryIO, size: int) -> bytes:
        """Return the seal of the first `size` bytes of an open file."""
        checksum = self.checksum()
        file.seek(0)
        while size > 0 and (piece := file.read(min(size, PIECE))):
            checksum.update(piece)
            size -= len(piece)
        return self.tag + checksum.digest()


class Group(Mapping[str, Any]):
    """A group of an open file: groups and data sets by name. What it returns, and all links, were checked.

    Attributes
    ----------
    filename : str
    size : int [bytes]
        That of the file.
    """

    def __init__(self, id: Any, filename: str, size: int, longest: int, depth: int = 0) -> None:
        self._id, self.filename, self.size, self._longest, self._depth = id, filename, size, longest, depth
        if depth > DEEPEST or h5py.h5o.get_info(id).rc > 1:
            raise Damaged(f"groups are nested deeper than {DEEPEST}, or in a circle")
        links: list[tuple[bytes, int]] = []  # an error in what HDF5 calls back would be lost

        def add(name: bytes, info: Any) -> bool | None:
            links.append((name, info.type))
            return len(links) > MOST_MEMBERS or None

        id.links.iterate(add, info=True)
        if len(links) > MOST_MEMBERS:
            raise Damaged(f"a group has more than {MOST_MEMBERS} members")
        if elsewhere := [name for name, kind in links if kind != h5py.h5l.TYPE_HARD]:
            raise Damaged(f"{_shown(elsewhere[0])} is a link to another place")
        if paths := [name for name, _ in links if b"/" in name or name in (b"", b".")]:
            raise Damaged(f"{_shown(paths[0])} is not a valid name: HDF5 would read it as a path")
        self._names = dict.fromkeys(name.decode() for name, _ in links)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        item = h5py.h5o.open(self._id, name.encode())
        if isinstance(item, h5py.h5g.GroupID):
            return Group(item, self.filename, self.size, self._longest, self._depth + 1)
        _check_dataset(item, name, self.size)
        return h5py.Dataset(item)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def texts(self, name: str) -> list[str]:
        """Return the texts that a data set holds [shape=(n,)]; raise `Damaged` if they exceed the file."""
        dataset = self[name]
        if not _is_text(dataset.id.get_type()) or dataset.ndim != 1:
            raise Damaged(f"{_shown(dataset.name)} is not a list of texts")
        self._check_lengths(dataset)
        space, total, values = dataset.id.get_space(), 0, np.empty(len(dataset), dataset.dtype)
        # All texts may be one place in the file, and take many times its size in memory.
        step = max(1, MOST_TEXT // max(self._longest, dataset.dtype.itemsize))
        for start in range(0, len(values), step):
            part = values[start : start + step]
            space.select_hyperslab((start,), part.shape)
            dataset.id.read(h5py.h5s.create_simple(part.shape), space, part)
            total += sum(map(len, part))
            if total > self.size:
                raise Damaged(f"{_shown(dataset.name)} is larger than the file")
        return [value.decode() for value in values.tolist()]

    def _check_lengths(self, dataset: Any) -> None:
        """Raise `Damaged` if a text is said to be longer than any of the file: HDF5 would make room for it first."""
        if dataset.dtype.kind != "O" or not len(dataset):
            return
        place = dataset.id.get_offset()  # None if the data set is not in one piece, which no file of ours has
        count = len(dataset) * REFERENCE // 4 if place else 0
        lengths = np.fromfile(self.filename, "<u4", count, offset=place or 0)[:: REFERENCE // 4]
        if len(lengths) < len(dataset) or lengths.max() > self._longest:
            raise Damaged(f"{_shown(dataset.name)} has texts that are not in the file")

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes by name, as h5py returns them."""
        values: dict[str, Any] = {}
        total = 0
        for name in [name.decode() for name in self._attributes()]:
            values[name] = value = _value(h5py.h5a.open(self._id, name.encode()), name, self.size)
            total += len(value) if isinstance(value, str) else 0
            if total > self.size:
                raise Damaged("its attributes are larger than the file")
        return values

    def _attributes(self) -> list[bytes]:
        """Return the names of the attributes."""
        count = h5py.h5a.get_num_attrs(self._id)
        if count > MOST_ATTRIBUTES:
            raise Damaged(f"it has {count} attributes in one place")
        names: list[bytes] = []
        h5py.h5a.iterate(self._id, lambda name: names.append(name))
        return names

    def check_texts(self, content: BinaryIO) -> None:
        """Raise `Damaged` if an attribute here or below is a text that is said to be longer than any of the file."""
        if texts := [name for name in self._attributes() if _is_text(h5py.h5a.open(self._id, name).get_type())]:
            lengths = text_lengths(content, h5py.h5o.get_info(self._id).addr)
            if wrong := [name for name in texts if lengths.get(name, self.size) > self._longest]:
                raise Damaged(f"its attribute {_shown(wrong[0])} is a text that is not in the file")
        for name in self:
            if h5py.h5o.get_info(self._id, name.encode()).type == h5py.h5o.TYPE_GROUP:
                self[name].check_texts(content)

    def check_members(self) -> None:
        """Raise `Damaged` if a data set, or a group with its links, is refused, or if there are too many."""
        count = len(self)
        for item in self.values():
            count += len(item) if isinstance(item, Group) else 0
            if count > MOST_MEMBERS:
                raise Damaged(f"it has more than {MOST_MEMBERS} groups and data sets")

    def datasets(self) -> dict[str, Any]:
        """Return every data set below the group, by its path in the group; raise `Damaged` if they exceed the file."""
        items: dict[str, Any] = {}
        waiting, count = [("", self)], 0
        while waiting:
            path, group = waiting.pop()
            if (count := count + len(group)) > MOST_MEMBERS:
                raise Damaged(f"it has more than {MOST_MEMBERS} groups and data sets")
            for name, item in group.items():
                if isinstance(item, Group):
                    waiting.append((f"{path}{name}/", item))
                else:
                    items[path + name] = item
        if sum(item.nbytes for item in items.values()) > self.size:
            raise Damaged("its data sets are declared to be larger than the file")
        return items


def _shown(name: Any) -> str:
    """Return a name from a file as printable text of limited length."""
    return ascii(name.decode(errors="replace") if isinstance(name, bytes) else name)[:60]


def _check_dataset(dataset: Any, name: str, size: int) -> None:
    """Raise `Damaged` unless a low-level data set holds numbers or texts, in the file, of its size [bytes] at most."""
    settings = dataset.get_create_plist()  # first: other files may be opened to find the shape of a virtual data set
    layout = settings.get_layout()
    if layout == h5py.h5d.VIRTUAL or settings.get_external_count():
        raise Damaged(f"{_shown(name)} is stored in another file")
    if {settings.get_filter(i)[0] for i in range(settings.get_nfilters())} - {h5py.h5z.FILTER_FLETCHER32}:
        raise Damaged(f"{_shown(name)} is compressed or filtered")
    if dataset.shape is None:
        raise Damaged(f"{_shown(name)} is empty")
    chunk = settings.get_chunk() if layout == h5py.h5d.CHUNKED else ()
    _check_type(dataset.get_type(), [dataset.shape, chunk], name, size)
    if layout == h5py.h5d.CHUNKED:
        _check_chunks(dataset, math.prod(chunk) * dataset.get_type().get_size() + 4 * settings.get_nfilters(), name)


def _check_chunks(dataset: Any, nbytes: int, name: str) -> None:
    """Raise `Damaged` unless each part of a low-level data set has `nbytes`: HDF5 reads past the end of others."""
    wrong: list[Any] = []

    def add(info: Any) -> bool | None:
        if info.filter_mask or info.size != nbytes:
            wrong.append(info)
        return bool(wrong) or None

    dataset.chunk_iter(add)
    if wrong:
        raise Damaged(f"{_shown(name)} has a part of {wrong[0].size} bytes, not of {nbytes}")


def _check_type(kind: Any, shapes: Sequence[Sequence[int]], name: str, size: int) -> np.dtype:
    """Return a type of numbers or texts; raise `Damaged` if it is another, or a shape has more bytes than `size`."""
    dtype = kind.dtype
    if kind.committed() or not (_is_text(kind) or dtype.kind in "biuf"):
        raise Damaged(f"{_shown(name)} holds neither numbers nor texts")
    nbytes = max(map(math.prod, shapes)) * kind.get_size()
    if nbytes > size:
        raise Damaged(f"{_shown(name)} is declared to have {nbytes} bytes, more than its file")
    return dtype


def _value(attribute: Any, name: str, size: int) -> Any:
    """Return the value of a low-level attribute as h5py does; raise `Damaged` if it is neither a number nor a text."""
    shape = attribute.shape
    dtype = _check_type(attribute.get_type(), [shape or ()], name, size)
    if shape is None:
        return h5py.Empty(dtype)
    if dtype.kind == "O" and shape:
        raise Damaged(f"its attribute {_shown(name)} holds several texts")
    values: Any = np.empty(shape, dtype)
    attribute.read(values)
    return values[()].decode(errors="surrogateescape") if dtype.kind == "O" else values[()]


def _is_text(kind: Any) -> bool:
    return kind.get_class() == h5py.h5t.STRING


def array(dataset: Any) -> Any:
    """Return the numbers that a data set of an open file holds; raise `Damaged` if it holds texts."""
    if _is_text(dataset.id.get_type()):
        raise Damaged(f"{_shown(dataset.name)} does not hold numbers")
    return dataset[()]


def _open(path: Path) -> Any:
    """Open a file, with a lock or, if it cannot be locked, without: none is changed in place, all have a checksum."""
    first = None
    for locking in (None, False, True):  # with True if this process has it open in this way
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if not _LOCK.search(str(error)):
                raise
            first = first or error
    assert first
    raise first


@once_per_state
def _verify(path: Path, seal: Seal) -> int:
    """Return the size of the longest text [bytes].

    Raise `Damaged` if a file does not match its checksum, or what it has at its first levels leads out of it.
    """
    with path.open("rb") as content:
        is_sealed = seal.verify(content)
        if not is_sealed and seal.verify_unsealed is None:
            raise Damaged(_other_kind(content) or seal.broken)
        longest = check_heaps(content)
        with _open(path) as file:
            if file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
                raise Damaged("it has a user block, or sizes of addresses, that transferlens never writes")
            root = Group(file.id, str(path), path.stat().st_size, longest)
            root.check_members()
            root.check_texts(content)
            if not is_sealed and seal.verify_unsealed is not None:
                seal.verify_unsealed(root)
    return longest


def _other_kind(content: BinaryIO) -> str:
    """Return what a file without the checksum is instead, in words; "" if it may have been such a file."""
    content.seek(0)
    if content.read(len(SIGNATURE)) != SIGNATURE:
        return "it is not an HDF5 file"
    content.seek(-min(content.seek(0, os.SEEK_END), LONGEST_SEAL), os.SEEK_END)
    return "it is another file of transferlens, such as features" if TAGS in content.read() else ""


@contextlib.contextmanager
def opened(path: Path, seal: Seal) -> Iterator[Group]:
    """Open a file whose checksum was verified.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    Damaged
        If it is found to be damaged, now or while it is read.
    MachineError
        If it cannot be read for another reason: it may be whole.
    """
    try:
        if not path.exists() or path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "is not a file", str(path))
        if not path.is_file():  # reading a pipe may never end
            raise Damaged("it is not a regular file")
        longest = _verify(path, seal)
        with _open(path) as file:
            yield Group(file.id, str(path), path.stat().st_size, longest)
    except (TransferLensError, Damaged, FileNotFoundError):
        raise
    except _UNREADABLE as error:
        if reason := _reason(error):
            raise MachineError(f"{path} cannot be read: {reason}") from error
        raise Damaged("what it should hold is missing or cannot be read") from error


def _reason(error: Exception) -> str:
    """Return why the machine cannot read a file, and the remedy; empty if the reason is the content of the file."""
    text = str(error)
    in_text = re.search(r"errno = (\d+)", text)
    number = getattr(error, "errno", None) or (int(in_text[1]) if in_text else None)
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    if isinstance(error, OSError) and "already open" in text:
        return "it is open for writing: close it first"
    if isinstance(error, OSError) and _LOCK.search(text):
        return f"it cannot be locked ({os.strerror(number or errno.ENOLCK)}): set HDF5_USE_FILE_LOCKING=FALSE"
    if number is None or number in _OF_CONTENT:
        return ""
    other = "it may be whole: try again, and check the disk or the network that it is on"
    return f"{os.strerror(number)}: {_REMEDIES.get(number, other)}"
