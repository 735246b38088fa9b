"""A thousand, ten thousand and a hundred thousand clips or runs: time, memory, and how fast both grow.

    python benchmarks/scale.py [--sizes 1000 10000 100000]

Clips are short noises of 20 clips per class in 5 folds, all different; runs are made up. Each measurement is a process
of its own; memory is its largest resident set. The exponent is that of the last two sizes: 1 is in proportion to the
size. Measurements are kept in benchmarks/scale.csv: what is there is not measured again unless its stage is named
(--only). Writes benchmarks/scale.md once all are there.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from claims import apart, markdown, peak_memory
from listing import write_store

from transferlens import cli
from transferlens.util.errors import ParameterError

MEASURED = Path(__file__).with_suffix(".csv")
SR = 8000
PER_CLASS = 20
# As few as possible: what grows is the number of clips.
SMALL = {"backbone": "test_resnet", "width": 8, "epochs": 1, "batch_size": 256, "device": "cpu", "workers": 1}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time and memory of each stage at several sizes."""

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Numbers of clips and of runs, in rising order, at least two."""
    only: tuple[str, ...] = ()
    """Stages to measure, again if they were. Default: those that are missing."""

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or list(self.sizes) != sorted({*self.sizes}) or self.sizes[0] < 200:
            raise ParameterError(f"sizes={self.sizes} must be two or more, at least 200, in rising order")
        if unknown := [name for name in self.only if name not in STAGES]:
            raise ParameterError(f"only={unknown[0]!r} must be one of {', '.join(STAGES)}")


def write_clips(folder: Path, n: int) -> None:
    """Write n different noises of 0.1 s, and their table."""
    (folder / "audio").mkdir(parents=True)
    noise = (3000 * np.random.default_rng(0).normal(size=SR)).astype(np.int16)
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "fold"))
        for i in range(n):
            y = np.roll(noise, i)[: SR // 10].copy()
            y[0] = i % 30_000
            soundfile.write(folder / "audio" / f"{i}.wav", y, SR)
            table.writerow((f"audio/{i}.wav", f"class {i // PER_CLASS}", 1 + i % 5))


def opening(folder: Path) -> None:
    """Read the table and the headers."""
    from transferlens.data.catalogue import open_dataset

    open_dataset(folder / "clips.csv")


def auditing(folder: Path) -> None:
    """Decode and check."""
    from transferlens.data.audit import audit
    from transferlens.data.catalogue import open_dataset

    audit(open_dataset(folder / "clips.csv"))


def training(folder: Path) -> None:
    """Extract features, train an epoch with one fold held out, and write the run."""
    from transferlens.models.plan import TransferPlan
    from transferlens.training.sweep import Study

    Study(folder / "clips.csv", **SMALL, folds=1, runs=folder / "trained", cache=folder / "cache").runs(
        TransferPlan.scratch()
    )


def training_again(folder: Path) -> None:
    """Train with features that are there."""
    from transferlens.models.plan import TransferPlan
    from transferlens.training.sweep import Study

    Study(folder / "clips.csv", **SMALL, folds=2, runs=folder / "trained", cache=folder / "cache").runs(
        TransferPlan.scratch()
    )


def listing(folder: Path) -> None:
    """List runs: every file is opened."""
    from transferlens.store.listing import list_runs

    list_runs(folder / "made-up")


# Stages in order; those of one data set use what the earlier ones have left.
STAGES: dict[str, Callable[[Path], None]] = {
    "open a table": opening,
    "audit": auditing,
    "extract features, and train": training,
    "train again": training_again,
    "list runs": listing,
    "list them again": listing,
}


def cost(stage: str, folder: Path) -> tuple[float, float]:
    """Return the seconds, and the largest resident set of the process [GB]."""
    start = time.perf_counter()
    STAGES[stage](folder)
    return time.perf_counter() - start, peak_memory() / 1e9


def exponent(values: list[float], sizes: tuple[int, ...]) -> float:
    """Return the exponent of growth between the last two sizes."""
    return float(np.log(values[-1] / values[-2]) / np.log(sizes[-1] / sizes[-2]))


def measured() -> dict[tuple[str, int], tuple[float, float]]:
    """Return the seconds and the memory [GB] that were measured, by stage and size."""
    if not MEASURED.is_file():
        return {}
    with MEASURED.open(newline="") as file:
        return {(row["stage"], int(row["n"])): (float(row["s"]), float(row["GB"])) for row in csv.DictReader(file)}


def keep(costs: dict[tuple[str, int], tuple[float, float]]) -> None:
    """Write what was measured."""
    with MEASURED.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("stage", "n", "s", "GB"))
        table.writerows((*key, f"{time:.2f}", f"{memory:.3f}") for key, (time, memory) in costs.items())


def text(costs: dict[tuple[str, int], tuple[float, float]], sizes: tuple[int, ...]) -> str:
    """Return the table of all stages in Markdown."""
    table = [["stage", *(f"{n:,}".replace(",", " ") + ": time [s], memory [GB]" for n in sizes), "exponents"]]
    for stage in STAGES:
        values = [costs[stage, n] for n in sizes]
        times, memory = map(list, zip(*values, strict=True))
        both = f"{exponent(times, sizes):.2f}, {exponent(memory, sizes):.2f}"
        table.append([stage, *(f"{t:.1f}, {m:.2f}" for t, m in values), both])
    words = (
        f"Short noises, {PER_CLASS} clips per class, or made-up runs. Each stage is a process of its own, its memory "
        "the largest resident set; the exponents of time and memory are those of the last two sizes."
    )
    return f"## Many clips, many runs\n\n{words}\n\n{markdown(table)}\n"


def work(options: Options) -> int:
    """Measure what is missing, print it and write the table."""
    costs = measured()
    with tempfile.TemporaryDirectory() as name:
        for n in options.sizes:
            folder = Path(name, str(n))
            chosen = options.only or tuple(stage for stage in STAGES if (stage, n) not in costs)
            if any(STAGES[stage] is not listing for stage in chosen):
                write_clips(folder, n)
            if any(STAGES[stage] is listing for stage in chosen):
                write_store(folder, n)
            for stage in chosen:
                costs[stage, n] = apart(cost, stage, folder)
                print(f"{stage}, {n}: {costs[stage, n][0]:.1f} s, {costs[stage, n][1]:.2f} GB", flush=True)
                keep(measured() | {(stage, n): costs[stage, n]})
    if all((stage, n) in costs for stage in STAGES for n in Options().sizes):
        MEASURED.with_suffix(".md").write_text(text(costs, Options().sizes))
    return cli.DONE


main = cli.Command("benchmarks/scale.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
