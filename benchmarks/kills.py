"""Processes killed at random moments: is the work finished afterwards, to the same bits, with nothing left over?

    python benchmarks/kills.py [--kills 1000]

Five kinds of work on small settings: features are extracted, networks trained, SVCCA, saliency and the report of their
runs. Each is killed at random moments by SIGTERM, SIGINT, SIGHUP or SIGKILL, up to five times in a row, and then asked
again until it is finished. Every file must then be as after undisturbed work, and no other file may be left.

Exit code 1 says that a file differed.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

os.environ["OMP_NUM_THREADS"] = "1"

import captum.attr
import h5py
import jinja2
import librosa
import matplotlib.pyplot
import numpy as np
import pandas
import safetensors.torch
import scipy.stats
import seaborn
import soundfile
import timm
import torch

from transferlens import cli
from transferlens.data.catalogue import open_dataset
from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FeatureOptions
from transferlens.util import text
from transferlens.util.errors import ParameterError
from transferlens.util.fields import at_least

# Imported here, once: kills hit the work, not the imports.
IMPORTED = captum.attr, jinja2, librosa, matplotlib.pyplot, pandas, scipy.stats, seaborn
BACKBONE = "test_resnet"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
INTERRUPTED = 130
IN_A_ROW = 5
KINDS = ("extraction", "training", "svcca", "saliency", "report")
# What may differ between two undisturbed runs: times.
TIMES = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|\d+(\.\d+)? (s|min)\b")
# An index only saves time, and its stamps are those of the files.
INDEX = ".index.tsv"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Kill each kind of work at random moments."""

    kills: Annotated[int, at_least(1)] = 50
    """Number of kills, of all kinds of work together."""
    only: tuple[str, ...] = ()
    """Kinds of work. Default: all."""
    seed: int = 0
    """Seed of the moments and signals."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.only if name not in KINDS]:
            raise ParameterError(f"only={unknown[0]!r} must be one of {', '.join(KINDS)}")


def write_clips(folder: Path, each: int, seconds: float) -> Path:
    """Write a table of noises of two classes in two folds, and return its path."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), [("path", "label", "fold")]
    for label, fold, i in np.ndindex(2, 2, each):
        name = f"{label}-{fold}-{i}.wav"
        soundfile.write(folder / name, (0.1 + 0.2 * label) * rng.normal(size=int(8000 * seconds)), 8000)
        rows.append((name, ["quiet", "loud"][label], str(fold)))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "clips.csv"


def prepared(base: Path) -> dict[str, Callable[[Path], int]]:
    """Write clips and weights, train two runs, and return the kinds of work: functions of a folder to an exit code."""
    many, few = write_clips(base / "many", 150, 0.1), write_clips(base / "few", 8, 0.5)
    safetensors.torch.save_file(timm.create_model(BACKBONE).state_dict(), base / "imagenet.safetensors")
    quick = ["--max-steps=64", "--rows=2", "--score=drawn", "--listen"]
    own = [f"--clips={few}", f"--cache={base / 'cache'}"]
    train = ["--backbone", BACKBONE, f"--weights={base / 'imagenet.safetensors'}", "--width=32", "--batch-size=4"]
    train += ["--device=cpu", "--threads=1", "--workers=1", "--folds=0", "--seeds", "0", "1"]

    def command(name: str, *argv: str) -> int:
        return cli.load(name)(list(argv))

    def extraction(folder: Path) -> int:
        dataset = open_dataset(many)
        return cli.guarded(lambda: FeatureCache(dataset, FeatureOptions().settings(dataset), folder).fill() or cli.DONE)

    if _asked(lambda: command("train", *own, *train, "--epochs=1", f"--runs={base / 'runs'}")) != cli.DONE:
        raise SystemExit("the runs to analyse cannot be trained")
    runs = sorted(map(str, (base / "runs").rglob("*.h5")))
    return {
        "extraction": extraction,
        "training": lambda folder: command(
            "train", own[0], f"--cache={folder}", *train, "--epochs=4", f"--runs={folder / 'runs'}"
        ),
        "svcca": lambda folder: command("svcca", *own, f"--figures={folder}", "--ckpt", *runs),
        "saliency": lambda folder: command("saliency", *own, f"--figures={folder}", *quick, "--ckpt", *runs),
        "report": lambda folder: command("report", *own, f"--runs={base / 'runs'}", f"--figures={folder}"),
    }


def _start(work: Callable[[], int]) -> int:
    """Do the work in a process of its own, a copy of this one, and return the process' number."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores these two
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = work()
    except KeyboardInterrupt:  # before the command has begun
        code = INTERRUPTED
    finally:
        os._exit(code)


def _asked(work: Callable[[], int]) -> int:
    """Do the work in a process of its own, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(_start(work), 0)[1])


