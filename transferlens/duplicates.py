"""Near-duplicates across folds or data sets: clips that may be of one recording, and the accuracy without them.

`transferlens.datasets --audit` finds identical samples in two folds. This command also finds copies that were cut,
shifted, made softer or compressed again. Two clips are compared by the fine structure of their log-mel features (middle
window): cells down to 35 dB below the loudest one, minus the mean of neighbouring frames and the mean over bands, so
that neither steady noises of one kind nor bursts of one length are similar. Their similarity is the largest correlation
over all shifts in time.

The threshold is calibrated on the data set: it is the largest similarity of two clips of different classes and
recordings, which cannot contain the same event. Copies of clips, made for this purpose, show which share of copies is
found. The pairs that are listed are candidates: listen to them.

With ``--against`` the clips are compared with those of another data set instead, such as the one that a source was
trained on: clips of one recording, by its name in both data sets (``group``, as the ids of Freesound in ESC-50 and
UrbanSound8K), and clips of any classes that sound alike. Clips are padded with silence to the longest, and a frame is a
hop, so that time has one scale; the threshold is calibrated on pairs within each of the two data sets. Short sounds of
one kind, such as barks, may reach it by chance. ``--leave-out`` writes a table of the other clips.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.data.catalogue import DataOptions
from transferlens.data.folds import check_table, write_table
from transferlens.features.cache import FeatureCache
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.features.logmel import FeatureOptions, FeatureSettings
from transferlens.options import OutputOptions
from transferlens.store.arms import arm_names
from transferlens.store.run import Run, load_runs
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule
from transferlens.util.grouping import group_by
from transferlens.util.lazy import scipy
from transferlens.util.text import counted, natural, some, table

if TYPE_CHECKING:
    from transferlens.data.clips import Clip, DataSet

BANDS = 32
DEPTH = 8.0  # cells further below the loudest one do not count [log power]: 35 dB
NEIGHBOURS = 9  # frames whose mean is subtracted
STEADY = 1e-3  # deviation [log power] below which a clip counts as silent: it is only rounding
ROUNDING = 1e-6  # by which the similarity of equal clips may be below 1
PAIRS, COPIES = 20_000, 40  # that the threshold is calibrated with
AT_ONCE, CLIPS_AT_ONCE = 2**22, 256  # numbers, and clips, that are computed at once: as memory allows
PAIRS_OF_FOLDS = "pairs of one class in different folds"


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Find near-duplicates across folds, and the accuracy without them. Exit code 1 if there are some."""

    ckpt: tuple[Path, ...] = ()
    """Run files of this data set: their accuracy with and without clips that have a near-duplicate in another fold."""
    threshold: Annotated[float | None, Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1)] = None
    """Similarity from which on two clips are listed, 0 to 1. Default: calibrated on the data set."""
    against: str | None = None
    """Compare with another data set instead of across folds: a csv table of clips, or a name with --against-root. Names
    of recordings (group, src_file, fsID or freesound_id) must mean the same in both."""
    against_root: Path | None = None
    """Folder of the data set that --against names."""
    leave_out: Path | None = None
    """With --against: write a table (.csv) of the clips that are in no pair, to be used as --clips."""
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
class Pair:
    """Two similar clips of one class in different folds, or of two data sets; a row of duplicates.csv.

    `recording` is the name of the recording that clips of two data sets share; empty if they only sound alike.
    """

    clip: str
    fold: str
    other_clip: str
    other_fold: str
    label: str
    similarity: float
    other_label: str
    recording: str


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
    strangers = _partners(dataset, same_class=False)
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
    labels = np.array([clip.label for clip in dataset.clips], dtype=object)
    homes = np.array([clip.group or clip.id for clip in dataset.clips], dtype=object)
    strangers = (labels[rows, None] != labels) & (homes[rows, None] != homes)
    return similarities(marks[rows], marks)[strangers & ~(np.isin(others, rows) & (others <= rows[:, None]))]


