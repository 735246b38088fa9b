"""The feature cache: the features of a data set in one HDF5 file."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import math
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.data.attempts import attempt_each, check_readable
from transferlens.data.decoding import naming_memory
from transferlens.features.logmel import FeatureSettings
from transferlens.util import hdf5
from transferlens.util.errors import DataError, MachineError
from transferlens.util.files import check_space, complete_or_absent, content_hash
from transferlens.util.lazy import h5py, threadpoolctl, tqdm
from transferlens.util.once import once
from transferlens.util.processes import keep_freed_memory

if TYPE_CHECKING:
    from transferlens.data.clips import Clip, DataSet

log = logging.getLogger(__name__)

# Increase it when the numbers that log_mel gives change: old caches are then computed again.
RECIPE = 1
CONTENT = "sha256 "  # begins the name of a clip by its content


def _check_older(file: hdf5.Group) -> None:
    """Raise if features of a file without seal are damaged: it has their checksum or, still older, one per clip."""
    features = file["features"]
    if features.chunks is None and zlib.crc32(_mapped(features).data) != file.attrs["crc32"]:
        raise hdf5.Damaged(SEAL.broken)
    for i in range(len(features) if features.chunks else 0):
        features[i]  # HDF5 raises if the checksum does not match


# crc32, as each process reads a cache of gigabytes once to verify it, and sha256 takes up to five times longer.
SEAL = hdf5.Seal(b"transferlens crc32\n", hdf5.Crc32, verify_unsealed=_check_older)


class UnusableCache(DataError):
    """A feature cache is missing or damaged."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[hdf5.Group]:
    """Open a feature cache, or raise UnusableCache if it is missing or found to be damaged, now or while it is read."""
    try:
        with hdf5.opened(path, SEAL) as file:
            yield file
    except FileNotFoundError as error:
        raise UnusableCache(f"{path} does not exist any more: run the same command again to compute it") from error
    except hdf5.Damaged as error:
        raise UnusableCache(
            f"{path} is not a readable feature cache ({error}): run the same command again with its clips (clips, or "
            "dataset and root), and it is renamed and computed again"
        ) from error


def read_cached(path: Path, key: str, clip_ids: Sequence[str]) -> np.ndarray:
    """Read the features of some clips, without their audio [shape=(n_clips, channels, n_mels, width), float32].

    Raise DataError if the file is damaged, or has another `FeatureCache.key` than `key`.
    """
    with opened(path) as file:
        if file.attrs["key"] != key:
            raise DataError(
                f"{path} contains other features than those with the key {key[:8]}: move it to another folder"
            )
        rows = {clip: row for row, clip in enumerate(file.texts("clip_ids"))}
        if unknown := [clip for clip in clip_ids if clip not in rows]:
            raise DataError(f"{path} has no features of {unknown[0]}: name the clips to compute them from")
        features = file["features"]
        if features.ndim != 4 or features.dtype.kind != "f":
            raise hdf5.Damaged("its features are not numbers of four axes")
        S = np.empty((len(clip_ids), *features.shape[1:]), np.float32)
        for i, clip in enumerate(clip_ids):
            S[i] = features[rows[clip]]
        return S


def cached_clips(path: Path) -> list[str]:
    """Return the ids of all clips of a cache file; raise UnusableCache if it is missing or damaged."""
    with opened(path) as file:
        return file.texts("clip_ids")


@once
def _digests(dataset: DataSet) -> list[str]:
    """Return the sha256 of the content of every clip; raise DataError if some cannot be read."""
    digests = attempt_each(dataset.digest, dataset.clips)
    check_readable(digests, len(digests))
    return [str(digest) for digest in digests]


def _mapped(features: Any) -> np.ndarray:
    """Return an HDF5 data set as an array that stands for the file: processes share its memory; changes stay inside.

    Raise `hdf5.Damaged` if it exceeds its file.
    """
    start = features.id.get_offset()
    if start is None or start + features.nbytes > features.file.id.get_filesize():
        raise hdf5.Damaged("its features are declared to be larger than the file")
    return np.memmap(features.file.filename, features.dtype, "c", start, features.shape)


