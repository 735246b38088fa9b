"""Where HDF5 keeps texts in a file, read from its bytes: HDF5 makes room for a text before it looks for it.

A text stands in a global heap; where it is used stands a reference to it, with its length. What a damaged file claims
of them may keep HDF5 busy for ever, or take far more memory than the file has bytes.

- `check_heaps` checks all global heaps, and returns the length of the longest text
- `text_lengths` returns the lengths of texts that attributes claim

Sections are those of the HDF5 file format specification, version 3.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

# Bytes of the smallest global heap that HDF5 reads.
SMALLEST_HEAP = 4096
# Kinds of messages in an object header.
ATTRIBUTE, CONTINUATION = 0x0C, 0x10


class Damaged(ValueError):
    """A file is damaged, or holds what no file of the package holds; the text is the reason."""


def check_heaps(file: BinaryIO) -> int:
    """Return the size of the longest text [bytes]; raise `Damaged` if HDF5 would read texts for ever.

    It does if an entry of a heap leads nowhere or to itself. Texts are in global heaps: a signature, the size, and
    entries of an index, a size and a text (section III.E).
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        end = longest = 0
        for match in re.finditer(rb"GCOL\x01", content):
            start = match.start()
            size = int.from_bytes(content[start + 8 : start + 16], "little")
            if SMALLEST_HEAP <= size <= len(content) - start:  # else numbers that look like a heap: HDF5 reads no such
                if start < end:
                    raise Damaged("global heaps, where HDF5 keeps texts, overlap")
                end = start + size
                longest = max(longest, _check_heap(content, start + 16, end))
        return longest


def _check_heap(content: Any, place: int, end: int) -> int:
    longest = 0
    while place + 16 <= end:
        index, _, length = struct.unpack_from("<H6sQ", content, place)
        place += 16 + -8 * (-length // 8) if index else length
        if place > end or (not index and length < 16):
            raise Damaged("a global heap, where HDF5 keeps texts, is damaged")
        longest = max(longest, length if index else 0)
    return longest


def text_lengths(file: BinaryIO, address: int) -> dict[bytes, int]:
    """Return the first number of the value of each attribute of an object, by name: of a text its length [bytes].

    Raise `Damaged` if the object header at this address, or an attribute, is not of version 1, as all of ours are.
    """
    lengths = {}
    for message in _attributes(file, address):
        version, *sizes = struct.unpack_from("<BxHHH", message)
        if version != 1:
            raise Damaged("it has an attribute in a newer form of HDF5, which transferlens never writes")
        start = 8 + sum(-8 * (-size // 8) for size in sizes)  # name, type and shape, each padded (IV.A.2.m)
        name = message[8 : 8 + sizes[0]].partition(b"\0")[0]
        lengths[name] = int.from_bytes(message[start : start + 4], "little")
    return lengths


def _attributes(file: BinaryIO, address: int) -> Iterator[bytes]:
    """Yield the attribute messages of an object header (IV.A.1.a)."""
    file.seek(address)
    version, count, size = struct.unpack("<BxH4xI4x", file.read(16))
    if version != 1:
        raise Damaged("texts are attributes in a newer form of HDF5, which transferlens never writes")
    blocks = [(address + 16, size)]
    while blocks and count:
        place, size = blocks.pop(0)
        file.seek(place)
        block = file.read(size)
        start = 0
        while start + 8 <= len(block) and count:
            kind, length = struct.unpack_from("<HH", block, start)
            message = block[start + 8 : start + 8 + length]
            start, count = start + 8 + length, count - 1
            if kind == CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", message))
            elif kind == ATTRIBUTE:
                yield message
