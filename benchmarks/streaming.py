"""Training from a file against training from memory, and what memory each takes.

    python benchmarks/streaming.py

A cache of random features as large as ESC-50's (2 000 clips); an epoch of EfficientNet-Lite0 on 1 600 of them, in a
process of its own each. Memory is the process's largest resident set.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from claims import Claim, apart, peak_memory, report

from transferlens import cli
from transferlens.features.cache import FeatureCache
from transferlens.models.plan import TransferPlan
from transferlens.training.sweep import Study
from transferlens.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Options:
    """An epoch from memory and from a file."""

    n_clips: int = 2000
    """Clips of the data set."""
    backbone: str = "tf_efficientnet_lite0"
    """timm's name of the network."""
    batches: int = 50
    """Batches that are timed; all of an epoch at most."""


def write_clips(folder: Path, n_clips: int) -> Path:
    """A data set of short noises."""
    rng, lines = np.random.default_rng(0), ["path,label,fold"]
    for i in range(n_clips):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.normal(size=800).astype(np.float32), 8000)
        lines.append(f"{i}.wav,{'abcdefghij'[i % 10]},{1 + i // 10 % 5}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


def study(folder: Path, options: Options, memory: float | None) -> Study:
    """The data set, with a limit of memory [GB]."""
    return Study(
        clips=folder / "clips.csv",
        backbone=(options.backbone,),
        folds=("1",),
        width=250,
        cache=folder / "cache",
        runs=folder / "runs",
        memory=memory,
    )


def cost(folder: Path, options: Options, memory: float | None) -> tuple[float, float]:
    """Seconds of the batches, and largest resident set [GB]."""
    made = study(folder, options, memory)
    (point,) = made.points(TransferPlan.scratch())
    trainer = Trainer(point, made.data)
    trainer.rows = trainer.rows[: 32 * options.batches]
    start = time.perf_counter()
    trainer._train(0)
    return time.perf_counter() - start, peak_memory() / 1e9


def work(options: Options) -> int:
    """Time both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder, options.n_clips)
        made = study(folder, options, None)
        FeatureCache(made.dataset, made.settings, folder / "cache").fill()
        held, streamed = (apart(cost, folder, options, memory) for memory in (None, 0.0))
    beside = f"peak memory {streamed[1]:.2f} GB from the file, {held[1]:.2f} GB from memory"
    work = f"training from a file, {options.n_clips} clips"
    report(Claim(work, "the same from memory", streamed[0], held[0], "s", 0.8, beside))
    return cli.DONE


main = cli.Command("benchmarks/streaming.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
