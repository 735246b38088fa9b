"""Figures in the style of the project, their colours, and the one function that writes them.

`new_figure` makes a grid of Axes, `new_parts` a figure in strips that `subplots` fills; `colours`, `handles` and
`legend_below` serve legends. Sizes are in inches. No figure belongs to a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.util.files import complete_or_absent
from transferlens.util.lazy import matplotlib, seaborn
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

DPI = 160


def _style() -> AbstractContextManager:
    style = seaborn.axes_style("ticks") | seaborn.plotting_context("notebook", font_scale=0.85)
    style |= {"axes.grid": True, "axes.grid.axis": "y", "grid.color": "0.92"}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    style["text.parse_math"] = False  # the name of a clip may contain a $
    return matplotlib.rc_context(style)


def _empty_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_figure(
    n_rows: int = 1, n_columns: int = 1, *, width: float, height: float, **kwargs
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure and its Axes [shape=(n_rows, n_columns)]; `kwargs` are those of ``Figure.subplots``.

    Examples
    --------
    >>> fig, axes = new_figure(2, 3, width=8, height=5, sharey=True)
    >>> axes.shape
    (2, 3)
    """
    fig = _empty_figure(width, height)
    return fig, subplots(fig, n_rows, n_columns, **kwargs)


def new_parts(heights: Sequence[float], *, width: float, height: float) -> tuple[Figure, list[SubFigure]]:
    """Return an empty figure in strips with these relative heights, the first on top; fill them by `subplots`."""
    fig = _empty_figure(width, height)
    return fig, [*fig.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat]


def subplots(part: Figure | SubFigure, n_rows: int, n_columns: int, **kwargs) -> np.ndarray:
    """Fill a figure, or a part of one, with Axes, and return them [shape=(n_rows, n_columns)]."""
    with _style():
        return part.subplots(n_rows, n_columns, squeeze=False, **kwargs)


def axes_or_new(ax: Axes | None) -> Axes:
    """Return `ax`, or the Axes of a new figure if it is None."""
    return new_figure(width=5, height=4)[1][0, 0] if ax is None else ax


def colours(names: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """Return a colour for each different name in order of first appearance, distinct for colour-blind readers too.

    Examples
    --------
    >>> list(colours(["pretrained", "from scratch", "pretrained"]))
    ['pretrained', 'from scratch']
    """
    different = list(dict.fromkeys(names))
    return dict(zip(different, seaborn.color_palette("colorblind", len(different)), strict=True))


def spread(values: Sized, width: float) -> np.ndarray:
    """Return one offset per value, from `-width` to `width`, so that equal points do not hide each other."""
    return np.linspace(-width, width, len(values)) if len(values) > 1 else np.zeros(1)


def handles(palette: Mapping[str, tuple]) -> list[Line2D]:
    """Return one legend entry per colour, from a dict of name to colour."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour, marker="o", lw=2, label=name) for name, colour in palette.items()]


def areas(colour: str, opacities: Iterable[tuple[str, float]]) -> list[Patch]:
    """Return one legend entry per region of a colour, from names and opacities."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=colour, alpha=opacity, label=name) for name, opacity in opacities]


def lines(colours: Iterable[tuple[str, Any]]) -> list[Line2D]:
    """Return one legend entry per line, from names and colours."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour, label=name) for name, colour in colours]


def legend_below(fig: Figure, ax: Axes, *, order: Sequence[str] = ()) -> None:
    """Draw the legend of `ax` below the figure, each name once, in as many columns as there is room for.

    Names are in this order, by default that in which they were drawn.
    """
    drawn = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    entries = {name: drawn[name] for name in order or drawn if name in drawn}
    widths = [0.65 + 0.07 * len(name) for name in entries]  # of a mark and of letters, about
    room, n = fig.get_figwidth(), len(entries)
    n_columns = n if sum(widths) <= room else min(n, max(1, int(room // max(widths))))
    fig.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=n_columns, frameon=False)


# The interval of means over folds that figures show.
INTERVAL = "corrected 95 % interval"


def means_caption(n_folds: int) -> str:
    """Return what the marks of `accuracy.points_and_means` are, for accuracies by fold."""
    return f"diamonds: mean{f' and {INTERVAL}' if n_folds > 1 else ''}, n = {counted(n_folds, 'fold')}; dots: folds"


def save_figure(fig: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf`` and return their paths.

    Each file is complete or absent; the same figure gives the same bytes.
    """
    paths = []
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        path = stem.with_name(stem.name + suffix)
        with complete_or_absent(path) as temporary:
            fig.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=metadata)
        paths.append(path)
    return paths
