"""Recipes: which way of fine-tuning is better than the plain one, on clean and on corrupted clips?

Each arm is trained as the options say, but for one recipe: one of `RECIPES` by name, or any settings by their values.
All are compared with the plain arm, paired by fold and seed, on held-out clips as they are and corrupted: a recipe that
gains nothing on clean clips may keep features that others lose [1]_. The mean over corruptions counts each kind alike,
and within a kind each strength.

A recipe is a setting at one value: that it does not help says nothing about other values. The best of several recipes
is partly the best by chance: measure its gain again, on other clips or seeds.

References
----------
.. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang: Fine-tuning can distort pretrained features and underperform
   out-of-distribution. ICLR 2022.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens import cli
from transferlens.compare import arms, question
from transferlens.compare.conditions import CLEAN, KNOWN, Condition, corrupted
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.measures import stats
from transferlens.models.device import pick_device
from transferlens.models.plan import TransferPlan
from transferlens.options import PlanOptions, QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.store.config import Training
from transferlens.store.rows import RunRow
from transferlens.store.run import Run
from transferlens.training.presets import TrainingOptions
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule
from transferlens.util.grouping import group_by
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted, some, span, suggestion, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

PLAIN = "plain"
# The settings of each recipe, of which those of epochs are shares of all epochs.
RECIPES: dict[str, dict[str, Any]] = {
    "layer-decay": {"layer_decay": 0.7},
    "lp-ft": {"head_epochs": 1 / 4},
    "l2-sp": {"l2_sp": 1.0},
    "warm-up": {"warmup_epochs": 1 / 6},
    "label-smoothing": {"label_smoothing": 0.1},
    "averaging": {"average_epochs": 1 / 4},
    "balanced": {"sampling": "classes"},
    "time-shifts": {"test_shifts": 3},
    "masks": {"masks": 2},
    "mixup": {"mixup": 0.2},
    "augment": {"augment": "spectrum"},
    "strong": {},  # see `changes`
}
NEW = tuple(RECIPES)[:8]
LEAST = {"head_epochs": 1, "warmup_epochs": 1, "average_epochs": 2}  # number of epochs with an effect


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare recipes of fine-tuning with the plain one, paired by fold, on clean and corrupted clips."""

    recipe: Annotated[tuple[str, ...], Rule(f"one or more of {', '.join(RECIPES)}", bool)] = NEW
    """Recipes, one or more: layer-decay, lp-ft, l2-sp, warm-up, label-smoothing, averaging, balanced, time-shifts,
    masks, mixup, augment, strong (the preset), or SETTING=VALUE, such as layer_decay=0.5; with + between them for
    several at once."""
    corrupted: bool = True
    """Classify corrupted held-out clips too; --no-corrupted leaves that out."""
    corruption: Annotated[tuple[str, ...], KNOWN] = tuple(CORRUPTIONS)
    """Corruptions of the clips: noise, gain, low-pass, clipping, shift."""
    plan: PlanOptions = PlanOptions()


@dataclass(frozen=True)
class Row(arms.Row):
    """One run in the CSV: `accuracy_corrupted` is its accuracy on corrupted clips, the mean over corruptions.

    `less_reference_corrupted` is as `less_reference`, of these accuracies. NaN: not asked for.
    """

    accuracy_corrupted: float = np.nan
    less_reference_corrupted: float = np.nan
    less_reference_corrupted_low: float = np.nan
    less_reference_corrupted_high: float = np.nan
    less_reference_corrupted_plain_low: float = np.nan
    less_reference_corrupted_plain_high: float = np.nan
    less_reference_corrupted_p: float = np.nan
    less_reference_corrupted_p_adjusted: float = np.nan


