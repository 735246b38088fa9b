"""Second moments of two representations, streamed, and the measures of similarity that come out of them.

Covariances square the condition number, so that plain ones lose every direction whose deviation is below 1e-8 of the
largest, and half the digits of others. Here they are shifted by the mean of the first samples and, where faint
directions are to be kept, taken in coordinates in which the first samples are white: the result is as exact as the
decomposition of the whole matrix. (But for directions fainter than 1e-7 of the largest that the first samples do not
have; with less than all variance kept, none such is.)

`transferlens.similarity` has the measures' definitions and sources.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from transferlens.measures.cca import FAINT, MEASURES, Frame, Similarity, Solved, Sums
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

__all__ = ["MEASURES", "Moments", "Similarity", "check_variance"]

# Samples that are in double precision at once.
BLOCK = 2048
# The first samples, this many times the neurons, are kept as they are; then they decide the coordinates.
FIRST = 4
# Squares of squares of values beyond leave the range of numbers.
LARGEST = 1e60
# Groups that intervals need: those from 5 cover 91 where they should cover 95, those from 3 cover 83.
FEWEST_GROUPS = 10
# Mean square in white coordinates (1 in the first samples) from which on a coordinate is scaled down.
LOUD = 2.0**16

# Activations of both sides, and the group of the samples.
Batch = tuple[np.ndarray, np.ndarray, int]


def _joined(batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """All samples of both sides."""
    if len(batches) == 1:
        return batches[0][:2]
    return np.concatenate([X for X, _, _ in batches]), np.concatenate([Y for _, Y, _ in batches])


class _Group:
    """Sums of the samples of one group.

    The samples themselves while they take less room than their products.
    """

    def __init__(self, width: int) -> None:
        self.n, self.first = 0, np.zeros(width)
        self.rows: list[np.ndarray] = []
        self.second: np.ndarray | None = None

    def add(self, Z: np.ndarray) -> None:
        """Add samples in the stream's coordinates."""
        self.n += len(Z)
        self.first += Z.sum(0)
        self.rows.append(Z)
        if self.n > len(self.first):
            rows, self.rows = np.concatenate(self.rows), []
            self.second = rows.T @ rows + (0 if self.second is None else self.second)

    def scale(self, factors: np.ndarray) -> None:
        """Follow a change of scale of the coordinates."""
        self.first *= factors
        self.rows = [rows * factors for rows in self.rows]
        if self.second is not None:
            self.second *= factors[:, None] * factors

    def sums(self, mean: np.ndarray, bases: Sequence[np.ndarray]) -> Sums:
        """Of the same samples less `mean`, in other coordinates of each side [shape=(n_coordinates, n_new)]."""
        p = len(bases[0])
        sides = tuple(zip((slice(None, p), slice(p, None)), bases, strict=True))
        first = np.concatenate([(self.first - self.n * mean)[side] @ basis for side, basis in sides])
        if self.second is None:
            rows = np.concatenate(self.rows) - mean
            rows = np.hstack([rows[:, side] @ basis for side, basis in sides])
            second = rows.T @ rows
        else:
            cross = np.outer(self.first, mean)
            centred = self.second - cross - cross.T + self.n * np.outer(mean, mean)
            second = np.block([[left.T @ centred[a, b] @ right for b, right in sides] for a, left in sides])
        return Sums(self.n, first, second)


