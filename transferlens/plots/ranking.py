"""Methods ranked by scores: one line per method with intervals, and how alike they are two by two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from transferlens.plots.style import axes_or_new, colours, spread
from transferlens.util.lazy import seaborn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Mean(Protocol):
    """A mean with its interval, which is NaN if there is none."""

    @property
    def mean(self) -> float:
        """The mean."""

    @property
    def low(self) -> float:
        """Lower bound."""

    @property
    def high(self) -> float:
        """Upper bound."""


def ranking(
    series: Mapping[str, Mapping[str, Mean]],
    *,
    order: Sequence[str],
    xlabel: str,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean of every method with its interval, the methods from top to bottom.

    Parameters
    ----------
    series : dict of name to dict of method to mean
        Such as all clips, and those of a kind: one colour each.
    order : sequence of str
        The methods, the first on top. Those that a series lacks are left out.
    xlabel : str
    palette : dict of name to colour, optional
    ax : Axes, optional
        By default those of a new figure.
    """
    ax, palette = axes_or_new(ax), palette or colours(series)
    for offset, (name, means) in zip(spread(series, 0.22), series.items(), strict=True):
        places = [i for i, method in enumerate(order) if method in means]
        for y in places:
            row = means[order[y]]
            ax.plot([row.low, row.high], [y + offset] * 2, color=palette[name], lw=1.4, solid_capstyle="round")
        values = [means[order[y]].mean for y in places]
        ax.plot(values, np.array(places) + offset, "o", ms=4.5, color=palette[name], label=name)
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(True, axis="x")
    ax.set_xlabel(xlabel)
    return ax


def agreement_map(values: np.ndarray, *, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw correlations of any two methods [shape=(n, n), in [-1, 1]] as a heat map with numbers."""
    ax = axes_or_new(ax)
    numbers = {"annot": True, "fmt": ".1f", "annot_kws": {"fontsize": "xx-small"}}
    axis = {"xticklabels": names, "yticklabels": names, "cbar": False}
    seaborn.heatmap(values, cmap="RdBu_r", vmin=-1, vmax=1, ax=ax, **numbers, **axis)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_xticklabels(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return ax
