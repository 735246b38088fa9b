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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from transferlens.errors import ParameterError

__all__ = ["MEASURES", "Moments", "Similarity", "check_variance"]

MEASURES = ("svcca", "pwcca", "cka")
EPS = np.finfo(np.float64).eps
# Samples that are in double precision at once.
BLOCK = 4096
# The first samples, this many times the neurons, are kept as they are; then they decide the coordinates.
FIRST = 4
# Directions are whitened down to this share of the largest deviation: below, squares have no digits left.
FLOOR = 1e-7
# Directions whose variance is this share of the largest are exact from a plain covariance; fainter ones are not.
FAINT = 1e-5
# As much stronger than faint must be what the first samples keep, for the rest to be streamed without whitening.
MARGIN = 10
# Values beyond have sums that leave the range of numbers.
LARGEST = 1e250
# Up to this power of two, up or down, no square of a square leaves the range of numbers.
ORDINARY = 100
# Mean square in white coordinates (1 in the first samples) from which on a coordinate is scaled down.
LOUD = 2.0**16

# Activations of both sides, and the group of the samples.
Batch = tuple[np.ndarray, np.ndarray, int]


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
        Directions kept of each side; for CKA, which keeps all, the neurons.
    n_samples : int
    """

    similarity: float
    correlations: np.ndarray
    dims: tuple[int, int]
    n_samples: int


def _joined(batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """All samples of both sides."""
    if len(batches) == 1:
        return batches[0][:2]
    return tuple(np.concatenate([batch[side] for batch in batches]) for side in (0, 1))


@dataclass(frozen=True)
class _Frame:
    """Coordinates Z of one side: ``(X - shift) * unit = Z @ (scale[:, None] * directions)``.

    Attributes
    ----------
    shift : ndarray [shape=(n_neurons,)]
    unit : float
        1, or where samples are very large or small the power of two that brings them near 1, so that no square leaves
        the range of numbers. No measure depends on it.
    scale : ndarray [shape=(n_coordinates,)]
    directions : ndarray [shape=(n_coordinates, n_neurons)]
        Orthonormal rows.
    plain : bool
        Whether scale and directions change nothing.
    """

    shift: np.ndarray
    unit: float
    scale: np.ndarray
    directions: np.ndarray
    plain: bool = False

    @classmethod
    def of(cls, X: np.ndarray, variance: float) -> _Frame:
        """The neurons themselves where they give all directions that `variance` keeps exactly; else white ones.

        As many coordinates as there are neurons, or samples where these are fewer.
        """
        shift = X[0] + (X - X[0]).mean(0)  # constant columns become exactly zero
        largest = np.abs(X - shift).max()
        extreme = largest > 0 and abs(np.log2(largest)) > ORDINARY
        unit = 2.0 ** -np.clip(np.round(np.log2(largest)), -1000, 1000) if extreme else 1.0
        centred = (X - shift) * unit
        if len(X) < X.shape[1]:
            _, deviations, directions = np.linalg.svd(centred, full_matrices=False)
        else:
            covariance = centred.T @ centred
            if _is_strong(np.linalg.eigvalsh(covariance)[::-1], variance, MARGIN * FAINT):
                return cls(shift, unit, np.ones(len(shift)), np.eye(len(shift)), plain=True)
            squares, vectors = np.linalg.eigh(covariance)
            deviations, directions = np.sqrt(np.maximum(squares, 0)), vectors.T
        scale = np.maximum(deviations, FLOOR * deviations.max(initial=0.0)) / np.sqrt(len(X))
        scale[scale == 0] = 1.0
        return cls(shift, unit, scale, directions)

    @cached_property
    def to(self) -> np.ndarray:
        """The way there: ``Z = (X - shift) @ to``."""
        return self.directions.T * (self.unit / self.scale)

    def move(self, X: np.ndarray, out: np.ndarray) -> None:
        """Write Z to `out`."""
        if self.plain:
            np.subtract(X, self.shift, out=out)
            if self.unit != 1:
                out *= self.unit
        else:
            np.matmul(X - self.shift, self.to, out=out)

    def scaled(self, factors: np.ndarray) -> _Frame:
        """With the coordinates multiplied by `factors`."""
        return replace(self, scale=self.scale / factors)


class _Group:
    """Moments of the samples of one group.

    The samples themselves while they take less room than their second moments.
    """

    def __init__(self, width: int) -> None:
        self.n, self.first = 0, np.zeros(width)
        self.rows: list[np.ndarray] = []
        self.second: np.ndarray | None = None

    def add(self, Z: np.ndarray) -> None:
        """Add samples in the stream's coordinates."""
        self.n += len(Z)
        self.first += Z.sum(0)
        self.rows.append(Z.copy())
        if self.n > len(self.first):
            rows, self.rows = np.concatenate(self.rows), []
            self.second = rows.T @ rows + (0 if self.second is None else self.second)

    def scale(self, factors: np.ndarray) -> None:
        """Follow a change of scale of the coordinates."""
        self.first *= factors
        self.rows = [rows * factors for rows in self.rows]
        if self.second is not None:
            self.second *= factors[:, None] * factors

    def centre(self, mean: np.ndarray) -> _Group:
        """The same samples less `mean`."""
        found = _Group(len(mean))
        found.n = self.n
        if self.second is None:
            found.rows = [np.concatenate(self.rows) - mean]
        else:
            cross = np.outer(self.first, mean)
            found.second = self.second - cross - cross.T + self.n * np.outer(mean, mean)
        return found

    def products(self, a: slice, A: np.ndarray, b: slice, B: np.ndarray | None = None) -> np.ndarray:
        """Sums over samples of ``(Z[:, a] @ A) * (Z[:, b] @ B)`` [shape=(n_columns,)]; B is the identity by default."""
        if self.second is None:
            (rows,) = self.rows
            right = rows[:, b] if B is None else rows[:, b] @ B
            return ((rows[:, a] @ A) * right).sum(0)
        second = self.second[a, b]
        return (A * (second if B is None else second @ B)).sum(0)


