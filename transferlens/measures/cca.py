"""Similarity of two representations from their sums: principal directions, canonical correlations, alignment.

`transferlens.similarity` has the measures' definitions and sources, `transferlens.moments` where the sums come from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

__all__ = ["FAINT", "MEASURES", "Directions", "Frame", "Similarity", "Solved", "Sums"]

MEASURES = ("svcca", "pwcca", "cka")
EPS = np.finfo(np.float64).eps
# Directions are whitened down to this share of the largest deviation: below, squares have no digits left.
FLOOR = 1e-7
# Directions whose variance is this share of the largest are exact from a plain covariance; fainter ones are not.
FAINT = 1e-6


@dataclass(frozen=True)
class Similarity:
    """How alike two representations are.

    Attributes
    ----------
    similarity : float in [0, 1]
        0 where one of them is constant: it has no direction to compare. (Deviations below 1e-60 count as none.)
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


@dataclass(frozen=True)
class Frame:
    """Coordinates Z of one side: ``X - shift = Z @ (scale[:, None] * directions)``.

    Attributes
    ----------
    shift : ndarray [shape=(n_neurons,)]
    scale : ndarray [shape=(n_coordinates,)]
    directions : ndarray [shape=(n_coordinates, n_neurons)], or None
        Orthonormal rows; None for the neurons themselves.
    """

    shift: np.ndarray
    scale: np.ndarray
    directions: np.ndarray | None = None

    @classmethod
    def of(cls, X: np.ndarray, *, plain: bool) -> Frame:
        """The neurons themselves, or as many white coordinates as there are neurons, or samples where these are fewer.

        Parameters
        ----------
        X : ndarray [shape=(n_samples, n_neurons)]
            The first samples.
        plain : bool
        """
        shift = X[0] + (X - X[0]).mean(0)  # constant columns become exactly zero
        if plain:
            return cls(shift, np.ones(len(shift)))
        centred = X - shift
        if len(X) < X.shape[1]:
            _, deviations, directions = np.linalg.svd(centred, full_matrices=False)
        else:
            squares, vectors = np.linalg.eigh(centred.T @ centred)
            deviations, directions = np.sqrt(np.maximum(squares, 0)), vectors.T
        scale = np.maximum(deviations, FLOOR * deviations.max(initial=0.0)) / np.sqrt(len(X))
        scale[scale == 0] = 1.0
        return cls(shift, scale, directions)

    @cached_property
    def to(self) -> np.ndarray:
        """The way there: ``Z = (X - shift) @ to``; the neurons themselves need none."""
        assert self.directions is not None
        return self.directions.T / self.scale

    def move(self, X: np.ndarray, out: np.ndarray) -> None:
        """Write Z to `out`."""
        if self.directions is not None:
            np.matmul(X - self.shift, self.to, out=out)
        else:
            np.subtract(X, self.shift, out=out)

    def neurons(self, values: np.ndarray) -> np.ndarray:
        """Rows in these coordinates, less their scale, as neurons [shape=(n, n_neurons)]."""
        return values if self.directions is None else values @ self.directions

    def scaled(self, factors: np.ndarray) -> Frame:
        """With the coordinates multiplied by `factors`."""
        return replace(self, scale=self.scale / factors)


@dataclass(frozen=True)
class Sums:
    """Sums over samples in the coordinates of both sides, those of X before those of Y.

    Attributes
    ----------
    n : int
        Samples.
    first : ndarray [shape=(width,)]
    second : ndarray [shape=(width, width)]
        Of products.
    """

    n: int
    first: np.ndarray
    second: np.ndarray

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.first - other.first, self.second - other.second)


