"""How the input is made: windows, fit and normalisation; and what remains of time stretching after a resize.

Question 3 of Palanisamy, Singhania and Yao (2020): are plain log-mel features a good input? Fine-tuned networks are
compared on the same folds and seeds, with one thing changed at a time.

The second part is about augmentation. If every clip is resized to one width, a clip that is played slower has the same
features, except for the smear of the windows: the resize undoes the time stretch. To measure how much of it remains,
held-out clips are stretched, and the changes of their features and of the predictions are computed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.features.logmel import HOPS, WINDOWS, FeatureSettings
from transferlens.measures import stats
from transferlens.measures.classes import IF_UNEVEN
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import accuracy as charts
from transferlens.plots import style
from transferlens.store.heldout import classify, heldout_audio
from transferlens.store.rows import levels, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import DataError
from transferlens.util.fields import at_least, build
from transferlens.util.grouping import group_by
from transferlens.util.lazy import librosa
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = "three windows, stretched, normalised"
_PLAIN = {"windows": WINDOWS, "hops": HOPS, "fit": "stretch", "normalise": "channel"}
# What each arm is, whatever the options and the preset say.
ARMS: Mapping[str, Mapping[str, Any]] = {
    BASE: _PLAIN,
    "one window": _PLAIN | {"windows": (0.05,), "hops": (0.025,)},
    "padded, not stretched": _PLAIN | {"fit": "pad"},
    "not normalised": _PLAIN | {"normalise": "none"},
    "ImageNet statistics": _PLAIN | {"normalise": "imagenet"},
}
# The arms whose networks see stretched clips.
FITS = {"resized to one width": BASE, "padded or cut": "padded, not stretched"}
# The paper's range of time stretching.
RATES = (0.9, 1.1, 1.2)


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """How the input is made: windows, fit and normalisation; and what is left of time stretching after the resize."""

    stretched: Annotated[int, at_least(2, " clips")] = 40
    """Held-out clips of each run that are stretched, evenly over the fold."""


@dataclass(frozen=True)
class Row:
    """One run in the CSV; accuracies are fractions."""

    arm: str
    backbone: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seed: int
    accuracy_last: float
    macro_f1: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    chance: float = field(default=np.nan, kw_only=True)
    commonest: float = field(default=np.nan, kw_only=True)
    accuracy_best: float
    run: str


@dataclass(frozen=True)
class StretchRow:
    """Clips played at another rate, of one run, in input_form_stretch.csv.

    `difference` is the root mean square by which log-mel features change, as a share of that between clips of one class
    (`between` [log power]); `changed` the share of clips whose prediction changes; accuracies are fractions.
    """

    fit: str
    rate: float
    backbone: str
    fold: str
    seed: int
    n_clips: int
    difference: float
    between: float
    accuracy: float
    accuracy_stretched: float
    changed: float


def points(options: Options) -> dict[str, Arm]:
    """Return the fine-tuned runs of every arm, each with its own features."""
    studies = {name: Study.of(build(Options, changes, base=options)) for name, changes in ARMS.items()}
    studies[BASE].check_one("backbone")
    _check_classes(studies[BASE], options.stretched)
    return {name: study.arm(TransferPlan.finetune()) for name, study in studies.items()}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=float))))


def _features(settings: FeatureSettings, clips: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([settings.compute(y, settings.sr) for y in clips])


def _between(S: np.ndarray, labels: np.ndarray) -> float:
    """Return the root mean square difference of features between clips of one class, each with the next [log power]."""
    order = np.argsort(labels, kind="stable")
    differences = np.diff(S[order], axis=0)[np.diff(labels[order]) == 0]
    if not differences.any():
        raise DataError(
            "the features of held-out clips do not differ within any class, so that the change by stretching cannot be "
            "compared with such differences: name more --stretched, or other clips"
        )
    return _rms(differences)


def stretch_rows(fit: str, run: Run, clips: Sequence[np.ndarray], places: np.ndarray) -> list[StretchRow]:
    """Compute how features and predictions change if held-out clips of a run are played faster or slower.

    `clips` are waveforms, `places` [shape=(n_clips,)] their indices among the held-out clips of the run; `fit` is
    copied to the rows. DataError is raised if the features of all clips of one class are equal.
    """
    settings, labels, network = run.config.features, run.labels[places], run.model()
    S = _features(settings, clips)
    plain, between = classify(run, network, S).argmax(1), _between(S, labels)
    rows = []
    for rate in RATES:
        stretched = _features(settings, [librosa.effects.time_stretch(y, rate=rate) for y in clips])
        predicted = classify(run, network, stretched).argmax(1)
        rows.append(
            StretchRow(
                fit=fit,
                rate=rate,
                backbone=run.config.backbone,
                fold=run.config.fold,
                seed=run.config.seed,
                n_clips=len(clips),
                difference=_rms(stretched - S) / between,
                between=between,
                accuracy=float((plain == labels).mean()),
                accuracy_stretched=float((predicted == labels).mean()),
                changed=float((predicted != plain).mean()),
            )
        )
    return rows


def differences(rows: Sequence[Row]) -> dict[str, stats.Difference]:
    """Return the difference of each arm to the first, paired by fold."""
    by_arm = {arm: stats.by_fold(rows, "accuracy_last", arm=arm) for arm in dict.fromkeys(row.arm for row in rows)}
    base = by_arm[BASE]
    return {arm: stats.paired_difference(values, base) for arm, values in by_arm.items() if arm != BASE}


def _stretch_intervals(rows: Sequence[StretchRow], test_to_train: float) -> list[stats.Interval]:
    """Return intervals over folds: of the change of features, and of the share of clips whose prediction changes."""
    intervals = []
    for name, top in (("difference", np.inf), ("changed", 1.0)):
        folds = stats.by_fold(rows, name)
        folds.test_to_train = test_to_train  # the stretched clips are only some of the held-out ones
        intervals.append(stats.fold_interval(folds, bounds=(0.0, top)))
    return intervals


def draw(result: Result) -> Figure:
    """Draw the accuracy of each arm, its difference to the first, and what is left of time stretching."""
    fig, ((accuracies, features), (changes, moved)) = style.new_figure(2, 2, width=12.5, height=7.6)
    _draw_arms(result.rows, accuracies, changes)
    palette = style.colours(row.fit for row in result.stretches)
    ratio = stats.by_fold(result.rows, "accuracy_last", arm=BASE).test_to_train
    _draw_stretches(result.stretches, ratio, palette, features, moved)
    n_folds = len({row.fold for row in result.rows})
    entries = dict(zip(palette, style.handles(palette), strict=True))
    style.legend_below(fig, entries, marks=style.fold_marks(n_folds) | style.change_marks(n_folds))
    style.title(fig, f"{result.title}: how the input is made")
    return fig


def _draw_arms(rows: Sequence[Row], accuracies: Axes, changes: Axes) -> None:
    arms = {row.arm: row.arm.replace(", ", ",\n") for row in rows}
    points = {name: {"": stats.by_fold(rows, "accuracy_last", arm=arm)} for arm, name in arms.items()}
    charts.points_and_means(points, ax=accuracies)
    charts.level_lines(levels(rows), ax=accuracies)
    accuracies.tick_params(axis="x", labelsize="x-small")
    accuracies.set_title("after the last epoch", fontsize="small", loc="left")
    intervals = [(list(arms).index(arm), difference.interval) for arm, difference in differences(rows).items()]
    charts.changes({"": intervals}, ax=changes)
    changes.set_xticks(range(len(arms)), list(arms.values()), fontsize="x-small")
    changes.set_xlim(-0.5, len(arms) - 0.5)
    changes.set_title("less the first, paired by fold", fontsize="small", loc="left")


def _draw_stretches(
    rows: Sequence[StretchRow], ratio: float, palette: Mapping[str, tuple], features: Axes, moved: Axes
) -> None:
    groups = group_by(rows, lambda row: (row.fit, row.rate))
    for side, (fit, colour) in zip((-0.003, 0.003), palette.items(), strict=True):
        by_rate = [_stretch_intervals(groups[fit, rate], ratio) for rate in RATES]
        for ax, intervals in zip((features, moved), zip(*by_rate, strict=True), strict=True):
            mean, low, high = 100 * np.array([(i.mean, i.low, i.high) for i in intervals]).T
            ax.errorbar(np.add(RATES, side), mean, (mean - low, high - mean), fmt="o-", color=colour, capsize=3)
    n_clips, n_folds = sum(row.n_clips for row in rows) // len(RATES) // len(FITS), len({row.fold for row in rows})
    clips, folds = counted(n_clips, "held-out clip"), counted(n_folds, "fold")
    about = f"{clips} played at another rate; bars: 95 % intervals over {folds}"
    features.set_title(about, fontsize="small", loc="left")
    features.set_ylabel("change of features, share of that\nbetween clips of one class [%]")
    moved.set_ylabel("predictions that change [%]")
    for ax in (features, moved):
        ax.set(ylim=(0, None), xticks=RATES, xlabel="rate")


def summary(result: Result) -> str:
    """Return the accuracies, the differences and the changes by stretching in words."""
    rows, arms = result.rows, dict.fromkeys(row.arm for row in result.rows)
    lines = [f"{arm}: {stats.fold_interval(stats.by_fold(rows, 'accuracy_last', arm=arm))}" for arm in arms]
    lines += [f"{arm}, less {BASE}: {difference}" for arm, difference in differences(rows).items()]
    for (fit, rate), group in group_by(result.stretches, lambda row: (row.fit, row.rate)).items():
        names = ("difference", "changed", "accuracy", "accuracy_stretched")
        change, changed, before, after = (100 * np.mean([getattr(row, name) for row in group]) for name in names)
        lines.append(
            f"played at {rate:g}, {fit}: features change by {change:.0f} % of what clips of one class differ by, "
            f"{changed:.1f} % of the predictions change, accuracy {before:.1f} to {after:.1f} % "
            f"({counted(len(group), 'run')})"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run, and one per run and rate of playing."""

    stem = "input_form"
    rows: tuple[Row, ...]
    stretches: tuple[StretchRow, ...]
    title: str = ""

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the accuracies, and what stretching changes."""
        return {"input_form": self.rows, "input_form_stretch": self.stretches}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare the arms, and play held-out clips faster and slower."""
    rows = [row_of(Row, run, arm=name) for name, runs_of_arm in runs.items() for run in runs_of_arm]
    stretches = [row for fit, name in FITS.items() for run in runs[name] for row in _stretched(fit, run, options)]
    return Result(tuple(rows), tuple(stretches), runs[BASE][0].config.dataset)