class _Stream:
    """Moments in coordinates chosen by the first batches."""

    def __init__(self, batches: Sequence[Batch], variance: float, groups: int) -> None:
        self.variance = variance
        self.frames = tuple(_Frame.of(side.astype(np.float64), variance) for side in _joined(batches))
        width = sum(len(frame.scale) for frame in self.frames)
        self.n, self.first, self.second = 0, np.zeros(width), np.zeros((width, width))
        self.apart = [_Group(width) for _ in range(groups if groups > 1 else 0)]
        self.add(batches)

    def add(self, batches: Sequence[Batch]) -> None:
        """Add batches, together: many small products would cost more than one."""
        X, Y = _joined(batches)
        group = np.repeat([batch[2] for batch in batches], [len(batch[0]) for batch in batches])
        for start in range(0, len(X), BLOCK):
            rows = slice(start, start + BLOCK)
            self._add_block(X[rows], Y[rows], group[rows])

    def _add_block(self, X: np.ndarray, Y: np.ndarray, group: np.ndarray) -> None:
        x, y = self.frames
        Z = np.empty((len(X), len(self.first)))
        x.move(X, out=Z[:, : len(x.scale)])
        y.move(Y, out=Z[:, len(x.scale) :])
        second = Z.T @ Z
        white = np.repeat([not frame.plain for frame in self.frames], [len(frame.scale) for frame in self.frames])
        loud = white & (second.diagonal() > LOUD * len(Z))
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
            Where shapes do not fit, or a value is NaN or infinite.
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
    def _solved(self) -> tuple[_Solved, list[_Group]]:
        """The decomposition of the samples so far; those that wait may decide the coordinates, for now."""
        if self.n_samples < 2:
            raise ParameterError(f"n_samples={self.n_samples} must be at least 2")
        stream = self._stream
        if stream is None:
            stream = _Stream(self._waiting, self.variance, self.groups)
        elif self._waiting:
            stream.add(self._waiting)
            self._waiting = []
        return _Solved(stream), [group for group in stream.apart if group.n]

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
            NaN where fewer than 2 groups have samples.

        Raises
        ------
        ParameterError
            Where an argument is outside its rule, or there are fewer than 2 samples.

        Notes
        -----
        Of the measures' linear approximation: by the influence of each group, with the directions that are kept and
        the weights of PWCCA held fixed. What other clips change in these is not in the interval: with less than all
        variance kept it is too narrow. Resampled outright, groups that are drawn twice make samples fewer, and
        similarity higher, than they were. The interval says how far the number would move with other clips, as many;
        that few samples make it high whatever the clips is what `chance` tells.

        References
        ----------
        A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. Cambridge 1997, section 2.7.2.
        M. Romanazzi: Influence in canonical correlation analysis. Psychometrika 57, 1992.
        """
        for name, value, least in (("resamples", resamples, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
                raise ParameterError(f"{name}={value!r} must be an integer of at least {least}")
        if not isinstance(level, numbers.Real) or not 0 < level < 1:
            raise ParameterError(f"level={level!r} must lie between 0 and 1")
        solved, groups = self._solved
        if len(groups) < 2:
            return dict.fromkeys(MEASURES, (float("nan"), float("nan")))
        rng, n = np.random.default_rng(seed), len(groups)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        ends, found = (50 * (1 - level), 50 * (1 + level)), self.measure()
        return {
            name: tuple(
                np.clip(
                    found[name].similarity + np.percentile(weights @ influence, ends) * np.sqrt(n / (n - 1)), 0, 1
                ).tolist()
            )
            for name, influence in solved.influence(groups).items()
        }


class _Solved:
    """Both sides' leading directions, and how they correlate."""

    def __init__(self, stream: _Stream) -> None:
        self.n, self.frames, self.mean = stream.n, stream.frames, stream.first / stream.n
        centred = stream.second - np.outer(stream.first, self.mean)
        x, y = self.frames
        p = len(x.scale)
        self.cross = x.scale[:, None] * centred[:p, p:] * y.scale
        self.sides = (_Side(centred[:p, :p], x, self.n), _Side(centred[p:, p:], y, self.n))
        self.leading = tuple(side.leading(stream.variance) for side in self.sides)
        self.dims = tuple(len(side.deviations) for side in self.leading)
        a, b = (side.basis for side in self.leading)
        left, correlations, right = np.linalg.svd(a.T @ centred[:p, p:] @ b, full_matrices=False)
        self.variates = (left, right.T)
        self.correlations = np.clip(correlations, 0, 1)

    @cached_property
    def weights(self) -> np.ndarray:
        """Of PWCCA: by the loadings of the side that keeps fewer directions; of both where they keep as many."""
        by_x, by_y = (
            np.abs(variates.T @ side.loadings).sum(1)
            for variates, side in zip(self.variates, self.leading, strict=True)
        )
        if not min(self.dims):
            return np.empty(0)
        fewer = np.sign(self.dims[0] - self.dims[1])
        return {-1: by_x / by_x.sum(), 0: (by_x / by_x.sum() + by_y / by_y.sum()) / 2, 1: by_y / by_y.sum()}[fewer]

    def measure(self) -> dict[str, Similarity]:
        """All measures by name."""
        mean, weighted = (self.correlations.mean(), self.weights @ self.correlations) if min(self.dims) else (0.0, 0.0)
        return {
            "svcca": Similarity(float(mean), self.correlations, self.dims, self.n),
            "pwcca": Similarity(min(1.0, float(weighted)), self.correlations, self.dims, self.n),
            "cka": self.cka(),
        }

    def cka(self) -> Similarity:
        """Frobenius norms of the covariances, which directions, being orthonormal, do not change."""
        squared, x, y = self._norms
        dims = tuple(frame.directions.shape[1] for frame in self.frames)
        return Similarity(min(1.0, squared / (x * y)) if x and y else 0.0, np.empty(0), dims, self.n)

    @cached_property
    def _norms(self) -> tuple[float, float, float]:
        x, y = (float(np.linalg.norm(side.covariance)) for side in self.sides)
        return float(np.linalg.norm(self.cross)) ** 2, x, y

    def influence(self, groups: Sequence[_Group]) -> dict[str, np.ndarray]:
        """How much each group adds to each measure, to first order [shape=(n_groups,)]."""
        groups = [group.centre(self.mean) for group in groups]
        correlations = self._influence_on_correlations(groups)
        return {
            "svcca": correlations.mean(1) if min(self.dims) else np.zeros(len(groups)),
            "pwcca": correlations @ self.weights,
            "cka": self._influence_on_alignment(groups),
        }

    def _influence_on_correlations(self, groups: Sequence[_Group]) -> np.ndarray:
        """Of a sample with variates s and t, on a correlation r: s t - r (s**2 + t**2) / 2 (Romanazzi 1992)."""
        x, y = self._slices
        s, t = (side.basis @ variates for side, variates in zip(self.leading, self.variates, strict=True))
        return np.array(
            [
                group.products(x, s, y, t)
                - self.correlations * (group.products(x, s, x, s) + group.products(y, t, y, t)) / 2
                for group in groups
            ]
        )

    def _influence_on_alignment(self, groups: Sequence[_Group]) -> np.ndarray:
        """From the derivatives of the three norms."""
        value = self.cka().similarity
        if not value:
            return np.zeros(len(groups))
        (x, y), (squared, norm_x, norm_y) = self._slices, self._norms
        scale_x, scale_y = (frame.scale for frame in self.frames)
        terms = (
            (x, 2 * self.cross / squared, y, scale_x, scale_y),
            (x, -self.sides[0].covariance / norm_x**2, x, scale_x, scale_x),
            (y, -self.sides[1].covariance / norm_y**2, y, scale_y, scale_y),
        )
        found = np.zeros(len(groups))
        for a, form, b, scale_a, scale_b in terms:
            form = value * scale_a[:, None] * form * scale_b
            found += [group.products(a, form, b).sum() for group in groups]
        return found

    @property
    def _slices(self) -> tuple[slice, slice]:
        p = len(self.frames[0].scale)
        return slice(None, p), slice(p, None)


