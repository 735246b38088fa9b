"""Figures and text of `transferlens.saliency`: the gallery of clips, the summary of scores, and the table as text."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from transferlens.explain.scores import recordings
from transferlens.measures import stats
from transferlens.plots import accuracy, style
from transferlens.plots.accuracy import intervals
from transferlens.plots.spectrogram import attribution_map, spectrogram
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, shortened, span
from transferlens.util.text import table as aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.explain.explanations import Explained
    from transferlens.explain.scores import CascadeRow, SummaryRow


def draw(explained: Sequence[Explained], *, seconds: Sequence[float | None], title: str = "") -> Figure:
    """Draw one row per clip: its log-mel features, and the attributions of every network over them.

    Where the length of a clip [s] is not known (None), its time axis is a share of the clip.
    """
    clips = explained[0].clips
    n = len(clips.ids)
    fig, axes = style.new_figure(
        n, 1 + len(explained), width=2.2 + 2.7 * (1 + len(explained)), height=1.1 + 1.55 * n, sharey=True
    )
    hz = explained[0].run.config.features.mel_frequencies
    for i, row in enumerate(axes):
        for ax in row:
            spectrogram(clips.energy[i], seconds=seconds[i], hz=hz, ax=ax)
        row[0].set_title(f"{shortened(clips.labels[i])}\n{shortened(clips.ids[i])}", fontsize="x-small", loc="left")
        row[0].set_ylabel("mel frequency [Hz]", fontsize="x-small")
        for ax, of_network in zip(row[1:], explained, strict=True):
            attribution_map(of_network.cells[i], seconds=seconds[i], ax=ax)
            ax.set_title(_panel_title(of_network, i), fontsize="x-small", loc="left")
            ax.set_ylabel("")
    for ax, name in zip(axes[0], ("log-mel", *(of_network.name for of_network in explained)), strict=True):
        ax.set_title(f"{name}\n{ax.get_title(loc='left')}", fontsize="x-small", loc="left")
    for ax in axes[-1]:
        known = seconds[-1] is not None
        ax.set_xlabel("time [s]" if known else "time [share of the clip]", fontsize="x-small")
    style.title(fig, f"{title}; red speaks for the target, blue against it (smoothed)")
    return fig


def _panel_title(explained: Explained, i: int) -> str:
    labels = [*map(shortened, explained.run.label_names)]
    target, predicted = explained.targets[i], explained.predicted[i]
    text = f"target {labels[target]}: {100 * explained.probabilities[i]:.0f} %"
    if predicted != target:
        text += f", says {labels[predicted]}"
    error, steps = explained.attribution.error[i], explained.attribution.steps[i]
    return text if np.isnan(error) else f"{text}\nerror {100 * error:.1f} % in {counted(steps, 'step')}"


# Names of the scores in figures.
CLAIMS = {
    "energy_correlation": "follows energy\n(rank correlation)",
    "edge_correlation": "sits on edges\n(rank correlation)",
    "loudest_share": "share in the\nloudest 10 % of cells",
}
CURVES = {"insertion": "insertion (high is good)", "deletion": "deletion (low is good)"}
ANSWERS = {"event_share": "share inside the event", "points_into_event": "strongest cell in the event"}


def draw_summary(table: Sequence[SummaryRow], rows: Sequence[CascadeRow], *, title: str = "") -> Figure:
    """Draw the paper's claims, faithfulness, randomisation and, for the built-in data set, the known answer."""
    known = any(row.score in ANSWERS for row in table)
    fig, axes = style.new_figure(1 + known, 3, width=13, height=4.3 * (1 + known) + 0.6)
    palette = style.colours(row.network for row in table)
    by = {(row.network, row.subset, row.score): row for row in table}
    panel = functools.partial(_draw_scores, by, palette)
    panel(axes[0, 0], CLAIMS, "all", {"_chance": "|"}, title="where attributions lie")
    panel(axes[0, 1], CURVES, "all", {"_random": "x", "_energy": "^"}, title="faithfulness: area under the curve")
    _draw_cascade(axes[0, 2], rows)
    network = next(iter(palette))
    if known:
        for ax, subset in zip(axes[1], ("all", "without distractor", "with distractor"), strict=True):
            about = f"known answer: {subset} clips (n = {by[network, subset, 'event_share'].n})"
            panel(ax, ANSWERS, subset, {"_chance": "|", "_energy": "^"}, title=about)
    words = {"|": "shifted in time", "x": "random order", "^": "by energy"}
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
            for suffix in ("_chance", "_random")
            if (key := (row.network, row.subset, row.score + suffix)) in chances
        )
        numbers = (f"{row.mean:.3f}", span(row.low, row.high, 3), f"{chance:.3f}")
        lines.append((row.network, f"{row.subset} ({row.n})", row.score, *numbers))
    return f"{aligned(lines)}\nintervals over {stats.clips_text(table[0].n, table[0].n_recordings)}"
