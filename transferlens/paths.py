"""Paths: do two networks lie in one basin, and what is the average of several worth?

Accuracy and loss of held-out clips along the straight line between the weights of two networks: from the start of a
run to its end, between two seeds, between two ways of training such as pretrained and from scratch [1]_. The barrier is
the largest excess of the loss over the straight line between the losses of the ends [2]_: about 0 if the networks lie
in one basin. For seeds without a barrier between them, the average of their weights, a "soup" [3]_, may be as accurate
as the average of their outputs, at the cost of one network.

Between two networks the statistics of BatchNorm layers are those of neither. Each point is therefore scored with the
statistics on the line too, and with those estimated anew on training clips, without labels
(`transferlens.models.batchnorm`); barriers that vanish then are of statistics, not of weights.

References
----------
.. [1] B. Neyshabur, H. Sedghi, C. Zhang: What is being transferred in transfer learning? NeurIPS 2020, section 3.3.
.. [2] J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin: Linear mode connectivity and the lottery ticket hypothesis.
   ICML 2020, section 2.
.. [3] M. Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy without
   increasing inference time. ICML 2022.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens import cli
from transferlens.compare import finished, question
from transferlens.compare.lines import (
    WHOLE,
    WORDS,
    BarrierRow,
    Row,
    Score,
    SoupRow,
    barriers,
    paths_of,
    soup,
    walk,
)
from transferlens.compare.network_pairs import Kind
from transferlens.measures import stats
from transferlens.models.device import pick_device
from transferlens.models.plan import BLOCKS
from transferlens.options import PlanOptions, QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.store.arms import arm_names
from transferlens.store.rows import levels
from transferlens.store.run import Run
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, at_least, between
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.training.sweep import Arm

KNOWN = Rule("among 0, 1, 2, 3, 4", lambda blocks: {*blocks} <= {*BLOCKS})


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Score networks on the straight line between two, the barrier there, and the average of the weights of seeds.

    Name run files (--ckpt), or the runs as for `train`. Finished runs are not trained again.
    """

    ckpt: tuple[Path, ...] = ()
    """Run files of one data set. Default: the runs that the sweep options name."""
    kind: Annotated[tuple[Kind, ...], Rule("one or more", bool)] = ("training", "seeds", "runs")
    """Which paths. training: from the start of each run to its end. seeds: between runs that differ only by the seed.
    runs: between other runs with one backbone, fold and seed, such as pretrained and from scratch."""
    steps: Annotated[int, between(3, 1001)] = 11
    """Points on each path, both ends among them."""
    block: Annotated[tuple[int, ...], KNOWN] = ()
    """Blocks that move alone, one path per block; all others, and the head, are those of the end. Default: the whole
    network moves."""
    estimate: Annotated[int, at_least(0)] = finished.ESTIMATED_ON
    """Training clips on which BatchNorm statistics are estimated anew. 0: networks are scored as they are only."""
    plan: PlanOptions = PlanOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """One row per point, and the barriers and the averages of seeds."""

    stem = "paths"
    rows: tuple[Row, ...]
    barriers: tuple[BarrierRow, ...]
    soups: tuple[SoupRow, ...]

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the points, the barriers and, if there are several seeds, their averages."""
        tables: dict[str, Sequence[Any]] = {"paths": self.rows, "paths_barriers": self.barriers}
        return tables | ({"paths_soups": self.soups} if self.soups else {})


def points(options: Options) -> dict[str, Arm]:
    """Return the runs to train, none if run files are named."""
    return finished.points(options, "kind", "steps", "block", "estimate")


def analyse(runs: Mapping[str, list[Run]], options: Options) -> Result:
    """Score the paths between the runs that the options name, and the averages of their seeds."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    trained = finished.runs_of(runs, options, "dataset", "labels")
    blocks: list[int | None] = [*dict.fromkeys(options.block)] or [None]
    _check_blocks(trained, options.block)
    by_clips = group_by(paths_of(trained, options.kind), key=lambda path: finished.clips_of(path.second))
    named = zip(arm_names(trained), trained, strict=True)
    seeds = group_by(named, lambda pair: (finished.clips_of(pair[1]), pair[0], pair[1].config.backbone))
    rows, soups = list[Row](), list[SoupRow]()
    total = sum(map(len, by_clips.values())) * len(blocks) * options.steps
    with tqdm.tqdm(total=total, desc="paths", unit="point", delay=2, leave=False, disable=None) as bar:
        for clips, paths_of_clips in by_clips.items():
            S, training = finished.features(paths_of_clips[0].second, options, options.estimate)
            known: dict[Any, dict[str, Score]] = {}
            for path, block in itertools.product(paths_of_clips, blocks):
                rows += walk(path, block, options.steps, S, training, device, bar.update, known, options.store.cache)
            for (own, arm, _), members in seeds.items():
                if own == clips and len(members) > 1:
                    soups.append(soup([run for _, run in members], arm, S, training, device))
    return Result(tuple(rows), tuple(barriers(rows)), tuple(soups))


def _check_blocks(runs: Sequence[Run], blocks: Sequence[int]) -> None:
    """Raise if a block is cut in a run."""
    for run, block in itertools.product(runs, blocks):
        if block not in run.config.plan.blocks:
            kept = ", ".join(map(str, run.config.plan.blocks))
            raise ParameterError(f"block={block} must be among {kept}: {run.path} is cut after the last of them")


LINES = {"as is": "--", "anew": "-"}


