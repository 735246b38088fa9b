"""A sweep of ten runs by default, on every core, against one run after the other on all cores; and what a run costs
besides its epochs.

    python benchmarks/sweep.py --clips path/to/esc10/clips.csv

Both sides train the network pretrained and from scratch on five folds, by the command, features computed before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from claims import Claim, apart, report

from transferlens import cli
from transferlens.util.processes import cores

GOAL, FIXED = 1.3, 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time a sweep both ways."""

    clips: Path
    """Table of real clips."""
    backbone: str = "tf_efficientnet_lite0"
    """timm's name of the network."""
    epochs: int = 3
    """Epochs of a run."""


def sweep(options: Options, cache: Path, ways: Sequence[str], environment: dict[str, str]) -> float:
    """Seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "transferlens.pretraining", "--clips", str(options.clips), "--long", "none"]
        argv += ["--backbone", options.backbone, "--epochs", str(options.epochs), "--cache", str(cache), *ways]
        argv += ["--runs", f"{folder}/runs", "--figures", f"{folder}/figures"]
        start = time.perf_counter()
        subprocess.run(argv, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def fixed(options: Options, cache: Path, runs: Path) -> float:
    """Seconds of a run that are not seconds of an epoch, once another run has been trained in this process."""
    import torch

    from transferlens.models.plan import TransferPlan
    from transferlens.training.sweep import Study

    torch.set_num_threads(1)
    study = Study(options.clips, backbone=options.backbone, epochs=2, n_folds=2, threads=1, cache=cache, runs=runs)
    first, second = study.points(TransferPlan.finetune())
    study.gather([first])
    start = time.perf_counter()
    (run,) = study.gather([second]).values()
    return time.perf_counter() - start - float(sum(run.history["seconds"]))


def work(options: Options) -> int:
    """Time both ways, then one run in pieces."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        rest = apart(fixed, options, cache, Path(folder) / "runs")
        ours = sweep(options, cache, [], {})
        one_by_one = ["--workers", "1", "--threads", str(cores())]
        theirs = sweep(options, cache, one_by_one, {"GOMP_SPINCOUNT": "300000"})
    name = f"ten runs of {options.epochs} epochs, {options.backbone}"
    report(
        Claim(name, f"one by one, {cores()} spinning threads", ours, theirs, "s", GOAL, f"{cores()} workers"),
        Claim("a run besides its epochs", "the limit", rest, FIXED, "s", 1, "two epochs, with their checkpoints"),
    )
    return cli.DONE


main = cli.Command("benchmarks/sweep.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
