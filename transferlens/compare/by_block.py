"""Accuracy by block: the code of all questions that compare plans by block, such as `freeze` and `statistics`.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2), by blocks. Each analysis has one transfer plan per
block, and two references on the same folds and seeds: the fully pretrained network, and the one trained from scratch.
A plan that is a reference itself (fusion through Block 4 is fine-tuning) has its place on the axis too.

Whether a block matters is shown by neighbours on the axis: the difference of their accuracies after the last epoch,
paired by fold, with an interval that considers that folds share training clips (`stats.fold_interval`). Where one
variant is the control of the others, they are compared with it place by place too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.compare import question, tuning
from transferlens.compare.tuning import TUNED, Trial, Tuned
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan, block_text
from transferlens.models.weights import named, source_note
from transferlens.plots import accuracy, style
from transferlens.plots.accuracy import accuracy_against, band, level_lines, points_and_means
from transferlens.store.rows import RunRow, levels, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


REFERENCES = {"pretrained": TransferPlan.finetune(), "scratch": TransferPlan.scratch()}
WORDS = {"pretrained": "fully pretrained", "scratch": "from scratch"}
GREYS = {"pretrained": (0.25, 0.25, 0.25), "scratch": (0.6, 0.6, 0.6)}
# The size of networks, by the field of a row.
SIZES = {"parameters": "parameters [millions]", "multiply_adds": "multiply-adds per clip [millions]"}
# Variant and block.
Place = tuple[str, int | None]


@dataclass(frozen=True)
class Analysis:
    """The plans of one command, by variant and block in the order of the axis; None is the place of no block.

    `title` and `axis` are the titles of the figure and of its axis. With `shows_cost`, for plans that differ in size,
    accuracy is also drawn against size. `control` is the variant that others are compared with at each place.
    """

    name: str
    title: str
    axis: str
    plans: Mapping[str, Mapping[int | None, TransferPlan]]
    shows_cost: bool = False
    control: str = ""

    def control_of(self, variant: str) -> str:
        """Return the control of a variant: of a tuned one, the tuned control."""
        return f"{self.control}{TUNED}" if variant.endswith(TUNED) else self.control

    def select(self, blocks: Sequence[int], *, references: bool) -> dict[Place, TransferPlan]:
        """Return plans by variant and block: of these blocks or of all, of no block, and those that are a reference."""
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
            if (references if plan in REFERENCES.values() else block is None) or block in chosen
        }


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV of an analysis.

    `arm` is "block", or "pretrained" or "scratch" for a reference; `block` is empty for a reference that has no place
    on the axis, "none" for the place of no block. A reference has a row for each variant in which it is compared with
    the place before, and names the variant if they are several. `change` is the accuracy of this run minus that of its
    neighbour `change_from` on the same fold and seed; its mean over `change_n` folds and the 95 % interval follow,
    which is conservative, and the plain one (`stats.fold_interval`). `change_p` is the p-value for no change, followed
    by that adjusted for the number of changes in the table (`stats.adjusted`).
    """

    analysis: str
    arm: str
    variant: str = ""
    block: str = ""
    change_from: str = ""
    change: float = np.nan
    change_mean: float = np.nan
    change_low: float = np.nan
    change_high: float = np.nan
    change_plain_low: float = np.nan
    change_plain_high: float = np.nan
    change_n: int = 0
    change_p: float = np.nan
    change_p_adjusted: float = np.nan


@dataclass(frozen=True)
class ControlRow:
    """The mean difference of a variant to its control at one place, with bounds and p-values as in `Row`."""

    backbone: str
    variant: str
    control: str
    block: str
    n: int
    less_control: float
    less_control_low: float
    less_control_high: float
    less_control_plain_low: float
    less_control_plain_high: float
    less_control_p: float
    less_control_p_adjusted: float


