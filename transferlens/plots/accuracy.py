"""Accuracies, intervals and curves on Axes.

Accuracies and similarities are given as fractions; accuracies are drawn in per cent. A mean has its 95 % interval
(`measures.stats`), except the mean of a single value. Every function draws on `ax`, by default the Axes of a new
figure, and returns it; `palette` gives each name its colour, by default that of `style.colours`.

* `points_and_means`, `band`, `changes`, `accuracy_against`, `heat_map`: accuracies of arms, and differences of them
* `level_lines`: accuracies that others are compared with
* `against_size`, `stacked_bars`, `reliability_diagram`: ensembles
* `learning_curves`: training
* `similarity_map`: two networks, block by block; `confusion_map`: two classes
* `intervals`, `stages`: scores of attributions, `intervals` of classes, too
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.measures.stats import Interval, fold_interval
from transferlens.plots.fit import LEVEL
from transferlens.plots.style import axes_or_new, colours, halo, score, spread
from transferlens.util.lazy import matplotlib, seaborn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Classes up to which the cells of a confusion matrix have numbers.
MOST_NUMBERS = 15
# Points between two levels below which their names are one text.
CLOSE = 6
# Distance of values from their mean, where each quantity has a row.
BESIDE = 0.08


def heldout() -> str:
    """Return the label of the axis of held-out scores: accuracies, or what `style.scored` names."""
    return f"held-out {score()} [%]"


def _errorbar(ax: Axes, x: float, interval: Interval, **style: Any) -> None:
    low, high = (100 * abs(interval.mean - bound) for bound in (interval.low, interval.high))
    ax.errorbar(x, 100 * interval.mean, yerr=[[low], [high]] if interval.is_bounded else None, **style)


def points_and_means(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    beside: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw every accuracy as a point, with the mean of each arm and its interval; a single value as its mean.

    Parameters
    ----------
    groups : dict of group to dict of arm to sequence of float in [0, 1]
        The groups lie along the x axis, the arms of a group next to each other.
    beside : the same, optional
        A second value of each point, drawn as a hollow point to the right of the first.

    Examples
    --------
    >>> arms = {"pretrained": [0.91, 0.93], "from scratch": [0.70, 0.76]}
    >>> points_and_means({"resnet18": arms}).get_ylabel()
    'held-out accuracy [%]'
    """
    ax = axes_or_new(ax)
    palette = palette or colours(arm for arms in groups.values() for arm in arms)
    step = min(0.36, 0.72 / max(map(len, groups.values())))
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
    ax.set(xlim=(-0.5, len(groups) - 0.5), ylim=(0, 103), ylabel=heldout())
    return ax


def _points(ax: Axes, x: float, values: Sequence[float], colour: tuple, step: float, label: str | None) -> None:
    interval = fold_interval(values)
    if len(values) == 1:  # its mean is the value itself
        _errorbar(ax, x + step / 8, interval, fmt="D", color=colour, ms=6, label=label)
        return
    ax.plot(x + spread(values, step / 8), 100 * np.asarray(values), "o", color=colour, alpha=0.55, ms=4, mew=0)
    _errorbar(ax, x - step / 4, interval, fmt="D", color=colour, ms=6, capsize=4, lw=1.5, label=label)


def band(values: Sequence[float], *, colour: tuple, label: str, line: str = "-", ax: Axes | None = None) -> Axes:
    """Draw the mean of accuracies, fractions, as a line across the Axes and its interval as a band."""
    ax = axes_or_new(ax)
    interval = fold_interval(values)
    ax.axhline(100 * interval.mean, color=colour, lw=1.2, ls=line, zorder=1, label=label)
    if interval.is_bounded:
        look: dict[str, Any] = {"color": colour, "alpha": 0.12, "lw": 0, "zorder": 0, "label": label}
        ax.axhspan(100 * interval.low, 100 * interval.high, **look)
    return ax


