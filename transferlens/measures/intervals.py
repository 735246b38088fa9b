"""What `transferlens.measures.stats` computes from and returns: values by fold, means with intervals, differences.

Values are fractions: accuracies, or differences of them.

- `Folds`: one value per held-out fold, and how the data were split
- `Interval`: a mean with its interval
- `Difference`: a mean difference of two arms, with its interval and p-values
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens.util.text import span


class Folds(list[float]):
    """One value per held-out fold, the mean over its seeds, and how the data were split.

    Attributes
    ----------
    test_to_train : float > 0
        Number of held-out clips over number of training clips. Default: all folds are there, one is held out, and the
        others are trained on.
    n_clips, n_recordings : int
        Number of held-out clips in all folds, and of the recordings that they were cut from; 0 if it is not known.
    """

    def __init__(
        self,
        values: Iterable[float],
        *,
        test_to_train: float = float("nan"),
        n_clips: int = 0,
        n_recordings: int = 0,
    ) -> None:
        super().__init__(values)
        self.n_clips, self.n_recordings = n_clips, n_recordings
        self.test_to_train = test_to_train if np.isfinite(test_to_train) else 1 / max(1, len(self) - 1)


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Attributes
    ----------
    mean, low, high : float
        Fractions; `low` and `high` are NaN without an interval: n is 1, or all values are equal.
    n : int
        Number of values averaged.
    level : float in (0, 1)
        Confidence level.
    note : str
        Why the interval is missing, or why it is not the usual one.
    plain_low, plain_high : float
        The interval without the correction for shared training clips; NaN if `low` and `high` have none.
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95
    note: str = ""
    plain_low: float = float("nan")
    plain_high: float = float("nan")

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite([self.low, self.high]).all())

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False if there is none."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return self.text("%")

    def text(self, unit: str) -> str:
        """Return the interval in words; `unit` is "%" for fractions and "points" for differences of them."""
        bounds = f"{100 * self.level:.0f} % interval {span(100 * self.low, 100 * self.high)}" if self.is_bounded else ""
        plain = f"plain {span(100 * self.plain_low, 100 * self.plain_high)}" if np.isfinite(self.plain_low) else ""
        words = ", ".join(filter(None, (bounds, plain, self.note)))
        return f"{100 * self.mean:.1f} {unit}{f' ({words})' if words else ''}, n = {self.n}"


@dataclass(frozen=True)
class Difference:
    """Mean difference of two arms over the same folds or clips, with a test of whether there is any.

    Attributes
    ----------
    interval : Interval
    p_value : float
        Two-sided; NaN without an interval.
    p_adjusted : float
        The same, adjusted for the number of differences by `adjusted`; NaN before.
    """

    interval: Interval
    p_value: float
    p_adjusted: float = float("nan")

    def __str__(self) -> str:
        name, p = ("p", self.p_value) if np.isnan(self.p_adjusted) else ("adjusted p", self.p_adjusted)
        return self.interval.text("points") + ("" if np.isnan(p) else f", {name} = {p:.3f}")

    def columns(self, name: str) -> dict[str, Any]:
        """Return the mean as the column `name` of a table, and bounds and p-values as columns that begin with it."""
        bounds = {bound: getattr(self.interval, bound) for bound in ("low", "high", "plain_low", "plain_high")}
        values = bounds | {"p": self.p_value, "p_adjusted": self.p_adjusted}
        return {name: self.interval.mean} | {f"{name}_{key}": value for key, value in values.items()}
