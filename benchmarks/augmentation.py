"""Augmented features from one Fourier transform against librosa's pitch shift and time stretch of the waveform.

    python benchmarks/augmentation.py --clips path/to/esc10/clips.csv

One thread either way. How near ours come: differences of log-mel features, of cells above the median, beside those
between two neighbouring semitones of librosa's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import threadpoolctl
from claims import Claim, report, seconds

from transferlens import cli
from transferlens.augment import Augmentation, from_spectrum, from_waveform
from transferlens.datasets import DataOptions
from transferlens.features import FeatureOptions


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Variants of some clips."""

    n_clips: int = 12
    """Clips, evenly spaced."""
    variants: int = 8
    """Renderings of a clip."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Render both ways."""
    options = cli.parse(Options, argv, prog="benchmarks/augmentation.py")
    dataset = options.open()
    settings = FeatureOptions().settings(dataset)
    places = np.linspace(0, len(dataset.clips) - 1, options.n_clips).astype(int)
    clips = [dataset.load(dataset.clips[i]) for i in places]
    # The clip as it is comes first, and costs librosa nothing: shifted and stretched ones alone are compared.
    draws = [[(s or 1, r) for s, r in Augmentation("spectrum", options.variants + 1).draws(i)[1:]] for i in places]
    times = {}
    with threadpoolctl.threadpool_limits(1):
        for way in (from_spectrum, from_waveform):
            way(clips[0], settings, draws[0][:1])
            work = [(clip, each) for clip, each in zip(clips, draws, strict=True)]
            some = work if way is from_spectrum else [(clip, each[:1]) for clip, each in work]
            done = sum(len(each) for _, each in some)
            times[way] = seconds(lambda way=way, some=some: [way(y, settings, each) for y, each in some]) / done
    near, neighbour = [], []
    for y in clips:
        ours = from_spectrum(y, settings, [(2, 1.0)])[0]
        one, two = from_waveform(y, settings, [(1, 1.0), (2, 1.0)])
        loud = two > np.median(two)
        near.append(np.abs(ours - two)[loud])
        neighbour.append(np.abs(one - two)[loud])
    quantiles = [np.quantile(np.concatenate(each), (0.25, 0.5, 0.75)) for each in (near, neighbour)]
    ours, semitone = ("/".join(f"{q:.2f}" for q in each) for each in quantiles)
    beside = f"quartiles of the difference from librosa's {ours}, of a semitone {semitone}"
    other = "librosa: pitch shift, time stretch, log-mel"
    report(
        Claim("an augmented variant of a clip", other, 1e3 * times[from_spectrum], 1e3 * times[from_waveform], "ms", 10)
    )
    print(beside)
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
