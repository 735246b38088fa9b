"""Arrays to Axes, and the one function that writes a figure. Nothing else imports matplotlib or seaborn."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.files import complete_or_absent
from transferlens.lazy import images, matplotlib, scipy, seaborn
from transferlens.stats import Interval, fold_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "accuracy_against",
    "against_size",
    "attribution_image",
    "attribution_map",
    "band",
    "changes",
    "colours",
    "handles",
    "heat_map",
    "intervals",
    "learning_curves",
    "new_figure",
    "new_mosaic",
    "new_parts",
    "points_and_means",
    "reliability_diagram",
    "save_figure",
    "similarity_map",
    "spectrogram",
    "spectrogram_image",
    "stacked_bars",
    "stages",
    "subplots",
]

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


def _axes(ax: Axes | None) -> Axes:
    return new_figure(width=5, height=4)[1][0, 0] if ax is None else ax


def colours(names: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour for each name, told apart by colour-blind readers too."""
    return dict(zip(names, seaborn.color_palette("colorblind", len(names)), strict=True))


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
    ax = _axes(ax)
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
                ax.plot(x + step / 4 + _spread(second, step / 8), second, "o", mfc="none", mec=palette[arm], ms=4)
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_xlim(-0.5, len(groups) - 0.5)
    ax.set_ylim(0, 103)
    ax.set_ylabel("held-out accuracy [%]")
    return ax


def _points(ax: Axes, x: float, values: Sequence[float], colour: tuple, step: float, label: str | None) -> None:
    interval = fold_interval(values)
    ax.plot(x + _spread(values, step / 8), 100 * np.asarray(values), "o", color=colour, alpha=0.55, ms=4, mew=0)
    _errorbar(ax, x - step / 4, interval, fmt="D", color=colour, ms=6, capsize=4, lw=1.5, label=label)


def _errorbar(ax: Axes, x: float, interval: Interval, **style) -> None:
    """A mean with its interval, where it has one."""
    low, high = (100 * abs(interval.mean - bound) for bound in (interval.low, interval.high))
    ax.errorbar(x, 100 * interval.mean, yerr=None if interval.n == 1 else [[low], [high]], **style)


def band(values: Sequence[float], *, colour: tuple, label: str, ax: Axes | None = None) -> Axes:
    """Mean of accuracies as a line across the Axes, and its 95 % interval as a band."""
    ax = _axes(ax)
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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


def _spread(values: Sized, width: float) -> np.ndarray:
    """Horizontal places of points, so that equal ones do not hide each other."""
    return np.linspace(-width, width, len(values)) if len(values) > 1 else np.zeros(1)


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
    ax = _axes(ax)
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
    ax, bottom = _axes(ax), np.zeros(len(names))
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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


# Marks on the mel axis [Hz].
MEL_TICKS = (500, 1000, 2000, 4000, 8000, 16000)
# Share of an attribution's cells that its colours do not saturate.
ROBUST = 0.995
# Deviation of the kernel that attributions are smoothed with [cells].
SMOOTH = 1.5


def _extent(S: np.ndarray, seconds: float | None) -> tuple[float, float, float, float]:
    return 0.0, 1.0 if seconds is None else seconds, -0.5, S.shape[0] - 0.5


def spectrogram(S: np.ndarray, *, seconds: float | None, hz: np.ndarray, ax: Axes | None = None) -> Axes:
    """A log-mel spectrogram in grey, loud cells dark.

    Parameters
    ----------
    S : ndarray [shape=(n_mels, width)]
    seconds : float > 0 [s] or None
        Length of the clip; where it is not known, time is a share of the clip.
    hz : ndarray [shape=(n_mels,)]
        Centres of the mel bands.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = _axes(ax)
    low, high = np.quantile(S, (0.02, 0.998))
    ax.imshow(S, origin="lower", aspect="auto", cmap="Greys", vmin=low, vmax=high, extent=_extent(S, seconds))
    ticks = [tick for tick in MEL_TICKS if hz[0] <= tick <= hz[-1]]
    ax.set_yticks(np.interp(ticks, hz, np.arange(len(hz))), [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize="x-small")
    ax.grid(False)
    return ax


def attribution_map(values: np.ndarray, *, seconds: float | None, ax: Axes | None = None) -> Axes:
    """Attributions over a spectrogram: red for, blue against, the more opaque the stronger; smoothed to be seen.

    Parameters
    ----------
    values : ndarray [shape=(n_mels, width)]
    seconds, ax
        As for `spectrogram`.
    """
    ax = _axes(ax)
    image = _attribution_colours(values)
    ax.imshow(image, origin="lower", aspect="auto", extent=_extent(values, seconds), interpolation="nearest")
    return ax


def _attribution_colours(values: np.ndarray) -> np.ndarray:
    """Red, green, blue and opacity [shape=(n_mels, width, 4)]."""
    values = scipy.ndimage.gaussian_filter(values, SMOOTH)
    limit = np.quantile(np.abs(values), ROBUST) or 1.0
    share = np.clip(values / limit, -1, 1)
    image = matplotlib.colormaps["bwr"](0.5 + share / 2)
    image[..., 3] = np.abs(share) ** 0.6
    return image


def attribution_image(values: np.ndarray) -> str:
    """The same as `attribution_map`, a cell a pixel, as a data URI to be laid over that of `spectrogram_image`."""
    return _data_uri(_attribution_colours(values))


def spectrogram_image(S: np.ndarray) -> str:
    """The same as `spectrogram`, a cell a pixel, without axes, as a data URI."""
    low, high = np.quantile(S, (0.02, 0.998))
    shade = np.clip((S - low) / max(high - low, 1e-9), 0, 1)
    return _data_uri(matplotlib.colormaps["Greys"](shade))


def _data_uri(image: np.ndarray) -> str:
    file = io.BytesIO()
    images.imsave(file, image[::-1], format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


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
    ax = _axes(ax)
    places = {}
    for row, (quantity, by_series) in enumerate(means.items()):
        for offset, (series, each) in zip(_spread(by_series, 0.25), by_series.items(), strict=True):
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
    ax = _axes(ax)
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
