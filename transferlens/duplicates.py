"""Near-duplicates across folds: clips of one class that may be of one recording, and what accuracy is without them.

`transferlens.datasets --audit` finds the same samples in two folds; this finds what was cut, shifted, made softer or
compressed again. Two clips are compared by the fine structure of their log-mel features (middle window): what lies up
to 35 dB below the loudest cell, less the mean of neighbouring frames and the mean over bands, so that neither steady
noise of one kind nor bursts of one length are alike; by the largest correlation over all shifts in time. The threshold
is calibrated on the data set itself: the most alike of pairs of different classes and recordings, which cannot be of
one event; and how many real copies it would find is measured on clips that are shifted, made noisy and softer on
purpose. What it lists are candidates: listen to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.data.catalogue import DataOptions
from transferlens.features.cache import FeatureCache
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.features.logmel import FeatureOptions
from transferlens.options import OutputOptions
from transferlens.store.run import Run, arm_names, load_runs
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule
from transferlens.util.lazy import scipy
from transferlens.util.text import table

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet

__all__ = ["Calibration", "Options", "Pair", "calibrate", "find", "main", "prints", "similarity"]

BANDS = 32
# How far below the loudest cell features count [log power]: 35 dB.
DEPTH = 8.0
# Frames that a frame is compared with.
NEIGHBOURS = 9
# Deviation [log power] below which a clip counts as silence: only rounding moves there.
STEADY = 1e-3
# By which the similarity of equal clips may fall short of 1.
ROUNDING = 1e-6
# Pairs of different classes that the threshold is taken from, and clips that are copied on purpose.
PAIRS, COPIES = 20_000, 40


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Find near-duplicates across folds, and what accuracy becomes without them. Exit code 1 where there are some."""

    ckpt: tuple[Path, ...] = ()
    """Run files of this data set: their accuracy with and without clips that have a near-duplicate in another fold."""
    threshold: Annotated[float | None, Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1)] = None
    """Similarity from which on two clips are listed, 0 to 1. Default: calibrated on the data set."""
    data: DataOptions = DataOptions()
    features: FeatureOptions = FeatureOptions()
    store: CacheOptions = CacheOptions()
    output: OutputOptions = OutputOptions()


