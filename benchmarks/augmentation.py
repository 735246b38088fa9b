"""Augmented features from one Fourier transform against librosa's pitch shift and time stretch of the waveform.

    python benchmarks/augmentation.py --clips path/to/esc10/clips.csv

One thread either way, the same semitones and rates, and clips padded to one length, so that both stretch. How near both
come to a clip that sounds two semitones higher: where clips are resized to one width, the exact one is the waveform
played faster, which a resampling gives. Printed are quartiles of the differences of log-mel features from it, of cells
above its median, and those between two neighbouring semitones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import librosa
import numpy as np
import threadpoolctl
from claims import Claim, report, seconds

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.features.augment import Augmentation, from_spectrum, from_waveform
from transferlens.features.logmel import FeatureOptions, FeatureSettings


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Variants of some clips."""

    n_clips: int = 12
    """Clips, evenly spaced."""
    variants: int = 8
    """Renderings of a clip."""


def faster(y: np.ndarray, settings: FeatureSettings, semitones: int) -> np.ndarray:
    """Features of a clip played faster by a ratio of frequencies."""
    ratio = 2 ** (semitones / 12)
    return settings.compute(librosa.resample(y, orig_sr=settings.sr, target_sr=settings.sr / ratio), settings.sr)


def work(options: Options) -> int:
    """Render both ways."""
    dataset = options.open()
    padded, settings = (FeatureOptions(fit=fit).settings(dataset) for fit in ("pad", "stretch"))
    places = np.linspace(0, len(dataset.clips) - 1, options.n_clips).astype(int)
    clips = [dataset.load(dataset.clips[i]) for i in places]
    # The clip as it is comes first, and costs librosa nothing: shifted and stretched ones alone are compared.
    draws = [Augmentation("spectrum", options.variants + 1).draws(i)[1:] for i in places]
    times = {}
    with threadpoolctl.threadpool_limits(1):
        for way in (from_spectrum, from_waveform):
            way(clips[0], padded, draws[0][:1])
            work = seconds(lambda way=way: [way(y, padded, each) for y, each in zip(clips, draws, strict=True)])
            times[way] = work / (len(clips) * options.variants)
    found: dict[str, list[np.ndarray]] = {}
    for y in clips:
        exact = faster(y, settings, 2)
        loud = exact > np.median(exact)
        for name, S in (
            ("ours", from_spectrum(y, settings, [(2, 1.0)])[0]),
            ("librosa's", from_waveform(y, settings, [(2, 1.0)])[0]),
            ("a semitone", faster(y, settings, 1)),
        ):
            found.setdefault(name, []).append(np.abs(S - exact)[loud])
    words = []
    for name, each in found.items():
        quartiles = np.quantile(np.concatenate(each), (0.25, 0.5, 0.75))
        words.append(f"{name} {'/'.join(f'{quartile:.2f}' for quartile in quartiles)}")
    beside = f"quartiles of the difference from the exact shift: {', '.join(words)}"
    other = "librosa: pitch shift, time stretch, log-mel"
    ours, theirs = (1e3 * times[way] for way in (from_spectrum, from_waveform))
    report(Claim("an augmented variant of a clip", other, ours, theirs, "ms", 10, beside))
    return cli.DONE


main = cli.Command("benchmarks/augmentation.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
