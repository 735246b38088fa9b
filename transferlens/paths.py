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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import ensembles, finished, question
from transferlens.measures import predictions, stats
from transferlens.models import batchnorm, states
from transferlens.models.device import pick_device
from transferlens.models.plan import BLOCKS
from transferlens.options import PlanOptions, QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.store.heldout import classify, estimate_statistics
from transferlens.store.rows import levels
from transferlens.store.run import Run, arm_names, check_alike
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, at_least
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch, tqdm
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted, span

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.models.network import Network
    from transferlens.training.sweep import Arm

Kind = Literal["training", "seeds", "runs"]
WORDS: dict[str, str] = {
    "training": "from start to end",
    "seeds": "between two seeds",
    "runs": "between two ways of training",
}
KNOWN = Rule("among 0, 1, 2, 3, 4", lambda blocks: {*blocks} <= {*BLOCKS})
Score = tuple[float, float]  # accuracy and loss
WHOLE = "all"  # the block of a path of whole networks
ALIKE = ("backbone", "truncate_after", "held-out clips (fold)", "features", "normalisation")


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
    steps: Annotated[int, at_least(3)] = 11
    """Points on each path, both ends among them."""
    block: Annotated[tuple[int, ...], KNOWN] = ()
    """Blocks that move alone, one path per block; all others, and the head, are those of the end. Default: the whole
    network moves."""
    estimate: Annotated[int, at_least(0)] = finished.ESTIMATED_ON
    """Training clips on which BatchNorm statistics are estimated anew. 0: networks are scored as they are only."""
    plan: PlanOptions = PlanOptions()


@dataclass(frozen=True, kw_only=True)
class PathRow:
    """Columns that a path and its points share.

    The path leads from `first`, or its start (kind "training"), to `second`, the ids of runs. `block` is the block that
    moves, or "all"; `statistics` are "as is" or "anew".
    """

    dataset: str
    backbone: str
    arm: str
    kind: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seeds: str
    block: str
    statistics: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Row(PathRow):
    """One point on a path: `share` of the way from its first end to its second.

    Accuracy is a fraction, `loss` the cross-entropy [nat] of the held-out clips, and `excess` that above the straight
    line between the losses of the ends.
    """

    share: float
    accuracy: float
    loss: float
    excess: float
    chance: float = np.nan
    commonest: float = np.nan


@dataclass(frozen=True, kw_only=True)
class BarrierRow(PathRow):
    """One path in paths_barriers.csv: the largest excess of loss [nat], where it is, and that of the error rate.

    The other columns are loss and accuracy of both ends.
    """

    barrier: float
    barrier_share: float
    error_barrier: float
    loss_first: float
    loss_second: float
    accuracy_first: float
    accuracy_second: float


@dataclass(frozen=True)
class SoupRow:
    """The average of the weights of the seeds of one arm and fold, in paths_soups.csv; accuracies are fractions.

    `soup` is the average as it is, `soup_anew` that with BatchNorm statistics estimated anew (NaN without BatchNorm),
    `single` the mean of its members, and `ensemble` the average of their outputs.
    """

    backbone: str
    arm: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    n_members: int
    seeds: str
    single: float
    best: float
    soup: float
    soup_anew: float
    ensemble: float
    soup_loss: float
    soup_anew_loss: float
    ensemble_loss: float


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


# ------------------------------------------------------------------------------------------------ paths


