"""Figures in the style of the project, their colours, and the one function that writes them.

`new_figure` makes a grid of Axes, `new_parts` a figure in strips that `subplots` fills; `title` is above a figure,
`colours`, `handles`, `mark` and `legend_below` serve legends. Sizes are in inches. No figure belongs to a window.

Within `look`, figures have the width of a column of a paper: Axes that would be too narrow lie below each other, all
text has one size, and titles may be left out. `fitted` makes text fit into any figure.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from transferlens.plots import fit
from transferlens.util.fields import Rule
from transferlens.util.files import complete_or_absent
from transferlens.util.lazy import matplotlib, seaborn
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.gridspec import GridSpec
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

DPI = 160
# Size of all text in figures of a given width [points], and what lines and marks are scaled by in them.
POINTS, THINNER = 7, 0.7
# Height of such a figure over that of the usual one: that of the text, or less if it is very narrow.
HEIGHTS = (0.65, 0.75)
# Height of each line of Axes that lie below each other, over that of a single line.
LOWER = 0.85
# Width of Axes, over that in the usual figure, below which fewer of them lie beside each other.
NARROW = 0.42
# Size of the letters of titles and legends in other figures [points], and height of a line of a legend over it.
LARGE, LINE = 10, 1.9
UNITS = {"cm": 1 / 2.54, "mm": 1 / 25.4, "in": 1.0}
SHORTEST, LONGEST = 5 / 2.54, 60 / 2.54


def inches(width: str) -> float:
    """Return a width such as "8cm", "85mm" or "3.5in" in inches; NaN if it is not one.

    Examples
    --------
    >>> round(inches("8cm"), 2)
    3.15
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(cm|mm|in)", width, re.ASCII)
    return float(found[1]) * UNITS[found[2]] if found else np.nan


WIDTH = Rule(
    "a width of 5 to 60 cm with its unit, such as 8cm, 85mm or 3.5in",
    lambda width: width is None or SHORTEST <= inches(width) <= LONGEST,
)


@dataclass(frozen=True)
class Look:
    """The width of figures [inch], None for that of each; whether they have titles; the name of the held-out score."""

    width: float | None = None
    titles: bool = True
    score: str = "accuracy"


USUAL = Look()
_look: ContextVar[Look] = ContextVar("look", default=USUAL)


@dataclass
class Design:
    """The usual width of a figure, the heights of its parts, and the grid that they are in, if they are several."""

    width: float
    heights: list[float]
    grid: GridSpec | None = None


_designs: WeakKeyDictionary[Figure, Design] = WeakKeyDictionary()


@contextlib.contextmanager
def look(*, width: str | None = None, titles: bool = True) -> Iterator[None]:
    """Draw figures within this context with a width such as "8cm", and with titles or without.

    Titles of single Axes, which say what differs between them, remain.
    """
    with _with(width=None if width is None else inches(width), titles=titles):
        yield


@contextlib.contextmanager
def scored(name: str) -> Iterator[None]:
    """Draw figures within this context with another name of the held-out score than accuracy, such as mAP."""
    with _with(score=name):
        yield


def score() -> str:
    """Return the name of the held-out score."""
    return _look.get().score


@contextlib.contextmanager
def _with(**changes: Any) -> Iterator[None]:
    token = _look.set(replace(_look.get(), **changes))
    try:
        yield
    finally:
        _look.reset(token)


def _style() -> AbstractContextManager:
    style = seaborn.axes_style("ticks") | seaborn.plotting_context("notebook", font_scale=0.85)
    style |= {"axes.grid": True, "axes.grid.axis": "y", "grid.color": "0.92"}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    style["text.parse_math"] = False  # the name of a clip may contain a $
    if _look.get().width is not None:
        style |= {f"{kind}size": POINTS for kind in ("font.", "axes.label", "axes.title", "xtick.label", "ytick.label")}
        style |= {f"{axis}tick.major.{name}": 3 for axis in "xy" for name in ("size", "pad")}
    return matplotlib.rc_context(style)


