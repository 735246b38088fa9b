"""Accuracy by block: the mechanism that `freeze`, `fuse` and `truncate` share.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2), by blocks. Each analysis is a row of transfer plans,
one for each block, between two references on the same folds and seeds: the fully pretrained network and the one trained
from scratch. A plan that is a reference itself (fusion through Block 4 is fine-tuning) stands on the axis too.

Whether a block matters is asked of neighbours on the axis: the difference in accuracy after the last epoch, paired by
fold, with an interval that allows for folds sharing training clips (`stats.mean_interval`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens import backbones, cli, display, stats
from transferlens.errors import ParameterError
from transferlens.files import write_csv
from transferlens.plan import TransferPlan
from transferlens.runs import Run
from transferlens.sweep import Study, SweepOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Analysis", "Options", "Result", "Row", "RunRow", "compare", "draw", "run", "summary"]

REFERENCES = {"pretrained": TransferPlan.finetune(), "scratch": TransferPlan.scratch()}
WORDS = {"pretrained": "fully pretrained", "scratch": "from scratch"}
GREYS = {"pretrained": (0.25, 0.25, 0.25), "scratch": (0.6, 0.6, 0.6)}


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """The options of an analysis by blocks."""

    block: tuple[int, ...] = ()
    """Blocks to ask about (0 is the stem); all by default."""
    references: bool = True
    """Whether to train the fully pretrained network and the one from scratch beside them."""
    figures: Path = Path("figures")
    """Folder for the figure (.png, .pdf) and its numbers (.csv)."""


@dataclass(frozen=True)
class Analysis:
    """One row of plans.

    Attributes
    ----------
    name : str
        The command's, and the stem of what it writes.
    title, axis : str
        What the figure and its axis say.
    block : str
        What the block of a plan means, in words.
    plans : dict of str to dict of (int or None) to TransferPlan
        Variant to block to plan, in the order of the axis; None stands before the first block.
    shows_cost : bool
        Whether the plans differ in size, so that accuracy against size is drawn too.
    """

    name: str
    title: str
    axis: str
    block: str
    plans: Mapping[str, Mapping[int | None, TransferPlan]]
    shows_cost: bool = False

    def select(self, blocks: Sequence[int], *, references: bool) -> dict[str, dict[int | None, TransferPlan]]:
        """The plans of these blocks, or of all; those that are a reference anyway stay among them.

        Raises
        ------
        ParameterError
            Where the analysis has no such block.
        """
        known = {block for plans in self.plans.values() for block in plans if block is not None}
        if wrong := [block for block in blocks if block not in known]:
            raise ParameterError(
                f"block={' '.join(map(str, wrong))} must be among {', '.join(map(str, sorted(known)))} "
                f"for {self.name}: it is {self.block}"
            )
        chosen = set(blocks) or known
        return {
            variant: {
                block: plan
                for block, plan in plans.items()
                if block in chosen or (references and plan in REFERENCES.values())
            }
            for variant, plans in self.plans.items()
        }


@dataclass(frozen=True)
class RunRow:
    """What tables say of one run; accuracies are fractions, multiply-adds those of one clip."""

    dataset: str
    backbone: str
    fold: str
    seed: int
    accuracy_last: float
    accuracy_best: float
    trainable_parameters: int
    parameters: int
    multiply_adds: int
    seconds: float
    run: str


def run_row(run: Run) -> RunRow:
    """Read a run's row out of it."""
    config = run.config
    size = (config.features.n_mels, config.features.width)
    cost = backbones.cost(config.backbone, n_classes=len(run.label_names), plan=config.plan, input_size=size)
    return RunRow(
        dataset=config.dataset,
        backbone=config.backbone,
        fold=config.fold,
        seed=config.seed,
        accuracy_last=run.accuracy_last,
        accuracy_best=run.accuracy_best,
        trainable_parameters=cost.trainable_parameters,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        seconds=float(run.history["seconds"].sum()),
        run=config.id,
    )


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV of an analysis.

    `arm` is "block", or "pretrained" or "scratch" for a reference; `block` is empty for a reference that has no place
    on the axis, "none" for the place before the first block. `change` is this run's accuracy less that of its neighbour
    `change_from` on the same fold and seed; its mean over folds and the 95% interval stand beside it.
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
    n_folds: int


@dataclass(frozen=True)
class Change:
    """From one place on the axis to the next: the mean over folds of the paired difference."""

    backbone: str
    variant: str
    before: str
    after: str
    interval: stats.Interval


