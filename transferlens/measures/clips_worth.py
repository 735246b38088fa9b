"""How many times the clips one curve of accuracies needs to be as good as another: their horizontal distance.

A curve is accuracies against numbers of clips, interpolated linearly between the logarithms of the numbers. It reaches
an accuracy where it first attains it. The distance of two curves is a factor: 4 if the second needs four times the
clips. Where a curve ends too low, the distance is a bound.

- `times_at`: at one accuracy
- `times`: the geometric mean over all accuracies that both curves reach
- `over_folds`: the mean of either over folds, with its interval
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transferlens.measures import stats
from transferlens.util.errors import ParameterError
from transferlens.util.text import counted

# Accuracies at which `times` compares two curves.
LEVELS = 101
Bound = Literal["", "more than", "less than", "not known"]


@dataclass(frozen=True)
class Curve:
    """Accuracies against numbers of clips.

    Attributes
    ----------
    clips : sequence of float > 0
        In increasing order.
    accuracies : sequence of float in [0, 1], as many
    """

    clips: Sequence[float]
    accuracies: Sequence[float]

    def __post_init__(self) -> None:
        n, clips = len(self.accuracies), np.asarray(self.clips, float)
        if not n or clips.shape != (n,) or not (clips > 0).all() or not (np.diff(clips) > 0).all():
            raise ParameterError(f"clips={list(self.clips)} must be {n} numbers above 0 that increase, 1 or more")

    def reaches(self, accuracy: float) -> float:
        """Return the number of clips with which the curve first attains an accuracy; infinity if it never does.

        It is the first number of the curve for accuracies that it begins above.

        Examples
        --------
        >>> round(Curve([1, 2, 4], [0.2, 0.4, 0.6]).reaches(0.5), 3)
        2.828
        """
        values = np.asarray(self.accuracies, float)
        above = np.flatnonzero(values >= accuracy)
        if not len(above):
            return float("inf")
        i = int(above[0])
        if i == 0:
            return float(self.clips[0])
        return float(np.exp(np.interp(accuracy, values[i - 1 : i + 1], np.log(self.clips[i - 1 : i + 1]))))


@dataclass(frozen=True)
class Times:
    """A factor, and whether it is a bound: the true one is "more than" this, or "less than" it."""

    factor: float
    bound: Bound = ""


def times_at(accuracy: float, clips: float, other: Curve) -> Times:
    """Return how many times a number of clips the `other` curve needs for an accuracy.

    Examples
    --------
    >>> other = Curve([1, 2, 4], [0.0, 0.2, 0.4])
    >>> times_at(0.4, 2, other), times_at(0.6, 2, other)
    (Times(factor=2.0, bound=''), Times(factor=2.0, bound='more than'))
    """
    needed = other.reaches(accuracy)
    if not np.isfinite(needed):
        return Times(other.clips[-1] / clips, "more than")
    return Times(needed / clips, "less than" if other.accuracies[0] > accuracy else "")


def times(one: Curve, other: Curve) -> Times:
    """Return how many times the clips of `one` the `other` needs: the geometric mean over accuracies that both reach.

    If all of `one` is above the `other`, it needs more than its largest number of clips over the smallest of `one`.

    Examples
    --------
    >>> one, other = Curve([1, 2, 4], [0.2, 0.4, 0.6]), Curve([1, 2, 4], [0.0, 0.2, 0.4])
    >>> round(times(one, other).factor, 6), round(times(other, one).factor, 6)
    (2.0, 0.5)
    """
    low, high = max(one.accuracies[0], other.accuracies[0]), min(max(one.accuracies), max(other.accuracies))
    if low <= high:
        ratios = [other.reaches(level) / one.reaches(level) for level in np.linspace(low, high, LEVELS)]
        return Times(float(np.exp(np.mean(np.log(ratios)))))
    if one.accuracies[0] > max(other.accuracies):
        return Times(other.clips[-1] / one.clips[0], "more than")
    return Times(other.clips[0] / one.clips[-1], "less than")


@dataclass(frozen=True)
class Worth:
    """The mean of a factor over folds, geometric, with its interval.

    Attributes
    ----------
    factor, low, high, plain_low, plain_high : float
        `low` to `high` is the 95 % interval of `stats.fold_interval`, of the logarithms, and the others are the plain
        one; NaN without an interval: there is one fold, or the factor is a bound.
    bound : str
        Whether the factor is a bound, as some fold has one only; "not known" if folds have bounds on both sides.
    n_folds, n_bounds : int
        Number of folds, and of those that have only a bound.
    """

    factor: float
    low: float
    high: float
    plain_low: float
    plain_high: float
    bound: Bound
    n_folds: int
    n_bounds: int

    def __str__(self) -> str:
        folds = f"n = {counted(self.n_folds, 'fold')}"
        if self.bound == "not known":
            return f"an unknown number of times the clips (bounds on both sides), {folds}"
        if self.bound:
            some = f"a bound in {self.n_bounds} of {self.n_folds}"
            return f"{self.bound} {digits(self.factor)} times the clips ({some}), {folds}"
        if np.isnan(self.low):
            return f"{digits(self.factor)} times the clips, {folds}"
        plain = f"plain {digits(self.plain_low)} to {digits(self.plain_high)}"
        interval = f"95 % interval {digits(self.low)} to {digits(self.high)}"
        return f"{digits(self.factor)} times the clips ({interval}, {plain}), {folds}"


def digits(factor: float) -> str:
    """Return a factor with two digits: 0.25, 2.5, 25.

    Examples
    --------
    >>> [digits(factor) for factor in (0.254, 2.54, 25.4, 254.0)]
    ['0.25', '2.5', '25', '254']
    """
    return f"{factor:.{0 if factor >= 9.95 else 1 if factor >= 0.995 else 2}f}"


def over_folds(values: Sequence[Times], folds: stats.Folds) -> Worth:
    """Return the mean of the factors of folds, with its interval; `folds` knows how the data were split.

    A bound counts as its value: if bounds are all on one side, the mean is a bound on that side, without an interval.

    Examples
    --------
    >>> folds = stats.Folds([0.9, 0.9, 0.9])
    >>> print(over_folds([Times(2.0), Times(4.0), Times(8.0)], folds))
    4.0 times the clips (95 % interval 0.26 to 61, plain 0.71 to 22), n = 3 folds
    >>> print(over_folds([Times(2.0), Times(8.0, "more than")], folds))
    more than 4.0 times the clips (a bound in 1 of 2), n = 2 folds
    """
    logs = stats.Folds(np.log([value.factor for value in values]).tolist(), test_to_train=folds.test_to_train)
    interval = stats.fold_interval(logs, bounds=(-np.inf, np.inf))
    bounds: list[Bound] = list({value.bound for value in values if value.bound})
    bound: Bound = "not known" if len(bounds) > 1 else next(iter(bounds), "")
    ends = (interval.low, interval.high, interval.plain_low, interval.plain_high)
    low, high, plain_low, plain_high = np.exp(np.full(4, np.nan) if bound else np.array(ends)).tolist()
    factor = float("nan") if bound == "not known" else float(np.exp(interval.mean))
    n_bounds = sum(value.bound != "" for value in values)
    return Worth(factor, low, high, plain_low, plain_high, bound, len(values), n_bounds)
