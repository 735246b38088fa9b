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

from transferlens import cli, display, stats
from transferlens.by_block import RunRow, run_row
from transferlens.errors import ParameterError
from transferlens.files import write_csv
from transferlens.plan import BLOCKS, TransferPlan
from transferlens.runs import Run
from transferlens.sweep import Study, SweepOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Options", "Row", "compare", "draw", "main", "plans"]

STEM = "plan_grid"
AXES = {"truncate": "last block kept", "freeze": "last block held fixed"}
THROUGH = (None, *BLOCKS)  # rows of both maps
COLUMNS = {"truncate": BLOCKS[1:], "freeze": THROUGH}

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
    pretrained_through: str
    column: str
    cell_mean: float
    cell_standard_error: float
    n_folds: int


def plans(name: Literal["truncate", "freeze"]) -> dict[Cell, TransferPlan]:
    """The cells of a map that are experiments of their own: (pretrained_through, column) to plan."""
    if name == "truncate":
        return {
            (through, after): TransferPlan(pretrained_through=through, truncate_after=after)
            for through in THROUGH
            for after in COLUMNS[name]
            if through in (None, BLOCKS[-1]) or through < after
        }
    return {
        (through, frozen): TransferPlan(pretrained_through=through, frozen_through=frozen)
        for through in THROUGH
        for frozen in COLUMNS[name]
        if frozen is None or (through is not None and frozen <= through)
    }


def _text(block: int | None) -> str:
    return "none" if block is None else str(block)


def compare(maps: Mapping[str, Mapping[Cell, Sequence[Run]]]) -> tuple[Row, ...]:
    """Rows of all cells of all maps."""
    rows = []
    for name, cells in maps.items():
        for (through, column), runs in cells.items():
            mine = [run_row(run) for run in runs]
            for row in mine:
                folds = stats.by_fold(mine, "accuracy_last", backbone=row.backbone)
                rows.append(
                    Row(
                        **vars(row),
                        map=name,
                        pretrained_through=_text(through),
                        column=_text(column),
                        cell_mean=float(np.mean(folds)),
                        cell_standard_error=stats.standard_error(folds),
                        n_folds=len(folds),
                    )
                )
    return tuple(rows)


def draw(rows: Sequence[Row]) -> Figure:
    """A heat map for each map and backbone, all with one colour scale."""
    names = list(dict.fromkeys(row.map for row in rows))
    networks = list(dict.fromkeys(row.backbone for row in rows))
    fig, axes = display.new_figure(
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
            cells = {(r.pretrained_through, r.column): r for r in rows if (r.map, r.backbone) == (name, network)}
            display.heat_map(
                _grid(cells, name, "cell_mean"),
                _grid(cells, name, "cell_standard_error"),
                rows=[_through(through) for through in THROUGH],
                columns=[_text(column) for column in COLUMNS[name]],
                xlabel=AXES[name],
                ylabel="last block that starts pretrained" if j == 0 else "",
                limits=limits,
                scale=j == len(names) - 1,
                ax=axes[i, j],
            )
        axes[i, 0].set_title(network, fontsize="small", loc="left")
    n = rows[0].n_folds
    error = " ± standard error" if n > 1 else ""
    folds = f"n = {n} fold{'s' * (n > 1)}"
    fig.suptitle(f"{rows[0].dataset}: mean{error} over the plan space, {folds}", x=0.01, ha="left", fontsize="large")
    return fig


def _through(block: int | None) -> str:
    return "all kept" if block == BLOCKS[-1] else _text(block)


def _grid(cells: Mapping[tuple[str, str], Row], name: str, field: str) -> np.ndarray:
    """A field of each cell [shape=(rows, columns)]; NaN where a map has no cell."""
    rows, columns = ([_text(each) for each in axis] for axis in (THROUGH, COLUMNS[name]))
    empty = float("nan")
    return np.array([[getattr(cells.get((row, column)), field, empty) for column in columns] for row in rows])


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, gather, compute, write, draw."""
    options = cli.parse(Options, argv, prog="plan_grid")
    if not options.maps:
        raise ParameterError("maps must name at least one of truncate, freeze")
    study = Study(options)
    points = {
        name: {cell: study.points(plan) for cell, plan in plans(name).items()} for name in dict.fromkeys(options.maps)
    }
    runs = study.gather(point for cells in points.values() for named in cells.values() for point in named)
    rows = compare(
        {name: {cell: [runs[p] for p in named] for cell, named in cells.items()} for name, cells in points.items()}
    )
    write_csv(rows, options.figures / f"{STEM}.csv")
    display.save_figure(draw(rows), options.figures / STEM)
    print(f"written: {options.figures / STEM}.png, .pdf, .csv")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
