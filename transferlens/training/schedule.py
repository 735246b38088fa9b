"""Read runs from the store, and train those that are missing: each once, in one process or in many.

A run that another process trains is waited for. A run that fails does not stop the others; the reason is written to a
file next to it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np

from transferlens.store.config import RunConfig
from transferlens.store.locks import holder, lock
from transferlens.store.run import Run, load_run
from transferlens.training import engines, tensorboard, trainer
from transferlens.training.batches import chunks
from transferlens.util import lazy, processes
from transferlens.util.errors import CheckpointError, DataError, ParameterError, SweepError, TransferLensError
from transferlens.util.fields import Fields, Rule, between
from transferlens.util.files import clear_left, expanded, write_text
from transferlens.util.lazy import tqdm

if TYPE_CHECKING:
    import torch

    from transferlens.data.clips import DataSet
    from transferlens.features.cache import FeatureCache
    from transferlens.models.weights import Source

precision = lazy.load("transferlens.models.precision")

log = logging.getLogger(__name__)

# What `attempt` returns for a run that another process trains.
HELD = "held"
# Memory that libraries take when training starts [bytes].
LIBRARIES = 2 * 10**8
# Seconds between two checks of runs that other processes train.
POLL = 1.0
GPU_SHARE = Rule("0 to 1, or a whole number to 64", lambda gpus: 0 <= gpus <= 64 and (gpus <= 1 or gpus % 1 == 0))


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Fields):
    """Where networks are computed."""

    device: str = "auto"
    """auto (cuda, mps, cpu: the first that is available), or torch's name of a device. Runs repeat bit by bit on cpu
    only."""


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions(DeviceOptions):
    """Where runs are computed; the device changes their numbers, a small memory their rounding, the others nothing."""

    memory: Annotated[float | None, Rule("0 GB or more", lambda value: value >= 0)] = None
    """Memory [GB] that features, and outputs of frozen blocks, may each take; what takes more is read from files.
    Evaluation and frozen blocks take 64 clips at once, or on a processor as many as fit in it, which changes rounding.
    Default: half of what is free; for the number of clips at once half of the container's limit, if it has one."""
    engine: Literal["local", "ray"] = "local"
    """local: this machine. ray: a Ray cluster, all of whose machines see the clips, --runs and --cache."""
    workers: Annotated[int | None, between(1, 1024)] = None
    """local: runs that are trained at once, each in a process of its own. Default on a processor: one per core, or
    fewer if memory suffices for fewer; on a GPU one."""
    address: str | None = None
    """ray: address of the cluster's head, or auto. Default: start one on this machine."""
    gpus_per_run: Annotated[float | None, GPU_SHARE] = None
    """ray: share of a GPU that a run takes; 0.25 puts four on one card. Default: none."""
    log: Literal["none", "tensorboard"] = "none"
    """tensorboard: write loss, accuracy and learning rate after each epoch to the folder tensorboard in --runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log == "tensorboard":
            tensorboard.check()
        on_ray = self.engine == "ray"
        if on_ray and self.workers:
            raise ParameterError(f"workers={self.workers} goes with engine='local': Ray starts as many as fit")
        for name in ("address", "gpus_per_run"):
            if not on_ray and getattr(self, name) is not None:
                raise ParameterError(f"{name}={getattr(self, name)!r} goes with engine='ray'")


class Study(Protocol):
    """The attributes of a `sweep.Study` that training uses."""

    options: Any
    dataset: DataSet
    device: torch.device
    sources: tuple[Source, ...]

    @property
    def cache(self) -> FeatureCache: ...
    @property
    def data(self) -> trainer.Data: ...
    @classmethod
    def of(cls, options: Any, *, sharers: int = 1) -> Study: ...


def for_workers(options: Any) -> Any:
    """Return a study's options for a worker process, which trains one run at a time: all paths are absolute."""
    data, sweep, store, execution = options.data, options.sweep, options.store, options.execution
    absolute: dict[str, Any] = {name: value.absolute() for name, value in vars(data).items() if isinstance(value, Path)}
    weights = sweep.weights if sweep.weights == "auto" else str(expanded(sweep.weights).absolute())
    source = tuple(f"{source.name}={source.option}" for source in sweep.sources if sweep.source)
    return dataclasses.replace(
        options,
        data=dataclasses.replace(data, **absolute, splits=tuple(path.absolute() for path in data.splits)),
        sweep=dataclasses.replace(sweep, weights=weights, source=source),
        store=dataclasses.replace(store, runs=store.runs.absolute(), cache=store.cache.absolute()),
        execution=ExecutionOptions(device=execution.device, memory=execution.memory, log=execution.log),
    )


