"""What a benchmark claims, and the table of all: ``python -m benchmarks`` runs every script and writes README.md."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Names the file that a script adds its claims to, where `python -m benchmarks` runs it.
COLLECT = "TRANSFERLENS_CLAIMS"


@dataclass(frozen=True)
class Claim:
    """One line of the table: the same work done by us and by the other side, in one run.

    `gain` says how many times less ours takes, and `goal` how many times it should be; `beside` what else was seen.
    """

    work: str
    other_side: str
    ours: float
    theirs: float
    unit: str
    goal: float
    beside: str = ""

    @property
    def gain(self) -> float:
        """How many times as much the other side takes."""
        return self.theirs / self.ours

    @property
    def row(self) -> tuple[str, ...]:
        """As the table has it."""
        met = "" if self.gain >= self.goal else ", **missed**"
        return (
            self.work,
            self.other_side,
            f"{self.ours:.3g} {self.unit}",
            f"{self.theirs:.3g} {self.unit}",
            f"{self.gain:.1f}x",
            f"{self.goal:.3g}x{met}",
            self.beside,
        )


HEAD = ("work", "other side", "ours", "theirs", "gain", "goal", "beside")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table in Markdown; the first is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def report(*claims: Claim) -> None:
    """Print claims, and hand them to who collects them."""
    for claim in claims:
        print(" | ".join(claim.row), flush=True)
    if os.environ.get(COLLECT):
        with Path(os.environ[COLLECT]).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(dataclasses.asdict(claim)) + "\n" for claim in claims)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What some work gives in a process of its own: how one side sets up its process must not help the other."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def peak_memory() -> float:
    """Largest resident set of this process so far [bytes]."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells of a new process begins with the peak of the one that started it
        return 1024 * float(status.read_text().partition("VmHWM:")[2].split()[0])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """The least time that some work takes [s]."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)
