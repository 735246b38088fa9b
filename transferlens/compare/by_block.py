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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from transferlens.compare import question, tuning
from transferlens.compare.places import (
    REFERENCES,
    Analysis,
    Change,
    ControlRow,
    Place,
    Row,
    changes_between,
    controlled,
    neighbours,
    rows_of,
    untuned,
)
from transferlens.compare.tuning import TUNED, Tuned
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan, block_text
from transferlens.models.weights import named, source_note
from transferlens.plots import accuracy, style
from transferlens.plots.accuracy import accuracy_against, band, level_lines, points_and_means
from transferlens.store.rows import RunRow, levels, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WORDS = {"pretrained": "fully pretrained", "scratch": "from scratch"}
GREYS = {"pretrained": (0.25, 0.25, 0.25), "scratch": (0.6, 0.6, 0.6)}
# The size of networks, by the field of a row.
SIZES = {"parameters": "parameters [millions]", "multiply_adds": "multiply-adds per clip [millions]"}


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
            "control": [self._row(change, self.analysis.control_of(change.variant)) for change in self.less_control],
            "tuned": [self._row(change, change.variant.removesuffix(TUNED)) for change in self.less_untuned],
            "tuning": self.trials,
        }
        return super().tables() | {f"{self.stem}_{name}": rows for name, rows in parts.items() if rows}

    def _row(self, change: Change, control: str) -> ControlRow:
        names = (change.backbone, change.variant, control, change.after)
        return ControlRow(*names, change.difference.interval.n, **change.difference.columns("less_control"))

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

    Parameters
    ----------
    analysis : Analysis
    arms : mapping of (variant, block) to sequence of Run
        The runs of each place.
    references : mapping of str to sequence of Run
        Those of `REFERENCES`, by their names.
    trials : sequence of TrialRow
        The settings that were tried; the names of variants and references that have the chosen ones end in ", tuned".

    Returns
    -------
    Result
    """
    rows_at = {place: [row_of(RunRow, run) for run in runs] for place, runs in arms.items()}
    changes = changes_between(rows_at, neighbours(rows_at))
    return Result(
        analysis=analysis,
        rows=rows_of(analysis, arms, references, rows_at, changes),
        changes=changes,
        less_control=changes_between(rows_at, controlled(analysis, rows_at)),
        less_untuned=changes_between(rows_at, untuned(rows_at)),
        trials=tuple(trials),
    )


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
    entries = style.entries_of(axes[0, 0]) | (style.entries_of(costs[0]) if costs else {})
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
    ax.set_ylabel(accuracy.heldout())
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
        for name, change in _named_changes(result):
            if change.backbone == backbone:
                lines.append(f"{backbone}  {name}, paired by fold: {change.difference}")
        lines += tuning.choices(result.trials, backbone)
    return "\n".join(lines)


def _named_changes(result: Result) -> Iterator[tuple[str, Change]]:
    """Yield all differences, with what they are in words."""
    for change in result.changes:
        yield f"{change.variant}, {change.before} -> {change.after}", change
    for change in result.less_control:
        yield f"{change.variant} less {result.analysis.control_of(change.variant)}, block {change.after}", change
    for change in result.less_untuned:
        yield f"{change.variant} less untuned, block {change.after}", change


def by_block(name: str, options: type, analysis: Callable[[Any], Analysis]) -> question.Question:
    """Return the question of a command that compares plans by block.

    Its options have `block` and `references`, as `transferlens.options.BlockOptions`; `analysis` takes them.
    """

    def plans(options: Any) -> dict[Place, TransferPlan]:
        return analysis(options).select(options.block, references=options.references)

    def points(options: Any) -> dict[Any, Arm]:
        """Return the arms: both references if they are asked for, all plans, and the trials that tune them."""
        references = REFERENCES if options.references else {}
        chosen, study = references | plans(options), Study.of(options)
        training = study.training(TransferPlan.finetune())  # all arms are trained alike
        grid = options.tune.grid(training)
        arms: dict[Any, Arm] = {name: study.arm(plan, training) for name, plan in chosen.items()}
        for name, plan in chosen.items():
            arms |= tuning.trials(name, partial(study.arm, plan), grid)
        return arms

    def analyse(runs: Mapping[Any, Sequence[Run]], options: Any) -> Result:
        """Return the rows of all runs by place, tuned arms beside the others."""
        weights = {run.weights for runs_of_arm in runs.values() for run in runs_of_arm}
        asked, placed = analysis(options), plans(options)
        names: dict[Any, str] = {arm: WORDS[arm] for arm, plan in REFERENCES.items() if plan not in placed.values()}
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

    return question.Question(name, options, analyse, points, several=True)
