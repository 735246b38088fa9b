"""Rewind: which blocks needed what training gave them?

Blocks of a trained network are put back to where they started, or to random weights, and the held-out clips are
classified again; nothing is trained [1]_ [2]_. One block is put back alone, or all blocks up to it, or all from it on;
all of their tensors, or only their filters (everything but normalisation layers), or only their normalisation layers.

Putting weights back changes the activations that BatchNorm layers see, and accuracy falls for that alone. Each network
is therefore scored twice: as it is, and with the statistics of all its BatchNorm layers estimated anew on training
clips, without labels (`transferlens.models.batchnorm`). A block needed

* **nothing** of its training, if accuracy does not fall when it is put back as it is;
* **statistics**, if accuracy falls, but does not with statistics estimated anew: the filters of the start suffice;
* **filters**, if accuracy falls in both cases ("weights" in a network without BatchNorm).

The change of similarity that training makes in a block is a question of its own: see `svcca`.

References
----------
.. [1] C. Zhang, S. Bengio, Y. Singer: Are all layers created equal? JMLR 23 (2022).
.. [2] N. S. Chatterji, B. Neyshabur, H. Sedghi: The intriguing role of module criticality in the generalization of deep
   networks. ICLR 2020.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import finished, mixtures, question
from transferlens.measures import stats
from transferlens.models import batchnorm, states
from transferlens.models.device import pick_device
from transferlens.options import PlanOptions, QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.plots import rewind as plots
from transferlens.store.arms import arm_names
from transferlens.store.kept import digest, kept
from transferlens.store.rows import levels, row_of
from transferlens.store.run import Run
from transferlens.util import lazy
from transferlens.util.fields import Rule, at_least
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from transferlens.models.network import Network
    from transferlens.training.sweep import Arm

networks = lazy.load("transferlens.models.network")

Kind = Literal["alone", "through", "from"]
Target = Literal["start", "random"]
What = Literal["all", "filters", "normalisation"]
SOME = Rule("one or more", bool)
AXES = {"alone": "Block K alone", "through": "Blocks 0 to K", "from": "Blocks K to the last"}
TRAINED = "T"
LETTERS: dict[What, str] = {"all": "A", "filters": "F", "normalisation": "N"}  # of networks in mixtures
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Put blocks of trained networks back to their start: accuracy as is, and with BatchNorm statistics estimated anew.

    Name run files (--ckpt), or the runs as for `train`. Finished runs are not trained again.
    """

    ckpt: tuple[Path, ...] = ()
    """Run files of one data set. Default: the runs that the sweep options name."""
    kind: Annotated[tuple[Kind, ...], SOME] = ("alone", "through", "from")
    """Which blocks are put back. alone: Block K. through: Blocks 0 to K. from: Block K and all that follow."""
    to: Annotated[tuple[Target, ...], SOME] = ("start",)
    """Where they are put back to. start: the weights before training. random: random weights, by the seed of the
    run."""
    what: Annotated[tuple[What, ...], SOME] = ("all", "filters", "normalisation")
    """What of them is put back. all. filters: all but normalisation layers. normalisation: these layers, with their
    statistics."""
    estimate: Annotated[int, at_least(0)] = finished.ESTIMATED_ON
    """Training clips on which BatchNorm statistics are estimated anew. 0: networks are scored as they are only."""
    tolerance: Annotated[float, at_least(0)] = 2.0
    """Loss of accuracy [points], the mean over folds, up to which a block needed nothing, or statistics only."""
    plan: PlanOptions = PlanOptions()


@dataclass(frozen=True)
class Row:
    """One run with blocks put back; accuracies are fractions.

    `block` is the K of `kind`. `accuracy` is that of the network as it is, `accuracy_anew` that with BatchNorm
    statistics estimated anew (NaN without BatchNorm, or if it was not asked for); `accuracy_run` and
    `accuracy_run_anew` are those of the trained network. `lost` and `lost_anew` are the shares of held-out clips that
    `accuracy_run` has more, and `moved` is the Euclidean distance of the parameters of Block K after training from
    what they are put back to, relative to the norm of the latter.
    """

    dataset: str
    backbone: str
    arm: str
    weights: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seed: int
    kind: str
    block: int
    to: str
    what: str
    accuracy: float
    accuracy_anew: float
    accuracy_run: float
    accuracy_run_anew: float
    lost: float
    lost_anew: float
    moved: float
    run: str
    chance: float = np.nan
    commonest: float = np.nan