def _killed(work: Callable[[], int], after: float, number: signal.Signals) -> bool:
    """Do the work and send it a signal after some time [s]; return whether it was still at work."""
    pid, end = _start(work), time.perf_counter() + after
    ended, status = 0, 0
    while time.perf_counter() < end and not ended:
        time.sleep(0.002)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, number)
        status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code not in (cli.DONE, -number, INTERRUPTED, 128 + number):
        raise SystemExit(f"killed by {number.name} after {after:.2f} s, the work ends with exit code {code}")
    return code != cli.DONE


def content(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, without times; of HDF5 files that of their arrays."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != INDEX)
    return {str(path.relative_to(folder)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    if path.suffix != ".h5":
        return hashlib.sha256(TIMES.sub(b"", path.read_bytes())).hexdigest()
    digest = hashlib.sha256()

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and name != "history/seconds":
            values = item[()]
            digest.update(repr((name, values.shape, values.tolist() if values.dtype == object else "")).encode())
            digest.update(values.tobytes() if values.dtype != object else b"")

    with h5py.File(path) as file:
        file.visititems(add)
    return digest.hexdigest()


def trial(work: Callable[[], int], folder: Path, seconds: float, kills: int, rng: np.random.Generator) -> Counter:
    """Kill the work in a row, ask it again until it is finished, and return the signals that it was killed by."""
    signals: Counter = Counter()
    for _ in range(kills):
        number = SIGNALS[rng.integers(len(SIGNALS))]
        if not _killed(work, rng.uniform(0, seconds), number):
            break
        signals[number.name] += 1
    if (code := _asked(work)) != cli.DONE:
        raise SystemExit(f"after {dict(signals)} the work in {folder} ends with exit code {code}")
    return signals


def measure(work: Callable[[Path], int], folder: Path, kills: int, rng: np.random.Generator) -> tuple[list[str], ...]:
    """Kill one kind of work, and return a row of the table, and what differed."""
    start = time.perf_counter()
    usual = []
    for _ in range(2):  # what differs between these two is not due to a kill
        if _asked(lambda: work(folder)) != cli.DONE:
            raise SystemExit(f"the work in {folder} fails without any kill")
        usual.append(content(folder))
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        shutil.rmtree(folder)
    if differing := [name for name in usual[0] if usual[0][name] != usual[1].get(name)]:
        raise SystemExit(f"two undisturbed runs of the work in {folder} differ in {text.some(differing)}")
    signals, problems, trials = Counter(), [], 0
    while sum(signals.values()) < kills:
        folder.mkdir()
        in_a_row = min(int(rng.integers(1, IN_A_ROW + 1)), kills - sum(signals.values()))
        signals += trial(lambda: work(folder), folder, seconds, in_a_row, rng)
        problems += _differences(usual[0], content(folder))
        trials += 1
        shutil.rmtree(folder)
    row = [str(sum(signals.values())), *(str(signals[number.name]) for number in SIGNALS), str(trials)]
    return [*row, f"{seconds:.1f}", str(len(problems))], problems


def _differences(usual: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in usual.keys() | now.keys() if usual.get(name) != now.get(name)]


def work(options: Options) -> int:
    """Kill all kinds of work, and print the table."""
    torch.set_num_threads(1)
    # Compiled here, once: numba, which librosa uses, can crash the process if it is interrupted while it compiles.
    librosa.istft(librosa.stft(np.zeros(4096)))
    rng, failed = np.random.default_rng(options.seed), False
    head = ["work", "kills", *(number.name for number in SIGNALS), "finished", "undisturbed [s]", "files that differ"]
    table = [head]
    with tempfile.TemporaryDirectory() as folder:
        kinds = prepared(Path(folder, "base"))
        chosen = {name: kinds[name] for name in options.only or kinds}
        before = content(Path(folder, "base"))
        for i, (name, one) in enumerate(chosen.items()):
            kills = options.kills * (i + 1) // len(chosen) - options.kills * i // len(chosen)
            row, problems = measure(one, Path(folder, name), kills, rng)
            table.append([name, *row])
            print(text.table([head, table[-1]]), flush=True)
            failed = failed or bool(problems)
            for problem in problems:
                print(f"{name}: {problem}", flush=True)
        if changed := _differences(before, content(Path(folder, "base"))):
            print(f"changed beside the work: {text.some(changed)}")
            failed = True
    print(text.table(table))
    return cli.FOUND if failed else cli.DONE


main = cli.Command("benchmarks/kills.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
