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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transferlens import cli
from transferlens.compare import arms, question
from transferlens.models.plan import LAST, SOURCES, TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError
from transferlens.util.text import some

if TYPE_CHECKING:
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
class Result(question.Result):
    """The arms, and the difference of each to the reference."""

    stem = "sources"
    comparison: arms.Comparison

    @property
    def rows(self) -> tuple[arms.Row, ...]:  # type: ignore[override]
        """One row per run: `arm` is "random", the name of a source, or that followed by ", permuted"."""
        return self.comparison.rows


def points(options: Options) -> dict[str, Arm]:
    """Return the arms: from random weights, from each source, and from its permuted values."""
    study, tuned = Study.of(options), TransferPlan.finetune()
    training = study.training(tuned)  # all arms are trained alike
    starts = {RANDOM: study.arm(TransferPlan.scratch(), training)}
    for source in study.sources:
        starts[source.name] = study.arm(tuned, training, source=source.name)
        if options.controls:
            starts[f"{source.name}{arms.CONTROL}"] = study.arm(PERMUTED, training, source=source.name)
    if options.reference not in starts:
        raise ParameterError(f"reference={options.reference!r} must be one of {some(map(repr, starts))}")
    return starts


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare each arm with the reference."""
    return Result(arms.compare(runs, {arm: options.reference for arm in runs if arm != options.reference}))


def draw(result: Result) -> Figure:
    """Draw the accuracies of each arm by fold, and below them their differences to the reference."""
    comparison = result.comparison
    networks, n_arms = comparison.networks, len(comparison.arms)
    width = max(7.0, (1.2 + 1.3 * n_arms) * len(networks))
    ratios = {"sharex": "col", "sharey": "row", "height_ratios": [3, 1.6]}
    fig, axes = style.new_figure(2, len(networks), width=width, height=6.2, **ratios)
    for network, (above, below) in zip(networks, axes.T, strict=True):
        arms.draw(comparison, network, above, below)
    for ax in axes.flat:
        ax.label_outer()
    style.legend_below(fig, marks=comparison.marks)
    style.title(fig, f"{result.rows[0].dataset}: sources of the initial weights, last epoch")
    return fig


def summary(result: Result) -> str:
    """Return the accuracy of each arm, and its difference to the reference."""
    return arms.summary(result.comparison)


sources = question.Question("sources", Options, analyse, points, several=True)
main = cli.command("sources", Options, sources)

if __name__ == "__main__":
    sys.exit(main())
