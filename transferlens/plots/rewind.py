"""Accuracies of networks whose blocks are put back, and how far blocks moved, on Axes.

* `put_back`: accuracy by block, and what each block needed
* `moved`: relative change by block; `moved_marks` explains its marks
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.plots.style import axes_or_new, mark, spread
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SHADES = {"nothing": "1.0", "statistics": "0.93", "filters": "0.84", "weights": "0.84"}
MARKS: dict[str, dict[str, Any]] = {"as is": {"fmt": "o--", "mfc": "white"}, "anew": {"fmt": "o-"}}
# Networks have marks, as colours are what is put back.
NETWORKS = (("s", "-"), ("^", "--"), ("D", ":"), ("v", "-."))


def put_back(rows: Sequence[Any], *, palette: Mapping[str, tuple], ax: Axes | None = None) -> Axes:
    """Draw the accuracies of one direction by block, and what each block needed.

    Parameters
    ----------
    rows : sequence of `transferlens.rewind.MeanRow`
    palette : dict of str to colour
        By what is put back: all, filters, normalisation.
    """
    ax = axes_or_new(ax)
    ax.axhline(100 * rows[0].accuracy_run, color="0.4", lw=1, label="as trained")
    series = group_by(rows, key=lambda row: (row.what, row.statistics))
    offsets = spread(series, 0.12)
    for x, ((what, statistics), line) in zip(offsets, series.items(), strict=True):
        mean = np.array([100 * row.accuracy for row in line])
        # An accuracy is from 0 to 1, also where the interval of its change leads beyond.
        ends = [
            (min(row.change - row.change_low, row.accuracy), min(row.change_high - row.change, 1 - row.accuracy))
            for row in line
        ]
        bounds = 100 * np.array(ends).T
        words = "as is" if statistics == "as is" else "statistics anew"
        look: dict[str, Any] = {"ms": 5, "lw": 1.2, "capsize": 2, "elinewidth": 0.8, "color": palette[what]}
        places = [row.block + x for row in line]
        ax.errorbar(places, mean, np.nan_to_num(bounds), label=f"{what}, {words}", **look, **MARKS[statistics])
    needed = {row.block: row.needed for row in rows if row.needed}
    for block, word in needed.items():
        ax.axvspan(block - 0.5, block + 0.5, color=SHADES[word], lw=0, zorder=0)
    blocks = sorted({row.block for row in rows})
    ax.set_xticks(blocks, [f"{block}\n{needed.get(block, '')}" for block in blocks], fontsize="small")
    ax.set(ylim=(0, 103), xlim=(blocks[0] - 0.5, blocks[-1] + 0.5))
    return ax


def moved(networks: Iterable[Sequence[tuple[int, float]]], *, ax: Axes | None = None) -> Axes:
    """Draw how far each block moved, from (block, relative change): a line per network, in grey."""
    ax = axes_or_new(ax)
    for points, (marker, line) in zip(networks, itertools.cycle(NETWORKS), strict=False):
        ax.plot(*zip(*points, strict=True), marker=marker, ls=line, color="0.35", mfc="white", ms=4, lw=1)
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", integer=True)
    return ax


def moved_marks(names: Iterable[str]) -> dict[str, Line2D]:
    """Return the legend entries of the networks that `moved` draws, in their order."""
    pairs = zip(names, itertools.cycle(NETWORKS), strict=False)
    return {name: mark(marker, line=line, hollow=True) for name, (marker, line) in pairs}
