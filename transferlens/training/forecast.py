"""Estimate what a sweep needs: which runs are finished, and time and disk space of the others. Nothing is trained."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transferlens.models.build import skeleton
from transferlens.store.listing import scan
from transferlens.util import lazy
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch
from transferlens.util.text import counted, table

if TYPE_CHECKING:
    from pathlib import Path

    from transferlens.data.clips import DataSet
    from transferlens.store.config import RunConfig

precision = lazy.load("transferlens.models.precision")

# Training steps that are timed if the store has no similar run, after one that is not timed.
STEPS = 2
# Clips per timed step on a CPU, where the time is proportional to their number.
CLIPS = 8


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


def rows(
    points: Iterable[RunConfig], *, store: Path, dataset: DataSet, device: torch.device, at_once: int = 1
) -> list[Planned]:
    """Return the estimate for each point, with the number of threads that torch has now; the store need not exist."""
    started = [summary for summary in (scan(store)[0] if store.is_dir() else []) if summary.epochs_done]
    # If its writer was killed, a checkpoint can lie beside the finished run, which counts.
    by_id = {summary.id: summary for summary in sorted(started, key=lambda summary: summary.epochs_done)}
    by_arm = group_by(by_id.values(), lambda summary: summary.config.arm_key)
    steps: dict[tuple, tuple[float, float, int]] = {}
    estimates = []
    for point in dict.fromkeys(points):
        if runs_of_arm := by_arm.get(point.arm_key, []):
            before, epoch = 0.0, statistics.median(run.seconds / run.epochs_done for run in runs_of_arm)
            nbytes = max(run.nbytes for run in [run for run in runs_of_arm if run.is_complete] or runs_of_arm)
        else:
            if point.arm_key not in steps:
                steps[point.arm_key] = _from_step(point, len(dataset.label_names), device)
            before_clip, clip, nbytes = steps[point.arm_key]
            trained, held_out = map(len, dataset.split(point.fold, "", point.training.clips_per_class))
            before = before_clip * (trained + held_out)
            passes = held_out * (1 + point.training.test_shifts)
            epoch = clip * (trained * point.training.draws + passes / 3)  # a forward pass takes a third of a step
        epochs, done = point.training.epochs, by_id[point.id].epochs_done if point.id in by_id else 0
        seconds = (epochs - done) * epoch + (0 if done else before)
        nbytes = 0 if done == epochs else nbytes
        estimates.append(Planned(point.id, epochs, done, seconds, nbytes, bool(runs_of_arm), at_once))
    return estimates


def _from_step(config: RunConfig, n_classes: int, device: torch.device) -> tuple[float, float, int]:
    """Return the seconds per clip before training and in an epoch, and the bytes of a run file, by timed steps."""
    plan, batch_size = config.plan, config.training.batch_size
    network = skeleton(config.backbone, n_classes=n_classes, plan=plan, input_size=config.input_size)
    sizes = {name: tensor.nbytes for name, tensor in network.state_dict().items()}
    # A run file also holds the tensors that are randomly initialised, as they were before training.
    random = sum(nbytes for name, nbytes in sizes.items() if not plan.is_pretrained(network.block_of(name)))
    network.to(device).to(memory_format=torch.channels_last).train()
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, fused=True)
    n = batch_size if device.type != "cpu" else min(CLIPS, batch_size)
    x = torch.zeros((n, len(config.features.windows), *config.input_size), device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    chosen = precision.choose(config.training.precision, device, **config.computed)
    autocast = functools.partial(precision.autocast, device, chosen)

    def before() -> torch.Tensor:
        with torch.no_grad(), autocast():
            return network.before(x, config.start)

    def step() -> None:
        with autocast():
            loss = network(y, start=config.start).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    once, y = (_seconds(before) / n, before()) if config.start else (0.0, x)
    return once, _seconds(step) / n, sum(sizes.values()) + random


def _seconds(work: Callable[[], object]) -> float:
    """Return the median time of some calls, after one that is not timed."""
    times = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        work()
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
