"""Ensembles: networks of the same held-out clips, whose probabilities are averaged, and their scores."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np

from transferlens.measures import classes, multilabel, predictions
from transferlens.measures.classes import IF_SEVERAL, IF_UNEVEN
from transferlens.measures.scoring import ONE, Scoring
from transferlens.store.arms import arm_names
from transferlens.store.run import Run, check_alike
from transferlens.util.errors import ParameterError
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, some

log = logging.getLogger(__name__)

FEWEST = 2


def average(logits: np.ndarray, scoring: Scoring = ONE) -> np.ndarray:
    """Return the ensemble's probabilities [shape=(n_clips, n_classes)]: the mean of the members' softmax outputs.

    As in Palanisamy, Singhania and Yao (2020, section 4.3); logits are (n_members, n_clips, n_classes). Where clips
    have several labels, as `scoring` says, it is the mean of sigmoids.

    Examples
    --------
    >>> average(np.log([[[0.9, 0.1]], [[0.5, 0.5]]])).round(3).tolist()
    [[0.7, 0.3]]
    """
    logits = np.asarray(logits)
    if logits.ndim != 3 or 0 in logits.shape:
        raise ParameterError(f"logits of shape {logits.shape} must be (n_members, n_clips, n_classes)")
    return scoring.probabilities(logits).mean(0)


@dataclass(frozen=True)
class Members:
    """Networks of one arm whose outputs are averaged, over the held-out clips of all folds.

    Logits are (n_members, n_clips, n_classes), labels as in `Run`, and folds (n_clips,); `groups` are the recordings
    of the clips, empty if they are not known; `n_train` is the number of training clips by fold, and `commonest` the
    accuracy of always naming the commonest class. `names` are backbone and seed of each member. Members without a run
    in every fold are left out, and named in `missing`. `runs` are those of each fold, in the order of the members.
    `soup` are logits (n_clips, n_classes) of the network whose weights are the mean of the members' weights, if they
    have been computed (`finished.with_soups`).
    `clips` are the ids of the clips, `classes` the names of the classes; `backbone` is empty if there are several.
    """

    name: str
    names: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    missing: tuple[str, ...] = ()
    arm: str = ""
    n_train: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    runs: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)
    soup: np.ndarray | None = None
    clips: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    backbone: str = ""
    commonest: Mapping[str, float] = field(default_factory=dict)
    scoring: Scoring = ONE

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probabilities of every member [shape=(n_members, n_clips, n_classes)]."""
        return self.scoring.probabilities(self.logits)

    @cached_property
    def average(self) -> np.ndarray:
        """Probabilities of the ensemble [shape=(n_clips, n_classes)]."""
        return average(self.logits, self.scoring)

    @property
    def n_recordings(self) -> int:
        """Number of recordings that the clips were cut from; 0 if it is not known."""
        return len(set(self.groups))

    def levels(self, clips: slice | np.ndarray = slice(None)) -> dict[str, Any]:
        """Return the columns of the accuracies to compare with (`store.rows.levels`), over some clips."""
        known = [self.commonest.get(fold, np.nan) for fold in self.folds[clips]]
        chance = self.scoring.chance(self.labels[clips], self.logits.shape[-1])
        return {"chance": chance, "commonest": float(np.mean(known))}

    def in_order_of(self, other: Members) -> Members:
        """Return these networks with the clips in the order of others; raise ParameterError if they differ."""
        places = {clip: i for i, clip in enumerate(self.clips)}
        if places.keys() != set(other.clips):
            both = " and ".join(some(dict.fromkeys(members.folds.tolist())) for members in (self, other))
            raise ParameterError(
                f"{self.name} and {other.name} differ in held-out clips (folds {both}): compare runs of the same folds"
            )
        order = [places[clip] for clip in other.clips]
        if not np.array_equal(self.labels[order], other.labels):
            raise ParameterError(
                f"{self.name} and {other.name} differ in the labels of clips: compare runs of one table"
            )
        groups = tuple(self.groups[i] for i in order) if self.groups else ()
        logits, labels, folds = self.logits[:, order], self.labels[order], self.folds[order]
        return replace(self, logits=logits, labels=labels, folds=folds, clips=other.clips, groups=groups)


