"""HDF5 files are opened in one place, and what is no damage is not called damage."""

from __future__ import annotations

import fcntl
import re
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_files import KINDS

import transferlens
from transferlens.store.run import load_run
from transferlens.store.runfile import seal
from transferlens.util import hdf5
from transferlens.util.errors import CheckpointError, DataError, MachineError
from transferlens.util.hdf5 import Crc32, Seal


@pytest.fixture(params=KINDS)
def stored(request, tmp_path):
    """A run file or cache, and its readers."""
    write, readers, _ = KINDS[request.param]
    path = tmp_path / "stored.h5"
    write(path)
    return path, readers


def test_files_are_opened_for_reading_in_one_place():
    package = Path(transferlens.__file__).parent
    opening = {path.name for path in package.rglob("*.py") if re.search(r'h5py\.File\([^"]*"r', path.read_text())}
    assert opening == {"hdf5.py"}


def test_known_checksum():
    checksum = Crc32()
    checksum.update(b"1234")
    checksum.update(b"56789")
    assert checksum.digest().hex() == "cbf43926"


@pytest.mark.parametrize("content", [b"", b"a", b"a" * 3_000_000])
def test_a_seal_is_written_once_and_verified(tmp_path, content):
    path, tested = tmp_path / "x", Seal(b"tag", Crc32)
    path.write_bytes(content)
    for _ in range(2):
        with path.open("rb") as file:
            assert tested.verify(file) is (path.stat().st_size > len(content))
        tested.write(path)
        assert path.read_bytes()[:-7] == content


LOCKED = r"it cannot be locked \({}\): set HDF5_USE_FILE_LOCKING=FALSE"
MACHINE = {
    "lock of another process": (
        BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11, error message = '')"),
        LOCKED.format("Resource temporarily unavailable"),
    ),
    "no locks": (
        OSError("Unable to synchronously open file (unable to lock file, errno = 37, error message = '')"),
        LOCKED.format("No locks available"),
    ),
    "rights": (PermissionError(13, "Permission denied"), "Permission denied: ask its owner for the right to read it"),
    "rights of the process": (PermissionError(1, "x"), "Operation not permitted: ask its owner"),
    "disk": (
        OSError("Can't read data (file read failed: errno = 5)"),
        "Input/output error: it may be whole: try again",
    ),
    "disk, opening an object": (KeyError("Unable to open object (errno = 5)"), "Input/output error: it may be whole"),
    "network": (OSError(116, "x"), "Stale file handle: it may be whole: try again, and check the disk or the network"),
    "files of the process": (OSError(24, "x"), r"Too many open files: raise the limit of open files \(ulimit -n\)"),
    "files of the machine": (OSError(23, "x"), r"Too many open files in system: raise the limit"),
    "memory": (MemoryError("x"), "Cannot allocate memory: end other programs"),
    "open for writing": (
        OSError("file is already open for write"),
        "it is open for writing: close it first",
    ),
}


@pytest.mark.parametrize("case", MACHINE)
def test_errors_of_the_machine_are_no_damage(stored, monkeypatch, case):
    path, readers = stored
    error, message = MACHINE[case]

    def failing(*given, **options):
        raise error

    monkeypatch.setattr(h5py, "File", failing)
    for reader in readers:
        with pytest.raises(MachineError, match=f"stored.h5 cannot be read: {message}") as raised:
            reader(path)
        assert isinstance(raised.value, CheckpointError)
        assert isinstance(raised.value, DataError)
        assert not re.search("delete|damaged|aside", str(raised.value))


@pytest.mark.parametrize("number", [22, 27, 75])
def test_places_beyond_all_files_are_damage(stored, monkeypatch, number):
    path, readers = stored

    def failing(*given, **options):
        raise OSError(f"Can't read data (file read failed: errno = {number})")

    monkeypatch.setattr(h5py, "File", failing)
    for reader in readers:
        with pytest.raises((CheckpointError, DataError), match="is not a readable"):
            reader(path)


def test_a_file_is_read_while_another_process_has_its_lock(stored):
    path, readers = stored
    expected = [reader(path) for reader in readers]
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(path, "r")
        assert [reader(path) for reader in readers] == expected


@pytest.mark.parametrize("locking", [None, True, False])
def test_a_file_is_read_that_the_same_process_has_open(stored, locking):
    path, readers = stored
    expected = [reader(path) for reader in readers]
    with h5py.File(path, "r", locking=locking):
        assert [reader(path) for reader in readers] == expected


