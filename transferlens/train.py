"""Train networks under a transfer plan: one run per backbone, held-out fold and seed.

``python -m transferlens.train --clips clips.csv --pretrained-through 4``

``python -m transferlens.train --clips clips.csv --start IIiii --train NNAAA --statistics permuted``
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.measures.classes import UNEVEN
from transferlens.options import DryRunOptions, PlanOptions
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study, StudyOptions
from transferlens.util.grouping import group_by
from transferlens.util.text import table


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Train networks under a transfer plan: one run per backbone, held-out fold and seed.

    Finished runs are not trained again; interrupted runs continue from their last epoch.
    """

    plan: PlanOptions = PlanOptions()
    output: DryRunOptions = DryRunOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """The runs of the plan, and one row per run."""

    stem = "train"
    runs: tuple[Run, ...]

    @property
    def rows(self) -> tuple[RunRow, ...]:  # type: ignore[override]
        """One row per run."""
        return tuple(row_of(RunRow, run) for run in self.runs)


def summary(result: Result) -> str:
    """Return the accuracies of the runs as a table, with macro-F1 where classes are uneven, and means over folds."""
    score = result.score
    fields = {"accuracy_last": f"last [{score} %]", "lwlrap": "lwlrap [%]"} if score != "accuracy" else {}
    fields = fields or {"accuracy_last": "last [%]", "macro_f1": "macro-F1 [%]"}
    fields |= {"accuracy_best": "best [%]"}
    if not any(row.class_ratio > UNEVEN for row in result.rows):
        fields.pop("macro_f1", None)
    cells = [(row.run, row.fold, *(f"{100 * getattr(row, name):.1f}" for name in fields)) for row in result.rows]
    lines = [table([("run", "fold", *fields.values()), *cells])]
    for backbone, rows in group_by(result.rows, key=lambda row: row.backbone).items():
        interval = stats.fold_interval(stats.by_fold(rows, "accuracy_last"))
        lines.append(f"{backbone}: held-out {score} after the last epoch {interval}")
    return "\n".join(lines)


def points(options: Options) -> dict[str, Arm]:
    """Return the runs of the plan."""
    return {"runs": Study.of(options).arm(options.plan.plan(options.sweep))}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Return the runs."""
    return Result(tuple(runs["runs"]))


train = question.Question("train", Options, analyse, points, several=True)
main = cli.command("train", Options, train)

if __name__ == "__main__":
    sys.exit(main())
