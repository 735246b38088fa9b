"""Damage run files and feature caches at random, and read them.

``python tests/fuzz_stored_files.py 200000`` tries that many cases of each kind: damage that the checksum shows, and the
same damage sealed again, so that HDF5 reads it. Cases are read in a process of their own, as HDF5 may crash or hang.
"""

from __future__ import annotations

import functools
import itertools
import queue
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from stored_files import KINDS

from transferlens.util.errors import CheckpointError, DataError

# Seconds that a case may take, on a busy machine, and bytes of memory.
MOST, MOST_MEMORY = 20, 2**32


def damage(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, or a part of the content replaced, left out or put in."""
    size = len(content)
    start, length = chance.randrange(size), min(size, 2 ** chance.randrange(14))
    if chance.random() < 0.5:
        start = chance.randrange(min(size, 4096)) if chance.random() < 0.5 else start
        changed = bytearray(content)
        for place in {start, *(chance.randrange(size) for _ in range(chance.randrange(8)))}:
            changed[place] ^= chance.choice([1 << chance.randrange(8), 255, chance.randrange(1, 256)])
        return bytes(changed)
    other = chance.randrange(size)
    new = chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length), content[other : other + length]])
    end = {"replaced": start + length, "put in": start, "left out": start + length, "cut": size}
    kind = chance.choice(list(end))
    return content[:start] + (new if kind in ("replaced", "put in") else b"") + content[end[kind] :]


def read(kind: str, path: Path) -> list[str | None]:
    """What each reader returns; None if it refuses the file as it should."""
    returned: list[str | None] = []
    for reader in KINDS[kind][1]:
        try:
            returned.append(reader(path))
        except (CheckpointError, DataError) as error:
            assert "\n" not in str(error)
            returned.append(None)
    return returned


@functools.cache
def whole(kind: str, path: Path) -> tuple[bytes, list[str | None]]:
    """The bytes of a file that is not damaged, and what is read of it."""
    KINDS[kind][0](path)
    return path.read_bytes(), read(kind, path)


def check(kind: str, is_sealed: bool, number: int, folder: Path) -> str:
    """Try one case; return what is wrong with the outcome."""
    content, expected = whole(kind, folder / f"whole-{kind}.h5")
    path = folder / f"{kind}.h5"
    path.write_bytes(damage(content, random.Random(f"{kind} {number}")))
    if is_sealed:
        KINDS[kind][2].write(path)
    try:
        returned = read(kind, path)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    right = is_sealed or all(value in (None, right) for value, right in zip(returned, expected, strict=True))
    return "" if right else "a wrong value"


def cases(n: int, first: int = 0) -> list[tuple[str, bool, int]]:
    return [(kind, is_sealed, i) for i in range(first, first + n) for kind in KINDS for is_sealed in (False, True)]


def work(n: int, first: int, start: int) -> None:
    """Try all cases from `start` on, and write the outcome of each in one line."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(n, first)[start:]:
            print(ascii(check(*case, Path(folder))), flush=True)


def outcomes(n: int, first: int, start: int) -> Iterator[str]:
    """Yield the lines of `work` in another process, and last why there are no more."""
    command = [sys.executable, __file__, str(n), str(first), str(start)]
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        thread = threading.Thread(target=lambda: [*map(lines.put, process.stdout), lines.put("")], daemon=True)
        thread.start()
        try:
            while line := lines.get(timeout=MOST).strip():
                yield line
            yield f"it ended with exit code {process.wait()}"
        except queue.Empty:
            yield f"no answer in {MOST} s"
        finally:
            process.kill()
            thread.join()


def fuzz(n: int, first: int = 0) -> list[str]:
    """Return one line per case with a wrong outcome."""
    wrong: list[str] = []
    done, todo = 0, cases(n, first)
    while done < len(todo):
        for outcome in itertools.islice(outcomes(n, first, done), len(todo) - done):
            wrong += [f"{todo[done]}: {outcome}"] if outcome != "''" else []
            done += 1
    return wrong


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    if len(numbers) == 3:
        work(*numbers)
    else:
        started = time.monotonic()
        wrong = fuzz(*numbers)
        n = len(cases(*numbers))
        print(*wrong, f"{n} cases, {len(wrong)} wrong, {time.monotonic() - started:.0f} s", sep="\n")
        sys.exit(bool(wrong))
