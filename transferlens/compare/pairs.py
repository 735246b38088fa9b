"""Two networks, or the networks of two arms, against each other, paired by clip.

* `Side`: the runs of one side
* `settings`: what differs between the sides
* `row_of`, `rows_of`: accuracies and their difference, over all clips and by fold
* `flips`: the clips that one side has right more often than the other
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from transferlens.compare import by_class
from transferlens.compare.ensembles import Members
from transferlens.measures import classes, stats
from transferlens.store import rows as run_rows
from transferlens.store.run import Run
from transferlens.util.text import natural

# What a run was computed with, besides its settings.
COMPUTED = ("transferlens", "torch", "device", "processor")


@dataclass(frozen=True)
class Row:
    """Accuracies of the first (`network`) and the second (`other`) in the CSV, over all clips (`fold` empty) or a fold.

    Means over the seeds of each. `change` is that of `network` less that of `other`, paired by clip, with its 95 %
    interval over recordings, or over clips if `n_recordings` is 0, and the p-value of random signs
    (`stats.flip_difference`): for these networks, with other clips. `folds_low` to `folds_p` are paired by fold
    (`stats.paired_difference`): for other training, too. `gained` and `lost` count the clips that flipped.
    """

    network: str
    other: str
    fold: str
    n_clips: int
    n_recordings: int
    accuracy: float
    accuracy_other: float
    macro_f1: float
    macro_f1_other: float
    class_ratio: float
    change: float
    change_low: float
    change_high: float
    change_p: float
    gained: int
    lost: int
    folds_low: float = np.nan
    folds_high: float = np.nan
    folds_plain_low: float = np.nan
    folds_plain_high: float = np.nan
    folds_p: float = np.nan
    chance: float = np.nan
    commonest: float = np.nan


@dataclass(frozen=True)
class Setting:
    """A setting that differs in the CSV; several values of one arm have a slash between them."""

    setting: str
    network: str
    other: str


@dataclass(frozen=True)
class Flip:
    """One clip in the CSV that not as many networks of the one have right as of the other.

    `right` and `right_other` are shares of the networks, 0 or 1 for single runs; `predicted` and `predicted_other` are
    the classes that most of them choose, followed by the mean of their probabilities.
    """

    clip: str
    fold: str
    label: str
    right: float
    right_other: float
    predicted: str
    predicted_other: str
    confidence: float
    confidence_other: float


@dataclass(frozen=True)
class Side:
    """One side of the comparison: its runs, and their networks by clip."""

    runs: Sequence[Run]
    members: Members

    @property
    def name(self) -> str:
        """Name of the side."""
        return self.members.name

    @property
    def gathered(self) -> list[Run]:
        """The runs of the networks that have every fold."""
        return [run for run in self.runs if f"{run.config.backbone} seed {run.config.seed}" in self.members.names]


def settings(first: Side, second: Side) -> list[Setting]:
    """Return the settings that differ between two sides, and what the runs were computed with if that does."""
    ours, others = ([_settings(run) for run in side.runs] for side in (first, second))
    table = []
    for name in dict.fromkeys(itertools.chain.from_iterable([*ours, *others])):
        one, other = (sorted({values.get(name, "") for values in side}, key=natural) for side in (ours, others))
        if one != other:
            table.append(Setting(name, " / ".join(one), " / ".join(other)))
    return table


def _settings(run: Run) -> dict[str, str]:
    config = {name: value for name, value in run.config.flat().items() if name not in ("data_key", "weights_sha256")}
    used = {f"{name} used": run.provenance.get(name, "") for name in (*COMPUTED, "precision")}
    keys = {
        "weights": run.weights,
        "weights_sha256": run.config.weights_sha256[:8],
        "data_key": run.config.data_key[:8],
    }
    return {name: "none" if value is None else str(value) for name, value in (config | keys | used).items()}


def row_of(first: Members, second: Members, fold: str = "") -> Row:
    """Return the accuracies, and their difference.

    Parameters
    ----------
    first, second : Members
        Of the same clips, in the same order.
    fold : str
        The held-out fold whose clips count. Default: all clips.
    """
    clips = first.folds == fold if fold else np.full(len(first.labels), True)
    right, right_other = (by_class.right(members)[clips] for members in (first, second))
    labels, groups = first.labels[clips], [*itertools.compress(first.groups, clips)]
    difference = stats.flip_difference(right - right_other, groups=groups)
    f1, f1_other = (
        float(np.mean([classes.macro_f1(labels, one[clips]) for one in by_class.predicted(members, by_class.SINGLE)]))
        for members in (first, second)
    )
    return Row(
        network=first.name,
        other=second.name,
        fold=fold,
        n_clips=len(labels),
        n_recordings=len(set(groups)),
        accuracy=float(right.mean()),
        accuracy_other=float(right_other.mean()),
        macro_f1=f1,
        macro_f1_other=f1_other,
        class_ratio=classes.unevenness(labels, n_classes=len(first.classes)),
        **first.levels(clips),
        change=difference.interval.mean,
        change_low=difference.interval.low,
        change_high=difference.interval.high,
        change_p=difference.p_value,
        gained=int((right > right_other).sum()),
        lost=int((right < right_other).sum()),
    )


def rows_of(first: Side, second: Side) -> tuple[list[Row], tuple[stats.Folds, stats.Folds]]:
    """Return the rows, and the accuracies of each side by fold.

    Parameters
    ----------
    first, second : Side
        Of the same clips, in the same order.

    Returns
    -------
    rows : list of Row
        Over all clips, and then by fold.
    accuracies : tuple of 2 Folds
        Of the networks that have every fold.
    """
    folds = list(dict.fromkeys(first.members.folds.tolist()))
    accuracies = []
    for side in (first, second):
        ordered = sorted(side.gathered, key=lambda run: folds.index(run.config.fold))
        accuracies.append(stats.by_fold([run_rows.row_of(_RunRow, run) for run in ordered], "accuracy_last"))
    whole = row_of(first.members, second.members)
    if len(folds) > 1:
        columns = stats.paired_difference(*accuracies).columns("folds")
        del columns["folds"], columns["folds_p_adjusted"]  # the mean is `change`, and there is one difference
        whole = replace(whole, **columns)
    by_fold = [row_of(first.members, second.members, fold) for fold in folds]
    return [whole, *by_fold], (accuracies[0], accuracies[1])


@dataclass(frozen=True)
class _RunRow:
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    accuracy_last: float


def flips(first: Members, second: Members) -> list[Flip]:
    """Return the clips that flipped, those that most networks agree on first; parameters as for `row_of`."""
    right, right_other = by_class.right(first), by_class.right(second)
    chosen, others = _most_chosen(first), _most_chosen(second)
    order = np.argsort(-np.abs(right - right_other), kind="stable")
    return [
        Flip(
            clip=first.clips[i],
            fold=str(first.folds[i]),
            label=first.classes[first.labels[i]],
            right=float(right[i]),
            right_other=float(right_other[i]),
            predicted=first.classes[chosen[i]],
            predicted_other=first.classes[others[i]],
            confidence=float(first.average[i, chosen[i]]),
            confidence_other=float(second.average[i, others[i]]),
        )
        for i in order
        if right[i] != right_other[i]
    ]


def _most_chosen(members: Members) -> np.ndarray:
    """Return the class that most networks choose, of several the more probable one [shape=(n_clips,)]."""
    votes = by_class.predicted(members, by_class.SINGLE)[..., None] == np.arange(len(members.classes))
    return (votes.sum(0) + 0.5 * members.average).argmax(-1)
