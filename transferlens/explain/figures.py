"""Figures and text of `transferlens.saliency`: the gallery of clips, the summary of scores, and the table as text."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.explain.class_maps import class_maps
from transferlens.explain.scores import recordings
from transferlens.measures import stats
from transferlens.plots import accuracy, style
from transferlens.plots.accuracy import intervals
from transferlens.plots.spectrogram import (
    AGAINST,
    FOR,
    KNOWN,
    MASSES,
    OPACITIES,
    band_profile,
    evidence,
    outline,
    spectrogram,
)
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, shortened, span
from transferlens.util.text import table as aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.explain.class_maps import ProfileRow
    from transferlens.explain.explanations import Clips, Explained
    from transferlens.explain.scores import CascadeRow, SummaryRow


# Opacity of a spectrogram below evidence.
UNDER = 0.6
# Colours of what a network says.
RIGHT, WRONG = "#0a6b2d", "#b00020"
# Movement of a map above which a panel says so.
UNSETTLED = 0.2
# Letters of a clip's name in its panel.
LETTERS = 38


def draw(explained: Sequence[Explained], *, seconds: Sequence[float | None], title: str = "") -> Figure:
    """Draw one row per clip: its log-mel features, and what every network uses of them.

    Where the length of a clip [s] is not known (None), its time axis is a share of the clip.
    """
    clips = explained[0].clips
    n, columns = len(clips.ids), 1 + len(explained)
    fig, axes = style.new_figure(n, columns, width=0.8 + 3.5 * columns, height=1.2 + 2.6 * n, sharey=True)
    hz = explained[0].run.config.features.mel_frequencies
    for i, row in enumerate(axes):
        spectrogram(clips.energy[i], seconds=seconds[i], hz=hz, ax=row[0])
        _title(row[0], _clip_title(clips, i), "black")
        row[0].set_ylabel("mel frequency [Hz]", fontsize="small")
        for ax, of_network in zip(row[1:], explained, strict=True):
            spectrogram(clips.energy[i], seconds=seconds[i], hz=hz, opacity=UNDER, ax=ax)
            evidence(of_network.maps[i], seconds=seconds[i], ax=ax)
            _title(ax, *_panel_title(of_network, i))
        if clips.masks is not None:
            for ax in row:
                outline(clips.masks[i], seconds=seconds[i], ax=ax)
    for ax, name in zip(axes[0], ("the clip", *(of_network.name for of_network in explained)), strict=True):
        ax.annotate(name, (0, 1), (0, 22), "axes fraction", "offset points", fontsize="medium", weight="bold")
    for ax in axes[-1]:
        ax.set_xlabel("time [s]" if seconds[-1] is not None else "time [share of the clip]", fontsize="small")
    shown = explained[0].shown
    handles = _legend(shown.sign, is_known=clips.masks is not None)
    fig.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    style.title(fig, f"{title} ({shown.words})")
    return fig


# Classes that are drawn, at most.
MOST_CLASSES = 10


def draw_classes(
    explained: Sequence[Explained], rows: Sequence[ProfileRow], *, seconds: float | None, title: str = ""
) -> Figure:
    """Draw one row per class: what each network uses of its clips, their mean aligned in time, and over frequency."""
    labels = sorted(set(explained[0].clips.labels))
    drawn = labels[:MOST_CLASSES]
    maps = {(each.network, each.label): each for each in class_maps(explained, drawn)}
    palette = style.colours(of_network.name for of_network in explained)
    n, columns = len(drawn), len(explained) + 1
    fig, axes = style.new_figure(n, columns, width=0.8 + 3.1 * columns, height=1.3 + 1.75 * n, sharey=True)
    hz = explained[0].run.config.features.mel_frequencies
    profiles = group_by(rows, attrgetter("network", "label"))
    for label, row in zip(drawn, axes, strict=True):
        for ax, name in zip(row, palette, strict=False):
            mean = maps[name, label]
            spectrogram(mean.S, seconds=seconds, hz=hz, opacity=UNDER, ax=ax)
            evidence(np.nan_to_num(np.maximum(mean.cells, 0)), seconds=seconds, ax=ax)
            band_profile(profiles[name, label], colour=palette[name], ax=row[-1])
        row[0].set_title(f"{shortened(label)} ({counted(maps[name, label].n, 'clip')})", fontsize="small", loc="left")
        row[0].set_ylabel("mel frequency [Hz]", fontsize="small")
    for ax, name in zip(axes[0], (*palette, "share by frequency"), strict=True):
        ax.annotate(name, (0, 1), (0, 22), "axes fraction", "offset points", fontsize="medium", weight="bold")
    for ax in axes[-1, :-1]:
        ax.set_xlabel("time, aligned [s]" if seconds is not None else "time, aligned", fontsize="small")
    axes[-1, -1].set_xlabel("share of the evidence [%]", fontsize="small")
    sign = "absolute" if explained[0].shown.sign == "absolute" else "positive"  # what speaks against is not drawn
    handles = [*_legend(sign, is_known=False), *style.lines(palette.items())]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    left_out = f"; the first {len(drawn)} of {len(labels)} classes" if len(drawn) < len(labels) else ""
    style.title(fig, f"{title}: means over the clips of a class{left_out}")
    return fig


def _title(ax: Axes, words: str, colour: str) -> None:
    ax.set_title(words, fontsize="small", loc="left", color=colour)


def _clip_title(clips: Clips, i: int) -> str:
    """Return the class of a clip, and the end of its name, which tells more than its folder."""
    name, label = clips.ids[i], shortened(clips.labels[i], LETTERS // 2)
    room = LETTERS - len(label)
    return f"{label}  ({shortened(PurePath(name).name, room)})"


def _panel_title(explained: Explained, i: int) -> tuple[str, str]:
    """Return what a network says of a clip, and the colour of the words: green if it is right."""
    labels = [shortened(name, LETTERS // 2) for name in explained.run.label_names]
    target, predicted = explained.targets[i], explained.predicted[i]
    share = f"{100 * explained.probabilities[i]:.0f} %"
    words = f"says {labels[predicted]}"
    words += f" ({share})" if predicted == target else f" ({labels[target]}: {share})"
    words += ", map not settled" * bool(explained.attribution.movement[i] > UNSETTLED)
    return words, RIGHT if explained.is_right(i) else WRONG


def _legend(sign: str, *, is_known: bool) -> list[Any]:
    """Return what the regions and lines of the gallery mean."""
    what = "speaks for or against the target" if sign == "absolute" else "speaks for the target"
    regions = [(f"holds {100 * share:.0f} % of what {what}", o) for share, o in zip(MASSES, OPACITIES, strict=True)]
    lines = [("speaks against it", AGAINST)] if sign == "signed" else []
    lines += [("where the evidence is", KNOWN)] if is_known else []
    return [*style.areas(FOR, regions[::-1]), *style.lines(lines)]


# Names of the scores in figures.
CLAIMS = {
    "energy_correlation": "follows energy\n(rank correlation)",
    "edge_correlation": "sits on edges\n(rank correlation)",
    "loudest_share": "share in the\nloudest 10 % of cells",
}
CURVES = {"insertion": "insertion (high is good)", "deletion": "deletion (low is good)"}
CONTROL_MARKS = {"_shifted": "|", "_random": "x", "_energy": "^"}
ANSWERS = {
    "average_precision": "finds the event\n(average precision)",
    "event_share": "share inside\nthe event",
    "points_into_event": "strongest cell\nin the event",
}


def draw_summary(table: Sequence[SummaryRow], rows: Sequence[CascadeRow], *, title: str = "") -> Figure:
    """Draw the paper's claims, faithfulness, randomisation and, for the built-in data set, the known answer."""
    known = any(row.score in ANSWERS for row in table)
    fig, axes = style.new_figure(1 + known, 3, width=13, height=4.3 * (1 + known) + 0.6)
    palette = style.colours(row.network for row in table)
    by = {(row.network, row.subset, row.score): row for row in table}
    panel = functools.partial(_draw_scores, by, palette)
    panel(axes[0, 0], CLAIMS, "all", {"_chance": "|"}, title="where attributions lie")
    panel(axes[0, 1], CURVES, "all", CONTROL_MARKS, title="faithfulness: area under the curve")
    _draw_cascade(axes[0, 2], rows)
    network = next(iter(palette))
    if known:
        subsets = list(dict.fromkeys(row.subset for row in table))
        for ax in axes[1, len(subsets) :]:
            ax.set_axis_off()
        for ax, subset in zip(axes[1], subsets, strict=False):
            about = f"known answer: {subset} clips (n = {by[network, subset, 'event_share'].n})"
            panel(ax, ANSWERS, subset, {"_chance": "|", "_energy": "^"}, title=about)
    words = {"|": "shifted in time", "x": "random patches", "^": "by energy"}
    marks = {text: style.mark(marker, hollow=True) for marker, text in words.items()}
    style.legend_below(fig, dict(zip(palette, style.handles(palette), strict=True)), marks=marks)
    row = by[network, "all", "insertion"]
    about = f"means over {stats.clips_text(row.n, row.n_recordings)}{', 95 % intervals' if row.n > 1 else ''}"
    style.title(fig, f"{title}: {about}")
    return fig


