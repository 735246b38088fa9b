"""Scores of predicted probabilities: accuracy, likelihood, squared error, calibration, and the gain of ensembles.

Probabilities are (n_clips, n_classes), those of an ensemble (n_members, n_clips, n_classes); labels are (n_clips,).

- `accuracy`, `nll` and `brier` [1]_ score each clip; `reliability` [3]_ compares confidences with what is right.
- `ambiguity` [2]_ and `disagreement` tell how much the members of an ensemble differ.
- `softmax` computes probabilities from logits; `subsets` yields ensembles of some members.

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

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits [shape=(..., n_classes)], in double precision.

    Examples
    --------
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    return scipy.special.softmax(finite(logits), axis=-1)


def finite(logits: np.ndarray) -> np.ndarray:
    """Return logits in double precision; raise ParameterError if some are NaN or infinite."""
    logits = np.asarray(logits, dtype=float)
    if not np.isfinite(logits).all():
        raise ParameterError("logits must be finite: some are NaN or infinite")
    return logits


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 1 for clips whose most probable class is the label, else 0 [shape=(..., n_clips), float]."""
    return (probabilities.argmax(-1) == labels).astype(float)


def nll(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the negative log-likelihood of each clip's label [nat, shape=(..., n_clips)]."""
    of_label = np.take_along_axis(probabilities, np.broadcast_to(labels, probabilities.shape[:-1])[..., None], -1)
    return -np.log(np.maximum(of_label[..., 0], np.finfo(float).tiny))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the squared distance, 0 to 2, of probabilities from 1 for the label, else 0 [shape=(..., n_clips)]."""
    return ((probabilities - np.eye(probabilities.shape[-1])[labels]) ** 2).sum(-1)


def ambiguity(probabilities: np.ndarray) -> np.ndarray:
    """Compute the mean squared distance of an ensemble's members from their mean [shape=(n_clips,)].

    The members' mean squared error is the ensemble's plus this (Krogh and Vedelsby 1994): it is the ensemble's gain.
    """
    return ((probabilities - probabilities.mean(0)) ** 2).sum(-1).mean(0)


def disagreement(probabilities: np.ndarray) -> float:
    """Compute the share of clips whose most probable class differs, mean over pairs of members; 0 for one member."""
    predicted = probabilities.argmax(-1)
    pairs = [np.mean(a != b) for a, b in itertools.combinations(predicted, 2)]
    return float(np.mean(pairs)) if pairs else 0.0


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean confidence (the largest probability), accuracy and number of clips per bin [shape=(n_bins,)].

    Bins of confidence have equal width, each with its upper end; those without clips are left out. 15 as in Guo et al.
    """
    return bins_of(probabilities.max(-1), accuracy(probabilities, labels), bins=bins)


def bins_of(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same for any events: how sure one is of each, and whether it happens [shape=(n,)]."""
    bin_of = np.digitize(confidence, np.arange(1, bins) / bins, right=True)
    counts = np.bincount(bin_of, minlength=bins)
    used = counts > 0
    means = [np.bincount(bin_of, values, bins)[used] / counts[used] for values in (confidence, right)]
    return means[0], means[1], counts[used]


def subsets(n_members: int, size: int, *, most: int = 1000) -> Iterator[tuple[int, ...]]:
    """Yield all subsets of `size` members, or `most` random ones if there are more."""
    if math.comb(n_members, size) <= most:
        yield from itertools.combinations(range(n_members), size)
    else:
        rng = np.random.default_rng([0, n_members, size])
        for _ in range(most):
            yield tuple(sorted(rng.choice(n_members, size, replace=False).tolist()))
