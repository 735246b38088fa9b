"""Text that fits into its figure: titles and labels in lines that are short enough, and legends in columns.

All widths are measured, in pixels of the figure.

* `title` of a figure, and `columns` of its legend, when they are drawn
* `texts`: titles and labels of all Axes of a complete figure; `unify`: one size for all text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

import numpy as np

from transferlens.util.lazy import matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text

# Space between two labels, and between text and the sides of a figure [share of the size of the letters].
GAP = 0.6
# Width of the mark and the spaces of an entry of a legend [em].
ENTRY = 5
# Width of a label that is written upwards [em].
UPWARDS = 11
# Length of an axis that is long enough for its label [em].
SHORTEST = 8
# Smallest size of labels that would overlap [points].
SMALLEST = 3
# What marks the names of levels: they may have as many lines as they need.
LEVEL = "level"

_done: WeakSet[Figure] = WeakSet()


def is_done(fig: Figure) -> bool:
    """Return whether the text of a figure was made to fit."""
    return fig in _done


def _renderer(part: Figure | SubFigure) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(part.get_figure(root=True)).get_renderer()


def _em(text: Text) -> float:
    """Return the size of letters in pixels."""
    fig = text.get_figure(root=True)
    assert fig is not None
    return text.get_fontproperties().get_size_in_points() * fig.dpi / 72


def _width(words: str, text: Text, renderer: Any) -> float:
    return renderer.get_text_width_height_descent(words, text.get_fontproperties(), ismath=False)[0]


def _lines(words: str, room: float, text: Text, renderer: Any) -> str:
    """Return words in lines that are not wider than the room [pixel], as far as single words allow."""
    lines: list[str] = []
    for paragraph in words.split("\n"):
        lines.append("")
        for word in paragraph.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if not lines[-1] or _width(longer, text, renderer) <= room:
                lines[-1] = longer
            else:
                lines.append(word)
    return "\n".join(lines)


def _wrap(text: Text, room: float, renderer: Any) -> None:
    text.set_text(_lines(text.get_text(), room, text, renderer))


def _wrap_label(label: Text, room: float, renderer: Any) -> None:
    """Break the label of an axis anew if one of its lines is too long."""
    room = max(room, SHORTEST * _em(label))
    if any(_width(line, label, renderer) > room for line in label.get_text().split("\n")):
        label.set_text(_lines(label.get_text().replace("\n", " "), room, label, renderer))


def title(fig: Figure, text: Text) -> None:
    """Break the title of a figure into lines that fit into its width."""
    _wrap(text, 0.98 * fig.bbox.width - GAP * _em(text), _renderer(fig))


def columns(part: Figure | SubFigure, words: Sequence[str], points: float) -> tuple[list[str], int]:
    """Return the entries of a legend, broken where they are wider than the figure, and how many columns fit into it."""
    fig, renderer = part.get_figure(root=True), _renderer(part)
    text = matplotlib.text.Text(fontsize=points, figure=fig)
    room, around = fig.bbox.width - 2 * _em(text), ENTRY * _em(text)
    broken = [_lines(word, room - around, text, renderer) for word in words]
    widths = [around + max(_width(line, text, renderer) for line in word.split("\n")) for word in broken]
    for n in range(len(words), 1, -1):
        if sum(max(column) for column in np.array_split(widths, n)) <= room:
            return broken, n
    return broken, 1


def unify(fig: Figure, points: float, thinner: float) -> None:
    """Give all text of a figure one size, and scale widths of lines and sizes of marks."""
    for text in fig.findobj(matplotlib.text.Text):
        text.set_fontsize(points)
    for ax in fig.axes:
        ax.tick_params(which="both", labelsize=points)
    for line in fig.findobj(matplotlib.lines.Line2D):
        line.set(markersize=thinner * line.get_markersize(), linewidth=thinner * line.get_linewidth())


def texts(fig: Figure) -> None:
    """Break titles and labels of all Axes of a complete figure into lines that are short enough."""
    _done.add(fig)
    renderer = _renderer(fig)
    for _ in range(2):  # sizes of Axes follow from their labels, and these from the sizes
        fig.draw_without_rendering()
        for ax in fig.axes:
            _fit_axis_labels(ax, renderer)
    fig.draw_without_rendering()
    for ax in fig.axes:
        box = ax.get_window_extent(renderer)
        place = ax.get_subplotspec()
        is_last = place is not None and place.is_last_col()
        right = fig.bbox.width if is_last else box.x1
        for text in ax.texts:
            if text.get_gid() == LEVEL:
                _wrap(text, box.width - _em(text), renderer)
        for text in _titles(ax):
            room = (right if text.get_horizontalalignment() == "left" else box.x1) - box.x0
            _wrap(text, room - 2 * GAP * _em(text), renderer)


def _fit_axis_labels(ax: Axes, renderer: Any) -> None:
    """Make the labels of both axes, and of their ticks, fit."""
    _fit_labels(ax, "x", renderer)
    _fit_labels(ax, "y", renderer)
    box = ax.get_window_extent(renderer)
    _wrap_label(ax.xaxis.label, box.width, renderer)
    _wrap_label(ax.yaxis.label, box.height, renderer)


def _titles(ax: Axes) -> list[Text]:
    words = {ax.get_title(loc=loc) for loc in ("left", "center", "right")} - {""}
    return [text for text in ax.get_children() if isinstance(text, matplotlib.text.Text) and text.get_text() in words]


def _fit_labels(ax: Axes, axis: Literal["x", "y"], renderer: Any) -> None:
    """Break the labels of ticks into lines where they overlap; else write them upwards, or smaller."""
    labels = _visible(ax, axis)
    if not _overlap(labels, axis, renderer):
        return
    if axis == "x" and labels[0].get_rotation() == 0:
        _break_or_turn(ax, labels, renderer)
        labels = _visible(ax, axis)
    size = labels[0].get_fontproperties().get_size_in_points()
    while _overlap(labels, axis, renderer) and size > SMALLEST:
        size -= 0.5
        ax.tick_params(axis=axis, labelsize=size)
        labels = _visible(ax, axis)


def _break_or_turn(ax: Axes, labels: Sequence[Text], renderer: Any) -> None:
    places, words = ax.get_xticks(), [text.get_text() for text in ax.get_xticklabels()]
    centres = sorted(
        text.get_window_extent(renderer).x0 + text.get_window_extent(renderer).width / 2 for text in labels
    )
    slot = min(right - left for left, right in zip(centres, centres[1:], strict=False))
    is_named = any(not word.replace("−", "-").lstrip("-").replace(".", "").isdigit() for word in words if word)
    if is_named:
        broken = [_lines(word, slot - GAP * _em(labels[0]), labels[0], renderer) for word in words]
        ax.set_xticks(places, broken)
        if not _overlap(_visible(ax, "x"), "x", renderer):
            return
        upwards = [
            _lines(word.replace("\n", ", ").replace(",,", ","), UPWARDS * _em(labels[0]), labels[0], renderer)
            for word in words
        ]
        ax.set_xticks(places, upwards)
    ax.tick_params(axis="x", labelrotation=90)


def _visible(ax: Axes, axis: str) -> list[Text]:
    """Return the labels of ticks that are seen."""
    ticks = ax.get_xticklabels() if axis == "x" else ax.get_yticklabels()
    low, high = sorted(ax.get_xlim() if axis == "x" else ax.get_ylim())
    places = [text.get_position()[axis == "y"] for text in ticks]
    return [
        text
        for text, place in zip(ticks, places, strict=True)
        if ax.get_visible() and text.get_visible() and text.get_text() and low <= place <= high
    ]


def _overlap(labels: Sequence[Text], axis: str, renderer: Any) -> bool:
    if len(labels) < 2:
        return False
    gap = GAP * _em(labels[0]) if axis == "x" and labels[0].get_rotation() == 0 else 0
    boxes = [text.get_window_extent(renderer) for text in labels]
    ends = sorted((box.x0, box.x1) if axis == "x" else (box.y0, box.y1) for box in boxes)
    return any(start < end + gap for (_, end), (start, _) in zip(ends, ends[1:], strict=False))
