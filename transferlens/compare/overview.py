"""All arms of a store side by side, as plain data for the report: scores by class, predictions by clip, and pairs.

* `overview`: the arms of runs, and each pair of arms that have held-out folds in common
* `surest`: the mistakes that networks are surest of, with a run that makes them
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from transferlens.compare import by_class
from transferlens.compare.ensembles import Members, networks
from transferlens.compare.pairs import Row, Side, rows_of, settings
from transferlens.compare.published import ARMS
from transferlens.measures.scoring import ONE
from transferlens.store.arms import arm_names
from transferlens.store.run import Run
from transferlens.util.errors import ParameterError
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm
from transferlens.util.text import natural

log = logging.getLogger(__name__)

# Largest number of pairs of arms that are compared: those of ten arms.
MOST_PAIRS = 45
CURVES = ("heldout_accuracy", "heldout_loss", "train_loss")


@dataclass(frozen=True)
class Clips:
    """Predictions of an arm's networks by clip.

    `clips` are places in `Overview.clips`, `labels` and `chosen` places in `Arm.classes`: the clip's class, and the one
    that each network chooses [shape=(n_networks, n_clips)]. `together` is the one of the largest mean probability,
    which is `confidence`.
    """

    clips: list[int]
    labels: list[int]
    chosen: list[list[int]]
    together: list[int]
    confidence: list[float]


@dataclass(frozen=True)
class Arm:
    """The networks of one arm, over the held-out clips of all its folds.

    `scores` has the rows of each class (`by_class.ClassRow`), and `overall` those over all classes
    (`by_class.OverallRow`), of single networks and of their ensemble. `curves` has the mean over runs of each value by
    epoch, the lowest and the highest. `clips` is None where it was left out.
    """

    name: str
    dataset: str
    classes: list[str]
    folds: list[str]
    n_networks: int
    scores: dict[str, list[dict[str, Any]]]
    overall: dict[str, dict[str, Any]]
    curves: dict[str, dict[str, list[float]]]
    clips: Clips | None


@dataclass(frozen=True)
class Pair:
    """Two arms, by their places in `Overview.arms`, on the folds that both have: `rows` over all clips and by fold."""

    first: int
    second: int
    settings: list[tuple[str, str, str]]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Overview:
    """The arms of a store; `left_out` is why others are missing, and `n_more` the number of pairs not compared."""

    arms: list[Arm]
    pairs: list[Pair]
    clips: list[str]
    left_out: list[str]
    n_more: int = 0
    sides: tuple[Side, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the overview as JSON can have it."""
        return asdict(replace(self, sides=()))

    def within(self, nbytes: float) -> Overview:
        """Return the overview with the clips of as many arms, the first ones, as there is room for [bytes]."""
        arms = []
        for arm in self.arms:
            nbytes -= size(arm.clips)
            arms.append(arm if nbytes >= 0 else replace(arm, clips=None))
        return replace(self, arms=arms)


def size(clips: Clips | None) -> int:
    """Return about how large predictions are as text [bytes]."""
    return 0 if clips is None else len(clips.clips) * (22 + 4 * len(clips.chosen))


def overview(runs: Sequence[Run]) -> Overview:
    """Return the arms of runs, of any data sets and backbones; arms whose folds are incomplete are left out by name."""
    sides, left_out = [], []
    for name, runs_of_arm in _by_arm(runs).items():
        if runs_of_arm[0].scoring is not ONE:
            left_out.append(f"{name}: its clips have several labels; `classes` scores each")
            continue
        try:
            sides.append(_side(runs_of_arm, name))
        except ParameterError as error:
            left_out.append(f"{name}: {error}")
    places: dict[str, int] = {}
    arms = [_arm(side, places) for side in sides]
    allowed = [pair for pair in itertools.combinations(range(len(sides)), 2) if _comparable(sides, *pair)]
    bar = tqdm.tqdm(allowed[:MOST_PAIRS], unit="pair", desc="pairs of arms", delay=2, disable=None)
    compared = [_pair(sides, *pair) for pair in bar]
    pairs = [pair for pair in compared if pair is not None]
    return Overview(arms, pairs, [*places], left_out, len(allowed) - len(allowed[:MOST_PAIRS]), tuple(sides))