def level_lines(
    levels: Mapping[str, float], *, named: bool = True, upright: bool = False, ax: Axes | None = None
) -> Axes:
    """Draw accuracies that all others are compared with, such as chance, as thin lines with their names.

    Parameters
    ----------
    levels : dict of name to float in [0, 1]
    named : bool
        Whether to write the names at the left end of the lines.
    upright : bool
        Whether accuracies are on the x axis; then the lines have no names, which the legend may have.
    """
    ax = axes_or_new(ax)
    ordered = sorted((100 * level, name) for name, level in levels.items())
    words: dict[float, str] = {}  # of those that are close to each other, the upper has all names
    for level, name in ordered:
        (ax.axvline if upright else ax.axhline)(level, color="0.45", lw=0.9, ls=(0, (4, 2)), zorder=1)
        before = [other for other in words if level - other < CLOSE]
        words[level] = "; ".join([f"{name} {level:.1f}\u00a0%", *(words.pop(other) for other in before)])
    for level, text in words.items() if named and not upright else ():
        look: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small", "color": "0.35", "va": "bottom"}
        label = ax.annotate(
            text, (0, level), xycoords=ax.get_yaxis_transform(), xytext=(3, 1), annotation_clip=False, gid=LEVEL, **look
        )
        label.set_in_layout(False)
        label.set_path_effects(halo())
    return ax


