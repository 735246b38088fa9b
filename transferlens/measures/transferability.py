"""How well the outputs of a network suit new labels, without training: scores of features, and what they predict.

LogME [1]_ [2]_ takes the features of a clip as fixed and its label, one column of zeros and ones per class, as a real
number that depends on them linearly with Gaussian noise. Its prior of the weights is Gaussian, too. The score is the
log evidence of the labels under the best precisions of prior and noise, per clip, the mean over classes. It assumes
that labels are such numbers (they are classes), that one precision suits all directions of the features, and that
clips are independent. It is not an accuracy: it has no scale of its own, knows no held-out clips, and only the order of
features on the same clips and labels has a meaning. It says nothing of what fine-tuning would change in the features.

The accuracy of nearest neighbours assumes that clips of one class are close in the angle of their features. It is an
accuracy on held-out clips, but that of a weak classifier, which cannot leave out directions that do not matter.

* `logme`, `evidence`: the score of features [shape=(n_clips, n_neurons)] for labels, or for any numbers
* `nearest`: the labels that the nearest neighbours of clips have
* `rank_correlation`: whether a score puts networks in the order of their accuracies

References
----------
.. [1] K. You, Y. Liu, J. Wang, M. Long: LogME: Practical assessment of pre-trained models for transfer learning.
   ICML 2021, arXiv 2102.11005.
.. [2] K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long: Ranking and tuning pre-trained models: a new paradigm
   for exploiting model hubs. Journal of Machine Learning Research 23 (2022), arXiv 2110.10545: the fixed point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

FEWEST = 4  # points of a correlation
# Ratios of the precisions of prior and noise that are tried, in units of the largest squared singular value.
RATIOS = np.logspace(-12, 12, 97)
TOLERANCE, MOST = 1e-6, 10_000  # change of the logarithm of a ratio at the fixed point, and number of steps
AT_ONCE = 2**22  # similarities that are computed at once
RESAMPLES = 9999


def logme(features: np.ndarray, labels: Sequence[Any] | np.ndarray) -> float:
    """Compute LogME, the mean over classes of the `evidence` of the columns of the labels.

    Parameters
    ----------
    features : ndarray [shape=(n_clips, n_neurons)]
    labels : sequence [shape=(n_clips,)]
        The class of each clip; there must be two or more.

    Returns
    -------
    float [nats per clip]
        Higher is better. It is the same for features that are rotated or scaled.

    Raises
    ------
    ParameterError
        If there are fewer than two classes, or as for `evidence`.

    Examples
    --------
    >>> import numpy as np
    >>> labels, noise = np.repeat([0, 1], 50), np.random.default_rng(0).normal(size=(100, 2))
    >>> informative = noise + 3 * np.eye(2)[labels]
    >>> round(logme(informative, labels), 2), round(logme(noise, labels), 2)
    (-0.24, -1.07)
    """
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    if len(classes) < 2:
        raise ParameterError(f"labels name {len(classes)} class: at least 2 are needed to tell them apart")
    return float(evidence(features, np.eye(len(classes))[numbers]).mean())


def evidence(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Compute the highest log evidence of Bayesian linear regression over the precisions of prior and noise, per clip.

    The ratio of the two precisions is the fixed point of MacKay's updates in the coordinates of one singular value
    decomposition. As the evidence may have several maxima, the updates begin at the best of a grid.

    Parameters
    ----------
    features : ndarray [shape=(n_clips, n_neurons)]
        Without intercept, as in the papers.
    targets : ndarray [shape=(n_clips, n_targets)]
        Columns of numbers; none may be all 0.

    Returns
    -------
    ndarray [shape=(n_targets,), float64, nats per clip]
        Infinite for targets that are an exact linear function of features of a lower rank than there are clips, as the
        noise may then vanish.

    Raises
    ------
    ParameterError
        If shapes do not fit, or values are not finite.

    References
    ----------
    K. You, Y. Liu, Z. Zhang, J. Wang, M. I. Jordan, M. Long: Ranking and tuning pre-trained models: a new paradigm for
    exploiting model hubs. Journal of Machine Learning Research 23 (2022), arXiv 2110.10545: the fixed point.
    """
    F, Y = _matrix("features", features), _matrix("targets", targets)
    if len(F) != len(Y):
        raise ParameterError(f"features has {len(F)} clips and targets has {len(Y)}: give one per clip")
    if not Y.any(0).all():
        raise ParameterError("targets has a column of zeros, such as a class without clips: leave it out")
    spectrum = _Spectrum.of(F, Y)
    if not len(spectrum.values):
        return spectrum.evidence(np.ones(Y.shape[1]))
    grid = RATIOS * spectrum.values[0]
    tried = np.array([spectrum.evidence(np.full(Y.shape[1], ratio)) for ratio in grid])
    found = spectrum.evidence(spectrum.fixed_point(grid[tried.argmax(0)], bounds=(grid[0], grid[-1])))
    unbounded = (spectrum.rest == 0) & (len(spectrum.values) < len(F))
    return np.where(unbounded, np.inf, np.maximum(found, tried.max(0)))


