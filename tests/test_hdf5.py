"""HDF5 files are opened in one place, and what is no damage is not called damage."""

from __future__ import annotations

import fcntl
import re
import resource
from pathlib import Path

import h5py
import pytest
from stored_files import KINDS

import transferlens
from transferlens.store.runfile import seal
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
    assert not tested.verify(path)
    for _ in range(2):
        tested.write(path)
        assert path.read_bytes()[:-7] == content
        assert tested.verify(path)


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
            r"transferlens\.store\.runfile\.seal writes a new one\); if it was a run, move it aside",
        ):
            reader(path)
    seal(path)
    assert [reader(path) for reader in readers] == expected
