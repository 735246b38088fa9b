"""SVCCA, PWCCA, linear CKA and Procrustes of representations that are seen batch by batch.

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

from transferlens.measures.cca import RESAMPLED, Analysis, Coordinates, Similarity, Sums, unbiased_hsic
from transferlens.measures.stats import check_level
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, at_least, checked, shown
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

# Activations of both sides, those of Y for other clips, and the group of each sample.
Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Moments:
    """Sums of products of two representations of the same samples, which are added batch by batch.

    Parameters
    ----------
    variance : float in (0, 1]
        Share of the variance of each side that SVCCA keeps.
    pwcca_variance : float in (0, 1]
        Share that PWCCA keeps. Default: `variance`. Its definition keeps all.
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
    def __init__(
        self,
        *,
        variance: Annotated[float, VARIANCE] = 0.99,
        pwcca_variance: Annotated[float | None, VARIANCE] = None,
        groups: Annotated[int, at_least(1)] = 1,
    ) -> None:
        self.variance, self.pwcca_variance, self.groups = variance, pwcca_variance or variance, groups
        self.n_samples, self.is_shuffled = 0, False
        self.n_neurons: tuple[int, int] | None = None
        self._held: list[Batch] = []
        self._stream: _Stream | None = None
        self._analysed: tuple[Analysis, Analysis, _Stream] | None = None

    def update(
        self, X: np.ndarray, Y: np.ndarray, *, group: int | np.ndarray = 0, shuffled: np.ndarray | None = None
    ) -> None:
        """Add activations for the same samples.

        Parameters
        ----------
        X, Y : ndarray [shape=(n_samples, n_neurons)]
            The numbers of neurons of X and Y may differ, but not from batch to batch.
        group : int, or ndarray [shape=(n_samples,)]
            The group of all these samples, or of each.
        shuffled : ndarray [shape=(n_samples, n_neurons)]
            The rows of Y in another order, such that no row belongs to the clip of that row of X: for `null`.

        Raises
        ------
        ParameterError
            If the shapes do not fit, or a value is NaN, infinite, or beyond 1e60.
        """
        X, Y = _checked("X", X), _checked("Y", Y)
        if len(X) != len(Y):
            raise ParameterError(f"X has {len(X)} samples and Y has {len(Y)}: they must be of the same samples")
        others = Y[:0] if shuffled is None else _checked("shuffled", shuffled)
        if shuffled is not None and others.shape != Y.shape:
            raise ParameterError(f"shuffled of shape {others.shape} must have the shape of Y, {Y.shape}")
        try:
            numbers = np.asarray(group)
        except ValueError:  # rows of several lengths
            numbers = np.empty(())
        if numbers.dtype.kind not in "iu" or not ((numbers >= 0) & (numbers < self.groups)).all():
            raise ParameterError(f"group={shown(group)} must be from 0 to {self.groups - 1}")
        if numbers.shape not in ((), (len(X),)):
            raise ParameterError(f"group of shape {numbers.shape} must be one number, or one per sample, {len(X)}")
        self.n_neurons = self.n_neurons or (X.shape[1], Y.shape[1])
        for name, neurons, activations in zip("XY", self.n_neurons, (X, Y), strict=True):
            if activations.shape[1] != neurons:
                raise ParameterError(f"{name} has {activations.shape[1]} neurons, and had {neurons} before")
        if self.n_samples and self.is_shuffled != (shuffled is not None):
            raise ParameterError("shuffled must be given with every batch, or with none")
        self.is_shuffled = shuffled is not None
        self.n_samples += len(X)
        self._analysed = None
        batch = (X, Y, others, np.broadcast_to(numbers, len(X)))
        self._held.append(batch)
        if sum(len(held[0]) for held in self._held) < FIRST * max(self.n_neurons):
            self._held[-1] = tuple(array.copy() for array in batch)
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
        return self._analyse()[0].measures["svcca"]

    def pwcca(self) -> Similarity:
        """Return the mean of the canonical correlations weighted by what they explain; see `similarity.pwcca`."""
        return self._analyse()[1].measures["pwcca"]

    def cka(self, *, debiased: bool = False) -> Similarity:
        """Return linear centred kernel alignment; see `similarity.cka`."""
        analysis, _, stream = self._analyse()
        return _debiased(analysis, stream.sums()) if debiased else analysis.cka()

    def procrustes(self) -> Similarity:
        """Return the angular Procrustes similarity; see `similarity.procrustes`."""
        return self._analyse()[0].procrustes()

    def measure(self) -> dict[str, Similarity]:
        """Return all measures by name."""
        return self._measured(shuffled=False)

    def null(self) -> dict[str, Similarity]:
        """Return all measures of X with the shuffled Y, by name: what samples give whose clips do not belong together.

        Raise ParameterError if no shuffled rows were given.
        """
        if not self.is_shuffled:
            raise ParameterError("shuffled must have been given with each update: null needs it")
        return self._measured(shuffled=True)

    def _measured(self, *, shuffled: bool) -> dict[str, Similarity]:
        """Return all measures of X with Y, or with the shuffled Y."""
        analysis, wider, stream = self._analyse()
        sums = stream.sums(shuffled=shuffled)
        if shuffled:
            paired = analysis.paired_otherwise(_plain(sums))
            wider = paired if wider is analysis else wider.paired_otherwise(_plain(sums))
            analysis = paired
        others = {"debiased_cka": _debiased(analysis, sums), "procrustes": analysis.procrustes()}
        return analysis.measures | {"pwcca": wider.measures["pwcca"]} | others

    def _analyse(self) -> tuple[Analysis, Analysis, _Stream]:
        """Return the analysis of all samples so far, that for PWCCA, and the sums."""
        if self._analysed is None:
            if self.n_samples < 2:
                raise ParameterError(f"n_samples={self.n_samples} must be at least 2")
            if self._stream is not None and self._held:
                self._flush()
            # Few samples are summed for now only: more may change the coordinates.
            stream = self._stream or _Stream(self._held, self.groups)
            analyses = {
                share: Analysis(_plain(stream.sums()), stream.coordinates, variances=(share, share))
                for share in (self.variance, self.pwcca_variance)
            }
            self._analysed = analyses[self.variance], analyses[self.pwcca_variance], stream
        return self._analysed

    def jackknife(self) -> np.ndarray:
        """Return SVCCA, PWCCA and CKA without each group that has samples in turn [shape=(n_groups, 3)].

        Directions are chosen anew, among those that hold nearly all of the variance: the weakest are dropped, which
        hold a tenth of the rest.
        """
        analysis, wider, stream = self._analyse()
        found = stream.without(analysis)
        if wider is not analysis:
            found[:, RESAMPLED.index("pwcca")] = stream.without(wider)[:, RESAMPLED.index("pwcca")]
        return found

    @checked
    def bootstrap(
        self,
        *,
        resamples: Annotated[int, at_least(1)] = 1000,
        level: float = 0.95,
        seed: Annotated[int, at_least(0)] = 0,
    ) -> dict[str, tuple[float, float]]:
        """Return percentile intervals of SVCCA, PWCCA and CKA, by bootstrap over the groups.

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

        The interval is for the similarity that as many other clips have on average. That of many more clips is lower,
        as few samples make it high whatever the clips are; see `null`. ``benchmarks/similarity_coverage.py`` measures
        how often it covers, on features of a network.

        References
        ----------
        .. [1] A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. Cambridge 1997, section 2.7.3.
        .. [2] T. Hesterberg: What teachers should know about the bootstrap. The American Statistician 69, 2015,
           section 5.
        """
        check_level(level)
        if sum(group.n > 0 for group in self._analyse()[2].groups) < FEWEST_GROUPS:
            return dict.fromkeys(RESAMPLED, (float("nan"), float("nan")))
        analysis, wider, _ = self._analyse()
        similarities = analysis.measures | {"pwcca": wider.measures["pwcca"]}
        spread = _percentiles(self.jackknife(), resamples=resamples, level=level, seed=seed)
        return {
            name: tuple(np.clip(similarities[name].similarity + bounds, 0, 1).tolist())
            for name, bounds in zip(RESAMPLED, spread.T, strict=True)
        }


