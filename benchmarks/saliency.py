"""Integrated Gradients against captum called plainly with 200 steps, at equal or better completeness.

    python benchmarks/saliency.py --clips path/to/esc10/clips.csv [--ckpt RUN.h5]

Without a run file one is trained first: EfficientNet-Lite0, on the first fold's others, for three epochs.
The other side is one call of captum a clip. Ours is told a tolerance of one and a quarter times its mean
completeness error, which no clip's error then exceeds; both sides' means are printed. The movement of the map is left
aside, as captum does not know it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from claims import Claim, apart, report

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.measures.attribution import attribute
from transferlens.models.plan import TransferPlan
from transferlens.store.heldout import heldout_features
from transferlens.store.run import Run, load_run
from transferlens.training.sweep import Study
from transferlens.util import text
from transferlens.util.processes import keep_freed_memory

FOLDER = tempfile.TemporaryDirectory()


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Attributions of held-out clips of a run, both ways."""

    ckpt: Path | None = None
    """Run file. Default: one is trained first."""
    n_clips: int = 16
    """Held-out clips to explain, evenly spaced."""
    steps: int = 200
    """Steps of the other side."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""


def trained(options: Options) -> Run:
    """A run of three epochs, kept in a folder that goes with the process."""
    data = {name: getattr(options, name) for name in DataOptions.__dataclass_fields__}
    return Study(**data, n_folds=1, epochs=3, cache=options.cache, runs=FOLDER.name).runs(TransferPlan())[0]


def plain(
    path: Path, x: torch.Tensor, baseline: torch.Tensor, targets: list[int], steps: int
) -> tuple[list[float], float]:
    """Sums of captum's attributions, and seconds, in a process of its own."""
    explain = IntegratedGradients(load_run(path).model())
    explain.attribute(x[:1], baseline, target=targets[0], n_steps=steps)  # what is slow the first time
    start = time.perf_counter()
    sums = [
        explain.attribute(x[i : i + 1], baseline, target=target, n_steps=steps).sum().item()
        for i, target in enumerate(targets)
    ]
    return sums, time.perf_counter() - start


def work(options: Options) -> int:
    """Print a line each, and the ratio."""
    run = trained(options) if options.ckpt is None else load_run(options.ckpt)
    rows = np.linspace(0, len(run.clip_ids) - 1, options.n_clips).astype(int)
    x = run.inputs(heldout_features(run, options, options.cache)[rows])
    silent = run.config.features.compute(np.zeros(run.config.features.n_fft, np.float32), run.config.features.sr)
    baseline, targets, model = run.inputs(silent[None]), run.labels[rows].tolist(), run.model()
    with torch.no_grad():
        change = torch.stack([(model(x[i : i + 1]) - model(baseline))[0, t] for i, t in enumerate(targets)]).numpy()

    sums, theirs = apart(plain, run.path, x, baseline, targets, options.steps)
    error = np.abs(np.array(sums) - change) / np.abs(change)

    keep_freed_memory()  # as the command does
    start = time.perf_counter()
    found = attribute(
        model,
        x,
        targets=targets,
        baseline=baseline,
        tolerance=1.25 * float(error.mean()),
        map_tolerance=0.999,
        max_steps=4096,
    )
    ours = time.perf_counter() - start
    table = [("way", "gradients a clip", "mean error [%]", "largest error [%]", "time a clip [s]")]
    for name, steps, errors, seconds in (
        ("captum", options.steps, error, theirs),
        ("transferlens", found.steps.mean(), found.error, ours),
    ):
        mean, most = (f"{100 * each:.2f}" for each in (errors.mean(), errors.max()))
        table.append((name, f"{steps:.0f}", mean, most, f"{seconds / len(rows):.2f}"))
    print(text.table(table))
    errors = [f"{100 * each.mean():.2f} % (at most {100 * each.max():.2f} %)" for each in (found.error, error)]
    beside = f"mean completeness error {' against '.join(errors)}"
    work, other = f"Integrated Gradients of a clip, {run.config.backbone}", f"captum, {options.steps} steps"
    report(Claim(work, other, ours / len(rows), theirs / len(rows), "s", 3, beside))
    return cli.DONE


main = cli.Command("benchmarks/saliency.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
