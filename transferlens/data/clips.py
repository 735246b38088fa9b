"""Clips and data sets: labels, folds, and the decoding of audio."""

from __future__ import annotations

import hashlib
import html
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from transferlens.data import decoding, known_answers, subsets
from transferlens.data.manifest import manifest
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.fields import checked
from transferlens.util.lazy import pandas
from transferlens.util.text import counted, natural, some

BUILT_IN = "synth"
BETWEEN = ";"  # between the labels of a clip that has several
PIECE = 2**20  # bytes that are read at once


@dataclass(frozen=True)
class DataSet:
    """A data set: its clips, and how they are loaded.

    Attributes
    ----------
    name : str
    sr : int > 0 [Hz]
        Rate at which clips are loaded.
    seconds : float > 0 [s]
        Nominal length of a clip, or that of the longest one.
    n_fft : int > 0 [samples] or None
        Length of the Fourier transform; if None, the features choose it.
    width : int > 0 [frames]
        Width of the features.
    clips : tuple of Clip
        Sorted by id.
    skipped : tuple of str
        Ids of clips that were left out because they cannot be read.
    longest : float > 0 [s]
        Longer files are not decoded.
    labels_per_clip : {"one", "several"}
        Whether the label of a clip is the name of its class, or the names of all of its classes with ``;`` between.
    """

    name: str
    sr: int
    seconds: float
    n_fft: int | None
    width: int
    clips: tuple[Clip, ...]
    skipped: tuple[str, ...] = ()
    longest: float = decoding.LONGEST
    labels_per_clip: str = "one"

    def __repr__(self) -> str:
        sizes = f"{len(self.clips)} clips, {len(self.label_names)} classes, {len(self.folds)} folds"
        return f"DataSet {self.name!r}: {sizes}, {self.sr} Hz"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self), quote=False)}</p>{self.counts().to_html()}"

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted({label for clip in self.clips for label in self.labels_of(clip)}))

    def labels_of(self, clip: Clip) -> tuple[str, ...]:
        """Return the names of the classes of a clip: one, or all of several."""
        return tuple(clip.label.split(BETWEEN)) if self.labels_per_clip == "several" else (clip.label,)

    @cached_property
    def recordings(self) -> tuple[str, ...]:
        """The recording of each clip, that without a group its own; empty if no clip has a group."""
        return tuple(clip.recording for clip in self.clips) if any(clip.group for clip in self.clips) else ()

    @cached_property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds, in natural order: "2" before "10"."""
        return tuple(sorted({clip.fold for clip in self.clips}, key=natural))

    @property
    def training_folds(self) -> tuple[str, ...]:
        """The folds that alone are trained on, as they are named "train" or "training", in any case; () if none is."""
        return tuple(fold for fold in self.folds if fold.lower() in ("train", "training"))

    @property
    def held_out_folds(self) -> tuple[str, ...]:
        """The folds that are held out by default: each in turn or, if there are training folds, only "test"."""
        others = tuple(fold for fold in self.folds if fold not in self.training_folds)
        tests = tuple(fold for fold in others if fold.lower() in ("test", "testing"))
        return tests if tests and self.training_folds else others

    def trained_on(self, fold: str, inner_fold: str = "") -> tuple[str, ...]:
        """Return the folds that are trained on if a fold is held out: `training_folds`, or all but it and the inner."""
        training_folds = self.training_folds
        folds = training_folds if training_folds and fold not in training_folds else self.folds
        return tuple(other for other in folds if other not in (fold, inner_fold))

    def counts(self) -> pandas.DataFrame:
        """Count the clips of each class (rows) in each fold (columns); one with several labels counts for each.

        Examples
        --------
        >>> from transferlens.data.catalogue import open_dataset
        >>> open_dataset().counts().loc["siren", "1"].item()
        8
        """
        pairs = [(label, clip.fold) for clip in self.clips for label in self.labels_of(clip)]
        clips = pandas.DataFrame(pairs, columns=["class", "fold"])
        return pandas.crosstab(clips["class"], clips["fold"])[list(self.folds)]

    @checked
    def split(
        self, fold: str, inner_fold: str = "", clips_per_class: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Split the clips into those to train on, of `trained_on`, and those of the held-out fold: the indices of both.

        With `clips_per_class`, those to train on are a balanced subset, with whole recordings: see `data.subsets`.

        Raises
        ------
        ParameterError
            If the data set does not have this fold, or a class has fewer clips to train on than `clips_per_class`.
        DataError
            If fewer than two classes are left to train on.
        """
        for name, value in (("fold", fold), ("inner_fold", inner_fold or fold)):
            if value not in self.folds:
                raise ParameterError(f"{name}={value!r} must be one of the folds of {self.name}: {some(self.folds)}")
        folds = np.array([clip.fold for clip in self.clips], dtype=object)
        training = np.flatnonzero(np.isin(folds, self.trained_on(fold, inner_fold)))
        if (classes := len({label for i in training for label in self.labels_of(self.clips[i])})) < 2:
            raise DataError(
                f"fold {fold!r} of {self.name} held out leaves {counted(len(training), 'clip')} of "
                f"{counted(classes, 'class')} to train on: "
                "at least 2 classes are needed in the other folds"
            )
        if clips_per_class is not None:
            training = self._subset(training, clips_per_class, fold, inner_fold)
        return training, np.flatnonzero(folds == fold)

    def smallest_class(self, fold: str, inner_fold: str = "") -> tuple[str, int]:
        """Return the class with the fewest clips to train on, of those that there are, and their number."""
        counts = Counter(self.clips[i].label for i in self.split(fold, inner_fold)[0])
        return min(counts.items(), key=lambda pair: (pair[1], pair[0]))

    def _subset(self, training: np.ndarray, per_class: int, fold: str, inner_fold: str) -> np.ndarray:
        """Return the rows of `training` in its balanced subset, which depends on the data set and the held-out fold."""
        if self.labels_per_clip == "several":
            raise ParameterError(
                f"clips_per_class={per_class} is for clips with one label, and those of {self.name} have several: "
                "leave it out; sampling='classes' draws all classes equally often"
            )
        label, most = self.smallest_class(fold, inner_fold)
        if not 1 <= per_class <= most:
            raise ParameterError(
                f"clips_per_class={per_class} must be 1 to {most}, the clips of {self.name}'s class {label} "
                f"that can be trained on if fold {fold} is held out"
            )
        return training[subsets.chosen([self.clips[i] for i in training], per_class, key=[self.name, fold])]

    @checked
    def decode(self, clip: Clip) -> tuple[np.ndarray, int]:
        """Decode a clip: its mono waveform [shape=(n,), float32], and the sample rate of its file [Hz].

        Raises
        ------
        DataError
            If the file is missing, unreadable or empty, longer than `longest`, has a rate outside 1000 to 768000 Hz,
            or NaN, infinite or far too large samples; or if there is too little memory for it.
        """
        if clip.path is None:
            return known_answers.render(clip.id).y, manifest()[BUILT_IN].sr
        return decoding.decode(clip.path, longest=self.longest)

    @checked
    def load(self, clip: Clip) -> np.ndarray:
        """Decode a clip and resample it to the rate `sr`: its mono waveform [shape=(n,), float32].

        Threads may call this at the same time. Errors are those of `decode`.
        """
        if clip.path is None:
            y, native = self.decode(clip)
            return decoding.resample([y], native, self.sr)
        return decoding.load(clip.path, sr=self.sr, longest=self.longest)

    @checked
    def length(self, clip: Clip, *, whole: bool = False) -> tuple[int, int]:
        """Return the number of samples that `decode` returns, and the sample rate of the clip's file [Hz].

        Unless `whole`, only the end of the file is decoded if that can be: damage in its middle is not found. Errors
        are those of `decode`.
        """
        if clip.path is None:
            y, native = self.decode(clip)
            return len(y), native
        return decoding.length(clip.path, longest=self.longest, whole=whole)

    @checked
    def digest(self, clip: Clip) -> str:
        """Return the sha256 of a clip's file, or of a built-in clip's recipe; raise DataError if it cannot be read."""
        if clip.path is None:
            return known_answers.digest(clip.id)
        digest = hashlib.sha256()
        try:
            with clip.path.open("rb") as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
            return digest.hexdigest()
        except OSError as error:
            raise DataError(f"{clip.path} cannot be read: {error.strerror}") from error

    @checked
    def without(self, ids: Collection[str]) -> DataSet:
        """Return the data set without the clips that have these ids, or this one.

        Raises
        ------
        ParameterError
            If no clip has one of the ids.
        DataError
            If `ids` are those of all clips.
        """
        left_out = set(ids)
        if unknown := sorted(left_out - {clip.id for clip in self.clips}):
            raise ParameterError(f"ids={some(unknown)!r} must be clips of {self.name}, such as {self.clips[0].id!r}")
        clips = tuple(clip for clip in self.clips if clip.id not in left_out)
        if not clips:
            raise DataError(f"no clip of {self.name} is left: all {len(self.clips)} were left out")
        return replace(self, clips=clips)