def _percentiles(without: np.ndarray, *, resamples: int, level: float, seed: int) -> np.ndarray:
    """Return bounds of the changes of means [shape=(2, n_measures)], from means without each of n groups in turn."""
    n, rng = len(without), np.random.default_rng(seed)
    changes = (without.mean(0) - without) * (n - 1) / n
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    spread = weights @ changes * np.sqrt(n / (n - 1))
    quantiles = scipy.stats.norm.cdf(scipy.stats.t.ppf([(1 - level) / 2, (1 + level) / 2], n - 1))
    return np.percentile(spread, 100 * quantiles, axis=0)


def _plain(sums: Sums) -> Sums:
    """Return the sums of the coordinates alone, without the squared lengths."""
    return Sums(sums.n, sums.first[:-2], sums.second[:-2, :-2])


def _debiased(analysis: Analysis, sums: Sums) -> Similarity:
    """Return debiased CKA from sums of coordinates and squared lengths."""
    if sums.n < 4:
        return analysis.of_all_neurons(float("nan"))
    p = len(analysis.coordinates[0])
    x, y = (slice(0, p), -2), (slice(p, -2), -1)
    both, of_x, of_y = (unbiased_hsic(sums, a, b) for a, b in ((x, y), (x, x), (y, y)))
    if min(of_x, of_y) <= 0:
        return analysis.of_all_neurons(0.0)
    return analysis.of_all_neurons(min(1.0, both / np.sqrt(of_x) / np.sqrt(of_y)))


