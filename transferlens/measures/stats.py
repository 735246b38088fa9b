"""Means with intervals. All intervals of the project come from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

__all__ = [
    "Difference",
    "Interval",
    "bootstrap_interval",
    "by_fold",
    "fold_interval",
    "fold_means",
    "folds_text",
    "mean_interval",
    "paired_difference",
    "standard_error",
    "wilson_interval",
]


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
    values: Sequence[float] | np.ndarray,
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
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0:
        raise ParameterError(f"values of shape {x.shape} must be one axis of at least 1 value")
    if not np.isfinite(x).all():
        raise ParameterError(f"values must be finite: {x.tolist()}")
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r} must lie between 0 and 1")
    if not 0 <= test_to_train < float("inf"):
        raise ParameterError(f"test_to_train={test_to_train!r} must be 0 or more, and finite")
    mean, n = float(x.mean()), x.size
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1, level)
    spread = x.std(ddof=1) * np.sqrt(1 / n + test_to_train)
    half = scipy.stats.t.ppf((1 + level) / 2, n - 1) * spread
    return Interval(mean, float(max(bounds[0], mean - half)), float(min(bounds[1], mean + half)), n, level)


def fold_interval(
    values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0), kept: int = 0, level: float = 0.95
) -> Interval:
    """Mean over the folds of one cross-validation, allowing for the training clips that they share.

    `mean_interval` with one fold held out and the others trained on. Where some folds were never held out it is wider
    than it need be.

    Parameters
    ----------
    values : sequence of float
        One a fold.
    bounds : tuple of float
    kept : int >= 0
        Folds kept from training besides the one held out.
    level : float in (0, 1)

    Examples
    --------
    >>> print(fold_interval([0.90, 0.92, 0.94]))
    92.0 % (95 % interval 84.1 to 99.9), n = 3
    """
    return mean_interval(values, level=level, bounds=bounds, test_to_train=1 / max(1, len(values) - 1 - kept))


@dataclass(frozen=True)
class Difference:
    """Mean difference of two arms over the same folds, and how surprising it is where there is none.

    Attributes
    ----------
    interval : Interval
    p_value : float
        Two-sided, of the corrected resampled t-test; NaN for one fold.
    """

    interval: Interval
    p_value: float


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, test_to_train: float | None = None, level: float = 0.95
) -> Difference:
    """`a` less `b`, fold by fold, by the corrected resampled t-test of Nadeau and Bengio.

    Parameters
    ----------
    a, b : sequence of float
        Accuracies of two arms on the same folds, in the same order.
    test_to_train : float >= 0, optional
        Clips held out over clips trained on. Default: one fold over all others, 1/4 with five folds.
    level : float in (0, 1)

    Raises
    ------
    ParameterError
        Where the lengths differ, or as for `mean_interval`.

    References
    ----------
    C. Nadeau, Y. Bengio: Inference for the Generalization Error. Machine Learning 52 (2003), section 4.

    Examples
    --------
    >>> found = paired_difference([0.92, 0.95, 0.93], [0.90, 0.90, 0.90])
    >>> print(found.interval.text("points"), f"p = {found.p_value:.3f}")
    3.3 points (95 % interval -2.7 to 9.3), n = 3 p = 0.139
    """
    if len(a) != len(b):
        raise ParameterError(f"a has {len(a)} folds and b has {len(b)}: they must be of the same folds")
    differences = np.subtract(a, b)
    if test_to_train is None:
        test_to_train = 1 / max(1, len(differences) - 1)
    interval = mean_interval(differences, level=level, bounds=(-1.0, 1.0), test_to_train=test_to_train)
    if interval.n == 1:
        return Difference(interval, float("nan"))
    error = differences.std(ddof=1) * np.sqrt(1 / interval.n + test_to_train)
    if error == 0:
        return Difference(interval, 0.0 if interval.mean else 1.0)
    return Difference(interval, float(2 * scipy.stats.t.sf(abs(interval.mean) / error, interval.n - 1)))


def wilson_interval(right: int, n: int, *, level: float = 0.95) -> Interval:
    """Accuracy of one network on one fold, with Wilson's score interval over clips.

    Parameters
    ----------
    right : int in 0..n
        Clips that were predicted rightly.
    n : int > 0
    level : float in (0, 1)

    References
    ----------
    E. B. Wilson: Probable inference, the law of succession, and statistical inference. JASA 22 (1927).
    R. G. Newcombe: Two-sided confidence intervals for the single proportion. Statistics in Medicine 17 (1998).

    Examples
    --------
    >>> print(wilson_interval(72, 80))
    90.0 % (95 % interval 81.5 to 94.8), n = 80
    """
    if not (n >= 1 and 0 <= right <= n):
        raise ParameterError(f"right={right!r} must be from 0 to n={n!r}, and n at least 1")
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r} must lie between 0 and 1")
    found = scipy.stats.binomtest(int(right), int(n)).proportion_ci(level, method="wilson")
    return Interval(right / n, float(found.low), float(found.high), int(n), level)


def bootstrap_interval(
    values: Sequence[float],
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Mean over clips with its percentile bootstrap interval.

    It says how far the mean would move with other clips, for the networks as they are: what training anew would change
    is not in it.

    Parameters
    ----------
    values : sequence of float
        One a clip: whether it was right, or the difference of two networks there.
    level : float in (0, 1)
    bounds : tuple of float
        What the interval is cut to.
    resamples : int > 0
    seed : int >= 0

    References
    ----------
    B. Efron, R. Tibshirani: An Introduction to the Bootstrap. 1993, section 13.3.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ParameterError(f"values of shape {x.shape} must be one axis of at least 1 value, all finite")
    if not 0 < level < 1:
        raise ParameterError(f"level={level!r} must lie between 0 and 1")
    if resamples < 1:
        raise ParameterError(f"resamples={resamples!r} must be at least 1")
    mean, n = float(x.mean()), x.size
    if n == 1:
        return Interval(mean, float("nan"), float("nan"), 1, level)
    options = {"confidence_level": level, "n_resamples": resamples, "method": "percentile", "batch": 1000}
    found = scipy.stats.bootstrap((x,), np.mean, rng=np.random.default_rng(seed), **options).confidence_interval
    return Interval(mean, float(max(bounds[0], found.low)), float(min(bounds[1], found.high)), n, level)
