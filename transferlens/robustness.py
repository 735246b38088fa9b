"""Are ensembles more robust? Accuracy of single networks and ensembles on corrupted held-out clips.

The abstract of Palanisamy, Singhania and Yao (2020) says so, but the paper only reports clean clips. Here each run
classifies its held-out clips again after noise, gain, low-pass filtering, clipping or a shift in time, of several
strengths (`transferlens.features.corruptions`). The networks were not trained on corrupted clips.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens import cli
from transferlens.compare import finished, question
from transferlens.compare.conditions import CLEAN, KNOWN, Condition, corrupted
from transferlens.compare.ensembles import Members, gather, macro_f1
from transferlens.data.catalogue import DataOptions
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.measures import predictions, stats
from transferlens.measures.classes import IF_UNEVEN
from transferlens.models.device import pick_device
from transferlens.options import FigureOptions
from transferlens.plots import style
from transferlens.plots.accuracy import heldout, level_lines
from transferlens.store.rows import levels
from transferlens.store.run import Run, check_alike, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.util.fields import Fields
from transferlens.util.grouping import group_by
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted, span, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Compare the accuracy of single networks and of their ensembles on corrupted held-out clips."""

    ckpt: tuple[Path, ...]
    """Run files of one data set, two or more per held-out fold."""
    corruption: Annotated[tuple[str, ...], KNOWN] = tuple(CORRUPTIONS)
    """Corruptions of the clips: noise, gain, low-pass, clipping, shift."""
    soup: bool = False
    """Also the average of the weights of the members of one backbone: one network, with BatchNorm statistics estimated
    anew on training clips, which are not corrupted."""
    data: DataOptions = DataOptions()
    execution: DeviceOptions = DeviceOptions()
    output: FigureOptions = FigureOptions()


@dataclass(frozen=True)
class Row:
    """One ensemble under one corruption in the CSV; accuracies are fractions of the clips of all folds.

    `single` is the mean of the members, `gain` is the ensemble minus `single`, and `more_than_clean` is this gain minus
    that on clean clips, clip by clip: above 0, the ensemble is more robust. 95 % intervals over recordings, or over
    clips if `n_recordings` is 0, as they are not known: Wilson's for `single` and `accuracy`, bootstrap for the others.
    Recordings are drawn for both gains at once, so that the interval of `more_than_clean` has the variation of both.
    `more_than_clean_p` is the p-value for no difference, followed by that adjusted for the number of rows
    (`stats.adjusted`). `soup` is the accuracy of the one network whose weights are the mean of the members' weights,
    with Wilson's interval (NaN: not asked for, or members of several backbones). Macro-F1 of single networks
    (mean) and of the ensemble is shown where classes are uneven.
    """

    ensemble: str
    corruption: str
    strength: float
    n_members: int
    n_clips: int
    n_recordings: int
    single: float
    single_low: float
    single_high: float
    accuracy: float
    low: float
    high: float
    macro_f1_single: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    macro_f1: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    chance: float = field(default=np.nan, kw_only=True)
    commonest: float = field(default=np.nan, kw_only=True)
    gain: float
    gain_low: float
    gain_high: float
    more_than_clean: float
    more_than_clean_low: float
    more_than_clean_high: float
    more_than_clean_p: float
    more_than_clean_p_adjusted: float = np.nan
    soup: float = np.nan
    soup_low: float = np.nan
    soup_high: float = np.nan


def rows_of(
    by_condition: Mapping[Condition, Sequence[Run]],
    soups: Mapping[Condition, Mapping[tuple[str, str], np.ndarray]] | None = None,
) -> list[Row]:
    """Return one row per ensemble and corruption, from the runs and the averages of weights of `corrupted`."""
    rows, differences = [], []
    clean: dict[str, np.ndarray] = {}
    for (kind, strength), runs in by_condition.items():
        for members in gather(runs):
            right = predictions.accuracy(members.probabilities, members.labels).mean(0)
            right_mean = predictions.accuracy(members.average, members.labels)
            gains, groups = right_mean - right, members.groups
            more = gains - clean.setdefault(members.name, gains)
            differences.append(stats.bootstrap_difference(more, groups=groups))
            intervals = (
                stats.share_interval(right, groups=groups),
                stats.share_interval(right_mean, groups=groups),
                stats.bootstrap_difference(gains, groups=groups).interval,
                differences[-1].interval,
            )
            values = [value for interval in intervals for value in (interval.mean, interval.low, interval.high)]
            values.append(differences[-1].p_value)
            names = (members.name, kind, strength, len(members.names), len(right), len(set(groups)))
            row = Row(*names, *values, **(macro_f1(members) | members.levels()))
            rows.append(replace(row, **_of_soup(members, (soups or {}).get((kind, strength), {}))))
    adjusted = zip(rows, stats.adjusted(differences), strict=True)
    return [replace(row, more_than_clean_p_adjusted=difference.p_adjusted) for row, difference in adjusted]