class _Stream:
    """Sums of samples, in coordinates that are computed from the first samples, and of their squared lengths.

    A row is the coordinates of X, those of Y, and the squared length of each. The products with the shuffled Y, of the
    coordinates and the squared length of each side, are summed apart.
    """

    def __init__(self, batches: Sequence[Batch], groups: int) -> None:
        X, Y, _, _ = _joined(batches)
        n = FIRST * max(X.shape[1], Y.shape[1])
        x, y = (Coordinates.of(side[:n].astype(float)) for side in (X, Y))
        self.coordinates, width = (x, y), len(x) + len(y)
        self.n, self.first, self.second = 0, np.zeros(width + 2), np.zeros((width + 2, width + 2))
        self.shuffled = np.zeros((len(x) + 1, len(y) + 1))
        self.groups = [_Group(width) for _ in range(groups if groups > 1 else 0)]
        self.add(batches)

    def add(self, batches: Sequence[Batch]) -> None:
        """Add batches, together: many small products would cost more than one."""
        X, Y, shuffled, group = _joined(batches)
        for start in range(0, len(X), BLOCK):
            rows = slice(start, start + BLOCK)
            x, y, other = (
                side(values[rows])
                for side, values in zip((*self.coordinates, self.coordinates[1]), (X, Y, shuffled), strict=True)
            )
            lengths = [np.einsum("ij,ij->i", side, side)[:, None] for side in (x, y, other)]
            Z = np.hstack([x, y, *lengths[:2]])
            self.n += len(Z)
            self.first += Z.sum(0)
            self.second += Z.T @ Z
            if len(other):
                self.shuffled += np.hstack([x, lengths[0]]).T @ np.hstack([other, lengths[2]])
            for number in np.unique(group[rows]) if self.groups else ():
                self.groups[number].add(Z[group[rows] == number, :-2])

    def without(self, analysis: Analysis) -> np.ndarray:
        """Return SVCCA, PWCCA and CKA without each group that has samples in turn [shape=(n_groups, 3)]."""
        bases = [side.vectors for side in analysis.directions]
        return analysis.without(group.sums(analysis.mean, bases) for group in self.groups if group.n)

    def sums(self, *, shuffled: bool = False) -> Sums:
        """Return the sums so far, or those of X with the shuffled Y."""
        if not shuffled:
            return Sums(self.n, self.first, self.second)
        p, second = len(self.coordinates[0]), self.second.copy()
        x, y = [*range(p), -2], [*range(p, len(second) - 2), -1]
        second[np.ix_(x, y)], second[np.ix_(y, x)] = self.shuffled, self.shuffled.T
        return Sums(self.n, self.first, second)


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


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return several batches as one."""
    X, Y, shuffled, groups = map(np.concatenate, zip(*batches, strict=True))
    return X, Y, shuffled, groups


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
