"""Sound files and a long recording classified by a run, against a plain loop with librosa and torch.

    python benchmarks/predict.py --clips path/to/esc10/clips.csv

The other side loads one file after the other with librosa, computes its three log-mel spectrograms, and hands them to
the same network in fp32. The recording is made of the clips; its memory is the largest resident set of a process that
does nothing else, which must be below the limit and not grow with the length.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from claims import Claim, apart, peak_memory, report
from features import plain

import transferlens as tl
from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.data.folds import write_table
from transferlens.training.sweep import Study


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Classify files, and a recording in windows."""

    n_clips: int = 60
    """Files, evenly spaced."""
    minutes: float = 60
    """Length of the recording [min]."""
    window: float = 5
    """Length of its windows [s]."""
    limit: float = 2
    """Largest memory that the recording may take [GB]."""
    backbone: str = "tf_efficientnet_lite0"
    """timm's name of the network."""


def trained(dataset: tl.DataSet, backbone: str, folder: Path) -> Path:
    """A run of one epoch on some clips: how good it is does not matter."""
    write_table(dataset.clips, folder / "clips.csv")
    study = Study(
        clips=folder / "clips.csv",
        backbone=(backbone,),
        folds=dataset.folds[:1],
        epochs=1,
        precision="fp32",
        cache=folder / "cache",
        runs=folder / "runs",
    )
    return study.runs(tl.TransferPlan.scratch())[0].path


def write_recording(dataset: tl.DataSet, minutes: float, path: Path) -> None:
    """Write the clips one after the other, again and again, as one recording."""
    left = round(60 * minutes * dataset.sr)
    with soundfile.SoundFile(path, "w", dataset.sr, 1) as file:
        for clip in itertools.cycle(dataset.clips):
            y = dataset.load(clip)[:left]
            file.write(y)
            left -= len(y)
            if not left:
                break


def ours(run: Path, first: Path, files: Sequence[Path], window: float | None) -> tuple[float, float, np.ndarray]:
    """Seconds, largest resident set [GB], and logits; a first file loads what libraries load at first use."""
    opened = tl.load_run(run)
    opened.predict([first])
    start = time.perf_counter()
    logits = opened.predict(files, window=window).logits[0]
    return time.perf_counter() - start, peak_memory() / 1e9, logits


def theirs(run: Path, files: Sequence[Path]) -> tuple[float, np.ndarray]:
    """Seconds and logits, one file after the other; the first one loads what libraries load at first use."""
    opened = tl.load_run(run)
    settings = opened.config.features
    network = opened.model().eval()

    def logits_of(file: Path) -> np.ndarray:
        S = plain(file, settings.sr, settings.width)
        with torch.no_grad():
            return network(opened.inputs(S[None])).numpy()[0]

    logits_of(files[0])
    start = time.perf_counter()
    logits = np.stack([logits_of(file) for file in files])
    return time.perf_counter() - start, logits


def work(options: Options) -> int:
    """Classify both ways, and a recording and a quarter of it."""
    dataset = options.open()
    places = np.linspace(0, len(dataset.clips) - 1, options.n_clips).astype(int)
    dataset = replace(dataset, clips=tuple(dataset.clips[i] for i in places))
    files = [clip.path for clip in dataset.clips]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = trained(dataset, options.backbone, folder)
        time_ours, _, logits = apart(ours, run, files[0], files, None)
        time_theirs, others = apart(theirs, run, files)
        found = []
        for minutes in (options.minutes / 4, options.minutes):
            write_recording(dataset, minutes, folder / f"{minutes:g}.wav")
            found.append(apart(ours, run, files[0], [folder / f"{minutes:g}.wav"], options.window))
    (_, quarter, _), (duration, memory, windows) = found
    speed = f"{len(files) / time_ours:.1f} and {len(files) / time_theirs:.1f} files a second"
    difference = f"largest difference of logits {np.abs(logits - others).max():.1g}"
    beside = f"{quarter:.2f} GB for a quarter of it; {len(windows) / duration:.1f} windows a second"
    network = f", {options.backbone}"
    report(
        Claim(
            f"{len(files)} files classified{network}",
            "librosa and torch, file by file",
            time_ours,
            time_theirs,
            "s",
            1.5,
            f"{speed}; {difference}",
        ),
        Claim(
            f"{options.minutes:g} minutes of sound classified in windows{network}: memory",
            "the limit",
            memory,
            options.limit,
            "GB",
            1,
            beside,
        ),
    )
    return cli.DONE


main = cli.Command("benchmarks/predict.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