def _by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by arm, named with data set and backbone where there are several; references come first."""
    n_datasets, n_backbones = (len({getattr(run.config, name) for run in runs}) for name in ("dataset", "backbone"))
    named = []
    for group in group_by(runs, lambda run: (run.config.dataset, run.label_names)).values():
        named += [*zip(arm_names(group), group, strict=True)]
    arms: dict[str, list[Run]] = {}
    for arm, run in sorted(named, key=_place):
        words = [run.config.dataset] * (n_datasets > 1) + [run.config.backbone] * (n_backbones > 1) + [arm]
        arms.setdefault(", ".join(words), []).append(run)
    return arms


def _place(named: tuple[str, Run]) -> tuple[Any, ...]:
    """Return a key that sorts arms by data set and backbone, and in these the paper's arms first."""
    arm, config = named[0], named[1].config
    references = [*ARMS.values()]
    order = references.index(config.plan) if config.plan in references else len(references)
    return natural(config.dataset), natural(config.backbone), order, natural(arm)


def _side(runs: Sequence[Run], name: str) -> Side:
    return Side(runs, replace(networks(runs)[0], name=name))


def _arm(side: Side, places: dict[str, int]) -> Arm:
    """Return an arm; clips without a place get one."""
    members, runs = side.members, side.runs
    chosen = by_class.predicted(members, by_class.SINGLE)
    whos = by_class.whos(members)
    return Arm(
        name=members.name,
        dataset=runs[0].config.dataset,
        classes=[*members.classes],
        folds=sorted(set(members.folds.tolist()), key=natural),
        n_networks=len(members.names),
        scores={who: [_plain(vars(row)) for row in by_class.rows_of(members, who)] for who in whos},
        overall={who: _plain(vars(by_class.overall(members, who))) for who in whos},
        curves={name: _curve([run.history[name] for run in runs]) for name in CURVES},
        clips=Clips(
            clips=[places.setdefault(clip, len(places)) for clip in members.clips],
            labels=members.labels.tolist(),
            chosen=chosen.tolist(),
            together=members.average.argmax(1).tolist(),
            confidence=members.average.max(1).round(3).tolist(),
        ),
    )


def _curve(histories: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Return mean, lowest and highest value by epoch."""
    values = np.stack(histories)
    columns = {"mean": values.mean(0), "low": values.min(0), "high": values.max(0)}
    return {name: column.astype(float).round(5).tolist() for name, column in columns.items()}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can have it: numbers rounded, None for those that are not defined."""
    return {name: _number(value) if isinstance(value, float) else value for name, value in row.items()}


def _number(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _comparable(sides: Sequence[Side], first: int, second: int) -> bool:
    """Return whether two arms have the same data set and classes, and held-out folds in common."""
    one, other = sides[first], sides[second]
    same = one.runs[0].config.dataset == other.runs[0].config.dataset and one.members.classes == other.members.classes
    return same and bool(_common(one, other))


def _common(one: Side, other: Side) -> set[str]:
    return set(one.members.runs) & set(other.members.runs)


def _pair(sides: Sequence[Side], first: int, second: int) -> Pair | None:
    """Compare two arms on the folds that both have; None, with a warning, if their clips differ."""
    one, other = sides[first], sides[second]
    folds = _common(one, other)
    try:
        one, other = (_on_folds(side, folds) for side in (one, other))
        other = replace(other, members=other.members.in_order_of(one.members))
    except ParameterError as error:
        log.warning("not compared: %s", error)
        return None
    rows: list[Row] = rows_of(one, other)[0]
    differing = [(row.setting, row.network, row.other) for row in settings(one, other)]
    return Pair(first, second, differing, [_plain(vars(row)) for row in rows])


def _on_folds(side: Side, folds: set[str]) -> Side:
    if folds == set(side.members.runs):
        return side
    return _side([run for run in side.runs if run.config.fold in folds], side.name)


def surest(sides: Sequence[Side], most: int) -> list[tuple[Run, str]]:
    """Return clips that networks classify wrongly, the surest first and each once, with a run that held it out.

    Arms take turns: the surest mistake of each, then the second of each, and so on.
    """
    turns = itertools.zip_longest(*(_mistakes(side.members, most) for side in sides))
    clips: dict[str, Run] = {}
    for run, clip in filter(None, itertools.chain.from_iterable(turns)):
        clips.setdefault(clip, run)
    return [(run, clip) for clip, run in itertools.islice(clips.items(), most)]


def _mistakes(members: Members, most: int) -> Iterator[tuple[Run, str]]:
    for mistake in by_class.mistakes(members, most):
        yield members.runs[mistake.fold][0], mistake.clip
