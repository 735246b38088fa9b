"""The feature cache: the features of a data set in one HDF5 file."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.features.logmel import FeatureSettings
from transferlens.util.errors import DataError
from transferlens.util.files import UNREADABLE, array, check_space, complete_or_absent, content_hash
from transferlens.util.lazy import h5py, threadpoolctl, tqdm
from transferlens.util.processes import keep_freed_memory

if TYPE_CHECKING:
    from transferlens.data.clips import Clip, DataSet

__all__ = ["FeatureCache", "opened", "read_cached"]

# Raise it when the numbers that log_mel gives change: old caches are then made anew.
RECIPE = 1
PART = 512  # rows that are written at once


def _workers() -> int:
    """A thread for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _or_error(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make what raises a DataError return it, so that all clips can be looked at before the first is complained of."""

    def attempt(clip: Any) -> Any:
        try:
            return compute(clip)
        except DataError as error:
            return error

    return attempt


def _refuse(problems: Sequence[DataError], n_clips: int) -> None:
    if problems:
        raise DataError(
            f"{len(problems)} of {n_clips} clips cannot be read: {'; '.join(map(str, problems))}. "
            "Mend or remove them, or leave them out with --skip-unreadable"
        )


def read_cached(path: Path, key: str, clip_ids: Sequence[str]) -> np.ndarray:
    """Features of some clips out of a cache file, without their audio.

    Parameters
    ----------
    path : Path
    key : str
        What the file must hold: see `FeatureCache.key`.
    clip_ids : sequence of str

    Returns
    -------
    S : ndarray [shape=(n_clips, channels, n_mels, width), float32]
        In the order of `clip_ids`.

    Raises
    ------
    DataError
        Where the file is damaged, or holds other features.
    """
    with opened(path) as file:
        if file.attrs["key"] != key:
            raise DataError(f"{path} holds other features than those with the key {key[:8]}: delete it")
        places = {clip: i for i, clip in enumerate(file["clip_ids"].asstr()[:])}
        if unknown := [clip for clip in clip_ids if clip not in places]:
            raise DataError(f"{path} holds no features of {unknown[0]}: name the clips that they are to be made of")
        features = file["features"]
        if features.nbytes > file.id.get_filesize():
            raise ValueError("it claims more than its file has")
        S = np.empty((len(clip_ids), *features.shape[1:]), np.float32)
        for i, clip in enumerate(clip_ids):
            S[i] = features[places[clip]]
        return S


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A feature cache for reading; whatever is wrong with it becomes one DataError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} has gone: the same command computes it again") from error
    except UNREADABLE as error:
        raise DataError(f"{path} is no readable feature cache: delete it, it is computed again") from error


class FeatureCache:
    """The features of a data set in one HDF5 file, a row a clip in the order of the clips.

    Parameters
    ----------
    dataset : DataSet
    settings : FeatureSettings
    folder : Path

    Attributes
    ----------
    key : str
        Sha256 over the recipe, the settings and every clip's id and content.
    path : Path
    shape : tuple of int
        (n_clips, channels, n_mels, width)
    """

    dtype = "f4"
    per_clip = 1

    def __init__(self, dataset: DataSet, settings: FeatureSettings, folder: Path) -> None:
        self.dataset, self.settings = dataset, settings
        self.key = content_hash(self.content)
        self.path = folder / f"{dataset.name}-{self.key[:8]}.h5"
        self.shape = (len(dataset.clips) * self.per_clip, *settings.shape)

    @property
    def data_key(self) -> str:
        """Sha256 over features, labels and folds: what runs are trained on."""
        clips = self.dataset.clips
        return content_hash([self.key, [clip.label for clip in clips], [clip.fold for clip in clips]])

    @property
    def content(self) -> list:
        """What the key is made of."""
        return [RECIPE, dataclasses.asdict(self.settings), [clip.id for clip in self.dataset.clips], self._digests()]

    def compute(self, number: int, clip: Clip) -> np.ndarray:
        """The rows of one clip, by its number in the data set [shape=(per_clip, channels, n_mels, width)]."""
        return self.settings.compute(self.dataset.load(clip))[None]

    def _digests(self) -> list[str]:
        """Hash of each clip's content; all that cannot be read are named at once."""
        with ThreadPoolExecutor(_workers()) as pool:
            digests = list(pool.map(_or_error(self.dataset.digest), self.dataset.clips))
        _refuse([each for each in digests if isinstance(each, DataError)], len(digests))
        return digests

    @property
    def nbytes(self) -> int:
        """Size of the features in memory [bytes]."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def is_complete(self) -> bool:
        """Whether the file is there, opens, and holds these features."""
        try:
            with h5py.File(self.path, "r") as file:
                return file.attrs["key"] == self.key and file["features"].shape == self.shape
        except UNREADABLE:
            return False

    def load(self) -> np.ndarray:
        """All features at once, of the cache's shape and type."""
        with opened(self.path) as file:
            return array(file["features"])

    def fill(self) -> None:
        """Compute the features, in parallel, and write them; return at once where that is done.

        What a killed process had done in part, some hundred rows at a time, is not done again.

        Raises
        ------
        DataError
            Naming every clip that cannot be read; nothing is left then.
        """
        if self.is_complete():
            return
        if self.path.is_dir():
            raise DataError(f"{self.path} is a folder, and features are to be written there: move it away")
        keep_freed_memory()
        folder = self.path.with_suffix(".parts")
        there = sum(part.stat().st_size for part in folder.iterdir()) if folder.is_dir() else 0
        check_space(self.path, max(self.nbytes, 2 * self.nbytes - there))
        problems: list[DataError] = []
        n_clips = len(self.dataset.clips)
        bar = tqdm.tqdm(total=n_clips, desc=f"features of {self.dataset.name}", unit="clip", delay=1, disable=None)
        try:
            with bar:
                for clips in self._parts():
                    path = folder / f"{clips[0]}"
                    if self._part(path, clips) is None:
                        problems += self._fill_part(clips, path, bar)
                    bar.update(clips[-1] + 1 - bar.n)
            if not problems:
                self._join(folder)
        except FileNotFoundError:  # another process was faster
            if not self.is_complete():
                raise
        if problems:
            shutil.rmtree(folder, ignore_errors=True)
            _refuse(problems, n_clips)
        shutil.rmtree(folder, ignore_errors=True)

    def _parts(self) -> Iterator[range]:
        """The clips' numbers, some at a time."""
        size = max(1, PART // self.per_clip)
        for start in range(0, len(self.dataset.clips), size):
            yield range(start, min(start + size, len(self.dataset.clips)))

    def _fill_part(self, clips: range, path: Path, bar: Any) -> list[DataError]:
        """Compute and write the rows of some clips; or say which cannot be read. FFT and products leave the GIL."""

        def compute(number: int) -> np.ndarray:
            return self.compute(number, self.dataset.clips[number]).astype(self.dtype)

        rows = []
        with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor(_workers()) as pool:
            for found in pool.map(_or_error(compute), clips):
                rows.append(found)
                bar.update()
        problems = [each for each in rows if isinstance(each, DataError)]
        if not problems:
            with complete_or_absent(path) as beside, beside.open("wb") as file:
                values = np.concatenate(rows).tobytes()
                file.write(hashlib.sha256(values).digest() + values)
        return problems

    def _part(self, path: Path, clips: range) -> np.ndarray | None:
        """The rows of some clips, where they are there and whole."""
        shape = (len(clips) * self.per_clip, *self.shape[1:])
        try:
            content = path.read_bytes()
        except OSError:
            return None
        values = memoryview(content)[hashlib.sha256().digest_size :]
        whole = len(values) == np.dtype(self.dtype).itemsize * math.prod(shape)
        if not whole or hashlib.sha256(values).digest() != content[: -len(values)]:
            return None
        return np.frombuffer(values, self.dtype).reshape(shape)

    def _join(self, folder: Path) -> None:
        """Write the one file, of all parts."""
        with complete_or_absent(self.path) as path, h5py.File(path, "w") as file:
            rows = file.create_dataset("features", self.shape, self.dtype, chunks=(1, *self.shape[1:]), fletcher32=True)
            for clips in self._parts():
                start, stop = (self.per_clip * number for number in (clips[0], clips[-1] + 1))
                part = self._part(folder / f"{clips[0]}", clips)
                if part is None:
                    raise FileNotFoundError(errno.ENOENT, "a part has gone", str(folder / f"{clips[0]}"))
                rows[start:stop] = part
            file["clip_ids"] = [clip.id for clip in self.dataset.clips]
            file.attrs.update(key=self.key, recipe=RECIPE, settings=json.dumps(dataclasses.asdict(self.settings)))