class Solved:
    """Both sides' leading directions, and how they correlate.

    Parameters
    ----------
    sums : Sums
    frames : tuple of 2 Frame
    variance : float
    plain : bool
        Whether what is kept is exact from covariances.
    dims : tuple of 2 int, optional
        Directions to keep of each side. Default: those that explain `variance`.
    """

    def __init__(
        self,
        sums: Sums,
        frames: Sequence[Frame],
        *,
        variance: float,
        plain: bool,
        dims: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.sums, self.frames, self.variance, self.plain, self.asked = sums, frames, variance, plain, dims
        self.mean = sums.first / sums.n
        p, centred = len(frames[0].scale), sums.second - np.outer(sums.first, self.mean)
        self.own, self.cross = (centred[:p, :p], centred[p:, p:]), centred[:p, p:]

    @cached_property
    def sides(self) -> tuple[Directions, Directions]:
        """Principal directions of both."""
        find = _from_covariance if self.plain else _from_factor
        x, y = (
            find(moments, frame.scale, self.sums.n, self.variance, asked)
            for moments, frame, asked in zip(self.own, self.frames, self.asked, strict=True)
        )
        return x, y

    @property
    def bases(self) -> list[np.ndarray]:
        """Of both sides, the principal directions but for those that hold the last tenth of what is left out."""
        return [side.basis for side in self.sides]

    @property
    def dims(self) -> tuple[int, int]:
        """Directions kept."""
        x, y = self.sides
        return x.kept, y.kept

    @cached_property
    def correlated(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Canonical correlations, and the variates of both sides in the directions kept, as columns."""
        a, b = (side.basis[:, : side.kept] for side in self.sides)
        left, correlations, right = np.linalg.svd(a.T @ self.cross @ b, full_matrices=False)
        return np.clip(correlations, 0, 1), left, right.T

    @property
    def weights(self) -> np.ndarray:
        """Of PWCCA: by the loadings of the side that keeps fewer directions; of both where they keep as many."""
        _, *variates = self.correlated
        fewest = min(self.dims)
        found = [
            np.abs(frame.neurons(columns.T @ side.loadings)).sum(1)
            for columns, side, frame in zip(variates, self.sides, self.frames, strict=True)
            if side.kept == fewest
        ]
        return np.mean([each / each.sum() for each in found], axis=0)

    def cca(self) -> dict[str, Similarity]:
        """SVCCA and PWCCA by name."""
        correlations = self.correlated[0]
        mean, weighted = (correlations.mean(), self.weights @ correlations) if min(self.dims) else (0.0, 0.0)
        return {
            name: Similarity(min(1.0, float(value)), correlations, self.dims, self.sums.n)
            for name, value in (("svcca", mean), ("pwcca", weighted))
        }

    def cka(self) -> Similarity:
        """Frobenius norms of the covariances, which directions, being orthonormal, do not change."""
        x, y = (frame.scale for frame in self.frames)
        n_x, n_y = (len(frame.shift) for frame in self.frames)
        (own_x, own_y), cross = self.own, np.linalg.norm(x[:, None] * self.cross * y)
        norms = np.linalg.norm(x[:, None] * own_x * x), np.linalg.norm(y[:, None] * own_y * y)
        value = min(1.0, float(cross / norms[0] * (cross / norms[1]))) if all(norms) else 0.0
        return Similarity(value, np.empty(0), (n_x, n_y), self.sums.n)

    def measure(self) -> dict[str, Similarity]:
        """All measures by name."""
        return self.cca() | {"cka": self.cka()}

    def without(self, parts: Iterable[Sums]) -> np.ndarray:
        """All measures without each part of the samples in turn, with as many directions kept.

        Parameters
        ----------
        parts : iterable of Sums
            Less the mean of all samples, in the coordinates of `bases`.

        Returns
        -------
        values : ndarray [shape=(n_parts, n_measures)]
        """
        a, b = self.bases
        (own_a, own_b), cross = self.own, a.T @ self.cross @ b
        second = np.block([[a.T @ own_a @ a, cross], [cross.T, b.T @ own_b @ b]])
        whole = Sums(self.sums.n, np.zeros(len(second)), second)
        frames = [
            Frame(frame.shift, side.deviations, frame.neurons(side.right))
            for side, frame in zip(self.sides, self.frames, strict=True)
        ]
        solve = functools.partial(Solved, variance=self.variance, plain=self.plain, dims=self.dims)
        found = [solve(whole - part, frames).measure() for part in parts]
        return np.array([[each[name].similarity for name in MEASURES] for each in found])


@dataclass(frozen=True)
class Directions:
    """Principal directions of one side, the strongest first: those kept, and some more.

    Attributes
    ----------
    basis : ndarray [shape=(n_coordinates, n)]
        From the coordinates to the directions: orthonormal over samples.
    deviations : ndarray [shape=(n,)]
        Singular values of the centred activations, falling.
    right : ndarray [shape=(n, n_coordinates)]
        The directions.
    kept : int
    """

    basis: np.ndarray
    deviations: np.ndarray
    right: np.ndarray
    kept: int

    @property
    def loadings(self) -> np.ndarray:
        """The centred activations in the basis of the directions kept [shape=(kept, n_coordinates)]."""
        return self.deviations[: self.kept, None] * self.right[: self.kept]


def _from_covariance(moments: np.ndarray, scale: np.ndarray, _: int, variance: float, asked: int | None) -> Directions:
    """Principal directions of X = Z S D, Z centred, S diagonal, D orthonormal: eigenvectors of S Z'Z S.

    Exact where they are not faint.
    """
    squares, vectors = np.linalg.eigh(scale[:, None] * moments * scale)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    rank = int((squares > len(squares) * EPS * squares.max(initial=0.0)).sum())
    kept, more = _counts(squares[:rank], variance, asked)
    deviations, vectors = np.sqrt(squares[:more]), vectors[:, :more]
    return Directions(scale[:, None] * vectors / deviations, deviations, vectors.T, kept)


def _from_factor(moments: np.ndarray, scale: np.ndarray, n: int, variance: float, asked: int | None) -> Directions:
    """The same where Z is white, and so Z'Z well-conditioned: exact for faint directions, too.

    Its eigenvectors give Z = O F with O orthonormal, and the singular value decomposition of the small matrix F S is
    that of X but for O and D.
    """
    squares, vectors = np.linalg.eigh(moments)
    there = squares > len(squares) * EPS * squares.max(initial=0.0)
    roots = np.sqrt(squares[there])
    left, deviations, right = np.linalg.svd((roots[:, None] * vectors[:, there].T) * scale, full_matrices=False)
    rank = int((deviations > max(n, len(scale)) * EPS * deviations.max(initial=0.0)).sum())
    kept, more = _counts(deviations[:rank] ** 2, variance, asked)
    return Directions((vectors[:, there] / roots) @ left[:, :more], deviations[:more], right[:more], kept)


def _counts(energies: np.ndarray, variance: float, asked: int | None) -> tuple[int, int]:
    """How many of the falling `energies` to keep, and how many hold nine tenths of the rest, too."""
    if variance >= 1 or not energies.any():
        return (len(energies) if asked is None else min(asked, len(energies))), len(energies)
    sums = np.cumsum(energies)
    kept, more = (int(np.searchsorted(sums, share * sums[-1]) + 1) for share in (variance, 1 - (1 - variance) / 10))
    kept = min(kept if asked is None else asked, len(energies))
    return kept, min(max(kept, more), len(energies))
