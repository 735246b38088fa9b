"""The whole study, from the clips to RESULTS.md: all questions, all figures, and the text with its numbers.

    python -m analyses.all --clips path/to/esc10/clips.csv
    python -m analyses.all --clips path/to/esc10/clips.csv --dataset urbansound8k --root path/to/UrbanSound8K

Every question is asked of each data set; the figures of each are in a folder of its name. ``analyses/README.md`` lists
the steps, with the reason for their networks, seeds and folds. It takes hours on two cores; ``--dry-run`` says how
many. Finished runs are not trained again: after an interruption, the same command continues, as the same call.
``steps.csv``, in the folder of the figures, has one row per step, with the id of the call that did it; runs that it
trained have this id, too (``call`` of their provenance). `analyses.results` writes ``RESULTS.md`` from the tables.
"""

import contextlib
import csv
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from analyses import (
    BACKBONES,
    controls,
    full_size,
    placed,
    results,
    rq1_pretrained_vs_scratch,
    rq1_samples_recipes,
    rq1_sources,
    rq2_anomaly,
    rq2_finished_runs,
    rq2_freeze_fuse_truncate,
    rq2_plan_grid,
    rq2_statistics_reverse_surgical_norm,
    rq2_svcca,
    rq3_input,
    rq4_ensemble,
    rq5_league,
    rq5_saliency,
)
from analyses.rq1_sources import is_stored
from transferlens import cli, study
from transferlens.data.catalogue import DataOptions
from transferlens.data.known_answers import is_generated
from transferlens.options import FigureOptions
from transferlens.report import main as report
from transferlens.store.listing import RunSummary, list_runs
from transferlens.study import Step
from transferlens.tables import main as tables
from transferlens.training.sweep import StoreOptions
from transferlens.training.trainer import CALL
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.fields import at_least, flat
from transferlens.util.files import plain_cell, write_csv
from transferlens.util.text import counted

QUESTIONS = (
    rq1_pretrained_vs_scratch,
    rq1_samples_recipes,
    rq1_sources,
    rq2_freeze_fuse_truncate,
    rq2_anomaly,
    rq2_statistics_reverse_surgical_norm,
    rq2_plan_grid,
    rq2_svcca,
    rq2_finished_runs,
    rq3_input,
    rq4_ensemble,
    rq5_saliency,
    rq5_league,
    controls,
    full_size,
)
# Options that are not handed on to steps as they are.
OWN = ("backbone", "results", "clips", "dataset", "root", "figures")
# Exit codes of steps that did not fail.
GOOD = (cli.DONE, cli.FOUND)
DONE = (*GOOD, cli.SOME_FAILED)


@dataclass(frozen=True, kw_only=True)
class Options(study.Overrides):
    """Answer the paper's five questions with these clips: train missing runs, draw all figures, write RESULTS.md."""

    clips: tuple[Path, ...] = ()
    """Tables or folders of clips, as for `train`, each a data set."""
    dataset: tuple[str, ...] = ()
    """Data sets known by name, after those of --clips."""
    root: tuple[Path, ...] = ()
    """The folder of each of them, in the same order; generated ones have none."""
    backbone: tuple[str, ...] = BACKBONES
    """timm's names of the networks. Questions about one network use the first."""
    weights: str | None = None
    """ImageNet weights, as for `train`: a .safetensors or .pth file, or auto."""
    epochs: Annotated[int | None, at_least(2, ", as a recipe trains the head alone first")] = None
    """Number of epochs, for a quick look. Default: 12, and 100 for linear probes."""
    store: StoreOptions = StoreOptions()
    output: FigureOptions = FigureOptions()
    results: Path = Path("RESULTS.md")
    """File for the text with the results."""


@dataclass(frozen=True)
class Row:
    """A step in steps.csv.

    `folder` holds its figures, and `data` names its data set, without a path. `n_trained` of its runs were trained for
    the call; `seconds` is the wall time of the step each time that the call trained some; `training_seconds` is the
    training time of all its runs, whenever they were trained.
    """

    step: str
    folder: str
    data: str
    call: str
    n_runs: int
    n_trained: int
    training_seconds: float
    seconds: float
    threads: str


def data_sets(options: Options) -> dict[str, DataOptions]:
    """Return the data sets by name; raise a ParameterError if there is none, or if two have one name."""
    stored, roots = [name for name in options.dataset if not is_generated(name)], iter(options.root)
    if len(stored) != len(options.root):
        raise ParameterError(
            f"root has {counted(len(options.root), 'folder')} for dataset={', '.join(stored) or 'none'}: each data set "
            "needs its folder, in the same order"
        )
    asked = [DataOptions(clips=each) for each in options.clips]
    asked += [DataOptions(dataset=name, root=next(roots) if name in stored else None) for name in options.dataset]
    if not asked:
        raise ParameterError("clips or dataset must name at least one data set")
    names = [each.open().name for each in asked]
    if own := sorted({flat(step.options)["dataset"] for question in QUESTIONS for step in question.STEPS} & {*names}):
        raise ParameterError(f"{', '.join(own)}: the study asks of these sounds by itself, leave them out")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise ParameterError(f"two data sets are called {twice[0]}: give their tables or folders other names")
    return dict(zip(names, asked, strict=True))