class _Stream:
    """Sums in coordinates chosen by the first samples."""

    def __init__(self, batches: Sequence[Batch], variance: float, groups: int) -> None:
        self.variance = variance
        first = _joined(batches)
        neurons = max(side.shape[1] for side in first)
        # The least direction that is kept has at least the share (1 - variance) / n_neurons of the largest's variance.
        # Samples that are fewer than neurons make fewer white coordinates.
        self.plain = 1 - variance >= FAINT * neurons and len(first[0]) >= neurons
        self.frames = tuple(Frame.of(side[: FIRST * neurons].astype(float), plain=self.plain) for side in first)
        width = sum(len(frame.scale) for frame in self.frames)
        self.n, self.first, self.second = 0, np.zeros(width), np.zeros((width, width))
        self.apart = [_Group(width) for _ in range(groups if groups > 1 else 0)]
        self.add(batches)

    def add(self, batches: Sequence[Batch]) -> None:
        """Add batches, together: many small products would cost more than one."""
        X, Y = _joined(batches)
        group = np.repeat([batch[2] for batch in batches], [len(batch[0]) for batch in batches])
        space = np.empty((min(BLOCK, len(X)), len(self.first)))
        for start in range(0, len(X), BLOCK):
            rows = slice(start, start + BLOCK)
            self._add_block(X[rows], Y[rows], group[rows], space)

    def _add_block(self, X: np.ndarray, Y: np.ndarray, group: np.ndarray, space: np.ndarray) -> None:
        x, y = self.frames
        Z = space[: len(X)]
        x.move(X, out=Z[:, : len(x.scale)])
        y.move(Y, out=Z[:, len(x.scale) :])
        second = Z.T @ Z
        if not self.plain:
            loud = second.diagonal() > LOUD * len(Z)
            if loud.any():
                Z, second = self._soften(Z, second, loud)
        self.n += len(Z)
        self.first += Z.sum(0)
        self.second += second
        if self.apart:
            for number in np.unique(group):
                self.apart[number].add(Z[group == number])

    def _soften(self, Z: np.ndarray, second: np.ndarray, loud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale down coordinates that the first samples hardly had, by powers of two: nothing is rounded."""
        power = np.log2(np.where(loud, second.diagonal() / len(Z), 1.0)) / 2
        factors = 2.0 ** -np.round(power)
        x, y = self.frames
        self.frames = (x.scaled(factors[: len(x.scale)]), y.scaled(factors[len(x.scale) :]))
        both = factors[:, None] * factors
        self.first *= factors
        self.second *= both
        for each in self.apart:
            each.scale(factors)
        return Z * factors, second * both


class Moments:
    """Second moments of two representations of the same samples, fed batch by batch.

    Parameters
    ----------
    variance : float in (0, 1]
        Share of the variance of each side that SVCCA and PWCCA keep.
    groups : int > 0
        Number of groups of samples that are kept apart for the bootstrap: of clips, as positions of one clip are not
        independent. 1 keeps none apart.

    Attributes
    ----------
    n_samples : int
    n_neurons : tuple of 2 int, or None before the first batch

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> moments, mixing = Moments(variance=1), rng.normal(size=(5, 5))
    >>> for _ in range(10):
    ...     X = rng.normal(size=(100, 5))
    ...     moments.update(X, X @ mixing)
    >>> round(moments.svcca().similarity, 9)
    1.0
    """

    def __init__(self, *, variance: float = 0.99, groups: int = 1) -> None:
        check_variance(variance)
        if isinstance(groups, bool) or not hasattr(groups, "__index__") or groups < 1:
            raise ParameterError(f"groups={groups!r} must be an integer of at least 1")
        self.variance, self.groups = variance, int(groups)
        self.n_samples = 0
        self.n_neurons: tuple[int, int] | None = None
        self._waiting: list[Batch] = []
        self._stream: _Stream | None = None

    def update(self, X: np.ndarray, Y: np.ndarray, *, group: int = 0) -> None:
        """Add samples.

        Parameters
        ----------
        X, Y : ndarray [shape=(n_samples, n_neurons)]
            Of the same samples; the numbers of neurons may differ, and stay the same from batch to batch.
        group : int in 0..groups - 1
            Which group the samples belong to.

        Raises
        ------
        ParameterError
            Where shapes do not fit, or a value is NaN, infinite, or beyond 1e60.
        """
        X, Y = _checked("X", X), _checked("Y", Y)
        if len(X) != len(Y):
            raise ParameterError(f"X has {len(X)} samples and Y has {len(Y)}: they must be of the same samples")
        if isinstance(group, bool) or not hasattr(group, "__index__") or not 0 <= group < self.groups:
            raise ParameterError(f"group={group!r} must be from 0 to {self.groups - 1}")
        self.n_neurons = self.n_neurons or (X.shape[1], Y.shape[1])
        for name, neurons, given in zip("XY", self.n_neurons, (X, Y), strict=True):
            if given.shape[1] != neurons:
                raise ParameterError(f"{name} has {given.shape[1]} neurons, and had {neurons} before")
        self.n_samples += len(X)
        self.__dict__.pop("_solved", None)
        batches = [*self._waiting, (X, Y, group)]
        if sum(len(batch[0]) for batch in batches) < FIRST * max(self.n_neurons):
            self._waiting.append((X.copy(), Y.copy(), group))
        elif self._stream is None:
            self._stream, self._waiting = _Stream(batches, self.variance, self.groups), []
        else:
            self._stream.add(batches)
            self._waiting = []

    def svcca(self) -> Similarity:
        """Mean canonical correlation of the leading directions; see `svcca`."""
        return self.measure()["svcca"]

    def pwcca(self) -> Similarity:
        """Canonical correlations weighted by what they explain; see `pwcca`."""
        return self.measure()["pwcca"]

    def cka(self) -> Similarity:
        """Linear centred kernel alignment; see `cka`."""
        return self._solved[0].cka()

    def measure(self) -> dict[str, Similarity]:
        """All three measures by name, from one decomposition."""
        return self._solved[0].measure()

    @cached_property
    def _solved(self) -> tuple[Solved, list[_Group]]:
        """The decomposition of the samples so far; those that wait may decide the coordinates, for now."""
        if self.n_samples < 2:
            raise ParameterError(f"n_samples={self.n_samples} must be at least 2")
        stream = self._stream
        if stream is None:
            stream = _Stream(self._waiting, self.variance, self.groups)
        elif self._waiting:
            stream.add(self._waiting)
            self._waiting = []
        sums = Sums(stream.n, stream.first, stream.second)
        solved = Solved(sums, stream.frames, variance=stream.variance, plain=stream.plain)
        return solved, [group for group in stream.apart if group.n]

    def bootstrap(self, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Percentile intervals of all measures, by bootstrap over the groups.

        Parameters
        ----------
        resamples : int > 0
        level : float in (0, 1)
        seed : int >= 0

        Returns
        -------
        intervals : dict of measure to (low, high)
            NaN where fewer than 10 groups have samples: intervals from fewer are too narrow.

        Raises
        ------
        ParameterError
            Where an argument is outside its rule, or there are fewer than 2 samples.

        Notes
        -----
        Resampled are the changes that each group makes when it is left out (the jackknife's), decomposed anew with as
        many directions: resampled outright, groups that are drawn twice make samples fewer, and similarity higher,
        than they were. Percentiles are those of Student's t, as groups are few. Where directions are nearly equal in
        strength leaving out a group turns them, and the interval is wide rather than narrow.

        The interval says how far the number would move with other clips, as many; that few samples make it high
        whatever the clips is what `chance` tells.

        References
        ----------
        A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. Cambridge 1997, section 2.7.3.
        T. Hesterberg: What teachers should know about the bootstrap. The American Statistician 69, 2015, section 5.
        """
        for name, value, least in (("resamples", resamples, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
                raise ParameterError(f"{name}={value!r} must be an integer of at least {least}")
        if not isinstance(level, numbers.Real) or not 0 < level < 1:
            raise ParameterError(f"level={level!r} must lie between 0 and 1")
        solved, groups = self._solved
        if len(groups) < FEWEST_GROUPS:
            return dict.fromkeys(MEASURES, (float("nan"), float("nan")))
        rng, n = np.random.default_rng(seed), len(groups)
        found, without = self.measure(), solved.without(group.sums(solved.mean, solved.bases) for group in groups)
        changes = (without.mean(0) - without) * (n - 1) / n
        weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        spread = weights @ changes * np.sqrt(n / (n - 1))
        low, high = np.percentile(
            spread, 100 * scipy.stats.norm.cdf(scipy.stats.t.ppf([(1 - level) / 2, (1 + level) / 2], n - 1)), axis=0
        )
        return {
            name: tuple(np.clip(found[name].similarity + np.array([low[i], high[i]]), 0, 1).tolist())
            for i, name in enumerate(MEASURES)
        }


def _checked(name: str, values: Any) -> np.ndarray:
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise ParameterError(f"{name} must be an array (n_samples, n_neurons): its rows differ in length") from error
    if values.dtype.kind not in "biuf":
        raise ParameterError(f"{name} of dtype {values.dtype} must hold real numbers")
    if values.ndim != 2 or 0 in values.shape:
        raise ParameterError(f"{name} of shape {values.shape} must be (n_samples, n_neurons), at least 1 of each")
    if not (float(values.min()) >= -LARGEST and float(values.max()) <= LARGEST):
        raise ParameterError(f"{name} holds NaN or infinite values, or some beyond {LARGEST:g}")
    return values


def check_variance(variance: float) -> None:
    """Refuse a share that is none."""
    if not isinstance(variance, numbers.Real) or not 0 < variance <= 1:
        raise ParameterError(f"variance={variance!r} must be greater than 0 and at most 1: the share that is kept")
