"""Write the built-in data set as files: synthesised sounds whose events are known on the spectrogram, cell by cell.

The events of the ten classes differ in their shape on the spectrogram, not in frequency range or loudness. Each event
is at a random time in coloured noise. Exactly half of the clips of every class and fold also contain a louder
distractor, which is independent of the class. The cells that a model should use are therefore known: those in which the
event is louder than everything else, its ideal binary mask [1]_ (local criterion 0 dB).

Clips are bit-identical on every machine: NumPy guarantees the numbers of `RandomState`, phases are closed forms of
rounded numbers, and rounding to 16 bits removes the last digits, which may differ between machines.

References
----------
.. [1] D. Wang: On ideal binary mask as the computational goal of auditory scene analysis. In: Speech Separation by
   Humans and Machines, chapter 12. Springer, 2005.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from transferlens import cli
from transferlens.data import known_answers
from transferlens.data.manifest import manifest

# What users import from here lives in folders.
from transferlens.data.synthetic import Spec, Stems, clip_ids, digest, render, spec, specs
from transferlens.features.event_mask import event_mask
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule
from transferlens.util.files import check_writable, complete_or_absent
from transferlens.util.lazy import h5py, soundfile
from transferlens.util.terminal import say

__all__ = ["Spec", "Stems", "clip_ids", "digest", "event_mask", "render", "spec", "specs"]


GENERATED = Rule(f"one of synth, {', '.join(known_answers.RECIPES)}", known_answers.is_generated)


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Write a generated data set as files: wav clips, clips.csv, and masks.h5 with the ground-truth masks."""

    out: Path
    """New or empty folder to write to."""
    dataset: Annotated[str, GENERATED] = "synth"
    """synth, or one with harder known answers: synth-two, -quiet, -duration, -gap, -low-snr, -shortcut, -texture
    or -order."""


def export(out: Path, chosen: Iterable[Spec] | None = None) -> int:
    """Write clips as 16-bit wav files, with ``clips.csv`` and ``masks.h5``, and return their number.

    Parameters
    ----------
    out : Path
        New or empty folder. Its ``masks.h5`` contains ``masks`` [shape=(n, 3, n_mels, width), bool], ``clips``, the
        file names, and, if a clip has a planted hum, ``hums``, which are masks too.
    chosen : iterable of Spec, optional
        Default: all clips.

    Raises
    ------
    ParameterError
        If `out` is a file or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f"out={str(out)!r} must be a new or an empty folder: nothing is overwritten")
    chosen = tuple(specs() if chosen is None else chosen)
    check_writable("out", out)
    with complete_or_absent(out, folder=True) as beside:
        _write(beside, chosen)
    return len(chosen)


def _write(out: Path, chosen: Sequence[Spec]) -> None:
    """Write clips, table and masks to a new folder."""
    sr = manifest()["synth"].sr
    out.mkdir(parents=True)
    masks, hums = [], []
    any_hum = any(getattr(each, "hum", (0, 0))[1] for each in chosen)
    for each in chosen:
        soundfile.write(out / f"{each.id}.wav", known_answers.render(each.id).mixture, sr, subtype="PCM_16")
        masks.append(event_mask(each.id))  # while its rendering is in memory
        hums += [event_mask(each.id, of="hum")] if any_hum else []
    with (out / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "fold", "group", "snr_db", "distractor"])
        table.writerows([f"{s.id}.wav", s.label, s.fold, s.group, s.snr_db, s.distractor] for s in chosen)
    with h5py.File(out / "masks.h5", "w") as file:
        file.create_dataset("masks", data=np.stack(masks), compression="gzip")
        if hums:
            file.create_dataset("hums", data=np.stack(hums), compression="gzip")
        file.create_dataset("clips", data=[f"{each.id}.wav" for each in chosen], dtype=h5py.string_dtype())


def work(options: Options) -> int:
    """Write a generated data set as files."""
    say(f"{export(options.out, known_answers.specs(options.dataset))} clips, clips.csv and masks.h5 in {options.out}")
    return cli.DONE


main = cli.command("synth", Options, work)

if __name__ == "__main__":
    sys.exit(main())
