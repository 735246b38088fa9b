"""Cost as work grows: time and memory of each stage at once, four and sixteen times the clips, on one core and on all.

    python benchmarks/growth.py --clips path/to/esc10/clips.csv

Each measurement is a process of its own; memory is its largest resident set. Writes benchmarks/growth.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from claims import apart, markdown, peak_memory

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.data.clips import DataSet
from transferlens.models.build import skeleton

NETWORK = "tf_efficientnet_lite0"
TIMES = (1, 4, 16)


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Time and memory of each stage as work grows."""

    cores: tuple[int, ...] = tuple(sorted({1, os.cpu_count() or 1}))
    """Numbers of cores."""


def _some(dataset: DataSet, n: int) -> DataSet:
    """Clips spread over the data set, some of them more than once if there are too few."""
    places = np.linspace(0, len(dataset.clips) - 1, n).astype(int)
    return replace(dataset, clips=tuple(replace(dataset.clips[i], id=f"{k}") for k, i in enumerate(places)))


def features(dataset: DataSet, n: int) -> None:
    """Decode and transform."""
    from transferlens.features.cache import FeatureCache
    from transferlens.features.logmel import FeatureOptions

    with tempfile.TemporaryDirectory() as folder:
        FeatureCache(_some(dataset, n), FeatureOptions().settings(dataset), Path(folder)).fill()


def epoch(dataset: DataSet, n: int) -> None:
    """Train one epoch."""
    import torch

    from transferlens.models import precision
    from transferlens.models.plan import TransferPlan
    from transferlens.util import processes

    cpu = torch.device("cpu")
    processes.keep_freed_memory()
    plan = TransferPlan.scratch()
    network = skeleton(NETWORK, n_classes=10, plan=plan).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for start in range(0, n, 32):
        part = torch.randn(min(32, n - start), 3, 128, 250)
        with precision.autocast(cpu, precision.fastest(cpu)):
            loss = network(part.contiguous(memory_format=torch.channels_last)).float().logsumexp(1).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def comparison(dataset: DataSet, n: int) -> None:
    """SVCCA of two networks at every layer, means over positions."""
    import torch

    from transferlens.measures import layerwise
    from transferlens.models.plan import TransferPlan

    nets = [skeleton(NETWORK, n_classes=10, plan=TransferPlan.scratch(), seed=s).eval() for s in (0, 1)]
    layerwise.compare(*nets, torch.randn(n, 3, 128, 250), positions="mean", resamples=0)


def attributions(dataset: DataSet, n: int) -> None:
    """Integrated Gradients, 32 gradients a clip."""
    import torch

    from transferlens.measures.attribution import attribute
    from transferlens.models.plan import TransferPlan

    net = skeleton(NETWORK, n_classes=10, plan=TransferPlan.scratch()).eval()
    x = torch.randn(n, 3, 128, 250)
    attribute(net, x, targets=[0] * n, baseline=torch.zeros(3, 128, 250), tolerance=1e-9, max_steps=32)


# Stage, and clips at once the work.
STAGES: dict[str, tuple[Callable[[DataSet, int], None], int]] = {
    "features": (features, 25),
    "training epoch": (epoch, 32),
    "SVCCA": (comparison, 20),
    "Integrated Gradients": (attributions, 2),
}


def cost(stage: str, dataset: DataSet, n: int, cores: int) -> tuple[float, float]:
    """Seconds and largest resident set [GB], on some cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    import torch

    torch.set_num_threads(cores)
    STAGES[stage][0](dataset, 2)  # what is slow the first time
    start = time.perf_counter()
    STAGES[stage][0](dataset, n)
    return time.perf_counter() - start, peak_memory() / 1e9


def work(options: Options) -> int:
    """Measure all, print and write the table."""
    dataset = options.open()
    head = ["stage", "cores", *(f"{k}x: time [s], memory [GB]" for k in TIMES)]
    rows = [head]
    for stage, (_, base) in STAGES.items():
        for cores in options.cores:
            row = [f"{stage}, {base} clips", str(cores)]
            for k in TIMES:
                seconds, processes = apart(cost, stage, dataset, k * base, cores)
                row.append(f"{seconds:.1f}, {processes:.2f}")
            rows.append(row)
            print(" | ".join(row), flush=True)
    (Path(__file__).parent / "growth.md").write_text(f"## Cost as work grows\n\n{markdown(rows)}\n")
    return cli.DONE


main = cli.Command("benchmarks/growth.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