def read(store: Path, points: Sequence[RunConfig]) -> dict[RunConfig, Run]:
    """Return the runs that the store has; raise one error that names all that are damaged."""
    runs, problems = {}, []
    for point in points:
        path = point.path(store)
        if path.is_file():
            try:
                runs[point] = load_run(path, expected=point)
            except CheckpointError as error:
                problems.append(str(error))
            else:  # files that remain if a run was killed between its last two steps
                with contextlib.suppress(OSError):  # they are in nobody's way
                    path.with_suffix(".partial").unlink(missing_ok=True)
                    path.with_suffix(".failed").unlink(missing_ok=True)
                    holder(path)  # removes the lock of a killed process
    if problems:
        raise CheckpointError("; ".join(problems))
    return runs


class _Progress:
    """A progress bar over the epochs of many runs; each run tells how many it has done."""

    def __init__(self, points: Sequence[RunConfig]) -> None:
        epochs = sum(point.training.epochs for point in points)
        self.bar, self.done = tqdm.tqdm(total=epochs, unit="epoch", delay=1), collections.Counter[RunConfig]()

    def __call__(self, point: RunConfig, epochs: int, text: str = "") -> None:
        self.bar.set_postfix_str(text or point.id, refresh=False)
        self.bar.update(epochs - self.done[point])
        self.done[point] = epochs


def train(study: Study, points: Sequence[RunConfig], *, threads: int | None = None) -> None:
    """Train runs, or wait for those that other processes train; then raise SweepError if some failed.

    Runs whose settings name no number of threads get `threads`; None is one per core. Raise ParameterError, before any
    is trained, if the settings of a run cannot be computed here.
    """
    _check_can_compute(study, points)
    missing, held, failures = list(points), [], []
    progress = _Progress(points)
    with progress.bar:
        while missing:
            for point, failure in _outcomes(study, missing, threads, progress):
                if failure == HELD:
                    held.append(point)
                elif failure:
                    failures.append(f"{point.id} ({failure})")
            missing, held = _wait(study.options.store.runs, held, progress)
    if failures:
        number, reasons = f"{len(failures)} of {len(points)} runs", "; ".join(failures)
        raise SweepError(f"{number} failed: {reasons}. The same command tries just these again")


def _check_can_compute(study: Study, points: Sequence[RunConfig]) -> None:
    """Raise ParameterError if a run cannot be computed here: its size of input, its precision, or too little memory."""
    execution, n_classes = study.options.execution, len(study.dataset.label_names)
    at_once, needed = min(execution.workers or 1, len(points)), {}
    n_trained = functools.cache(lambda *split: len(study.dataset.split(*split)[0]))
    for point in points:
        chosen = precision.choose(point.training.precision, study.device, **point.computed)
        drawn = np.arange(n_trained(*point.split) * point.training.draws)
        batch_size = len(chunks(drawn, point.training.batch_size)[0])
        memory = LIBRARIES + point.cost(n_classes).training_memory(batch_size, bf16=chosen == "bf16")
        needed[at_once * memory] = point, batch_size
    if study.device.type != "cpu" or execution.engine != "local":
        return  # a GPU says itself that its memory is full, and other machines have other memory
    free, most = processes.free_memory(), max(needed)
    (point, batch_size), (height, width) = needed[most], needed[most][0].input_size
    where = f"{free / 1e9:.1f} GB are free, of the machine or within the limit of its container"
    many, fewer = (f", {at_once} at once,", ", or fewer workers") if at_once > 1 else ("", "")
    remedy = f"use a smaller batch_size or width{fewer}, or allow more memory"
    if most > free:
        raise ParameterError(
            f"{point.backbone} on inputs of {height}x{width} with batch_size={batch_size}{many} takes at least "
            f"{most / 1e9:.1f} GB of memory, and {where}: {remedy}"
        )
    if most > free / 2:
        words = "training needs %.1f to %.1f GB, and %s; if it is killed, %s"
        log.warning(words, most / 1e9, 2 * most / 1e9, where, remedy)


def workers(study: Study, n_points: int, threads: int) -> int:
    """Return how many processes train so many runs at once."""
    execution = study.options.execution
    by_default = processes.cores() // threads if study.device.type == "cpu" else 1
    return min(n_points, execution.workers or max(1, by_default))


