"""Near-duplicates: clips that were cut, shifted, made softer or compressed again from one recording.

Two clips are compared by the fine structure of their log-mel features (middle window): cells down to 35 dB below the
loudest one, minus the mean of neighbouring frames and the mean over bands, so that neither steady noises of one kind
nor bursts of one length are similar. Their similarity is the largest correlation over all shifts in time.

The threshold is calibrated on the data set: it is the largest similarity of two clips of different classes and
recordings, which cannot contain the same event. Copies of clips, made for this purpose, show which share of copies is
found.

`fingerprints`, `similarity` and `similarities` compare clips; `calibrate` and `calibrate_both` find the threshold;
`pairs` returns what reaches it, and `recordings` names recordings by it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens.data.folds import check_classes, joined
from transferlens.features.cache import FeatureCache
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.features.logmel import FeatureSettings
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy
from transferlens.util.text import counted

if TYPE_CHECKING:
    from transferlens.data.clips import Clip, DataSet

log = logging.getLogger(__name__)

BANDS = 32
DEPTH = 8.0  # cells further below the loudest one do not count [log power]: 35 dB
NEIGHBOURS = 9  # frames whose mean is subtracted
STEADY = 1e-3  # deviation [log power] below which a clip counts as silent: it is only rounding
ROUNDING = 1e-6  # by which the similarity of equal clips may be below 1
PAIRS, COPIES = 20_000, 40  # that the threshold is calibrated with
AT_ONCE, CLIPS_AT_ONCE = 2**22, 256  # numbers, and clips, that are computed at once: as memory allows


def fingerprints(S: np.ndarray) -> np.ndarray:
    """Return the fine structure of log-mel features [shape=(n_clips, channels, n_mels, width)] for `similarity`.

    Its Fourier transform over time [shape=(n_clips, n_bands, n_frequencies)], zero-padded so that shifts are not
    circular. Before the transform it has unit norm, and is zero for silent clips.
    """
    n, channels, n_mels, width = S.shape
    bands = np.stack([part.mean(1) for part in np.array_split(S[:, channels // 2], min(BANDS, n_mels), axis=1)], axis=1)
    bands = np.maximum(bands, bands.max((1, 2), keepdims=True) - DEPTH)
    bands = bands - scipy.ndimage.uniform_filter1d(bands, NEIGHBOURS, axis=2, mode="nearest")
    bands = bands - bands.mean(1, keepdims=True)
    norms = np.linalg.norm(bands, axis=(1, 2), keepdims=True)
    return np.fft.rfft(bands / np.where(norms > STEADY * np.sqrt(bands[0].size), norms, np.inf), n=2 * width, axis=2)


def similarity(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the largest correlation over shifts in time of one fingerprint with others [shape=(n_others,)]."""
    return similarities(one[None], others)[0]


