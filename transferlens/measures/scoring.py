"""How the targets of a data set are trained and scored: everything that depends on how many labels a clip has.

A `Scoring` is asked wherever that matters: `ONE` where each clip is of one class, `SEVERAL` where clips have several
labels; `SCORINGS` has them by the data set's ``labels_per_clip``.

Labels are the numbers of classes [shape=(n_clips,)] or, if there are several, 0 or 1 [shape=(n_clips, n_classes)].
Logits and probabilities are [shape=(..., n_clips, n_classes)].
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transferlens.measures import classes, multilabel, predictions, stats
from transferlens.measures.stats import Interval
from transferlens.util.lazy import scipy, torch

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet

Reliability = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Scoring(abc.ABC):
    """How targets are trained and scored.

    Attributes
    ----------
    labels_per_clip : {"one", "several"}
    name : str
        Of the held-out score, a fraction: "accuracy" or "mAP".
    """

    labels_per_clip: str
    name: str

    @property
    def held_out(self) -> str:
        """Name of the held-out score in the history of a run."""
        return f"heldout_{self.name}"

    @property
    def inner(self) -> str:
        """Name of the score on the inner fold in the history of a run."""
        return f"inner_{self.name}"

    @abc.abstractmethod
    def encode(self, labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
        """Return the labels of clips, by their names, as numbers."""

    @abc.abstractmethod
    def of_classes(self, labels: np.ndarray) -> Iterator[np.ndarray]:
        """Yield which clips each class has [shape=(n_clips,), bool], of those that clips are of."""

    @abc.abstractmethod
    def loss(self, logits: torch.Tensor, target: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
        """Compute what training minimises [nat], the mean over clips."""

    @abc.abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, in double precision."""

    @abc.abstractmethod
    def right(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return whether the surest class of each clip is a label of it [shape=(..., n_clips), bool]."""

    @abc.abstractmethod
    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Compute the held-out score, a fraction, of the outputs (logits or probabilities) of one network."""

    @abc.abstractmethod
    def over_folds(self, outputs: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
        """Compute the score of the outputs of one network per fold over the clips of all folds."""

    @abc.abstractmethod
    def gain(
        self, outputs: np.ndarray, others: np.ndarray, labels: np.ndarray, folds: np.ndarray, groups: Sequence[str]
    ) -> Interval:
        """Compute by how much outputs score higher than others do (mean over networks), with a bootstrap interval."""

    @abc.abstractmethod
    def chance(self, labels: np.ndarray, n_classes: int) -> float:
        """Return the score of guessing."""

    @abc.abstractmethod
    def nll(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the negative log-likelihood of the labels of each clip [nat, shape=(..., n_clips)]."""

    @abc.abstractmethod
    def brier(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the squared distance of the probabilities of each clip from 1 for its labels, else 0."""

    @abc.abstractmethod
    def reliability(self, probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
        """Return mean confidence, share that is right, and number per bin of confidence."""

    def calibration_error(self, probabilities: np.ndarray, labels: np.ndarray) -> float:
        """Compute the mean distance of confidence and share that is right (Guo et al. 2017, equation 3: "ECE").

        It is biased upwards if clips are few: a perfectly calibrated network does not reach 0.
        """
        confidence, right, counts = self.reliability(probabilities, labels)
        return float(np.average(np.abs(confidence - right), weights=counts))


class OneLabel(Scoring):
    """Each clip is of one class: cross-entropy, softmax, accuracy."""

    def encode(self, labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
        """Return the number of the class of each clip [shape=(n_clips,), int64]."""
        numbers = {name: number for number, name in enumerate(names)}
        return np.array([numbers[label] for (label,) in labels], np.int64)

    def of_classes(self, labels: np.ndarray) -> Iterator[np.ndarray]:
        """Yield which clips each class has."""
        return (labels == k for k in np.unique(labels))

    def loss(self, logits: torch.Tensor, target: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
        """Compute the cross-entropy."""
        return torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the softmax of logits."""
        return predictions.softmax(logits)

    def right(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return whether each clip is classified correctly."""
        return outputs.argmax(-1) == labels

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Compute the accuracy."""
        return float(self.right(outputs, labels).mean())

    def over_folds(self, outputs: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
        """Compute the accuracy over all clips."""
        return self.score(outputs, labels)

    def gain(
        self, outputs: np.ndarray, others: np.ndarray, labels: np.ndarray, folds: np.ndarray, groups: Sequence[str]
    ) -> Interval:
        """Compute the difference of accuracies, with an interval over recordings."""
        gains = self.right(outputs, labels) - self.right(others, labels).mean(0)
        return stats.bootstrap_difference(gains, groups=groups).interval

    def chance(self, labels: np.ndarray, n_classes: int) -> float:
        """Return one over the number of classes."""
        return 1 / n_classes

    def nll(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the negative log-likelihood of each clip's label."""
        return predictions.nll(probabilities, labels)

    def brier(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the squared distance from 1 for the label, else 0."""
        return predictions.brier(probabilities, labels)

    def reliability(self, probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
        """Return confidence (the largest probability of a clip), accuracy and number of clips per bin."""
        return predictions.reliability(probabilities, labels)


class SeveralLabels(Scoring):
    """Clips have several labels: binary cross-entropy, sigmoid, mean average precision."""

    def encode(self, labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray:
        """Return 1 for the classes that a clip has, else 0 [shape=(n_clips, n_classes), uint8]."""
        numbers = {name: number for number, name in enumerate(names)}
        encoded = np.zeros((len(labels), len(names)), np.uint8)
        for row, own in zip(encoded, labels, strict=True):
            row[[numbers[label] for label in own]] = 1
        return encoded

    def of_classes(self, labels: np.ndarray) -> Iterator[np.ndarray]:
        """Yield which clips each class has; a clip with several labels is there for each of them."""
        return (of_class > 0 for of_class in labels.T if of_class.any())

    def loss(self, logits: torch.Tensor, target: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
        """Compute the binary cross-entropy, the mean over clips and classes; smoothing pulls targets towards 1/2."""
        target = target.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, target)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the sigmoid of logits."""
        return scipy.special.expit(predictions.finite(logits))

    def right(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return whether the surest class of each clip is one of its labels."""
        surest = outputs.argmax(-1)
        return np.take_along_axis(np.broadcast_to(labels, outputs.shape), surest[..., None], -1)[..., 0] > 0

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Compute the mean average precision."""
        return multilabel.mean_average_precision(labels, outputs)

    def over_folds(self, outputs: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
        """Compute the mean over folds of the mAP: outputs of different networks have no common order."""
        return float(
            np.mean([self.score(outputs[folds == fold], labels[folds == fold]) for fold in dict.fromkeys(folds)])
        )

    def gain(
        self, outputs: np.ndarray, others: np.ndarray, labels: np.ndarray, folds: np.ndarray, groups: Sequence[str]
    ) -> Interval:
        """Compute the difference of mAP, with an interval over recordings, drawn anew in each fold."""
        every = np.concatenate([outputs[None], others])
        means = [self.over_folds(each, labels, folds) for each in every]
        drawn = multilabel.mean_known(self.drawn(every, labels, folds, groups), -1)
        return multilabel.interval(means[0] - np.mean(means[1:]), drawn[0] - drawn[1:].mean(0), len(labels))

    def drawn(self, outputs: np.ndarray, labels: np.ndarray, folds: np.ndarray, groups: Sequence[str]) -> np.ndarray:
        """Compute average precisions of recordings drawn anew [shape=(n_networks, n_resamples, n_classes)].

        They are means over the folds in which clips of the class were drawn; outputs are (n_networks, n_clips,
        n_classes).
        """
        names, parts = np.array(list(groups) or range(len(labels)), dtype=object), []
        for fold in dict.fromkeys(folds):
            clips = folds == fold
            parts.append(
                multilabel.resampled(labels[clips], outputs[:, clips], groups=names[clips].astype(str).tolist())
            )
        return multilabel.mean_known(np.stack(parts), 0)

    def chance(self, labels: np.ndarray, n_classes: int) -> float:
        """Return the mean share of clips of the classes."""
        return multilabel.chance(labels)

    def nll(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the negative log-likelihood of all labels of a clip, present and absent ones: a sum over classes."""
        of_label = np.where(labels > 0, probabilities, 1 - probabilities)
        return -np.log(np.maximum(of_label, np.finfo(float).tiny)).sum(-1)

    def brier(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Compute the squared distance from 1 for each label, else 0: a sum over classes."""
        return ((probabilities - labels) ** 2).sum(-1)

    def reliability(self, probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
        """Return mean probability, share of labels and number of pairs of a clip and a class per bin."""
        return predictions.bins_of(probabilities.ravel(), labels.ravel())


ONE = OneLabel("one", "accuracy")
SEVERAL = SeveralLabels("several", "mAP")
SCORINGS: dict[str, Scoring] = {scoring.labels_per_clip: scoring for scoring in (ONE, SEVERAL)}


def labels_of(dataset: DataSet) -> np.ndarray:
    """Return the labels of all clips of a data set as numbers."""
    labels = [dataset.labels_of(clip) for clip in dataset.clips]
    return SCORINGS[dataset.labels_per_clip].encode(labels, dataset.label_names)


def commonest(scoring: Scoring, trained: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of always naming the commonest class of the training clips; NaN if clips have several."""
    return classes.commonest_share(trained, labels) if scoring is ONE else float("nan")
