"""How much of the accuracy is the seed's, and how much is rounding: one fold, several seeds and numerical variants.

    python benchmarks/variance.py --clips path/to/esc10/clips.csv --cache CACHE --runs RUNS

The variants train the same network on the same clips in the same order; they differ in precision and in the number of
threads, that is in how sums are rounded, as different processors do too. Finished runs are not trained again. Writes
benchmarks/variance.md.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from claims import markdown

from transferlens import cli
from transferlens.models.plan import TransferPlan
from transferlens.training.sweep import Study

# Precision and number of threads.
VARIANTS = (("bf16", 1), ("bf16", 2), ("fp32", 1))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare the variance of seeds with that of rounding."""

    clips: Path
    """Table of real clips."""
    cache: Path
    """Folder for features."""
    runs: Path
    """Folder for runs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    fold: str = "1"
    """The held-out fold."""


def work(options: Options) -> int:
    """Train, print and write the table."""
    logits = {}
    for precision, threads in VARIANTS:
        study = Study(
            options.clips, folds=(options.fold,), seeds=options.seeds, cache=options.cache, runs=options.runs,
            precision=precision, threads=threads,
        )  # fmt: skip
        runs = study.runs(TransferPlan.finetune())
        logits[precision, threads] = np.array([run.logits for run in runs])
        labels = runs[0].labels
    predicted = np.array(list(logits.values())).argmax(-1)  # variants, seeds, clips
    accuracy = 100 * (predicted == labels).mean(-1)
    rows = [["precision, threads", *(f"seed {seed}" for seed in options.seeds)]]
    for (precision, threads), each in zip(logits, accuracy, strict=True):
        rows.append([f"{precision}, {threads}", *(f"{value:.1f}" for value in each)])

    def differ(axis: int) -> float:
        """Mean share of clips that two networks classify differently which differ along this axis."""
        moved = np.moveaxis(predicted, axis, 0)
        return float(np.mean([np.mean(a != b) for a, b in itertools.combinations(moved, 2)]))

    parts = [["networks that differ by", "deviation of accuracy [points]", "clips classified differently"]]
    for words, axis in (("rounding", 0), ("the seed", 1)):
        deviation = np.sqrt(accuracy.var(axis, ddof=1).mean())
        parts.append([words, f"{deviation:.1f}", f"{differ(axis):.1%}"])
    text = f"{markdown(rows)}\n\n{markdown(parts)}\n"
    print(text)
    (Path(__file__).parent / "variance.md").write_text(f"## Seeds against rounding\n\nAccuracy [%]:\n\n{text}")
    return cli.DONE


main = cli.Command("benchmarks/variance.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