def prints(S: np.ndarray) -> np.ndarray:
    """What two clips are compared by.

    Parameters
    ----------
    S : ndarray [shape=(n_clips, channels, n_mels, width)]
        Log-mel features.

    Returns
    -------
    prints : ndarray of complex [shape=(n_clips, n_bands, n_frequencies)]
        Fourier transforms over time, padded so that shifts do not come round, of unit norm before; zero for silence.
    """
    n, channels, n_mels, width = S.shape
    bands = np.stack([part.mean(1) for part in np.array_split(S[:, channels // 2], min(BANDS, n_mels), axis=1)], axis=1)
    bands = np.maximum(bands, bands.max((1, 2), keepdims=True) - DEPTH)
    bands = bands - scipy.ndimage.uniform_filter1d(bands, NEIGHBOURS, axis=2, mode="nearest")
    bands = bands - bands.mean(1, keepdims=True)
    norms = np.linalg.norm(bands, axis=(1, 2), keepdims=True)
    return np.fft.rfft(bands / np.where(norms > STEADY * np.sqrt(bands[0].size), norms, np.inf), n=2 * width, axis=2)


def similarity(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Largest correlation over shifts in time of one clip with others [shape=(n_others,), in [-1, 1]].

    Parameters
    ----------
    one : ndarray [shape=(n_bands, n_frequencies)]
    others : ndarray [shape=(n_others, n_bands, n_frequencies)]
        As `prints` gives them.
    """
    spectrum = np.einsum("bf,nbf->nf", one.conj(), others)
    return np.fft.irfft(spectrum, axis=1).max(1)


@dataclass(frozen=True)
class Pair:
    """Two clips of one class in different folds that are alike; a row of duplicates.csv."""

    clip: str
    fold: str
    other_clip: str
    other_fold: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Calibration:
    """Where the threshold comes from.

    Attributes
    ----------
    threshold : float
        The largest similarity among pairs of different classes and recordings.
    n_pairs : int
        How many of these there were, each drawn once.
    found : float
        Share of clips copied on purpose (shifted by a tenth, 6 dB softer, noise at 20 dB) that it finds.
    n_copies : int
    lowest : float
        The least similarity of a copy with its clip.
    """

    threshold: float
    n_pairs: int
    found: float
    n_copies: int
    lowest: float


def calibrate(dataset: DataSet, cache: FeatureCache, marks: np.ndarray, *, seed: int = 0) -> Calibration:
    """The threshold of a data set, and what it would find.

    Parameters
    ----------
    dataset : DataSet
    cache : FeatureCache
        Complete.
    marks : ndarray
        `prints` of all clips.
    seed : int >= 0
        Of the pairs and copies that are drawn.

    Raises
    ------
    ParameterError
        Where there is one class only.
    """
    labels = np.array([clip.label for clip in dataset.clips])
    if len(set(labels.tolist())) < 2:
        raise ParameterError(f"{dataset.name} has one class: name a threshold, as it cannot be calibrated")
    # A clip without a recording is one of its own.
    groups = np.array([clip.group or clip.id for clip in dataset.clips], dtype=object)
    rng, n = np.random.default_rng(seed), len(labels)
    strangers = [
        i + 1 + np.flatnonzero((labels[i + 1 :] != labels[i]) & (groups[i + 1 :] != groups[i])) for i in range(n)
    ]
    share = PAIRS / max(PAIRS, sum(map(len, strangers)))
    drawn = [others[rng.random(len(others)) < share] for others in strangers]
    values = [float(value) for i, others in enumerate(drawn) for value in similarity(marks[i], marks[others])]
    if not values:
        raise ParameterError(f"{dataset.name} has no two clips of different recordings and classes: name a threshold")
    copied = rng.choice(n, min(COPIES, n), replace=False)
    alike = [float(similarity(marks[i], _copy(dataset, cache, int(i)))[0]) for i in copied]
    threshold = max(values)
    if threshold <= 0:
        raise ParameterError(f"{dataset.name} is too silent to be calibrated: its clips have nothing to compare")
    return Calibration(threshold, len(values), float(np.mean(np.array(alike) >= threshold)), len(copied), min(alike))


def _copy(dataset: DataSet, cache: FeatureCache, i: int) -> np.ndarray:
    y = dataset.load(dataset.clips[i])
    for kind, strength in (("shift", 10), ("gain", -6), ("noise", 20)):
        y = CORRUPTIONS[kind](y, strength, sr=dataset.sr, seed=i)
    return prints(cache.settings.compute(y)[None])


def find(dataset: DataSet, marks: np.ndarray, threshold: float) -> list[Pair]:
    """Pairs of one class in different folds at least as alike as `threshold`, the most alike first."""
    return sorted(_pairs(dataset, marks, threshold), key=lambda pair: -pair.similarity)


def _across(dataset: DataSet) -> list[np.ndarray]:
    """Of each clip, the later ones of its class in other folds."""
    labels, folds = (np.array([getattr(c, name) for c in dataset.clips], dtype=object) for name in ("label", "fold"))
    return [
        i + 1 + np.flatnonzero((labels[i + 1 :] == labels[i]) & (folds[i + 1 :] != folds[i]))
        for i in range(len(labels))
    ]


def _pairs(dataset: DataSet, marks: np.ndarray, threshold: float) -> Iterator[Pair]:
    clips = dataset.clips
    for i, (clip, others) in enumerate(zip(clips, _across(dataset), strict=True)):
        if len(others):
            values = similarity(marks[i], marks[others])
            for j in np.flatnonzero(values >= threshold - ROUNDING):
                other = clips[others[j]]
                yield Pair(clip.id, clip.fold, other.id, other.fold, clip.label, float(min(1.0, values[j])))


def _without(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """Accuracy of each arm, and without clips that have a near-duplicate in another fold."""
    twins = {clip for pair in pairs for clip in (pair.clip, pair.other_clip)}
    arms: dict[str, list[Run]] = {}
    for run, name in zip(runs, arm_names(runs), strict=True):
        arms.setdefault(f"{run.config.backbone}, {name}", []).append(run)
    return "\n".join(f"{name}: {_accuracies(mine, twins)}" for name, mine in arms.items())


def _accuracies(runs: Sequence[Run], twins: Set[str]) -> str:
    right = np.concatenate([run.right for run in runs])
    alone = np.array([clip not in twins for run in runs for clip in run.clip_ids])
    text = f"accuracy of {len(runs)} runs {100 * right.mean():.1f} % over {len(right)} held-out clips, "
    if not alone.any():
        return f"{text}every one of which has a near-duplicate in another fold"
    return f"{text}{100 * right[alone].mean():.1f} % over the {alone.sum()} without a near-duplicate in another fold"


def _check_runs(runs: Sequence[Run], dataset: DataSet) -> None:
    """Refuse runs of other clips, labels or folds."""
    there = {clip.id: (clip.label, clip.fold) for clip in dataset.clips}
    for run in runs:
        mine = {
            clip: (run.label_names[label], run.config.fold)
            for clip, label in zip(run.clip_ids, run.labels.tolist(), strict=True)
        }
        if not mine.items() <= there.items():
            raise ParameterError(f"ckpt={run.path} was trained on other clips, labels or folds than {dataset.name}")


@dataclass(frozen=True)
class Result(question.Result):
    """Pairs of clips that may be of one recording, and accuracy without them."""

    stem = "duplicates"
    row_type = Pair
    rows: tuple[Pair, ...]
    calibration: str
    accuracies: str

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """1 where there are some."""
        return cli.FOUND if self.rows else cli.DONE

    def summary(self) -> str:
        """Return where the threshold comes from, the pairs, and the accuracies."""
        count = f"{len(self.rows)} pairs of one class in different folds are as alike"
        parts = [self.calibration, count + (":" if self.rows else "")]
        if self.rows:
            cells = [
                (p.label, f"{p.clip} (fold {p.fold})", f"{p.other_clip} (fold {p.other_fold})", f"{p.similarity:.3f}")
                for p in self.rows
            ]
            parts.append(table([("class", "clip", "other clip", "similarity"), *cells]))
        return "\n".join(filter(None, [*parts, self.accuracies]))


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare all clips of a class across folds."""
    trained = load_runs(options.ckpt, least=0)
    dataset = options.data.open()
    _check_runs(trained, dataset)
    cache = FeatureCache(dataset, options.features.settings(dataset), options.store.cache)
    cache.fill()
    marks = prints(cache.load())
    n_compared = sum(map(len, _across(dataset)))
    threshold, calibration = options.threshold, ""
    if threshold is None:
        found = calibrate(dataset, cache, marks)
        threshold = found.threshold
        calibration = (
            f"threshold {threshold:.3f}: the most alike of {found.n_pairs} pairs of different classes, so that "
            f"{n_compared / (found.n_pairs + 1):.1f} of the {n_compared} pairs of one class in different folds are "
            f"expected to reach it by chance, were they no more alike; it finds {100 * found.found:.0f} % of "
            f"{found.n_copies} clips shifted, made softer and noisy on purpose (which reach {found.lowest:.3f} or more)"
        )
    if not n_compared:
        raise ParameterError(f"{dataset.name} has no two clips of one class in different folds: nothing to compare")
    pairs = find(dataset, marks, threshold)
    return Result(tuple(pairs), calibration, _without(trained, pairs) if trained else "")


duplicates = question.Question("duplicates", Options, analyse)
main = cli.command("duplicates", Options, duplicates)

if __name__ == "__main__":
    sys.exit(main())