def _outcomes(
    study: Study, points: Sequence[RunConfig], threads: int | None, progress: _Progress
) -> Iterator[tuple[RunConfig, str]]:
    """Yield each run as soon as it is done, with what `attempt` returns for it."""
    execution, store = study.options.execution, study.options.store.runs
    cores = points[0].training.threads or threads or 1
    n_workers = workers(study, len(points), cores)
    if execution.engine == "local" and n_workers == 1:
        for point in points:
            yield point, attempt(study, point, threads=threads, progress=functools.partial(progress, point))
        return
    study.cache.fill()  # once, not in every worker
    task = functools.partial(_attempt_in_worker, type(study), for_workers(study.options), n_workers, threads or 1)
    if execution.engine == "ray":
        gpus = execution.gpus_per_run or 0
        outcomes = engines.on_ray(task, points, address=execution.address, cpus=cores, gpus=gpus)
    else:
        outcomes = engines.in_processes(
            task,
            points,
            workers=n_workers,
            spare_memory=execution.workers is None,
            reached=functools.partial(_last_saved, store),
            report=lambda point, told: progress(point, *told),
        )
    for point, failure in outcomes:
        if isinstance(failure, engines.Died):
            failure = _record(point.path(store), str(failure))
        if failure != HELD:
            progress(point, point.training.epochs)
        yield point, failure


def _attempt_in_worker(
    kind: type[Study],
    options: Any,
    sharers: int,
    threads: int,
    point: RunConfig,
    report: Callable[[tuple[int, str]], None],
) -> str:
    return attempt(_opened(kind, options, sharers), point, threads=threads, progress=lambda *told: report(told))


@functools.lru_cache(maxsize=1)
def _opened(kind: type[Study], options: Any, sharers: int) -> Study:
    """Return the study, opened once per worker."""
    return kind.of(options, sharers=sharers)


def _last_saved(store: Path, point: RunConfig) -> int | None:
    """Return when the last epoch of a run was saved [ns]; None if none was."""
    try:
        return point.path(store).with_suffix(".partial").stat().st_mtime_ns
    except OSError:
        return None


def _wait(store: Path, points: Sequence[RunConfig], progress: _Progress) -> tuple[list[RunConfig], list[RunConfig]]:
    """Wait for runs that other processes train; return those that are no longer trained, and those that still are."""
    held, has_logged = list(points), False
    while held:
        done = [point for point in held if point.path(store).is_file()]
        for point in done:
            progress(point, point.training.epochs)
        holders = {point: holder(point.path(store)) for point in held if point not in done}
        held = [point for point, owner in holders.items() if owner]
        if len(held) < len(holders):
            return [point for point in holders if point not in held], held
        if held and not has_logged:
            last = held[-1]
            log.info("waiting for runs trained elsewhere: %d, %s by %s", len(held), last.id, holders[last])
            has_logged = True
        time.sleep(POLL if held else 0)
    return [], []


def attempt(
    study: Study,
    point: RunConfig,
    *,
    threads: int | None = None,
    progress: Callable[[int, str], object] = lambda epochs, text: None,
) -> str:
    """Train one run as `trainer.train` does, if no other process trains it; return why the run failed.

    Return "" if the run is finished, `HELD` if another process trains it, or else the reason of the failure, which is
    also written to the run's .failed file. Errors that would stop other runs too are raised: clips, weights or the
    store cannot be used.
    """
    store = study.options.store.runs
    path = point.path(store)
    if point.data_key != study.cache.data_key:
        raise DataError(f"the clips of {study.dataset.name} have changed since {point.id} was asked for")
    with lock(path) as is_ours:
        if not is_ours:
            return HELD
        try:
            with _log(study, point) as record:
                how: Any = {"sources": study.sources, "threads": threads, "progress": progress, "record": record}
                trainer.train(point, study.data, folder=store, **how)
        except (TransferLensError, OSError):
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error}, at {Path(where.filename).name}:{where.lineno}"
            if processes.is_out_of_memory(error):
                reason = "memory ran out: use a smaller batch_size or width, or fewer workers, or allow more memory"
            return _record(path, reason, traceback.format_exc())
        path.with_suffix(".failed").unlink(missing_ok=True)
        clear_left(path)
    return ""


def _log(study: Study, point: RunConfig) -> contextlib.AbstractContextManager[Callable[[tensorboard.History], None]]:
    """Return what writes the history of a run as the options say."""
    if study.options.execution.log == "tensorboard":
        return tensorboard.writer(point, study.options.store.runs)
    return contextlib.nullcontext(lambda history: None)


def _record(path: Path, reason: str, details: str = "") -> str:
    """Write why a run failed to a file next to it, and return the reason in one line."""
    reason = " ".join(reason.split())
    write_text(f"{reason}\n{details}", path.with_suffix(".failed"))
    return reason
