"""Train networks under a transfer plan, a run for each backbone, held-out fold and seed.

``python -m transferlens.train --clips clips.csv --pretrained-through 4``
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.options import DryRunOptions, PlanOptions
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study, StudyOptions
from transferlens.util.grouping import group_by
from transferlens.util.text import table


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Train a network under a transfer plan, one run for each backbone, held-out fold and seed.

    Without --clips or --dataset it trains on synth, the built-in data set. Finished runs are not trained again;
    interrupted ones go on from their last epoch.
    """

    plan: PlanOptions = PlanOptions()
    output: DryRunOptions = DryRunOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """The runs of the plan, and one row for each."""

    stem = "train"
    runs: tuple[Run, ...]

    @property
    def rows(self) -> tuple[RunRow, ...]:  # type: ignore[override]
        """One row per run."""
        return tuple(row_of(RunRow, run) for run in self.runs)

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return nothing: the store has it."""
        return {}

    def summary(self) -> str:
        """Return the accuracies of the runs as a table, and their means over folds."""
        cells = [
            (r.config.id, r.config.fold, *(f"{100 * a:.1f}" for a in (r.accuracy_last, r.accuracy_best)))
            for r in self.runs
        ]
        lines = [table([("run", "fold", "last [%]", "best [%]"), *cells])]
        for backbone, runs in group_by(self.runs, lambda run: run.config.backbone).items():
            folds = stats.fold_means([run.accuracy_last for run in runs], [run.config.fold for run in runs])
            lines.append(f"{backbone}: held-out accuracy after the last epoch {stats.fold_interval(folds)}")
        return "\n".join(lines)


def points(options: Options) -> dict[str, Arm]:
    """Return the runs of the plan."""
    return {"runs": Study.of(options).arm(options.plan.plan())}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Return the runs."""
    return Result(tuple(runs["runs"]))


train = question.Question("train", Options, analyse, points)
main = cli.command("train", Options, train)

if __name__ == "__main__":
    sys.exit(main())