@dataclass(frozen=True)
class Result:
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
        order = [_text(block) for plans in self.analysis.plans.values() for block in plans]
        found = {row.block for row in self.rows}
        return [place for place in dict.fromkeys(order) if place in found]

    @property
    def variants(self) -> list[str]:
        """In the order of the analysis."""
        return list(self.analysis.plans)

    def by_fold(self, field: str, **values: object) -> list[float]:
        """The field's mean over seeds in each fold, of the rows with these values."""
        return stats.by_fold(self.rows, field, **values)


def _text(block: int | None) -> str:
    return "none" if block is None else str(block)


def compare(
    analysis: Analysis,
    arms: Mapping[tuple[str, int | None], Sequence[Run]],
    references: Mapping[str, Sequence[Run]],
    *,
    test_to_train: float,
) -> Result:
    """Put the runs of each place side by side.

    Parameters
    ----------
    analysis : Analysis
    arms : dict of (variant, block) to sequence of Run
    references : dict of "pretrained", "scratch" to sequence of Run
        May be empty.
    test_to_train : float
        As for `stats.mean_interval`.
    """
    rows: list[Row] = []
    changes: list[Change] = []
    drawn: set[str] = set()
    for variant in dict.fromkeys(variant for variant, _ in arms):
        before: tuple[str, dict[tuple, RunRow]] = ("", {})
        for place, runs in ((_text(block), runs) for (each, block), runs in arms.items() if each == variant):
            mine = [run_row(run) for run in runs]
            found = _changes(mine, before, variant, place, test_to_train)
            changes += found.values()
            arm = _reference(runs[0].config.plan)
            if arm == "block" or place not in drawn:
                rows += [_row(row, analysis, arm, variant, place, before, found.get(row.backbone)) for row in mine]
            drawn.add(place)
            before = (place, {_pair(row): row for row in mine})
    for arm, runs in references.items():
        if arm not in {row.arm for row in rows}:
            rows += [_row(run_row(run), analysis, arm, "", "", ("", {}), None) for run in runs]
    return Result(analysis, tuple(rows), tuple(changes))


def _reference(plan: TransferPlan) -> str:
    return next((arm for arm, reference in REFERENCES.items() if plan == reference), "block")


def _pair(row: RunRow) -> tuple:
    return row.backbone, row.fold, row.seed


def _changes(
    rows: Sequence[RunRow], before: tuple[str, dict[tuple, RunRow]], variant: str, place: str, test_to_train: float
) -> dict[str, Change]:
    """Backbone to its change from the place before, which may not be there."""
    earlier, pairs = before
    found = {}
    for backbone in dict.fromkeys(row.backbone for row in rows) if pairs else ():
        mine = [row for row in rows if row.backbone == backbone]
        gains = [row.accuracy_last - pairs[_pair(row)].accuracy_last for row in mine]
        folds = stats.fold_means(gains, [row.fold for row in mine])
        interval = stats.mean_interval(folds, bounds=(-1, 1), test_to_train=test_to_train)
        found[backbone] = Change(backbone, variant, earlier, place, interval)
    return found


def _row(
    row: RunRow,
    analysis: Analysis,
    arm: str,
    variant: str,
    place: str,
    before: tuple[str, dict[tuple, RunRow]],
    change: Change | None,
) -> Row:
    nan = float("nan")
    return Row(
        **vars(row),
        analysis=analysis.name,
        arm=arm,
        variant=variant if arm == "block" else "",
        block=place,
        change_from=change.before if change else "",
        change=row.accuracy_last - before[1][_pair(row)].accuracy_last if change else nan,
        change_mean=change.interval.mean if change else nan,
        change_low=change.interval.low if change else nan,
        change_high=change.interval.high if change else nan,
        n_folds=change.interval.n if change else 0,
    )


def draw(result: Result) -> Figure:
    """Accuracy by block with the references as bands, the changes between neighbours, and what truncation saves."""
    sizes = ("parameters", "multiply_adds") if result.analysis.shows_cost else ()
    layout = [
        [f"{b}/{kind}", *(f"{b}/{size}" for size in sizes)] for b in result.backbones for kind in ("by", "change")
    ]
    fig, axes = display.new_mosaic(
        layout,
        width=1.8 + 0.85 * max(6, len(result.places)) + 3 * len(sizes),
        height=1.2 + 4.6 * len(result.backbones),
        height_ratios=[3, 1.1] * len(result.backbones),
        width_ratios=[2, *[1.1 for _ in sizes]],
    )
    palette = display.colours(result.variants)
    for backbone in result.backbones:
        _draw_places(result, backbone, palette, axes[f"{backbone}/by"])
        _draw_changes(result, backbone, palette, axes[f"{backbone}/change"])
        for size, label in zip(sizes, ("parameters [millions]", "multiply-adds a clip [millions]"), strict=False):
            _draw_cost(result, backbone, size, label, palette, axes[f"{backbone}/{size}"])
    lowest = min(row.accuracy_last for row in result.rows)
    for name, ax in axes.items():
        if not name.endswith("/change"):
            ax.set_ylim(max(0, 10 * np.floor(10 * lowest) - 5), 103)
    first = axes[f"{result.backbones[0]}/by"]
    handles, labels = first.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    fig.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique), frameon=False)
    fig.suptitle(f"{result.rows[0].dataset}: {result.analysis.title}", x=0.01, ha="left", fontsize="large")
    return fig


