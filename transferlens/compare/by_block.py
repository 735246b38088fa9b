"""Accuracy by block: the mechanism that `freeze`, `fuse`, `truncate` and `probe` share.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2), by blocks. Each analysis is a row of transfer plans,
one for each block, between two references on the same folds and seeds: the fully pretrained network and the one trained
from scratch. A plan that is a reference itself (fusion through Block 4 is fine-tuning) stands on the axis too.

Whether a block matters is asked of neighbours on the axis: the difference in accuracy after the last epoch, paired by
fold, with an interval that allows for folds sharing training clips (`stats.fold_interval`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.compare import question
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan, block_text
from transferlens.plots import accuracy, style
from transferlens.plots.accuracy import accuracy_against, band, points_and_means
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


REFERENCES = {"pretrained": TransferPlan.finetune(), "scratch": TransferPlan.scratch()}
WORDS = {"pretrained": "fully pretrained", "scratch": "from scratch"}
GREYS = {"pretrained": (0.25, 0.25, 0.25), "scratch": (0.6, 0.6, 0.6)}
# What plans cost, by the field of a row.
SIZES = {"parameters": "parameters [millions]", "multiply_adds": "multiply-adds a clip [millions]"}


@dataclass(frozen=True)
class Analysis:
    """One row of plans.

    Attributes
    ----------
    name : str
        The command's, and the stem of what it writes.
    title, axis : str
        What the figure and its axis say.
    plans : dict of str to dict of (int or None) to TransferPlan
        Variant to block to plan, in the order of the axis; None stands before the first block.
    shows_cost : bool
        Whether the plans differ in size, so that accuracy against size is drawn too.
    """

    name: str
    title: str
    axis: str
    plans: Mapping[str, Mapping[int | None, TransferPlan]]
    shows_cost: bool = False

    def select(self, blocks: Sequence[int], *, references: bool) -> dict[tuple[str, int | None], TransferPlan]:
        """Plans by variant and block: of these blocks or of all, and those that are a reference anyway.

        Raises
        ------
        ParameterError
            Where the analysis has no such block.
        """
        known = {block for plans in self.plans.values() for block in plans if block is not None}
        if wrong := [block for block in blocks if block not in known]:
            raise ParameterError(
                f"block={' '.join(map(str, wrong))} must be among {', '.join(map(str, sorted(known)))} "
                f"for {self.name}: it names the {self.axis}"
            )
        chosen = set(blocks) or known
        return {
            (variant, block): plan
            for variant, plans in self.plans.items()
            for block, plan in plans.items()
            if block in chosen or (references and plan in REFERENCES.values())
        }


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV of an analysis.

    `arm` is "block", or "pretrained" or "scratch" for a reference; `block` is empty for a reference that has no place
    on the axis, "none" for the place before the first block. `change` is this run's accuracy less that of its neighbour
    `change_from` on the same fold and seed; its mean over `change_n` folds and the 95 % interval stand beside it.
    """

    analysis: str
    arm: str
    variant: str
    block: str
    change_from: str
    change: float
    change_mean: float
    change_low: float
    change_high: float
    change_n: int


@dataclass(frozen=True)
class Change:
    """From one place on the axis to the next: the mean over folds of the paired difference."""

    backbone: str
    variant: str
    before: str
    after: str
    interval: stats.Interval


NAN = float("nan")
NO_CHANGE = Change("", "", "", "", stats.Interval(NAN, NAN, NAN, 0))


@dataclass(frozen=True)
class Result(question.Result):
    """The rows of an analysis, and the changes between its neighbours."""

    analysis: Analysis
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]

    @property
    def backbones(self) -> list[str]:
        """In the order asked for."""
        return list(dict.fromkeys(row.backbone for row in self.rows))

    @property
    def places(self) -> list[str]:
        """Places on the axis that have runs, in its order."""
        order = [block_text(block) for plans in self.analysis.plans.values() for block in plans]
        found = {row.block for row in self.rows}
        return [place for place in dict.fromkeys(order) if place in found]

    @property
    def variants(self) -> list[str]:
        """In the order of the analysis."""
        return list(self.analysis.plans)

    @property
    def stem(self) -> str:  # type: ignore[override]
        """Of the files: the command's name."""
        return self.analysis.name

    def by_fold(self, field: str, **values: object) -> list[float]:
        """The field's mean over seeds in each fold, of the rows with these values."""
        return stats.by_fold(self.rows, field, **values)