@dataclass(frozen=True)
class _Spectrum:
    """What the evidence depends on: the squared singular values of the features that are not 0 [shape=(rank,)], the
    squares of the targets along their directions [shape=(rank, n_targets)], and outside of them [shape=(n_targets,)].
    """

    values: np.ndarray
    inside: np.ndarray
    rest: np.ndarray
    n: int

    @classmethod
    def of(cls, F: np.ndarray, Y: np.ndarray) -> _Spectrum:
        """Decompose features F [shape=(n_clips, n_neurons)] and project targets Y [shape=(n_clips, n_classes)]."""
        U, values, _ = np.linalg.svd(F, full_matrices=False)
        rounding = max(F.shape) * np.finfo(float).eps
        U = U[:, values > rounding * values[0]]
        Z = U.T @ Y
        rest = np.square(Y - U @ Z).sum(0)
        rest[rest <= rounding**2 * np.square(Y).sum(0)] = 0
        return cls(np.square(values[: U.shape[1]]), np.square(Z), rest, len(F))

    def evidence(self, ratio: np.ndarray) -> np.ndarray:
        """Return the log evidence per clip for a ratio of precisions, prior to noise, under the best noise."""
        left = ratio / (ratio + self.values[:, None])
        noise = ((self.inside * left).sum(0) + self.rest) / self.n
        return np.log(left).sum(0) / (2 * self.n) - (np.log(2 * np.pi * noise) + 1) / 2

    def fixed_point(self, ratio: np.ndarray, *, bounds: tuple[float, float]) -> np.ndarray:
        """Return the ratio of precisions that MacKay's updates do not change; it may be a bound."""
        for _ in range(MOST):
            before, ratio = ratio, np.clip(self._updated(ratio), *bounds)
            if np.abs(np.log(ratio / before)).max() < TOLERANCE:
                break
        return ratio

    def _updated(self, ratio: np.ndarray) -> np.ndarray:
        values = self.values[:, None]
        effective = values / (ratio + values)  # their sum is the effective number of parameters
        weights = (self.inside * effective / (ratio + values)).sum(0)  # squared norm of the mean of the posterior
        errors = (self.inside * (1 - effective) ** 2).sum(0) + self.rest
        free = self.n - len(values) + (ratio / (ratio + values)).sum(0)
        with np.errstate(divide="ignore"):  # weights of 0: the prior may be as narrow as the bound allows
            return np.nan_to_num(effective.sum(0) * errors / (free * weights), nan=np.inf)


def _matrix(name: str, values: np.ndarray) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or 0 in x.shape:
        raise ParameterError(f"{name} of shape {x.shape} must have two axes, clips and numbers, neither of them empty")
    if not np.isfinite(x).all():
        raise ParameterError(f"{name} must be finite")
    return x