@dataclass(frozen=True)
class MeanRow:
    """Blocks put back, mean over folds (seeds are averaged first), in rewind_blocks.csv.

    `statistics` are "as is" or "anew". `change` is the accuracy less that of the trained network as it is, paired by
    clip, with its 95 % interval over folds, which is conservative, the plain one (`stats.fold_interval`), and p-values
    (`stats.adjusted` for the number of rows). With one fold the interval is over its recordings, or clips: `over`.
    """

    backbone: str
    arm: str
    kind: str
    block: int
    to: str
    what: str
    statistics: str
    accuracy: float
    accuracy_run: float
    change: float
    change_low: float
    change_high: float
    change_plain_low: float
    change_plain_high: float
    change_p: float
    change_p_adjusted: float
    n_folds: int
    over: str
    moved: float
    needed: str


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run, blocks put back, and what of them; the means over folds."""

    stem = "rewind"
    rows: tuple[Row, ...]
    means: tuple[MeanRow, ...]
    tolerance: float

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the accuracies of the runs, and their means with intervals."""
        return {"rewind": self.rows, "rewind_blocks": self.means}


def points(options: Options) -> dict[str, Arm]:
    """Return the runs to train, none if run files are named."""
    return finished.points(options, "kind", "to", "what", "estimate", "tolerance")


# ------------------------------------------------------------------------------------------------ networks


def mixture(kind: Kind, block: int, letter: str, n_blocks: int) -> str:
    """Return the letters of a network with blocks of another one; its head is that of the trained one.

    Examples
    --------
    >>> mixture("through", 1, "A", 5)
    'AATTTT'
    """
    first, last = {"alone": (block, block), "through": (0, block), "from": (block, n_blocks - 1)}[kind]
    return "".join(letter if first <= i <= last else TRAINED for i in range(n_blocks)) + TRAINED


def normalisation_names(network: Network) -> set[str]:
    """Return the names of all tensors of normalisation layers."""
    norms = {
        id(tensor) for layer in networks.normalisations(network) for tensor in (*layer.parameters(), *layer.buffers())
    }
    named = (*network.named_parameters(), *network.named_buffers())
    return {name for name, tensor in named if id(tensor) in norms}


def rewound(run: Run, target: Target, whats: Sequence[What], device: torch.device) -> dict[str, Network]:
    """Return the trained network by its letter, and those with all tensors of a kind put back, by theirs."""
    final = run.model()
    state, other = final.state_dict(), run.initial_state() if target == "start" else run.random_state()
    norms, found = normalisation_names(final), {TRAINED: final.to(device)}
    chosen = {"all": {*state}, "filters": {*state} - norms, "normalisation": norms}
    for what in whats:
        network = run.model()
        network.load_state_dict(state | {name: other[name] for name in chosen[what]})
        found[LETTERS[what]] = network.to(device)
    return found


def moved(run: Run, target: Target, what: What) -> dict[int, float]:
    """Return by how much the parameters of each block have moved, relative to their norm at the start."""
    network = run.model()
    start, end = run.initial_state() if target == "start" else run.random_state(), network.state_dict()
    norms = normalisation_names(network)
    of = {"all": lambda name: True, "filters": lambda name: name not in norms, "normalisation": norms.__contains__}
    names = [name for name, _ in network.named_parameters() if of[what](name)]
    by_block = group_by(names, network.block_of)
    return {block: states.distance(start, end, by_block.get(block, [])) for block in run.config.plan.blocks}


# ------------------------------------------------------------------------------------------------ scores


@dataclass(frozen=True, eq=False)
class Scored:
    """A row with its change of each held-out clip [shape=(n_clips,)] by statistics, and the recordings of the clips."""

    row: Row
    changes: Mapping[str, np.ndarray]
    groups: tuple[str, ...]