@dataclass(frozen=True)
class Change:
    """The difference between two places, paired by fold, and that of each run, by its id.

    The places are neighbours on the axis, or one place of the control and of another variant.
    """

    backbone: str
    variant: str
    before: str
    after: str
    difference: stats.Difference
    gains: Mapping[str, float]

    def columns(self, run: str) -> dict[str, Any]:
        """Return the columns of the row of a run."""
        interval, own = self.difference.interval, {"change_from": self.before, "change": self.gains[run]}
        return own | {"change_mean": interval.mean, "change_n": interval.n} | self.difference.columns("change")


@dataclass(frozen=True)
class Result(question.Result):
    """The rows of an analysis, the changes between neighbours on its axis, and the differences to the control.

    Where arms are tuned too, these are variants of their own; the differences to the untuned ones, and what was tried,
    are beside them.
    """

    analysis: Analysis
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    less_control: tuple[Change, ...] = ()
    less_untuned: tuple[Change, ...] = ()
    trials: tuple[tuning.TrialRow, ...] = ()

    @property
    def backbones(self) -> list[str]:
        """Names of the networks, in the order of the rows."""
        return list(dict.fromkeys(row.backbone for row in self.rows))

    @property
    def places(self) -> list[str]:
        """Places on the axis that have runs, in its order."""
        order = dict.fromkeys(block_text(block) for plans in self.analysis.plans.values() for block in plans)
        return [place for place in order if place in {row.block for row in self.rows}]

    @property
    def stem(self) -> str:  # type: ignore[override]
        """Name of the files: that of the command."""
        return self.analysis.name

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the rows, those of the differences to the control if there is one, and of tuning."""
        parts = {
            "control": [self._row(each, self.analysis.control_of(each.variant)) for each in self.less_control],
            "tuned": [self._row(each, each.variant.removesuffix(TUNED)) for each in self.less_untuned],
            "tuning": self.trials,
        }
        return super().tables() | {f"{self.stem}_{name}": rows for name, rows in parts.items() if rows}

    def _row(self, change: Change, control: str) -> ControlRow:
        interval = change.difference.interval
        columns: dict[str, Any] = change.difference.columns("less_control")
        names = (change.backbone, change.variant, control, change.after)
        return ControlRow(*names, n=interval.n, less_control=interval.mean, **columns)

    def accuracies(self, **values: object) -> list[float]:
        """Return the accuracy of each fold after the last epoch, of the rows with these values."""
        return stats.by_fold(self.rows, "accuracy_last", **values)


def compare(
    analysis: Analysis,
    arms: Mapping[Place, Sequence[Run]],
    references: Mapping[str, Sequence[Run]],
    trials: Sequence[tuning.TrialRow] = (),
) -> Result:
    """Compare the runs of each variant and block, in the order of the axis, with those of the place before.

    The names of variants and references whose settings were chosen, from `trials`, end in ", tuned".
    """
    rows_at = {place: [row_of(RunRow, run) for run in runs] for place, runs in arms.items()}
    neighbours = [
        pair for places in group_by(rows_at, key=itemgetter(0)).values() for pair in itertools.pairwise(places)
    ]
    changes = _changes(rows_at, neighbours)
    columns = {(change.variant, change.after, run): change.columns(run) for change in changes for run in change.gains}
    table: dict[tuple[str, str], Row] = {}  # by run and change: a reference may have a place in several variants
    several = len({variant.removesuffix(TUNED) for variant, _ in arms}) > 1
    for (variant, block), rows in rows_at.items():
        place = block_text(block)
        for row, run in zip(rows, arms[variant, block], strict=True):
            arm = next((arm for arm, plan in REFERENCES.items() if run.config.plan == plan), "block")
            arm = "block" if variant.endswith(TUNED) else arm  # a mark of its own, beside the untuned reference
            change = columns.get((variant, place, row.run), {})
            name = variant if arm == "block" or (change and several) else ""
            own: dict[str, Any] = {"arm": arm, "variant": name, "block": place} | change
            table.setdefault((row.run, name), Row(**vars(row), analysis=analysis.name, **own))
    placed = {(run, name.endswith(TUNED)) for run, name in table}
    for arm, runs in references.items():
        is_tuned = arm.endswith(TUNED)
        for row in (row_of(RunRow, run) for run in runs if (run.config.id, is_tuned) not in placed):
            table[row.run, TUNED * is_tuned] = Row(**vars(row), analysis=analysis.name, arm=arm)
    ids = {place: [row.run for row in rows] for place, rows in rows_at.items()}
    controlled = [((analysis.control_of(variant), block), (variant, block)) for variant, block in ids]
    others = [(one, other) for one, other in controlled if one in ids and ids[one] != ids[other]]
    untuned = [((variant.removesuffix(TUNED), block), (variant, block)) for variant, block in ids]
    chosen = [pair for pair in untuned if pair[0] != pair[1]]
    less_control, less_untuned = (_changes(rows_at, pairs) for pairs in (others, chosen))
    return Result(analysis, tuple(table.values()), changes, less_control, less_untuned, tuple(trials))


def _changes(rows_at: Mapping[Place, Sequence[RunRow]], pairs: Sequence[tuple[Place, Place]]) -> tuple[Change, ...]:
    """Return the change of each backbone from the first place of each pair to the second."""
    changes = []
    for before, after in pairs:
        earlier = {row.pair: row.accuracy_last for row in rows_at[before]}
        for backbone, rows in group_by(rows_at[after], key=attrgetter("backbone")).items():
            gains = {row.run: row.accuracy_last - earlier[row.pair] for row in rows}
            difference = stats.fold_difference(stats.fold_means([*gains.values()], rows))
            start, end = block_text(before[1]), block_text(after[1])
            changes.append(Change(backbone, after[0], start, end, difference, gains))
    adjusted = zip(changes, stats.adjusted([change.difference for change in changes]), strict=True)
    return tuple(replace(change, difference=difference) for change, difference in adjusted)


def draw(result: Result) -> Figure:
    """Draw one column per network: accuracy by block with the references as bands, and changes between neighbours.

    With a control, the differences to it are drawn in place of these changes. If plans differ in size, the accuracy of
    all networks is drawn against it below.
    """
    networks, sizes = result.backbones, SIZES if result.analysis.shows_cost else {}
    rows = [3.0, 1.1] if result.changes else [3.0]
    parts = [sum(rows), 2.4] if sizes else [sum(rows)]
    place = 0.55 + 0.25 * max(0, len(result.analysis.plans) - 2)  # of one place on the axis
    width = max(7.0, 0.8 + (0.7 + place * max(5, len(result.places))) * len(networks))
    fig, (above, *below) = style.new_parts(parts, width=width, height=1.4 + 1.1 * sum(parts))
    grid = {"sharex": "col", "sharey": "row", "height_ratios": rows}
    axes = style.subplots(above, len(rows), len(networks), **grid)
    palette = _colours(result)
    for network, (by, *change) in zip(networks, axes.T, strict=True):
        _draw_places(result, network, palette, by)
        for ax in change:
            _draw_changes(result, network, palette, ax)
        (by, *change)[-1].set_xlabel(result.analysis.axis)
    costs = [*style.subplots(below[0], 1, len(sizes), sharey=True).flat] if sizes else []
    for size, ax in zip(sizes, costs, strict=True):
        _draw_cost(result, size, palette, ax)
    for ax in (*axes.flat, *costs):
        ax.label_outer()
    entries = _entries(axes[0, 0]) | (_entries(costs[0]) if costs else {})
    order = [*WORDS.values(), *map(_tuned, WORDS.values()), *palette]
    style.legend_below(fig, entries, order=order, marks=_marks(result))
    style.title(fig, f"{result.rows[0].dataset}: {result.analysis.title}, last epoch{_note(result)}")
    return fig


def _colours(result: Result) -> dict[str, tuple]:
    """Return a colour for each variant; where networks share Axes, for each network and its tuned variant instead."""
    networks = [f"{network}{end}" for network in result.backbones for end in ("", TUNED)]
    return style.colours(networks if result.analysis.shows_cost else result.analysis.plans)


def _of_network(result: Result, backbone: str, palette: Mapping[str, tuple]) -> dict[str, tuple]:
    """Return the colours of the variants of one network."""
    if not result.analysis.shows_cost:
        return dict(palette)
    return {name: palette[f"{backbone}{TUNED * name.endswith(TUNED)}"] for name in result.analysis.plans}


def _entries(ax: Axes) -> dict[str, Any]:
    return dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))


def _note(result: Result) -> str:
    return source_note(row.weights for row in result.rows)


def _marks(result: Result) -> dict[str, Any]:
    """Return the legend entries that explain the marks."""
    n = len({row.fold for row in result.rows})
    return style.fold_marks(n) | (style.change_marks(n) if result.changes else {})


def _draw_places(result: Result, backbone: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    for arm, words in WORDS.items():
        if values := result.accuracies(backbone=backbone, arm=arm):
            band(values, colour=GREYS[arm], label=words, ax=ax)
        if values := result.accuracies(backbone=backbone, arm=_tuned(arm)):
            band(values, colour=GREYS[arm], label=_tuned(words), line="--", ax=ax)
    selections = {WORDS[arm]: {"arm": arm} for arm in REFERENCES}
    selections |= {variant: {"arm": "block", "variant": variant} for variant in result.analysis.plans}
    groups = {
        place: {
            name: values
            for name, selection in selections.items()
            if (values := result.accuracies(backbone=backbone, block=place, **selection))
        }
        for place in result.places
    }
    colours = {WORDS[arm]: grey for arm, grey in GREYS.items()} | _of_network(result, backbone, palette)
    points_and_means(groups, palette=colours, ax=ax)
    level_lines(levels(result.rows), named=backbone == result.backbones[0], ax=ax)
    ax.set_title(backbone, fontsize="small", loc="left")


def _draw_changes(result: Result, backbone: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    places = result.places
    arms: dict[str, list] = {variant: [] for variant in result.analysis.plans}
    for change in result.less_control or result.changes:
        if change.backbone == backbone:
            x = (places.index(change.before) + places.index(change.after)) / 2
            arms[change.variant].append((x, change.difference.interval))
    accuracy.changes(arms, palette=_of_network(result, backbone, palette), ax=ax)
    if result.less_control:
        ax.set_ylabel(f"less {result.analysis.control}\n[points]")
    ax.set_xticks(range(len(places)), places)
    ax.set_xlim(-0.5, len(places) - 0.5)


def _draw_cost(result: Result, size: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    curves: dict[str, dict[str, tuple[float, list[float]]]] = {}
    for backbone, end in itertools.product(result.backbones, ("", TUNED) if result.less_untuned else ("",)):
        points = curves[f"{backbone}{end}"] = {}
        for place in result.places:
            placed = [row for row in result.rows if row.backbone == backbone and row.block == place]
            rows = [row for row in placed if row.variant.endswith(TUNED) == bool(end)]
            points[place] = (getattr(rows[0], size) / 1e6, stats.by_fold(rows, "accuracy_last"))
    unnamed = [name for name in curves if name.endswith(TUNED)]  # they lie beside those that are not tuned
    accuracy_against(curves, xlabel=SIZES[size], unnamed=unnamed, palette=palette, ax=ax)
    level_lines(levels(result.rows), named=size == next(iter(SIZES)), ax=ax)
    ax.set_ylabel(accuracy.HELDOUT)
    ax.set_ylim(0, 109)  # of names
    ax.set_title(f"numbers: {result.analysis.axis}", fontsize="small", loc="left")


def _tuned(name: str) -> str:
    return f"{name}{TUNED}"


def summary(result: Result) -> str:
    """Return the accuracy at each place, and the change from one place to the next; then what tuning gains."""
    lines, note = [], source_note(row.weights for row in result.rows)
    for backbone in result.backbones:
        selections = {f"{WORDS['pretrained']}{note}": {"arm": "pretrained"}, WORDS["scratch"]: {"arm": "scratch"}}
        selections |= {_tuned(words): {"arm": _tuned(arm)} for arm, words in WORDS.items()}
        selections |= {
            f"{variant}, block {place}": {"arm": "block", "variant": variant, "block": place}
            for place in result.places
            for variant in result.analysis.plans
        }
        for name, selection in selections.items():
            if values := result.accuracies(backbone=backbone, **selection):
                lines.append(f"{backbone}  {name}: {stats.fold_interval(values)}")
        for change in result.changes:
            if change.backbone == backbone:
                name = f"{change.variant}, {change.before} -> {change.after}"
                lines.append(f"{backbone}  {name}, paired by fold: {change.difference}")
        for change in result.less_control:
            if change.backbone == backbone:
                name = f"{change.variant} less {result.analysis.control_of(change.variant)}, block {change.after}"
                lines.append(f"{backbone}  {name}, paired by fold: {change.difference}")
        for change in result.less_untuned:
            if change.backbone == backbone:
                name = f"{change.variant} less untuned, block {change.after}"
                lines.append(f"{backbone}  {name}, paired by fold: {change.difference}")
        lines += tuning.choices(result.trials, backbone)
    return "\n".join(lines)


def by_block(name: str, options: type, analysis: Callable[[Any], Analysis]) -> question.Question:
    """Return the question of a command that compares plans by block.

    Its options have `block` and `references`, as `transferlens.options.BlockOptions`; `analysis` takes them.
    """

    def plans(options: Any) -> dict[Place, TransferPlan]:
        return analysis(options).select(options.block, references=options.references)

    def points(options: Any) -> dict[Any, Arm]:
        references = REFERENCES if options.references else {}
        chosen, study = references | plans(options), Study.of(options)
        training = study.training(TransferPlan.finetune())  # all arms are trained alike
        grid = [*enumerate(options.tune.grid(training))]
        arms: dict[Any, Arm] = {name: study.arm(plan, training) for name, plan in chosen.items()}
        for (name, plan), (i, setting) in itertools.product(chosen.items(), grid):
            arms[Trial(name, i)] = study.arm(plan, setting, nested=True)
        return arms

    def analyse(runs: Mapping[Any, Sequence[Run]], options: Any) -> Result:
        weights = {run.weights for runs_of_arm in runs.values() for run in runs_of_arm}
        asked, placed = analysis(options), plans(options)
        names: dict[Any, str] = {a: WORDS[a] for a, plan in REFERENCES.items() if plan not in placed.values()}
        references = {arm: runs[arm] for arm in REFERENCES if arm in runs}
        references |= {_tuned(arm): runs[Tuned(arm)] for arm in names if Tuned(arm) in runs}
        arms: dict[Place, Sequence[Run]] = {}
        by_name = {named(variant, weights): plans for variant, plans in asked.plans.items()}
        for place in placed:
            variant, block = named(place[0], weights), place[1]
            names[place] = f"{variant}, block {block_text(block)}"
            arms[variant, block] = runs[place]
            if Tuned(place) in runs:
                arms[_tuned(variant), block] = runs[Tuned(place)]
        if any(variant.endswith(TUNED) for variant, _ in arms):
            by_name |= {_tuned(variant): plans for variant, plans in by_name.items()}
        asked = replace(asked, plans=by_name, control=named(asked.control, weights))
        return compare(asked, arms, references, tuning.trial_rows(runs, names))

    return question.Question(name, options, analyse, points)
