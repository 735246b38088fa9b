"""Accuracies, intervals and curves on Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.measures.stats import Interval, fold_interval
from transferlens.plots.style import axes_or_new, colours, spread
from transferlens.util.lazy import matplotlib, seaborn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "accuracy_against",
    "against_size",
    "band",
    "changes",
    "heat_map",
    "intervals",
    "learning_curves",
    "points_and_means",
    "reliability_diagram",
    "similarity_map",
    "stacked_bars",
    "stages",
]


def points_and_means(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    beside: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracies as points, with the mean and its 95 % interval, for the arms of each group.

    Parameters
    ----------
    groups : dict of group to dict of arm to sequence of float in [0, 1]
        Groups stand along the axis, arms beside each other in every group.
    beside : the same, optional
        A second value of each point, drawn as hollow points to the right of the first.
    palette : dict of arm to colour, optional
        By default `colours` of the arms.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(list(dict.fromkeys(arm for values in groups.values() for arm in values)))
    step = min(0.36, 0.8 / max(map(len, groups.values())))
    labelled: set[str] = set()
    for i, (group, arms) in enumerate(groups.items()):
        for j, (arm, values) in enumerate(arms.items()):
            x = i + (j - (len(arms) - 1) / 2) * step
            _points(ax, x - step / 8, values, palette[arm], step, label=None if arm in labelled else arm)
            labelled.add(arm)
            if beside is not None:
                second = 100 * np.asarray(beside[group][arm])
                ax.plot(x + step / 4 + spread(second, step / 8), second, "o", mfc="none", mec=palette[arm], ms=4)
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_xlim(-0.5, len(groups) - 0.5)
    ax.set_ylim(0, 103)
    ax.set_ylabel("held-out accuracy [%]")
    return ax


def _points(ax: Axes, x: float, values: Sequence[float], colour: tuple, step: float, label: str | None) -> None:
    interval = fold_interval(values)
    ax.plot(x + spread(values, step / 8), 100 * np.asarray(values), "o", color=colour, alpha=0.55, ms=4, mew=0)
    _errorbar(ax, x - step / 4, interval, fmt="D", color=colour, ms=6, capsize=4, lw=1.5, label=label)


def _errorbar(ax: Axes, x: float, interval: Interval, **style) -> None:
    """A mean with its interval, where it has one."""
    low, high = (100 * abs(interval.mean - bound) for bound in (interval.low, interval.high))
    ax.errorbar(x, 100 * interval.mean, yerr=None if interval.n == 1 else [[low], [high]], **style)


def band(values: Sequence[float], *, colour: tuple, label: str, ax: Axes | None = None) -> Axes:
    """Mean of accuracies as a line across the Axes, and its 95 % interval as a band."""
    ax = axes_or_new(ax)
    interval = fold_interval(values)
    ax.axhline(100 * interval.mean, color=colour, lw=1.2, zorder=1, label=label)
    if interval.n > 1:
        ax.axhspan(100 * interval.low, 100 * interval.high, color=colour, alpha=0.12, lw=0, zorder=0)
    return ax


def changes(
    intervals: Mapping[str, Sequence[tuple[float, Interval]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Differences of accuracies with their intervals, around zero: a full mark where the interval excludes it.

    Parameters
    ----------
    intervals : dict of arm to sequence of (x, Interval)
        Arms stand beside each other.
    palette : dict of arm to colour, optional
        By default `colours` of the arms.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(list(intervals))
    step = 0.36 / len(intervals)
    ax.axhline(0, color="0.4", lw=0.8)
    for j, (arm, each) in enumerate(intervals.items()):
        for x, interval in each:
            _errorbar(
                ax,
                x + (j - (len(intervals) - 1) / 2) * step,
                interval,
                fmt="s",
                color=palette[arm],
                mfc=palette[arm] if interval.excludes_zero else "white",
                ms=5,
                capsize=3,
                lw=1.2,
            )
    ax.set_ylabel("change\n[points]")
    return ax


def accuracy_against(
    points: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]],
    *,
    xlabel: str,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean accuracy and 95 % interval against a quantity on a logarithmic axis, each point named.

    Parameters
    ----------
    points : dict of arm to dict of point to (x, sequence of float in [0, 1])
        Points of one arm are joined.
    xlabel : str
        The quantity, with its unit.
    palette : dict of arm to colour, optional
        By default `colours` of the arms.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(list(points))
    for arm, named in points.items():
        intervals = [(x, fold_interval(values)) for x, values in named.values()]
        ax.plot([x for x, _ in intervals], [100 * i.mean for _, i in intervals], color=palette[arm], lw=0.8, label=arm)
        for name, (x, interval) in zip(named, intervals, strict=True):
            _errorbar(ax, x, interval, fmt="D", color=palette[arm], ms=5, capsize=3, lw=1.2)
            top = 100 * np.nanmax([interval.mean, interval.high])
            ax.annotate(
                name, (x, top), xytext=(-2, 4), textcoords="offset points", ha="right", fontsize="small", c=palette[arm]
            )
    ax.set_xscale("log")
    ax.set_xmargin(0.35)
    ax.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.set_ylim(0, 103)
    ax.set_xlabel(xlabel)
    return ax


def heat_map(
    means: np.ndarray,
    errors: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float],
    scale: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Accuracies as colours and numbers, with the standard error below each; NaN leaves a cell empty.

    Parameters
    ----------
    means, errors : ndarray [shape=(n_rows, n_columns)], fractions
    rows, columns : sequence of str
        Names of both axes' cells.
    xlabel, ylabel : str
    limits : tuple of float
        Accuracies at the ends of the colour scale.
    scale : bool
        Whether to draw it.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    text = np.empty(means.shape, dtype=object)
    for cell in np.ndindex(means.shape):
        error = "" if np.isnan(errors[cell]) else f"\n± {100 * errors[cell]:.1f}"
        text[cell] = f"{100 * means[cell]:.1f}{error}"
    seaborn.heatmap(
        100 * means,
        annot=text,
        fmt="",
        mask=np.isnan(means),
        vmin=100 * limits[0],
        vmax=100 * limits[1],
        cmap="viridis",
        linewidths=1.5,
        xticklabels=columns,
        yticklabels=rows,
        annot_kws={"fontsize": "small"},
        cbar=scale,
        cbar_kws={"label": "held-out accuracy [%]"},
        ax=ax,
    )
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_yticklabels(ax.get_yticklabels(), rotation=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return ax


def against_size(
    curves: Mapping[str, Sequence[tuple[int, float, float, float]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against the number of members: the mean, and the lowest and highest as a band.

    Parameters
    ----------
    curves : dict of name to sequence of (size, mean, lowest, highest)
        Accuracies as fractions.
    palette : dict of name to colour, optional
    ax : Axes, optional
    """
    ax = axes_or_new(ax)
    palette = palette or colours(list(curves))
    for name, points in curves.items():
        size, *values = np.array(points).T
        mean, lowest, highest = 100 * np.array(values)
        ax.fill_between(size, lowest, highest, color=palette[name], alpha=0.15, lw=0)
        ax.plot(size, mean, "o-", color=palette[name], ms=4, lw=1.2, label=name)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("networks in the ensemble")
    ax.set_ylabel("held-out accuracy [%]")
    return ax


