"""Estimate what a sweep needs: which runs are finished, and time and disk space of the others. Nothing is trained."""

from __future__ import annotations

import collections
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from transferlens.models.build import skeleton
from transferlens.models.forward import threads_of
from transferlens.store.listing import scan
from transferlens.util import lazy
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch, tqdm
from transferlens.util.text import counted, table

if TYPE_CHECKING:
    from pathlib import Path

    from transferlens.data.clips import DataSet
    from transferlens.models.network import Network
    from transferlens.store.config import RunConfig
    from transferlens.store.listing import RunSummary

precision = lazy.load("transferlens.models.precision")

# Timed calls per network, after one that is not timed.
CALLS = 2
# Multiply-adds of the forward pass of a timed step on a CPU, where the time is proportional to them.
MULTIPLY_ADDS = 5 * 10**8


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: the time that it still takes [s], and the size that its file will have [bytes].

    Both are 0 if it is finished. `is_measured` tells whether they are estimated from finished runs that differ by fold
    and seed alone, or else from a timed training step; `at_once` is the number of runs that are trained at once.
    """

    id: str
    epochs: int
    epochs_done: int
    seconds: float
    nbytes: int
    is_measured: bool
    at_once: int = 1


@dataclass(frozen=True)
class Sweep:
    """Runs that are trained in one way: their points, where, and `at_once` of them with `threads` each."""

    points: Sequence[RunConfig]
    store: Path
    dataset: DataSet
    device: torch.device
    threads: int | None = None
    at_once: int = 1

    @functools.cached_property
    def started(self) -> dict[str, RunSummary]:
        """The runs of the store, which need not exist, by id; those without an epoch are left out."""
        started = [summary for summary in (scan(self.store)[0] if self.store.is_dir() else []) if summary.epochs_done]
        # If its writer was killed, a checkpoint can lie beside the finished run, which counts.
        return {summary.id: summary for summary in sorted(started, key=lambda summary: summary.epochs_done)}

    @functools.cached_property
    def by_arm(self) -> dict[tuple, list[RunSummary]]:
        """The runs of the store by arm."""
        return group_by(self.started.values(), lambda summary: summary.config.arm_key)

    def work(self, point: RunConfig) -> Work:
        """Return what the time of a training step of a run depends on."""
        chosen = precision.choose(point.training.precision, self.device, **point.computed)
        shape = len(point.features.windows), *point.input_size
        trained = point.plan.train, point.plan.bn, point.start
        n_classes = len(self.dataset.label_names)
        return Work(
            point.backbone, n_classes, shape, *trained, point.training.batch_size, chosen, self.device, self.threads
        )

    def timed(self, point: RunConfig, took: Took) -> tuple[float, float, int]:
        """Return the time before training and in an epoch [s], and the size of the file [bytes], by a timed step."""
        trained, held_out = map(len, self.dataset.split(point.fold, "", point.training.clips_per_class))
        passes = held_out * (1 + point.training.test_shifts)
        epoch = took.clip * (trained * point.training.draws + passes / 3)  # a forward pass takes a third of a step
        # A run file also holds the tensors that are randomly initialised, as they were before training.
        random = [nbytes for block, nbytes in took.nbytes.items() if not point.plan.is_pretrained(block)]
        return took.before * (trained + held_out), epoch, sum(took.nbytes.values()) + sum(random)


class Work(NamedTuple):
    """All that the time of a training step depends on."""

    backbone: str
    n_classes: int
    shape: tuple[int, int, int]
    train: str
    bn: str
    start: int
    batch_size: int
    precision: str
    device: torch.device
    threads: int | None


class Took(NamedTuple):
    """The time per clip before training and in a training step [s], and the bytes of the tensors of each block."""

    before: float
    clip: float
    nbytes: dict[int | Literal["head"], int]


def rows(sweeps: Iterable[Sweep]) -> list[Planned]:
    """Return the estimate for each run; networks that take the same time are timed once."""
    sweeps = list(sweeps)
    work: dict[Work, RunConfig] = {}
    for sweep in sweeps:
        for point in sweep.points:
            if point.arm_key not in sweep.by_arm:
                work.setdefault(sweep.work(point), point)
    bar = tqdm.tqdm(work.items(), desc="timing training steps", unit="network", delay=1, leave=False, disable=None)
    times = {each: _take(each, point) for each, point in bar}
    return [_planned(sweep, point, times) for sweep in sweeps for point in dict.fromkeys(sweep.points)]


def _planned(sweep: Sweep, point: RunConfig, times: Mapping[Work, Took]) -> Planned:
    """Return the estimate for a run from those of its arm that have epochs, or else from the time of a step."""
    if runs_of_arm := sweep.by_arm.get(point.arm_key, []):
        before, epoch = 0.0, statistics.median(run.seconds / run.epochs_done for run in runs_of_arm)
        nbytes = max(run.nbytes for run in [run for run in runs_of_arm if run.is_complete] or runs_of_arm)
    else:
        before, epoch, nbytes = sweep.timed(point, times[sweep.work(point)])
    epochs = point.training.epochs
    done = sweep.started[point.id].epochs_done if point.id in sweep.started else 0
    seconds = (epochs - done) * epoch + (0 if done else before)
    nbytes = 0 if done == epochs else nbytes
    return Planned(point.id, epochs, done, seconds, nbytes, bool(runs_of_arm), sweep.at_once)


def _take(work: Work, point: RunConfig) -> Took:
    """Time the steps of the network of a run, one of those that take the same time."""
    network = skeleton(work.backbone, n_classes=work.n_classes, plan=point.plan, input_size=work.shape[1:])
    nbytes: dict[int | Literal["head"], int] = collections.Counter()
    for name, tensor in network.state_dict().items():
        nbytes[network.block_of(name)] += tensor.nbytes
    n = work.batch_size
    if work.device.type == "cpu":
        n = min(n, max(2, MULTIPLY_ADDS // point.cost(work.n_classes).multiply_adds))
    with threads_of(work.threads):
        before, step, update = _seconds(network.to(work.device), work, n)
    return Took(before / n, step / n + update / work.batch_size, nbytes)


def _seconds(network: Network, work: Work, n: int) -> tuple[float, float, float]:
    """Return the seconds that `n` clips take before training, and forward and backward; and those of an update."""
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], fused=True)
    x = torch.zeros((n, *work.shape), device=work.device).contiguous(memory_format=torch.channels_last)
    autocast = functools.partial(precision.autocast, work.device, work.precision)

    def before() -> torch.Tensor:
        with torch.no_grad(), autocast():
            return network.before(x, work.start)

    def gradients() -> None:
        """Do one training step: forward, backward, update."""
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = network(y, start=work.start).float().square().mean()
        loss.backward()
        loss.item()  # waits for a GPU

    once, y = (_median(before), before()) if work.start else (0.0, x)
    return once, _median(gradients), _median(optimizer.step)


def _median(call: Callable[[], object]) -> float:
    """Return the median time of some calls [s], after one that is not timed."""
    times = []
    for _ in range(1 + CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def text(planned: Sequence[Planned]) -> str:
    """Return one line per run, and the sums."""
    planned = list({row.id: row for row in planned}.values())
    lines = [
        (row.id, f"{row.epochs_done}/{row.epochs}", _duration(row.seconds), f"{row.nbytes / 1e6:.1f}")
        for row in planned
    ]
    missing = [row for row in planned if row.epochs_done < row.epochs]
    total = f"{counted(len(planned), 'run')}: {len(planned) - len(missing)} done, {len(missing)} to train"
    if missing:
        seconds = sum(row.seconds / row.at_once for row in missing)
        megabytes, most = sum(row.nbytes for row in missing) / 1e6, max(row.at_once for row in missing)
        measured = sum(row.is_measured for row in missing)
        how = f"{measured} estimated from finished runs like them, {len(missing) - measured} from a timed step"
        order = f"with up to {most} at once" if most > 1 else "one after the other"
        total += f", about {_duration(seconds)} {order} ({how}), {megabytes:.0f} MB of disk"
    return "\n".join([table([("run", "epochs", "time left", "disk [MB]"), *lines]), total])


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
