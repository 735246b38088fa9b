"""The plan space: accuracy over what is pretrained x what is cut, and over what is pretrained x what is frozen.

The analyses by blocks (`freeze`, `fuse`, `truncate`) each walk along one line of this space; here it is seen whole.
Cells that would be the same experiment as another (pretraining what is cut), or freeze what never was pretrained, stay
empty.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from transferlens import cli
from transferlens.compare.by_block import RunRow, run_row
from transferlens.measures import stats
from transferlens.models.plan import BLOCKS, TransferPlan, block_text
from transferlens.plots import style
from transferlens.plots.accuracy import heat_map
from transferlens.store.run import Run
from transferlens.training.sweep import Study, SweepOptions
from transferlens.util.errors import ParameterError
from transferlens.util.files import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Options", "Row", "compare", "draw", "main", "plans"]

STEM = "plan_grid"
# Map to the field of a row that is its axis, and what the axis says.
AXES = {"truncate": ("truncate_after", "last block kept"), "freeze": ("frozen_through", "last block held fixed")}
THROUGH = (None, *BLOCKS)  # rows of both maps
AFTER = BLOCKS[1:]
COLUMNS: dict[str, tuple[int | None, ...]] = {"truncate": AFTER, "freeze": THROUGH}

Cell = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """Accuracy over the plan space, as heat maps: pretrained through x truncated after, and x frozen through."""

    maps: tuple[Literal["truncate", "freeze"], ...] = ("truncate", "freeze")
    """Which maps to draw."""
    figures: Path = Path("figures")
    """Folder for plan_grid.png, .pdf and .csv."""


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


def compare(maps: Mapping[str, Mapping[Cell, Sequence[Run]]]) -> tuple[Row, ...]:
    """Rows of all cells of all maps."""
    rows = []
    for name, cells in maps.items():
        for runs in cells.values():
            mine = [run_row(run) for run in runs]
            for row in mine:
                folds = stats.by_fold(mine, "accuracy_last", backbone=row.backbone)
                mean, error = float(np.mean(folds)), stats.standard_error(folds)
                rows.append(Row(**vars(row), map=name, cell_mean=mean, cell_standard_error=error, cell_n=len(folds)))
    return tuple(rows)


def draw(rows: Sequence[Row]) -> Figure:
    """A heat map for each map and backbone, all with one colour scale."""
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


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, gather, compute, write, draw."""
    options = cli.parse(Options, argv, prog="plan_grid")
    if not options.maps:
        raise ParameterError("maps must name at least one of truncate, freeze")
    study = Study(options)
    training = options.training(TransferPlan.finetune())  # all cells are trained alike
    cells = {(name, cell): plan for name in dict.fromkeys(options.maps) for cell, plan in plans(name).items()}
    runs = study.gather_arms({cell: study.points(plan, training) for cell, plan in cells.items()})
    rows = compare({name: {cell: runs[name, cell] for each, cell in cells if each == name} for name, _ in cells})
    write_csv(rows, options.figures / f"{STEM}.csv")
    style.save_figure(draw(rows), options.figures / STEM)
    print(f"written: {options.figures / STEM}.png, .pdf, .csv")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
