"""Near-duplicates across folds: clips of one class that may be of one recording, and the accuracy without them.

`transferlens.datasets --audit` finds identical samples in two folds. This command also finds copies that were cut,
shifted, made softer or compressed again. Two clips are compared by the fine structure of their log-mel features (middle
window): cells down to 35 dB below the loudest one, minus the mean of neighbouring frames and the mean over bands, so
that neither steady noises of one kind nor bursts of one length are similar. Their similarity is the largest correlation
over all shifts in time.

The threshold is calibrated on the data set: it is the largest similarity of two clips of different classes and
recordings, which cannot contain the same event. Copies of clips, made for this purpose, show which share of copies is
found. The pairs that are listed are candidates: listen to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
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
from transferlens.util.grouping import group_by
from transferlens.util.lazy import scipy
from transferlens.util.text import counted, table

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet

BANDS = 32
DEPTH = 8.0  # cells further below the loudest one do not count [log power]: 35 dB
NEIGHBOURS = 9  # frames whose mean is subtracted
STEADY = 1e-3  # deviation [log power] below which a clip counts as silent: it is only rounding
ROUNDING = 1e-6  # by which the similarity of equal clips may be below 1
PAIRS, COPIES = 20_000, 40  # that the threshold is calibrated with


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Find near-duplicates across folds, and the accuracy without them. Exit code 1 if there are some."""

    ckpt: tuple[Path, ...] = ()
    """Run files of this data set: their accuracy with and without clips that have a near-duplicate in another fold."""
    threshold: Annotated[float | None, Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1)] = None
    """Similarity from which on two clips are listed, 0 to 1. Default: calibrated on the data set."""
    data: DataOptions = DataOptions()
    features: FeatureOptions = FeatureOptions()
    store: CacheOptions = CacheOptions()
    output: OutputOptions = OutputOptions()


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
    spectrum = np.einsum("bf,nbf->nf", one.conj(), others)
    return np.fft.irfft(spectrum, axis=1).max(1)


@dataclass(frozen=True)
class Pair:
    """Two similar clips of one class in different folds; a row of duplicates.csv."""

    clip: str
    fold: str
    other_clip: str
    other_fold: str
    label: str
    similarity: float


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

    def text(self, n_compared: int) -> str:
        """Return the calibration in words, for a number of pairs that are compared with the threshold."""
        return (
            f"threshold {self.threshold:.3f}: the most alike of {self.n_pairs} pairs of different classes, so that "
            f"{n_compared / (self.n_pairs + 1):.1f} of the {n_compared} pairs of one class in different folds are "
            f"expected to reach it by chance, were they no more alike; it finds {100 * self.found:.0f} % of "
            f"{self.n_copies} clips shifted, made softer and noisy on purpose (which reach {self.lowest:.3f} or more)"
        )


def calibrate(dataset: DataSet, cache: FeatureCache, marks: np.ndarray) -> Calibration:
    """Compute the threshold of a data set from its complete cache and the fingerprints of all clips.

    Raise ParameterError if there are not two clips of different classes and recordings, or nothing but silence.
    """
    rng, n = np.random.default_rng(0), len(marks)
    strangers = _partners(dataset, same_class=False)
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
    """Return the fingerprint of a copy of a clip [shape=(1, n_bands, n_frequencies)]."""
    y = dataset.load(dataset.clips[i])
    for kind, strength in (("shift", 10), ("gain", -6), ("noise", 20)):
        y = CORRUPTIONS[kind](y, strength, sr=dataset.sr, seed=i)
    return fingerprints(cache.settings.compute(y)[None])


def _partners(dataset: DataSet, *, same_class: bool) -> list[np.ndarray]:
    """Return for each clip the later ones of its class in other folds, or of other classes and recordings."""
    labels = np.array([clip.label for clip in dataset.clips], dtype=object)
    # A clip without a recording is a recording of its own.
    homes = np.array([clip.fold if same_class else clip.group or clip.id for clip in dataset.clips], dtype=object)
    return [
        i + 1 + np.flatnonzero(((labels[i + 1 :] == labels[i]) == same_class) & (homes[i + 1 :] != homes[i]))
        for i in range(len(labels))
    ]


