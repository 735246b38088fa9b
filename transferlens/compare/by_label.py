"""Networks class by class where clips have several labels: average precision, and which classes one ranks better.

It is to `by_class` what mAP is to accuracy: a class has no recall without a threshold, and clips are not taken for one
class instead of another one. Intervals and p-values are of recordings, or clips, drawn anew (`measures.multilabel`).

* `precisions`: the average precision of each class, and of each again for recordings drawn anew
* `rows_of`, `overall`: scores of each class, and over all of them
* `changes`: the difference of two networks in each class
* `mistakes`: the surest classes that clips do not have
* `draw_scores`, `text`: the rows drawn, and in words
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferlens.compare.by_class import ENSEMBLE, SINGLE, ChangeRow, Mistake, columns, percent
from transferlens.compare.ensembles import Members
from transferlens.data.clips import BETWEEN
from transferlens.measures import multilabel, stats
from transferlens.measures.classes import IF_SEVERAL
from transferlens.measures.scoring import SEVERAL
from transferlens.measures.stats import Difference, Interval
from transferlens.plots import accuracy
from transferlens.util.grouping import group_by
from transferlens.util.text import shortened, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Classes that the text names.
MOST = 3


@dataclass(frozen=True)
class LabelRow:
    """The average precision of one class in the CSV: `who` is "single" (mean of all `n_networks`) or their "ensemble".

    It is the mean over the folds that have clips of the class, NaN without any, with a 95 % bootstrap interval over
    recordings, or over clips if `n_recordings` is 0, as they are not known. `chance` is what a random order
    reaches: the share of clips of the class, in the mean of the same folds.
    """

    network: str
    who: str
    n_networks: int
    label: str
    n_clips: int
    n_recordings: int
    average_precision: float
    average_precision_low: float
    average_precision_high: float
    chance: float


@dataclass(frozen=True)
class OverallLabelRow:
    """The scores over all classes in the CSV, means over `n_networks`, with intervals as of `LabelRow`.

    mAP is the mean over folds of the mean over the classes that clips of the fold have; `absent` names the classes that
    no clip has, and `missing` seeds that some fold lacks.
    """

    network: str
    who: str
    n_networks: int
    n_clips: int
    n_recordings: int
    score: str = field(default="mAP", kw_only=True, metadata=IF_SEVERAL)
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    lwlrap: float
    lwlrap_low: float
    lwlrap_high: float
    absent: str
    missing: str
    chance: float = np.nan
    commonest: float = np.nan


class Precisions(NamedTuple):
    """Average precisions of single networks (mean) or an ensemble: of each class, and of each in every resample."""

    means: np.ndarray
    drawn: np.ndarray


def outputs(members: Members, who: str) -> np.ndarray:
    """Return the probabilities of single networks, or of their ensemble [shape=(n_networks, n_clips, n_classes)]."""
    return members.average[None] if who == ENSEMBLE else members.probabilities


def precisions(members: Members, who: str = SINGLE) -> Precisions:
    """Compute the average precisions [shape=(n_classes,)], and those of recordings drawn anew.

    The latter are [shape=(n_resamples, n_classes)]. For networks with the same clips in the same order, the same
    recordings are drawn.
    """
    labels, folds, own = members.labels, members.folds, outputs(members, who)
    by_fold = [
        [multilabel.average_precisions(labels[folds == fold], one[folds == fold]) for fold in dict.fromkeys(folds)]
        for one in own
    ]
    means = multilabel.mean_known(np.array(by_fold), 1).mean(0)
    return Precisions(means, SEVERAL.drawn(own, labels, folds, members.groups).mean(0))


def rows_of(members: Members, who: str, scores: Precisions) -> list[LabelRow]:
    """Return the scores of each class."""
    rows = []
    for k, label in enumerate(members.classes):
        clips: np.ndarray = members.labels[:, k] > 0
        shares = [clips[members.folds == fold].mean() for fold in dict.fromkeys(members.folds[clips])]
        interval = multilabel.interval(float(scores.means[k]), scores.drawn[:, k], int(clips.sum()))
        recordings = len(set(itertools.compress(members.groups, clips.tolist())))
        own = (members.name, who, len(members.names), label, interval.n, recordings)
        rows.append(LabelRow(*own, **columns(average_precision=interval), chance=statistics.fmean(shares or [np.nan])))
    return rows


def overall(members: Members, who: str, scores: Precisions) -> OverallLabelRow:
    """Return the scores over all classes."""
    labels, n_clips = members.labels, len(members.labels)
    mean = np.mean([SEVERAL.over_folds(one, labels, members.folds) for one in outputs(members, who)]).item()
    ranking = np.mean([multilabel.label_ranking(labels, one) for one in outputs(members, who)], axis=0)
    n_labels, groups = labels.sum(1, dtype=int), members.groups or members.clips
    of_labels = np.repeat(np.array(groups, dtype=object), n_labels).tolist()
    lwlrap = stats.bootstrap_difference(np.repeat(ranking, n_labels), groups=of_labels).interval
    return OverallLabelRow(
        network=members.name,
        who=who,
        n_networks=len(members.names),
        n_clips=n_clips,
        n_recordings=members.n_recordings,
        **columns(accuracy=multilabel.interval(mean, multilabel.mean_known(scores.drawn, 1), n_clips), lwlrap=lwlrap),
        absent="; ".join(name for name, n in zip(members.classes, labels.sum(0).tolist(), strict=True) if not n),
        missing="; ".join(members.missing),
        **members.levels(),
    )


def changes(one: Precisions, other: Precisions, members: Members, names: tuple[str, str]) -> list[ChangeRow]:
    """Return the difference in each class that clips have; `members` say which clips, and the `names` are the rows'."""
    known = np.flatnonzero(np.isfinite(one.means - other.means)).tolist()
    differences = []
    for k in known:
        drawn = one.drawn[:, k] - other.drawn[:, k]
        interval = multilabel.interval(float(one.means[k] - other.means[k]), drawn, int(members.labels[:, k].sum()))
        p_value = stats.two_sided(drawn[np.isfinite(drawn)]) if interval.is_bounded else float("nan")
        differences.append(Difference(interval, p_value))
    return [
        ChangeRow(
            *names,
            members.classes[k],
            difference.interval.n,
            len(set(itertools.compress(members.groups, members.labels[:, k] > 0))),
            **columns(change=difference.interval),
            p=difference.p_value,
            p_adjusted=difference.p_adjusted,
        )
        for k, difference in zip(known, stats.adjusted(differences), strict=True)
    ]