def nearest(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    groups: Sequence[str] = (),
    query_groups: Sequence[str] = (),
) -> np.ndarray:
    """Classify clips by the most frequent label of their k nearest neighbours, by cosine similarity.

    Parameters
    ----------
    features, queries : ndarray [shape=(n_clips, n_neurons)], [shape=(n_queries, n_neurons)]
    labels : ndarray of int >= 0 [shape=(n_clips,)]
    k : int > 0
        Number of neighbours; of labels that are as frequent the smallest is returned.
    groups, query_groups : sequence of str, optional
        The recordings of the clips: those of the recording of a query are not its neighbours.

    Returns
    -------
    ndarray of int [shape=(n_queries,)]

    Raises
    ------
    ParameterError
        If `k` is not from 1 to the number of clips that every query has to choose from.

    Examples
    --------
    >>> import numpy as np
    >>> nearest(np.array([[1.0, 0.1], [1, 0], [0, 1]]), np.array([1, 1, 0]), np.array([[5.0, 1.0]]), k=1)
    array([1])
    """
    X, Q, labels = _unit(features), _unit(queries), np.asarray(labels)
    strangers = _strangers(len(Q), len(X), query_groups, groups)
    fewest = int(strangers.sum(1).min(initial=len(X)))
    if not 1 <= k <= fewest:
        raise ParameterError(f"k={k} must be 1 to {fewest}, the number of clips that may be neighbours of each")
    one_hot, predicted = np.eye(labels.max() + 1), []
    for rows in np.array_split(np.arange(len(Q)), -(-len(Q) * len(X) // AT_ONCE) or 1):
        similarity = np.where(strangers[rows], Q[rows] @ X.T, -np.inf)
        neighbours = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        predicted.append(one_hot[labels[neighbours]].sum(1).argmax(1))
    return np.concatenate(predicted)


def _unit(x: np.ndarray) -> np.ndarray:
    x = _matrix("features", x)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def _strangers(n_queries: int, n: int, query_groups: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """Return whether each query and each clip are of two recordings [shape=(n_queries, n), bool]."""
    if not len(groups):
        return np.ones((n_queries, n), bool)
    numbers = np.unique(np.array([*query_groups, *groups], dtype=str), return_inverse=True)[1]
    return numbers[:n_queries, None] != numbers[n_queries:]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation.

    Attributes
    ----------
    rho : float in [-1, 1]
        NaN if there is a `note`.
    p_value : float
        Two-sided, by permutation: how often pairs in random order correlate as much. Points that are not independent,
        such as blocks of one network, make it too small.
    n : int
        Number of points.
    note : str
        Why a correlation is not given.
    """

    rho: float
    p_value: float
    n: int
    note: str = ""

    def __str__(self) -> str:
        words = self.note or f"permutation p = {self.p_value:.4f}"
        return f"Spearman {'none' if self.note else f'{self.rho:.2f}'} (n = {self.n}, {words})"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """Compute Spearman's rank correlation with its permutation test.

    Parameters
    ----------
    x, y : sequence of float
        Infinite values are ranked.

    Returns
    -------
    Correlation
        Without a value for fewer than four points, or if all values of one side are equal.

    Raises
    ------
    ParameterError
        If the lengths differ.

    Examples
    --------
    >>> print(rank_correlation([1, 2, 3, 4, 5], [0.1, 0.3, 0.2, 0.8, 0.9]))
    Spearman 0.90 (n = 5, permutation p = 0.0833)
    >>> print(rank_correlation([1, 2, 3], [1, 2, 3]))
    Spearman none (n = 3, at least 4 points are needed)
    """
    if len(x) != len(y):
        raise ParameterError(f"x has {len(x)} values and y has {len(y)}: give pairs")
    ranks = [scipy.stats.rankdata(values) - (len(x) + 1) / 2 for values in (x, y)]
    if len(x) < FEWEST or not all(rank.any() for rank in ranks):
        note = f"at least {FEWEST} points are needed" if len(x) < FEWEST else "all values of one side are equal"
        return Correlation(np.nan, np.nan, len(x), note)
    norm = np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum())

    def rho(permuted: np.ndarray, axis: int) -> np.ndarray:
        return (permuted * ranks[1]).sum(axis) / norm

    how = {"permutation_type": "pairings", "vectorized": True, "n_resamples": RESAMPLES, "batch": 1000}
    test = scipy.stats.permutation_test(ranks[:1], rho, **how, rng=np.random.default_rng(0))
    return Correlation(float(test.statistic), float(test.pvalue), len(x))
