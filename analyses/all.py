"""The whole study, from the clips to RESULTS.md: every question, every figure, and the text with its numbers.

    python -m analyses.all --clips path/to/esc10/clips.csv

An evening on two cores from an empty store; what the store has is not trained again, so that the same command goes on
where it was stopped. Beside the figures stands ``steps.csv``: for every step its runs, how long they were trained (from
their files) and how long the step took this time. ``RESULTS.md`` is filled in from the tables by `analyses.results`.
"""

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from analyses import (
    BACKBONES,
    results,
    rq1_pretrained_vs_scratch,
    rq2_freeze_fuse_truncate,
    rq2_plan_grid,
    rq2_svcca,
    rq3_input,
    rq4_ensemble,
    rq5_saliency,
)
from transferlens import cli, study
from transferlens.options import OutputOptions
from transferlens.report import main as report
from transferlens.store.listing import RunSummary, list_runs
from transferlens.study import Step
from transferlens.tables import main as tables
from transferlens.training.sweep import StoreOptions
from transferlens.util.errors import DataError
from transferlens.util.fields import at_least, flat
from transferlens.util.files import write_csv

QUESTIONS = (
    rq1_pretrained_vs_scratch,
    rq2_freeze_fuse_truncate,
    rq2_plan_grid,
    rq2_svcca,
    rq3_input,
    rq4_ensemble,
    rq5_saliency,
)
# Exit codes of a step that did all it should; what an audit finds is no failure.
GOOD = (cli.DONE, cli.FOUND)


@dataclass(frozen=True, kw_only=True)
class Options(study.Overrides):
    """Answer the paper's five questions on the clips: train what is missing, draw every figure, write RESULTS.md."""

    clips: Path
    """Clip list, a CSV with path, label and fold."""
    backbone: tuple[str, ...] = BACKBONES
    """Networks; questions asked of one are asked of the first."""
    weights: str | None = None
    """As for `train`: a file, or auto."""
    epochs: Annotated[int | None, at_least(1)] = None
    """Number of epochs, for a quick look; 12 by default, 100 for linear probes."""
    store: StoreOptions = StoreOptions()
    output: OutputOptions = OutputOptions()
    results: Path = Path("RESULTS.md")
    """The text."""


@dataclass(frozen=True)
class Row:
    """A step in steps.csv. `training_seconds` is that of its runs in all, whenever they were trained."""

    step: str
    figures: str
    n_runs: int
    n_trained_now: int
    training_seconds: float
    seconds: float
    threads: str


def steps(options: Options) -> list[Step]:
    """Return all steps, with these options."""
    given = study.handed_on(options, "backbone", "results")
    found = []
    for step in [step for question in QUESTIONS for step in question.STEPS]:
        of_step = flat(step.options)
        values = given | {"backbone": options.backbone if len(of_step["backbone"]) > 1 else options.backbone[:1]}
        if of_step["dataset"] is not None:  # one of its own
            values |= {"figures": options.output.figures / of_step["dataset"], "clips": None}
        if options.epochs is not None and of_step.get("epochs_scratch") is not None:
            values |= {"epochs_scratch": options.epochs}
        found.append(step.given(values))
    return [*found, *(Step.of(each).given(given) for each in (tables, report))]


def _finished(store: Path) -> list[RunSummary]:
    return [summary for summary in list_runs(store) if summary.is_complete] if store.is_dir() else []


def perform(step: Step, store: Path) -> tuple[Row, int]:
    """Do one step; return what it took, and its exit code."""
    before = {summary.id for summary in _finished(store)}
    started = time.perf_counter()
    code = step.command.run(step.options)
    seconds = time.perf_counter() - started
    arms = step.points().values() if code in GOOD else ()
    ids = {point.id for arm in arms for point in arm.points}
    done = [summary for summary in _finished(store) if summary.id in ids]
    row = Row(
        step=step.command.name,
        figures=str(step.options.output.figures),
        n_runs=len(ids),
        n_trained_now=len(ids - before),
        training_seconds=sum(summary.seconds for summary in done),
        seconds=seconds,
        threads=" ".join(sorted({str(summary.config.training.threads or "") for summary in done})),
    )
    return row, code


def recorded(path: Path) -> dict[tuple[str, str], Row]:
    """What steps took when they were last done, by step and folder of their figures."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {"n_runs": int, "n_trained_now": int, "training_seconds": float, "seconds": float}
    try:
        made = [Row(**{name: kinds.get(name, str)(value) for name, value in row.items()}) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is not as this command writes it ({error}): move it away") from error
    return {(row.step, row.figures): row for row in made}


def work(options: Options) -> int:
    """Do every step, then write the text."""
    results.check(options.results)
    path = options.output.figures / "steps.csv"
    rows = recorded(path)

    def step(each: Step) -> int:
        row, code = perform(each, options.store.runs)
        if code in (*GOOD, cli.SOME_FAILED):
            rows[row.step, row.figures] = row
            write_csv([*rows.values()], path)
        return code

    code = study.perform(steps(options), dry_run=options.dry_run, step=step)
    if options.dry_run or code not in GOOD:
        return code
    return results.main.run(results.Options(figures=options.output.figures, out=options.results))


main = cli.Command("analyses.all", Options, work)

if __name__ == "__main__":
    sys.exit(main())