def _empty_figure(width: float, heights: Sequence[float]) -> Figure:
    from matplotlib.figure import Figure

    chosen = _look.get().width
    scale = 1.0 if chosen is None else float(np.clip(chosen / width, *HEIGHTS))
    scaled = [scale * height for height in heights]
    fig = Figure(figsize=(chosen or width, sum(scaled)), layout="constrained")
    _designs[fig] = Design(width, scaled)
    return fig


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
    fig = _empty_figure(width, [height])
    return fig, subplots(fig, n_rows, n_columns, **kwargs)


def new_parts(heights: Sequence[float], *, width: float, height: float) -> tuple[Figure, list[SubFigure]]:
    """Return an empty figure in strips with these relative heights, the first on top; fill them by `subplots`."""
    fig = _empty_figure(width, [height * part / sum(heights) for part in heights])
    grid = _designs[fig].grid = fig.add_gridspec(len(heights), 1, height_ratios=heights)
    return fig, [fig.add_subfigure(grid[i]) for i in range(len(heights))]


def subplots(part: Figure | SubFigure, n_rows: int, n_columns: int, **kwargs) -> np.ndarray:
    """Fill a figure, or a part of one, with Axes, and return them [shape=(n_rows, n_columns)].

    Columns that would be too narrow in the chosen width continue below, and the figure becomes higher.
    """
    fig = part.get_figure(root=True)
    design = _designs[fig]
    room = n_columns if _look.get().width is None else int(fig.get_figwidth() / (NARROW * design.width / n_columns))
    lines = -(-n_columns // max(1, min(room, n_columns)))
    with _style():
        if lines == 1:
            return part.subplots(n_rows, n_columns, squeeze=False, **kwargs)
        _grow(part, (LOWER * lines - 1) * design.heights[fig.subfigs.index(part) if part in fig.subfigs else -1])
        return _folded(part, n_rows, n_columns, lines, **kwargs)


def _folded(
    part: Figure | SubFigure,
    n_rows: int,
    n_columns: int,
    lines: int,
    *,
    sharex: bool | str = False,
    sharey: bool | str = False,
    height_ratios: Sequence[float] | None = None,
    width_ratios: Sequence[float] | None = None,
) -> np.ndarray:
    """Return Axes whose columns continue on further lines, each of which has all rows."""
    axes, per_line = np.empty((n_rows, n_columns), dtype=object), -(-n_columns // lines)
    ratios = [*(width_ratios or [1] * n_columns), *[1] * (lines * per_line - n_columns)]
    outer = part.add_gridspec(lines, 1)
    for column, row in itertools.product(range(n_columns), range(n_rows)):
        line, place = divmod(column, per_line)
        if row == 0 and place == 0:
            own = ratios[line * per_line : (line + 1) * per_line]
            grid = outer[line].subgridspec(n_rows, per_line, height_ratios=height_ratios, width_ratios=own)
        shared = {"sharex": _shared(axes, row, column, sharex), "sharey": _shared(axes, row, column, sharey)}
        ax = axes[row, column] = part.add_subplot(grid[row, place], **shared)
        ax.tick_params(labelbottom=not sharex or row == n_rows - 1, labelleft=not sharey or place == 0)
    return axes


def _shared(axes: np.ndarray, row: int, column: int, how: bool | str) -> Axes | None:
    """Return the Axes whose scale others have; None for these themselves."""
    place = {"row": (row, 0), "col": (0, column)}.get(str(how), (0, 0)) if how else (row, column)
    return None if place == (row, column) else axes[place]


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
    return np.linspace(-width, width, len(values)) if len(values) > 1 else np.zeros(len(values))


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


def mark(marker: str, *, line: str = "", hollow: bool = False) -> Line2D:
    """Return the legend entry, in grey, of what a mark or a line means, by matplotlib's names."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"ls": line or "none", "ms": 5, "lw": 1.4} | ({"mfc": "white"} if hollow else {})
    return Line2D([], [], color="0.35", marker=marker, **look)


def halo(width: float = 1.5) -> list[Any]:
    """Return the effect of text that is written over data: a white rim."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="white")]


def dot() -> Line2D:
    """Return the legend entry, in grey, of single values beside their mean."""
    small = mark("o")
    small.set(markersize=3.5, alpha=0.6, markeredgewidth=0)
    return small


def band_mark() -> Patch:
    """Return the legend entry, in grey, of a band."""
    from matplotlib.patches import Patch

    return Patch(color="0.35", alpha=0.2, lw=0)


def fold_marks(n_folds: int) -> dict[str, Line2D]:
    """Return the legend entries of `accuracy.points_and_means`, for accuracies by fold."""
    if n_folds == 1:
        return {"the one fold": mark("D")}
    return {f"mean and {INTERVAL}, n = {counted(n_folds, 'fold')}": mark("D", line="-"), "folds": dot()}


def change_marks(n_folds: int) -> dict[str, Line2D]:
    """Return the legend entries of `accuracy.changes`: differences that are paired by fold."""
    if n_folds == 1:
        return {"difference, n = 1: no interval": mark("s", hollow=True)}
    return {"paired difference: interval excludes 0": mark("s"), "interval contains 0": mark("s", hollow=True)}


def curve_marks() -> dict[str, Line2D]:
    """Return the legend entries of `accuracy.learning_curves`."""
    thin = mark("", line="-")
    thin.set(linewidth=0.7, alpha=0.6)
    return {"one run": thin, "mean of the runs": mark("", line="-")}


def legend_below(
    part: Figure | SubFigure,
    entries: Axes | Mapping[str, Any] = {},  # noqa: B006
    *,
    order: Sequence[str] = (),
    marks: Mapping[str, Any] = {},  # noqa: B006
) -> None:
    """Draw a legend below a figure or a part of it, in as many columns as there is room for.

    Parameters
    ----------
    part : Figure or SubFigure
    entries : Axes, or dict of name to artist
        Names that are drawn twice have one entry.
    order : sequence of str, optional
        The names to show, by default all in the order in which they were drawn.
    marks : dict of text to artist, optional
        What marks mean (`mark`), after the names.
    """
    drawn = entries if isinstance(entries, Mapping) else entries_of(entries)
    shown = {name: drawn[name] for name in order or drawn if name in drawn} | dict(marks)
    if not shown:
        return
    size = _points()
    words, n_columns = fit.columns(part, list(shown), size)
    rows = max(len(column) for column in np.array_split(words, n_columns))
    lines = sum(max(1, word.count("\n") + 1) for word in words) if n_columns == 1 else rows
    _grow(part, LINE * size / 72 * (lines - 1))
    look: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": size, "ncols": n_columns}
    part.legend(shown.values(), words, **look)


def entries_of(ax: Axes) -> dict[str, Any]:
    """Return what each name of a legend stands for: what is drawn last, over the band if one has the same name."""
    drawn: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for artist, name in zip(*ax.get_legend_handles_labels(), strict=True):
        (bands if isinstance(artist, matplotlib.patches.Patch) else drawn)[name] = artist
    return bands | {name: (bands[name], artist) if name in bands else artist for name, artist in drawn.items()}


def _grow(part: Figure | SubFigure, more: float) -> None:
    """Make a figure, or a part of it, higher [inch]."""
    fig = part.get_figure(root=True)
    design = _designs[fig]
    design.heights[fig.subfigs.index(part) if part in fig.subfigs else -1] += more
    fig.set_size_inches(fig.get_figwidth(), sum(design.heights))
    if design.grid:
        design.grid.set_height_ratios(design.heights)


def _points() -> float:
    """Return the size of the letters of titles and legends."""
    return LARGE if _look.get().width is None else POINTS


def title(fig: Figure, text: str) -> None:
    """Write a title above a figure, in lines that fit into it; none within a `look` without titles."""
    if _look.get().titles:
        unbroken = text.replace(" = ", "\u00a0=\u00a0")
        fit.title(fig, fig.suptitle(unbroken, x=0.01, ha="left", fontsize=_points()))


def fitted(fig: Figure) -> Figure:
    """Return a figure that is complete, after its text was made to fit; in a chosen width, all text gets one size."""
    if fig in _designs and not fit.is_done(fig):
        if _look.get().width is not None:
            fit.unify(fig, POINTS, THINNER)
        fit.texts(fig)
    return fig


# The interval of means over folds that figures show.
INTERVAL = "corrected 95 % interval"


def save_figure(fig: Figure, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf`` and return their paths.

    Each file is complete or absent; the same figure gives the same bytes.
    """
    paths = []
    fitted(fig)
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        path = stem.with_name(stem.name + suffix)
        with complete_or_absent(path) as temporary:
            fig.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=metadata)
        paths.append(path)
    return paths
