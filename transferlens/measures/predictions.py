"""Scores of predicted probabilities: accuracy, likelihood, squared error, calibration, and what ensembles add to them.

No networks and no runs in here: probabilities and labels in, numbers out.

References
----------
G. W. Brier: Verification of forecasts expressed in terms of probability. Monthly Weather Review 78 (1950).
A. Krogh, J. Vedelsby: Neural network ensembles, cross validation, and active learning. NeurIPS 1994, equation 6.
C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On calibration of modern neural networks. ICML 2017, section 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

__all__ = [
    "Reliability",
    "accuracy",
    "ambiguity",
    "brier",
    "calibration_error",
    "disagreement",
    "nll",
    "reliability",
    "softmax",
    "subsets",
]

# Bins of confidence, as in Guo et al. 2017.
BINS = 15


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits [shape=(..., n_classes)], in double precision.

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
    """Whether the likeliest class is the label [shape=(..., n_clips), float]: its mean is the accuracy."""
    return (probabilities.argmax(-1) == labels).astype(float)


def nll(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each clip's label [nat, shape=(..., n_clips)]."""
    found = np.take_along_axis(probabilities, np.broadcast_to(labels, probabilities.shape[:-1])[..., None], -1)
    return -np.log(np.maximum(found[..., 0], np.finfo(float).tiny))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance from certainty of the label, over classes, 0 to 2 [shape=(..., n_clips)] (Brier 1950)."""
    return ((probabilities - np.eye(probabilities.shape[-1])[labels]) ** 2).sum(-1)


def ambiguity(probabilities: np.ndarray) -> np.ndarray:
    """Mean squared distance of the members from their mean [shape=(n_clips,)].

    The members' mean squared error is the ensemble's plus this (Krogh and Vedelsby 1994): what the ensemble gains.

    Parameters
    ----------
    probabilities : ndarray [shape=(n_members, n_clips, n_classes)]
    """
    return ((probabilities - probabilities.mean(0)) ** 2).sum(-1).mean(0)


def disagreement(probabilities: np.ndarray) -> float:
    """Share of clips whose likeliest class differs, mean over pairs of members; 0 for one member.

    Parameters
    ----------
    probabilities : ndarray [shape=(n_members, n_clips, n_classes)]
    """
    predicted = probabilities.argmax(-1)
    pairs = [np.mean(a != b) for a, b in itertools.combinations(predicted, 2)]
    return float(np.mean(pairs)) if pairs else 0.0


@dataclass(frozen=True)
class Reliability:
    """Clips by the confidence (largest probability) of their prediction; bins without clips are left out.

    Attributes
    ----------
    confidence, accuracy : ndarray [shape=(n_bins,)]
        Mean of each bin.
    counts : ndarray of int [shape=(n_bins,)]
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> Reliability:
    """How often predictions of each confidence are right.

    Parameters
    ----------
    probabilities : ndarray [shape=(n_clips, n_classes)]
    labels : ndarray of int [shape=(n_clips,)]
    bins : int > 0
        Of equal width, each with its upper end.
    """
    confidence, right = probabilities.max(-1), accuracy(probabilities, labels)
    bin_of = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    counts = np.bincount(bin_of, minlength=bins)
    there = counts > 0
    sums = (np.bincount(bin_of, weights=each, minlength=bins)[there] for each in (confidence, right))
    mean_confidence, share_right = (each / counts[there] for each in sums)
    return Reliability(mean_confidence, share_right, counts[there])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """Expected calibration error: distance of confidence and accuracy, mean over clips (Guo et al. 2017, equation 3).

    It is biased upward where clips are few: a perfectly calibrated network does not reach 0.
    """
    found = reliability(probabilities, labels, bins=bins)
    return float(np.average(np.abs(found.confidence - found.accuracy), weights=found.counts))


def subsets(n_members: int, size: int, *, most: int = 1000, seed: int = 0) -> Iterator[tuple[int, ...]]:
    """All subsets of this size, or so many drawn at random where there are more than `most`."""
    if math.comb(n_members, size) <= most:
        yield from itertools.combinations(range(n_members), size)
    else:
        rng = np.random.default_rng([seed, n_members, size])
        for _ in range(most):
            yield tuple(sorted(rng.choice(n_members, size, replace=False).tolist()))
