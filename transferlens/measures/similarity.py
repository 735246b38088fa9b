"""How similar are two representations? SVCCA, PWCCA, linear CKA and Procrustes.

A representation is a matrix of activations (n_samples, n_neurons). In a convolution every position is a sample, and
every channel a neuron.

- `svcca` and `pwcca` are means of canonical correlations: invertible linear maps hardly change them.
- `cka` compares covariances, and `procrustes` the shapes of the clouds of samples: only rotations and scale leave them
  unchanged.
- `chance` is the similarity that independent noise has.
- `Moments` computes all of them for activations that come batch by batch, with intervals, and for shuffled clips.

Equal representations have 1, and a constant one has 0. Debiased CKA of independent ones is 0 on average, so that it can
be below; the others lie between 0 and 1, and few samples make them high.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transferlens.measures.cca import Similarity
from transferlens.measures.streaming import Moments
from transferlens.util.errors import ParameterError


def _moments(X: np.ndarray, Y: np.ndarray, variance: float = 0.99) -> Moments:
    moments = Moments(variance=variance)
    moments.update(X, Y)
    return moments


def svcca(X: np.ndarray, Y: np.ndarray, *, variance: float = 0.99) -> Similarity:
    """Compute singular vector canonical correlation analysis.

    The leading singular directions of each side that hold the share `variance` of its variance are kept. The similarity
    is the mean canonical correlation between them, over the smaller number of directions.

    Parameters
    ----------
    X, Y : ndarray [shape=(n_samples, n_neurons)]
        Activations for the same samples; the numbers of neurons may differ.
    variance : float in (0, 1]
        With 1 all directions count alike, except those whose deviation is below 1e-7 of the largest: neither products
        in double precision nor activations in single precision have digits left there.

    Returns
    -------
    Similarity

    Raises
    ------
    ParameterError
        If the shapes do not fit, a value is not finite, or `variance` is outside its range.

    References
    ----------
    M. Raghu, J. Gilmer, J. Yosinski, J. Sohl-Dickstein: SVCCA: singular vector canonical correlation analysis for deep
    learning dynamics and interpretability. NeurIPS 2017, section 2.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(500, 8))
    >>> round(svcca(X, 3 * X[:, ::-1]).similarity, 9)
    1.0
    """
    return _moments(X, Y, variance).svcca()


def pwcca(X: np.ndarray, Y: np.ndarray, *, variance: float = 1.0) -> Similarity:
    """Compute projection weighted canonical correlation analysis.

    As `svcca`, but all directions are kept, unless `variance` is below 1, and each correlation is weighted by how much
    of the activations its canonical variate accounts for, on the side that keeps fewer directions (as in the authors'
    code), or the mean over both sides if they keep as many. The weights are not unique where several correlations are
    equal, because their variates can be rotated into each other. Several are 1, for example, if samples are fewer than
    neurons, or if both sides are linear maps of one input.

    Parameters, errors and result are those of `svcca`.

    References
    ----------
    A. Morcos, M. Raghu, S. Bengio: Insights on representational similarity in neural networks with canonical
    correlation. NeurIPS 2018, section 2, equation 2.
    """
    return _moments(X, Y, variance).pwcca()


def cka(X: np.ndarray, Y: np.ndarray, *, debiased: bool = False) -> Similarity:
    """Compute linear centred kernel alignment: invariant to rotation and scale, but not to every linear map.

    Few samples make it high, as they do all similarities, unless it is debiased: then it is about 0 for independent
    representations, and can be below. That needs at least 4 samples (NaN with fewer), which are independent of each
    other, as positions of one clip are not.

    Parameters, errors and result are those of `svcca`.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton: Similarity of neural network representations revisited. ICML 2019,
    section 3, equation 3. Debiased: T. Nguyen, M. Raghu, S. Kornblith: Do wide and deep networks learn the same things?
    ICLR 2021, section 2, with the estimate of Song et al. 2012, equation 5.
    """
    return _moments(X, Y).cka(debiased=debiased)


def procrustes(X: np.ndarray, Y: np.ndarray) -> Similarity:
    """Compute the angular Procrustes similarity: how well a rotation and a scale take one representation to the other.

    It is 1 - 2 a / pi; the cosine of the angle a is the sum of the singular values of X'Y, of centred activations, over
    the Frobenius norms of X and of Y. The angle is a metric.

    Parameters, errors and result are those of `svcca`.

    References
    ----------
    A. Williams, E. Kunz, S. Kornblith, S. Linderman: Generalized shape metrics on neural representations. NeurIPS 2021,
    section 2.1, equation 4.
    """
    return _moments(X, Y).procrustes()


def chance(dims: Sequence[int], n_samples: int) -> float:
    """Compute the mean canonical correlation of independent Gaussian noise: the value of SVCCA by chance.

    It is far from 0 unless there are many times more samples than directions; the formula is the limit for many of
    both. If samples depend on each other, as positions of one clip do, chance is higher, as if there were fewer.

    Parameters
    ----------
    dims : sequence of 2 int > 0
        Directions of each side.
    n_samples : int > 1

    Returns
    -------
    similarity : float in [0, 1]

    Raises
    ------
    ParameterError
        If an argument is outside its range.

    References
    ----------
    K. W. Wachter: The limiting empirical measure of multiple discriminant ratios. Annals of Statistics 8 (1980).

    Examples
    --------
    >>> round(chance((10, 10), 10**6), 3)
    0.003
    """
    small, large = sorted(int(n_directions) for n_directions in dims)
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
    density = np.sin(angles) ** 2 / (squares * (1 - squares))
    ones = max(0.0, (a + b - 1) / a)
    return float(min(1.0, (density * np.sqrt(squares)).sum() / density.sum() * (1 - ones) + ones))