def compare(
    analysis: Analysis,
    arms: Mapping[tuple[str, int | None], Sequence[Run]],
    references: Mapping[str, Sequence[Run]],
) -> Result:
    """Put the runs of each place side by side.

    Parameters
    ----------
    analysis : Analysis
    arms : dict of (variant, block) to sequence of Run
        In the order of the axis.
    references : dict of "pretrained", "scratch" to sequence of Run
        May be empty.
    """
    table: dict[str, Row] = {}  # by run: a reference may stand on several axes
    changes: list[Change] = []
    for variant in analysis.plans:
        before = ""
        earlier: dict[tuple[str, str, int], float] = {}
        for place, runs in ((block_text(block), runs) for (each, block), runs in arms.items() if each == variant):
            rows = [row_of(RunRow, run) for run in runs]
            found = _changes(rows, earlier, variant, before, place) if earlier else {}
            changes += found.values()
            for row, run in zip(rows, runs, strict=True):
                change, neighbour = found.get(row.backbone, NO_CHANGE), earlier.get(_pair(row), NAN)
                made = _row(row, analysis, _arm(run.config.plan), variant, place, change, neighbour)
                table.setdefault(row.run, made)
            before, earlier = place, {_pair(row): row.accuracy_last for row in rows}
    for arm, runs in references.items():
        for row in (row_of(RunRow, run) for run in runs):
            table.setdefault(row.run, _row(row, analysis, arm, "", "", NO_CHANGE, NAN))
    return Result(analysis, tuple(table.values()), tuple(changes))


def _arm(plan: TransferPlan) -> str:
    return next((arm for arm, reference in REFERENCES.items() if plan == reference), "block")


def _pair(row: RunRow) -> tuple[str, str, int]:
    return row.backbone, row.fold, row.seed


def _changes(
    rows: Sequence[RunRow], earlier: Mapping[tuple, float], variant: str, before: str, after: str
) -> dict[str, Change]:
    """Backbone to its change from the place before, whose accuracies are `earlier`."""
    changes = {}
    for backbone in dict.fromkeys(row.backbone for row in rows):
        mine = [row for row in rows if row.backbone == backbone]
        gains = stats.fold_means([row.accuracy_last - earlier[_pair(row)] for row in mine], [r.fold for r in mine])
        interval = stats.fold_interval(gains, bounds=(-1, 1))
        changes[backbone] = Change(backbone, variant, before, after, interval)
    return changes


def _row(row: RunRow, analysis: Analysis, arm: str, variant: str, place: str, change: Change, neighbour: float) -> Row:
    return Row(
        **vars(row),
        analysis=analysis.name,
        arm=arm,
        variant=variant if arm == "block" else "",
        block=place,
        change_from=change.before,
        change=row.accuracy_last - neighbour,
        change_mean=change.interval.mean,
        change_low=change.interval.low,
        change_high=change.interval.high,
        change_n=change.interval.n,
    )


def draw(result: Result) -> Figure:
    """Networks beside each other: accuracy by block with the references as bands, and the changes between neighbours.

    Below, where plans differ in size, the accuracy of all networks against it.
    """
    networks, sizes = result.backbones, SIZES if result.analysis.shows_cost else {}
    rows = [3.0, 1.1] if result.changes else [3.0]
    parts = [sum(rows), 2.4] if sizes else [sum(rows)]
    width = max(7.0, 0.8 + (0.7 + 0.55 * max(5, len(result.places))) * len(networks))
    fig, (above, *below) = style.new_parts(parts, width=width, height=1.4 + 1.1 * sum(parts))
    grid = {"sharex": "col", "sharey": "row", "height_ratios": rows}
    axes = style.subplots(above, len(rows), len(networks), **grid)
    palette = style.colours([*result.variants, *networks])
    for network, (by, *change) in zip(networks, axes.T, strict=True):
        _draw_places(result, network, palette, by)
        for ax in change:
            _draw_changes(result, network, palette, ax)
        (by, *change)[-1].set_xlabel(result.analysis.axis)
    costs = [*style.subplots(below[0], 1, len(sizes), sharey=True).flat] if sizes else []
    for size, ax in zip(sizes, costs, strict=True):
        _draw_cost(result, size, palette, ax)
    _trim(axes, costs)
    legend = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    fig.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend), frameon=False)
    title = f"{result.rows[0].dataset}: {result.analysis.title}"
    fig.suptitle(f"{title}\n{_caption(result)}", x=0.01, ha="left", fontsize="medium")
    return fig


def _trim(axes: np.ndarray, costs: Sequence[Axes]) -> None:
    """Accuracies from a little below all that is drawn to 100 %; numbers and names at the outer axes alone."""
    lowest = min(ax.dataLim.y0 for ax in (*axes[0], *costs))
    for ax in (axes[0, 0], *costs[:1]):  # which the others share
        ax.set_ylim(max(0, 10 * np.floor(lowest / 10) - 2), 103)
    for ax in (*axes.flat, *costs):
        ax.label_outer()