def steps(options: Options) -> list[Step]:
    """Return all steps, with these options."""
    given, figures = study.handed_on(options, *OWN), options.output.figures
    asked = [_step(step, given, options) for question in QUESTIONS for step in question.STEPS]
    generated = [step for step in asked if flat(step.options)["dataset"] is not None]
    asked = [*(step for step in asked if step not in generated), Step.of(report).given(given)]
    done: list[Step] = []
    sets = data_sets(options)
    for name, data in sets.items():
        own = {"clips": data.clips, "dataset": data.dataset, "root": data.root}
        if other := next((other for other in sets.values() if other is not data and is_stored(other)), None):
            own |= {"other_clips": other.clips, "other_dataset": other.dataset, "other_root": other.root}
        done += [placed(step, name, own, figures) for step in asked]
    return [
        *done,
        *(placed(step, "", {}, figures) for step in generated),
        Step.of(tables).given(given | {"figures": figures}),
    ]


def _step(step: Step, given: dict[str, Any], options: Options) -> Step:
    """Return a step of all data sets with its numbers of epochs, and with the networks unless it names its own."""
    own = flat(step.options)
    networks = {BACKBONES: options.backbone, BACKBONES[:1]: options.backbone[:1]}.get(own["backbone"])
    values = given | {"backbone": networks}
    if options.epochs is not None and own.get("epochs_scratch") is not None:
        values |= {"epochs_scratch": options.epochs}
    return step.given(values)


def _finished(store: Path) -> list[RunSummary]:
    """Return the finished runs of a store."""
    return [run for run in list_runs(store) if run.is_complete] if store.is_dir() else []


def perform(step: Step, store: Path, call: str, earlier: Row | None = None) -> tuple[Row, int]:
    """Do one step, and return its row and its exit code.

    A step that trains nothing keeps its `earlier` row, if that is of this call.
    """
    started = time.perf_counter()
    code = step.run()
    seconds = time.perf_counter() - started
    ids = {point.id for arm in step.points().values() for point in arm.points} if code in DONE else set()
    done = [run for run in _finished(store) if run.id in ids]
    row = Row(
        step=step.command.name,
        folder=step.options.output.figures.name,
        data=_named(step),
        call=call,
        n_runs=len(ids),
        n_trained=sum(run.call == call for run in done),
        training_seconds=float(sum(run.seconds for run in done)),
        seconds=seconds,
        threads=" ".join(sorted({str(run.config.training.threads or "") for run in done})),
    )
    if earlier is None or earlier.call != call:
        return row, code
    if (row.n_runs, row.n_trained) == (earlier.n_runs, earlier.n_trained):
        return earlier, code
    return replace(row, seconds=row.seconds + earlier.seconds), code


def _named(step: Step) -> str:
    """Return the options that name the data set of a step, with a made-up path."""
    own = flat(step.options)
    if own.get("clips") is not None:
        name = DataOptions(clips=own["clips"]).open().name
        return f"--clips path/to/{name}/{'' if own['clips'].is_dir() else 'clips.csv'}"
    if (dataset := own.get("dataset")) is None:
        return ""
    return f"--dataset {dataset}" + (f" --root path/to/{dataset}" if own["root"] is not None else "")


def recorded(path: Path) -> dict[tuple[str, str], Row]:
    """Return the rows of an existing steps.csv, by step and folder of its figures."""
    if not path.is_file():
        return {}
    kinds: dict[str, Any] = {"n_runs": int, "n_trained": int, "training_seconds": float, "seconds": float}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [Row(**{name: kinds.get(name, plain_cell)(value) for name, value in row.items()}) for row in rows]
    except (AttributeError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} was not written by this command ({error}): move it away") from error
    return {(row.step, row.folder): row for row in steps}


@contextlib.contextmanager
def _called(call: str) -> Iterator[None]:
    """Give the runs that are trained meanwhile, by other processes too, the id of a call."""
    before = os.environ.get(CALL)
    os.environ[CALL] = call
    try:
        yield
    finally:
        os.environ.pop(CALL)
        os.environ.update({} if before is None else {CALL: before})


def work(options: Options) -> int:
    """Do all steps, then write the text."""
    results.check(options.results)
    path = options.output.figures / "steps.csv"
    rows = recorded(path)
    earlier_calls = [*(row.call for row in rows.values()), *(run.call for run in _finished(options.store.runs))]
    call = next(filter(None, earlier_calls), uuid.uuid4().hex[:12])

    def step(each: Step) -> int:
        earlier = rows.get((each.command.name, each.options.output.figures.name))
        row, code = perform(each, options.store.runs, call, earlier)
        if code in DONE:
            rows[row.step, row.folder] = row
            write_csv([*rows.values()], path)
        return code

    with _called(call):
        code = study.perform(steps(options), dry_run=options.dry_run, step=step)
    if options.dry_run or code not in GOOD:
        return code
    return results.main.run(results.Options(figures=options.output.figures, out=options.results))


main = cli.Command("analyses.all", Options, work)

if __name__ == "__main__":
    sys.exit(main())
