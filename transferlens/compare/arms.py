"""Arms against their references: accuracies by fold, differences paired by fold, and how both are drawn.

* `compare`: the runs of arms, each arm with another one as its reference; `differences`: rows of them in any value
* `draw`: accuracies on one Axes, and differences on the one below it
* `summary`: the same in words
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.compare.paired import R, paired
from transferlens.measures import stats
from transferlens.plots import accuracy, style
from transferlens.store.rows import RunRow, levels, row_of
from transferlens.store.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


CONTROL = ", permuted"  # ends the name of an arm that is the control of another, and has its colour


@dataclass(frozen=True)
class Row(RunRow):
    """One run in a CSV.

    `arm` is its name. `less_reference` is the mean difference of the arm to the arm `reference`, paired by fold and
    seed, with its 95 % interval, which is conservative, the plain one (`stats.fold_interval`), the p-value for no
    difference, and that adjusted for the number of arms and networks (`stats.adjusted`).
    """

    arm: str = ""
    reference: str = ""
    less_reference: float = np.nan
    less_reference_low: float = np.nan
    less_reference_high: float = np.nan
    less_reference_plain_low: float = np.nan
    less_reference_plain_high: float = np.nan
    less_reference_p: float = np.nan
    less_reference_p_adjusted: float = np.nan


@dataclass(frozen=True)
class Comparison:
    """One row per run, the references by arm, and the difference of each arm to its reference, by network and arm."""

    rows: tuple[Row, ...]
    references: Mapping[str, str]
    differences: Mapping[tuple[str, str], stats.Difference]

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the rows."""
        return list(dict.fromkeys(row.arm for row in self.rows))

    @property
    def networks(self) -> list[str]:
        """Names of the networks, in the order of the rows."""
        return list(dict.fromkeys(row.backbone for row in self.rows))

    @property
    def marks(self) -> dict[str, Any]:
        """The legend entries of the marks of `draw`."""
        n_folds = len({row.fold for row in self.rows})
        return style.fold_marks(n_folds) | style.change_marks(n_folds)


def compare(runs: Mapping[str, Sequence[Run]], references: Mapping[str, str]) -> Comparison:
    """Compare arms with their references.

    Parameters
    ----------
    runs : mapping of str to sequence of Run
        The runs of each arm, of the same networks, folds and seeds.
    references : mapping of str to str
        The arm that an arm is compared with, by its name; arms that are not named are not compared.

    Returns
    -------
    Comparison
    """
    rows = {arm: [row_of(RunRow, run) for run in runs_of_arm] for arm, runs_of_arm in runs.items()}
    of_arms = differences(rows, references)
    table = []
    for arm, rows_of_arm in rows.items():
        for row in rows_of_arm:
            columns: dict[str, Any] = {"arm": arm, "reference": references.get(arm, "")}
            if difference := of_arms.get((row.backbone, arm)):
                columns |= difference.columns("less_reference")
            table.append(Row(**vars(row), **columns))
    return Comparison(tuple(table), references, of_arms)


def differences(
    rows: Mapping[str, Sequence[R]],
    references: Mapping[str, str],
    value: Callable[[R], float] = attrgetter("accuracy_last"),
) -> dict[tuple[str, str], stats.Difference]:
    """Return the difference of each arm to its reference, by network and arm, with p-values adjusted for their number.

    Parameters are as for `compare` and `paired.paired`; `rows` are those of each arm.
    """
    of_arms = {
        (network, arm): compared.difference
        for arm, reference in references.items()
        for network, compared in paired(rows[arm], rows[reference], value).items()
    }
    return dict(zip(of_arms, stats.adjusted([*of_arms.values()]), strict=True))


def draw(comparison: Comparison, network: str, above: Axes, below: Axes) -> None:
    """Draw the accuracies of the arms of a network, and below them their differences to their references."""
    arms = comparison.arms
    colours = style.colours(arm.removesuffix(CONTROL) for arm in arms)
    palette = {arm: colours[arm.removesuffix(CONTROL)] for arm in arms}
    groups = {arm: {arm: stats.by_fold(comparison.rows, "accuracy_last", backbone=network, arm=arm)} for arm in arms}
    accuracy.points_and_means(groups, palette=palette, ax=above)
    for i, arm in enumerate(arms):
        if (network, arm) in comparison.differences:
            interval = comparison.differences[network, arm].interval
            accuracy.changes({arm: [(i, interval)]}, palette=palette, ax=below)
    above.set_title(network, fontsize="small", loc="left")
    accuracy.level_lines(levels(comparison.rows), named=network == comparison.networks[0], ax=above)
    below.set_xlim(above.get_xlim())
    below.set_xticks(range(len(arms)), arms)
    references = {*comparison.references.values()}
    below.set_ylabel(f"less {references.pop() if len(references) == 1 else 'its reference'}\n[points]")


def summary(comparison: Comparison) -> str:
    """Return the accuracy of each arm, and its difference to its reference."""
    lines = []
    for network in comparison.networks:
        for arm in comparison.arms:
            values = stats.by_fold(comparison.rows, "accuracy_last", backbone=network, arm=arm)
            lines.append(f"{network}  {arm}: {stats.fold_interval(values)}")
        for (name, arm), difference in comparison.differences.items():
            if name == network:
                lines.append(f"{network}  {arm} - {comparison.references[arm]}, paired by fold: {difference}")
    return "\n".join(lines)
