"""Waveforms to three-channel log-mel spectrograms, and the cache that holds those of a whole data set.

The recipe is that of Palanisamy, Singhania and Yao (2020, section 3.1): three log-mel spectrograms of one clip,
with windows of 25, 50 and 100 ms and hops of 10, 25 and 50 ms, each resized to one width, so that they stack like
the three colours of an image: short windows resolve time, long ones frequency.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from transferlens.errors import DataError, ParameterError
from transferlens.files import UNREADABLE, array, check_space, complete_or_absent, content_hash
from transferlens.lazy import h5py, librosa, scipy, threadpoolctl, tqdm
from transferlens.memory import keep_freed_memory

if TYPE_CHECKING:
    from transferlens.datasets import Clip, DataSet

__all__ = ["FeatureCache", "FeatureOptions", "FeatureSettings", "log_mel"]

# Raise it when the numbers that log_mel gives change: old caches are then made anew.
RECIPE = 1
FLOOR = 1e-6
TOGETHER = 64  # frames that are transformed at once: what they need stays in the processor's cache
LONGEST = 10.0  # window or hop [s]
PART = 512  # rows that are written at once
WINDOWS = (0.025, 0.05, 0.1)
HOPS = (0.01, 0.025, 0.05)


@functools.lru_cache(maxsize=32)
def mel_filters(sr: int, n_fft: int, n_mels: int, semitones: int = 0) -> scipy.sparse.csr_array:
    """HTK mel bands from 0 Hz to Nyquist, peak 1 [shape=(n_mels, n_fft // 2 + 1)]; each bin is in two bands at most.

    With `semitones` their centre frequencies are divided by ``2 ** (semitones / 12)``: they give the mel bands of the
    same sound that much higher. Bands that would lie above Nyquist are empty: nothing was recorded there.
    """
    edges = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=sr / 2, htk=True)
    bins = 2 ** (semitones / 12) * librosa.fft_frequencies(sr=sr, n_fft=n_fft)
    rising, falling = bins - edges[:-2, None], edges[2:, None] - bins
    widths = np.diff(edges)[:, None]
    filters = np.maximum(np.minimum(rising / widths[:-1], falling / widths[1:]), 0)
    return scipy.sparse.csr_array(filters.astype(np.float32))


@functools.lru_cache(maxsize=8)
def _hann(length: int) -> np.ndarray:
    return librosa.filters.get_window("hann", length, fftbins=True)


def _frames(y: np.ndarray, *, n_fft: int, win_length: int, hop_length: int) -> np.ndarray:
    """Centred frames [shape=(t, win_length)]: only the samples under the window, of frames of n_fft samples."""
    start = (n_fft - win_length) // 2
    padded = np.pad(y, n_fft // 2, mode="reflect")[start:]
    n_frames = 1 + (len(y) + 2 * (n_fft // 2) - n_fft) // hop_length
    return np.lib.stride_tricks.sliding_window_view(padded, win_length)[: n_frames * hop_length : hop_length]


def power_spectrum(y: np.ndarray, *, n_fft: int, win_length: int, hop_length: int) -> np.ndarray:
    """Power [shape=(n_fft // 2 + 1, t), float32] of centred, reflect-padded, periodic-Hann frames."""
    frames = _frames(y, n_fft=n_fft, win_length=win_length, hop_length=hop_length)
    power = np.empty((n_fft // 2 + 1, len(frames)), np.float32)
    for start in range(0, len(frames), TOGETHER):
        some = frames[start : start + TOGETHER] * _hann(win_length)
        # The power spectrum does not depend on where in the frame the window lies, so zeros may follow it. In single
        # precision the rounding of a loud tone would drown its quiet bands.
        D = scipy.fft.rfft(some, n=n_fft, axis=1)
        power[:, start : start + TOGETHER] = (D.real**2 + D.imag**2).T
    return power


def resize(S: np.ndarray, width: int) -> np.ndarray:
    """Resize the time axis to `width` frames, bilinearly and with antialiasing, as the paper's code does."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(S, dtype=np.float32))
    return np.asarray(image.resize((width, S.shape[0]), Image.Resampling.BILINEAR))


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _check_waveform(y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.floating):
        raise ParameterError(
            f"y of shape {y.shape} and dtype {y.dtype} must be a mono waveform: one non-empty axis of floats"
        )
    if not np.abs(y).max() <= 1e6:
        raise ParameterError("y must hold finite samples up to 1e6 (full scale is 1): decode or clean the clip again")
    return y


def samples(seconds: float, sr: int) -> int:
    # Halves go to the even number, as in the paper's code: 25 ms at 44100 Hz are 1102 samples.
    return round(seconds * sr)


def log_mel(
    y: np.ndarray,
    *,
    sr: int,
    n_fft: int | None = None,
    windows: Sequence[float] = WINDOWS,
    hops: Sequence[float] = HOPS,
    n_mels: int = 128,
    width: int = 250,
) -> np.ndarray:
    """Log-mel spectrograms of one clip, a channel a window, resized to one width.

    Each channel is ``log(M + 1e-6)`` with M the power of a centred STFT (reflect padding, periodic Hann) in HTK
    mel bands of unit peak from 0 Hz to Nyquist, resized in time bilinearly with antialiasing.

    Parameters
    ----------
    y : ndarray [shape=(n,), float]
        Mono waveform. One shorter than `n_fft` is padded with zeros to that length.
    sr : int > 0 [Hz]
        Sample rate of `y`.
    n_fft : int > 0 [samples], optional
        Length of the Fourier transform of every channel; by default the longest window.
    windows, hops : sequence of float > 0 [s]
        A window and a hop length a channel.
    n_mels : int > 0
        Number of mel bands.
    width : int > 0 [frames]
        Number of frames after resizing.

    Returns
    -------
    S : ndarray [shape=(len(windows), n_mels, width), float32]

    Raises
    ------
    ParameterError
        Where an argument is outside its rule.

    References
    ----------
    Palanisamy, Singhania, Yao (2020), arXiv 2007.11154, section 3.1. Their code places the bins of an odd `n_fft`
    (22 050 Hz) 0.05 % too high in frequency; here they stand where the transform has them.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    >>> log_mel(y, sr=22050).shape
    (3, 128, 250)
    """
    y = _check_waveform(y)
    settings = FeatureSettings(sr, n_fft, tuple(windows), tuple(hops), n_mels, width)
    n_fft = settings.n_fft
    assert n_fft is not None  # the settings have seen to that
    y = np.pad(y.astype(np.float32), (0, max(0, n_fft - len(y))))
    channels: dict[tuple[float, float], np.ndarray] = {}
    for window, hop in dict.fromkeys(zip(settings.windows, settings.hops, strict=True)):
        lengths = {"win_length": samples(window, sr), "hop_length": samples(hop, sr)}
        M = mel_filters(sr, n_fft, n_mels) @ power_spectrum(y, n_fft=n_fft, **lengths)
        channels[window, hop] = resize(np.log(M + np.float32(FLOOR)), width)
    return np.stack([channels[key] for key in zip(settings.windows, settings.hops, strict=True)])


@dataclass(frozen=True)
class FeatureSettings:
    """How a clip becomes features: with the clips' content, the key of the feature cache.

    Attributes
    ----------
    sr : int > 0 [Hz]
    n_fft : int > 0 [samples]; None stands for the longest window
    windows, hops : tuple of float > 0 [s], one of each a channel
    n_mels : int > 0
    width : int > 0 [frames]
    seconds : float > 0 [s] or None
        Pad with zeros or crop every clip to this length first; None stretches each whole clip to the width.
    """

    sr: int
    n_fft: int | None = None
    windows: tuple[float, ...] = WINDOWS
    hops: tuple[float, ...] = HOPS
    n_mels: int = 128
    width: int = 250
    seconds: float | None = None

    def __post_init__(self) -> None:
        # 1 and 1.0 are one setting, and have one key.
        for name in ("windows", "hops"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        object.__setattr__(self, "seconds", None if self.seconds is None else float(self.seconds))
        for name, (low, high) in {"sr": (1000, 768_000), "n_mels": (1, 4096), "width": (1, 100_000)}.items():
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise ParameterError(f"{name}={value!r} must be a whole number from {low} to {high}")
        if not self.windows or len(self.windows) != len(self.hops):
            raise ParameterError(
                f"windows={_words(self.windows)} and hops={_words(self.hops)} must be of one length, at least 1: "
                "give a hop for each window"
            )
        for name in ("windows", "hops"):
            if not all(1 / self.sr <= value <= LONGEST for value in getattr(self, name)):
                raise ParameterError(
                    f"{name}={_words(getattr(self, name))} must each be at least one sample and at most {LONGEST:g} s"
                )
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ParameterError(f"seconds={self.seconds!r} must be greater than 0")
        longest = samples(max(self.windows), self.sr)
        if self.n_fft is None:
            object.__setattr__(self, "n_fft", longest)
        elif self.n_fft < longest:
            raise ParameterError(f"n_fft={self.n_fft!r} must hold the longest window: at least {longest} samples")

    def compute(self, y: np.ndarray) -> np.ndarray:
        """Features of one waveform at the rate `sr`: [shape=(len(windows), n_mels, width), float32]."""
        if self.seconds is not None:
            y = librosa.util.fix_length(y, size=max(1, samples(self.seconds, self.sr)))
        keep = ("sr", "n_fft", "windows", "hops", "n_mels", "width")
        return log_mel(y, **{name: getattr(self, name) for name in keep})

    @property
    def mel_frequencies(self) -> np.ndarray:
        """Centre of each mel band [Hz] [shape=(n_mels,)]."""
        return librosa.mel_frequencies(self.n_mels + 2, fmin=0.0, fmax=self.sr / 2, htk=True)[1:-1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one clip's features: (channels, n_mels, width)."""
        return len(self.windows), self.n_mels, self.width


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """The options of every command that turns clips into features."""

    windows: tuple[float, ...] = WINDOWS
    """Window length of each channel [s]; a single one is used for all three channels."""
    hops: tuple[float, ...] = HOPS
    """Hop length of each channel [s]; a single one is used for all three channels."""
    fit: Literal["stretch", "pad"] = "stretch"
    """stretch: each whole clip to the width (the paper). pad: silence added or a cut to the data set's length first."""
    cache: Path = Path("cache")
    """Folder of the feature caches; each data set and setting has one file there."""

    def settings(self, dataset: DataSet) -> FeatureSettings:
        """The settings that these options mean for one data set."""
        windows, hops = (each * 3 if len(each) == 1 else each for each in (self.windows, self.hops))
        if len(windows) != 3:
            raise ParameterError(
                f"windows={_words(self.windows)} must be 3 lengths, or 1 for all: the networks take 3 channels"
            )
        return FeatureSettings(
            sr=dataset.sr,
            n_fft=dataset.n_fft,
            windows=windows,
            hops=hops,
            width=dataset.width,
            seconds=dataset.seconds if self.fit == "pad" else None,
        )


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
