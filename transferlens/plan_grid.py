"""The plan space: accuracy over pretrained blocks x kept blocks, and over pretrained blocks x frozen blocks.

`freeze`, `fuse` and `truncate` each follow one line through this space; the two heat maps show all of it. A cell is
empty if its plan is the same as another one (it pretrains blocks that are cut), or freezes random weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.paired import paired
from transferlens.measures import stats
from transferlens.models.plan import BLOCKS, TransferPlan, block_text
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import heat_map
from transferlens.store.rows import RunRow, levels, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.fields import Rule
from transferlens.util.grouping import group_by
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The horizontal axis of each map: field of a row, label.
AXES = {"truncate": ("truncate_after", "last block kept"), "freeze": ("frozen_through", "last block held fixed")}
THROUGH = (None, *BLOCKS)  # the vertical axis of both maps
COLUMNS: dict[str, tuple[int | None, ...]] = {"truncate": BLOCKS[1:], "freeze": THROUGH}

Map = Literal["truncate", "freeze"]
Cell = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Draw accuracy over the plan space as heat maps: pretrained x kept blocks, and pretrained x frozen blocks."""

    maps: Annotated[tuple[Map, ...], Rule("one or more of truncate, freeze", bool)] = ("truncate", "freeze")
    """Maps to draw: pretrained x kept blocks (truncate), pretrained x frozen blocks (freeze)."""


@dataclass(frozen=True)
class Row(RunRow):
    """One run in one map, in the CSV; with the mean of its cell over `cell_n` folds and the standard error.

    `less_finetuned` is the cell less that of the fine-tuned network, paired by fold and seed, with its 95 % interval,
    which is conservative, the plain one (`stats.fold_interval`), the p-value for no difference, and that adjusted for
    the number of cells in the table (`stats.adjusted`).
    """

    map: str
    cell_mean: float
    cell_standard_error: float
    cell_n: int
    less_finetuned: float
    less_finetuned_low: float
    less_finetuned_high: float
    less_finetuned_plain_low: float
    less_finetuned_plain_high: float
    less_finetuned_p: float
    less_finetuned_p_adjusted: float


