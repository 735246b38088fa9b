"""Scores of predicted probabilities: accuracy, likelihood, squared error, calibration, and the gain of ensembles.

Probabilities are (..., n_clips, n_classes), labels are (n_clips,); the first axis, if there is one more, is that of an
ensemble's members.

- `accuracy`, `nll` and `brier` [1]_ score each clip; `reliability` and `calibration_error` [3]_ score confidences.
- `ambiguity` [2]_ and `disagreement` tell how much the members of an ensemble differ.
- `softmax` makes probabilities of logits; `subsets` yields ensembles of some members.

References
----------
.. [1] G. W. Brier: Verification of forecasts expressed in terms of probability. Monthly Weather Review 78 (1950).
.. [2] A. Krogh, J. Vedelsby: Neural network ensembles, cross validation, and active learning. NeurIPS 1994, equation 6.
.. [3] C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On calibration of modern neural networks. ICML 2017, section 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

# Bins of confidence, as in Guo et al. 2017.
BINS = 15


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits [shape=(..., n_classes)], in double precision.

    Examples
    --------
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    logits = np.asarray(logits, dtype=float)
    if not np.isfinite(logits).all():
        raise ParameterError("logits must be finite: some are NaN or infinite")
    return scipy.special.softmax(logits, axis=-1)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 1 for clips whose most probable class is the label, else 0 [shape=(..., n_clips), float]."""
    return (probabilities.argmax(-1) == labels).astype(float)


def nll(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the negative log-likelihood of each clip's label [nat, shape=(..., n_clips)]."""
    of_label = np.take_along_axis(probabilities, np.broadcast_to(labels, probabilities.shape[:-1])[..., None], -1)
    return -np.log(np.maximum(of_label[..., 0], np.finfo(float).tiny))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the squared distance of the probabilities from those of a sure label, 0 to 2 [shape=(..., n_clips)]."""
    return ((probabilities - np.eye(probabilities.shape[-1])[labels]) ** 2).sum(-1)


def ambiguity(probabilities: np.ndarray) -> np.ndarray:
    """Compute the mean squared distance of the members from their mean [shape=(n_clips,)].

    The members' mean squared error is the ensemble's plus this (Krogh and Vedelsby 1994): it is the ensemble's gain.

    Parameters
    ----------
    probabilities : ndarray [shape=(n_members, n_clips, n_classes)]
    """
    return ((probabilities - probabilities.mean(0)) ** 2).sum(-1).mean(0)


def disagreement(probabilities: np.ndarray) -> float:
    """Compute the share of clips whose most probable class differs, mean over pairs of members; 0 for one member.

    Parameters
    ----------
    probabilities : ndarray [shape=(n_members, n_clips, n_classes)]
    """
    predicted = probabilities.argmax(-1)
    pairs = [np.mean(a != b) for a, b in itertools.combinations(predicted, 2)]
    return float(np.mean(pairs)) if pairs else 0.0


@dataclass(frozen=True)
class Reliability:
    """Clips in bins of confidence (the largest probability); bins without clips are left out.

    Attributes
    ----------
    confidence, accuracy : ndarray [shape=(n_bins,)]
        Means of each bin.
    counts : ndarray of int [shape=(n_bins,)]
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> Reliability:
    """Compute how often predictions of each confidence are correct.

    Parameters
    ----------
    probabilities : ndarray [shape=(n_clips, n_classes)]
    labels : ndarray of int [shape=(n_clips,)]
    bins : int > 0
        Bins of equal width, each with its upper end.
    """
    confidence, right = probabilities.max(-1), accuracy(probabilities, labels)
    bin_of = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    counts = np.bincount(bin_of, minlength=bins)
    used = counts > 0
    means = [np.bincount(bin_of, values, bins)[used] / counts[used] for values in (confidence, right)]
    return Reliability(confidence=means[0], accuracy=means[1], counts=counts[used])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """Compute the expected calibration error: the mean distance of confidence and accuracy over clips.

    It is biased upwards if clips are few: a perfectly calibrated network does not reach 0.

    References
    ----------
    Guo et al. 2017, equation 3.
    """
    binned = reliability(probabilities, labels, bins=bins)
    return float(np.average(np.abs(binned.confidence - binned.accuracy), weights=binned.counts))


def subsets(n_members: int, size: int, *, most: int = 1000, seed: int = 0) -> Iterator[tuple[int, ...]]:
    """Yield all subsets of members of a size, or `most` random ones if there are more."""
    if math.comb(n_members, size) <= most:
        yield from itertools.combinations(range(n_members), size)
    else:
        rng = np.random.default_rng([seed, n_members, size])
        for _ in range(most):
            yield tuple(sorted(rng.choice(n_members, size, replace=False).tolist()))