def _draw_places(result: Result, backbone: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    for arm, words in WORDS.items():
        if values := result.by_fold("accuracy_last", backbone=backbone, arm=arm):
            display.band(values, colour=GREYS[arm], label=words, ax=ax)
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
    display.points_and_means(groups, palette=colours, ax=ax)
    n = len(next(iter(groups[result.places[0]].values())))
    interval = " and 95% interval" if n > 1 else ""
    words = f"{backbone}, last epoch: mean{interval}, n = {n} fold{'s' * (n > 1)} (dots)"
    ax.set_title(words, fontsize="small", loc="left")
    ax.tick_params(labelbottom=False)


def _draw_changes(result: Result, backbone: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    mine = [change for change in result.changes if change.backbone == backbone]
    places = result.places
    middle = {c: (places.index(c.before) + places.index(c.after)) / 2 for c in mine}
    arms = {v: [(middle[c], c.interval) for c in mine if c.variant == v] for v in result.variants}
    if mine:
        display.changes(arms, palette=palette, ax=ax)
        n = mine[0].interval.n
        rule = "full: corrected 95% interval excludes 0" if n > 1 else "n = 1: no interval"
        ax.set_title(f"change to the next, paired; {rule}", fontsize="small", loc="left")
    ax.set_xticks(range(len(places)), places)
    ax.set_xlim(-0.5, len(places) - 0.5)
    ax.set_xlabel(result.analysis.axis)


def _draw_cost(result: Result, backbone: str, size: str, label: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    points = {}
    for place in result.places:
        rows = [row for row in result.rows if row.backbone == backbone and row.block == place]
        x = getattr(rows[0], size) / 1e6
        points[f"Block {place}"] = (x, stats.by_fold(rows, "accuracy_last"))
    display.accuracy_against({result.variants[0]: points}, xlabel=label, palette=palette, ax=ax)
    ax.set_title(f"accuracy [%] against {label.split(' [')[0]}", fontsize="small", loc="left")


def summary(result: Result) -> str:
    """Accuracy at each place, and the change from one to the next."""
    lines = []
    for backbone in result.backbones:
        for arm, words in WORDS.items():
            if values := result.by_fold("accuracy_last", backbone=backbone, arm=arm):
                lines.append(f"{backbone}  {words}: {stats.mean_interval(values)}")
        for place in result.places:
            for variant in result.variants:
                where = {"backbone": backbone, "arm": "block", "variant": variant, "block": place}
                if values := result.by_fold("accuracy_last", **where):
                    lines.append(f"{backbone}  {variant}, block {place}: {stats.mean_interval(values)}")
        for change in (change for change in result.changes if change.backbone == backbone):
            name = f"{change.variant}, {change.before} -> {change.after}"
            lines.append(f"{backbone}  {name}, paired by fold: {change.interval.text('points')}")
    return "\n".join(lines)


def run(analysis: Analysis, options: Options) -> int:
    """Gather the runs of an analysis, compare, write, draw: the command."""
    plans = analysis.select(options.block, references=options.references)
    study = Study(options)
    references = {arm: study.points(plan) for arm, plan in REFERENCES.items() if options.references}
    arms = {(variant, block): study.points(plan) for variant in plans for block, plan in plans[variant].items()}
    runs = study.gather(point for points in (*references.values(), *arms.values()) for point in points)
    splits = [study.dataset.split(fold) for fold in study.folds]
    result = compare(
        analysis,
        {arm: [runs[point] for point in points] for arm, points in arms.items()},
        {arm: [runs[point] for point in points] for arm, points in references.items()},
        test_to_train=float(np.mean([len(held_out) / len(trained) for trained, held_out in splits])),
    )
    stem = options.figures / analysis.name
    write_csv(result.rows, stem.with_name(f"{stem.name}.csv"))
    display.save_figure(draw(result), stem)
    print(summary(result))
    print(f"written: {stem}.png, .pdf, .csv")
    return cli.DONE
