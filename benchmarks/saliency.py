"""Integrated Gradients against captum called plainly with 200 steps, at equal or better completeness.

    python benchmarks/saliency.py --ckpt RUN.h5

The other side is one call of captum a clip. Ours is told a tolerance of its mean completeness error: the error of every
clip is then at most that, and both mean and largest error are lower.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transferlens import cli
from transferlens.attribution import attribute
from transferlens.datasets import DataOptions
from transferlens.inputs import heldout_features
from transferlens.runs import load_run
from transferlens.trainer import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Attributions of held-out clips of a run, both ways."""

    ckpt: Path
    """Run file."""
    n_clips: int = 16
    """Held-out clips to explain, evenly spaced."""
    steps: int = 200
    """Steps of the other side."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Print a line each, and the ratio."""
    import torch
    from captum.attr import IntegratedGradients

    options = cli.parse(Options, argv, prog="benchmarks/saliency.py")
    run = load_run(options.ckpt)
    rows = np.linspace(0, len(run.clip_ids) - 1, options.n_clips).astype(int)
    x = run.inputs(heldout_features(run, options, options.cache)[rows])
    silent = run.config.features.compute(np.zeros(run.config.features.n_fft, np.float32))
    baseline, targets, model = run.inputs(silent[None]), run.labels[rows].tolist(), run.model()
    with torch.no_grad():
        change = torch.stack([(model(x[i : i + 1]) - model(baseline))[0, t] for i, t in enumerate(targets)]).numpy()

    start = time.perf_counter()
    explain = IntegratedGradients(model)
    sums = [
        explain.attribute(x[i : i + 1], baseline, target=target, n_steps=options.steps).sum().item()
        for i, target in enumerate(targets)
    ]
    theirs = time.perf_counter() - start
    error = np.abs(np.array(sums) - change) / np.abs(change)

    keep_freed_memory()  # as the command does
    start = time.perf_counter()
    found = attribute(model, x, targets=targets, baseline=baseline, tolerance=float(error.mean()), max_steps=4096)
    ours = time.perf_counter() - start
    table = [("way", "gradients a clip", "mean error [%]", "largest error [%]", "time a clip [s]")]
    for name, steps, errors, seconds in (
        ("captum", options.steps, error, theirs),
        ("transferlens", found.steps.mean(), found.error, ours),
    ):
        mean, most = (f"{100 * each:.2f}" for each in (errors.mean(), errors.max()))
        table.append((name, f"{steps:.0f}", mean, most, f"{seconds / len(rows):.2f}"))
    print(cli.table(table))
    print(f"{theirs / ours:.1f} times as fast")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
