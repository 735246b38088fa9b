"""Straight lines between the weights of two networks, and averages of the weights of several.

* `Line`: a line, from the start of a run to its end or from one run to another; `paths_of`: the lines between runs
* `walk`: accuracy and loss of held-out clips along a line; `barriers`: the largest excess of the loss on each
* `soup`: the average of the weights of several seeds [1]_

References
----------
.. [1] M. Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy without
   increasing inference time. ICML 2022.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.compare import ensembles, finished
from transferlens.compare.network_pairs import NetworkPair
from transferlens.measures import predictions
from transferlens.models import batchnorm, states
from transferlens.store.arms import arm_names
from transferlens.store.heldout import classify, estimate_statistics
from transferlens.store.kept import digest, kept
from transferlens.store.run import Run, check_alike
from transferlens.util.errors import ParameterError
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network

WORDS: dict[str, str] = {
    "training": "from start to end",
    "seeds": "between two seeds",
    "runs": "between two ways of training",
}
# The runs that have a path of each kind.
ENDS = {
    "training": "a run",
    "seeds": "runs of one backbone and fold that differ by the seed alone",
    "runs": "runs of one backbone, fold and seed that were trained in two ways",
}
Score = tuple[float, float]  # accuracy and loss
WHOLE = "all"  # the block of a path of whole networks
ALIKE = ("backbone", "truncate_after", "held-out clips (fold)", "features", "normalisation")


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


@dataclass(frozen=True, eq=False)
class Line(NetworkPair):
    """The straight line between the weights of two networks: of a run before and after training, or of two runs."""

    @property
    def content(self) -> list[str]:
        """What the weights of both ends follow from."""
        return [self.kind, digest(self.first.path), digest(self.second.path)]

    def end(self, share: float, block: int | None) -> tuple[Any, ...]:
        """Return what a point is: the network of a run before or after training, which several paths have, or its own.

        With a block that moves alone, only the end of the path is such a network.
        """
        if share == 1:
            return self.second.config.id, "after"
        if share == 0 and block is None:
            return self.first.config.id, "before" if self.kind == "training" else "after"
        return self, share, block


def paths_of(runs: Sequence[Run], kinds: Collection[str] = tuple(WORDS)) -> list[Line]:
    """Return the paths of some kinds between runs.

    Raises
    ------
    ParameterError
        If there are none, or runs with paths between them cannot be compared.
    """
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
        kind, ends = (" or ".join(words[kind] for kind in kinds) for words in (WORDS, ENDS))
        raise ParameterError(f"ckpt={runs[0].path} gives no path {kind}: name {ends}")
    return chosen


def _meet(a: Run, b: Run) -> bool:
    """Return whether two runs are of one backbone, fold and seed, cut after one block."""
    keys = [(run.config.backbone, run.config.fold, run.config.seed, run.config.plan.truncate_after) for run in (a, b)]
    return keys[0] == keys[1]


def scores(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Return accuracy, a fraction, and cross-entropy [nat] of logits [shape=(n_clips, n_classes)]."""
    probabilities = predictions.softmax(logits)
    right, nll = predictions.accuracy(probabilities, labels), predictions.nll(probabilities, labels)
    return float(right.mean()), float(nll.mean())


def score(run: Run, network: Network, S: np.ndarray, training: np.ndarray | None) -> dict[str, Score]:
    """Score a network on held-out clips of a run as it is, and with statistics estimated anew on training clips.

    `S` and `training` are as for `walk`. The network has the new statistics afterwards; without BatchNorm layers or
    training clips, it is scored only as it is.
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
    cache: Path | None = None,
) -> list[Row]:
    """Score the points of a path.

    Parameters
    ----------
    path : Line
    block : int, optional
        The block that moves alone. None: the whole network moves.
    steps : int > 1
        Number of points, both ends among them.
    S : ndarray [shape=(n_clips, channels, n_mels, width)]
        Features of the held-out clips.
    training : ndarray [shape=(n, channels, n_mels, width)], optional
        Features of training clips, on which BatchNorm statistics are estimated anew. None: that is left out.
    device : torch.device
    done : callable, optional
        Called after each point.
    known : dict, optional
        Scores of ends, which several paths have: read from here, or written here.
    cache : Path, optional
        Folder in which the scores of points are kept (`store.kept`).

    Returns
    -------
    list of Row
        By the kind of statistics, in the order of the path.
    """
    known = {} if known is None else known
    run, (first, second) = path.second, path.states()
    network = run.model().to(device)
    shares = np.linspace(0, 1, steps).tolist()
    by_statistics: dict[str, list[Score]] = {}
    for share in shares:
        key = path.end(share, block)
        if key not in known:
            point = states.between(first, second, share, of=lambda name: block in (None, network.block_of(name)))
            network.load_state_dict(point)
            depends_on = ["paths", path.content, share, block, 0 if training is None else len(training), str(device)]
            values = kept(cache, depends_on, functools.partial(score, run, network, S, training))
            known[key] = {name: (float(right), float(loss)) for name, (right, loss) in values.items()}
        for statistics, found in known[key].items():
            by_statistics.setdefault(statistics, []).append(found)
        done()
    rows = []
    for statistics, line in by_statistics.items():
        above = excess([loss for _, loss in line], shares)
        for share, (right, loss), over in zip(shares, line, above.tolist(), strict=True):
            where = {"block": WHOLE if block is None else str(block), "statistics": statistics, "share": share}
            where |= {"chance": run.chance, "commonest": run.commonest}
            rows.append(Row(**_named(path), **where, accuracy=right, loss=loss, excess=over))
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
    """Score the average of the weights of runs of one fold, which differ only by the seed; see `walk` for the rest."""
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
