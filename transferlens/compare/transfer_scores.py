"""Outputs of blocks of networks before training, scored for clips with held-out folds.

* `outputs`: of one network; `rows_of`: the scores of one block, LogME and the accuracy of nearest neighbours
* `scored`: the rows of several networks; `check_k`: whether each held-out clip has enough neighbours
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from transferlens.measures import classes, stats
from transferlens.measures.transferability import logme, nearest
from transferlens.store.config import RunConfig
from transferlens.store.run import normalised
from transferlens.store.sources import named_by
from transferlens.training.batches import chunks
from transferlens.training.normalisation import normalisation_of_input
from transferlens.training.sweep import Study
from transferlens.training.trainer import untrained
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import torch, tqdm


class Start(NamedTuple):
    """A network that is scored: its source is "random" with the seed, or one by name."""

    backbone: str
    source: str
    seed: str = ""


@dataclass(frozen=True)
class Row:
    """One block of one network, with one fold held out, or over all folds (`fold` empty), in the CSV.

    `source` is "random" for the control, whose `seed` is named. `logme` is of the `n_train` clips that would be trained
    on; `knn` is the share of the `n_clips` held-out clips, of `n_recordings` (0: not known), that their `k` nearest
    neighbours classify correctly, with Wilson's 95 % interval over recordings. Over all folds `logme` and `n_train` are
    means. `accuracy` is the mean over `n_runs` finished runs of the kind `against`: over all folds only if each has
    one, else NaN.
    """

    dataset: str
    backbone: str
    source: str
    seed: str
    block: int
    fold: str
    n_neurons: int
    n_train: float
    n_clips: int
    n_recordings: int
    k: int
    logme: float
    knn: float
    knn_low: float
    knn_high: float
    against: str = ""
    accuracy: float = np.nan
    n_runs: int = 0
    chance: float = np.nan
    commonest: float = np.nan

    @property
    def start(self) -> Start:
        """The network."""
        return Start(self.backbone, self.source, self.seed)


def outputs(
    config: RunConfig, study: Study, blocks: Collection[int], advance: Callable[[int], object]
) -> dict[int, np.ndarray]:
    """Compute the outputs of blocks of a run's network before training, averaged over time and frequency.

    Parameters
    ----------
    config : RunConfig
        Its network and source; its fold has no effect.
    study : Study
    blocks : collection of int in 0..4
    advance : callable
        Called with the number of clips of each batch.

    Returns
    -------
    dict of int to ndarray [shape=(n_clips, channels), float32]
        By block, in the order of the clips.
    """
    data = study.data
    n_clips, n_classes = len(data.labels), len(data.label_names)
    weights = [weights for _, weights in named_by(config, study.sources)]
    normalisation = normalisation_of_input(config, data, np.arange(n_clips), weights)
    network = untrained(config, n_classes, weights).to(data.device).to(memory_format=torch.channels_last).eval()
    parts: dict[int, list[np.ndarray]] = {block: [] for block in blocks}
    with torch.no_grad():
        for x in data.batches(chunks(np.arange(n_clips), config.cost(n_classes).pass_size())):
            state = normalised(x, normalisation).contiguous(memory_format=torch.channels_last)
            for block in range(max(blocks) + 1):
                state = network.run(state, start=block, through=block)
                if block in parts:
                    parts[block].append(network.map(state).mean((2, 3)).cpu().numpy())
            advance(len(x))
    return {block: np.concatenate(batches) for block, batches in parts.items()}


def rows_of(
    start: Start, block: int, features: np.ndarray, study: Study, splits: Mapping[str, tuple], k: int
) -> list[Row]:
    """Return the scores of a block: a row per held-out fold, and the last one over all folds.

    Parameters
    ----------
    start : Start
    block : int in 0..4
    features : ndarray [shape=(n_clips, n_neurons)]
    study : Study
    splits : mapping of str to (ndarray of int, ndarray of int)
        The indices of training and held-out clips by fold.
    k : int > 0
        Number of nearest neighbours.
    """
    labels, names = study.data.labels, np.array(study.dataset.recordings, dtype=object)

    def row(fold: str, n_train: float, score: float, right: np.ndarray, held_out: np.ndarray, commonest: float) -> Row:
        """Return the row of a fold, or of all, from which held-out clips are classified correctly."""
        groups = names[held_out].tolist() if len(names) else []
        knn = stats.share_interval(right, groups=groups)
        return Row(
            *(study.dataset.name, *start, block, fold, features.shape[1]),
            n_train=n_train,
            n_clips=len(right),
            n_recordings=len(set(groups)),
            k=k,
            logme=score,
            knn=knn.mean,
            knn_low=knn.low,
            knn_high=knn.high,
            chance=1 / len(study.data.label_names),
            commonest=commonest,
        )

    rows, rights = [], []
    for fold, (training, held_out) in splits.items():
        groups = {"groups": names[training], "query_groups": names[held_out]} if len(names) else {}
        predicted = nearest(features[training], labels[training], features[held_out], k=k, **groups)
        rights.append(predicted == labels[held_out])
        score = logme(features[training], labels[training])
        commonest = classes.commonest_share(labels[training], labels[held_out])
        rows.append(row(fold, len(training), score, rights[-1], held_out, commonest))
    means = (float(np.mean([getattr(of_fold, name) for of_fold in rows])) for name in ("n_train", "logme", "commonest"))
    n_train, score, commonest = means
    held_out = np.concatenate([held_out for _, held_out in splits.values()])
    return [*rows, row("", n_train, score, np.concatenate(rights), held_out, commonest)]


def check_k(study: Study, splits: Mapping[str, tuple], k: int) -> None:
    """Raise if a held-out clip has too few neighbours, before anything is computed."""
    names = study.dataset.recordings or [clip.id for clip in study.dataset.clips]
    for fold, (training, held_out) in splits.items():
        trained_on = Counter(names[i] for i in training)
        if k > (n := len(training) - max(trained_on[names[i]] for i in held_out)):
            raise ParameterError(
                f"k={k} must be at most {n}: clips of fold {fold} of {study.dataset.name} have no more neighbours in "
                "the other folds, of other recordings"
            )


def scored(
    study: Study, networks: Mapping[Start, RunConfig], blocks: Sequence[int], splits: Mapping[str, tuple], k: int
) -> list[Row]:
    """Run one network after the other, and score its blocks; one network's outputs are held at a time."""
    n_clips, rows = len(study.dataset.clips), []
    look: dict[str, Any] = {"delay": 2, "leave": False, "disable": None}
    with (
        tqdm.tqdm(total=len(networks) * n_clips, desc="networks", unit="clip", **look) as passes,
        tqdm.tqdm(total=len(networks) * len(blocks), desc="scores", unit="block", **look) as scores,
    ):
        for start, config in networks.items():
            for block, features in outputs(config, study, blocks, passes.update).items():
                rows += rows_of(start, block, features, study, splits, k)
                scores.update()
    return rows
