"""Near-duplicates across folds or data sets: clips that may be of one recording, and the accuracy without them.

`transferlens.datasets --audit` finds identical samples in two folds. This command also finds copies that were cut,
shifted, made softer or compressed again, by their similarity and a threshold that is calibrated on the data set:
`transferlens.features.near_duplicates` says how. The pairs that are listed are candidates: listen to them. Folds that
keep them together are made by `transferlens.datasets --make-folds FILE --group-duplicates`.

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
from transferlens.features import near_duplicates
from transferlens.features.logmel import FeatureOptions, FeatureSettings
from transferlens.features.near_duplicates import ROUNDING, calibrate, calibrate_both, marked, similarities
from transferlens.options import OutputOptions
from transferlens.store.arms import arm_names
from transferlens.store.run import Run, load_runs
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, natural, some, table

if TYPE_CHECKING:
    from transferlens.data.clips import Clip, DataSet

PAIRS_OF_FOLDS = "pairs of one class in different folds"


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Find near-duplicates across folds, and the accuracy without them. Exit code 1 if there are some."""

    ckpt: tuple[Path, ...] = ()
    """Run files of this data set: their accuracy with and without clips that have a near-duplicate in another fold."""
    threshold: Annotated[float | None, Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1)] = None
    """Similarity from which on two clips are listed, 0 to 1. Default: calibrated on the data set."""
    against: str | None = None
    """Compare with another data set instead of across folds: a csv table or a folder of clips, or a name with
    --against-root. Names of recordings (group, src_file, fsID or freesound_id) must mean the same in both."""
    against_root: Path | None = None
    """Folder of the data set that --against names."""
    leave_out: Path | None = None
    """With --against: write a table (.csv) of the clips that are in no pair, to be used as --clips."""
    data: DataOptions = DataOptions()
    features: FeatureOptions = FeatureOptions()
    store: CacheOptions = CacheOptions()
    output: OutputOptions = OutputOptions()


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


def find(dataset: DataSet, marks: np.ndarray, threshold: float) -> list[Pair]:
    """Return the pairs of one class in different folds that reach the threshold, the most similar first."""
    clips = dataset.clips
    found = near_duplicates.pairs(marks, _across(dataset), threshold)
    return sorted((_pair(clips[i], clips[j], value) for i, j, value in found), key=lambda pair: -pair.similarity)


def _across(dataset: DataSet) -> list[np.ndarray]:
    """Return for each clip the later ones of its class in other folds."""
    return near_duplicates.partners(dataset, [clip.fold for clip in dataset.clips], same_class=True)


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


def _across_folds(dataset: DataSet, trained: Sequence[Run], options: Options) -> Result:
    """Compare all clips of a class across folds."""
    n_compared = sum(map(len, _across(dataset)))
    if not n_compared:
        raise ParameterError(f"{dataset.name} has no two clips of one class in different folds: nothing to compare")
    cache, marks = marked(dataset, options.features.settings(dataset), options.store.cache)
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
    cache, marks = marked(dataset, settings, options.store.cache)
    _, other_marks = marked(other, settings, options.store.cache)
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
    is_table = Path(name).suffix.lower() == ".csv" or root is None and Path(name).is_dir()
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
