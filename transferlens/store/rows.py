"""One flat row per run, for tables: its point, accuracies, size and training time."""

from __future__ import annotations

from dataclasses import dataclass

from transferlens.models import build
from transferlens.models.plan import block_text
from transferlens.store.run import Run


@dataclass(frozen=True)
class RunRow:
    """A run in a table: accuracies as fractions, multiply-adds of one clip, and seconds of training.

    If runs share the output of frozen blocks, the time to compute it is counted in the first of them.
    """

    dataset: str
    backbone: str
    pretrained_through: str
    frozen_through: str
    truncate_after: int
    bn: str
    fold: str
    seed: int
    epochs: int
    accuracy_last: float
    accuracy_best: float
    trainable_parameters: int
    parameters: int
    multiply_adds: int
    seconds: float
    run: str


def run_row(run: Run) -> RunRow:
    """Return the row of a run."""
    config, plan = run.config, run.config.plan
    cost = build.cost(config.backbone, n_classes=len(run.label_names), plan=plan, input_size=config.input_size)
    return RunRow(
        dataset=config.dataset,
        backbone=config.backbone,
        pretrained_through=block_text(plan.pretrained_through),
        frozen_through=block_text(plan.frozen_through),
        truncate_after=plan.truncate_after,
        bn=plan.bn,
        fold=config.fold,
        seed=config.seed,
        epochs=config.training.epochs,
        accuracy_last=run.accuracy_last,
        accuracy_best=run.accuracy_best,
        seconds=float(run.history["seconds"].sum()),
        run=config.id,
        **vars(cost),
    )
