"""Clips and data sets: labels, folds, and how audio is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from transferlens.data import synthetic
from transferlens.data.manifest import manifest
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.text import natural, some

__all__ = ["BUILT_IN", "Clip", "DataSet", "HINTS", "LOUDEST", "UNREADABLE", "load_audio"]

BUILT_IN = "synth"
LOUDEST = 1e6  # beyond it powers leave the range of float32
# TypeError: what soundfile raises for headerless files.
UNREADABLE = (soundfile.SoundFileError, OSError, TypeError)
HINTS = {"jazz.00054": " (known to be damaged in the popular copy of GTZAN)"}


@dataclass(frozen=True)
class DataSet:
    """Clips, and how they are loaded.

    Attributes
    ----------
    name : str
    sr : int > 0 [Hz]
        Rate at which clips are loaded.
    seconds : float > 0 [s]
        Nominal length of a clip, or that of the longest one.
    n_fft : int > 0 [samples] or None
        Length of the Fourier transform; None leaves it to the features.
    width : int > 0 [frames]
        Width of the features.
    clips : tuple of Clip
        Sorted by id.
    skipped : tuple of str
        Ids of clips that were left out because they cannot be read.
    """

    name: str
    sr: int
    seconds: float
    n_fft: int | None
    width: int
    clips: tuple[Clip, ...]
    skipped: tuple[str, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted({clip.label for clip in self.clips}))

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds, numbers in numerical order."""
        return tuple(sorted({clip.fold for clip in self.clips}, key=natural))

    @property
    def held_out_folds(self) -> tuple[str, ...]:
        """The folds that are held out by default: each in turn, or "test" alone where one is named "train"."""
        if "train" not in self.folds:
            return self.folds
        return ("test",) if "test" in self.folds else tuple(fold for fold in self.folds if fold != "train")

    def split(self, fold: str, inner_fold: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Places among the clips of those trained on and of those held out: two ndarrays of int.

        All other folds but `inner_fold` are trained on, or only the one named "train" where there is one.

        Raises
        ------
        DataError
            Where the other folds leave nothing to learn from.
        """
        folds = np.array([clip.fold for clip in self.clips], dtype=object)
        other = folds == "train" if "train" in self.folds and fold != "train" else folds != fold
        training = np.flatnonzero(other & (folds != inner_fold))
        if (classes := len({self.clips[i].label for i in training})) < 2:
            raise DataError(
                f"fold {fold!r} of {self.name} held out leaves {len(training)} clips of {classes} classes to train on: "
                "at least 2 classes are needed in the other folds"
            )
        return training, np.flatnonzero(folds == fold)

    def decode(self, clip: Clip) -> tuple[np.ndarray, int]:
        """One clip as it is stored: mono samples [shape=(n,), float32] and their rate [Hz].

        Raises
        ------
        DataError
            Where the file is missing, unreadable, empty, or holds NaN or infinite samples.
        """
        if clip.path is None:
            return synthetic.render(clip.id).y, manifest()[BUILT_IN].sr
        return _decode(clip.path)

    def load(self, clip: Clip) -> np.ndarray:
        """One clip at the rate `sr`; threads may call it side by side.

        Returns
        -------
        y : ndarray [shape=(n,), float32]
            Mono waveform, as long as the clip is.

        Raises
        ------
        DataError
            Where the file is missing, unreadable, empty, or holds NaN or infinite samples.
        """
        return _resample(*self.decode(clip), self.sr)

    def digest(self, clip: Clip) -> str:
        """Sha256 in hexadecimal of the clip's content, which need not be decoded for it.

        Raises
        ------
        DataError
            Where the file cannot be read.
        """
        if clip.path is None:
            return synthetic.digest(clip.id)
        try:
            return hashlib.sha256(clip.path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{clip.path} cannot be read: {error.strerror}") from error

    def without(self, ids: Collection[str]) -> DataSet:
        """The same data set without some clips.

        Raises
        ------
        ParameterError
            Where an id is of no clip.
        DataError
            Where no clip is left.
        """
        if unknown := sorted(set(ids) - {clip.id for clip in self.clips}):
            raise ParameterError(f"ids={some(unknown)!r} are no clips of {self.name}")
        clips = tuple(clip for clip in self.clips if clip.id not in set(ids))
        if not clips:
            raise DataError(f"no clip of {self.name} is left: all {len(self.clips)} were left out")
        return replace(self, clips=clips)


def _decode(path: Path) -> tuple[np.ndarray, int]:
    hint = HINTS.get(path.stem, "")
    if not path.is_file():
        raise DataError(f"{path} is missing{hint}")
    try:
        y, sr = soundfile.read(path, dtype="float32", always_2d=True)
    except UNREADABLE as error:
        reason = str(getattr(error, "error_string", None) or error).rstrip(".")
        raise DataError(f"{path} cannot be decoded{hint}: {reason}") from error
    if not y.size:
        raise DataError(f"{path} is empty: it has no samples{hint}")
    if not np.isfinite(y).all():
        raise DataError(f"{path} holds NaN or infinite samples{hint}")
    if np.abs(y).max() > LOUDEST:
        raise DataError(f"{path} holds samples beyond {LOUDEST:g}: full scale is 1{hint}")
    return y.mean(axis=1, dtype=np.float32), sr


def _resample(y: np.ndarray, native: int, sr: int) -> np.ndarray:
    """As librosa.resample with res_type="soxr_hq", without its import, which threads may not share."""
    if native == sr:
        return y
    n = -(-len(y) * sr // native)
    resampled = soxr.resample(y, native, sr, quality="HQ")[:n]
    return np.pad(resampled, (0, n - len(resampled)))


def load_audio(path: Path, *, sr: int) -> np.ndarray:
    """Decode an audio file, mix it to mono and resample it.

    Parameters
    ----------
    path : Path
        A file that libsndfile reads: wav, flac, ogg, mp3, au and more.
    sr : int > 0 [Hz]
        Rate to load at.

    Returns
    -------
    y : ndarray [shape=(n,), float32]

    Raises
    ------
    DataError
        Where the file is missing, unreadable, empty, or holds NaN or infinite samples.
    ParameterError
        Where `sr` is not positive.
    """
    return _resample(*_decode(Path(path)), positive("sr", sr))


def positive(name: str, value: int) -> int:
    if value <= 0:
        raise ParameterError(f"{name}={value!r} must be greater than 0")
    return value


@dataclass(frozen=True)
class Clip:
    """One recording of a data set.

    Attributes
    ----------
    id : str
        Unique in its data set and the same wherever that lies.
    label, fold : str
    path : Path or None
        The audio file; None where the clip is made by code.
    group : str or None
        What it was cut from; clips of one group belong in one fold.
    extra : mapping of str to str
        The columns of a user's table that have no meaning here.
    """

    id: str
    label: str
    fold: str
    path: Path | None
    group: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
