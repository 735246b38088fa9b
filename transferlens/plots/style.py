"""Arrays to Axes, and the one function that writes a figure. Nothing else imports matplotlib or seaborn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.util.files import complete_or_absent
from transferlens.util.lazy import matplotlib, seaborn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["colours", "handles", "new_figure", "new_mosaic", "new_parts", "save_figure", "subplots"]

DPI = 160


def _style() -> AbstractContextManager:
    style = seaborn.axes_style("ticks") | {"axes.grid": True, "axes.grid.axis": "y", "grid.color": "0.92"}
    style["text.parse_math"] = False  # labels of clips may hold a $
    return matplotlib.rc_context(style | seaborn.plotting_context("notebook", font_scale=0.85))


def new_figure(
    n_rows: int = 1, n_columns: int = 1, *, width: float, height: float, **kwargs
) -> tuple[Figure, np.ndarray]:
    """An empty figure of `width` x `height` inches and its Axes [shape=(n_rows, n_columns)], bound to no window."""
    fig, (part,) = new_parts([1], width=width, height=height)
    return fig, subplots(part, n_rows, n_columns, **kwargs)


def new_parts(heights: Sequence[float], *, width: float, height: float) -> tuple[Figure, list[SubFigure]]:
    """An empty figure in parts below each other, with these shares of its height, for `subplots`."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, [*fig.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat]


def subplots(part: SubFigure, n_rows: int, n_columns: int, **kwargs) -> np.ndarray:
    """Axes [shape=(n_rows, n_columns)] of a part of a figure."""
    with _style():
        axes = part.subplots(n_rows, n_columns, squeeze=False, **kwargs)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return axes


def new_mosaic(
    names: Sequence[Sequence[str]], *, width: float, height: float, **kwargs
) -> tuple[Figure, dict[str, Axes]]:
    """As `new_figure`, with Axes named by where they stand in `names`; one that is named twice spans both places."""
    from matplotlib.figure import Figure

    with _style():
        fig = Figure(figsize=(width, height), layout="constrained")
        axes = fig.subplot_mosaic([list(row) for row in names], **kwargs)
    for ax in axes.values():
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def axes_or_new(ax: Axes | None) -> Axes:
    return new_figure(width=5, height=4)[1][0, 0] if ax is None else ax


def colours(names: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each name, told apart by colour-blind readers too."""
    return dict(zip(names, seaborn.color_palette("colorblind", len(names)), strict=True))


def spread(values: Sized, width: float) -> np.ndarray:
    """Horizontal places of points, so that equal ones do not hide each other."""
    return np.linspace(-width, width, len(values)) if len(values) > 1 else np.zeros(1)


def handles(palette: Mapping[str, tuple]) -> list[Any]:
    """A legend's entries for the series of a palette."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour, marker="o", lw=2, label=name) for name, colour in palette.items()]


def save_figure(fig: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf``, each complete or absent; the same figure gives the same bytes."""
    paths = []
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        path = stem.with_name(stem.name + suffix)
        with complete_or_absent(path) as beside:
            fig.savefig(beside, format=suffix[1:], dpi=DPI, metadata=metadata)
        paths.append(path)
    return paths
