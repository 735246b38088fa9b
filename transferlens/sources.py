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
    from matplotlib.figure import Figure

RANDOM, CONTROL = "random", ", permuted"
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
    """One row per run, and the difference of each arm to the reference, by network and arm."""

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
            arms[f"{name}{CONTROL}"] = study.arm(PERMUTED, training, source=name)
    if options.reference not in arms:
        raise ParameterError(f"reference={options.reference!r} must be one of {some(arms)}")
    return arms


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare each arm with the reference."""
    reference = options.reference
    rows_of = {arm: [row_of(RunRow, run) for run in runs_of_arm] for arm, runs_of_arm in runs.items()}
    others = {row.pair: row.accuracy_last for row in rows_of[reference]}
    differences = {}
    for arm, rows in rows_of.items():
        for backbone, own in group_by(rows, key=lambda row: row.backbone).items() if arm != reference else ():
            gains = stats.fold_means([row.accuracy_last - others[row.pair] for row in own], own)
            differences[backbone, arm] = stats.fold_difference(gains)
    differences = dict(zip(differences, stats.adjusted([*differences.values()]), strict=True))
    return Result(
        tuple(
            Row(**vars(row), arm=arm, reference=reference, **_columns(differences.get((row.backbone, arm))))
            for arm, rows in rows_of.items()
            for row in rows
        ),
        differences,
    )


def _columns(difference: stats.Difference | None) -> dict[str, Any]:
    if difference is None:
        return {}
    return {"less_reference": difference.interval.mean} | difference.columns("less_reference")


def draw(result: Result) -> Figure:
    """Draw the accuracies of each arm by fold, and below them their differences to the reference."""
    networks, arms = list(dict.fromkeys(row.backbone for row in result.rows)), result.arms
    fig, axes = style.new_figure(
        2,
        len(networks),
        width=max(7.0, (1.2 + 1.3 * len(arms)) * len(networks)),
        height=6.2,
        sharex="col",
        sharey="row",
        height_ratios=[3, 1.6],
    )
    of_source = {arm: arm.removesuffix(CONTROL) for arm in arms}
    colours = style.colours(of_source.values())
    palette = {arm: colours[source] for arm, source in of_source.items()}  # a source and its control share one
    for network, (above, below) in zip(networks, axes.T, strict=True):
        groups = {arm: {arm: stats.by_fold(result.rows, "accuracy_last", backbone=network, arm=arm)} for arm in arms}
        accuracy.points_and_means(groups, palette=palette, ax=above)
        intervals = {
            arm: [(i, result.differences[network, arm].interval)]
            for i, arm in enumerate(arms)
            if (network, arm) in result.differences
        }
        for arm, places in intervals.items():
            accuracy.changes({arm: places}, palette=palette, ax=below)
        above.set_title(network, fontsize="small", loc="left")
        below.set_xticks(range(len(arms)), [textwrap.fill(arm, 15) for arm in arms])
    lowest = min(ax.dataLim.y0 for ax in axes[0])
    axes[0, 0].set_ylim(max(0, 10 * np.floor(lowest / 10) - 2), 103)
    axes[1, 0].set_ylabel(f"less {result.rows[0].reference}\n[points]")
    for ax in axes.flat:
        ax.label_outer()
    n = len({row.fold for row in result.rows})
    caption = f"last epoch, {style.means_caption(n)}\nbelow: paired by fold, full mark: interval excludes 0"
    fig.suptitle(
        f"{result.rows[0].dataset}: sources of the initial weights\n{caption}", x=0.01, ha="left", fontsize="medium"
    )
    return fig


def summary(result: Result) -> str:
    """Return the accuracy of each arm, and its difference to the reference."""
    lines, reference = [], result.rows[0].reference
    for backbone in dict.fromkeys(row.backbone for row in result.rows):
        for arm in result.arms:
            values = stats.by_fold(result.rows, "accuracy_last", backbone=backbone, arm=arm)
            lines.append(f"{backbone}  {arm}: {stats.fold_interval(values)}")
        for (network, arm), difference in result.differences.items():
            if network == backbone:
                lines.append(f"{backbone}  {arm} - {reference}, paired by fold: {difference}")
    return "\n".join(lines)


sources = question.Question("sources", Options, analyse, points)
main = cli.command("sources", Options, sources)

if __name__ == "__main__":
    sys.exit(main())