def mistakes(members: Members, most: int) -> list[Mistake]:
    """Return the clips in which the ensemble is surer of a class that they do not have than of one of theirs.

    The surest of the former is `predicted`, the least sure of the latter has the probability `of_label`.
    """
    probabilities, own = members.average, members.labels > 0
    strangers = np.where(own, -1.0, probabilities)
    chosen, least = strangers.argmax(1), np.where(own, probabilities, 2.0).min(1)
    confidence = strangers.max(1)
    order = [i for i in np.argsort(-confidence, kind="stable") if confidence[i] > least[i]]
    lowest = np.where(own, members.probabilities, 2.0).min(-1)
    return [
        Mistake(
            network=members.name,
            clip=members.clips[i],
            fold=str(members.folds[i]),
            recording=members.groups[i] if members.groups else "",
            label=BETWEEN.join(itertools.compress(members.classes, own[i])),
            predicted=members.classes[chosen[i]],
            confidence=float(confidence[i]),
            of_label=float(least[i]),
            wrong=float((members.probabilities[:, i, chosen[i]] > lowest[:, i]).mean()),
        )
        for i in order[:most]
    ]


def draw_scores(rows: Sequence[LabelRow], palette: Mapping[str, tuple], ax: Axes) -> None:
    """Draw the average precision of each class with its interval, a line per network, and that of a random order."""
    by_label = group_by(rows, key=lambda row: shortened(row.label, 24))
    means: dict[str, dict[str, Interval]] = {
        label: {row.network: percent(row, "average_precision") for row in of_label}
        for label, of_label in by_label.items()
    }
    chance = {label: {row.network: 100 * row.chance for row in of_label} for label, of_label in by_label.items()}
    accuracy.intervals(means, palette=palette, marks={"|": chance}, ax=ax)
    ax.set(xlim=(-2, 102), xlabel="average precision [%]")


def text(row: OverallLabelRow, rows: Sequence[LabelRow], who: str) -> list[str]:
    """Return the scores over all classes, and the classes of the lowest average precision, of those that clips have."""
    scores = (
        f"{name} {100 * getattr(row, key):.1f} % (95 % interval "
        f"{span(100 * getattr(row, f'{key}_low'), 100 * getattr(row, f'{key}_high'))})"
        for name, key in (("mAP", "accuracy"), ("lwlrap", "lwlrap"))
    )
    over = stats.clips_text(row.n_clips, row.n_recordings)
    known = sorted((own for own in rows if own.n_clips), key=lambda own: own.average_precision)
    weakest = [
        f"{own.label} {100 * own.average_precision:.1f} % "
        f"({span(100 * own.average_precision_low, 100 * own.average_precision_high)})"
        for own in known[:MOST]
    ]
    return [f"{row.network}, {who}: {', '.join(scores)}, {over}", f"  lowest average precision: {', '.join(weakest)}"]
