"""The plan space: accuracy over what is pretrained x what is cut, and over what is pretrained x what is frozen.

The analyses by blocks (`freeze`, `fuse`, `truncate`) each walk along one line of this space; here it is seen whole.
Cells that would be the same experiment as another (pretraining what is cut), or freeze what never was pretrained, stay
empty.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.models.plan import BLOCKS, TransferPlan, block_text
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import heat_map
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Map to the field of a row that is its axis, and what the axis says.
AXES = {"truncate": ("truncate_after", "last block kept"), "freeze": ("frozen_through", "last block held fixed")}
THROUGH = (None, *BLOCKS)  # rows of both maps
AFTER = BLOCKS[1:]
COLUMNS: dict[str, tuple[int | None, ...]] = {"truncate": AFTER, "freeze": THROUGH}

Cell = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Accuracy over the plan space, as heat maps: pretrained through x truncated after, and x frozen through."""

    maps: tuple[Literal["truncate", "freeze"], ...] = ("truncate", "freeze")
    """Which maps to draw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.maps:
            raise ParameterError("maps must name at least one of truncate, freeze")


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV, as often as it stands in a map, with its cell's mean over folds and standard error."""

    map: str
    cell_mean: float
    cell_standard_error: float
    cell_n: int


def plans(name: Literal["truncate", "freeze"]) -> dict[Cell, TransferPlan]:
    """The cells of a map that are experiments of their own: (pretrained_through, column) to plan."""
    if name == "truncate":
        return {
            (through, after): TransferPlan(pretrained_through=through, truncate_after=after)
            for through in THROUGH
            for after in AFTER
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
    """The rows of all cells of all maps."""

    stem = "plan_grid"
    rows: tuple[Row, ...]


def points(options: Options) -> dict[tuple[str, Cell], Arm]:
    """Return the cells of each map."""
    study = Study.of(options)
    training = study.training(TransferPlan.finetune())  # all cells are trained alike
    return {
        (name, cell): study.arm(plan, training)
        for name in dict.fromkeys(options.maps)
        for cell, plan in plans(name).items()
    }


def analyse(runs: Mapping[tuple[str, Cell], Sequence[Run]], options: Options | None = None) -> Result:
    """Put the runs of all cells of all maps side by side."""
    rows = []
    for (name, _), runs_of_cell in runs.items():
        of_cell = [row_of(RunRow, run) for run in runs_of_cell]
        for row in of_cell:
            folds = stats.by_fold(of_cell, "accuracy_last", backbone=row.backbone)
            mean, error = float(np.mean(folds)), stats.standard_error(folds)
            rows.append(Row(**vars(row), map=name, cell_mean=mean, cell_standard_error=error, cell_n=len(folds)))
    return Result(tuple(rows))


def summary(result: Result) -> str:
    """Return the mean accuracy of every cell, one line each."""
    lines: dict[str, None] = {}
    for row in result.rows:
        field, words = AXES[row.map]
        place = f"pretrained through {row.pretrained_through}, {words} {getattr(row, field)}"
        lines[f"{row.backbone}  {place}: {100 * row.cell_mean:.1f} %, n = {row.cell_n}"] = None
    return "\n".join(lines)


def draw(result: Result) -> Figure:
    """Draw a heat map for each map and backbone, all with one colour scale."""
    rows = result.rows
    names = list(dict.fromkeys(row.map for row in rows))
    networks = list(dict.fromkeys(row.backbone for row in rows))
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
            cells = {
                (row.pretrained_through, str(getattr(row, field))): row
                for row in rows
                if (row.map, row.backbone) == (name, network)
            }
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
    n = rows[0].cell_n
    mean = "mean ± standard error" if n > 1 else "accuracy"
    title = f"{rows[0].dataset}: {mean} over the plan space, n = {stats.folds_text(n)}"
    fig.suptitle(title, x=0.01, ha="left", fontsize="large")
    return fig


def _grid(cells: Mapping[tuple[str, str], Row], name: str, field: str) -> np.ndarray:
    """A field of each cell [shape=(rows, columns)]; NaN where a map has no cell."""
    rows, columns = ([block_text(each) for each in axis] for axis in (THROUGH, COLUMNS[name]))
    empty = float("nan")
    return np.array([[getattr(cells.get((row, column)), field, empty) for column in columns] for row in rows])


plan_grid = question.Question("plan_grid", Options, analyse, points)
main = cli.command("plan_grid", Options, plan_grid)

if __name__ == "__main__":
    sys.exit(main())
