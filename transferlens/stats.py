"""Means with intervals. All intervals of the project come from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens import lazy
from transferlens.errors import ParameterError

scipy = lazy.load("scipy")

__all__ = ["Interval", "by_fold", "fold_means", "folds_text", "mean_interval", "standard_error"]


@dataclass(frozen=True)
class Interval:
    """A mean of fractions (accuracies, or differences of them) with its interval.

    Attributes
    ----------
    mean, low, high : float
        Fractions; `low` and `high` are NaN where n is 1.
    n : int
        Number of values that the mean is over.
    level : float
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False where n is 1."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return self.text("%")

    def text(self, unit: str) -> str:
        """In words, with "%" for fractions and "points" for differences of them."""
        text = f"{100 * self.mean:.1f} {unit}"
        if self.n > 1:
            text += f" ({100 * self.level:.0f} % interval {100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{text}, n = {self.n}"


def fold_means(values: Sequence[float], folds: Sequence[str]) -> list[float]:
    """Mean of the values of each fold, in order of first appearance: seeds of one fold are no independent folds."""
    by_fold: dict[str, list[float]] = {}
    for value, fold in zip(values, folds, strict=True):
        by_fold.setdefault(fold, []).append(value)
    return [float(np.mean(each)) for each in by_fold.values()]


def by_fold(rows: Iterable[Any], field: str, **values: Any) -> list[float]:
    """Mean over seeds of a field in each fold, of those rows (objects with a `fold`) whose fields have the values."""
    found = [row for row in rows if all(getattr(row, name) == value for name, value in values.items())]
    return fold_means([getattr(row, field) for row in found], [row.fold for row in found])


def folds_text(n: int) -> str:
    """In words: 1 fold, 5 folds."""
    return f"{n} fold{'s' * (n != 1)}"


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; NaN for one value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def mean_interval(
    values: Sequence[float],
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
    test_to_train: float = 0.0,
) -> Interval:
    """Mean with Student's t interval, widened where the values share training clips.

    Values from the folds of one cross-validation do: taken as independent, their interval is too narrow for the
    accuracy on new data. The corrected resampled t-test of Nadeau and Bengio adds what they share to the variance
    of the mean, (1/n + n_test/n_train) times the values' variance.

    Parameters
    ----------
    values : sequence of float, at least 1
    level : float in (0, 1)
    bounds : tuple of float
        What the interval is cut to: the range in which the mean can lie.
    test_to_train : float >= 0
        Clips held out over clips trained on, 1/4 with five folds. 0 takes the values as independent.

    Raises
    ------
    ParameterError
        Where there is no value, or a number is outside its rule.

    References
    ----------
    C. Nadeau, Y. Bengio: Inference for the Generalization Error. Machine Learning 52 (2003), section 4.

    Examples
    --------
    >>> print(mean_interval([0.90, 0.92, 0.94]))
    92.0 % (95 % interval 87.0 to 97.0), n = 3
    >>> print(mean_interval([0.90, 0.92, 0.94], test_to_train=1 / 2))
    92.0 % (95 % interval 84.1 to 99.9), n = 3
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0:
        raise ParameterError(f"values of shape {values.shape} must be one axis of at least 1 value")
    if not np.isfinite(values).all():
        raise ParameterError(f"values must be finite: {values.tolist()}")
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r} must lie between 0 and 1")
    if not 0 <= test_to_train < float("inf"):
        raise ParameterError(f"test_to_train={test_to_train!r} must be 0 or more, and finite")
    mean, n = float(values.mean()), values.size
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1, level)
    spread = values.std(ddof=1) * np.sqrt(1 / n + test_to_train)
    half = scipy.stats.t.ppf((1 + level) / 2, n - 1) * spread
    return Interval(mean, float(max(bounds[0], mean - half)), float(min(bounds[1], mean + half)), n, level)
