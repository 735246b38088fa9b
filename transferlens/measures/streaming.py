"""SVCCA, PWCCA and linear CKA of representations that are seen batch by batch.

`Moments` sums the products of the activations of two representations; memory does not grow with the number of samples.
The similarities, and intervals for them, follow from the sums at any time.

Products square the deviations: in double precision, about 16 + 2 log10(s) digits remain of a direction whose standard
deviation is s times the largest. The directions that hold 99 % of the variance are as exact as from a decomposition of
the whole matrix; with ``variance=1``, weak directions are less exact.

`transferlens.measures.similarity` defines the measures and gives their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from transferlens.measures.cca import MEASURES, Analysis, Coordinates, Similarity, Sums
from transferlens.measures.stats import check_level
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, at_least, checked
from transferlens.util.lazy import scipy

# Samples that are in double precision at once.
BLOCK = 2048
# Samples are held until there are this many times as many as neurons: one large product is faster than many small ones.
FIRST = 4
# Squares of squares of larger values exceed the range of double precision.
LARGEST = 1e60
# Groups that intervals need: nominal 95 % intervals from 5 groups cover 91 %, those from 3 cover 83 %.
FEWEST_GROUPS = 10
VARIANCE = Rule("greater than 0 and at most 1: the share that is kept", lambda variance: 0 < variance <= 1)

# Activations of both sides, and the group of the samples.
Batch = tuple[np.ndarray, np.ndarray, int]


class Moments:
    """Sums of products of two representations of the same samples, which are added batch by batch.

    Parameters
    ----------
    variance : float in (0, 1]
        Share of the variance of each side that SVCCA and PWCCA keep.
    groups : int > 0
        Number of groups of samples for `jackknife` and `bootstrap`. The positions of one clip are not independent and
        belong in one group.

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

    @checked
    def __init__(self, *, variance: Annotated[float, VARIANCE] = 0.99, groups: Annotated[int, at_least(1)] = 1) -> None:
        self.variance, self.groups = variance, groups
        self.n_samples = 0
        self.n_neurons: tuple[int, int] | None = None
        self._held: list[Batch] = []
        self._stream: _Stream | None = None
        self._analysed: tuple[Analysis, list[_Group]] | None = None

    def update(self, X: np.ndarray, Y: np.ndarray, *, group: int = 0) -> None:
        """Add activations for the same samples [shape=(n_samples, n_neurons)], which belong to one group.

        The numbers of neurons of X and Y may differ, but not from batch to batch.

        Raises
        ------
        ParameterError
            If the shapes do not fit, or a value is NaN, infinite, or beyond 1e60.
        """
        X, Y = _checked("X", X), _checked("Y", Y)
        if len(X) != len(Y):
            raise ParameterError(f"X has {len(X)} samples and Y has {len(Y)}: they must be of the same samples")
        if isinstance(group, bool) or not hasattr(group, "__index__") or not 0 <= group < self.groups:
            raise ParameterError(f"group={group!r} must be from 0 to {self.groups - 1}")
        self.n_neurons = self.n_neurons or (X.shape[1], Y.shape[1])
        for name, neurons, activations in zip("XY", self.n_neurons, (X, Y), strict=True):
            if activations.shape[1] != neurons:
                raise ParameterError(f"{name} has {activations.shape[1]} neurons, and had {neurons} before")
        self.n_samples += len(X)
        self._analysed = None
        self._held.append((X, Y, group))
        if sum(len(batch[0]) for batch in self._held) < FIRST * max(self.n_neurons):
            self._held[-1] = (X.copy(), Y.copy(), group)
        else:
            self._flush()

    def _flush(self) -> None:
        """Sum the samples that are held."""
        if self._stream is None:
            self._stream = _Stream(self._held, self.groups)
        else:
            self._stream.add(self._held)
        self._held = []

    def svcca(self) -> Similarity:
        """Return the mean canonical correlation of the leading directions; see `similarity.svcca`."""
        return self.measure()["svcca"]

    def pwcca(self) -> Similarity:
        """Return the mean of the canonical correlations weighted by what they explain; see `similarity.pwcca`."""
        return self.measure()["pwcca"]

    def cka(self) -> Similarity:
        """Return linear centred kernel alignment; see `similarity.cka`."""
        return self._analyse()[0].cka()

    def measure(self) -> dict[str, Similarity]:
        """Return all three measures by name, from one decomposition."""
        return self._analyse()[0].measure()

    def _analyse(self) -> tuple[Analysis, list[_Group]]:
        """Return the analysis of all samples so far, and the groups that have samples."""
        if self._analysed is None:
            if self.n_samples < 2:
                raise ParameterError(f"n_samples={self.n_samples} must be at least 2")
            if self._stream is not None and self._held:
                self._flush()
            # Few samples are summed for now only: more may change the coordinates.
            stream = self._stream or _Stream(self._held, self.groups)
            sums = Sums(stream.n, stream.first, stream.second)
            analysis = Analysis(sums, stream.coordinates, variance=self.variance)
            self._analysed = analysis, [group for group in stream.groups if group.n]
        return self._analysed

    def jackknife(self) -> np.ndarray:
        """Return all measures without each group that has samples in turn [shape=(n_groups, n_measures)].

        As many directions are kept as for all. Of those that are not kept, the weakest, which hold a tenth of their
        variance, are dropped first.
        """
        analysis, groups = self._analyse()
        bases = [side.vectors for side in analysis.directions]
        return analysis.without(group.sums(analysis.mean, bases) for group in groups)

    @checked
    def bootstrap(
        self,
        *,
        resamples: Annotated[int, at_least(1)] = 1000,
        level: float = 0.95,
        seed: Annotated[int, at_least(0)] = 0,
    ) -> dict[str, tuple[float, float]]:
        """Return percentile intervals of all measures, by bootstrap over the groups.

        Parameters
        ----------
        resamples : int > 0
        level : float in (0, 1)
        seed : int >= 0

        Returns
        -------
        intervals : dict of measure to (low, high)
            NaN if fewer than 10 groups have samples: intervals from fewer are too narrow.

        Raises
        ------
        ParameterError
            If an argument is outside its range, or there are fewer than 2 samples.

        Notes
        -----
        The changes by which each group moves a measure when it is left out (the jackknife's) are resampled. If the
        groups themselves were resampled, some would be drawn twice: fewer different samples, and a higher similarity.
        Percentiles are those of Student's t, as groups are few. Where directions are nearly equal in strength, leaving
        out a group turns them, and the interval is wide rather than narrow.

        The interval tells how far the similarity would move with as many other clips. It does not tell that few samples
        make the similarity high whatever the clips are: see `similarity.chance`.

        References
        ----------
        .. [1] A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. Cambridge 1997, section 2.7.3.
        .. [2] T. Hesterberg: What teachers should know about the bootstrap. The American Statistician 69, 2015,
           section 5.
        """
        check_level(level)
        similarities = self.measure()
        if len(self._analyse()[1]) < FEWEST_GROUPS:
            return dict.fromkeys(MEASURES, (float("nan"), float("nan")))
        spread = _percentiles(self.jackknife(), resamples=resamples, level=level, seed=seed)
        return {
            name: tuple(np.clip(similarities[name].similarity + bounds, 0, 1).tolist())
            for name, bounds in zip(MEASURES, spread.T, strict=True)
        }