@dataclass(frozen=True)
class ConditionRow:
    """An arm under one corruption, in `recipes_corruptions.csv`: means over folds.

    `less_plain` is the difference to the plain arm under the same corruption, paired by fold and seed, with the columns
    of `arms.Row`; p-values are adjusted for the number of rows.
    """

    backbone: str
    arm: str
    corruption: str
    strength: float
    n_folds: int
    accuracy: float
    less_plain: float = np.nan
    less_plain_low: float = np.nan
    less_plain_high: float = np.nan
    less_plain_plain_low: float = np.nan
    less_plain_plain_high: float = np.nan
    less_plain_p: float = np.nan
    less_plain_p_adjusted: float = np.nan


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run and per corruption, and the differences to the plain arm by network and arm."""

    stem = "recipes"
    rows: tuple[Row, ...]
    comparison: arms.Comparison
    conditions: tuple[ConditionRow, ...]
    on_corrupted: Mapping[tuple[str, str], stats.Difference]

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the rows by run, and those by corruption if there are any."""
        more = {"recipes_corruptions": self.conditions} if self.conditions else {}
        return {self.stem: self.rows, **more}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def changes(recipe: str, options: TrainingOptions, plan: TransferPlan) -> dict[str, Any]:
    """Return the settings of a recipe by name; raise ParameterError if it is not known, or sets one twice."""
    found: dict[str, Any] = {}
    for word in re.split(r"\+(?=\D|$)", recipe):  # not within 1e+3
        name, is_setting, value = word.partition("=")
        name = name.replace("-", "_")
        if word == "strong":
            strong = dataclasses.replace(options, preset="strong").training(plan)
            preset = vars(strong).items() - vars(options.training(plan)).items()
            new = {key: value for key, value in preset if key not in options.given}
        elif word in RECIPES:
            epochs = options.training(plan).epochs
            shares = RECIPES[word].items()
            new = {key: max(LEAST[key], round(epochs * v)) if key in LEAST else v for key, v in shares}
        elif is_setting and name in {field.name for field in dataclasses.fields(Training)}:
            new = {name: _number(value)}
        else:
            hint = suggestion(word, RECIPES, f"they are {', '.join(RECIPES)}")
            raise ParameterError(f"recipe={word!r} is not a recipe, nor a setting with a value (lr=0.01): {hint}")
        if twice := sorted(found.keys() & new.keys()):
            raise ParameterError(f"recipe={recipe!r} sets {twice[0]} twice: leave one of them out")
        found |= new
    return found


