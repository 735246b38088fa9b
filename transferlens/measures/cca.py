"""Canonical correlations, linear CKA and Procrustes of two representations, from their sums of products.

All that the measures need of two centred representations X and Y (n_samples, n_neurons) of the same samples are
the products X'X, Y'Y and X'Y:

- the principal directions of X are the eigenvectors of X'X (`Directions`),
- the canonical correlations are the singular values of X'Y in the bases of the directions kept,
- CKA compares the Frobenius norms of the three products, Procrustes takes the nuclear norm of X'Y (`Analysis`), and
- debiased CKA needs the squared lengths of the samples as well (`unbiased_hsic`).

`transferlens.measures.similarity` defines the measures and gives their sources; `transferlens.measures.streaming`
computes the sums batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MEASURES = ("svcca", "pwcca", "cka", "debiased_cka", "procrustes")
# Those that have intervals.
RESAMPLED = MEASURES[:3]
EPS = np.finfo(np.float64).eps
# Directions whose deviation is below this share of the largest are left out: their squares are rounding errors.
FAINT = 1e-7


@dataclass(frozen=True)
class Similarity:
    """How similar two representations are.

    Attributes
    ----------
    similarity : float
        At most 1, and at least 0 except for debiased CKA. 0 where one of them is constant: it has no direction to
        compare. (Deviations below 1e-60 count as constant.)
    correlations : ndarray [shape=(min(dims),)]
        Canonical correlations, the largest first; empty for CKA and Procrustes, which have none.
    dims : tuple of 2 int
        Number of directions kept of each side; for CKA and Procrustes, which keep all, the number of neurons.
    n_samples : int
    """

    similarity: float
    correlations: np.ndarray
    dims: tuple[int, int]
    n_samples: int


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of one side: ``(X - shift) @ directions.T``, directions are orthonormal rows; None: the neurons.

    The shift [shape=(n_neurons,)] is near the mean, so that products of large numbers do not cancel.
    """

    shift: np.ndarray
    directions: np.ndarray | None = None

    @classmethod
    def of(cls, X: np.ndarray) -> Coordinates:
        """Return the neurons or, if there are fewer samples than neurons, the singular directions of the samples."""
        shift = X[0] + (X - X[0]).mean(0)  # constant columns become exactly zero
        if len(X) >= X.shape[1]:
            return cls(shift)
        return cls(shift, np.linalg.svd(X - shift, full_matrices=False)[2])

    def __len__(self) -> int:
        return len(self.shift if self.directions is None else self.directions)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the coordinates of activations [shape=(n_samples, n_coordinates)]."""
        return X - self.shift if self.directions is None else (X - self.shift) @ self.directions.T

    def to_neurons(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors in these coordinates (rows) as vectors over the neurons [shape=(n, n_neurons)]."""
        return vectors if self.directions is None else vectors @ self.directions

    def rotated(self, vectors: np.ndarray) -> Coordinates:
        """Return coordinates along orthonormal vectors (columns), which are given in these coordinates."""
        return Coordinates(self.shift, self.to_neurons(vectors.T))


@dataclass(frozen=True)
class Sums:
    """Sums over n samples of coordinates [shape=(width,)], those of X before those of Y, and of their products."""

    n: int
    first: np.ndarray
    second: np.ndarray

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.first - other.first, self.second - other.second)


def unbiased_hsic(sums: Sums, a: tuple[slice, int], b: tuple[slice, int]) -> float:
    """Return an unbiased estimate of the Hilbert-Schmidt independence criterion (HSIC) with linear kernels.

    It is 0 on average for independent sides. Of each side `a` and `b` say where in the sums its coordinates are, and
    where their squared length is. At least 4 samples are needed.

    References
    ----------
    L. Song, A. Smola, A. Gretton, J. Bedo, K. Borgwardt: Feature selection via dependence maximization. Journal of
    Machine Learning Research 13 (2012), equation 5.
    """
    n, first, second = sums.n, sums.first, sums.second
    (x, x_length), (y, y_length) = a, b
    diagonal = second[x_length, y_length]
    trace = np.sum(second[x, y] ** 2) - diagonal
    totals = [first[side] @ first[side] - first[length] for side, length in (a, b)]
    rows = first[x] @ second[x, y] @ first[y] + diagonal
    rows -= first[x] @ second[x, y_length] + first[y] @ second[y, x_length]
    return float((trace + totals[0] * totals[1] / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3)))


@dataclass(frozen=True)
class Directions:
    """Principal directions of one side, the strongest first: those that are kept, and some more.

    Vectors are orthonormal columns [shape=(n_coordinates, n)], deviations the singular values of the centred
    activations [shape=(n,)].
    """

    vectors: np.ndarray
    deviations: np.ndarray
    kept: int

    @classmethod
    def of(cls, products: np.ndarray, variance: float) -> Directions:
        """Return the directions from products of centred coordinates, keeping a share of the variance.

        Besides those kept, the directions that hold nine tenths of the rest of the variance are returned.
        """
        squares, vectors = np.linalg.eigh(products)
        squares, vectors = squares[::-1], vectors[:, ::-1]
        squares = squares[squares > max(FAINT**2, len(squares) * EPS) * squares.max(initial=0.0)]
        kept, more = _counts(squares, variance)
        return cls(vectors[:, :more], np.sqrt(squares[:more]), kept)

    @property
    def basis(self) -> np.ndarray:
        """The map from coordinates to orthonormal variates, one per direction kept [shape=(n_coordinates, kept)]."""
        return self.vectors[:, : self.kept] / self.deviations[: self.kept]

    @property
    def loadings(self) -> np.ndarray:
        """The centred activations in that basis [shape=(kept, n_coordinates)]."""
        return self.deviations[: self.kept, None] * self.vectors[:, : self.kept].T


