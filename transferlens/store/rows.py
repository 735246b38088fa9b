"""One flat row per run, for tables: the fields of a row choose which values of the run it contains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, TypeVar

import numpy as np

from transferlens.measures.classes import IF_SEVERAL, IF_UNEVEN
from transferlens.models.plan import TransferPlan, block_text
from transferlens.store.run import Run
from transferlens.util.grouping import group_by

Row = TypeVar("Row")
# The accuracies that every accuracy is compared with, and the difference below which they are one.
CHANCE, COMMONEST = "chance", "always the commonest class"
SAME = 5e-3


# What a column holds. Accuracies are fractions, epochs count from 1, seconds are those of training.
COLUMNS: dict[str, Callable[[Run], Any]] = {
    "run": lambda run: run.config.id,
    "dataset": lambda run: run.config.dataset,
    "backbone": lambda run: run.config.backbone,
    "fold": lambda run: run.config.fold,
    "inner_fold": lambda run: run.config.inner_fold,
    "n_train": lambda run: run.n_train,
    "n_clips": lambda run: len(run.labels),
    "n_recordings": lambda run: run.n_recordings,
    "seed": lambda run: run.config.seed,
    "pretrained_through": lambda run: _number(run.config.plan, 0),
    "frozen_through": lambda run: _number(run.config.plan, 1),
    "truncate_after": lambda run: run.config.plan.truncate_after,
    "start": lambda run: run.config.plan.start,
    "train": lambda run: run.config.plan.train,
    "statistics": lambda run: run.config.plan.statistics,
    "weights": lambda run: run.weights,
    "bn": lambda run: run.config.plan.bn,
    "epochs": lambda run: run.config.training.epochs,
    "epoch_last": lambda run: run.config.training.epochs,
    "epoch_best": lambda run: int(run.scores.argmax()) + 1,
    "epoch_nested": lambda run: float(run.inner_scores.argmax() + 1) if run.config.inner_fold else nan,
    "score": lambda run: run.scoring.name,
    "accuracy_last": lambda run: run.score_last,
    "lwlrap": lambda run: run.lwlrap,
    "macro_f1": lambda run: run.macro_f1,
    "class_ratio": lambda run: run.class_ratio,
    "chance": lambda run: run.chance,
    "commonest": lambda run: run.commonest,
    "accuracy_best": lambda run: run.score_best,
    "accuracy_nested": lambda run: nan if run.score_nested is None else run.score_nested,
    "trainable_parameters": lambda run: run.cost.trainable_parameters,
    "parameters": lambda run: run.cost.parameters,
    "multiply_adds": lambda run: run.cost.multiply_adds,
    "seconds": lambda run: float(run.history["seconds"].sum()),
}


def _number(plan: TransferPlan, i: int) -> str:
    """Return a number of a plan as text; "" if its letters say more than numbers can."""
    return "" if plan.numbers is None else block_text(plan.numbers[i])


def row_of(kind: type[Row], run: Run, /, **own: Any) -> Row:
    """Return a row of a run: the fields of a dataclass that are named in `COLUMNS`, and those given here."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: own[name] if name in own else COLUMNS[name](run) for name in names})


def levels(rows: Sequence[Any]) -> dict[str, float]:
    """Return the accuracies that those of a table are compared with, by name: fractions, means over folds.

    They are chance, and that of always naming the commonest class; one if they are the same, none if they are
    not known. If there are rows over all folds, they are those of these rows.
    """
    whole = [row for row in rows if not getattr(row, "fold", "")] or rows
    by_fold = {getattr(row, "fold", ""): row for row in whole if hasattr(row, "chance")}.values()
    if not by_fold:
        return {}
    chance, commonest = (float(np.mean([getattr(row, name) for row in by_fold])) for name in ("chance", "commonest"))
    if abs(chance - commonest) < SAME:
        return {f"{CHANCE}, and {COMMONEST}": chance}
    return {name: level for name, level in ((CHANCE, chance), (COMMONEST, commonest)) if np.isfinite(level)}


def levels_text(rows: Sequence[Any]) -> str:
    """Return these accuracies in words, a line per data set; "" if they are not known."""
    lines = []
    for dataset, own in group_by(rows, lambda row: getattr(row, "dataset", "")).items():
        words = ", ".join(f"{name} {100 * level:.1f} %" for name, level in levels(own).items())
        lines += [f"to compare with{f', {dataset}' if dataset else ''}: {words}"] if words else []
    return "\n".join(lines)


@dataclass(frozen=True)
class RunRow:
    """A run in a table, with its plan and its cost.

    `start` and `train` are the letters of the plan; its numbers are empty where they cannot express it. It was trained
    on `n_train` clips (NaN if that is not known), and `n_clips` were held out, of `n_recordings` (0 if
    that is not known). Macro-F1 and the size of the largest class over that of the smallest are shown where classes are
    uneven (`measures.classes`). `chance` is the accuracy of guessing, and `commonest` that of always naming the
    commonest class of the training clips (NaN if that is not known). Multiply-adds are those of one clip; if runs share
    the output of frozen blocks, the time to compute it is counted in the first of them.

    Where clips have several labels, `score` is "mAP", and so are the values that are accuracies otherwise (in tables
    their columns are named so); lwlrap stands beside it.
    """

    dataset: str
    backbone: str
    pretrained_through: str
    frozen_through: str
    truncate_after: int
    start: str
    train: str
    bn: str
    statistics: str
    weights: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seed: int
    epochs: int
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)
    accuracy_last: float
    macro_f1: float = field(default=nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=nan, kw_only=True, metadata=IF_UNEVEN)
    lwlrap: float = field(default=nan, kw_only=True, metadata=IF_SEVERAL)
    chance: float = field(default=nan, kw_only=True)
    commonest: float = field(default=nan, kw_only=True)
    accuracy_best: float
    trainable_parameters: int
    parameters: int
    multiply_adds: int
    seconds: float
    run: str

    @property
    def pair(self) -> tuple[str, str, int]:
        """What the run has in common with that of another plan that it is compared with."""
        return self.backbone, self.fold, self.seed