def _check_classes(study: Study, n: int) -> None:
    """Raise DataError if a fold has no two clips of one class among those to be stretched; no run is trained yet."""
    for fold in study.folds:
        held_out = study.dataset.split(fold)[1]
        labels = [study.dataset.clips[held_out[i]].label for i in _places(len(held_out), n)]
        if len(set(labels)) == len(labels):
            raise DataError(
                f"fold {fold!r} of {study.dataset.name} has no two clips of one class among the {len(labels)} to be "
                "stretched, and the change by stretching is compared with the difference of two such clips: name other "
                "folds, or increase stretched"
            )


def _places(n_clips: int, n: int) -> np.ndarray:
    """Return the indices of the clips to stretch: `n`, evenly spaced over the fold, or all if there are fewer."""
    return np.linspace(0, n_clips - 1, min(n_clips, n)).round().astype(int)


def _stretched(fit: str, run: Run, options: Options) -> list[StretchRow]:
    places = _places(len(run.clip_ids), options.stretched)
    clips = heldout_audio(run, options.data, [run.clip_ids[i] for i in places])
    return stretch_rows(fit, run, clips, places)


input_form = question.Question("input_form", Options, analyse, points)
main = cli.command("input_form", Options, input_form)

if __name__ == "__main__":
    sys.exit(main())