def _member(run: Run) -> str:
    return f"{run.config.backbone} seed {run.config.seed}"


def _members(arm: str, name: str, runs: Sequence[Run], *, fewest: int = FEWEST) -> Members:
    """Return those members that every fold has."""
    by_key = {(run.config.fold, _member(run)): run for run in runs}
    folds, everyone = (list(dict.fromkeys(values)) for values in zip(*by_key, strict=True))
    names = [member for member in everyone if all((fold, member) in by_key for fold in folds)]
    if len(names) < fewest:
        remedy = (
            f"an ensemble takes at least {FEWEST}" if fewest == FEWEST else "name the runs of one seed for every fold"
        )
        raise ParameterError(
            f"ckpt has {counted(len(names), 'member')} of {name!r} that every one of its "
            f"{counted(len(folds), 'fold')} has: {remedy}"
        )
    for fold in folds:
        check_alike([by_key[fold, member] for member in names], "labels", "held-out clips (fold)")
    first = [by_key[fold, names[0]] for fold in folds]
    return Members(
        name=name,
        names=tuple(names),
        logits=np.stack([np.concatenate([by_key[fold, member].logits for fold in folds]) for member in names]),
        labels=np.concatenate([run.labels for run in first]),
        folds=np.concatenate([np.full(len(run.labels), run.config.fold) for run in first]),
        n_train={run.config.fold: run.n_train for run in first},
        commonest={run.config.fold: run.commonest for run in first},
        groups=tuple(group for run in first for group in run.groups) if all(run.groups for run in first) else (),
        missing=tuple(member for member in everyone if member not in names),
        arm=arm,
        runs={fold: tuple(by_key[fold, member] for member in names) for fold in folds},
        clips=tuple(clip for run in first for clip in run.clip_ids),
        classes=runs[0].label_names,
        scoring=runs[0].scoring,
    )


def networks(runs: Sequence[Run]) -> list[Members]:
    """Return the networks of each arm and backbone, one seed or more of each; other errors are those of `gather`."""
    check_alike(runs, "dataset", "labels")
    names = arm_names(runs)
    arms = group_by(zip(names, runs, strict=True), key=lambda pair: (pair[1].config.backbone, pair[0]))
    return [
        replace(_members(arm, f"{backbone}, {arm}", [run for _, run in pairs], fewest=1), backbone=backbone)
        for (backbone, arm), pairs in arms.items()
    ]


def gather(runs: Sequence[Run]) -> list[Members]:
    """Return the ensembles of runs: of each arm and backbone over its seeds, and of each arm over all backbones.

    Raise ParameterError if runs of one fold have other clips or labels, data sets differ, or there is only one member.
    """
    check_alike(runs, "dataset", "labels")
    named = list(zip(arm_names(runs), runs, strict=True))
    arms = group_by(named, key=itemgetter(0))
    ensembles = []
    for arm, pairs in arms.items():
        suffix = "" if len(arms) == 1 else f", {arm}"
        backbones = group_by((run for _, run in pairs), key=lambda run: run.config.backbone)
        for backbone, runs_of_backbone in backbones.items():
            if len({_member(run) for run in runs_of_backbone}) >= FEWEST:
                ensembles.append(_members(arm, f"{backbone}{suffix}", runs_of_backbone))
        if len(backbones) > 1:
            together = list(itertools.chain.from_iterable(backbones.values()))
            members = _members(arm, f"all {len(backbones)} backbones{suffix}", together)
            # If no run of a backbone has every fold, the others alone would remain.
            if all(any(name.startswith(f"{backbone} ") for name in members.names) for backbone in backbones):
                ensembles.append(members)
    if not ensembles:
        raise ParameterError(f"ckpt names one member of each ensemble: an ensemble takes at least {FEWEST}, by seed")
    used = {(members.arm, name) for members in ensembles for name in members.names}
    if others := {f"{_member(run)}, {arm}" for arm, run in named if (arm, _member(run)) not in used}:
        log.warning("left out, as no other run is similar: %s", "; ".join(sorted(others)))
    return ensembles


