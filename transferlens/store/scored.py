"""The held-out scores of a run, from its labels, its logits and its history."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from transferlens.measures import classes, multilabel
from transferlens.measures.scoring import ONE, Scoring
from transferlens.store.config import RunConfig
from transferlens.util.errors import ParameterError


def recorded_commonest(provenance: Mapping[str, Any], labels: np.ndarray, n_classes: int, scoring: Scoring) -> float:
    """Return `Scored.commonest` of a run by its provenance and held-out labels."""
    if "commonest" in provenance:
        return float(provenance["commonest"])
    is_even = scoring is ONE and classes.unevenness(labels, n_classes=n_classes) == 1
    return 1 / n_classes if is_even else float("nan")


class Scored:
    """What `Run` says about its held-out scores; they are those of its `scoring`: accuracy, or mAP.

    The attributes are those of `Run`.
    """

    config: RunConfig
    provenance: dict[str, Any]
    history: dict[str, np.ndarray]
    label_names: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray

    @property
    def scoring(self) -> Scoring:
        """How the run is trained and scored: by the classes of clips, or by their several labels."""
        return self.config.scoring

    @property
    def right(self) -> np.ndarray:
        """Whether each held-out clip was classified correctly after the last epoch [shape=(n_clips,), bool].

        Where clips have several labels: whether the surest class is one of them.
        """
        return self.scoring.right(self.logits, self.labels)

    @property
    def chance(self) -> float:
        """Score of guessing, a fraction: one over the number of classes, or the mean share of clips that have one."""
        return self.scoring.chance(self.labels, len(self.label_names))

    @property
    def commonest(self) -> float:
        """Held-out accuracy of always naming the commonest class of the training clips, a fraction.

        Older files do not have it: then it is chance if all classes have as many held-out clips, and NaN otherwise. It
        is NaN where clips have several labels: in one order for all clips, mAP is chance.
        """
        return recorded_commonest(self.provenance, self.labels, len(self.label_names), self.scoring)

    @property
    def scores(self) -> np.ndarray:
        """Held-out score after each epoch, fractions [shape=(n_epochs,)]: accuracies, or mAP with several labels."""
        return self.history[self.scoring.held_out]

    @property
    def inner_scores(self) -> np.ndarray:
        """The same on the inner fold; KeyError without one."""
        return self.history[self.scoring.inner]

    @property
    def score_last(self) -> float:
        """Held-out score after the last epoch, a fraction."""
        return float(self.scores[-1])

    @property
    def score_best(self) -> float:
        """Held-out score of the epoch best on the held-out fold itself, a fraction: optimistic."""
        return float(self.scores.max())

    @property
    def score_nested(self) -> float | None:
        """Held-out score of the (first) epoch best on the inner fold, a fraction; None without an inner fold."""
        return float(self.scores[self.inner_scores.argmax()]) if self.config.inner_fold else None

    @functools.cached_property
    def lwlrap(self) -> float:
        """Held-out lwlrap after the last epoch, a fraction (`measures.multilabel`); NaN if clips have one label."""
        return float("nan") if self.scoring is ONE else multilabel.lwlrap(self.labels, self.logits)

    @property
    def macro_f1(self) -> float:
        """Held-out macro-F1 after the last epoch, a fraction: the mean over the classes that held-out clips are of.

        NaN where clips have several labels.
        """
        return classes.macro_f1(self.labels, self.logits.argmax(1)) if self.scoring is ONE else float("nan")

    @property
    def class_ratio(self) -> float:
        """Number of held-out clips of the largest class over that of the smallest; infinite if a class has none.

        NaN where clips have several labels.
        """
        one = self.scoring is ONE
        return classes.unevenness(self.labels, n_classes=len(self.label_names)) if one else float("nan")

    @property
    def accuracy_last(self) -> float:
        """Held-out accuracy after the last epoch, a fraction.

        This and the next raise ParameterError where clips have several labels: `score_last` is of all runs.
        """
        return self._accuracy("last")

    @property
    def accuracy_best(self) -> float:
        """Held-out accuracy of the epoch best on the held-out fold itself, a fraction: optimistic."""
        return self._accuracy("best")

    @property
    def accuracy_nested(self) -> float | None:
        """Held-out accuracy of the (first) epoch best on the inner fold, a fraction; None without an inner fold."""
        return self._accuracy("nested")

    def _accuracy(self, which: str) -> Any:
        if self.scoring is not ONE:
            raise ParameterError(
                f"{self.config.id} has several labels per clip, and so no accuracy: score_{which} is its "
                f"{self.scoring.name}"
            )
        return getattr(self, f"score_{which}")
