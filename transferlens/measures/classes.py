"""Scores by class: recall, precision and F1 with their intervals, and their means over classes.

Labels and predictions are numbers of classes [shape=(n_clips,)]. scikit-learn computes the scores.

- `scores` of each class; `confusion` of each class with each other.
- `macro_f1` and `balanced_accuracy`: every class counts alike, however many clips it has.
- `commonest_share`: the accuracy of always naming the commonest class of the training clips.
- `unevenness`: the size of the largest class over that of the smallest. Beyond `UNEVEN`, accuracy is mostly that of the
  large classes, and tables show macro-F1 beside it: their rows mark such columns by ``metadata=IF_UNEVEN``, and `shown`
  leaves them out elsewhere.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transferlens.measures import stats
from transferlens.measures.stats import Interval
from transferlens.util.lazy import metrics

UNEVEN = 1.5
IF_UNEVEN = {"only if classes are uneven": True}
IF_SEVERAL = {"only if clips have several labels": True}
UNDEFINED = Interval(np.nan, np.nan, np.nan, 0, note="no such clip")


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class over the clips of one or several networks; those that are not defined are NaN.

    Attributes
    ----------
    n : int
        Number of clips of the class.
    recall, precision, f1 : Interval
        Share of its clips that are classified as it; share of clips classified as it that are of it; harmonic mean of
        the two.
    """

    n: int
    recall: Interval
    precision: Interval
    f1: Interval


def scores(
    labels: np.ndarray, predicted: np.ndarray, *, n_classes: int, groups: Sequence[str] = ()
) -> list[ClassScores]:
    """Compute the scores of each class with Wilson's intervals, over recordings if clips have groups.

    Recall and precision are shares of clips, and so is TP / (TP + FP + FN), of which F1 = 2 TP / (2 TP + FP + FN) is an
    increasing function: the ends of its interval are those of this share.

    Parameters
    ----------
    labels, predicted : ndarray of int [shape=(n_clips,)]
        Each clip as often as there are networks that classified it; then `groups` must name recordings or clips.
    n_classes : int
    groups : sequence of str, optional
        The recording of each clip, as for `stats.share_interval`.

    Examples
    --------
    >>> dog, cat = scores(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), n_classes=2)
    >>> round(dog.recall.mean, 3), round(cat.precision.mean, 3), round(dog.f1.mean, 3)
    (0.667, 0.5, 0.8)
    """
    classes, right = range(n_classes), labels == predicted
    values = metrics.precision_recall_fscore_support(labels, predicted, labels=[*classes], zero_division=np.nan)
    table = []
    for k, precision, recall, f1, n in zip(classes, *values, strict=True):
        of_class, as_class = labels == k, predicted == k
        either = _share(right, of_class | as_class, groups)
        low, high = (2 * bound / (1 + bound) for bound in (either.low, either.high))
        table.append(
            ClassScores(
                n=int(n),
                recall=replace(_share(right, of_class, groups), mean=float(recall)),
                precision=replace(_share(right, as_class, groups), mean=float(precision)),
                f1=replace(either, mean=float(f1), low=low, high=high),
            )
        )
    return table


def _share(right: np.ndarray, chosen: np.ndarray, groups: Sequence[str]) -> Interval:
    """Return the share of the chosen clips that are right."""
    return (
        stats.share_interval(right[chosen], groups=[*itertools.compress(groups, chosen)]) if chosen.any() else UNDEFINED
    )


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the mean F1 of the classes that clips are of.

    Examples
    --------
    >>> round(macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])), 3)
    0.733
    """
    n = max(labels.max(), predicted.max()) + 1  # not by scikit-learn, as listing many runs would take far longer
    right = np.bincount(labels[labels == predicted], minlength=n)
    clips, named = np.bincount(labels, minlength=n), np.bincount(predicted, minlength=n)
    return float(np.mean((2 * right / np.maximum(clips + named, 1))[clips > 0]))


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the mean recall of the classes that clips are of.

    Examples
    --------
    >>> round(balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])), 3)
    0.833
    """
    return float(metrics.recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0))


def commonest_share(trained: np.ndarray, labels: np.ndarray) -> float:
    """Compute the accuracy of always naming the class that most training clips are of; of several such, their mean.

    Parameters
    ----------
    trained, labels : ndarray of int [shape=(n_train,)] and [shape=(n_clips,)]
        Classes of the training clips and of the clips that are scored.

    Examples
    --------
    >>> commonest_share(np.array([0, 0, 1]), np.array([0, 1, 1, 1]))
    0.25
    """
    counts = np.bincount(trained)
    return float(np.mean([np.mean(labels == k) for k in np.flatnonzero(counts == counts.max())]))


def confusion(labels: np.ndarray, predicted: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Count the clips of each class (rows) that are classified as each (columns) [shape=(n_classes, n_classes)]."""
    return metrics.confusion_matrix(labels, predicted, labels=[*range(n_classes)])


def unevenness(labels: np.ndarray, *, n_classes: int) -> float:
    """Compute the number of clips of the largest class over that of the smallest; infinite if a class has none.

    Examples
    --------
    >>> unevenness(np.array([0, 0, 0, 1]), n_classes=2)
    3.0
    """
    counts = np.bincount(labels, minlength=n_classes)
    return float(counts.max() / counts.min()) if counts.min() else float("inf")


def shown(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the columns of rows, dataclasses or dicts; macro-F1 only where the classes of some row are uneven.

    Where clips have several labels, columns named after the accuracy are named after the `score` of the row instead.
    """
    table = [row if isinstance(row, dict) else vars(row) for row in rows]
    if not table or isinstance(rows[0], dict):
        return table
    needed = {
        "only if classes are uneven": any(row.get("class_ratio", 1) > UNEVEN for row in table),
        "only if clips have several labels": any(_score(row) != "accuracy" for row in table),
    }
    fields = dataclasses.fields(rows[0])
    hidden = {field.name for field in fields if not all(needed.get(condition, True) for condition in field.metadata)}
    columns = [{name: value for name, value in named(row).items() if name not in hidden} for row in table]
    names = dict.fromkeys(itertools.chain(*columns))  # rows of several scores have several columns
    return [{name: row.get(name, np.nan) for name in names} for row in columns]


def named(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row, those of accuracies named after its score."""
    return {name.replace("accuracy", _score(row)): value for name, value in row.items()}


def _score(row: dict[str, Any]) -> str:
    return row.get("score", "accuracy")
