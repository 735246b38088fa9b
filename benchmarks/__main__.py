"""Run every benchmark, one after the other, and write the table of their claims to benchmarks/README.md.

    python -m benchmarks --clips path/to/esc10/clips.csv

Each is a process of its own. Nothing else should run on the machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferlens import cli
from transferlens.util.errors import ParameterError, SweepError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from claims import COLLECT, HEAD, Claim, markdown  # noqa: E402

TEXT = """# Benchmarks

Each line is a script here that does the same work our way and the other side's way, in one run, on one machine;
`python -m benchmarks --clips path/to/esc10/clips.csv` runs all but those that take an hour or need a run
({apart}), and writes this file.
The other side is written in the script, as plainly as one would write it with torch and librosa. The gain is how many
times as much it takes.

What limits the lines that may miss their goal:

- Features: the spectra are librosa's on both sides, so that the gain is folds times what the cores give.
- Training steps, and runs with frozen blocks: BatchNorm, activations and copies move memory, which neither bf16 nor a
  second core makes faster; the second table has their share. The goals are for a processor with bf16: a step whose line
  says fp32 is limited by that.
- SVCCA: products of the activations in double precision, each of which is read once.
- Integrated Gradients: for an error no larger than captum's, ours need about as many gradients.
- A sweep: two runs at once share the memory's bandwidth.
- A lone run beside busy processes: its threads wait for each other. Their number is not changed within a run, as the
  last bits of its results depend on it.
- `--help`: Python reads the modules of all questions that `all` asks.

{machine}

{table}

{growth}
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the benchmarks and write their table."""

    clips: Path
    """Table of real clips, ESC-10's."""
    only: tuple[str, ...] = ()
    """Names of scripts to run. Default: all, and the table is written."""


# Scripts, and their options for a run of all; {clips} stands for the table of clips.
SCRIPTS = {
    "features": ["--clips", "{clips}"],
    "augmentation": ["--clips", "{clips}"],
    "training": ["--clips", "{clips}"],
    "frozen_prefix": ["--clips", "{clips}", "--folds", "1", "--backbone", "tf_efficientnet_lite0"]
    + ["--block", "3", "4", "--plain-epochs", "2"],
    "similarity": [],
    "saliency": ["--clips", "{clips}", "--n-clips", "14"],
    "streaming": [],
    "predict": ["--clips", "{clips}"],
    "processes": [],
    "sweep": ["--clips", "{clips}"],
    "neighbours": ["--clips", "{clips}"],
    "operations": [],
    "depthwise": [],
    "listing": [],
    "start": [],
    "intervals": [],
    "growth": ["--clips", "{clips}"],
}
# Not run with the others: they take an hour or need a run.
APART = ("accuracy", "kills", "scale", "similarity_coverage", "similarity_size", "variance")


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def run(name: str, options: Sequence[str], clips: Path) -> list[Claim]:
    """Run one script; what it claims."""
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "claims"
        argv = [sys.executable, str(HERE / f"{name}.py"), *(each.format(clips=clips) for each in options)]
        start = time.perf_counter()
        done = subprocess.run(argv, env=os.environ | {COLLECT: str(collected)}, check=False)
        print(f"# {name}: {time.perf_counter() - start:.0f} s", flush=True)
        if done.returncode:
            raise SweepError(f"benchmarks/{name}.py ended with exit code {done.returncode}")
        lines = collected.read_text().splitlines() if collected.exists() else []
        return [Claim(**json.loads(line)) for line in lines]


def work(options: Options) -> int:
    """Run, print, write."""
    if unknown := [name for name in options.only if name not in SCRIPTS]:
        raise ParameterError(f"only={unknown[0]!r} must be among {', '.join(SCRIPTS)}")
    started = time.perf_counter()
    found = [claim for name in options.only or SCRIPTS for claim in run(name, SCRIPTS[name], options.clips)]
    table = markdown([HEAD, *(claim.row for claim in found)])
    print(table)
    if not options.only:
        import torch

        minutes = (time.perf_counter() - started) / 60
        machine = f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}; {minutes:.0f} minutes in all."
        tables = [HERE / f"{name}.md" for name in ("operations", "growth", "scale", "intervals")]
        growth = "\n".join(path.read_text() for path in tables if path.exists())
        (HERE / "README.md").write_text(
            TEXT.format(
                apart=", ".join(f"`{name}`" for name in APART), machine=machine, table=table, growth=growth
            ).rstrip()
            + "\n"
        )
    return cli.DONE


main = cli.Command("benchmarks", Options, work)

if __name__ == "__main__":
    sys.exit(main())
