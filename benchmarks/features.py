"""Features computed once for all folds against extraction for each fold, as released with the paper.

    python benchmarks/features.py --clips path/to/esc10/clips.csv

The other side goes through training and held-out clips of each of five folds, one after the other, with librosa.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import librosa
import numpy as np
from claims import Claim, report, seconds
from PIL import Image

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import HOPS, WINDOWS, FeatureOptions
from transferlens.util.processes import cores


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Features of some clips, for five folds."""

    n_clips: int = 60
    """Clips, evenly spaced."""
    folds: int = 5
    """Folds that the other side extracts for."""


def plain(path: Path, sr: int, width: int) -> np.ndarray:
    """Three log-mel spectrograms by librosa, resized to one width."""
    y, _ = librosa.load(path, sr=sr)
    channels = []
    for window, hop in zip(WINDOWS, HOPS, strict=True):
        M = librosa.feature.melspectrogram(
            y=y,
            sr=sr,
            n_fft=round(max(WINDOWS) * sr),
            win_length=round(window * sr),
            hop_length=round(hop * sr),
            n_mels=128,
            htk=True,
            norm=None,
            pad_mode="reflect",
        )
        image = Image.fromarray(np.log(M + 1e-6).astype(np.float32))
        channels.append(np.asarray(image.resize((width, 128), Image.Resampling.BILINEAR)))
    return np.stack(channels)


def work(options: Options) -> int:
    """Extract both ways."""
    dataset = options.open()
    places = np.linspace(0, len(dataset.clips) - 1, options.n_clips).astype(int)
    dataset = replace(dataset, clips=tuple(dataset.clips[i] for i in places))
    settings = FeatureOptions().settings(dataset)
    plain(dataset.clips[0].path, settings.sr, settings.width)  # loads what librosa loads at first use
    found = []

    def theirs() -> None:
        for _ in range(options.folds):
            found[:] = [plain(clip.path, settings.sr, settings.width) for clip in dataset.clips]

    with tempfile.TemporaryDirectory() as folder:
        once = seconds(lambda: FeatureCache(dataset, settings, Path(folder)).fill())
        each, cache = seconds(theirs), FeatureCache(dataset, settings, Path(folder))
        difference = np.abs(cache.load() - np.stack(found)).max()
    work = f"features of {len(places)} clips for {options.folds} folds"
    other = "librosa, extraction for each fold"
    per_pass = f"one pass {once:.2f} s on {cores()} cores against {each / options.folds:.2f} s on one"
    report(Claim(work, other, once, each, "s", 12, f"{per_pass}; largest difference {difference:.1g}"))
    return cli.DONE


main = cli.Command("benchmarks/features.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
