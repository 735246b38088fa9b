"""The built-in data set: sounds made by code, whose class-bearing time-frequency cells are known exactly.

Ten classes of sound events differ in the shape they draw on a spectrogram, not in register or loudness.
Each event stands at a random time over coloured noise; half of the clips, exactly and in every class and
fold, hold a louder distractor too, which tells nothing of the class. What a model ought to look at is
therefore known: the cells where the event outweighs all else, its ideal binary mask.

Every clip is bit-identical everywhere: numpy's `RandomState` is frozen by its authors, phases are closed
forms of rounded numbers, and rounding to 16 bits removes the last digits in which sines and Fourier
transforms of two machines differ.

References
----------
Wang (2005), "On ideal binary mask as the computational goal of auditory scene analysis", in Speech Separation
by Humans and Machines, chapter 12: local criterion 0 dB.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transferlens import cli
from transferlens.data.manifest import manifest
from transferlens.data.synthetic import Spec, Stems, clip_ids, digest, render, spec, specs
from transferlens.features.event_mask import event_mask
from transferlens.util.errors import ParameterError
from transferlens.util.files import check_writable, complete_or_absent
from transferlens.util.lazy import h5py, soundfile

__all__ = ["Spec", "Stems", "clip_ids", "digest", "event_mask", "export", "render", "spec", "specs"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write the built-in data set as files to listen to: wav clips, clips.csv and the event masks."""

    out: Path
    """New or empty folder to write to."""


def _write_masks(path: Path, chosen: Sequence[Spec]) -> None:
    masks = np.stack([event_mask(each.id) for each in chosen])
    with complete_or_absent(path) as beside, h5py.File(beside, "w") as file:
        file.create_dataset("masks", data=masks, compression="gzip")
        file.create_dataset("clips", data=[f"{each.id}.wav" for each in chosen], dtype=h5py.string_dtype())


def export(out: Path, chosen: Iterable[Spec] | None = None) -> int:
    """Write clips as 16-bit wav files, with ``clips.csv`` and ``masks.h5`` beside them.

    Parameters
    ----------
    out : Path
        New or empty folder. ``masks.h5`` holds ``masks`` [shape=(n, 3, n_mels, width), bool] and ``clips``,
        the file names.
    chosen : iterable of Spec, optional
        By default all clips.

    Returns
    -------
    n : int
        How many clips were written.

    Raises
    ------
    ParameterError
        Where `out` is a file or a folder that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f"out={str(out)!r} must be a new or an empty folder: nothing is overwritten")
    chosen = tuple(specs() if chosen is None else chosen)
    check_writable("out", out)
    with complete_or_absent(out, folder=True) as beside:
        _write_all(beside, chosen)
    return len(chosen)


def _write_all(out: Path, chosen: Sequence[Spec]) -> None:
    sr = manifest()["synth"].sr
    out.mkdir(parents=True)
    for each in chosen:
        soundfile.write(out / f"{each.id}.wav", render(each.id).mixture, sr, subtype="PCM_16")
    with (out / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "fold", "group", "snr_db", "distractor"])
        table.writerows([f"{s.id}.wav", s.label, s.fold, s.group, s.snr_db, s.distractor] for s in chosen)
    _write_masks(out / "masks.h5", chosen)


def work(options: Options) -> int:
    """Write the built-in data set as files."""
    print(f"{export(options.out)} clips, clips.csv and masks.h5 in {options.out}")
    return cli.DONE


main = cli.command("synth", Options, work)

if __name__ == "__main__":
    sys.exit(main())
