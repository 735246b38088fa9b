"""Which epoch is reported, and how much that flatters: last, best on the held-out fold, and chosen on an inner fold.

The paper's training code reports the epoch that is best on the held-out fold itself. That number looks at the clips it
is then measured on, and is optimistic; how much, this tells for every run of a store. Runs trained with
``--select nested`` keep one more fold from training and let it choose the epoch: what an honest choice gives.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.options import OutputOptions
from transferlens.plots import style
from transferlens.plots.accuracy import changes, points_and_means
from transferlens.store.listing import list_runs
from transferlens.store.rows import row_of
from transferlens.store.run import Run, arm_names, load_runs
from transferlens.training.sweep import RunsOptions
from transferlens.util.errors import CheckpointError
from transferlens.util.fields import Fields
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Letters in a line of a name.
NARROW = 26
WORDS = {
    "accuracy_last": "last epoch",
    "accuracy_best": "best epoch on the held-out fold (optimistic)",
    "accuracy_nested": "epoch chosen on an inner fold",
}


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """How much choosing the epoch on the held-out fold flatters, over all finished runs of a store."""

    ckpt: tuple[Path, ...] = ()
    """Only these run files. Default: all of --runs."""
    store: RunsOptions = RunsOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True)
class Row:
    """One run in the CSV; accuracies are fractions. The nested one is NaN for runs without an inner fold."""

    group: str
    dataset: str
    backbone: str
    arm: str
    fold: str
    inner_fold: str
    seed: int
    epoch_last: int
    epoch_best: int
    epoch_nested: float
    accuracy_last: float
    accuracy_best: float
    accuracy_nested: float
    run: str


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """A row a run: runs of one data set, backbone and arm make a group, with and without an inner fold apart."""
    return [
        row_of(Row, run, arm=arm, group=f"{run.config.dataset}, {run.config.backbone}\n{arm}")
        for run, arm in zip(runs, _arms(runs), strict=True)
    ]


def _arms(runs: Sequence[Run]) -> list[str]:
    """Names of the arms, with their epochs."""
    names = zip(arm_names(runs), runs, strict=True)
    return [name if "epochs" in name else f"{name}, {run.config.training.epochs} epochs" for name, run in names]


def optimism(rows: Iterable[Row], honest: str = "accuracy_last") -> stats.Interval:
    """By how much the best epoch on the held-out fold exceeds the honest choice: mean over folds, with its interval.

    Parameters
    ----------
    rows : iterable of Row
    honest : str
        "accuracy_last" or "accuracy_nested".
    """
    rows = list(rows)
    gains = [row.accuracy_best - getattr(row, honest) for row in rows]
    means = stats.fold_means(gains, [row.fold for row in rows])
    return stats.fold_interval(means, bounds=(-1.0, 1.0), kept=bool(rows[0].inner_fold))


def draw(result: Result) -> Figure:
    """Accuracies by each way of choosing the epoch, and below by how much the best epoch exceeds the others."""
    groups = group_by(result.rows, lambda row: row.group)
    fig, (top, bottom) = style.new_figure(
        2, 1, width=3 + 2.1 * len(groups), height=7.4, sharex=True, height_ratios=[1.6, 1]
    )
    palette = style.colours(list(WORDS.values()))
    points = {
        group: {
            words: stats.fold_means([getattr(row, field) for row in mine], [row.fold for row in mine])
            for field, words in WORDS.items()
            if np.isfinite(getattr(mine[0], field))
        }
        for group, mine in groups.items()
    }
    ax = points_and_means(points, palette=palette, ax=top[0])
    ax.set_title("diamonds: mean over folds and 95 % interval; dots: folds", fontsize="small", loc="left")
    differences = {
        "accuracy_last": [(x, optimism(mine)) for x, mine in enumerate(groups.values())],
        "accuracy_nested": [
            (x, optimism(mine, "accuracy_nested")) for x, mine in enumerate(groups.values()) if mine[0].inner_fold
        ],
    }
    named = {WORDS[field]: each for field, each in differences.items() if each}
    changes(named, palette=palette, ax=bottom[0])
    bottom[0].set_ylabel("optimism: best epoch\nless the others [points]")
    names = ["\n".join(textwrap.fill(part, NARROW) for part in group.split("\n")) for group in groups]
    bottom[0].set_xticks(range(len(groups)), names, fontsize="x-small")
    used = [words for words in WORDS.values() if any(words in arms for arms in points.values())]
    fig.legend(
        style.handles({words: palette[words] for words in used}), used, loc="outside lower center", frameon=False
    )
    fig.suptitle("which epoch is reported", x=0.01, ha="left")
    return fig


def summary(result: Result) -> str:
    """Return the optimism of each group in words."""
    lines = []
    for group, mine in group_by(result.rows, lambda row: row.group).items():
        name = group.replace("\n", ", ")
        lines.append(f"{name}: best epoch less last {optimism(mine).text('points')}, {len(mine)} runs")
        if mine[0].inner_fold:
            means = stats.fold_means([r.accuracy_nested for r in mine], [r.fold for r in mine])
            nested = stats.fold_interval(means, kept=1)
            lines.append(
                f"  nested: {nested}; best epoch less nested {optimism(mine, 'accuracy_nested').text('points')}"
            )
    return "\n".join(lines)


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run."""

    stem = "selection"
    rows: tuple[Row, ...]


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare the ways of choosing the epoch, over the runs that the options name."""
    folder = options.store.runs
    paths = options.ckpt or [summary.path for summary in list_runs(folder) if summary.is_complete]
    if not paths:
        raise CheckpointError(f"runs={str(folder)!r} has no finished run: train some first")
    return Result(tuple(rows_of(load_runs(paths))))


selection = question.Question("selection", Options, analyse, first="ckpt")
main = cli.command("selection", Options, selection)

if __name__ == "__main__":
    sys.exit(main())