def load_audio(path: Path, *, sr: int, longest: float = decoding.LONGEST) -> np.ndarray:
    """Decode an audio file that libsndfile reads (wav, flac, ogg, mp3, au and more), mix it to mono and resample it.

    Parameters
    ----------
    path : Path
    sr : int > 0 [Hz]
    longest : float > 0 [s]
        A longer file is an error.

    Returns
    -------
    y : ndarray [shape=(n,), float32]

    Raises
    ------
    DataError
        As for `DataSet.decode`.
    ParameterError
        If `sr` is not positive.
    """
    if sr <= 0:
        raise ParameterError(f"sr={sr!r} must be greater than 0")
    return decoding.load(Path(path), sr=sr, longest=longest)


@dataclass(frozen=True)
class Clip:
    """One recording of a data set.

    Attributes
    ----------
    id : str
        Unique in the data set, and independent of the folder that the data set is in.
    label, fold : str
        Name of the class, or of several as `DataSet.labels_of` returns them; name of the fold.
    path : Path or None
        The audio file; None if the clip is generated by code.
    group : str or None
        The recording that the clip was cut from; clips of one group belong in one fold.
    extra : mapping of str to str
        The other columns of a user's table.
    """

    SUCH_AS: ClassVar[str] = ", one of dataset.clips"
    id: str
    label: str
    fold: str
    path: Path | None
    group: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def recording(self) -> str:
        """Its group; without one, it is a recording of its own and this is its id."""
        return self.group or self.id
