"""What ``--help`` of every command takes, against importing torch alone.

python benchmarks/start.py
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from claims import Claim, report, seconds

from transferlens import cli
from transferlens.cli import COMMANDS


@dataclass(frozen=True, kw_only=True)
class Options:
    """Start every command once to see its help."""

    repeats: int = 2
    """Times that each is timed; the least counts."""


def work(options: Options) -> int:
    """Time each command in a process of its own."""

    def start(*arguments: str) -> float:
        argv = [sys.executable, *arguments]
        return seconds(lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL), options.repeats)

    times = {name: start("-m", "transferlens", name, "--help") for name in COMMANDS}
    slowest, torch = max(times, key=times.get), start("-c", "import torch")
    beside = f"goal: under 0.5 s; the slowest of {len(times)} commands, {slowest}"
    report(Claim("--help of any command", "importing torch", times[slowest], torch, "s", torch / 0.5, beside))
    return cli.DONE


main = cli.Command("benchmarks/start.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
