"""The whole study, from the clips to RESULTS.md: all questions, all figures, and the text with its numbers.

    python -m analyses.all --clips path/to/esc10/clips.csv

It takes hours on two cores; ``--dry-run`` says how many. Finished runs are not trained again: after an interruption,
the same command continues. ``steps.csv``, in the folder of the figures, has one row per step: its runs, the time of
their training (from their files) and the time that the step took. `analyses.results` writes ``RESULTS.md`` from the
tables.
"""

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from analyses import (
    BACKBONES,
    results,
    rq1_pretrained_vs_scratch,
    rq2_anomaly,
    rq2_finished_runs,
    rq2_freeze_fuse_truncate,
    rq2_plan_grid,
    rq2_statistics_reverse_surgical_norm,
    rq2_svcca,
    rq3_input,
    rq4_ensemble,
    rq5_saliency,
)
from transferlens import cli, study
from transferlens.options import FigureOptions
from transferlens.report import main as report
from transferlens.store.listing import RunSummary, list_runs
from transferlens.study import Step
from transferlens.tables import main as tables
from transferlens.training.sweep import StoreOptions
from transferlens.util.errors import DataError
from transferlens.util.fields import at_least, flat
from transferlens.util.files import plain_cell, write_csv

QUESTIONS = (
    rq1_pretrained_vs_scratch,
    rq2_freeze_fuse_truncate,
    rq2_anomaly,
    rq2_statistics_reverse_surgical_norm,
    rq2_plan_grid,
    rq2_svcca,
    rq2_finished_runs,
    rq3_input,
    rq4_ensemble,
    rq5_saliency,
)
# Exit codes of steps that did not fail.
GOOD = (cli.DONE, cli.FOUND)


@dataclass(frozen=True, kw_only=True)
class Options(study.Overrides):
    """Answer the paper's five questions with these clips: train missing runs, draw all figures, write RESULTS.md."""

    clips: Path
    """Table of clips: a csv with the columns path, label and fold."""
    backbone: tuple[str, ...] = BACKBONES
    """timm's names of the networks. Questions about one network use the first."""
    weights: str | None = None
    """ImageNet weights, as for `train`: a .safetensors or .pth file, or auto."""
    epochs: Annotated[int | None, at_least(1)] = None
    """Number of epochs, for a quick look. Default: 12, and 100 for linear probes."""
    store: StoreOptions = StoreOptions()
    output: FigureOptions = FigureOptions()
    results: Path = Path("RESULTS.md")
    """File for the text with the results."""


@dataclass(frozen=True)
class Row:
    """A step in steps.csv; `training_seconds` is the training time of all its runs, whenever they were trained."""

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
    asked = []
    for step in [step for question in QUESTIONS for step in question.STEPS]:
        own = flat(step.options)
        values = given | {"backbone": options.backbone if len(own["backbone"]) > 1 else options.backbone[:1]}
        if own["dataset"] is not None:
            values |= {"figures": options.output.figures / own["dataset"], "clips": None}
        if options.epochs is not None and own.get("epochs_scratch") is not None:
            values |= {"epochs_scratch": options.epochs}
        asked.append(step.given(values))
    return [*asked, *(Step.of(each).given(given) for each in (tables, report))]


def _finished(store: Path) -> dict[str, RunSummary]:
    """Return the finished runs of a store by id."""
    return {run.id: run for run in list_runs(store) if run.is_complete} if store.is_dir() else {}


def perform(step: Step, store: Path) -> tuple[Row, int]:
    """Do one step, and return its row and its exit code."""
    before, started = _finished(store), time.perf_counter()
    code = step.run()
    seconds = time.perf_counter() - started
    ids = {point.id for arm in step.points().values() for point in arm.points} if code in GOOD else set()
    done = [run for run in _finished(store).values() if run.id in ids]
    row = Row(
        step=step.command.name,
        figures=str(step.options.output.figures),
        n_runs=len(ids),
        n_trained_now=len(ids - before.keys()),
        training_seconds=sum(run.seconds for run in done),
        seconds=seconds,
        threads=" ".join(sorted({str(run.config.training.threads or "") for run in done})),
    )
    return row, code


def recorded(path: Path) -> dict[tuple[str, str], Row]:
    """Return the rows of an existing steps.csv, by step and folder of its figures."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds: dict[str, Any] = {"n_runs": int, "n_trained_now": int, "training_seconds": float, "seconds": float}
    try:
        steps = [Row(**{name: kinds.get(name, plain_cell)(value) for name, value in row.items()}) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} was not written by this command ({error}): move it away") from error
    return {(row.step, row.figures): row for row in steps}


def work(options: Options) -> int:
    """Do all steps, then write the text."""
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
