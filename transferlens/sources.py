"""Sources: which start is best for these clips?

One target, and networks that start from several sources (``--source NAME=VALUE``): ImageNet, weights trained on other
sounds, or a run of an earlier study, which may itself have started from one of them, so that a chain of transfer is one
source more. All blocks are trained, alike for all sources. The controls are random weights, and the permuted values of
each source: what they gain over random weights is scale, not features (see `statistics`). Each arm is compared with
another one, by default that from random weights, paired by fold and seed.

A source that was trained on recordings of the target has seen what is held out: find and leave out what they share with
``python -m transferlens.duplicates --against``.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.models.plan import LAST, SOURCES, TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError
from transferlens.util.grouping import group_by
from transferlens.util.text import some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANDOM = "random"
PERMUTED = TransferPlan(start=SOURCES[0].lower() * (LAST + 1), statistics="permuted")


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare networks that start from several sources on the same clips."""

    reference: str = RANDOM
    """The arm that others are compared with: random, or the name of a source."""
    controls: bool = True
    """Train from the permuted values of each source too; --no-controls leaves that out."""


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV.

    `arm` is "random", the name of a source, or that followed by ", permuted". `less_reference` is the mean difference
    of the arm to the arm `reference`, paired by fold and seed, with its 95 % interval, which is conservative, the plain
    one (`stats.fold_interval`), the p-value for no difference, and that adjusted for the number of arms.
    """

    arm: str
    reference: str
    less_reference: float = np.nan
    less_reference_low: float = np.nan
    less_reference_high: float = np.nan
    less_reference_plain_low: float = np.nan
    less_reference_plain_high: float = np.nan
    less_reference_p: float = np.nan
    less_reference_p_adjusted: float = np.nan


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run, and the difference of each arm to its reference, by network and arm."""

    stem = "sources"
    rows: tuple[Row, ...]
    differences: Mapping[tuple[str, str], stats.Difference]

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the rows."""
        return list(dict.fromkeys(row.arm for row in self.rows))


def points(options: Options) -> dict[str, Arm]:
    """Return the arms: from random weights, from each source, and from its permuted values."""
    study, (tuned, scratch) = Study.of(options), (TransferPlan.finetune(), TransferPlan.scratch())
    training = study.training(tuned)  # all arms are trained alike
    arms = {RANDOM: study.arm(scratch, training)}
    for name in (source.name for source in study.sources):
        arms[name] = study.arm(tuned, training, source=name)
        if options.controls:
            arms[f"{name}, permuted"] = study.arm(PERMUTED, training, source=name)
    if options.reference not in arms:
        raise ParameterError(f"reference={options.reference!r} must be one of {some(arms)}")
    return arms


def compare(runs: Mapping[str, Sequence[Run]], references: Mapping[str, str]) -> Result:
    """Compare each arm with its reference, another arm; those without one are not compared."""
    rows_of = {arm: [row_of(RunRow, run) for run in runs_of_arm] for arm, runs_of_arm in runs.items()}
    differences = {}
    for arm, reference in references.items():
        others = {row.pair: row.accuracy_last for row in rows_of[reference]}
        for backbone, own in group_by(rows_of[arm], key=lambda row: row.backbone).items():
            gains = stats.fold_means([row.accuracy_last - others[row.pair] for row in own], own)
            differences[backbone, arm] = stats.fold_difference(gains)
    differences = dict(zip(differences, stats.adjusted([*differences.values()]), strict=True))
    rows = [(arm, row) for arm, rows in rows_of.items() for row in rows]
    return Result(tuple(_row(arm, row, references, differences) for arm, row in rows), differences)


def _row(
    arm: str, row: RunRow, references: Mapping[str, str], differences: Mapping[tuple[str, str], stats.Difference]
) -> Row:
    own = {"arm": arm, "reference": references.get(arm, "")}
    return Row(**vars(row), **own, **_columns(differences.get((row.backbone, arm))))


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare each arm with the reference."""
    return compare(runs, {arm: options.reference for arm in runs if arm != options.reference})


def _columns(difference: stats.Difference | None) -> dict[str, Any]:
    if difference is None:
        return {}
    return {"less_reference": difference.interval.mean} | difference.columns("less_reference")


def draw(result: Result) -> Figure:
    """Draw the accuracies of each arm by fold, and below them their differences to the reference."""
    networks, n_arms = list(dict.fromkeys(row.backbone for row in result.rows)), len(result.arms)
    width = max(7.0, (1.2 + 1.3 * n_arms) * len(networks))
    ratios = {"sharex": "col", "sharey": "row", "height_ratios": [3, 1.6]}
    fig, axes = style.new_figure(2, len(networks), width=width, height=6.2, **ratios)
    for network, (above, below) in zip(networks, axes.T, strict=True):
        draw_arms(result, network, above, below)
    for ax in axes.flat:
        ax.label_outer()
    caption = f"{style.means_caption(len({row.fold for row in result.rows}))}, last epoch; below: paired by fold"
    title = f"{result.rows[0].dataset}: sources of the initial weights\n{caption}"
    fig.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return fig


def draw_arms(result: Result, network: str, above: Axes, below: Axes) -> None:
    """Draw the accuracies of the arms of a network on one Axes, and their differences on the one below it."""
    arms = result.arms
    palette = style.colours(arms)
    groups = {arm: {arm: stats.by_fold(result.rows, "accuracy_last", backbone=network, arm=arm)} for arm in arms}
    accuracy.points_and_means(groups, palette=palette, ax=above)
    for i, arm in enumerate(arms):
        if (network, arm) in result.differences:
            places = [(i, result.differences[network, arm].interval)]
            accuracy.changes({arm: places}, palette=palette, ax=below)
    above.set_title(network, fontsize="small", loc="left")
    above.set_ylim(max(0, 10 * np.floor(above.dataLim.y0 / 10) - 2), 103)
    below.set_xlim(above.get_xlim())
    below.set_xticks(range(len(arms)), [textwrap.fill(arm, 14) for arm in arms])
    references = {row.reference for row in result.rows} - {""}
    below.set_ylabel(f"less {references.pop() if len(references) == 1 else 'its control'}\n[points]")


def summary(result: Result) -> str:
    """Return the accuracy of each arm, and its difference to the reference."""
    lines, references = [], {row.arm: row.reference for row in result.rows}
    for backbone in dict.fromkeys(row.backbone for row in result.rows):
        for arm in result.arms:
            values = stats.by_fold(result.rows, "accuracy_last", backbone=backbone, arm=arm)
            lines.append(f"{backbone}  {arm}: {stats.fold_interval(values)}")
        for (network, arm), difference in result.differences.items():
            if network == backbone:
                lines.append(f"{backbone}  {arm} - {references[arm]}, paired by fold: {difference}")
    return "\n".join(lines)


sources = question.Question("sources", Options, analyse, points)
main = cli.command("sources", Options, sources)

if __name__ == "__main__":
    sys.exit(main())