def draw(result: Result) -> Figure:
    """Draw accuracy and loss along the paths, one column per kind: thin lines are paths, thick ones their means.

    Dashed: networks as they are; full: with statistics estimated anew. With several blocks each has a column.
    """
    columns = group_by(result.rows, key=lambda row: (row.kind, row.block))
    fig, axes = style.new_figure(2, len(columns), width=2.4 + 3.4 * len(columns), height=6.4, sharex=True, sharey="row")
    palette = style.colours(f"{row.backbone}, {row.arm}" for row in result.rows)
    for (above, below), ((kind, block), rows) in zip(axes.T, columns.items(), strict=True):
        for (backbone, arm, statistics), lines in group_by(
            rows, key=lambda row: (row.backbone, row.arm, row.statistics)
        ).items():
            name = f"{backbone}, {arm}"
            label = f"{name}, {'as is' if statistics == 'as is' else 'statistics anew'}"
            look = {"color": palette[name], "linestyle": LINES[statistics]}
            _draw_lines(lines, "accuracy", 100, above, label, look)
            _draw_lines(lines, "loss", 1, below, label, look)
        above.set_title(WORDS[kind] + ("" if block == WHOLE else f", Block {block}"), fontsize="small", loc="left")
        below.set(xlabel="share of the way", xlim=(0, 1), ylim=(0, None))
    axes[0, 0].set(ylabel=accuracy.heldout(), ylim=(0, 103))
    axes[1, 0].set_ylabel("held-out loss [nat]")
    entries: dict[str, Any] = {}
    for ax in axes[0]:
        accuracy.level_lines(levels(result.rows), named=ax is axes[0, 0], ax=ax)
        entries |= style.entries_of(ax)
    one, mean = style.curve_marks().values()
    style.legend_below(fig, entries, marks={"one path": one, "mean of the paths": mean})
    n = counted(len({row.fold for row in result.rows}), "fold")
    style.title(fig, f"{result.rows[0].dataset}: straight lines between networks, {n}")
    return fig


def _draw_lines(rows: Sequence[Row], field: str, scale: float, ax: Axes, label: str, look: Mapping[str, Any]) -> None:
    lines = [*group_by(rows, key=lambda row: (row.first, row.second)).values()]
    shares = [row.share for row in lines[0]]
    values = scale * np.array([[getattr(row, field) for row in line] for line in lines])
    if len(lines) > 1:
        ax.plot(shares, values.T, **look, lw=0.6, alpha=0.4)
    ax.plot(shares, values.mean(0), **look, lw=1.8, label=label)


def summary(result: Result) -> str:
    """Return the barrier of each kind of path with its ends, and the averages of seeds."""
    lines = []
    groups = group_by(result.barriers, lambda row: (row.backbone, row.arm, row.kind, row.block, row.statistics))
    for (backbone, arm, kind, block, statistics), rows in groups.items():
        where = "" if block == WHOLE else f", Block {block}"
        folds = stats.fold_means([row.barrier for row in rows], rows)
        interval = stats.fold_interval(folds, bounds=(0.0, np.inf))
        highest = max(rows, key=lambda row: row.barrier)
        lines.append(
            f"{backbone}, {arm}, {WORDS[kind]}{where}, {statistics}: barrier {interval.mean:.3f} nat"
            f"{_bounds(interval)}, n = {counted(len(folds), 'fold')}, {counted(len(rows), 'path')}; highest "
            f"{highest.barrier:.3f} at {highest.barrier_share:g} of the way, {_ends(highest)}"
        )
    for (backbone, arm), soups in group_by(result.soups, lambda row: (row.backbone, row.arm)).items():
        lines += _soup_lines(f"{backbone}, {arm}", soups)
    return "\n".join(lines)


def _ends(row: BarrierRow) -> str:
    """Return the ends of a path in words."""
    before, after = 100 * row.accuracy_first, 100 * row.accuracy_second
    accuracies = f"({before:.1f} and {after:.1f} %)"
    return (
        f"{row.first}, start and end {accuracies}"
        if row.kind == "training"
        else f"{row.first} and {row.second} {accuracies}"
    )


def _bounds(interval: stats.Interval) -> str:
    return f" (95 % interval {span(interval.low, interval.high, 3)})" if interval.is_bounded else ""


def _soup_lines(name: str, rows: Sequence[SoupRow]) -> list[str]:
    """Return the accuracies of the averages of seeds, and their differences to single networks and to the ensemble."""
    names = {"single": "single", "soup": "soup as is", "soup_anew": "soup, statistics anew", "ensemble": "ensemble"}
    values = {
        words: stats.fold_means([getattr(row, field) for row in rows], rows)
        for field, words in names.items()
        if np.isfinite(getattr(rows[0], field))
    }
    accuracies = ", ".join(f"{words} {100 * np.mean(each):.1f} %" for words, each in values.items())
    members = counted(min(row.n_members for row in rows), "seed")
    lines = [f"{name}, average of the weights of {members}: {accuracies}, n = {counted(len(rows), 'fold')}"]
    soup_name = [*values][-2]  # with statistics anew, if there is one
    for other in ("single", "ensemble"):
        difference = stats.paired_difference(values[soup_name], values[other])
        lines.append(f"  {soup_name} - {other}, paired by fold: {difference}")
    return lines


paths = question.Question("paths", Options, analyse, points, first="ckpt")
main = cli.command("paths", Options, paths)

if __name__ == "__main__":
    sys.exit(main())