def points(options: Options) -> dict[str, Arm]:
    """Return the arms: the plain one, and one for each recipe."""
    if not options.corrupted and options.corruption != Options.corruption:
        raise ParameterError(
            f"corruption={some(options.corruption)!r} has no effect with corrupted=False: leave it out"
        )
    study, plan = Study.of(options), options.plan.plan(options.sweep)
    chosen = {PLAIN: study.arm(plan)}
    for recipe in dict.fromkeys(options.recipe):
        given = changes(recipe, options.training, plan)
        try:
            arm = study.arm(plan, dataclasses.replace(options.training, **given).training(plan))
        except ParameterError as error:
            raise ParameterError(f"recipe={recipe!r}: {error}") from None
        if arm.points == chosen[PLAIN].points and options.recipe == NEW:
            log.warning("the recipe %s is left out, as all arms are trained so", recipe)
            continue
        if arm.points == chosen[PLAIN].points:
            raise ParameterError(f"recipe={recipe!r} changes nothing, as all arms are trained so: leave it out")
        if same := [other for other in chosen if chosen[other].points == arm.points]:
            raise ParameterError(f"recipe={recipe!r} and {same[0]!r} are the same settings: leave one of them out")
        chosen[recipe] = arm
    return chosen


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare each recipe with the plain arm; corrupted clips are classified here."""
    references = dict.fromkeys([arm for arm in runs if arm != PLAIN], PLAIN)
    comparison = arms.compare(runs, references)
    if not options.corrupted:
        return Result(tuple(Row(**vars(row)) for row in comparison.rows), comparison, (), {})
    distinct = {run.config: run for runs_of_arm in runs.values() for run in runs_of_arm}
    scores = accuracies([*distinct.values()], options)
    rows = [Row(**vars(row), accuracy_corrupted=mean_over(scores[row.run])) for row in comparison.rows]
    on_corrupted = arms.differences(_by_arm(rows), references, lambda row: row.accuracy_corrupted)
    rows = [_with(row, "less_reference_corrupted", on_corrupted.get((row.backbone, row.arm))) for row in rows]
    return Result(tuple(rows), comparison, tuple(condition_rows(rows, scores)), on_corrupted)


def _by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return group_by(rows, key=lambda row: row.arm)


def _with(row: Any, name: str, difference: stats.Difference | None) -> Any:
    """Return a row with the columns of a difference, if there is one."""
    if difference is None:
        return row
    return dataclasses.replace(row, **difference.columns(name))


def accuracies(runs: Sequence[Run], options: Options) -> dict[str, dict[Condition, float]]:
    """Return the accuracy of each run, by its id, on its held-out clips, clean and under each corruption."""
    keep_freed_memory()
    device, kinds = pick_device(options.execution.device), list(dict.fromkeys(options.corruption))
    by_condition, _ = corrupted(runs, options.data, kinds, device)
    found: dict[str, dict[Condition, float]] = {run.config.id: {} for run in runs}
    for condition, classified in by_condition.items():
        for run in classified:
            found[run.config.id][condition] = float(run.right.mean())
    return found


def mean_over(scores: Mapping[Condition, float]) -> float:
    """Return the mean over corruptions: of each kind over its strengths, and of these means."""
    kinds = group_by([condition for condition in scores if condition[0] != CLEAN], key=lambda condition: condition[0])
    return float(np.mean([np.mean([scores[condition] for condition in of_kind]) for of_kind in kinds.values()]))


def condition_rows(rows: Sequence[Row], scores: Mapping[str, Mapping[Condition, float]]) -> list[ConditionRow]:
    """Return one row per condition, arm and network, clean clips first."""
    by_arm, table = _by_arm(rows), []
    references = dict.fromkeys([arm for arm in by_arm if arm != PLAIN], PLAIN)
    found: dict[tuple[Condition, str, str], stats.Difference] = {}
    for condition in scores[rows[0].run]:
        value = partial(_score, scores, condition)
        for (network, arm), difference in arms.differences(by_arm, references, value).items():
            found[condition, network, arm] = difference
        for (arm, network), own in group_by(rows, key=lambda row: (row.arm, row.backbone)).items():
            folds = stats.fold_means([value(row) for row in own], own)
            table.append(ConditionRow(network, arm, *condition, len(folds), float(np.mean(folds))))
    adjusted = dict(zip(found, stats.adjusted([*found.values()]), strict=True))
    return [
        _with(row, "less_plain", adjusted.get(((row.corruption, row.strength), row.backbone, row.arm))) for row in table
    ]


def _score(scores: Mapping[str, Mapping[Condition, float]], condition: Condition, row: RunRow) -> float:
    return scores[row.run][condition]


def draw(result: Result) -> Figure:
    """Draw the accuracies of each arm by fold, and below them the differences to the plain arm, clean and corrupted."""
    comparison = result.comparison
    networks, n_rows = comparison.networks, 3 if result.conditions else 2
    width = max(7.5, (1.2 + 1.15 * len(comparison.arms)) * len(networks))
    ratios = {"sharex": "col", "sharey": "row", "height_ratios": [3, 1.6, 1.6][:n_rows]}
    fig, axes = style.new_figure(n_rows, len(networks), width=width, height=3.0 + 1.7 * n_rows, **ratios)
    palette = style.colours(comparison.arms)
    for network, (above, below, *last) in zip(networks, axes.T, strict=True):
        arms.draw(comparison, network, above, below)
        for ax in last:
            for i, arm in enumerate(comparison.arms):
                if (network, arm) in result.on_corrupted:
                    interval = result.on_corrupted[network, arm].interval
                    accuracy.changes({arm: [(i, interval)]}, palette=palette, ax=ax)
            ax.set_ylabel(f"less {PLAIN},\ncorrupted\n[points]")
    for ax in axes.flat:
        ax.label_outer()
    style.legend_below(fig, marks=comparison.marks)
    style.title(fig, f"{result.rows[0].dataset}: recipes of training, last epoch")
    return fig


def _cells(difference: stats.Difference | None) -> tuple[str, str]:
    """Return a difference with its interval, and its p-value, as text."""
    if difference is None:
        return "", ""
    low, mean, high = (100 * getattr(difference.interval, name) for name in ("low", "mean", "high"))
    interval = f" ({span(low, high)})" if difference.interval.is_bounded else ""
    return f"{mean:.1f}{interval}", "" if np.isnan(difference.p_adjusted) else f"{difference.p_adjusted:.3f}"


def summary(result: Result) -> str:
    """Return the accuracy of each arm and its difference to the plain one, on clean and on corrupted clips."""
    kinds = dict.fromkeys(row.corruption for row in result.conditions if row.corruption != CLEAN)
    fields = {"accuracy_last": result.comparison.differences}
    fields |= {"accuracy_corrupted": result.on_corrupted} if kinds else {}
    lines = [["network", "recipe"]]
    for name in ("clean", "corrupted")[: len(fields)]:
        lines[0] += [f"{name} [%]", f"less {PLAIN} [points]", "adjusted p"]
    for network, arm in itertools.product(result.comparison.networks, result.comparison.arms):
        lines.append([network, arm])
        for field, found in fields.items():
            mean = np.mean(stats.by_fold(result.rows, field, backbone=network, arm=arm))
            lines[-1] += [f"{100 * mean:.1f}", *_cells(found.get((network, arm)))]
    n_folds = len({row.fold for row in result.rows})
    words = f"accuracy after the last epoch, means over {counted(n_folds, 'fold')}; differences paired by fold"
    corruptions = f"; corrupted: mean over {', '.join(kinds)}" if kinds else ""
    return f"{table(lines)}\n{words}, 95 % intervals{corruptions}"


recipes = question.Question("recipes", Options, analyse, points)
main = cli.command("recipes", Options, recipes)

if __name__ == "__main__":
    sys.exit(main())
