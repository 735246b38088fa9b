"""Ensembles: runs grouped by fold and averaged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transferlens.measures import predictions, stats
from transferlens.store.run import Run, arm_names, check_alike
from transferlens.util.errors import ParameterError

log = logging.getLogger(__name__)

FEWEST = 2


def average(logits: np.ndarray) -> np.ndarray:
    """The ensemble's probabilities: the mean of the members' softmax outputs.

    Parameters
    ----------
    logits : ndarray [shape=(n_members, n_clips, n_classes)]

    Returns
    -------
    probabilities : ndarray [shape=(n_clips, n_classes)]

    Raises
    ------
    ParameterError
        Where the shape is another, or a logit is not finite.

    References
    ----------
    Palanisamy, Singhania and Yao 2020, section 4.3.

    Examples
    --------
    >>> average(np.log([[[0.9, 0.1]], [[0.5, 0.5]]])).round(3).tolist()
    [[0.7, 0.3]]
    """
    logits = np.asarray(logits)
    if logits.ndim != 3 or 0 in logits.shape:
        raise ParameterError(f"logits of shape {logits.shape} must be (n_members, n_clips, n_classes)")
    return predictions.softmax(logits).mean(0)


@dataclass(frozen=True)
class Members:
    """Networks whose outputs are averaged, over the held-out clips of all folds.

    Attributes
    ----------
    name : str
    names : tuple of str [shape=(n_members,)]
        Backbone and seed of each.
    logits : ndarray [shape=(n_members, n_clips, n_classes)]
    labels : ndarray of int [shape=(n_clips,)]
    folds : ndarray of str [shape=(n_clips,)]
    missing : tuple of str
        Members that some fold lacks, and which are left out.
    arm : str
        What `arm_names` calls the runs.
    """

    name: str
    names: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    missing: tuple[str, ...] = ()
    arm: str = ""

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of every member [shape=(n_members, n_clips, n_classes)]."""
        return predictions.softmax(self.logits)

    @cached_property
    def average(self) -> np.ndarray:
        """The ensemble's [shape=(n_clips, n_classes)]."""
        return average(self.logits)


def _members(arm: str, name: str, runs: Mapping[tuple[str, str], Run]) -> Members:
    """Of runs by (fold, member): those members that every fold has."""
    folds = list(dict.fromkeys(fold for fold, _ in runs))
    everyone = list(dict.fromkeys(member for _, member in runs))
    names = [member for member in everyone if all((fold, member) in runs for fold in folds)]
    if len(names) < FEWEST:
        raise ParameterError(
            f"ckpt has {len(names)} members of {name!r} that every one of its {len(folds)} folds has: "
            f"an ensemble takes at least {FEWEST}"
        )
    for fold in folds:
        check_alike([runs[fold, member] for member in names], "labels", "held-out clips (fold)")
    first = [runs[fold, names[0]] for fold in folds]
    return Members(
        name=name,
        names=tuple(names),
        logits=np.stack([np.concatenate([runs[fold, member].logits for fold in folds]) for member in names]),
        labels=np.concatenate([run.labels for run in first]),
        folds=np.concatenate([np.full(len(run.labels), run.config.fold) for run in first]),
        missing=tuple(member for member in everyone if member not in names),
        arm=arm,
    )


def gather(runs: Sequence[Run]) -> list[Members]:
    """Ensembles of runs: of each arm and backbone over its seeds, and of each arm over all backbones.

    Raises
    ------
    ParameterError
        Where runs of one fold have other clips or labels, data sets differ, or an ensemble has one member only.
    """
    check_alike(runs, "dataset", "labels")
    arms: dict[str, dict[str, dict[tuple[str, str], Run]]] = {}
    names = arm_names(runs)
    for arm, run in zip(names, runs, strict=True):
        config = run.config
        member = f"{config.backbone} seed {config.seed}"
        arms.setdefault(arm, {}).setdefault(config.backbone, {})[config.fold, member] = run
    found = []
    for arm, backbones in arms.items():
        suffix = "" if len(arms) == 1 else f", {arm}"
        alone = {name: mine for name, mine in backbones.items() if len({member for _, member in mine}) >= FEWEST}
        found += [_members(arm, f"{name}{suffix}", mine) for name, mine in alone.items()]
        if len(backbones) > 1:
            together = {key: run for mine in backbones.values() for key, run in mine.items()}
            members = _members(arm, f"all {len(backbones)} backbones{suffix}", together)
            # Where folds lack those of a backbone, another one may be all that is left.
            if all(any(name.startswith(f"{each} ") for name in members.names) for each in backbones):
                found.append(members)
    if not found:
        raise ParameterError(f"ckpt names one member of each ensemble: an ensemble takes at least {FEWEST}, by seed")
    used = {(members.arm, name) for members in found for name in members.names}
    others = {
        f"{run.config.backbone} seed {run.config.seed}, {arm}"
        for arm, run in zip(names, runs, strict=True)
        if (arm, f"{run.config.backbone} seed {run.config.seed}") not in used
    }
    if others:
        log.warning("left out, as no other is like them: %s", "; ".join(sorted(others)))
    return found


@dataclass(frozen=True)
class Row:
    """One ensemble in the CSV: of the clips of one fold, or where `fold` is empty of all. Accuracies are fractions.

    `single` is the members' mean, `single_std` the standard deviation over members, as the paper reports it; `gain` is
    the ensemble less `single`, with a 95 % bootstrap interval over clips. Squared errors (Brier): `brier_single` is
    `brier` + `ambiguity`. `nll` is the negative log-likelihood [nat], `ece` the expected calibration error.
    """

    ensemble: str
    fold: str
    n_clips: int
    n_members: int
    single: float
    single_std: float
    accuracy: float
    gain: float
    gain_low: float
    gain_high: float
    disagreement: float
    brier_single: float
    brier: float
    ambiguity: float
    nll_single: float
    nll: float
    ece_single: float
    ece: float
    missing: str


def row_of(members: Members, fold: str = "") -> Row:
    """Scores of one ensemble, over all clips or those of one fold."""
    mine = members.folds == fold if fold else slice(None)
    each, mean, labels = members.probabilities[:, mine], members.average[mine], members.labels[mine]
    right, right_mean = predictions.accuracy(each, labels), predictions.accuracy(mean, labels)
    gain = stats.bootstrap_interval(right_mean - right.mean(0), bounds=(-1.0, 1.0))
    return Row(
        ensemble=members.name,
        fold=fold,
        n_clips=len(labels),
        n_members=len(each),
        single=float(right.mean()),
        single_std=float(right.mean(1).std(ddof=1)),
        accuracy=float(right_mean.mean()),
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        disagreement=predictions.disagreement(each),
        brier_single=float(predictions.brier(each, labels).mean()),
        brier=float(predictions.brier(mean, labels).mean()),
        ambiguity=float(predictions.ambiguity(each).mean()),
        nll_single=float(predictions.nll(each, labels).mean()),
        nll=float(predictions.nll(mean, labels).mean()),
        ece_single=float(np.mean([predictions.calibration_error(one, labels) for one in each])),
        ece=predictions.calibration_error(mean, labels),
        missing="; ".join(members.missing),
    )