@dataclass(frozen=True, eq=False)
class Line:
    """The straight line between the weights of two networks: of a run before and after training, or of two runs."""

    kind: Kind
    arm: str
    first: Run
    second: Run

    @property
    def seeds(self) -> str:
        """The seeds of its ends."""
        return " and ".join(dict.fromkeys(str(run.config.seed) for run in (self.first, self.second)))

    def end(self, share: float, block: int | None) -> tuple[Any, ...]:
        """Return what a point is: the network of a run before or after training, which several paths have, or its own.

        With a block that moves alone, only the end of the path is such a network.
        """
        if share == 1:
            return self.second.config.id, "after"
        if share == 0 and block is None:
            return self.first.config.id, "before" if self.kind == "training" else "after"
        return self, share, block

    def ends(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return the state dicts of its ends."""
        first = self.first.initial_state() if self.kind == "training" else self.first.final_state()
        return first, self.second.final_state()


def paths_of(runs: Sequence[Run], kinds: Collection[str] = tuple(WORDS)) -> list[Line]:
    """Return the paths of some kinds between runs; raise ParameterError, naming two runs, if there is none."""
    named = list(zip(arm_names(runs), runs, strict=True))
    found = [Line("training", arm, run, run) for arm, run in named]
    for (arm, a), (other, b) in itertools.combinations(named, 2):
        if replace(a.config, seed=b.config.seed) == b.config:
            found.append(Line("seeds", arm, a, b))
        elif "runs" in kinds and arm != other and _meet(a, b):
            check_alike([a, b], *ALIKE)
            found.append(Line("runs", f"{arm} and {other}", a, b))
    chosen = [path for path in found if path.kind in kinds]
    if not chosen:
        if len(runs) > 1:
            check_alike(runs[:2], *ALIKE)
        kind = " or ".join(WORDS[kind] for kind in kinds)
        raise ParameterError(
            f"ckpt={runs[0].path} gives no path {kind}: name runs of one backbone and fold that differ so"
        )
    return chosen


def _meet(a: Run, b: Run) -> bool:
    """Return whether two runs are of one backbone, fold and seed, cut after one block."""
    keys = [(run.config.backbone, run.config.fold, run.config.seed, run.config.plan.truncate_after) for run in (a, b)]
    return keys[0] == keys[1]


def scores(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Return accuracy, a fraction, and cross-entropy [nat] of logits [shape=(n_clips, n_classes)]."""
    probabilities = predictions.softmax(logits)
    return float(predictions.accuracy(probabilities, labels).mean()), float(
        predictions.nll(probabilities, labels).mean()
    )


def score(run: Run, network: Network, S: np.ndarray, training: np.ndarray | None) -> dict[str, Score]:
    """Score a network on the held-out features S of a run as it is, and with statistics estimated anew on others.

    The network has the new statistics afterwards. Without BatchNorm, or training clips, there is one score.
    """
    found = {"as is": scores(classify(run, network, S), run.labels)}
    if training is not None and batchnorm.layers(network):
        estimate_statistics(run, network, training)
        found["anew"] = scores(classify(run, network, S), run.labels)
    return found


def excess(values: Sequence[float], shares: Sequence[float]) -> np.ndarray:
    """Return values on a path less those on the straight line between its ends [shape=(n_points,)].

    Examples
    --------
    >>> excess([1.0, 3.0, 2.0], [0.0, 0.5, 1.0]).tolist()
    [0.0, 1.5, 0.0]
    """
    return np.asarray(values) - ((1 - np.asarray(shares)) * values[0] + np.asarray(shares) * values[-1])


def walk(
    path: Line,
    block: int | None,
    steps: int,
    S: np.ndarray,
    training: np.ndarray | None,
    device: torch.device,
    done: Callable[[], object] = lambda: None,
    known: dict[Any, dict[str, Score]] | None = None,
) -> list[Row]:
    """Score the points of a path, of the whole network (None) or of one block; see `score`.

    The scores of its ends, which other paths have too, are taken from `known`, or written there.
    """
    known = {} if known is None else known
    run, (first, second) = path.second, path.ends()
    network = run.model().to(device)
    shares = np.linspace(0, 1, steps).tolist()
    by_statistics: dict[str, list[Score]] = {}
    for share in shares:
        key = path.end(share, block)
        if key not in known:
            point = states.between(first, second, share, of=lambda name: block in (None, network.block_of(name)))
            network.load_state_dict(point)
            known[key] = score(run, network, S, training)
        for statistics, found in known[key].items():
            by_statistics.setdefault(statistics, []).append(found)
        done()
    rows = []
    for statistics, line in by_statistics.items():
        above = excess([loss for _, loss in line], shares)
        for share, (right, loss), over in zip(shares, line, above.tolist(), strict=True):
            where = {"block": WHOLE if block is None else str(block), "statistics": statistics, "share": share}
            rows.append(
                Row(
                    **_named(path),
                    **where,
                    accuracy=right,
                    loss=loss,
                    excess=over,
                    chance=run.chance,
                    commonest=run.commonest,
                )
            )
    return rows


def _named(path: Line) -> dict[str, Any]:
    run = path.second
    return {
        "dataset": run.config.dataset,
        "backbone": run.config.backbone,
        "arm": path.arm,
        "kind": path.kind,
        "fold": run.config.fold,
        "n_train": run.n_train,
        "n_clips": len(run.labels),
        "n_recordings": run.n_recordings,
        "seeds": path.seeds,
        "first": path.first.config.id,
        "second": path.second.config.id,
    }


def barriers(rows: Sequence[Row]) -> list[BarrierRow]:
    """Return the barrier of each path."""
    found = []
    for line in group_by(rows, lambda row: (row.first, row.second, row.kind, row.block, row.statistics)).values():
        top = max(line, key=lambda row: row.excess)
        errors = excess([1 - row.accuracy for row in line], [row.share for row in line])
        shared = {field.name: getattr(top, field.name) for field in fields(PathRow)}
        ends = {
            f"{field}_{name}": getattr(row, field)
            for name, row in (("first", line[0]), ("second", line[-1]))
            for field in ("loss", "accuracy")
        }
        values: dict[str, Any] = {
            "barrier": top.excess,
            "barrier_share": top.share,
            "error_barrier": float(errors.max()),
        }
        found.append(BarrierRow(**shared, **ends, **values))
    return found


def soup(runs: Sequence[Run], arm: str, S: np.ndarray, training: np.ndarray | None, device: torch.device) -> SoupRow:
    """Score the average of the weights of runs of one fold, which differ only by the seed."""
    run, labels = runs[0], runs[0].labels
    found = score(run, finished.average(runs).to(device), S, training)
    anew = found.get("anew", (np.nan, np.nan))
    logits = np.stack([each.logits for each in runs])
    singles = predictions.accuracy(predictions.softmax(logits), labels).mean(1)
    together = ensembles.average(logits)
    return SoupRow(
        backbone=run.config.backbone,
        arm=arm,
        fold=run.config.fold,
        n_train=run.n_train,
        n_clips=len(labels),
        n_recordings=run.n_recordings,
        n_members=len(runs),
        seeds=" ".join(str(each.config.seed) for each in runs),
        single=float(singles.mean()),
        best=float(singles.max()),
        soup=found["as is"][0],
        soup_anew=anew[0],
        ensemble=float(predictions.accuracy(together, labels).mean()),
        soup_loss=found["as is"][1],
        soup_anew_loss=anew[1],
        ensemble_loss=float(predictions.nll(together, labels).mean()),
    )


def analyse(runs: Mapping[str, list[Run]], options: Options) -> Result:
    """Score the paths between the runs that the options name, and the averages of their seeds."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    trained = finished.runs_of(runs, options, "dataset", "labels")
    blocks: list[int | None] = [*dict.fromkeys(options.block)] or [None]
    _check_blocks(trained, options.block)
    by_fold = group_by(paths_of(trained, options.kind), key=lambda path: _clips(path.second))
    seeds = group_by(
        zip(arm_names(trained), trained, strict=True), lambda pair: (_clips(pair[1]), pair[0], pair[1].config.backbone)
    )
    rows, soups = list[Row](), list[SoupRow]()
    total = sum(map(len, by_fold.values())) * len(blocks) * options.steps
    with tqdm.tqdm(total=total, desc="paths", unit="point", delay=2, leave=False, disable=None) as bar:
        for clips, paths_of_fold in by_fold.items():
            S, training = finished.features(paths_of_fold[0].second, options, options.estimate)
            known: dict[Any, dict[str, Score]] = {}
            for path, block in itertools.product(paths_of_fold, blocks):
                rows += walk(path, block, options.steps, S, training, device, bar.update, known)
            for (own, arm, _), members in seeds.items():
                if own == clips and len(members) > 1:
                    soups.append(soup([run for _, run in members], arm, S, training, device))
    return Result(tuple(rows), tuple(barriers(rows)), tuple(soups))


def _clips(run: Run) -> tuple[Any, ...]:
    """Return what runs share that are scored on the same features."""
    return run.config.fold, run.provenance["features_key"], run.clip_ids


def _check_blocks(runs: Sequence[Run], blocks: Sequence[int]) -> None:
    """Raise if a block is cut in a run."""
    for run, block in itertools.product(runs, blocks):
        if block not in run.config.plan.blocks:
            raise ParameterError(
                f"block={block} must be among {_listed(run)}: {run.path} is cut after the last of them"
            )


def _listed(run: Run) -> str:
    return ", ".join(map(str, run.config.plan.blocks))


# ------------------------------------------------------------------------------------------------ figure and text


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
    axes[0, 0].set(ylabel=accuracy.HELDOUT, ylim=(0, 103))
    axes[1, 0].set_ylabel("held-out loss [nat]")
    entries: dict[str, Any] = {}
    for ax in axes[0]:
        accuracy.level_lines(levels(result.rows), named=ax is axes[0, 0], ax=ax)
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
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