def score(
    run: Run, arm: str, S: np.ndarray, training: np.ndarray | None, options: Options, device: torch.device, bar: Any
) -> list[Scored]:
    """Classify held-out clips, of features S, with blocks of a run put back; `training` as for `mixtures.classify`."""
    scored, blocks, whats = [], run.config.plan.blocks, list(dict.fromkeys(options.what))
    nothing = TRAINED * (len(blocks) + 1)
    places = {
        (kind, what, block): mixture(kind, block, LETTERS[what], len(blocks))
        for kind, what, block in itertools.product(dict.fromkeys(options.kind), whats, blocks)
    }
    wanted = list(dict.fromkeys([nothing, *places.values()]))
    for target in dict.fromkeys(options.to):
        by_letter = rewound(run, target, whats, device)
        by_statistics = {}
        for name, clips in (("as is", None), ("anew", training))[: 1 if training is None else 2]:
            if clips is None or batchnorm.layers(by_letter[TRAINED]):
                classify = functools.partial(mixtures.classify, run, by_letter, wanted, S, training=clips)
                asked = [digest(run.path), target, wanted, name, options.estimate, str(device)]
                by_statistics[name] = kept(options.store.cache, ["rewind", *asked], classify)
            bar.update()
        distances = {what: moved(run, target, what) for what in whats}
        for (kind, what, block), letters in places.items():
            right = {name: logits[letters].argmax(1) == run.labels for name, logits in by_statistics.items()}
            before = {name: logits[nothing].argmax(1) == run.labels for name, logits in by_statistics.items()}
            own = {"arm": arm, "kind": kind, "block": block, "to": target, "what": what}
            row = row_of(Row, run, **own, **_accuracies(right, before), moved=distances[what][block])
            changes = {name: each - before["as is"].astype(float) for name, each in right.items()}
            scored.append(Scored(row, changes, run.groups))
    return scored


