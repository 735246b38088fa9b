"""Which epoch to report: the last one, the best one on the held-out fold, or the best one on an inner fold.

The training code of the paper reports the accuracy of the epoch that is best on the held-out fold. This accuracy is
optimistic, because the same clips are used to choose the epoch and to measure its accuracy. This command computes the
optimism for all runs of a store. With ``--select nested``, another fold is kept from training, too: this inner fold
chooses the epoch without the bias.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.measures.classes import IF_SEVERAL, IF_UNEVEN
from transferlens.options import FigureOptions
from transferlens.plots import style
from transferlens.plots.accuracy import heldout, intervals, level_lines
from transferlens.store.arms import arm_names
from transferlens.store.listing import list_runs, no_run
from transferlens.store.rows import levels, row_of
from transferlens.store.run import Run, load_runs
from transferlens.training.sweep import RunsOptions
from transferlens.util.fields import Fields, check_alone, names
from transferlens.util.grouping import group_by
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Width of names beside the figure [letters].
LETTERS = 26
WORDS = {
    "accuracy_last": "last epoch",
    "accuracy_best": "best epoch on the held-out fold (optimistic)",
    "accuracy_nested": "epoch chosen on an inner fold",
}


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Compare the accuracies after the last epoch, at the best epoch, and at the epoch that an inner fold chose."""

    ckpt: tuple[Path, ...] = ()
    """Run files to compare. Default: all finished runs of --runs."""
    store: RunsOptions = RunsOptions()
    output: FigureOptions = FigureOptions()


@dataclass(frozen=True)
class Row:
    """One run in the CSV; accuracies are fractions, the nested one is NaN for runs without an inner fold.

    Where clips have several labels, `score` is "mAP", and they are mAP.
    """

    group: str
    dataset: str
    backbone: str
    arm: str
    fold: str
    inner_fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seed: int
    epoch_last: int
    epoch_best: int
    epoch_nested: float
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)
    accuracy_last: float
    macro_f1: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    chance: float = field(default=np.nan, kw_only=True)
    commonest: float = field(default=np.nan, kw_only=True)
    accuracy_best: float
    accuracy_nested: float
    run: str


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Return one row per run; runs of one data set, backbone and arm are a group."""
    rows = []
    for run, name in zip(runs, arm_names(runs), strict=True):
        arm = name if "epochs" in name else f"{name}, {counted(run.config.training.epochs, 'epoch')}"
        rows.append(row_of(Row, run, arm=arm, group=f"{run.config.dataset}, {run.config.backbone}\n{arm}"))
    return rows


def optimism(rows: Sequence[Row], honest: str = "accuracy_last") -> stats.Interval:
    """Compute by how much the accuracy at the best epoch exceeds an honest one: mean over folds, with its interval.

    Parameters
    ----------
    rows : sequence of Row
    honest : {"accuracy_last", "accuracy_nested"}
    """
    gains = [row.accuracy_best - getattr(row, honest) for row in rows]
    return stats.fold_interval(stats.fold_means(gains, rows), bounds=(-1.0, 1.0))


def draw(result: Result) -> Figure:
    """Draw a row per group: the accuracy of each choice of the epoch, and by how much that of the best is higher."""
    groups = group_by(result.rows, lambda row: row.group)
    fig, axes = style.new_figure(1, 2, width=11, height=1.2 + 0.75 * len(groups), sharey=True, width_ratios=[1.4, 1])
    values = {
        group: {
            field: stats.by_fold(rows, field)
            for field in WORDS
            if np.isfinite([getattr(row, field) for row in rows]).all()
        }
        for group, rows in groups.items()
    }
    used = [field for field in WORDS if any(field in fields for fields in values.values())]
    palette = dict(zip(WORDS, style.colours(WORDS).values(), strict=True))
    dataset = next(iter({row.dataset for row in result.rows})) if len({row.dataset for row in result.rows}) == 1 else ""
    wrapped = {group: _wrapped(group.removeprefix(f"{dataset}, ")) for group in groups}
    means = {
        wrapped[group]: {field: _percent(stats.fold_interval(folds)) for field, folds in fields.items()}
        for group, fields in values.items()
    }
    dots = {
        wrapped[group]: {field: [100 * value for value in folds] for field, folds in fields.items()}
        for group, fields in values.items()
    }
    intervals(means, palette=palette, dots=dots, ax=axes[0, 0])
    axes[0, 0].set(xlim=(0, 103), xlabel=heldout())
    gains = {
        wrapped[group]: {field: _percent(optimism(rows, field)) for field in values[group] if field != "accuracy_best"}
        for group, rows in groups.items()
    }
    intervals(gains, palette=palette, ax=axes[0, 1])
    axes[0, 1].set_xlabel("optimism: best epoch less the others [points]")
    compared = levels(result.rows) if dataset else {}
    level_lines(compared, upright=True, ax=axes[0, 0])
    n_folds = max(len({row.fold for row in rows}) for rows in groups.values())
    marks = {f"mean and {style.INTERVAL}" if n_folds > 1 else "the one fold": style.mark("o", line="-" * (n_folds > 1))}
    marks |= {"folds": style.dot()} if n_folds > 1 else {}
    entries = dict(zip((WORDS[field] for field in used), style.handles({f: palette[f] for f in used}), strict=True))
    marks |= {f"{name} {100 * level:.1f}\u00a0%": style.mark("", line="--") for name, level in compared.items()}
    style.legend_below(fig, entries, marks=marks)
    style.title(fig, f"{dataset}: which epoch is reported".removeprefix(": "))
    return fig


def _percent(interval: stats.Interval) -> stats.Interval:
    mean, low, high = (100 * getattr(interval, name) for name in ("mean", "low", "high"))
    return replace(interval, mean=mean, low=low, high=high)


def _wrapped(group: str) -> str:
    """Return the name of a group in lines that leave room for the Axes."""
    return "\n".join(textwrap.fill(part, LETTERS) for part in group.split("\n"))


def summary(result: Result) -> str:
    """Return the optimism of each group in words."""
    lines = []
    for group, rows in group_by(result.rows, lambda row: row.group).items():
        name = group.replace("\n", ", ")
        lines.append(f"{name}: best epoch less last {optimism(rows).text('points')}, {counted(len(rows), 'run')}")
        if rows[0].inner_fold:
            nested = stats.fold_interval(stats.by_fold(rows, "accuracy_nested"))
            gain = optimism(rows, "accuracy_nested").text("points")
            lines.append(f"  nested: {nested}; best epoch less nested {gain}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run."""

    stem = "selection"
    rows: tuple[Row, ...]


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare the choices of the epoch, over the runs that the options name."""
    folder = options.store.runs
    if options.ckpt:
        check_alone(options, "ckpt", beside=names(FigureOptions))
    paths = options.ckpt or [summary.path for summary in list_runs(folder) if summary.is_complete]
    if not paths:
        raise no_run(folder)
    return Result(tuple(rows_of(load_runs(paths))))


selection = question.Question("selection", Options, analyse, first="ckpt", several=True)
main = cli.command("selection", Options, selection)

if __name__ == "__main__":
    sys.exit(main())
