"""The table of `transferlens.league`: means by method with intervals, differences of methods, how alike methods are.

- `ClipRow`: the scores of one method and one clip; `Row`: their mean over clips of a kind, by `means`.
- `differences` compares all pairs of methods, paired by clip; `agreement` correlates their maps.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from transferlens.explain.scores import HITS
from transferlens.measures import faithfulness, stats
from transferlens.util.grouping import group_by

# Scores whose range is not 0 to 1, or -1 to 1 for gains.
RANGES = {"randomised": (-1.0, 1.0), "max_sensitivity": (0.0, np.inf), "seconds": (0.0, np.inf)}


@dataclass(frozen=True)
class ClipRow:
    """One method and one clip of one run, in league_clips.csv, where one column per score follows."""

    method: str
    setting: str
    run: str
    fold: str
    clip: str
    recording: str
    label: str
    target: str
    subset: str
    steps: int
    scores: dict[str, float]

    @property
    def flat(self) -> dict[str, Any]:
        """The columns of the csv by name."""
        values = {name: value for name, value in vars(self).items() if name != "scores"}
        return values | self.scores


@dataclass(frozen=True)
class Row:
    """The mean of one score of one method over clips of a kind, with its 95 % interval over recordings, or clips."""

    method: str
    subset: str
    score: str
    mean: float
    low: float
    high: float
    n: int
    n_recordings: int


@dataclass(frozen=True)
class DifferenceRow:
    """Mean difference of two methods, paired by clip, with its bootstrap interval over recordings, or clips.

    `p_adjusted` is adjusted for the number of pairs of a score and subset.
    """

    score: str
    subset: str
    method: str
    other: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    n: int


@dataclass(frozen=True)
class AgreementRow:
    """Rank correlation of the maps of two methods, the mean over clips."""

    method: str
    other: str
    correlation: float
    n: int


def _groups(rows: Sequence[ClipRow]) -> list[str]:
    return [row.recording for row in rows] if rows[0].recording else []


def means(rows: Sequence[ClipRow]) -> list[Row]:
    """Return the mean of every score by method, over all clips and over those of each kind."""
    table = []
    for method, of_method in group_by(rows, attrgetter("method")).items():
        subsets = {"all": of_method} | dict(sorted(group_by(of_method, attrgetter("subset")).items()))
        names = dict.fromkeys(itertools.chain.from_iterable(row.scores for row in of_method))
        for (subset, group), score in itertools.product(subsets.items(), names):
            known = [row for row in group if np.isfinite(row.scores.get(score, np.nan))]
            if known:
                table.append(_mean(method, subset, score, known))
    return table


def _mean(method: str, subset: str, score: str, rows: Sequence[ClipRow]) -> Row:
    values, groups = [row.scores[score] for row in rows], _groups(rows)
    if score in HITS:
        it = stats.share_interval(values, groups=groups)
    else:
        bounds = (-1.0, 1.0) if score.endswith("_gain") else (0.0, 1.0)
        bounds = (-np.inf, np.inf) if score.startswith("sdr") else RANGES.get(score, bounds)
        it = stats.mean_interval(values, bounds=bounds, groups=groups)
    return Row(method, subset, score, it.mean, it.low, it.high, it.n, len(set(groups)))


def differences(rows: Sequence[ClipRow], scores: Sequence[str]) -> list[DifferenceRow]:
    """Return the differences of all pairs of methods, paired by clip, for some scores and each kind of clip."""
    table: list[DifferenceRow] = []
    subsets = {"all": rows} | dict(sorted(group_by(rows, attrgetter("subset")).items()))
    for (subset, group), score in itertools.product(subsets.items(), scores):
        by_method = group_by(group, attrgetter("method"))
        pairs = list(itertools.combinations(by_method, 2))
        found = [_difference(by_method[a], by_method[b], score) for a, b in pairs]
        if any(each is None for each in found):
            continue
        for (a, b), each in zip(pairs, stats.adjusted([each for each in found if each]), strict=True):
            it, p = each.interval, (each.p_value, each.p_adjusted)
            table.append(DifferenceRow(score, subset, a, b, it.mean, it.low, it.high, *p, it.n))
    return table


def _difference(a: Sequence[ClipRow], b: Sequence[ClipRow], score: str) -> stats.Difference | None:
    """Return the difference of two methods over the clips that have the score, None if none has."""
    pairs = [
        (row, row.scores[score] - other.scores[score])
        for row, other in zip(a, b, strict=True)
        if np.isfinite([row.scores.get(score, np.nan), other.scores.get(score, np.nan)]).all()
    ]
    if not pairs:
        return None
    return stats.bootstrap_difference([value for _, value in pairs], groups=_groups([row for row, _ in pairs]))


def agreement(maps: Mapping[str, np.ndarray]) -> list[AgreementRow]:
    """Return how alike the maps of any two methods are [shape=(n, n_mels, width) by method]."""
    n = len(next(iter(maps.values())))
    return [AgreementRow(a, b, value, n) for (a, b), value in faithfulness.agreement(maps).items()]
