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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from claims import Claim, apart, peak_memory, report, seconds
from features import plain

import transferlens as tl
from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.data.folds import check_table, write_table
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
    repeats: int = 3
    """How often the files are classified; the least time counts."""
    limit: float = 2
    """Largest memory that the recording may take [GB]."""
    backbone: str = "tf_efficientnet_lite0"
    """timm's name of the network."""


def trained(dataset: tl.DataSet, backbone: str, folder: Path) -> Path:
    """A run of one epoch on some clips: how good it is does not matter."""
    check_table("clips", folder / "clips.csv", dataset.clips)
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


@dataclass(frozen=True)
class Done:
    """What classifying took: seconds, largest resident set [GB]; and the logits."""

    seconds: float
    memory: float
    logits: np.ndarray


def done(classify: Callable[[Sequence[Path]], np.ndarray], first: Path, files: Sequence[Path], repeats: int) -> Done:
    """Classify the files; a first file loads what libraries load at first use."""
    classify([first])
    found = []
    duration = seconds(lambda: found.append(classify(files)), repeats)
    return Done(duration, peak_memory() / 1e9, found[-1])


def ours(run: Path, first: Path, files: Sequence[Path], repeats: int, window: float | None = None) -> Done:
    """Classify by `Run.predict`."""
    opened = tl.load_run(run)
    return done(lambda paths: opened.predict(paths, window=window).logits[0], first, files, repeats)


def theirs(run: Path, first: Path, files: Sequence[Path], repeats: int) -> Done:
    """Classify one file after the other."""
    opened = tl.load_run(run)
    settings, network = opened.config.features, opened.model().eval()

    def classify(paths: Sequence[Path]) -> np.ndarray:
        logits = []
        for path in paths:
            S = plain(path, settings.sr, settings.width)
            with torch.no_grad():
                logits.append(network(opened.inputs(S[None])).numpy()[0])
        return np.stack(logits)

    return done(classify, first, files, repeats)


def work(options: Options) -> int:
    """Classify files both ways, and a recording and a quarter of it."""
    dataset = options.open()
    places = np.linspace(0, len(dataset.clips) - 1, options.n_clips).astype(int)
    dataset = replace(dataset, clips=tuple(dataset.clips[i] for i in places))
    files = [clip.path for clip in dataset.clips]
    with tempfile.TemporaryDirectory() as name:
        folder, parts = Path(name), []
        run = trained(dataset, options.backbone, folder)
        one, other = (apart(side, run, files[0], files, options.repeats) for side in (ours, theirs))
        for minutes in (options.minutes / 4, options.minutes):
            write_recording(dataset, minutes, folder / f"{minutes:g}.wav")
            parts.append(apart(ours, run, files[0], [folder / f"{minutes:g}.wav"], 1, options.window))
    report(_of_files(options, one, other), _of_recording(options, *parts))
    return cli.DONE


def _of_files(options: Options, one: Done, other: Done) -> Claim:
    n = options.n_clips
    beside = (
        f"{n / one.seconds:.1f} and {n / other.seconds:.1f} files a second; largest difference of logits "
        f"{np.abs(one.logits - other.logits).max():.1g}"
    )
    work = f"{n} files classified, {options.backbone}"
    return Claim(work, "librosa and torch, file by file", one.seconds, other.seconds, "s", 1.5, beside)


def _of_recording(options: Options, quarter: Done, whole: Done) -> Claim:
    beside = f"{quarter.memory:.2f} GB for a quarter of it; {len(whole.logits) / whole.seconds:.1f} windows a second"
    work = f"{options.minutes:g} minutes classified in windows, {options.backbone}: memory"
    return Claim(work, "the limit", whole.memory, options.limit, "GB", 1, beside)


main = cli.Command("benchmarks/predict.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
