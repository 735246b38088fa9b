"""Scores of clips that have several labels: average precision of each class, its means, and their intervals.

Labels are 0 or 1 [shape=(n_clips, n_classes)], each clip with at least one 1; scores are logits or probabilities of the
same shape, of which only the order counts.

- `average_precisions` of each class: how far up its clips are, if all clips are ordered by its score.
- `mean_average_precision` (mAP): their mean over the classes that clips have.
- `lwlrap` [1]_: how far up the labels of a clip are, if its classes are ordered by their scores; every label counts
  alike.
- `chance`: what a random order reaches.
- `resampled`: average precisions of recordings drawn anew, from which `interval` follows.

References
----------
.. [1] E. Fonseca, M. Plakal, F. Font, D. P. W. Ellis, X. Serra: Audio tagging with noisy labels and minimal
   supervision. DCASE 2019, section 4 (label-weighted label-ranking average precision).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from transferlens.measures.stats import Interval
from transferlens.util.lazy import metrics, scipy, tqdm

RESAMPLES = 999
AT_ONCE = 111  # draws, to limit memory


def average_precisions(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Compute the average precision of each class [shape=(n_classes,)]; NaN for those that no clip has.

    Examples
    --------
    >>> labels, scores = np.array([[1, 0], [0, 0], [1, 0]]), np.array([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    >>> average_precisions(labels, scores).round(3)
    array([0.833,   nan])
    """
    values = np.full(labels.shape[1], np.nan)
    for k in np.flatnonzero(labels.any(0)):
        values[k] = metrics.average_precision_score(labels[:, k], scores[:, k])
    return values


def mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean over the classes that clips have of their average precision (macro mAP).

    Examples
    --------
    >>> round(mean_average_precision(np.array([[1, 0], [0, 1], [1, 0]]), np.array([[3, 0], [2, 1], [1, 0]])), 3)
    0.917
    """
    return float(np.nanmean(average_precisions(labels, scores)))


def lwlrap(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the label-weighted label-ranking average precision.

    It is scikit-learn's `label_ranking_average_precision_score`, in which clips weigh as many labels as they have.

    Examples
    --------
    >>> round(lwlrap(np.array([[1, 0], [1, 1]]), np.array([[0.1, 0.9], [0.2, 0.8]])), 3)
    0.833
    """
    return float(np.average(label_ranking(labels, scores), weights=labels.sum(1)))


def label_ranking(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Compute the label-ranking average precision of each clip [shape=(n_clips,)].

    For each of its labels: the share of labels among the classes whose score is at least that of the label; and their
    mean. scikit-learn computes the same clip by clip, many times slower.

    Examples
    --------
    >>> label_ranking(np.array([[1, 0], [1, 1]]), np.array([[0.1, 0.9], [0.2, 0.8]]))
    array([0.5, 1. ])
    """
    own, scores = labels > 0, np.asarray(scores, dtype=float)
    ranks = scipy.stats.rankdata(-scores, "max", axis=1)
    among_labels = scipy.stats.rankdata(np.where(own, -scores, np.inf), "max", axis=1)
    return np.where(own, among_labels / ranks, 0.0).sum(1) / own.sum(1)


def chance(labels: np.ndarray) -> float:
    """Compute the mAP of a random order of many clips: the mean share of clips, of the classes that clips have.

    Examples
    --------
    >>> chance(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]))
    0.5
    """
    shares = labels.mean(0)
    return float(shares[shares > 0].mean())


def resampled(
    labels: np.ndarray, scores: np.ndarray, *, groups: Sequence[str] = (), resamples: int = RESAMPLES
) -> np.ndarray:
    """Compute average precisions of clips whose recordings are drawn with replacement, alike for all networks.

    Parameters
    ----------
    labels : ndarray [shape=(n_clips, n_classes)]
    scores : ndarray [shape=(n_networks, n_clips, n_classes)]
    groups : sequence of str, optional
        The recording of each clip. Default: every clip is drawn on its own.
    resamples : int > 0

    Returns
    -------
    ndarray [shape=(n_networks, resamples, n_classes)]
        NaN where no clip of the class was drawn.
    """
    own = list(groups) or range(len(labels))
    places = np.unique(np.asarray(own), return_inverse=True)[1]
    n, rng, parts = int(places.max()) + 1, np.random.default_rng(0), []
    sizes = np.diff([*range(0, resamples, AT_ONCE), resamples])
    for size in tqdm.tqdm(sizes, desc="intervals", delay=2, leave=False, disable=None):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float32)[:, places]
        part = np.full((len(scores), size, labels.shape[1]), np.nan)
        for k in np.flatnonzero(labels.any(0)):
            for i, values in enumerate(scores[:, :, k]):
                part[i, :, k] = weighted(labels[:, k], values, weights)
        parts.append(part)
    return np.concatenate(parts, axis=1)


def weighted(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the average precision of one class for many weights of the clips at once, which scikit-learn cannot.

    Parameters
    ----------
    labels, scores : ndarray [shape=(n_clips,)]
    weights : ndarray of float [shape=(n_draws, n_clips)]
        How often each clip was drawn.

    Returns
    -------
    ndarray [shape=(n_draws,)]
        NaN where no clip of the class was drawn.

    Examples
    --------
    >>> weighted(np.array([1, 0, 1]), np.array([3.0, 2.0, 1.0]), np.array([[1.0, 1, 1], [1, 0, 1]])).round(3)
    array([0.833, 1.   ])
    """
    order = np.argsort(-scores, kind="stable")
    drawn, ranked = weights[:, order], scores[order]
    own = np.flatnonzero(labels[order])
    # Clips of equal scores have one rank, that of the last of them.
    last = np.searchsorted(-ranked, -ranked[own], side="right") - 1
    above = np.cumsum(drawn, axis=1, dtype=np.float64)[:, last]
    hits = np.cumsum(drawn[:, own], axis=1, dtype=np.float64)
    hits_above = hits[:, np.searchsorted(own, last, side="right") - 1]
    precision = np.divide(hits_above, above, out=np.zeros_like(above), where=above > 0)
    with np.errstate(invalid="ignore"):
        return (drawn[:, own] * precision).sum(1) / hits[:, -1]


def interval(mean: float, values: np.ndarray, n: int, *, level: float = 0.95) -> Interval:
    """Return a score with the percentile interval of its values over resamples, of `n` clips; NaN values do not count.

    References
    ----------
    A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. 1997, section 5.3.
    """
    known = values[np.isfinite(values)]
    if not len(known) or np.ptp(known) == 0:
        return Interval(mean, np.nan, np.nan, n, level, "no interval: all resamples are equal" if len(known) else "")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(mean, low, high, n, level)


def mean_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean along an axis of the values that are not NaN; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)