@dataclass(frozen=True)
class _Directions:
    """Principal directions of one side, the strongest first.

    Attributes
    ----------
    basis : ndarray [shape=(n_coordinates, n_kept)]
        From white coordinates to the directions: orthonormal over samples.
    deviations : ndarray [shape=(n_kept,)]
        Singular values of the centred activations, falling.
    loadings : ndarray [shape=(n_kept, n_neurons)]
        The centred activations in that basis.
    """

    basis: np.ndarray
    deviations: np.ndarray
    loadings: np.ndarray


class _Side:
    """The principal directions of one side, of which X = Z S D is centred: Z white, S diagonal, D orthonormal.

    The eigenvectors of S Z'Z S are the directions, exact where they are not faint. For faint ones the eigenvectors of
    Z'Z, which is well-conditioned, give Z = O F with O orthonormal, and the singular value decomposition of the small
    matrix F S is that of X but for O and D.
    """

    def __init__(self, moments: np.ndarray, frame: _Frame, n: int) -> None:
        self.moments, self.frame, self.n = moments, frame, n
        self.covariance = frame.scale[:, None] * moments * frame.scale

    @cached_property
    def _from_covariance(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        squares, vectors = np.linalg.eigh(self.covariance)
        return np.maximum(squares[::-1], 0), vectors[:, ::-1]

    @cached_property
    def _from_factor(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        squares, vectors = np.linalg.eigh(self.moments)
        there = squares > len(squares) * EPS * squares.max(initial=0.0)
        roots = np.sqrt(squares[there])
        factor = (roots[:, None] * vectors[:, there].T) * self.frame.scale
        left, deviations, right = np.linalg.svd(factor, full_matrices=False)
        return (vectors[:, there] / roots) @ left, deviations, right

    def leading(self, variance: float) -> _Directions:
        """Those that explain this share of the variance."""
        squares, vectors = self._from_covariance
        kept = _leading(squares, variance)
        if _is_strong(squares, variance, FAINT):
            deviations, vectors = np.sqrt(squares[:kept]), vectors[:, :kept]
            basis, right = self.frame.scale[:, None] * vectors / deviations, vectors.T
        else:
            basis, deviations, right = self._from_factor
            rank = int((deviations > max(self.n, right.shape[1]) * EPS * deviations.max(initial=0.0)).sum())
            kept = _leading(deviations[:rank] ** 2, variance)
            basis, deviations, right = basis[:, :kept], deviations[:kept], right[:kept]
        return _Directions(basis, deviations, deviations[:, None] * right @ self.frame.directions)


def _leading(energies: np.ndarray, variance: float) -> int:
    """How many of the falling `energies` make up the share `variance`."""
    if variance >= 1 or not energies.any():
        return len(energies)
    sums = np.cumsum(energies)
    return int(np.searchsorted(sums, variance * sums[-1]) + 1)


def _is_strong(squares: np.ndarray, variance: float, share: float) -> bool:
    """Whether all directions that are kept have at least this share of the largest one's variance."""
    return variance < 1 and bool(squares[_leading(squares, variance) - 1] > share * squares[0])


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