def _caption(result: Result) -> str:
    """What marks mean."""
    n = len({row.fold for row in result.rows})
    interval = " and 95 % interval" if n > 1 else ""
    words = f"last epoch: mean{interval}, n = {stats.folds_text(n)} (dots)"
    if not result.changes:
        return words
    return f"{words}; change: paired by fold, {'full mark: interval excludes 0' if n > 1 else 'n = 1: no interval'}"


def _draw_places(result: Result, backbone: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    for arm, words in WORDS.items():
        if values := result.by_fold("accuracy_last", backbone=backbone, arm=arm):
            band(values, colour=GREYS[arm], label=words, ax=ax)
    groups = {
        place: {
            name: values
            for name, where in (
                *((WORDS[arm], {"arm": arm}) for arm in REFERENCES),
                *((variant, {"arm": "block", "variant": variant}) for variant in result.variants),
            )
            if (values := result.by_fold("accuracy_last", backbone=backbone, block=place, **where))
        }
        for place in result.places
    }
    colours = {WORDS[arm]: grey for arm, grey in GREYS.items()} | dict(palette)
    points_and_means(groups, palette=colours, ax=ax)
    ax.set_title(backbone, fontsize="small", loc="left")


def _draw_changes(result: Result, backbone: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    places, arms = result.places, {}
    for variant in result.variants:
        mine = [change for change in result.changes if (change.backbone, change.variant) == (backbone, variant)]
        arms[variant] = [((places.index(c.before) + places.index(c.after)) / 2, c.interval) for c in mine]
    accuracy.changes(arms, palette=palette, ax=ax)
    ax.set_xticks(range(len(places)), places)
    ax.set_xlim(-0.5, len(places) - 0.5)


def _draw_cost(result: Result, size: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    curves: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for backbone in result.backbones:
        points = curves[backbone] = {}
        for place in result.places:
            rows = [row for row in result.rows if row.backbone == backbone and row.block == place]
            points[place] = (getattr(rows[0], size) / 1e6, stats.by_fold(rows, "accuracy_last"))
    accuracy_against(curves, xlabel=SIZES[size], palette=palette, ax=ax)
    ax.set_title(f"against {SIZES[size].split(' [')[0]}; labels: {result.analysis.axis}", fontsize="small", loc="left")
    ax.set_ylabel("held-out accuracy [%]")
    ax.legend(loc="lower right", frameon=False, fontsize="small")


def summary(result: Result) -> str:
    """Accuracy at each place, and the change from one to the next."""
    lines = []
    for backbone in result.backbones:
        for arm, words in WORDS.items():
            if values := result.by_fold("accuracy_last", backbone=backbone, arm=arm):
                lines.append(f"{backbone}  {words}: {stats.fold_interval(values)}")
        for place in result.places:
            for variant in result.variants:
                where = {"backbone": backbone, "arm": "block", "variant": variant, "block": place}
                if values := result.by_fold("accuracy_last", **where):
                    lines.append(f"{backbone}  {variant}, block {place}: {stats.fold_interval(values)}")
        for change in (change for change in result.changes if change.backbone == backbone):
            name = f"{change.variant}, {change.before} -> {change.after}"
            lines.append(f"{backbone}  {name}, paired by fold: {change.interval.text('points')}")
    return "\n".join(lines)


def by_block(name: str, options: type, analysis: Callable[[Any], Analysis]) -> question.Question:
    """Return the question that compares plans by block.

    Parameters
    ----------
    name : str
        That of the command.
    options : type
        A dataclass with `block` and `references`, as `transferlens.options.BlockOptions`.
    analysis : callable
        Options to the `Analysis`.
    """

    def plans(options: Any) -> dict[tuple[str, int | None], TransferPlan]:
        return analysis(options).select(options.block, references=options.references)

    def points(options: Any) -> dict[Any, Arm]:
        references = REFERENCES if options.references else {}
        chosen, study = plans(options), Study.of(options)
        training = study.training(TransferPlan.finetune())  # all arms are trained alike
        return {arm: study.arm(plan, training) for arm, plan in (references | chosen).items()}

    def analyse(runs: Mapping[Any, Sequence[Run]], options: Any) -> Result:
        arms = {arm: runs[arm] for arm in plans(options)}
        return compare(analysis(options), arms, {arm: runs[arm] for arm in REFERENCES if arm in runs})

    return question.Question(name, options, analyse, points)