def plans(name: Map) -> dict[Cell, TransferPlan]:
    """Return the plans of a map, all different, by (pretrained_through, column)."""
    if name == "truncate":
        return {
            (through, after): TransferPlan(pretrained_through=through, truncate_after=after)
            for through in THROUGH
            for after in BLOCKS[1:]
            if through is None or through == BLOCKS[-1] or through < after
        }
    return {
        (through, frozen): TransferPlan(pretrained_through=through, frozen_through=frozen)
        for through in THROUGH
        for frozen in THROUGH
        if frozen is None or (through is not None and frozen <= through)
    }


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run and map."""

    stem = "plan_grid"
    rows: tuple[Row, ...]


def points(options: Options) -> dict[tuple[str, Cell], Arm]:
    """Return the runs of each map and cell."""
    study = Study.of(options)
    training = study.training(TransferPlan.finetune())  # all cells are trained alike
    return {
        (name, cell): study.arm(plan, training)
        for name in dict.fromkeys(options.maps)
        for cell, plan in plans(name).items()
    }


def analyse(runs: Mapping[tuple[str, Cell], Sequence[Run]], options: Options | None = None) -> Result:
    """Return the accuracies of the runs, and the mean of each cell."""
    cells: list[tuple[str, list[RunRow]]] = []
    finetuned: list[RunRow] = []
    for (name, _), runs_of_cell in runs.items():
        rows_of_cell = [row_of(RunRow, run) for run in runs_of_cell]
        cells += [(name, cell) for cell in group_by(rows_of_cell, key=lambda row: row.backbone).values()]
        if runs_of_cell[0].config.plan == TransferPlan.finetune():
            finetuned += rows_of_cell
    differences = stats.adjusted([paired(cell, finetuned)[cell[0].backbone].difference for _, cell in cells])
    return Result(
        tuple(
            Row(**vars(row), map=name, **_columns(cell, difference))
            for (name, cell), difference in zip(cells, differences, strict=True)
            for row in cell
        )
    )


def _columns(cell: Sequence[RunRow], difference: stats.Difference) -> dict[str, Any]:
    """Return what all rows of a cell have in common."""
    folds, less = stats.by_fold(cell, "accuracy_last"), difference.columns("less_finetuned")
    error = stats.standard_error(folds)
    return {"cell_mean": float(np.mean(folds)), "cell_standard_error": error, "cell_n": len(folds), **less}


def summary(result: Result) -> str:
    """Return the mean accuracy of every cell, one line each."""
    lines = []
    for row in result.rows:
        field, words = AXES[row.map]
        place = f"pretrained through {row.pretrained_through}, {words} {getattr(row, field)}"
        p = "" if np.isnan(row.less_finetuned_p_adjusted) else f" (adjusted p = {row.less_finetuned_p_adjusted:.3f})"
        less = f"less fine-tuned {100 * row.less_finetuned:.1f} points{p}"
        lines.append(f"{row.backbone}  {place}: {100 * row.cell_mean:.1f} %, {less}, n = {row.cell_n}")
    return "\n".join(dict.fromkeys(lines))  # folds and seeds of a cell share one


def draw(result: Result) -> Figure:
    """Draw one heat map per map and backbone, all with the same colour scale."""
    rows = result.rows
    groups = group_by(rows, key=lambda row: (row.map, row.backbone))
    names, networks = (list(dict.fromkeys(part)) for part in zip(*groups, strict=True))
    fig, axes = style.new_figure(
        len(networks),
        len(names),
        width=0.8 + sum(1.9 + 0.78 * len(COLUMNS[name]) for name in names),
        height=0.8 + 4.3 * len(networks),
        width_ratios=[len(COLUMNS[name]) + 0.8 * (name == names[-1]) for name in names],  # the scale's width
    )
    means = [row.cell_mean for row in rows]
    limits = (np.floor(20 * min(means)) / 20, np.ceil(20 * max(means)) / 20)
    for i, network in enumerate(networks):
        for j, name in enumerate(names):
            field, words = AXES[name]
            cells = {(row.pretrained_through, str(getattr(row, field))): row for row in groups[name, network]}
            heat_map(
                _grid(cells, name, "cell_mean"),
                _grid(cells, name, "cell_standard_error"),
                rows=["all" if through == BLOCKS[-1] else block_text(through) for through in THROUGH],
                columns=[block_text(column) for column in COLUMNS[name]],
                xlabel=words,
                ylabel="last block that starts pretrained" if j == 0 else "",
                limits=limits,
                scale=j == len(names) - 1,
                ax=axes[i, j],
            )
        axes[i, 0].set_title(network, fontsize="small", loc="left")
    mean, n = "mean ± standard error" if rows[0].cell_n > 1 else "accuracy", counted(rows[0].cell_n, "fold")
    words = "".join(f"; {name} {100 * level:.1f} %" for name, level in levels(rows).items())
    style.title(fig, f"{rows[0].dataset}: {mean} over the plan space, n = {n}{words}")
    return fig


def _grid(cells: Mapping[tuple[str, str], Row], name: str, field: str) -> np.ndarray:
    """Return a field of each cell [shape=(n_rows, n_columns)]; NaN for empty cells."""
    rows, columns = ([block_text(each) for each in axis] for axis in (THROUGH, COLUMNS[name]))
    empty = float("nan")
    return np.array([[getattr(cells.get((row, column)), field, empty) for column in columns] for row in rows])


plan_grid = question.Question("plan_grid", Options, analyse, points, several=True)
main = cli.command("plan_grid", Options, plan_grid)

if __name__ == "__main__":
    sys.exit(main())