def find(dataset: DataSet, marks: np.ndarray, threshold: float) -> list[Pair]:
    """Return the pairs of one class in different folds that reach the threshold, the most similar first."""
    pairs = []
    for i, (clip, others) in enumerate(zip(dataset.clips, _partners(dataset, same_class=True), strict=True)):
        values = similarity(marks[i], marks[others])
        for j in np.flatnonzero(values >= threshold - ROUNDING):
            other = dataset.clips[others[j]]
            pairs.append(Pair(clip.id, clip.fold, other.id, other.fold, clip.label, float(min(1.0, values[j]))))
    return sorted(pairs, key=lambda pair: -pair.similarity)


def _without(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """Return a line per arm: its accuracy, and that without clips that have a near-duplicate in another fold."""
    twins = {clip for pair in pairs for clip in (pair.clip, pair.other_clip)}
    arms = group_by(zip(runs, arm_names(runs), strict=True), lambda named: f"{named[0].config.backbone}, {named[1]}")
    return "\n".join(f"{arm}: {_accuracies([run for run, _ in named], twins)}" for arm, named in arms.items())


def _accuracies(runs: Sequence[Run], twins: Set[str]) -> str:
    right = np.concatenate([run.right for run in runs])
    alone = np.array([clip not in twins for run in runs for clip in run.clip_ids])
    accuracy = f"accuracy of {counted(len(runs), 'run')} {100 * right.mean():.1f} %"
    text = f"{accuracy} over {counted(len(right), 'held-out clip')}, "
    if not alone.any():
        return f"{text}every one of which has a near-duplicate in another fold"
    return f"{text}{100 * right[alone].mean():.1f} % over the {alone.sum()} without a near-duplicate in another fold"


def _check_runs(runs: Sequence[Run], dataset: DataSet) -> None:
    """Raise if runs were trained on other clips, labels or folds."""
    known = {(clip.id, clip.label, clip.fold) for clip in dataset.clips}
    for run in runs:
        clips = zip(run.clip_ids, run.labels, strict=True)
        if not known.issuperset((clip, run.label_names[label], run.config.fold) for clip, label in clips):
            raise ParameterError(f"ckpt={run.path} was trained on other clips, labels or folds than {dataset.name}")


@dataclass(frozen=True)
class Result(question.Result):
    """Pairs of clips that may be of one recording, and the accuracy without them."""

    stem = "duplicates"
    row_type = Pair
    rows: tuple[Pair, ...]
    calibration: str
    accuracies: str

    @property
    def exit_code(self) -> int:
        """1 if there are near-duplicates, else 0."""
        return cli.FOUND if self.rows else cli.DONE

    def summary(self) -> str:
        """Return where the threshold comes from, the pairs, and the accuracies."""
        parts = [self.calibration, f"pairs of one class in different folds that are as alike: {len(self.rows)}"]
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
    n_compared = sum(map(len, _partners(dataset, same_class=True)))
    if not n_compared:
        raise ParameterError(f"{dataset.name} has no two clips of one class in different folds: nothing to compare")
    cache = FeatureCache(dataset, options.features.settings(dataset), options.store.cache)
    cache.fill()
    marks = fingerprints(cache.load())
    threshold, calibration = options.threshold, ""
    if threshold is None:
        calibrated = calibrate(dataset, cache, marks)
        threshold, calibration = calibrated.threshold, calibrated.text(n_compared)
    pairs = find(dataset, marks, threshold)
    return Result(tuple(pairs), calibration, _without(trained, pairs) if trained else "")


duplicates = question.Question("duplicates", Options, analyse)
main = cli.command("duplicates", Options, duplicates)

if __name__ == "__main__":
    raise SystemExit(main())