def _counts(squares: np.ndarray, variance: float) -> tuple[int, int]:
    """Return how many of the descending `squares` hold a share of their sum, and how many nine tenths of the rest."""
    if variance >= 1 or not len(squares):
        return len(squares), len(squares)
    sums = np.cumsum(squares)
    enough, more = np.searchsorted(sums, sums[-1] * np.array([variance, 1 - (1 - variance) / 10])) + 1
    return min(int(enough), len(squares)), min(int(more), len(squares))


class Analysis:
    """The leading directions of two representations, and how they correlate.

    Of each side the directions are kept that hold its share of the variance.
    """

    def __init__(
        self, sums: Sums, coordinates: tuple[Coordinates, Coordinates], *, variances: tuple[float, float]
    ) -> None:
        self.n, self.coordinates, self.variances = sums.n, coordinates, variances
        self.mean = sums.first / sums.n
        products, p = sums.second - np.outer(sums.first, self.mean), len(coordinates[0])
        self._own, self._cross = (products[:p, :p], products[p:, p:]), products[:p, p:]

    @cached_property
    def directions(self) -> tuple[Directions, Directions]:
        """Principal directions of both sides."""
        x, y = map(Directions.of, self._own, self.variances)
        return x, y

    @property
    def dims(self) -> tuple[int, int]:
        """Number of directions kept of each side."""
        x, y = self.directions
        return x.kept, y.kept

    @cached_property
    def _canonical(self) -> tuple[np.ndarray, list[np.ndarray | None]]:
        """Canonical correlations and, as columns in the basis of the directions kept, the variates of each side.

        Those of the side that keeps more directions are None. An eigendecomposition takes a third of an SVD's time; the
        error of a correlation c is about 1e-16 / c instead of 1e-16.
        """
        x, y = self.directions
        products = x.basis.T @ self._cross @ y.basis
        found = [
            np.linalg.eigh(side @ side.T) if len(side) == min(self.dims) else None for side in (products, products.T)
        ]
        squares = next(each.eigenvalues[::-1] for each in found if each)
        variates = [each.eigenvectors[:, ::-1] if each else None for each in found]
        return np.sqrt(np.clip(squares, 0, 1)), variates

    def _weights(self) -> np.ndarray:
        """Return the weights of PWCCA: from the side that keeps fewer directions, or from both if they keep as many."""
        weights = [
            np.abs(coordinates.to_neurons(variates.T @ side.loadings)).sum(1)
            for variates, side, coordinates in zip(self._canonical[1], self.directions, self.coordinates, strict=True)
            if variates is not None
        ]
        return np.mean([each / each.sum() for each in weights], axis=0)

    def paired_otherwise(self, sums: Sums) -> Analysis:
        """Return the analysis of the same samples of each side, of which others are paired, from their sums."""
        other = Analysis(sums, self.coordinates, variances=self.variances)
        other.directions = self.directions
        return other

    def of_all_neurons(self, value: float) -> Similarity:
        """Return a similarity that has no canonical correlations."""
        x, y = (len(side.shift) for side in self.coordinates)
        return Similarity(value, np.empty(0), (x, y), self.n)

    def cka(self) -> Similarity:
        """Return linear CKA. Coordinates do not matter: their directions are orthonormal."""
        cross, *own = (np.linalg.norm(products) for products in (self._cross, *self._own))
        return self.of_all_neurons(min(1.0, float(cross / own[0] * (cross / own[1]))) if all(own) else 0.0)

    def procrustes(self) -> Similarity:
        """Return the angular Procrustes similarity; see `similarity.procrustes`."""
        lengths = [np.sqrt(np.trace(products)) for products in self._own]
        if not all(lengths):
            return self.of_all_neurons(0.0)
        cosine = np.linalg.svd(self._cross / lengths[0] / lengths[1], compute_uv=False).sum()
        return self.of_all_neurons(float(1 - np.arccos(np.clip(cosine, 0, 1)) * 2 / np.pi))

    @cached_property
    def measures(self) -> dict[str, Similarity]:
        """The measures that have intervals, by name."""
        correlations = self._canonical[0]
        mean, weighted = (correlations.mean(), self._weights() @ correlations) if min(self.dims) else (0.0, 0.0)
        cca = {
            name: Similarity(min(1.0, float(value)), correlations, self.dims, self.n)
            for name, value in (("svcca", mean), ("pwcca", weighted))
        }
        return cca | {"cka": self.cka()}

    def without(self, parts: Iterable[Sums]) -> np.ndarray:
        """Return the measures that have intervals without each part in turn [shape=(n_parts, n_measures)].

        The parts are sums in the coordinates of `directions`, minus the mean of all samples.
        """
        x, y = self.directions
        cross = x.vectors.T @ self._cross @ y.vectors
        second = np.block([[np.diag(x.deviations**2), cross], [cross.T, np.diag(y.deviations**2)]])
        whole = Sums(self.n, np.zeros(len(second)), second)
        a, b = self.coordinates
        coordinates = a.rotated(x.vectors), b.rotated(y.vectors)
        # These directions lack a little of the variance.
        shares = [
            float(np.sum(side.deviations**2) / np.trace(products)) if len(side.deviations) else 1.0
            for side, products in zip(self.directions, self._own, strict=True)
        ]
        variances = (min(1.0, self.variances[0] / shares[0]), min(1.0, self.variances[1] / shares[1]))
        measured = (Analysis(whole - part, coordinates, variances=variances).measures for part in parts)
        return np.array([[similarities[name].similarity for name in RESAMPLED] for similarities in measured])