def _draw_scores(
    by: Mapping[tuple[str, str, str], SummaryRow],
    palette: Mapping[str, tuple],
    ax: Axes,
    names: Mapping[str, str],
    subset: str,
    marks: Mapping[str, str],
    *,
    title: str,
) -> None:
    """Draw scores with their intervals; the levels to compare with, named by suffixes, are marks."""

    def rows(suffix: str = "") -> dict[str, dict[str, SummaryRow]]:
        return {label: {net: by[net, subset, name + suffix] for net in palette} for name, label in names.items()}

    levels = {
        mark: {label: {net: row.mean for net, row in of_score.items()} for label, of_score in rows(suffix).items()}
        for suffix, mark in marks.items()
    }
    intervals(rows(), marks=levels, palette=palette, ax=ax)
    ax.set_title(title, fontsize="small", loc="left")


def _draw_cascade(ax: Axes, rows: Sequence[CascadeRow]) -> None:
    """Draw the similarity of attributions as more and more blocks are randomised."""
    stages = group_by(rows, attrgetter("randomised_through"))

    def mean(name: str, group: Sequence[CascadeRow]) -> stats.Interval:
        values = [getattr(row, name) for row in group]
        return stats.mean_interval(values, bounds=(-1.0, 1.0), groups=recordings(group))

    curves = {"magnitude": "magnitude", "signed": "signed", "magnitude, shifted in time": "chance"}
    means = {label: {stage: mean(name, rows) for stage, rows in stages.items()} for label, name in curves.items()}
    accuracy.stages(means, ax=ax)
    n = counted(len({row.clip for row in rows}), "clip")
    ax.set_title(f"randomised from the top ({n})", fontsize="small", loc="left")
    ax.set_ylabel("rank correlation with trained")


def text(table: Sequence[SummaryRow]) -> str:
    """Return the means with intervals and chance levels as a table."""
    shown = [row for row in table if row.score in {**CLAIMS, **CURVES, **ANSWERS}]
    chances = {(row.network, row.subset, row.score): row.mean for row in table}
    lines = [("network", "clips", "score", "mean", "95 % interval", "chance")]
    for row in shown:
        chance = next(
            chances[key]
            for suffix in ("_chance", "_shifted")
            if (key := (row.network, row.subset, row.score + suffix)) in chances
        )
        numbers = (f"{row.mean:.3f}", span(row.low, row.high, 3), f"{chance:.3f}")
        lines.append((row.network, f"{row.subset} ({row.n})", row.score, *numbers))
    return f"{aligned(lines)}\nintervals over {stats.clips_text(table[0].n, table[0].n_recordings)}"
