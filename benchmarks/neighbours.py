"""How much other programs slow training down: one run, and a sweep of four, alone and beside busy processes.

    python benchmarks/neighbours.py --clips path/to/esc10/clips.csv

The other side are the usual settings of OpenMP: one run after the other, each with one thread per core, and threads
that spin where they wait for each other. Each number is how many times as long an epoch, or the sweep, takes as without
neighbours; a neighbour is a process that keeps one core busy. Every command runs in processes of its own.
"""

from __future__ import annotations

import contextlib
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from claims import Claim, report

from transferlens import cli
from transferlens.store.run import load_run
from transferlens.util.processes import cores

# Busy processes, and how many times as long training may take beside them.
LIMITS = {1: 2.1, 2: 3.2}
# libgomp's own number of turns that a waiting thread spins.
SPINNING = {"GOMP_SPINCOUNT": "300000"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train alone and beside busy processes."""

    clips: Path
    """Table of real clips."""
    n_clips: int = 160
    """Clips that are used, spread over the table."""
    epochs: int = 3
    """Epochs of a run alone; the median counts. Beside others one run is one epoch less."""


@contextlib.contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processes busy."""
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def some(clips: Path, n: int, folder: Path) -> Path:
    """Write a table of some of the clips."""
    with clips.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [rows[i * len(rows) // n] for i in range(min(n, len(rows)))]
    for row in chosen:
        row["path"] = str((clips.parent / row["path"]).absolute())
    table = folder / "clips.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return table


class Side:
    """One way to train: options of the command, and environment."""

    def __init__(self, clips: Path, folder: Path, options: Sequence[str], environment: dict[str, str]) -> None:
        self.clips, self.folder, self.options = clips, folder, options
        self.environment = os.environ | environment

    def train(self, *options: str) -> tuple[float, list[float]]:
        """Train in an empty store; return the seconds that the command takes, and those of each epoch."""
        with tempfile.TemporaryDirectory(dir=self.folder) as store:
            argv = [sys.executable, "-m", "transferlens.train", "--clips", str(self.clips), *self.options, *options]
            argv += ["--cache", str(self.folder / "cache"), "--runs", store]
            start = time.perf_counter()
            subprocess.run(argv, env=self.environment, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            runs = [load_run(path) for path in sorted(Path(store).rglob("*.h5"))]
            return seconds, [float(epoch) for run in runs for epoch in run.history["seconds"]]

    def epoch(self, epochs: int) -> float:
        """Return the median time of an epoch of a lone run [s]."""
        return statistics.median(self.train("--folds", "1", "--epochs", str(epochs))[1])

    def sweep(self, epochs: int) -> float:
        """Return the time of a sweep of four runs [s]."""
        return self.train("--folds", "1", "2", "3", "4", "--epochs", str(epochs))[0]


def work(options: Options) -> int:
    """Train both ways, alone and beside others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = some(options.clips, options.n_clips, folder)
        one_by_one = ["--workers", "1", "--threads", str(cores())]
        sides = [Side(clips, folder, [], {}), Side(clips, folder, one_by_one, SPINNING)]
        sides[0].train("--folds", "1", "--epochs", "1")  # fills the cache
        for what, epochs in (("epoch", options.epochs), ("sweep", 1)):
            alone = [getattr(side, what)(epochs) for side in sides]
            for number, limit in LIMITS.items():
                with busy(number):
                    ours, theirs = (
                        getattr(side, what)(max(1, epochs - 1)) / seconds
                        for side, seconds in zip(sides, alone, strict=True)
                    )
                name = {"epoch": "epoch of one run", "sweep": "sweep of four runs"}[what]
                report(
                    Claim(
                        f"{name} beside {number} busy process{'es' if number > 1 else ''}, against alone",
                        "one by one, spinning threads",
                        ours,
                        theirs,
                        "times",
                        theirs / limit,
                        f"goal: {limit:g} times or less; alone {alone[0]:.1f} s, theirs {alone[1]:.1f} s",
                    )
                )
    return cli.DONE


main = cli.Command("benchmarks/neighbours.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