def similarities(marks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the `similarity` of each fingerprint with each of others [shape=(n_marks, n_others)]."""
    values = np.empty((len(marks), len(others)), np.float32)
    columns = max(1, AT_ONCE // marks[0].size)
    for left in range(0, len(others), columns):
        part = np.ascontiguousarray(others[left : left + columns].transpose(2, 1, 0))
        rows = max(1, AT_ONCE // part[:, 0].size)
        for top in range(0, len(marks), rows):
            spectra = marks[top : top + rows].conj().transpose(2, 0, 1) @ part  # a product per frequency
            values[top : top + rows, left : left + columns] = np.fft.irfft(spectra, axis=0).max(0)
    return values


@dataclass(frozen=True)
class Calibration:
    """The threshold, which is the largest similarity of `n_pairs` pairs of different classes and recordings.

    Of `n_copies` clips that were copied on purpose (shifted by a tenth, 6 dB softer, noise at 20 dB) it finds the share
    `found`; the least similarity of a copy with its clip is `lowest`.
    """

    threshold: float
    n_pairs: int
    found: float
    n_copies: int
    lowest: float

    def text(self, n_compared: int, pairs: str) -> str:
        """Return the calibration in words, for a number of pairs, in words, that are compared with the threshold."""
        return (
            f"threshold {self.threshold:.3f}: the most alike of {self.n_pairs} pairs of different classes, so that "
            f"{n_compared / (self.n_pairs + 1):.1f} of the {n_compared} {pairs} are "
            f"expected to reach it by chance, were they no more alike; it finds {100 * self.found:.0f} % of "
            f"{self.n_copies} clips shifted, made softer and noisy on purpose (which reach {self.lowest:.3f} or more)"
        )


def calibrate(dataset: DataSet, cache: FeatureCache, marks: np.ndarray) -> Calibration:
    """Compute the threshold of a data set from its complete cache and the fingerprints of all clips.

    Raise ParameterError if there are not two clips of different classes and recordings, or nothing but silence.
    """
    rng = np.random.default_rng(0)
    strangers = partners(dataset, [clip.recording for clip in dataset.clips], same_class=False)
    share = PAIRS / max(PAIRS, sum(map(len, strangers)))
    drawn = [others[rng.random(len(others)) < share] for others in strangers]
    values = [float(value) for i, others in enumerate(drawn) for value in similarity(marks[i], marks[others])]
    return _calibration(dataset, cache, marks, values, rng)


def calibrate_both(
    dataset: DataSet, cache: FeatureCache, marks: np.ndarray, other: DataSet, other_marks: np.ndarray
) -> Calibration:
    """Compute the threshold for the pairs of two data sets from pairs within each; errors as of `calibrate`."""
    rng, n_rows = np.random.default_rng(0), min(len(marks), len(other_marks))
    values = [_of_strangers(dataset, marks, n_rows, rng), _of_strangers(other, other_marks, n_rows, rng)]
    return _calibration(dataset, cache, marks, np.concatenate(values).tolist(), rng)


def _of_strangers(dataset: DataSet, marks: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return the similarities of some clips, drawn, with all of other classes and recordings, each pair once."""
    rows = np.sort(rng.choice(len(marks), n_rows, replace=False))
    others = np.arange(len(marks))
    labels = _memberships(dataset)
    homes = np.array([clip.recording for clip in dataset.clips], dtype=object)
    strangers = (labels[rows].astype(int) @ labels.T.astype(int) == 0) & (homes[rows, None] != homes)
    return similarities(marks[rows], marks)[strangers & ~(np.isin(others, rows) & (others <= rows[:, None]))]


def _calibration(
    dataset: DataSet, cache: FeatureCache, marks: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> Calibration:
    """Return the calibration by the similarities of pairs that cannot contain the same event."""
    if not values:
        raise ParameterError(
            f"{dataset.name} has no two clips of different recordings and classes, from which the threshold follows: "
            "give one to `duplicates`, or make folds without group_duplicates"
        )
    copied = rng.choice(len(marks), min(COPIES, len(marks)), replace=False)
    alike = [float(similarity(marks[i], _copy(dataset, cache, int(i)))[0]) for i in copied]
    threshold = max(values)
    if threshold <= 0:
        raise ParameterError(
            f"{dataset.name} is too silent to be calibrated: its clips have nothing to compare; see `datasets --audit`"
        )
    return Calibration(threshold, len(values), float(np.mean(np.array(alike) >= threshold)), len(copied), min(alike))


def _copy(dataset: DataSet, cache: FeatureCache, i: int) -> np.ndarray:
    """Return the fingerprint of a copy of a clip [shape=(1, n_bands, n_frequencies)]."""
    y = dataset.load(dataset.clips[i])
    for kind, strength in (("shift", 10), ("gain", -6), ("noise", 20)):
        y = CORRUPTIONS[kind](y, strength, sr=dataset.sr, seed=i)
    return fingerprints(cache.settings.compute(y, dataset.sr)[None])


def partners(dataset: DataSet, homes: Sequence[Hashable], *, same_class: bool) -> list[np.ndarray]:
    """Return for each clip the later ones of another home, such as a fold, and of its class or of other classes.

    Clips with several labels are of one class if they share one.
    """
    labels, of_clips = _memberships(dataset), np.array(homes, dtype=object)
    fitting = (labels[i + 1 :, own].any(1) == same_class for i, own in enumerate(labels))
    return [i + 1 + np.flatnonzero(later & (of_clips[i + 1 :] != of_clips[i])) for i, later in enumerate(fitting)]


def _memberships(dataset: DataSet) -> np.ndarray:
    """Return which labels each clip has [shape=(n_clips, n_classes), bool]."""
    numbers = {name: number for number, name in enumerate(dataset.label_names)}
    members = np.zeros((len(dataset.clips), len(numbers)), bool)
    for i, clip in enumerate(dataset.clips):
        members[i, [numbers[label] for label in dataset.labels_of(clip)]] = True
    return members


def pairs(marks: np.ndarray, others: Sequence[np.ndarray], threshold: float) -> list[tuple[int, int, float]]:
    """Return the pairs of clips that reach the threshold: two rows of fingerprints, and their similarity.

    `others` are the rows that each row is compared with, as of `partners`.
    """
    found = []
    for i, rows in enumerate(others):
        values = similarity(marks[i], marks[rows])
        found += [(i, int(rows[j]), float(values[j])) for j in np.flatnonzero(values >= threshold - ROUNDING)]
    return found


def marked(dataset: DataSet, settings: FeatureSettings, folder: Path) -> tuple[FeatureCache, np.ndarray]:
    """Return the complete cache of a data set in a folder, and the fingerprints of its clips."""
    cache = FeatureCache(dataset, settings, folder)
    cache.fill()
    S = cache.load()
    parts = [fingerprints(S[i : i + CLIPS_AT_ONCE]) for i in range(0, len(S), CLIPS_AT_ONCE)]
    return cache, np.concatenate(parts)


def recordings(dataset: DataSet, settings: FeatureSettings, folder: Path) -> tuple[Clip, ...]:
    """Return the clips of a data set with near-duplicates of one class as one recording.

    The search is that of `transferlens duplicates`, over all pairs of one class, with the features in a folder. What
    follows from a chain of pairs is one recording too, and recordings that a pair joins are one. Their name is that of
    the first clip's recording, or its id.

    Raises
    ------
    DataError
        If there is one class only, or clips cannot be read.
    ParameterError
        If the threshold cannot be calibrated, as of `calibrate`.
    """
    check_classes(dataset.label_names)
    homes = [clip.recording for clip in dataset.clips]
    cache, marks = marked(dataset, settings, folder)
    threshold = calibrate(dataset, cache, marks).threshold
    alike = pairs(marks, partners(dataset, homes, same_class=True), threshold)
    clips = joined(dataset.clips, [(i, j) for i, j, _ in alike])
    named = {clips[i].recording for i, _, _ in alike}
    sizes = Counter(clip.recording for clip in clips if clip.recording in named).values()
    text = (
        f"{sum(sizes)} clips are of {counted(len(sizes), 'recording')}, of at most {max(sizes)} clips"
        if sizes
        else "none"
    )
    log.info("near-duplicates, of similarity %.3f or more, in %d clips: %s", threshold, len(clips), text)
    return clips
