"""Networks class by class: their scores, and which classes one network classifies better than another.

* `rows_of`, `overall`: scores of each class, and over all of them
* `confusions`, `mistakes`: which classes are taken for which, and the surest mistakes
* `changes`: the difference of two networks in each class, paired by clip
* `by_class`, `draw_scores`, `draw_changes`: the rows by class, as text and drawn
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.compare.ensembles import Members
from transferlens.measures import classes, stats
from transferlens.measures.stats import Interval
from transferlens.plots import accuracy
from transferlens.util.grouping import group_by
from transferlens.util.text import shortened, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE, ENSEMBLE = "single", "ensemble"
# A difference is named if its adjusted p-value is lower.
LEVEL = 0.05


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class in the CSV: `who` is "single" (all `n_networks`) or their "ensemble".

    Scores are fractions, NaN if they are not defined: recall without a clip of the class, precision if no clip is
    classified as it. 95 % intervals are Wilson's over recordings, or over clips if `n_recordings` is 0, as they are not
    known; the networks of one clip are not taken as independent.
    """

    network: str
    who: str
    n_networks: int
    label: str
    n_clips: int
    n_recordings: int
    recall: float
    recall_low: float
    recall_high: float
    precision: float
    precision_low: float
    precision_high: float
    f1: float
    f1_low: float
    f1_high: float


@dataclass(frozen=True)
class OverallRow:
    """The scores over all classes in the CSV, means over `n_networks`; the interval of the accuracy as of `ClassRow`.

    Macro-F1 and balanced accuracy are means over the classes that clips are of; `class_ratio` is the size of the
    largest class over that of the smallest, infinite if a class has no clip, and `absent` names such classes; `missing`
    names seeds that some fold lacks.
    """

    network: str
    who: str
    n_networks: int
    n_clips: int
    n_recordings: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    balanced_accuracy: float
    class_ratio: float
    absent: str
    missing: str
    chance: float = np.nan
    commonest: float = np.nan


@dataclass(frozen=True)
class ChangeRow:
    """The difference of two networks in one class in the CSV: share of its clips that `network` has right less `other`.

    Means over the seeds of each, paired by clip. The 95 % interval is over recordings, or over clips if `n_recordings`
    is 0, and `p` is of random signs (`stats.flip_difference`); `p_adjusted` is adjusted for the number of classes.
    """

    network: str
    other: str
    label: str
    n_clips: int
    n_recordings: int
    change: float
    change_low: float
    change_high: float
    p: float
    p_adjusted: float


@dataclass(frozen=True)
class ConfusionRow:
    """One cell of a confusion matrix in the CSV: clips of a class that are classified as one, mean over networks."""

    network: str
    label: str
    predicted: str
    n: float


@dataclass(frozen=True)
class Mistake:
    """One clip in the CSV that the networks, by the mean of their probabilities, classify wrongly.

    `confidence` is the probability of the class that they choose, `of_label` that of the clip's class;
    `wrong` is the share of single networks that are wrong.
    """

    network: str
    clip: str
    fold: str
    recording: str
    label: str
    predicted: str
    confidence: float
    of_label: float
    wrong: float


def predicted(members: Members, who: str) -> np.ndarray:
    """Return the classes that single networks, or their ensemble, choose [shape=(n_networks, n_clips)]."""
    return members.average.argmax(-1)[None] if who == ENSEMBLE else members.logits.argmax(-1)


def right(members: Members, who: str = SINGLE) -> np.ndarray:
    """Return for each clip the share of networks that classify it correctly [shape=(n_clips,)]."""
    return (predicted(members, who) == members.labels).mean(0)


def whos(members: Members) -> list[str]:
    """Return who is scored: single networks, and if they are several their ensemble."""
    return [SINGLE, ENSEMBLE] if len(members.names) > 1 else [SINGLE]


def rows_of(members: Members, who: str = SINGLE) -> list[ClassRow]:
    """Return the scores of each class."""
    chosen = predicted(members, who)
    groups, n = members.groups or members.clips, len(chosen)  # the networks of one clip are a group
    table = classes.scores(
        np.tile(members.labels, n), chosen.ravel(), n_classes=len(members.classes), groups=list(groups) * n
    )
    recordings = [len(set(itertools.compress(members.groups, members.labels == k))) for k in range(len(table))]
    return [
        ClassRow(
            members.name,
            who,
            len(members.names),
            label,
            scores.n // n,
            n_recordings,
            **columns(recall=scores.recall, precision=scores.precision, f1=scores.f1),
        )
        for label, scores, n_recordings in zip(members.classes, table, recordings, strict=True)
    ]


def columns(**intervals: Interval) -> dict[str, Any]:
    """Return the columns of means with their intervals, by name."""
    columns: dict[str, Any] = {}
    for name, interval in intervals.items():
        columns |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return columns


