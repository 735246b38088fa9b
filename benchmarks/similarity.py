"""Streamed SVCCA against the textbook way: time, memory and difference.

    python benchmarks/similarity.py

The textbook way keeps all activations, takes the singular value decomposition of each side, and the canonical
correlations of the leading directions by QR. Ours sees the same activations batch by batch. Memory is what numpy has
allocated at the worst moment, without the batches that both are given.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transferlens import cli
from transferlens.similarity import Moments

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
        bases.append(np.linalg.qr(U[:, :k] * s[:k])[0])
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).mean())


def measured(way: Callable[[Batches, float], float], batches: Batches, variance: float) -> tuple[float, float, float]:
    """Similarity, seconds, and peak of memory [MB]; time and memory in runs of their own."""
    start = time.perf_counter()
    similarity = way(batches, variance)
    seconds = time.perf_counter() - start
    tracemalloc.start()
    way(batches, variance)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return similarity, seconds, peak / 1e6


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Print a line each, and the ratios."""
    options = cli.parse(Options, argv, prog="benchmarks/similarity.py")
    batches = activations(options)
    ours, theirs = (measured(way, batches, options.variance) for way in (streamed, textbook))
    rows = [("way", "svcca", "time [s]", "peak memory [MB]")]
    rows += [
        (name, f"{s:.10f}", f"{t:.2f}", f"{m:.1f}") for name, (s, t, m) in (("streamed", ours), ("textbook", theirs))
    ]
    print(cli.table(rows))
    print(f"{theirs[1] / ours[1]:.1f} times as fast, 1/{theirs[2] / ours[2]:.0f} of the memory, ", end="")
    print(f"difference {abs(ours[0] - theirs[0]):.1e}")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
