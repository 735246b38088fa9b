"""Accuracy against the number of clips per class, and how many times the clips an arm needs, on Axes.

* `against_clips`: every fold, means and intervals, on a logarithmic axis
* `multiples`: factors on a logarithmic axis, bounds as arrows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.measures.clips_worth import Worth
from transferlens.measures.stats import fold_interval
from transferlens.plots.accuracy import heldout
from transferlens.plots.style import axes_or_new, colours, spread
from transferlens.util.lazy import matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distance of two arms at one number of clips, and of two folds of an arm, as exponents of 2.
APART, JITTER = 0.14, 0.04
MARKS = {"": "s", "more than": "^", "less than": "v"}


def against_clips(
    curves: Mapping[str, Sequence[tuple[float, Sequence[float]]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracies against numbers of clips on a logarithmic axis: every fold, and the mean with its interval.

    Parameters
    ----------
    curves : dict of arm to sequence of (number of clips, sequence of float in [0, 1])
        One accuracy per fold; `stats.Folds` know how the data were split.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(curves)
    for (arm, curve), offset in zip(curves.items(), _offsets(len(curves)), strict=True):
        places = [clips * 2**offset for clips, _ in curve]
        for x, (_, values) in zip(places, curve, strict=True):
            around = x * 2 ** spread(values, JITTER)
            ax.plot(around, 100 * np.asarray(values), "o", color=palette[arm], alpha=0.45, ms=3, mew=0)
        intervals = [fold_interval(values) for _, values in curve]
        means = 100 * np.array([interval.mean for interval in intervals])
        bounds = 100 * np.array([(interval.low, interval.high) for interval in intervals]).T
        errors = np.nan_to_num(np.abs(bounds - means))
        look: dict[str, Any] = {"fmt": "D-", "ms": 4.5, "capsize": 3, "lw": 1.3, "elinewidth": 1.1}
        ax.errorbar(places, means, yerr=errors, color=palette[arm], label=arm, **look)
    ax.set(ylabel=heldout(), ylim=(0, 103))
    _ticks(ax, [clips for curve in curves.values() for clips, _ in curve])
    return ax


def _offsets(n: int) -> np.ndarray:
    return (np.arange(n) - (n - 1) / 2) * APART


def _ticks(ax: Axes, numbers: Sequence[float]) -> None:
    """Put ticks at the numbers of clips, on a logarithmic axis."""
    places = sorted({*numbers})
    ax.set_xscale("log", base=2)
    ax.set_xticks(places, [f"{place:.3g}" for place in places])
    ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    ax.set_xlim(places[0] / 2**0.6, places[-1] * 2**0.6)


def multiples(
    factors: Mapping[str, Sequence[tuple[float, Worth]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw factors against numbers of clips, both on logarithmic axes: with intervals, or as the arrow of a bound.

    Parameters
    ----------
    factors : dict of arm to sequence of (number of clips, Worth)
        Those that are not known are left out.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(factors)
    ax.axhline(1, color="0.4", lw=0.8)
    for (arm, points), offset in zip(factors.items(), _offsets(len(factors)), strict=True):
        for clips, worth in points:
            if worth.bound not in MARKS:
                continue
            x, y = clips * 2**offset, worth.factor
            errors = None if np.isnan(worth.low) else [[y - worth.low], [worth.high - y]]
            face = "white" if worth.bound else palette[arm]
            look: dict[str, Any] = {"fmt": MARKS[worth.bound], "ms": 6, "capsize": 3, "lw": 1.2, "mfc": face}
            ax.errorbar(x, y, yerr=errors, color=palette[arm], **look)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.margins(y=0.15)
    _ticks(ax, [clips for points in factors.values() for clips, _ in points])
    return ax