def overall(members: Members, who: str = SINGLE) -> OverallRow:
    """Return the scores over all classes."""
    labels, chosen = members.labels, predicted(members, who)
    counts = np.bincount(labels, minlength=len(members.classes))
    return OverallRow(
        network=members.name,
        who=who,
        n_networks=len(members.names),
        n_clips=len(labels),
        n_recordings=members.n_recordings,
        **columns(accuracy=stats.share_interval(right(members, who), groups=members.groups)),
        macro_f1=float(np.mean([classes.macro_f1(labels, one) for one in chosen])),
        balanced_accuracy=float(np.mean([classes.balanced_accuracy(labels, one) for one in chosen])),
        class_ratio=classes.unevenness(labels, n_classes=len(counts)),
        absent="; ".join(itertools.compress(members.classes, counts == 0)),
        missing="; ".join(members.missing),
        **members.levels(),
    )


def confusions(members: Members) -> list[ConfusionRow]:
    """Return the cells of the confusion matrix that are not empty, mean over the networks."""
    labels = members.classes
    matrices = [classes.confusion(members.labels, one, n_classes=len(labels)) for one in predicted(members, SINGLE)]
    mean = np.mean(matrices, axis=0)
    return [ConfusionRow(members.name, labels[i], labels[k], float(mean[i, k])) for i, k in np.argwhere(mean).tolist()]


def mistakes(members: Members, most: int) -> list[Mistake]:
    """Return the clips that the mean of the networks' probabilities classifies wrongly, the surest first."""
    probabilities, wrong = members.average, 1 - right(members)
    chosen, confidence = probabilities.argmax(1), probabilities.max(1)
    order = [i for i in np.argsort(-confidence, kind="stable") if chosen[i] != members.labels[i]]
    return [
        Mistake(
            network=members.name,
            clip=members.clips[i],
            fold=str(members.folds[i]),
            recording=members.groups[i] if members.groups else "",
            label=members.classes[members.labels[i]],
            predicted=members.classes[chosen[i]],
            confidence=float(confidence[i]),
            of_label=float(probabilities[i, members.labels[i]]),
            wrong=float(wrong[i]),
        )
        for i in order[:most]
    ]


def changes(gains: np.ndarray, members: Members, names: tuple[str, str]) -> list[ChangeRow]:
    """Return the difference in each class that clips are of, from that of each clip [shape=(n_clips,)].

    `members` say which class and recording each clip is of; the two `names` are those of the rows.
    """
    clips_of = {k: members.labels == k for k in np.unique(members.labels).tolist()}
    groups_of = {k: [*itertools.compress(members.groups, clips)] for k, clips in clips_of.items()}
    differences = [stats.flip_difference(gains[clips], groups=groups_of[k]) for k, clips in clips_of.items()]
    return [
        ChangeRow(
            *names,
            members.classes[k],
            difference.interval.n,
            len(set(groups_of[k])),
            **columns(change=difference.interval),
            p=difference.p_value,
            p_adjusted=difference.p_adjusted,
        )
        for k, difference in zip(clips_of, stats.adjusted(differences), strict=True)
    ]


def changes_text(rows: Sequence[ChangeRow]) -> str:
    """Return in words which classes the first network classifies better or worse, and for how many it is not known."""
    clear = sorted((row for row in rows if row.p_adjusted < LEVEL), key=lambda row: -abs(row.change))
    better, worse = ([row for row in clear if (row.change > 0) == is_better] for is_better in (True, False))
    parts = [
        f"{word}: {some(map(_change_text, group))}" for word, group in (("better", better), ("worse", worse)) if group
    ]
    return "; ".join([*parts, f"no clear difference: {len(rows) - len(clear)} of {len(rows)} classes"])


def _change_text(row: ChangeRow) -> str:
    return f"{row.label} ({100 * row.change:+.1f} points, adjusted p = {row.p_adjusted:.3f})"


def draw_scores(rows: Sequence[ClassRow], palette: Mapping[str, tuple], ax: Axes) -> None:
    """Draw the recall of each class with its interval, a line per network, and that of guessing."""
    by_label = group_by(rows, key=lambda row: shortened(row.label, 24))
    accuracy.intervals(
        {label: {row.network: percent(row, "recall") for row in each} for label, each in by_label.items()},
        palette=palette,
        ax=ax,
    )
    accuracy.level_lines({"chance": 1 / len(by_label)}, upright=True, ax=ax)
    ax.set(xlim=(-2, 102), xlabel="recall [%]")


def draw_changes(
    rows: Sequence[ChangeRow],
    labels: Sequence[str],
    palette: Mapping[str, tuple],
    ax: Axes,
    *,
    what: str = "recall",
) -> None:
    """Draw the change of each class with its interval, a line per pair of networks; labels give the order."""
    means: dict[str, dict[str, Interval]] = {shortened(label, 24): {} for label in labels}
    clear: dict[str, dict[str, float]] = {label: {} for label in means}
    for row in rows:
        pair, label = f"{row.network} - {row.other}", shortened(row.label, 24)
        means[label][pair] = percent(row, "change")
        if row.p_adjusted < LEVEL:
            clear[label][pair] = 100 * row.change
    accuracy.intervals(means, palette=palette, marks={"s": clear}, ax=ax)
    ax.set(xlabel=f"difference in {what} [points]")


def percent(row: Any, name: str) -> Interval:
    """Return a field with its bounds, times 100."""
    mean, low, high = (100 * getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    return Interval(mean, low, high, row.n_clips)