class FeatureCache:
    """The features of a data set in one HDF5 file in a folder, one row per clip in the order of the clips.

    Attributes
    ----------
    key : str
        Sha256 over the recipe, the settings, and the id and content of every clip.
    path : Path
    shape : tuple of int
        (n_clips, channels, n_mels, width)
    """

    dtype = "f4"
    per_clip = 1  # rows
    part_rows = 512  # rows that are computed and written at once

    def __init__(self, dataset: DataSet, settings: FeatureSettings, folder: Path) -> None:
        self.dataset, self.settings = dataset, settings
        self.key = content_hash(self.content)
        self.path = folder / f"{dataset.name}-{self.key[:8]}.h5"
        self.shape = (len(dataset.clips) * self.per_clip, *settings.shape)

    @property
    def data_key(self) -> str:
        """Sha256 over features, labels and folds: all the data that runs are trained on."""
        clips = self.dataset.clips
        return content_hash([self.key, [clip.label for clip in clips], [clip.fold for clip in clips]])

    @property
    def content(self) -> list:
        """What the key is computed from."""
        return [RECIPE, dataclasses.asdict(self.settings), [clip.id for clip in self.dataset.clips], self.digests]

    @functools.cached_property
    def digests(self) -> list[str]:
        """Sha256 of the content of every clip."""
        return _digests(self.dataset)

    @functools.cached_property
    def names(self) -> list[set[str]]:
        """What each clip is known by in any data set: the content of its file, and the name of its recording."""
        groups = [{clip.group} if clip.group else set() for clip in self.dataset.clips]
        return [{f"{CONTENT}{digest[:16]}", *group} for digest, group in zip(self.digests, groups, strict=True)]

    def compute(self, number: int, clip: Clip) -> np.ndarray:
        """Compute the rows of the clip with this index in the data set [shape=(per_clip, channels, n_mels, width)]."""
        return self.settings.compute(self.dataset.load(clip), self.dataset.sr)[None]

    @property
    def nbytes(self) -> int:
        """Size of the features in memory [bytes]."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def _check(self) -> None:
        """Raise `hdf5.Damaged` or FileNotFoundError if the file is not whole or does not contain these features."""
        with hdf5.opened(self.path, SEAL) as file:
            features = file["features"]
            if (file.attrs["key"], features.shape, features.dtype) != (self.key, self.shape, np.dtype(self.dtype)):
                raise hdf5.Damaged("it holds other features")
            if features.chunks is None:
                _mapped(features)
            if file.texts("clip_ids") != [clip.id for clip in self.dataset.clips]:
                raise hdf5.Damaged("its clips are in another order")

    def is_complete(self) -> bool:
        """Return whether the file is whole and contains these features; raise MachineError if it cannot be read."""
        try:
            self._check()
        except (hdf5.Damaged, FileNotFoundError):
            return False
        return True

    def load(self) -> np.ndarray:
        """Return all features [shape and type of the cache], mapped to the file if it holds them in one piece.

        They are computed again if the file is missing or damaged.
        """
        self.fill()
        with opened(self.path) as file:
            features = file["features"]
            return _mapped(features) if features.chunks is None else hdf5.array(features)

    def fill(self) -> None:
        """Compute the features and write them, unless this is done already; raise one DataError for unreadable clips.

        A file that is damaged is kept under another name. Parts of some hundred rows are written as they are finished;
        if the process is killed, they are used again.
        """
        if self.path.is_dir():
            raise DataError(f"{self.path} is a folder, and features are to be written there: move it to another folder")
        try:
            self._check()
        except FileNotFoundError:
            self._compute_all()
        except hdf5.Damaged as error:
            self._set_aside(str(error))
            self._compute_all()

    def _set_aside(self, reason: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self.path.replace(aside)
            log.warning("%s is moved to %s and computed again: %s", self.path, aside.name, reason)

    def _compute_all(self) -> None:
        keep_freed_memory()
        folder = self.path.with_suffix(".parts")
        written = sum(part.stat().st_size for part in folder.iterdir()) if folder.is_dir() else 0
        check_space(self.path, max(self.nbytes, 2 * self.nbytes - written))
        try:
            self._write_parts(folder)
            self._join_parts(folder)
        except FileNotFoundError:  # another process was faster, and has removed the parts
            if not self.is_complete():
                raise
        except MachineError:
            raise
        except DataError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)

    def _parts(self, folder: Path) -> Iterator[tuple[Path, range]]:
        """Yield the file of each part, and the indices of its clips."""
        n_clips, step = len(self.dataset.clips), max(1, self.part_rows // self.per_clip)
        for start in range(0, n_clips, step):
            yield folder / f"{start}", range(start, min(start + step, n_clips))

    def _write_parts(self, folder: Path) -> None:
        """Compute and write the parts that are missing or damaged; raise one DataError for all unreadable clips."""
        n_clips, errors = len(self.dataset.clips), []
        desc = f"features of {self.dataset.name}"
        with tqdm.tqdm(total=n_clips, desc=desc, unit="clip", delay=1, disable=None) as bar:
            for path, clips in self._parts(folder):
                if self._read_part(path, clips) is None:
                    errors += self._write_part(path, clips, bar)
                bar.update(clips.stop - bar.n)
        check_readable(errors, n_clips)

    def _write_part(self, path: Path, clips: range, bar: Any) -> list[DataError]:
        """Compute and write the rows of some clips, or return the errors of those that cannot be read."""

        def compute(number: int) -> np.ndarray:
            """Return the rows of a clip [shape=(per_clip, channels, n_mels, width)]; raise DataError if it changed."""
            clip = self.dataset.clips[number]
            with naming_memory(clip.id):
                rows = self.compute(number, clip).astype(self.dtype)
            if self.dataset.digest(clip) != self.digests[number]:
                raise DataError(f"{clip.path} has changed since the command began: run it again")
            return rows

        with threadpoolctl.threadpool_limits(1):  # threads compute side by side: FFT and products release the GIL
            rows: list[Any] = attempt_each(compute, clips, bar=bar)
        if errors := [row for row in rows if isinstance(row, DataError)]:
            return errors
        content = np.concatenate(rows).tobytes()
        with complete_or_absent(path) as beside:
            beside.write_bytes(hashlib.sha256(content).digest() + content)
        return []

    def _read_part(self, path: Path, clips: range) -> np.ndarray | None:
        """Read the rows of some clips; None if the file is missing or damaged."""
        shape = (len(clips) * self.per_clip, *self.shape[1:])
        try:
            content = path.read_bytes()
        except OSError:
            return None
        rows = memoryview(content)[hashlib.sha256().digest_size :]
        expected = np.dtype(self.dtype).itemsize * math.prod(shape)
        if len(rows) != expected or hashlib.sha256(rows).digest() != content[:-expected]:
            return None
        return np.frombuffer(rows, self.dtype).reshape(shape)

    def _join_parts(self, folder: Path) -> None:
        """Write the cache file from its parts."""
        with complete_or_absent(self.path) as beside:
            with h5py.File(beside, "w", locking=False) as file:
                rows = file.create_dataset("features", self.shape, self.dtype)
                for path, clips in self._parts(folder):
                    part = self._read_part(path, clips)
                    if part is None:
                        raise FileNotFoundError(errno.ENOENT, "was removed", str(path))
                    rows[self.per_clip * clips.start : self.per_clip * clips.stop] = part
                file["clip_ids"] = [clip.id for clip in self.dataset.clips]
                settings = json.dumps(dataclasses.asdict(self.settings))
                file.attrs.update(key=self.key, recipe=RECIPE, settings=settings)
            SEAL.write(beside)