def _calibration(
    dataset: DataSet, cache: FeatureCache, marks: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> Calibration:
    """Return the calibration by the similarities of pairs that cannot contain the same event."""
    if not values:
        raise ParameterError(f"{dataset.name} has no two clips of different recordings and classes: name a threshold")
    copied = rng.choice(len(marks), min(COPIES, len(marks)), replace=False)
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
            pairs.append(_pair(clip, other, values[j]))
    return sorted(pairs, key=lambda pair: -pair.similarity)


def _pair(clip: Clip, other: Clip, value: float, recording: str = "") -> Pair:
    alike = float(min(1.0, value))
    return Pair(clip.id, clip.fold, other.id, other.fold, clip.label, alike, other.label, recording)


def shared(
    dataset: DataSet, marks: np.ndarray, other: DataSet, other_marks: np.ndarray, threshold: float
) -> list[Pair]:
    """Return the pairs of clips of two data sets that are of one recording or reach the threshold, those first."""
    recordings = np.array([clip.group for clip in other.clips], dtype=object)
    pairs = []
    for clip, values in zip(dataset.clips, similarities(marks, other_marks), strict=True):
        same = (recordings == clip.group) & (clip.group is not None)
        for j in np.flatnonzero(same | (values >= threshold - ROUNDING)):
            pairs.append(_pair(clip, other.clips[j], values[j], recordings[j] if same[j] else ""))
    return sorted(pairs, key=lambda pair: (not pair.recording, -pair.similarity))


def write_others(dataset: DataSet, pairs: Sequence[Pair], path: Path) -> int:
    """Write a table of the clips that are in no pair, and return their number; raise DataError if there are none."""
    others = dataset.without({pair.clip for pair in pairs}).clips
    write_table(others, path)
    return len(others)


def _without(runs: Sequence[Run], twins: Set[str], where: str) -> str:
    """Return a line per arm: its accuracy, and that without clips (`twins`) that have a near-duplicate elsewhere."""
    arms = group_by(zip(runs, arm_names(runs), strict=True), lambda named: f"{named[0].config.backbone}, {named[1]}")
    return "\n".join(f"{arm}: {_accuracies([run for run, _ in named], twins, where)}" for arm, named in arms.items())


def _accuracies(runs: Sequence[Run], twins: Set[str], where: str) -> str:
    right = np.concatenate([run.right for run in runs])
    alone = np.array([clip not in twins for run in runs for clip in run.clip_ids])
    accuracy = f"accuracy of {counted(len(runs), 'run')} {100 * right.mean():.1f} %"
    text = f"{accuracy} over {counted(len(right), 'held-out clip')}, "
    if not alone.any():
        return f"{text}every one of which has a near-duplicate in {where}"
    return f"{text}{100 * right[alone].mean():.1f} % over the {alone.sum()} without a near-duplicate in {where}"


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
    count: str
    accuracies: str

    @property
    def exit_code(self) -> int:
        """1 if there are near-duplicates, else 0."""
        return cli.FOUND if self.rows else cli.DONE

    def summary(self) -> str:
        """Return where the threshold comes from, the pairs, and the accuracies."""
        parts = [self.calibration, self.count]
        if self.rows:
            cells = [
                (
                    p.label if p.label == p.other_label else f"{p.label}, {p.other_label}",
                    *(f"{p.clip} (fold {p.fold})", f"{p.other_clip} (fold {p.other_fold})"),
                    *(f"{p.similarity:.3f}", p.recording),
                )
                for p in self.rows
            ]
            parts.append(table([("class", "clip", "other clip", "similarity", "recording"), *cells]))
        return "\n".join(filter(None, [*parts, self.accuracies]))


def _marks(dataset: DataSet, settings: FeatureSettings, folder: Path) -> tuple[FeatureCache, np.ndarray]:
    """Return the complete cache of a data set, and the fingerprints of its clips."""
    cache = FeatureCache(dataset, settings, folder)
    cache.fill()
    S = cache.load()
    parts = [fingerprints(S[i : i + CLIPS_AT_ONCE]) for i in range(0, len(S), CLIPS_AT_ONCE)]
    return cache, np.concatenate(parts)


def _across_folds(dataset: DataSet, trained: Sequence[Run], options: Options) -> Result:
    """Compare all clips of a class across folds."""
    n_compared = sum(map(len, _partners(dataset, same_class=True)))
    if not n_compared:
        raise ParameterError(f"{dataset.name} has no two clips of one class in different folds: nothing to compare")
    cache, marks = _marks(dataset, options.features.settings(dataset), options.store.cache)
    threshold, calibration = options.threshold, ""
    if threshold is None:
        calibrated = calibrate(dataset, cache, marks)
        threshold, calibration = calibrated.threshold, calibrated.text(n_compared, PAIRS_OF_FOLDS)
    pairs = find(dataset, marks, threshold)
    count = f"{PAIRS_OF_FOLDS} that are as alike: {len(pairs)}"
    twins = {clip for pair in pairs for clip in (pair.clip, pair.other_clip)}
    return Result(tuple(pairs), calibration, count, _without(trained, twins, "another fold"))


def _settings(dataset: DataSet, other: DataSet, options: Options) -> FeatureSettings:
    """Return settings for the clips of both: the middle window, one frame per hop, padded to the longest clip."""
    settings, seconds = options.features.settings(dataset), max(dataset.seconds, other.seconds)
    middle = len(settings.hops) // 2
    window, hop = settings.windows[middle], settings.hops[middle]
    return replace(settings, windows=(window,), hops=(hop,), seconds=seconds, width=math.ceil(seconds / hop))


def _across_data_sets(dataset: DataSet, other: DataSet, trained: Sequence[Run], options: Options) -> Result:
    """Compare all clips with those of another data set."""
    settings = _settings(dataset, other, options)
    cache, marks = _marks(dataset, settings, options.store.cache)
    _, other_marks = _marks(other, settings, options.store.cache)
    threshold, calibration, n_compared = options.threshold, "", len(marks) * len(other_marks)
    if threshold is None:
        calibrated = calibrate_both(dataset, cache, marks, other, other_marks)
        threshold, calibration = calibrated.threshold, calibrated.text(n_compared, f"pairs with {other.name}")
    pairs = shared(dataset, marks, other, other_marks, threshold)
    names = sorted({pair.recording for pair in pairs} - {""}, key=natural)
    by_name = {pair.clip for pair in pairs if pair.recording}
    twins = {pair.clip for pair in pairs}
    count = (
        f"recordings that are in {other.name} too: {len(names)}{f' ({some(names)})' if names else ''}, of "
        f"{counted(len(by_name), 'clip')}; other clips that sound like one there: {len(twins - by_name)}"
    )
    if options.leave_out is not None:
        n = write_others(dataset, pairs, options.leave_out)
        count += f"\nwritten: {options.leave_out} with {n} of {len(dataset.clips)} clips"
    return Result(tuple(pairs), calibration, count, _without(trained, twins, other.name))


def _other(dataset: DataSet, options: Options) -> DataSet | None:
    """Return the other data set, at the rate of the first; None if folds are compared."""
    name, root = options.against, options.against_root
    if name is None:
        if given := [word for word in ("against_root", "leave_out") if getattr(options, word) is not None]:
            raise ParameterError(f"{given[0]} goes with against, the other data set")
        return None
    if options.leave_out is not None:
        check_table("leave_out", options.leave_out, dataset.clips)
    is_table = Path(name).suffix.lower() == ".csv"
    chosen = {"clips": Path(name)} if is_table else {"dataset": name}
    return DataOptions(**chosen, root=root, sr=dataset.sr, longest=dataset.longest).open(argument="against")


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare all clips of a class across folds, or all clips with those of another data set."""
    trained = load_runs(options.ckpt, least=0)
    dataset = options.data.open()
    _check_runs(trained, dataset)
    other = _other(dataset, options)
    if other is None:
        return _across_folds(dataset, trained, options)
    return _across_data_sets(dataset, other, trained, options)


duplicates = question.Question("duplicates", Options, analyse)
main = cli.command("duplicates", Options, duplicates)

if __name__ == "__main__":
    sys.exit(main())