def _percentiles(without: np.ndarray, *, resamples: int, level: float, seed: int) -> np.ndarray:
    """Return bounds of the changes of means [shape=(2, n_measures)], from means without each of n groups in turn."""
    n, rng = len(without), np.random.default_rng(seed)
    changes = (without.mean(0) - without) * (n - 1) / n
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    spread = weights @ changes * np.sqrt(n / (n - 1))
    quantiles = scipy.stats.norm.cdf(scipy.stats.t.ppf([(1 - level) / 2, (1 + level) / 2], n - 1))
    return np.percentile(spread, 100 * quantiles, axis=0)


class _Stream:
    """Sums of samples, in coordinates that are computed from the first samples."""

    def __init__(self, batches: Sequence[Batch], groups: int) -> None:
        X, Y, _ = _joined(batches)
        n = FIRST * max(X.shape[1], Y.shape[1])
        x, y = (Coordinates.of(side[:n].astype(float)) for side in (X, Y))
        self.coordinates, width = (x, y), len(x) + len(y)
        self.n, self.first, self.second = 0, np.zeros(width), np.zeros((width, width))
        self.groups = [_Group(width) for _ in range(groups if groups > 1 else 0)]
        self.add(batches)

    def add(self, batches: Sequence[Batch]) -> None:
        """Add batches, together: many small products would cost more than one."""
        X, Y, group = _joined(batches)
        for start in range(0, len(X), BLOCK):
            rows = slice(start, start + BLOCK)
            Z = np.hstack([side(values[rows]) for side, values in zip(self.coordinates, (X, Y), strict=True)])
            self.n += len(Z)
            self.first += Z.sum(0)
            self.second += Z.T @ Z
            for number in np.unique(group[rows]) if self.groups else ():
                self.groups[number].add(Z[group[rows] == number])


class _Group:
    """Sums of the samples of one group; the samples themselves, while they take less memory than their products."""

    def __init__(self, width: int) -> None:
        self.n, self.first = 0, np.zeros(width)
        self.rows: list[np.ndarray] = []
        self.second: np.ndarray | None = None

    def add(self, Z: np.ndarray) -> None:
        """Add samples in the coordinates of the stream."""
        self.n += len(Z)
        self.first += Z.sum(0)
        self.rows.append(Z)
        if self.n > len(self.first):
            rows, self.rows = np.concatenate(self.rows), []
            self.second = rows.T @ rows + (0 if self.second is None else self.second)

    def sums(self, mean: np.ndarray, bases: Sequence[np.ndarray]) -> Sums:
        """Return the sums of the samples minus `mean`, in other coordinates of each side [shape=(n_coordinates, n)]."""
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


def _joined(batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all samples of both sides, and their groups."""
    X, Y, groups = zip(*batches, strict=True)
    return np.concatenate(X), np.concatenate(Y), np.repeat(groups, [len(x) for x in X])


def _checked(name: str, values: Any) -> np.ndarray:
    """Return activations as an array; raise if they are not a matrix of finite numbers."""
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
