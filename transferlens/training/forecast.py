"""What a sweep has before it: which runs are done, what the others take in time and disk. Trains nothing."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transferlens.models.build import skeleton
from transferlens.store.listing import RunSummary, scan
from transferlens.util import lazy
from transferlens.util.lazy import torch
from transferlens.util.text import table

if TYPE_CHECKING:
    from pathlib import Path

    from transferlens.data.clips import DataSet
    from transferlens.store.config import RunConfig

precision = lazy.load("transferlens.models.precision")


# Steps that are timed where the store has no run like it, after one that is not.
STEPS = 2
# Clips in such a step on a processor, where time goes with their number.
CLIPS = 8


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes
    ----------
    id : str
    epochs, epochs_done : int
    seconds : float [s]
        What is left of it, by runs that differ by fold and seed alone, else by a timed step; 0 where it is done.
    nbytes : int [bytes]
        Of its file, where that is not there yet.
    is_measured : bool
        Whether there were such runs.
    """

    id: str
    epochs: int
    epochs_done: int
    seconds: float
    nbytes: int
    is_measured: bool


def rows(points: Iterable[RunConfig], *, store: Path, dataset: DataSet, device: torch.device) -> list[Planned]:
    """What each point has before it.

    Parameters
    ----------
    points : iterable of RunConfig
    store : Path
        The run store, which need not exist.
    dataset : DataSet
    device : torch.device
    """
    summaries = scan(store)[0] if store.is_dir() else []
    # A snapshot may lie beside its finished run, where its writer was killed in between.
    by_id = {s.id: s for s in sorted(summaries, key=lambda s: s.epochs_done) if s.epochs_done}
    by_arm: dict[tuple, list[RunSummary]] = {}
    for summary in by_id.values():
        by_arm.setdefault(summary.config.arm_key, []).append(summary)
    steps: dict[tuple, tuple[float, float, int]] = {}
    found = []
    for point in points:
        alike = by_arm.get(point.arm_key, [])
        if alike:
            before, epoch = 0.0, statistics.median(summary.seconds / summary.epochs_done for summary in alike)
            nbytes = max(summary.nbytes for summary in [s for s in alike if s.is_complete] or alike)
        else:
            kind = point.backbone, point.plan, point.training
            if kind not in steps:
                steps[kind] = _by_a_step(point, len(dataset.label_names), device)
            once, clip, nbytes = steps[kind]
            trained, held_out = dataset.split(point.fold)
            epoch = clip * (len(trained) + len(held_out) / 3)  # a forward pass is a third of a step in training
            before = once * (len(trained) + len(held_out))
        mine, epochs = by_id.get(point.id), point.training.epochs
        done = mine.epochs_done if mine else 0
        left = (epochs - done) * epoch + (0 if done else before)
        found.append(Planned(point.id, epochs, done, left, 0 if done == epochs else nbytes, bool(alike)))
    return found


def _by_a_step(config: RunConfig, n_classes: int, device: torch.device) -> tuple[float, float, int]:
    """Seconds per clip before training, and in an epoch of it; and bytes of a run file."""
    plan, batch_size = config.plan, config.training.batch_size
    network = skeleton(config.backbone, n_classes=n_classes, plan=plan)
    state = {name: tensor.numel() * tensor.element_size() for name, tensor in network.state_dict().items()}
    fresh = sum(size for name, size in state.items() if not plan.is_pretrained(network.block_of(name)))
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
            return network.features(x, through=config.start - 1)

    def step() -> None:
        with autocast():
            loss = network(y, start=config.start).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    once, y = (_seconds(before) / n, before()) if config.start else (0.0, x)
    return once, _seconds(step) / n, sum(state.values()) + fresh


def _seconds(work: Callable[[], object]) -> float:
    """The median time of some calls, after one that is not counted."""
    times = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def text(planned: Sequence[Planned]) -> str:
    """A line a run, and the sums."""
    planned = list({row.id: row for row in planned}.values())
    lines = [
        (row.id, f"{row.epochs_done}/{row.epochs}", _duration(row.seconds), f"{row.nbytes / 1e6:.1f}")
        for row in planned
    ]
    missing = [row for row in planned if row.epochs_done < row.epochs]
    seconds, nbytes = sum(row.seconds for row in missing), sum(row.nbytes for row in missing)
    said = f"{len(planned)} runs: {len(planned) - len(missing)} done, {len(missing)} to train"
    if missing:
        measured = sum(row.is_measured for row in missing)
        how = f"{measured} estimated from finished runs like them, {len(missing) - measured} from a timed step"
        said += f", about {_duration(seconds)} one after the other ({how}), {nbytes / 1e6:.0f} MB of disk"
    return "\n".join([table([("run", "epochs", "time left", "disk [MB]"), *lines]), said])


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
