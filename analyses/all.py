"""The whole study, from the clips to RESULTS.md: every question, every figure, and the text with its numbers.

    python -m analyses.all --clips path/to/esc10/clips.csv

An evening on two cores from an empty store; what the store has is not trained again, so that the same command goes on
where it was stopped. Beside the figures stands ``steps.csv``: for every step its runs, how long they were trained (from
their files) and how long the step took this time. ``RESULTS.md`` is filled in from the tables by `analyses.results`.
"""

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from transferlens.store.listing import RunSummary, list_runs
from transferlens.study import Step
from transferlens.training import forecast
from transferlens.util.errors import DataError
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
class Options(study.EngineOptions):
    """Answer the paper's five questions on the clips: train what is missing, draw every figure, write RESULTS.md."""

    clips: Path
    """Clip list, a CSV with path, label and fold."""
    backbone: tuple[str, ...] = tuple(BACKBONES)
    """Networks; questions asked of one are asked of the first."""
    weights: str | None = None
    """As for `train`: a file, or auto."""
    epochs: int | None = None
    """Number of epochs, for a quick look; 12 by default, 100 for linear probes."""
    runs: Path = Path("runs")
    """Folder of the run store: what is there is not trained again."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""
    figures: Path = Path("figures")
    """Folder for the figures and tables."""
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
    """All steps, with these options."""
    given = options.given("backbone", "results")
    found = []
    for step in [step for question in QUESTIONS for step in question.STEPS]:
        networks = options.backbone if len(step.options["backbone"]) > 1 else options.backbone[:1]
        mine = given | {"backbone": list(networks)}
        if "dataset" in step.options:  # one of its own
            mine |= {"figures": str(options.figures / step.options["dataset"])}
            del mine["clips"]
        if options.epochs is not None and "epochs_scratch" in step.options:
            mine |= {"epochs_scratch": options.epochs}
        found.append(step.given(mine))
    return [*found, Step("tables").given(given), Step("report").given(given)]


def _finished(store: Path) -> list[RunSummary]:
    return [summary for summary in list_runs(store) if summary.is_complete] if store.is_dir() else []


def perform(step: Step, options: Options) -> tuple[Row, int]:
    """Do one step; what it took, and its exit code."""
    before = {summary.id for summary in _finished(options.runs)}
    started = time.perf_counter()
    code = study.perform([step])
    seconds = time.perf_counter() - started
    ids = set(study.ids(step)) if code in GOOD else set()
    done = [summary for summary in _finished(options.runs) if summary.id in ids]
    row = Row(
        step=step.command,
        figures=str(step.options["figures"]),
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


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Do every step, then write the text."""
    options = cli.parse(Options, argv, prog="analyses.all")
    results.check(options.results)
    wanted = steps(options)
    study.check(wanted)
    if options.dry_run:
        print(forecast.text([row for step in wanted for row in study.plan(step)]))
        return cli.DONE
    path = options.figures / "steps.csv"
    failed, rows = False, recorded(path)
    for step in wanted:
        row, code = perform(step, options)
        if code not in (*GOOD, cli.SOME_FAILED):
            return code
        rows[row.step, row.figures] = row
        write_csv([*rows.values()], path)
        failed |= code == cli.SOME_FAILED
    if failed:
        return cli.SOME_FAILED
    return results.main(["--figures", str(options.figures), "--out", str(options.results)])


if __name__ == "__main__":
    sys.exit(main())