def _accuracies(right: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the accuracies of a row from which clips are classified correctly with blocks put back, and before."""
    now, trained = ([each[name].mean() if name in each else NAN for name in plots.MARKS] for each in (right, before))
    names = ("accuracy", "accuracy_anew", "accuracy_run", "accuracy_run_anew", "lost", "lost_anew")
    values = (*now, *trained, *(trained[0] - each for each in now))
    return dict(zip(names, map(float, values), strict=True))


def means(scored: Sequence[Scored], tolerance: float) -> list[MeanRow]:
    """Return the means over folds, with intervals of the change and what each block needed."""
    rows, differences = [], []
    names = ("backbone", "arm", "kind", "block", "to", "what")
    for key, group in group_by(scored, key=lambda each: tuple(getattr(each.row, name) for name in names)).items():
        changes = {}
        for statistics, suffix in (("as is", ""), ("anew", "_anew")):
            if statistics not in group[0].changes:
                continue
            difference, over = _difference(group, statistics)
            changes[statistics] = 100 * difference.interval.mean
            table = [each.row for each in group]
            columns = {
                name: float(np.mean(stats.by_fold(table, field)))
                for name, field in (
                    ("accuracy", f"accuracy{suffix}"),
                    ("accuracy_run", "accuracy_run"),
                    ("moved", "moved"),
                )
            }
            n_folds = len({row.fold for row in table})
            own = dict(zip(names, key, strict=True)) | columns | difference.columns("change")
            rows.append(MeanRow(**own, statistics=statistics, n_folds=n_folds, over=over, needed=""))
            differences.append(difference)
        if key[-1] == "all":
            needed = _needed(changes, tolerance, is_estimated="anew" in changes)
            rows[-len(changes) :] = [replace(row, needed=needed) for row in rows[-len(changes) :]]
    adjusted = zip(rows, stats.adjusted(differences), strict=True)
    return [replace(row, change_p_adjusted=difference.p_adjusted) for row, difference in adjusted]


def _difference(group: Sequence[Scored], statistics: str) -> tuple[stats.Difference, str]:
    """Return the mean change with its interval, and what that is over."""
    changes = [each.changes[statistics] for each in group]
    folds = stats.fold_means([float(change.mean()) for change in changes], [each.row for each in group])
    if len(folds) > 1:
        return stats.fold_difference(folds), "folds"
    groups = group[0].groups
    return stats.bootstrap_difference(np.mean(changes, axis=0), groups=groups), "recordings" if groups else "clips"


def _needed(changes: Mapping[str, float], tolerance: float, *, is_estimated: bool) -> str:
    """Return what blocks needed of their training, by the changes of accuracy [points] as is and anew."""
    if changes["as is"] >= -tolerance:
        return "nothing"
    if not is_estimated:
        return "weights"
    return "statistics" if changes["anew"] >= -tolerance else "filters"


def analyse(runs: Mapping[str, list[Run]], options: Options) -> Result:
    """Put blocks of the runs that the options name back, and classify their held-out clips."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    trained = finished.runs_of(runs, options, "dataset")
    named = group_by(zip(trained, arm_names(trained), strict=True), key=lambda pair: finished.clips_of(pair[0]))
    scored = []
    total = len(trained) * len({*options.to}) * (1 + bool(options.estimate))
    with tqdm.tqdm(total=total, desc="rewind", unit="pass", delay=2, leave=False, disable=None) as bar:
        for pairs in named.values():
            S, training = finished.features(pairs[0][0], options, options.estimate)
            for run, arm in pairs:
                scored += score(run, arm, S, training, options, device, bar)
    return Result(tuple(each.row for each in scored), tuple(means(scored, options.tolerance)), options.tolerance)


# ------------------------------------------------------------------------------------------------ figure and text


def draw(result: Result) -> Figure:
    """Draw accuracy against the block that is put back, one column per direction; below, how far each block moved.

    Hollow marks are networks as they are, full ones those with statistics estimated anew. The background is darker the
    more a block needed.
    """
    kinds = list(dict.fromkeys(row.kind for row in result.means))
    groups = group_by(result.means, key=lambda row: (row.backbone, row.arm, row.to))
    heights = [2.6] * len(groups) + [1.0]
    size = {"width": 2.2 + 3.4 * len(kinds), "height": 1.6 + 1.15 * sum(heights)}
    fig, axes = style.new_figure(len(heights), len(kinds), **size, sharey="row", height_ratios=heights)
    palette = style.colours(LETTERS)
    for row_of_axes, ((backbone, arm, target), rows) in zip(axes, groups.items(), strict=False):
        for kind, ax in zip(kinds, row_of_axes, strict=True):
            plots.put_back([row for row in rows if row.kind == kind], palette=palette, ax=ax)
        row_of_axes[0].set_title(f"{backbone}, {arm}: back to {_words(target)}", fontsize="small", loc="left")
        row_of_axes[0].set_ylabel(accuracy.heldout())
    for kind, ax in zip(kinds, axes[-1], strict=True):
        of_kind = [[row for row in rows if (row.kind, row.what) == (kind, rows[0].what)] for rows in groups.values()]
        plots.moved(([(row.block, row.moved) for row in rows] for rows in of_kind), ax=ax)
        ax.set(xlabel=AXES[kind], xlim=axes[0, 0].get_xlim())
    axes[-1, 0].set_ylabel("relative change\nof Block K")
    for ax in axes[:-1].flat:
        accuracy.level_lines(levels(result.rows), named=ax is axes[0, 0], ax=ax)
    networks = [f"change of {backbone}, {arm}, from {_words(target)}" for backbone, arm, target in groups]
    style.legend_below(fig, axes[0, 0], marks=_marks(result) | plots.moved_marks(networks))
    style.title(fig, f"{result.rows[0].dataset}: blocks of trained networks put back, nothing is trained")
    return fig


def _words(target: str) -> str:
    return "the start" if target == "start" else "random weights"


def _marks(result: Result) -> dict[str, Any]:
    """Return the legend entries that explain the marks and the words below the blocks."""
    n = max(row.n_folds for row in result.means)
    over = style.INTERVAL if n > 1 else f"95 % interval over {result.means[0].over}"
    needed = f"what a block needed: without, more than {result.tolerance:g} points are lost"
    return {
        f"mean, n = {counted(n, 'fold')}, and {over} of the change": style.mark("o", line="-"),
        needed: style.band_mark(),
    }


def summary(result: Result) -> str:
    """Return what each block needed, and the changes of accuracy if all of it is put back."""
    lines = []
    everything = [row for row in result.means if row.what == "all"] or result.means
    for (backbone, arm, target), rows in group_by(everything, lambda row: (row.backbone, row.arm, row.to)).items():
        name = f"{backbone}, {arm}, {rows[0].what} back to {_words(target)}"
        for kind, of_kind in group_by(rows, lambda row: row.kind).items():
            needed = group_by({row.block: row.needed for row in of_kind}.items(), lambda pair: pair[1])
            words = [f"{word}: {' '.join(str(block) for block, _ in pairs)}" for word, pairs in needed.items() if word]
            lines.append(f"{name}, {AXES[kind]}{' needed ' if words else ''}{'; '.join(words)}")
            for row in of_kind:
                interval = _interval(row)
                lines.append(
                    f"  {row.block}, {row.statistics}: {100 * row.accuracy:.1f} %, "
                    f"{100 * row.change:+.1f} points{interval}; moved by {row.moved:.3f}"
                )
        if all(row.statistics == "as is" for row in rows):
            lines.append("  statistics were not estimated anew: the network has no BatchNorm, or estimate is 0")
    return "\n".join(lines)


def _interval(row: MeanRow) -> str:
    """Return the interval of a change in words."""
    if not np.isfinite(row.change_low):
        return ""
    n = f", n = {row.n_folds}" if row.over == "folds" else ""
    return f" ({100 * row.change_low:+.1f} to {100 * row.change_high:+.1f} over {row.over}{n})"


rewind = question.Question("rewind", Options, analyse, points, first="ckpt")
main = cli.command("rewind", Options, rewind)

if __name__ == "__main__":
    sys.exit(main())
