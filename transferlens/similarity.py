"""How alike two representations are: SVCCA, PWCCA and linear CKA, exact, from covariances that are streamed.

A representation is a matrix of activations (n_samples, n_neurons); for a convolution every position is a sample and
every channel a neuron. Batches of two representations of the same samples go into `Moments`, whose memory does not
depend on their number, and all three measures and their bootstrap come out of it.

Covariances square the condition number, so that plain ones lose every direction whose deviation is below 1e-8 of the
largest, and half the digits of others. Here they are taken in coordinates in which the first samples are white, and
shifted by their mean: the result is as exact as the decomposition of the whole matrix.

References
----------
M. Raghu, J. Gilmer, J. Yosinski, J. Sohl-Dickstein: SVCCA. NeurIPS 2017, section 2.
A. Morcos, M. Raghu, S. Bengio: Insights on representational similarity in neural networks with canonical correlation.
NeurIPS 2018, section 2 (PWCCA).
S. Kornblith, M. Norouzi, H. Lee, G. Hinton: Similarity of neural network representations revisited. ICML 2019,
section 3 (linear CKA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from transferlens import lazy
from transferlens.errors import ParameterError

scipy = lazy.load("scipy")

__all__ = ["MEASURES", "Moments", "Similarity", "chance", "cka", "pwcca", "svcca"]

MEASURES = ("svcca", "pwcca", "cka")
EPS = np.finfo(np.float64).eps
# Samples that are in double precision at once.
BLOCK = 4096
# The first samples, this many times the neurons, decide which coordinates are white.
FIRST = 2
# Their directions are whitened down to this share of the largest deviation.
FLOOR = 1e-8
# Mean square in white coordinates (1 in the first samples) from which on a coordinate is scaled down.
LOUD = 2.0**16


@dataclass(frozen=True)
class Similarity:
    """How alike two representations are.

    Attributes
    ----------
    similarity : float in [0, 1]
        0 where one of them is constant: it has no direction to compare.
    correlations : ndarray [shape=(min(dims),)]
        Canonical correlations, falling; empty for CKA, which has none.
    dims : tuple of 2 int
        Directions kept of each side; for CKA those that are there.
    n_samples : int
    """

    similarity: float
    correlations: np.ndarray
    dims: tuple[int, int]
    n_samples: int


@dataclass(frozen=True)
class _Sums:
    """Number of samples, sum and second moments in white coordinates of both sides together."""

    n: int
    first: np.ndarray
    second: np.ndarray


class _White:
    """Coordinates of one side: ``(X - shift) @ to``, and back by ``@ back``."""

    def __init__(self, X: np.ndarray) -> None:
        self.shift = X.mean(0)
        # All directions, also those that fewer samples than neurons leave out; the left side is not needed.
        _, deviations, directions = np.linalg.svd(X - self.shift, full_matrices=len(X) < X.shape[1])
        deviations = np.pad(deviations, (0, X.shape[1] - len(deviations)))
        scale = np.maximum(deviations, FLOOR * deviations.max(initial=0.0)) / np.sqrt(len(X))
        scale[scale == 0] = 1.0
        self.to, self.back = directions.T / scale, scale[:, None] * directions

    def soften(self, factors: np.ndarray) -> None:
        """Scale the coordinates by `factors`."""
        self.to, self.back = self.to * factors, self.back / factors[:, None]


class _Group:
    """Moments of the samples of one group, in single precision, which in white coordinates is enough for an interval.

    The samples themselves while they take less room than their second moments.
    """

    def __init__(self, width: int) -> None:
        self.n, self.first = 0, np.zeros(width)
        self.rows: list[np.ndarray] = []
        self.second: np.ndarray | None = None

    def add(self, Z: np.ndarray) -> None:
        """Add samples in white coordinates."""
        self.n += len(Z)
        self.first += Z.sum(0)
        self.rows.append(Z.astype(np.float32))
        if self.n > len(self.first):
            rows, self.rows = np.concatenate(self.rows), []
            self.second = rows.T @ rows + (0 if self.second is None else self.second)

    def scale(self, factors: np.ndarray) -> None:
        """Follow a change of scale of the coordinates."""
        factors = factors.astype(np.float32)
        self.first *= factors
        self.rows = [rows * factors for rows in self.rows]
        if self.second is not None:
            self.second *= factors[:, None] * factors

    def moved(self, to: np.ndarray) -> _Sums:
        """Moments in other coordinates."""
        if self.second is None:
            rows = np.concatenate(self.rows) @ to
            return _Sums(self.n, self.first @ to, rows.T @ rows)
        return _Sums(self.n, self.first @ to, to.T @ self.second @ to)


class Moments:
    """Second moments of two representations of the same samples, fed batch by batch.

    Parameters
    ----------
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
    >>> moments, mixing = Moments(), rng.normal(size=(5, 5))
    >>> for _ in range(10):
    ...     X = rng.normal(size=(100, 5))
    ...     moments.update(X, X @ mixing)
    >>> round(moments.svcca(variance=1).similarity, 9)
    1.0
    """

    def __init__(self, *, groups: int = 1) -> None:
        if isinstance(groups, bool) or not hasattr(groups, "__index__") or groups < 1:
            raise ParameterError(f"groups={groups!r} must be an integer of at least 1")
        self.groups = int(groups)
        self.n_samples = 0
        self._first_batches: list[tuple[np.ndarray, np.ndarray, int]] = []
        self.n_neurons: tuple[int, int] | None = None
        self._sides: tuple[_White, _White] | None = None

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
            Where shapes do not fit, or a value is NaN or infinite.
        """
        X, Y = _checked("X", X), _checked("Y", Y)
        if len(X) != len(Y):
            raise ParameterError(f"X has {len(X)} samples and Y has {len(Y)}: they must be of the same samples")
        if not 0 <= group < self.groups:
            raise ParameterError(f"group={group!r} must be from 0 to {self.groups - 1}")
        self.n_neurons = self.n_neurons or (X.shape[1], Y.shape[1])
        for name, neurons, given in zip("XY", self.n_neurons, (X, Y), strict=True):
            if given.shape[1] != neurons:
                raise ParameterError(f"{name} has {given.shape[1]} neurons, and had {neurons} before")
        self.n_samples += len(X)
        if self._sides is None:
            self._first_batches.append((X.copy(), Y.copy(), group))
            if self.n_samples >= FIRST * max(self.n_neurons):
                self._begin()
        else:
            self._add(X, Y, group)

    def _add(self, X: np.ndarray, Y: np.ndarray, group: int) -> None:
        for start in range(0, len(X), BLOCK):
            rows = slice(start, start + BLOCK)
            self._add_block(X[rows], Y[rows], group)

    def _add_block(self, X: np.ndarray, Y: np.ndarray, group: int) -> None:
        x, y = self._sides
        Z = np.empty((len(X), sum(self.n_neurons)))
        np.matmul(X - x.shift, x.to, out=Z[:, : len(x.shift)])
        np.matmul(Y - y.shift, y.to, out=Z[:, len(x.shift) :])
        second = Z.T @ Z
        loud = second.diagonal() > LOUD * len(Z)
        if loud.any():
            Z, second = self._soften(Z, second, loud)
        self._second += second
        self._first += Z.sum(0)
        if self._apart:
            self._apart[group].add(Z)

    def _begin(self) -> None:
        """Choose the coordinates by the samples that wait, and add these."""
        waiting, self._first_batches = self._first_batches, []
        firsts = (np.concatenate([batch[side] for batch in waiting]).astype(np.float64) for side in (0, 1))
        enough = 2 * FIRST * max(self.n_neurons)
        self._sides = tuple(_White(first[:: max(1, len(first) // enough)]) for first in firsts)
        width = sum(self.n_neurons)
        self._first, self._second = np.zeros(width), np.zeros((width, width))
        self._apart = [_Group(width) for _ in range(self.groups if self.groups > 1 else 0)]
        for batch in waiting:
            self._add(*batch)

    def _soften(self, Z: np.ndarray, second: np.ndarray, loud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale down coordinates that the first samples hardly had, by powers of two: nothing is rounded."""
        power = np.log2(np.where(loud, second.diagonal() / len(Z), 1.0)) / 2
        factors = 2.0 ** -np.round(power)
        x, y = self._sides
        x.soften(factors[: len(x.shift)])
        y.soften(factors[len(x.shift) :])
        both = factors[:, None] * factors
        self._first *= factors
        self._second *= both
        for each in self._apart:
            each.scale(factors)
        return Z * factors, second * both

    def svcca(self, *, variance: float = 0.99) -> Similarity:
        """Mean canonical correlation of the leading directions; see `svcca`."""
        return self._solved(variance).svcca()

    def pwcca(self, *, variance: float = 0.99) -> Similarity:
        """Canonical correlations weighted by what they explain; see `pwcca`."""
        return self._solved(variance).pwcca()

    def cka(self) -> Similarity:
        """Linear centred kernel alignment; see `cka`."""
        return self._solved(1.0).cka()

    def measure(self, *, variance: float = 0.99) -> dict[str, Similarity]:
        """All three measures by name, from one decomposition."""
        solved = self._solved(variance)
        return {name: getattr(solved, name)() for name in MEASURES}

    def _solved(self, variance: float) -> _Solved:
        _check_variance(variance)
        if self.n_samples < 2:
            raise ParameterError(f"n_samples={self.n_samples} must be at least 2")
        if self._sides is None:
            self._begin()
        sums = _Sums(self.n_samples, self._first, self._second)
        return _Solved(sums, *(side.back for side in self._sides), variance=variance)

    def bootstrap(
        self, *, variance: float = 0.99, resamples: int = 100, level: float = 0.95, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Basic bootstrap intervals of all measures over the groups.

        Parameters
        ----------
        variance : float in (0, 1]
        resamples : int > 0
        level : float in (0, 1)
        seed : int >= 0

        Returns
        -------
        intervals : dict of measure to (low, high)
            NaN where fewer than 2 groups have samples.

        Notes
        -----
        Groups drawn twice make resamples more alike than the samples were; the basic interval (twice the estimate less
        the percentiles, within [0, 1]) takes this off. Directions that explain less than a hundredth of what `variance`
        leaves out are dropped before.

        References
        ----------
        A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. Cambridge 1997, equation 5.6.
        """
        _check_variance(variance)
        kept = 1 - (1 - variance) / 100
        to, backs = self._solved(kept).compression()
        groups = [group.moved(to) for group in self._apart if group.n]
        if len(groups) < 2:
            return dict.fromkeys(MEASURES, (float("nan"), float("nan")))
        rng, drawn = np.random.default_rng(seed), {name: [] for name in MEASURES}
        for _ in range(resamples):
            weights = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)))
            picked = [(weight, group) for weight, group in zip(weights, groups, strict=True) if weight]
            n, first, second = (
                sum(w * getattr(group, name) for w, group in picked) for name in ("n", "first", "second")
            )
            sums = _Sums(int(n), first, second)
            solved = _Solved(sums, *backs, variance=variance / kept)
            for name in MEASURES:
                drawn[name].append(getattr(solved, name)().similarity)
        ends, found = (50 * (1 + level), 50 * (1 - level)), self.measure(variance=variance)
        return {
            name: tuple(np.clip(2 * found[name].similarity - np.percentile(values, ends), 0, 1).tolist())
            for name, values in drawn.items()
        }


class _Solved:
    """Orthonormal bases of both sides' leading directions, and how they correlate.

    With the centred X = Z B (Z white, B the way back): the eigenvectors of Z'Z give Z = O F with O orthonormal, the
    singular value decomposition of the small matrix F B = P diag(s) Q' is that of X but for O, and O P are X's
    principal directions over samples.
    """

    def __init__(self, sums: _Sums, back_x: np.ndarray, back_y: np.ndarray, *, variance: float) -> None:
        self.n = sums.n
        centred = sums.second - np.outer(sums.first, sums.first) / sums.n
        p = len(back_x)
        self.x = _Side(centred[:p, :p], back_x, sums.n, variance)
        self.y = _Side(centred[p:, p:], back_y, sums.n, variance)
        self.cross = self.x.basis.T @ centred[:p, p:] @ self.y.basis
        self.dims = (self.x.n_kept, self.y.n_kept)

    @cached_property
    def _canonical(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Canonical variates of each side in its leading directions, and their correlations between them."""
        left, correlations, right = np.linalg.svd(self.cross[: self.dims[0], : self.dims[1]], full_matrices=False)
        return left, np.clip(correlations, 0, 1), right.T

    def svcca(self) -> Similarity:
        _, correlations, _ = self._canonical
        mean = float(correlations.mean()) if min(self.dims) else 0.0
        return Similarity(mean, correlations, self.dims, self.n)

    def pwcca(self) -> Similarity:
        """Weighted by the loadings of the side that keeps fewer directions."""
        if not min(self.dims):
            return Similarity(0.0, np.empty(0), self.dims, self.n)
        left, correlations, right = self._canonical
        x, y = (
            float(np.average(correlations, weights=np.abs(variates.T @ side.loadings[: side.n_kept]).sum(1)))
            for variates, side in ((left, self.x), (right, self.y))
        )
        fewer = np.sign(self.dims[0] - self.dims[1])
        return Similarity({-1: x, 0: (x + y) / 2, 1: y}[fewer], correlations, self.dims, self.n)

    def cka(self) -> Similarity:
        dims = (len(self.x.deviations), len(self.y.deviations))
        if not min(dims):
            return Similarity(0.0, np.empty(0), dims, self.n)
        cross = self.x.deviations[:, None] * self.cross * self.y.deviations
        scale = np.linalg.norm(self.x.deviations**2) * np.linalg.norm(self.y.deviations**2)
        return Similarity(min(1.0, float((cross**2).sum() / scale)), np.empty(0), dims, self.n)

    def compression(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The way from white coordinates to the leading directions, and each side's way back from those."""
        sides, root = (self.x, self.y), np.sqrt(self.n)
        to = scipy.linalg.block_diag(*(side.basis[:, : side.n_kept] for side in sides)) * root
        return to, tuple(side.loadings[: side.n_kept] / root for side in sides)


class _Side:
    """The principal directions of one side.

    Attributes
    ----------
    basis : ndarray [shape=(n_coordinates, rank)]
        From white coordinates to the directions: orthonormal over samples, the strongest first.
    deviations : ndarray [shape=(rank,)]
        Singular values of the centred activations, falling.
    loadings : ndarray [shape=(rank, n_neurons)]
        The centred activations in that basis.
    n_kept : int
        How many directions explain the variance asked for.
    """

    def __init__(self, centred: np.ndarray, back: np.ndarray, n: int, variance: float) -> None:
        squares, vectors = np.linalg.eigh(centred)
        there = squares > len(squares) * EPS * squares[-1] if len(squares) else np.zeros(0, bool)
        roots = np.sqrt(squares[there])
        factor = (roots[:, None] * vectors[:, there].T) @ back
        left, deviations, right = np.linalg.svd(factor, full_matrices=False)
        rank = int((deviations > max(n, back.shape[1]) * EPS * deviations.max(initial=0.0)).sum())
        self.deviations = deviations[:rank]
        self.basis = (vectors[:, there] / roots) @ left[:, :rank]
        self.loadings = self.deviations[:, None] * right[:rank]
        self.n_kept = _leading(self.deviations**2, variance)


def _leading(energies: np.ndarray, variance: float) -> int:
    """How many of the falling `energies` make up the share `variance`."""
    if variance >= 1 or not len(energies):
        return len(energies)
    shares = np.cumsum(energies) / energies.sum()
    return int(np.searchsorted(shares, variance) + 1)


def _checked(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or 0 in values.shape:
        raise ParameterError(f"{name} of shape {values.shape} must be (n_samples, n_neurons), at least 1 of each")
    if not np.isfinite(values).all():
        raise ParameterError(f"{name} holds NaN or infinite values")
    return values


def _check_variance(variance: float) -> None:
    if not 0 < variance <= 1:
        raise ParameterError(f"variance={variance!r} must be greater than 0 and at most 1: the share that is kept")


def _moments(X: np.ndarray, Y: np.ndarray) -> Moments:
    moments = Moments()
    moments.update(X, Y)
    return moments


def svcca(X: np.ndarray, Y: np.ndarray, *, variance: float = 0.99) -> Similarity:
    """Singular vector canonical correlation analysis.

    Of each side the leading singular directions that explain the share `variance` are kept; the similarity is the mean
    canonical correlation between them, over the smaller number of directions.

    Parameters
    ----------
    X, Y : ndarray [shape=(n_samples, n_neurons)]
        Of the same samples; the numbers of neurons may differ.
    variance : float in (0, 1]

    Returns
    -------
    Similarity

    Raises
    ------
    ParameterError
        Where shapes do not fit, a value is not finite, or `variance` is outside its rule.

    References
    ----------
    Raghu et al. 2017, section 2.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(500, 8))
    >>> round(svcca(X, 3 * X[:, ::-1]).similarity, 9)
    1.0
    """
    _check_variance(variance)
    return _moments(X, Y).svcca(variance=variance)


def pwcca(X: np.ndarray, Y: np.ndarray, *, variance: float = 0.99) -> Similarity:
    """Projection weighted canonical correlation analysis.

    As `svcca`, with each correlation weighted by how much of the neurons its canonical variate accounts for, on the
    side that keeps fewer directions (as released by the authors); the mean of both sides' where they keep as many.
    Variates whose correlations are equal can be turned into each other, and the weights are not unique then: where
    several are 1, as with fewer samples than neurons, or two linear maps of one input.

    Parameters, errors and result are those of `svcca`.

    References
    ----------
    Morcos et al. 2018, section 2, equation 2.
    """
    _check_variance(variance)
    return _moments(X, Y).pwcca(variance=variance)


def cka(X: np.ndarray, Y: np.ndarray) -> Similarity:
    """Linear centred kernel alignment: invariant to rotation and scale, not to every linear map.

    Parameters, errors and result are those of `svcca`.

    References
    ----------
    Kornblith et al. 2019, section 3, equation 3.
    """
    return _moments(X, Y).cka()


def chance(dims: Sequence[int], n_samples: int) -> float:
    """Mean canonical correlation of independent Gaussian noise, for many samples and dimensions.

    The level that SVCCA has by chance: it is far from 0 unless samples are many times the dimensions.

    Parameters
    ----------
    dims : sequence of 2 int > 0
        Directions of each side.
    n_samples : int > 1

    Returns
    -------
    level : float in [0, 1]

    References
    ----------
    K. W. Wachter: The limiting empirical measure of multiple discriminant ratios. Annals of Statistics 8 (1980).

    Examples
    --------
    >>> round(chance((10, 10), 10**6), 3)
    0.003
    """
    small, large = sorted(int(each) for each in dims)
    n = n_samples - 1
    if small < 1 or n < 1:
        raise ParameterError(f"dims={tuple(dims)} and n_samples={n_samples} must be at least 1, and 2")
    a, b = min(1.0, small / n), min(1.0, large / n)
    if b >= 1:
        return 1.0
    centre, radius = a * (1 - b) + b * (1 - a), 2 * np.sqrt(a * (1 - b) * b * (1 - a))
    # Squared correlations lie in [centre - radius, centre + radius]; those above 1 - b of n dimensions are exactly 1.
    angles = (np.arange(4096) + 0.5) * np.pi / 4096
    squares = np.clip(centre + radius * np.cos(angles), 1e-300, 1 - 1e-16)
    density = (radius * np.sin(angles)) ** 2 / (2 * np.pi * a * squares * (1 - squares)) * np.pi / 4096
    ones = max(0.0, (a + b - 1) / a)
    return float(min(1.0, (density * np.sqrt(squares)).sum() / density.sum() * (1 - ones) + ones))