def changes(
    intervals: Mapping[str, Sequence[tuple[float, Interval]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw differences of accuracies with their intervals: a full mark where the interval excludes zero.

    Parameters
    ----------
    intervals : dict of arm to sequence of (x, Interval)
        The arms lie next to each other at every x.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(intervals)
    step = 0.36 / len(intervals)
    ax.axhline(0, color="0.4", lw=0.8)
    for j, (arm, points) in enumerate(intervals.items()):
        offset, style = (j - (len(intervals) - 1) / 2) * step, {"fmt": "s", "ms": 5, "capsize": 3, "lw": 1.2}
        for x, interval in points:
            face = palette[arm] if interval.excludes_zero else "white"
            _errorbar(ax, x + offset, interval, color=palette[arm], mfc=face, **style)
    ax.margins(y=0.15)  # marks at the ends stay inside
    ax.set_ylabel("change\n[points]")
    return ax


def accuracy_against(
    points: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]],
    *,
    xlabel: str,
    unnamed: Collection[str] = (),
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw mean accuracies with their intervals against a quantity on a logarithmic axis, each point with its name.

    Parameters
    ----------
    points : dict of arm to dict of point to (x, sequence of float in [0, 1])
        Points of one arm are joined.
    xlabel : str
        The quantity, with its unit.
    unnamed : collection of str
        Arms whose points have no names beside them.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(points)
    for arm, named in points.items():
        intervals = [(x, fold_interval(values)) for x, values in named.values()]
        ax.plot([x for x, _ in intervals], [100 * i.mean for _, i in intervals], color=palette[arm], lw=0.8, label=arm)
        for name, (x, interval) in zip(named, intervals, strict=True):
            _errorbar(ax, x, interval, fmt="D", color=palette[arm], ms=5, capsize=3, lw=1.2)
            if arm not in unnamed:
                top = 100 * np.nanmax([interval.mean, interval.high])
                place: dict[str, Any] = {"xytext": (-2, 4), "textcoords": "offset points", "ha": "right"}
                ax.annotate(name, (x, top), fontsize="small", c=palette[arm], **place)
    ax.set(xscale="log", xmargin=0.35, xlabel=xlabel, ylim=(0, 103))
    ax.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    return ax


def _colour_map(values: np.ndarray, *, xlabel: str, ylabel: str, ax: Axes | None, **kwargs: Any) -> Axes:
    ax = axes_or_new(ax)
    seaborn.heatmap(values, cmap="viridis", annot_kws={"fontsize": "small"}, ax=ax, **kwargs)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
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
    """Draw accuracies as colours and numbers, with the standard error below each.

    Parameters
    ----------
    means, errors : ndarray [shape=(n_rows, n_columns)], fractions
        A mean that is NaN leaves its cell empty, an error that is NaN is left out.
    rows, columns : sequence of str
        Names of the rows and of the columns.
    xlabel, ylabel : str
    limits : tuple of 2 float in [0, 1]
        Accuracies at the ends of the colour scale.
    scale : bool
        Whether to draw the colour scale.
    """
    text = np.empty(means.shape, dtype=object)
    for cell in np.ndindex(means.shape):
        error = "" if np.isnan(errors[cell]) else f"\n± {100 * errors[cell]:.1f}"
        text[cell] = f"{100 * means[cell]:.1f}{error}"
    low, high = limits
    numbers = {"annot": text, "fmt": "", "mask": np.isnan(means), "xticklabels": columns, "yticklabels": rows}
    look = {"vmin": 100 * low, "vmax": 100 * high, "linewidths": 1.5, "cbar": scale, "cbar_kws": {"label": heldout()}}
    ax = _colour_map(100 * means, xlabel=xlabel, ylabel=ylabel, ax=ax, **numbers, **look)
    ax.set_yticklabels(ax.get_yticklabels(), rotation=0)
    return ax


def similarity_map(values: np.ndarray, *, xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Draw similarities in [0, 1] as colours and numbers [shape=(n_rows, n_columns)]."""
    return _colour_map(values, annot=True, fmt=".2f", vmin=0, vmax=1, cbar=False, xlabel=xlabel, ylabel=ylabel, ax=ax)


def confusion_map(counts: np.ndarray, *, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the share of each class (rows) that is classified as each (columns): colours, and numbers for few classes.

    Parameters
    ----------
    counts : ndarray [shape=(n_classes, n_classes)]
        A class without clips has an empty row.
    names : sequence of str
    """
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    few, size = len(names) <= MOST_NUMBERS, "x-small" if len(names) <= MOST_NUMBERS else 4
    numbers = {"annot": few, "fmt": ".0f", "mask": np.isnan(shares) | (few & (shares == 0)), "linewidths": 0.3}
    look = {"vmin": 0, "vmax": 100, "cbar": False, "square": True, "xticklabels": names, "yticklabels": names}
    ax = _colour_map(shares, xlabel="classified as", ylabel="class", ax=ax, **numbers, **look)
    ax.set_facecolor("0.96")
    ax.tick_params(axis="x", labelrotation=90, labelsize=size)
    ax.tick_params(axis="y", labelrotation=0, labelsize=size)
    return ax


def against_size(
    curves: Mapping[str, Sequence[tuple[int, float, float, float]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the accuracy of ensembles against their size: the mean as a line, lowest to highest as a band.

    Parameters
    ----------
    curves : dict of name to sequence of (size, mean, lowest, highest)
        Accuracies as fractions.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(curves)
    for name, points in curves.items():
        size, *values = np.array(points).T
        mean, lowest, highest = 100 * np.array(values)
        ax.fill_between(size, lowest, highest, color=palette[name], alpha=0.15, lw=0)
        ax.plot(size, mean, "o-", color=palette[name], ms=4, lw=1.2, label=name)
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="networks in the ensemble", ylabel=heldout())
    return ax


def stacked_bars(
    names: Sequence[str], parts: Mapping[str, Sequence[float]], *, ylabel: str, ax: Axes | None = None
) -> Axes:
    """Draw one bar per name, its parts on top of each other with their values.

    Parameters
    ----------
    names : sequence of str
    parts : dict of part to sequence of float >= 0 [shape=(len(names),)]
        The first part is at the bottom.
    ylabel : str
    """
    ax, bottom = axes_or_new(ax), np.zeros(len(names))
    for i, (part, values) in enumerate(parts.items()):
        bars = ax.bar(range(len(names)), values, 0.5, bottom=bottom, color=("0.45", "0.75")[i % 2], label=part)
        ax.bar_label(bars, fmt="%.3f", label_type="center", fontsize="small", color=("white", "black")[i % 2])
        bottom += np.asarray(values)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.1 * bottom.max()), ylabel=ylabel)
    return ax


def reliability_diagram(
    curves: Mapping[tuple[str, str], Sequence[tuple[float, float, int]]],
    *,
    least: int = 5,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against confidence; a calibrated network lies on the diagonal.

    Parameters
    ----------
    curves : dict of (name, "single" or "ensemble") to sequence of (confidence, accuracy, n_clips)
        One triple per bin of confidence, fractions; the area of a dot follows n_clips. Single networks are dashed.
    least : int > 0
        Bins of fewer clips are left out.
    """
    ax = axes_or_new(ax)
    palette = palette or colours(name for name, _ in curves)
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    for (name, kind), points in curves.items():
        confidence, right, n = np.array([point for point in points if point[2] >= least]).reshape(-1, 3).T
        line, face = ("--", "white") if kind == "single" else ("-", palette[name])
        ax.plot(confidence, right, line, color=palette[name], lw=1)
        ax.scatter(confidence, right, s=8 + 120 * n / n.sum(), ec=palette[name], fc=face, lw=1, zorder=3)
    right = "accuracy" if score() == "accuracy" else "share of clips that have the class"
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence", ylabel=right)
    return ax


def learning_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    *,
    palette: Mapping[str, tuple] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw held-out accuracy against the epoch: a thin line per run, a thick one for the mean of each arm.

    Parameters
    ----------
    curves : dict of arm to sequence of runs, each a sequence of float in [0, 1]
        All runs of an arm have the same number of epochs.
    """
    ax, palette = axes_or_new(ax), palette or colours(curves)
    for arm, runs_of_arm in curves.items():
        runs, colour = 100 * np.asarray(runs_of_arm), palette[arm]
        epochs = np.arange(1, runs.shape[1] + 1)
        above = 2 + 1 / len(epochs)  # shorter arms lie over longer ones
        look: dict[str, Any] = {"color": colour, "zorder": above, "marker": "o" if len(epochs) == 1 else None}
        ax.plot(epochs, runs.T, **look, alpha=0.3, lw=0.8, ms=3)
        ax.plot(epochs, runs.mean(0), **look, lw=2, ms=5, label=arm)
    ax.locator_params(axis="x", integer=True)
    if max(len(runs_of_arm[0]) for runs_of_arm in curves.values()) == 1:
        ax.set_xticks([1])
    ax.set(xlabel="epoch", ylabel=heldout())
    return ax


def intervals(
    means: Mapping[str, Mapping[str, Any]],
    *,
    palette: Mapping[str, tuple],
    marks: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    dots: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw means with their intervals: a row per quantity, in it a line per series, with other levels as marks.

    Parameters
    ----------
    means : dict of quantity to dict of series to an object with mean, low and high
    palette : dict of series to colour
    marks : dict of marker to dict of quantity to dict of series to float, optional
        Values to compare each mean with, by matplotlib's name of the marker.
    dots : dict of quantity to dict of series to sequence of float, optional
        The values that each mean is of.
    """
    ax = axes_or_new(ax)
    places = {}
    for row, (quantity, by_series) in enumerate(means.items()):
        for offset, (series, interval) in zip(spread(by_series, 0.25), by_series.items(), strict=True):
            y = places[quantity, series] = row + offset
            ax.plot([interval.low, interval.high], [y, y], color=palette[series], lw=2, solid_capstyle="butt")
            ax.plot(interval.mean, y, "o", color=palette[series], ms=5)
            of_mean = (dots or {}).get(quantity, {}).get(series, ())
            if len(of_mean) > 1:  # else the mean is the value itself
                beside = np.full(len(of_mean), y + BESIDE)
                ax.plot(of_mean, beside, "o", color=palette[series], alpha=0.35, ms=3, mew=0)
    for marker, by_quantity in (marks or {}).items():
        for quantity, values in by_quantity.items():
            for series, value in values.items():
                ax.plot(value, places[quantity, series], marker, color=palette[series], mfc="none", ms=7, mew=1.5)
    ax.set_yticks(range(len(means)), list(means), fontsize="small")
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x", color="0.92")
    ax.axvline(0, color="0.7", lw=0.8, zorder=0)
    return ax


def stages(curves: Mapping[str, Mapping[str, Interval]], *, ax: Axes | None = None) -> Axes:
    """Draw means with their intervals along named stages.

    Parameters
    ----------
    curves : dict of name to dict of stage to Interval
        The last curve, in grey, is the level that the others are compared with.
    """
    ax = axes_or_new(ax)
    palette = colours(curves) | {list(curves)[-1]: (0.6, 0.6, 0.6)}
    for name, by_stage in curves.items():
        places = range(len(by_stage))
        mean, low, high = np.array([(i.mean, i.low, i.high) for i in by_stage.values()]).T
        ax.plot(places, mean, "o-", color=palette[name], label=name)
        if np.isfinite(low).all():
            ax.fill_between(places, low, high, color=palette[name], alpha=0.15, lw=0)
        ax.set_xticks(places, list(by_stage), fontsize="small")
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    ax.set(ylim=(None, 1.3), yticks=np.linspace(0, 1, 6))
    ax.legend(frameon=False, fontsize="small", loc="upper left", borderaxespad=0)
    return ax
