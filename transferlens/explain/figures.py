"""How `transferlens.saliency` shows what it found: the gallery of clips, the summary, and the table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.measures import stats
from transferlens.plots import accuracy, style
from transferlens.plots.accuracy import intervals
from transferlens.plots.spectrogram import attribution_map, spectrogram
from transferlens.util.text import table as aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from transferlens.explain.explanations import Explained
    from transferlens.explain.scores import CascadeRow, SummaryRow

__all__ = ["draw", "draw_summary", "text"]


def draw(explained: Sequence[Explained], *, seconds: Sequence[float | None], title: str = "") -> Figure:
    """A row a clip: its log-mel, and every network's attribution over it.

    Parameters
    ----------
    explained : sequence of Explained
        Networks, all with the same clips.
    seconds : sequence of float > 0 [s] or None
        Length of each clip; where it is not known, time is a share of the clip.
    title : str
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
        row[0].set_title(f"{clips.labels[i]}\n{clips.ids[i]}", fontsize="x-small", loc="left")
        row[0].set_ylabel("mel frequency [Hz]", fontsize="x-small")
        for ax, found in zip(row[1:], explained, strict=True):
            attribution_map(found.cells[i], seconds=seconds[i], ax=ax)
            ax.set_title(_panel_title(found, i), fontsize="x-small", loc="left")
            ax.set_ylabel("")
    for ax, name in zip(axes[0], ("log-mel", *(found.name for found in explained)), strict=True):
        ax.set_title(f"{name}\n{ax.get_title(loc='left')}", fontsize="x-small", loc="left")
    for ax in axes[-1]:
        known = seconds[-1] is not None
        ax.set_xlabel("time [s]" if known else "time [share of the clip]", fontsize="x-small")
    fig.suptitle(
        f"{title}; red speaks for the target, blue against it (smoothed)", x=0.01, ha="left", fontsize="medium"
    )
    return fig


def _panel_title(found: Explained, i: int) -> str:
    labels = found.run.label_names
    text = f"target {labels[found.targets[i]]}: {100 * found.probabilities[i]:.0f} %"
    if found.predicted[i] != found.targets[i]:
        text += f", says {labels[found.predicted[i]]}"
    error = found.attribution.error[i]
    return text if np.isnan(error) else f"{text}\nerror {100 * error:.1f} % in {found.attribution.steps[i]} steps"


CLAIMS = {
    "energy_correlation": "follows energy\n(rank correlation)",
    "edge_correlation": "sits on edges\n(rank correlation)",
    "loudest_share": "share in the\nloudest 10 % of cells",
}
CURVES = {"insertion": "insertion (high is good)", "deletion": "deletion (low is good)"}
ANSWERS = {"event_share": "share inside the event", "points_into_event": "strongest cell in the event"}


def draw_summary(table: Sequence[SummaryRow], rows: Sequence[CascadeRow], *, title: str = "") -> Figure:
    """The paper's claims, faithfulness, randomisation and, of the built-in set, the known answer."""
    known = any(row.score in ANSWERS for row in table)
    fig, axes = style.new_figure(1 + known, 3, width=13, height=4.3 * (1 + known) + 0.6)
    palette = style.colours(list(dict.fromkeys(row.network for row in table)))
    by = {(row.network, row.subset, row.score): row for row in table}
    first = axes[0]

    def dots(names: dict[str, str], subset: str, marks: dict[str, str], ax: Any) -> None:
        intervals(
            {text: {network: by[network, subset, name] for network in palette} for name, text in names.items()},
            marks={
                mark: {
                    text: {net: by[net, subset, name + suffix].mean for net in palette} for name, text in names.items()
                }
                for suffix, mark in marks.items()
            },
            palette=palette,
            ax=ax,
        )

    dots(CLAIMS, "all", {"_chance": "|"}, first[0])
    first[0].set_title("where attributions lie", fontsize="small", loc="left")
    dots(CURVES, "all", {"_random": "x", "_energy": "^"}, first[1])
    first[1].set_title("faithfulness: area under the curve", fontsize="small", loc="left")
    accuracy.stages(
        {
            "magnitude": _by_stage(rows, "magnitude"),
            "signed": _by_stage(rows, "signed"),
            "magnitude, shifted in time": _by_stage(rows, "chance"),
        },
        ax=first[2],
    )
    n_drawn = len({row.clip for row in rows})
    about = f"randomised from the top ({n_drawn} clips)"
    first[2].set_title(about, fontsize="small", loc="left")
    first[2].set_ylabel("rank correlation with trained")
    if known:
        for ax, subset in zip(axes[1], ("all", "without distractor", "with distractor"), strict=True):
            dots(ANSWERS, subset, {"_chance": "|", "_energy": "^"}, ax)
            n = by[next(iter(palette)), subset, "event_share"].n
            ax.set_title(f"known answer: {subset} clips (n = {n})", fontsize="small", loc="left")
    fig.legend(handles=style.handles(palette), loc="outside lower center", ncols=len(palette), frameon=False)
    n = by[next(iter(palette)), "all", "insertion"].n
    marks = "| shifted in time, x random order, ^ by energy"
    fig.suptitle(f"{title}: means over {n} clips, 95 % intervals; {marks}", x=0.01, ha="left", fontsize="medium")
    return fig


def _by_stage(rows: Sequence[CascadeRow], name: str) -> dict[str, stats.Interval]:
    stages = dict.fromkeys(row.randomised_through for row in rows)
    return {
        stage: stats.mean_interval(
            [getattr(row, name) for row in rows if row.randomised_through == stage], bounds=(-1.0, 1.0)
        )
        for stage in stages
    }


def text(table: Sequence[SummaryRow]) -> str:
    """Means with intervals and chance levels, a line each."""
    shown = [row for row in table if row.score in {**CLAIMS, **CURVES, **ANSWERS}]
    chances = {(row.network, row.subset, row.score): row.mean for row in table}
    lines = [("network", "clips", "score", "mean", "95 % interval", "chance")]
    for row in shown:
        chance = next(
            chances[key]
            for suffix in ("_chance", "_random")
            if (key := (row.network, row.subset, row.score + suffix)) in chances
        )
        span = f"{row.low:.3f} to {row.high:.3f}"
        lines.append((row.network, f"{row.subset} ({row.n})", row.score, f"{row.mean:.3f}", span, f"{chance:.3f}"))
    return aligned(lines)