@dataclass(frozen=True)
class Row:
    """One ensemble in the CSV: over the clips of one fold, or of all if `fold` is empty. Accuracies are fractions.

    `single` is the members' mean, `single_std` the standard deviation over members, as the paper reports it; `gain` is
    `accuracy` minus `single`, with a 95 % bootstrap interval over recordings, or over clips if `n_recordings` is 0, as
    they are not known. `soup` is the accuracy of the one network whose weights are the mean of the members' weights,
    with BatchNorm statistics estimated anew, and `soup_gain` that minus `accuracy` (NaN: not asked for, or members of
    several backbones). Squared errors (Brier): `brier_single` is `brier` + `ambiguity`. `nll` is the negative
    log-likelihood [nat], `ece` the expected calibration error. Macro-F1 is shown where classes are uneven.

    Where clips have several labels, `score` is "mAP", and accuracies are mAP, means over folds of that of each fold;
    Brier and `nll` are sums over classes, `ece` is over all pairs of a clip and a class, and `disagreement` is about
    the surest class.
    """

    ensemble: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    n_members: int
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)
    single: float
    single_std: float
    accuracy: float
    macro_f1_single: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    macro_f1: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    lwlrap: float = field(default=np.nan, kw_only=True, metadata=IF_SEVERAL)
    chance: float = field(default=np.nan, kw_only=True)
    commonest: float = field(default=np.nan, kw_only=True)
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
    soup: float = np.nan
    soup_gain: float = np.nan
    soup_gain_low: float = np.nan
    soup_gain_high: float = np.nan


def macro_f1(members: Members, clips: slice | np.ndarray = slice(None)) -> dict[str, Any]:
    """Return the columns of macro-F1 over some clips, of single networks (mean) and of the ensemble.

    There are none where clips have several labels.
    """
    if members.scoring is not ONE:
        return {}
    labels, single = members.labels[clips], members.probabilities[:, clips].argmax(-1)
    return {
        "macro_f1_single": float(np.mean([classes.macro_f1(labels, one) for one in single])),
        "macro_f1": classes.macro_f1(labels, members.average[clips].argmax(-1)),
        "class_ratio": classes.unevenness(labels, n_classes=members.average.shape[-1]),
    }


def row_of(members: Members, fold: str = "") -> Row:
    """Return the scores of one ensemble, over all clips or those of one fold."""
    clips = members.folds == fold if fold else np.full(len(members.labels), True)
    groups = list(itertools.compress(members.groups, clips))
    each, mean, labels = members.probabilities[:, clips], members.average[clips], members.labels[clips]
    scoring, folds = members.scoring, members.folds[clips]
    single = np.array([scoring.over_folds(one, labels, folds) for one in each])
    gain = scoring.gain(mean, each, labels, folds, groups)
    return Row(
        ensemble=members.name,
        fold=fold,
        n_train=members.n_train.get(fold, np.nan),
        n_clips=len(labels),
        n_recordings=len(set(groups)),
        n_members=len(each),
        score=scoring.name,
        single=float(single.mean()),
        single_std=float(single.std(ddof=1)),
        accuracy=scoring.over_folds(mean, labels, folds),
        lwlrap=np.nan if scoring is ONE else multilabel.lwlrap(labels, mean),
        **macro_f1(members, clips),
        **members.levels(clips),
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        disagreement=predictions.disagreement(each),
        brier_single=float(scoring.brier(each, labels).mean()),
        brier=float(scoring.brier(mean, labels).mean()),
        ambiguity=float(predictions.ambiguity(each).mean()),
        nll_single=float(scoring.nll(each, labels).mean()),
        nll=float(scoring.nll(mean, labels).mean()),
        ece_single=float(np.mean([scoring.calibration_error(one, labels) for one in each])),
        ece=scoring.calibration_error(mean, labels),
        missing="; ".join(members.missing),
        **_soup(members, clips, groups),
    )


def _soup(members: Members, clips: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """Return the score of the mean of the weights, and its gain over the ensemble, on some clips."""
    if members.soup is None:
        return {}
    soup, where = members.soup[clips], (members.labels[clips], members.folds[clips])
    gain = members.scoring.gain(soup, members.average[clips][None], *where, groups)
    return {
        "soup": members.scoring.over_folds(soup, *where),
        "soup_gain": gain.mean,
        "soup_gain_low": gain.low,
        "soup_gain_high": gain.high,
    }
