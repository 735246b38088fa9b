"""Streamed SVCCA against the textbook way: time, memory and difference.

    python benchmarks/similarity.py

The textbook way keeps all activations, takes the singular value decomposition of each side, and the canonical
correlations of the leading directions. Ours sees the same activations batch by batch. Memory is what numpy has
allocated at the worst moment, without the batches that both are given.

Then a whole network against another, at all convolutions and ends of blocks: what the two forward passes alone take,
and what the comparison takes in all, in processes of their own. Memory there is the process's largest resident set.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from claims import Claim, apart, peak_memory, report

from transferlens import cli
from transferlens.measures.streaming import Moments
from transferlens.models.build import skeleton
from transferlens.util.text import table

Batches = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare two layers' activations, partly alike, both ways."""

    channels: int = 144
    """Neurons of each layer."""
    positions: int = 400_000
    """Samples."""
    batch: int = 16_000
    """Samples in a batch."""
    variance: float = 0.99
    """Share of the variance that is kept."""
    repeats: int = 2
    """Times that each way is timed."""
    network: str = "tf_efficientnet_lite0"
    """Whole networks to compare, two random starts."""
    clips: int = 80
    """Clips that they see: noise, of ESC-50's feature size."""
    network_positions: tuple[str, ...] = ("64", "mean")
    """Positions of each clip that are samples there."""


def activations(options: Options) -> Batches:
    """Two single-precision layers that share a part, with deviations that fall off."""
    rng = np.random.default_rng(0)
    fall = np.logspace(0, -3, options.channels)
    mixing = [rng.normal(size=(options.channels, options.channels)) for _ in range(2)]
    batches = []
    for start in range(0, options.positions, options.batch):
        n = min(options.batch, options.positions - start)
        shared = rng.normal(size=(n, options.channels))
        pair = (((shared + 0.5 * rng.normal(size=shared.shape)) * fall) @ mix + 1 for mix in mixing)
        batches.append(tuple(side.astype(np.float32) for side in pair))
    return batches


def streamed(batches: Batches, variance: float) -> float:
    """Ours."""
    moments = Moments(variance=variance)
    for X, Y in batches:
        moments.update(X, Y)
    return moments.svcca().similarity


def textbook(batches: Batches, variance: float) -> float:
    """Decompositions of the stored activations."""
    bases = []
    for side in (0, 1):
        X = np.concatenate([batch[side] for batch in batches]).astype(np.float64)
        X -= X.mean(0)
        U, s, _ = np.linalg.svd(X, full_matrices=False)
        k = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), variance) + 1)
        bases.append(U[:, :k])
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).mean())


def measured(way: Callable[[Batches, float], float], batches: Batches, options: Options) -> tuple[float, float, float]:
    """Similarity, the least of the times [s], and peak of memory [MB], in a run of its own."""
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        similarity = way(batches, options.variance)
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    way(batches, options.variance)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return similarity, min(seconds), peak / 1e6


def network_cost(options: Options, positions: str | None) -> tuple[float, float]:
    """Seconds and largest resident set [MB] of a comparison; of its forward passes alone where `positions` is None."""
    import torch

    from transferlens.measures import layerwise
    from transferlens.models.plan import TransferPlan
    from transferlens.util import processes

    processes.keep_freed_memory()
    plan = TransferPlan.scratch()
    nets = [skeleton(options.network, n_classes=10, plan=plan, seed=seed).eval() for seed in (0, 1)]
    x = torch.randn(options.clips, 3, 128, 250, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    if positions is None:
        with torch.inference_mode():
            for part in x.split(layerwise.BATCH):
                for net in nets:
                    net.features(part)
    else:
        layerwise.compare(*nets, x, positions=positions)
    return time.perf_counter() - start, peak_memory() / 1e6


def alone(options: Options, positions: str | None) -> tuple[float, float]:
    """`network_cost` in a process of its own."""
    return apart(network_cost, options, positions)


def work(options: Options) -> int:
    """Print a line each, and the ratios."""
    # First: a process starts with the largest resident set of its parent.
    rows = [(f"{options.network}, {options.clips} clips", "time [s]", "peak memory [MB]")]
    for positions in (None, *options.network_positions):
        seconds, peak = alone(options, positions)
        name = "both forward passes" if positions is None else f"comparison, positions {positions}"
        rows.append((name, f"{seconds:.2f}", f"{peak:.0f}"))
    print(table(rows) + "\n")
    batches = activations(options)
    ours, theirs = (measured(way, batches, options) for way in (streamed, textbook))
    rows = [("way", "svcca", "time [s]", "peak memory [MB]")]
    rows += [
        (name, f"{s:.10f}", f"{t:.2f}", f"{m:.1f}") for name, (s, t, m) in (("streamed", ours), ("textbook", theirs))
    ]
    print(table(rows))
    work, other = f"SVCCA, {options.channels} channels, {options.positions} positions", "SVD of stored activations, CCA"
    report(
        Claim(f"{work}: time", other, ours[1], theirs[1], "s", 20, f"difference {abs(ours[0] - theirs[0]):.1e}"),
        Claim(f"{work}: memory", other, ours[2], theirs[2], "MB", 20),
    )
    return cli.DONE


main = cli.Command("benchmarks/similarity.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