def stacked_bars(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], *, ylabel: str, ax: Axes | None = None
) -> Axes:
    """A bar for each name, its parts on top of each other with their values."""
    ax, bottom = axes_or_new(ax), np.zeros(len(names))
    for i, (part, values) in enumerate(parts.items()):
        bars = ax.bar(range(len(names)), values, 0.5, bottom=bottom, color=("0.45", "0.75")[i % 2], label=part)
        ax.bar_label(bars, fmt="%.3f", label_type="center", fontsize="small", color=("white", "black")[i % 2])
        bottom += np.asarray(values)
    ax.set_xticks(range(len(names)), names)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(0, 1.2 * bottom.max())
    ax.set_ylabel(ylabel)
    ax.legend(loc="upper right", frameon=False, fontsize="small", ncols=len(parts))
    return ax


def reliability_diagram(
    curves: Mapping[tuple[str, str], Sequence[tuple[float, float, int]]],
    *,
    least: int = 5,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against confidence: on the diagonal confidence can be believed.

    Parameters
    ----------
    curves : dict of (name, "single" or "ensemble") to sequence of (confidence, accuracy, n_clips)
        The areas of the dots follow n_clips; bins of fewer than `least` are left out. Singles are dashed.
    least : int > 0
    palette : dict of name to colour, optional
    ax : Axes, optional
    """
    ax = axes_or_new(ax)
    palette = palette or colours(list(dict.fromkeys(name for name, _ in curves)))
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    for (name, who), points in curves.items():
        confidence, right, n = np.array([point for point in points if point[2] >= least]).reshape(-1, 3).T
        line, face = ("--", "white") if who == "single" else ("-", palette[name])
        ax.plot(confidence, right, line, color=palette[name], lw=1)
        ax.scatter(confidence, right, s=8 + 120 * n / n.sum(), ec=palette[name], fc=face, lw=1, zorder=3)
    ax.set_xlim(0, 1.03)
    ax.set_ylim(0, 1.03)
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    return ax


def learning_curves(curves: Mapping[str, Sequence[Sequence[float]]], *, ax: Axes | None = None) -> Axes:
    """Held-out accuracy against the epoch: a thin line a run, a thick one for the mean of an arm.

    Parameters
    ----------
    curves : dict of arm to sequence of runs, each a sequence of float in [0, 1]
        The runs of one arm have one length.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    for arm, colour in colours(list(curves)).items():
        runs = 100 * np.asarray(curves[arm])
        epochs = np.arange(1, runs.shape[1] + 1)
        above = 2 + 1 / len(epochs)  # shorter arms lie over longer ones
        ax.plot(epochs, runs.T, color=colour, alpha=0.3, lw=0.8, zorder=above)
        ax.plot(epochs, runs.mean(0), color=colour, lw=2, label=arm, zorder=above)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("held-out accuracy [%]")
    return ax


def similarity_map(values: np.ndarray, *, xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Similarities in [0, 1] as colours and numbers [shape=(n_rows, n_columns)]."""
    ax = axes_or_new(ax)
    seaborn.heatmap(
        values,
        annot=True,
        fmt=".2f",
        vmin=0,
        vmax=1,
        cmap="viridis",
        cbar=False,
        annot_kws={"fontsize": "small"},
        ax=ax,
    )
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    return ax


def intervals(
    means: Mapping[str, Mapping[str, Any]],
    *,
    marks: Mapping[str, Mapping[str, Mapping[str, float]]],
    palette: Mapping[str, tuple],
    ax: Axes | None = None,
) -> Axes:
    """Means with their intervals, a row a quantity, and within it a line a series; other levels as marks beside them.

    Parameters
    ----------
    means : dict of quantity to dict of series to an object with mean, low and high
    marks : dict of marker to dict of quantity to dict of series to float
    palette : dict of series to colour
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    places = {}
    for row, (quantity, by_series) in enumerate(means.items()):
        for offset, (series, each) in zip(spread(by_series, 0.25), by_series.items(), strict=True):
            y = places[quantity, series] = row + offset
            colour = palette[series]
            ax.plot([each.low, each.high], [y, y], color=colour, lw=2, solid_capstyle="butt")
            ax.plot(each.mean, y, "o", color=colour, ms=5)
    for marker, by_quantity in marks.items():
        for quantity, by_series in by_quantity.items():
            for series, value in by_series.items():
                ax.plot(value, places[quantity, series], marker, color=palette[series], mfc="none", ms=7, mew=1.5)
    ax.set_yticks(range(len(means)), list(means), fontsize="small")
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x", color="0.92")
    ax.axvline(0, color="0.7", lw=0.8, zorder=0)
    return ax


def stages(curves: Mapping[str, Mapping[str, Interval]], *, ax: Axes | None = None) -> Axes:
    """Means with their intervals along named stages; the last curve, the level to compare with, in grey."""
    ax = axes_or_new(ax)
    palette = colours(list(curves)) | {list(curves)[-1]: (0.6, 0.6, 0.6)}
    for label, by_stage in curves.items():
        places, each = range(len(by_stage)), list(by_stage.values())
        low, high = ([getattr(interval, name) for interval in each] for name in ("low", "high"))
        ax.plot(places, [interval.mean for interval in each], "o-", color=palette[label], label=label)
        if np.isfinite(low).all():
            ax.fill_between(places, low, high, color=palette[label], alpha=0.15, lw=0)
        ax.set_xticks(places, list(by_stage), fontsize="small")
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    ax.set_ylim(top=1.3)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(frameon=False, fontsize="small", loc="upper left", borderaxespad=0)
    return ax
