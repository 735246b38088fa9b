"""Properties that tell a clip's class without its content: a network can learn them instead of the sound.

Each class is told from all others by one property alone: a clip is said to be of the class if its value is commoner in
the class than outside. The rule is made from all folds but one, in turn, and tried on that one. Its accuracy gives the
same weight to the class and to the others, so that it is 50 % by chance in every data set. A property counts if this
accuracy is high and its relation with the labels is not due to chance: by Fisher's exact test [1]_ (categories) or the
Kruskal-Wallis test (numbers), corrected for the number of properties. Clips of one recording are alike, which the test
does not know; that they are in one fold keeps the accuracy fair.

* `Property`: the values of all clips
* `cues`: the properties that count
* `accuracies`, `fisher`: steps on the way

References
----------
.. [1] G. H. Freeman, J. H. Halton: Note on an exact treatment of contingency, goodness of fit and other problems of
   significance. Biometrika 38 (1951).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from transferlens.util.lazy import scipy
from transferlens.util.text import some

ALPHA = 0.01
BINS = 16
CLIPS_PER_BIN = 8  # at least, so that a bin has clips of several folds
SIMULATED = 999  # tables


@dataclass(frozen=True)
class Property:
    """One property of all clips.

    Attributes
    ----------
    name, unit : str
    values : ndarray [shape=(n_clips,), float or str]
        Numbers, or names of categories.
    least : float in [0.5, 1]
        Accuracy from which on the property counts.
    """

    name: str
    unit: str
    values: np.ndarray
    least: float

    @property
    def is_number(self) -> bool:
        """Whether the values have an order."""
        return self.values.dtype.kind == "f"

    @property
    def bins(self) -> np.ndarray:
        """The values in at most 16 bins [shape=(n_clips,), int]: intervals of a number; categories, the rare in one."""
        if self.is_number:
            # A power of 2, so that two classes of equal size can be told entirely.
            n_bins = 2 ** int(np.log2(np.clip(len(self.values) / CLIPS_PER_BIN, 2, BINS)))
            edges = np.unique(np.quantile(self.values, np.linspace(0, 1, n_bins + 1)[1:-1]))
            return np.searchsorted(edges, self.values, side="right")
        _, codes, counts = np.unique(self.values, return_inverse=True, return_counts=True)
        return np.minimum(np.argsort(np.argsort(-counts, kind="stable"))[codes], BINS - 1)

    def contrast(self, is_own: np.ndarray) -> str:
        """Return in words how the clips of a class differ from the others."""
        own, others = self.values[is_own], self.values[~is_own]
        if self.is_number:
            medians = [f"{np.median(values):.4g}{self.unit}" for values in (own, others)]
            return f"median {medians[0]}, of the others {medians[1]}"
        value = max(np.unique(own), key=lambda value: np.mean(own == value) - np.mean(others == value))
        shares = [f"{100 * np.mean(values == value):.0f} %" for values in (own, others)]
        return f"{value}{self.unit} in {shares[0]} of its clips and {shares[1]} of the others"


def _table(bins: np.ndarray, classes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.bincount(bins * shape[1] + classes, minlength=shape[0] * shape[1]).reshape(shape)


def accuracies(bins: np.ndarray, classes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return how well a property tells each class from all others, in folds that the rule is not made from.

    Parameters
    ----------
    bins, classes : ndarray [shape=(n_clips,), int]
        Numbered from 0; there is at least one clip of each of two or more classes.
    folds : ndarray [shape=(n_clips,)]

    Returns
    -------
    accuracy : ndarray [shape=(n_classes,), float in [0, 1]]
        Mean of the shares of the clips of the class, and of the others, for which the rule is right.

    Examples
    --------
    >>> accuracies(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2]))
    array([1., 1.])
    """
    shape = (int(bins.max()) + 1, int(classes.max()) + 1)
    total, right = _table(bins, classes, shape), np.zeros((2, shape[1]))
    for fold in np.unique(folds):
        held_out = _table(bins[folds == fold], classes[folds == fold], shape)
        own = total - held_out
        other = own.sum(axis=1, keepdims=True) - own
        says = own / np.maximum(own.sum(axis=0), 1) > other / np.maximum(other.sum(axis=0), 1)
        right[0] += (held_out * says).sum(axis=0)
        right[1] += ((held_out.sum(axis=1, keepdims=True) - held_out) * ~says).sum(axis=0)
    n_own = total.sum(axis=0)
    return (right[0] / n_own + right[1] / (len(bins) - n_own)) / 2


def fisher(table: np.ndarray) -> float:
    """Return the p-value of Fisher's exact test for a table of counts.

    That of tables larger than 2x2 is from 999 random tables of the same sums.
    """
    if table.shape == (2, 2):
        return float(scipy.stats.fisher_exact(table).pvalue)
    # scipy.stats.fisher_exact compares probabilities, which are all 0 for large tables, and not their logarithms.
    law = scipy.stats.random_table(table.sum(axis=1), table.sum(axis=0), seed=0)
    most = law.logpmf(table) + 1e-9  # equal but for rounding
    return (1 + sum(law.logpmf(law.rvs()) <= most for _ in range(SIMULATED))) / (1 + SIMULATED)


def _p(candidate: Property, classes: np.ndarray) -> float:
    """Return the p-value of the relation between a property and the classes."""
    n_classes, bins = int(classes.max()) + 1, candidate.bins
    if candidate.is_number:
        return float(scipy.stats.kruskal(*(candidate.values[classes == i] for i in range(n_classes))).pvalue)
    return fisher(_table(bins, classes, (int(bins.max()) + 1, n_classes)))


def cues(
    properties: Sequence[Property], labels: Sequence[str], folds: Sequence[str], *, of: str = "", tests: int = 1
) -> Iterator[tuple[Property, float, str]]:
    """Yield each property that counts, the accuracy for the class that it tells best, and both in words.

    `labels` and `folds` have one item per clip. Where clips have several labels, ask for each class in turn: with `of`,
    only this class is told from others, and `tests` is the number of classes that are asked for.
    """
    names, classes = np.unique(np.array(labels, dtype=object), return_inverse=True)
    varying = [candidate for candidate in properties if np.any(candidate.values != candidate.values[:1])]
    for candidate in varying if len(names) > 1 else ():
        accuracy = accuracies(candidate.bins, classes, np.array(folds, dtype=object))
        told = [number for number in np.argsort(-accuracy, kind="stable") if accuracy[number] >= candidate.least]
        told = [number for number in told if of in ("", names[number])]
        if told and tests * len(varying) * _p(candidate, classes) < ALPHA:
            best, others = told[0], [names[number] for number in told[1:]]
            accuracy_text = f"{100 * accuracy[best]:.0f} % accuracy (chance: 50 %)"
            message = f"{candidate.name} alone distinguishes {names[best]} from all others with {accuracy_text}: "
            message += candidate.contrast(classes == best)
            if others and len(names) > 2:
                message += f"; it also distinguishes {some(others)}"
            yield candidate, float(accuracy[best]), message