def _of_soup(members: Members, logits: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    """Return the accuracy of the average of the weights, if its logits are there, with its interval."""
    parts = [logits[members.name, fold] for fold in members.runs if (members.name, fold) in logits]
    if not parts:
        return {}
    right = predictions.accuracy(np.concatenate(parts), members.labels)
    interval = stats.share_interval(right, groups=members.groups)
    return {"soup": interval.mean, "soup_low": interval.low, "soup_high": interval.high}


LINES = {
    "--": ("single", "single_low", "single_high"),
    "-": ("accuracy", "low", "high"),
    ":": ("soup", "soup_low", "soup_high"),
}


def draw(result: Result) -> Figure:
    """Draw one panel per corruption: accuracy against its strength, clean clips at the left."""
    by_ensemble = group_by(result.rows, key=lambda row: row.ensemble)
    kinds = [kind for kind in dict.fromkeys(row.corruption for row in result.rows) if kind != CLEAN]
    fig, axes = style.new_figure(1, len(kinds), width=max(6.0, 1 + 2.9 * len(kinds)), height=5.0, sharey=True)
    palette = style.colours(list(by_ensemble))
    for ax, kind in zip(axes[0], kinds, strict=True):
        level_lines(levels(result.rows), named=ax is axes[0, 0], ax=ax)
        for name, colour in palette.items():
            rows = [row for row in by_ensemble[name] if row.corruption in (CLEAN, kind)]
            places = range(len(rows))
            for line, fields in LINES.items():
                mean, lower, upper = ([100 * getattr(row, field) for row in rows] for field in fields)
                if line == "-":
                    ax.fill_between(places, lower, upper, color=colour, alpha=0.18, lw=0)
                else:
                    ax.vlines(places, lower, upper, color=colour, lw=0.9)
                ax.plot(
                    places, mean, line, color=colour, marker="o", ms=3.5, lw=1.3, mfc=colour if line == "-" else "white"
                )
        ax.set_xticks(places, [CLEAN, *(f"{row.strength:g}" for row in rows[1:])], fontsize="small")
        ax.set_xlabel(CORRUPTIONS[kind].title.replace(", ", "\n"))
    axes[0, 0].set_ylim(0, 103)
    for ax in axes[0]:
        ax.set_ylabel(heldout())
        ax.label_outer(remove_inner_ticks=False)
    names = {
        f"{name} ({counted(rows[0].n_members, 'network')}, {counted(rows[0].n_clips, 'clip')})": palette[name]
        for name, rows in by_ensemble.items()
    }
    over = "recordings" if result.rows[0].n_recordings else "clips"
    marks: dict[str, Any] = {"ensemble": style.mark("o", line="-")}
    marks["single networks"] = style.mark("o", line="--", hollow=True)
    if np.isfinite([row.soup for row in result.rows]).any():
        marks["average of weights"] = style.mark("o", line=":", hollow=True)
    marks[f"95 % interval over {over}: of the ensemble as a band, of others as bars"] = style.band_mark()
    style.legend_below(fig, dict(zip(names, style.handles(names), strict=True)), marks=marks)
    style.title(fig, f"{result.title}: corrupted clips")
    return fig


def _points(row: Row, field: str) -> str:
    mean, low, high = (100 * getattr(row, f"{field}{end}") for end in ("", "_low", "_high"))
    return f"{mean:.1f} ({span(low, high)})"


def summary(result: Result) -> str:
    """Return the accuracies and gains under each corruption as a table."""
    scores = ["single [%]", "ensemble [%]", "gain [points]", "more than clean", "adjusted p"]
    has_soups = np.isfinite([row.soup for row in result.rows]).any()
    head = ("ensemble", "corruption", "strength", *scores, *(["average of weights [%]"] if has_soups else []))
    lines = [
        (
            row.ensemble,
            row.corruption,
            f"{row.strength:g}",
            f"{100 * row.single:.1f}",
            f"{100 * row.accuracy:.1f}",
            _points(row, "gain"),
            _points(row, "more_than_clean"),
            "" if np.isnan(row.more_than_clean_p_adjusted) else f"{row.more_than_clean_p_adjusted:.3f}",
            *([] if not has_soups else ["" if np.isnan(row.soup) else f"{100 * row.soup:.1f}"]),
        )
        for row in result.rows
    ]
    row = result.rows[0]
    return f"{table([head, *lines])}\nintervals over {stats.clips_text(row.n_clips, row.n_recordings)}"


@dataclass(frozen=True)
class Result(question.Result):
    """One row per ensemble and corruption."""

    stem = "robustness"
    rows: tuple[Row, ...]
    title: str = ""


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Classify corrupted held-out clips with the networks that the options name."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    members = load_runs(options.ckpt, "dataset", "feature settings")
    ensembles = gather(members)  # raises if they cannot be averaged, before anything is computed
    for runs_of_fold in group_by(members, key=lambda run: run.config.fold).values():
        check_alike(runs_of_fold, "held-out clips (fold)", "features")
    soups = [each for each in ensembles if options.soup and finished.is_one(each)]
    kinds = list(dict.fromkeys(options.corruption))
    by_condition, averaged = corrupted(members, options.data, kinds, device, soups=soups)
    return Result(tuple(rows_of(by_condition, averaged)), members[0].config.dataset)


robustness = question.Question("robustness", Options, analyse, first="ckpt")
main = cli.command("robustness", Options, robustness)

if __name__ == "__main__":
    sys.exit(main())