def test_too_many_open_files(stored):
    path, readers = stored
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for reader in readers:
            with pytest.raises(MachineError, match="cannot be read: Too many open files"):
                reader(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for reader in readers:
        reader(path)


def test_a_run_that_was_opened_for_writing_names_the_way_back(tmp_path):
    path = tmp_path / "run.h5"
    write, readers, _ = KINDS["run"]
    write(path)
    expected = [reader(path) for reader in readers]
    with h5py.File(path, "r+") as file:
        file["config"].attrs["seed"] = 0
    for reader in readers:
        with pytest.raises(
            CheckpointError,
            match=r"checksum is missing or does not match its content: if it was changed on purpose, "
            r"transferlens\.store\.runfile\.seal writes a new one\); if it was a run, move it to another folder",
        ):
            reader(path)
    seal(path)
    assert [reader(path) for reader in readers] == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no sound, no run", "it is not an HDF5 file"), (b"", "it is not an HDF5 file"), (None, "such as features")],
)
def test_a_file_that_was_never_a_run_is_called_so(tmp_path, content, reason):
    path = tmp_path / "other.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["x"] = 1
        Seal(b"transferlens crc32\n", Crc32).write(path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"of another kind \([^:]*{reason}\); if it was a run") as caught:
        load_run(path)
    assert "seal" not in str(caught.value)


@pytest.mark.parametrize("longest", [1, 15, 300, 9000])
def test_texts_of_any_length_are_read(tmp_path, longest):
    """Written at once or one by one, and some of them replaced: HDF5 puts several into one place of the file."""
    rng = np.random.default_rng(longest)
    words = ["x" * n for n in rng.integers(0, longest + 1, 400)]
    path, tested = tmp_path / "x.h5", Seal(b"tag", Crc32)
    for _ in range(2):
        with h5py.File(path, "a") as file:
            file.pop("words", None)
            texts = file.require_dataset("texts", (400,), h5py.string_dtype())
            for i in rng.integers(0, 400, 50):
                texts[i] = words[i]
            file["words"] = words
            file.attrs.update({f"a{i}": word for i, word in enumerate(words[:200])})
    tested.write(path)
    with hdf5.opened(path, tested) as file:
        assert file.texts("words") == words
        assert set(file.texts("texts")) <= {"", *words}
        attributes = file.attrs
        assert [attributes[f"a{i}"] for i in range(200)] == words[:200]


@pytest.mark.parametrize("damage", [b"\xff" * 4, b"\x06"])
def test_an_attribute_that_claims_a_longer_text_than_the_file_has(tmp_path, damage):
    """HDF5 would make room for up to four gigabytes before it looks for the text."""
    path, tested = tmp_path / "x.h5", Seal(b"tag", Crc32)
    with h5py.File(path, "w") as file:
        file.attrs["word"] = "hello"
    content = path.read_bytes()
    place = content.index(b"word\0") + 40  # of the length, behind the name, the type and the shape
    assert content[place : place + 4] == b"\5\0\0\0"
    path.write_bytes(content[:place] + damage + content[place + len(damage) :])
    tested.write(path)
    with (
        pytest.raises(hdf5.Damaged, match="its attribute 'word' is a text that is not in the file"),
        hdf5.opened(path, tested),
    ):
        pass


def test_texts_in_a_newer_form_are_refused_as_their_lengths_cannot_be_checked(tmp_path):
    path, tested = tmp_path / "x.h5", Seal(b"tag", Crc32)
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["word"] = "hello"
    tested.write(path)
    with pytest.raises(hdf5.Damaged, match="texts are attributes in a newer form"), hdf5.opened(path, tested):
        pass


def test_a_text_that_hdf5_would_read_for_ever(tmp_path):
    """An entry of a global heap that leads to itself, even where another heap seems to stand around it."""
    path, tested = tmp_path / "x.h5", Seal(b"tag", Crc32)
    with h5py.File(path, "w") as file:
        file["texts"] = ["a", "b", "c"]
        file["numbers"] = np.frombuffer(b"GCOL\x01" * 1000, np.uint8)
    tested.write(path)
    with hdf5.opened(path, tested) as file:
        assert file.texts("texts") == ["a", "b", "c"]
    content = path.read_bytes()
    heap, numbers = content.index(b"GCOL\1\0\0\0"), content.index(b"GCOL\1GCOL\1")
    around = b"GCOL\1\0\0\0" + (4096).to_bytes(8, "little")
    itself, nowhere = bytes(16), b"\1\0\0\0\0\0\0\0" + b"\xff" * 8
    for place, damage, message in (
        (heap + 16, itself, "is damaged"),
        (heap + 16, nowhere, "is damaged"),
        (numbers, around + itself, "is damaged"),
        (heap - 32, around + b"\1\0\0\0\0\0\0\0" + (4064).to_bytes(8, "little"), "overlap"),
    ):
        path.write_bytes(content[:place] + damage + content[place + len(damage) :])
        tested.write(path)
        with pytest.raises(hdf5.Damaged, match=message), hdf5.opened(path, tested):
            pass
