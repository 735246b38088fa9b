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
import functools
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transferlens import cli, features
from transferlens.errors import ParameterError
from transferlens.files import check_writable, complete_or_absent, content_hash
from transferlens.lazy import h5py, librosa, soundfile
from transferlens.manifest import manifest
from transferlens.shapes import DISTRACTORS, EVENTS, Form

__all__ = ["Spec", "Stems", "clip_ids", "digest", "event_mask", "export", "render", "spec", "specs"]

GROUPS, TAKES = 4, 2  # groups a class and fold, clips a group
# Raise it when the clips change: feature caches of the old ones are then made anew.
RECIPE = 1
CENTRES = (700.0, 2800.0)  # [Hz], common to all classes
OCTAVES = (0.8, 1.4)
RATES = (4.0, 9.0)  # [Hz]
FADE = 0.015  # [s]


@dataclass(frozen=True, kw_only=True)
class Spec(Form):
    """What one clip is made of.

    Attributes
    ----------
    id, label, fold, group : str
        Clips of a group share the cell of the parameter grid that only this group has; all are in one fold.
    distractor : str
        Shape of the distractor, or "none".
    centre_hz, octaves, rate_hz
        The event's `shapes.Form`.
    onset, length : float in [0, 1]
        Start and length of the event, as fractions of the clip.
    distractor_onset, distractor_length : float in [0, 1]
        The same of the distractor's place, which is drawn whether or not it is taken.
    snr_db : float [dB]
        Power of the event while it lasts, over that of the background.
    distractor_db : float > 0 [dB]
        Power of the distractor while it lasts, over that of the event.
    slope : float >= 0
        The background's power falls as ``1 / f**slope``.
    peak : float in (0, 1)
        Largest magnitude of the mixture.
    """

    id: str
    label: str
    fold: str
    group: str
    distractor: str
    onset: float
    length: float
    distractor_onset: float
    distractor_length: float
    snr_db: float
    distractor_db: float
    slope: float
    peak: float

    @property
    def has_distractor(self) -> bool:
        """Whether the clip holds a distractor."""
        return self.distractor != "none"


def _rng(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def _cell(span: tuple[float, float], slot: int, slots: int, rng: np.random.RandomState) -> float:
    """A value in the inner part of one of the equal cells of a span."""
    low, high = span
    return low + (high - low) * (slot + rng.uniform(0.3, 0.7)) / slots


def _parameters(label: str, fold: int, group: int) -> dict[str, float]:
    """What the clips of a group share, each number from a cell that no other group of the class has."""
    folds = manifest()["synth"].folds
    slots, slot = folds * GROUPS, folds * group + fold - 1
    shuffles = _rng(label)
    rng = _rng(f"{label}-{fold}-{group}")
    # Folds take turns along the grid: none is of one register. The shuffles keep register and rate unrelated.
    octave = _cell((0, np.log2(CENTRES[1] / CENTRES[0])), slot, slots, rng)
    return {
        "centre_hz": CENTRES[0] * 2**octave,
        "octaves": round(_cell(OCTAVES, shuffles.permutation(slots)[slot], slots, rng), 4),
        "rate_hz": round(_cell(RATES, shuffles.permutation(slots)[slot], slots, rng), 2),
    }


def _places(rng: np.random.RandomState) -> dict[str, float]:
    """Where event and distractor stand: apart from each other, in either order."""
    lengths = {"": rng.uniform(0.25, 0.45), "distractor_": rng.uniform(0.2, 0.3)}
    rest = 0.97 - sum(lengths.values())
    before, after = np.sort(rng.uniform(0, rest, 2))
    first, second = list(lengths) if rng.uniform() < 0.5 else list(lengths)[::-1]
    onsets = {first: before, second: after + lengths[first] + 0.03}
    places = {f"{name}onset": onsets[name] for name in lengths}
    places |= {f"{name}length": length for name, length in lengths.items()}
    return {name: round(value, 4) for name, value in places.items()}


def _spec(label: str, fold: int, group: int, take: int) -> Spec:
    name = f"{label}-f{fold}-g{group}"
    turn = list(EVENTS).index(label) + fold + group
    taken = turn % TAKES == take
    rng = _rng(f"{name}-{take}")
    shared = _parameters(label, fold, group)
    return Spec(
        id=f"{name}-{take}",
        label=label,
        fold=str(fold),
        group=name,
        # In turn, so that every class and fold has each shape equally often.
        distractor=list(DISTRACTORS)[turn % len(DISTRACTORS)] if taken else "none",
        centre_hz=round(shared["centre_hz"] * rng.uniform(0.99, 1.01)),
        octaves=shared["octaves"],
        rate_hz=shared["rate_hz"],
        **_places(rng),
        snr_db=round(rng.uniform(3, 15), 2),
        distractor_db=round(rng.uniform(5, 10), 2),
        slope=round(rng.uniform(0, 1.5), 3),
        peak=round(rng.uniform(0.2, 0.9), 3),
    )


@functools.cache
def specs() -> tuple[Spec, ...]:
    """The specifications of all clips, sorted by id.

    Examples
    --------
    >>> len(specs()), specs()[0].label
    (400, 'band_noise')
    """
    folds = range(1, manifest()["synth"].folds + 1)
    return tuple(
        _spec(label, fold, group, take)
        for label in sorted(EVENTS)
        for fold in folds
        for group in range(GROUPS)
        for take in range(TAKES)
    )


def clip_ids() -> tuple[str, ...]:
    """The ids of all clips, sorted."""
    return tuple(each.id for each in specs())


@functools.cache
def _by_id() -> dict[str, Spec]:
    return {each.id: each for each in specs()}


def spec(id: str) -> Spec:
    """The specification of one clip.

    Raises
    ------
    ParameterError
        Where no clip has this id.
    """
    if id not in _by_id():
        raise ParameterError(f"id={id!r} is no clip of the synth data set; synth.clip_ids() lists them")
    return _by_id()[id]


@dataclass(frozen=True)
class Stems:
    """What a clip is the sum of.

    Attributes
    ----------
    event, background, distractor : ndarray [shape=(n_samples,), int16]
        The distractor is all zeros where the clip has none.
    """

    event: np.ndarray
    background: np.ndarray
    distractor: np.ndarray

    @property
    def mixture(self) -> np.ndarray:
        """Sum of the stems, exactly [shape=(n_samples,), int16]."""
        return self.event + self.background + self.distractor

    @property
    def y(self) -> np.ndarray:
        """The mixture as a waveform [shape=(n_samples,), float32 in (-1, 1)]."""
        return _waveform(self.mixture)


def _waveform(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / np.float32(32768)


def _unit(y: np.ndarray) -> np.ndarray:
    return y / np.sqrt(np.mean(y**2))


def _placed(shape, spec: Spec, rng: np.random.RandomState, place: tuple[float, float], n: int, sr: int) -> np.ndarray:
    """One shape of unit power while it lasts, faded in and out, in a clip of n samples."""
    start, length = (round(fraction * n) for fraction in place)
    t = np.arange(length) / sr
    fade = np.clip(np.minimum(t, t[::-1]) / FADE, 0, 1)
    y = np.zeros(n)
    y[start : start + length] = _unit(shape(t, spec, rng) * fade)
    return y


def _background(spec: Spec, rng: np.random.RandomState, n: int, sr: int) -> np.ndarray:
    """Noise of unit power with the clip's spectral slope."""
    hz = np.maximum(np.fft.rfftfreq(n, 1 / sr), 50)
    # Uniform noise is exact on every machine, where normal noise goes through a logarithm.
    return _unit(np.fft.irfft(np.fft.rfft(rng.uniform(-1, 1, n)) * hz ** (-spec.slope / 2), n))


@functools.lru_cache(maxsize=16)
def render(id: str) -> Stems:
    """Make one clip.

    Parameters
    ----------
    id : str
        One of `clip_ids`.

    Returns
    -------
    stems : Stems
        Read-only arrays at the rate and of the length that the manifest gives for ``synth``.

    Raises
    ------
    ParameterError
        Where no clip has this id.

    Examples
    --------
    >>> render("siren-f1-g0-0").y.shape
    (44100,)
    """
    it, row = spec(id), manifest()["synth"]
    n, sr = round(row.sr * row.seconds), row.sr
    rng = _rng(f"{id} sound")
    event = _placed(EVENTS[it.label], it, rng, (it.onset, it.length), n, sr)
    background = _background(it, rng, n, sr) * 10 ** (-it.snr_db / 20)
    distractor = np.zeros(n)
    if it.has_distractor:
        place = (it.distractor_onset, it.distractor_length)
        distractor = _placed(DISTRACTORS[it.distractor], it, rng, place, n, sr) * 10 ** (it.distractor_db / 20)
    gain = 32768 * it.peak / np.abs(event + background + distractor).max()
    stems = [np.rint(gain * stem).astype(np.int16) for stem in (event, background, distractor)]
    for stem in stems:
        stem.setflags(write=False)
    return Stems(*stems)


@functools.cache
def digest(id: str) -> str:
    """Sha256 in hexadecimal of what makes a clip: the generator's recipe number, the manifest's numbers, the id.

    Raises
    ------
    ParameterError
        Where no clip has this id.
    """
    row = manifest()["synth"]
    return content_hash([RECIPE, row.sr, row.seconds, row.folds, spec(id).id])


def event_mask(
    id: str, *, sr: int | None = None, width: int | None = None, floor_db: float = 40.0, **options
) -> np.ndarray:
    """The cells of a clip's features in which the event has more power than all else together.

    Parameters
    ----------
    id : str
        One of `clip_ids`.
    sr : int > 0 [Hz], optional
        Rate of the features; by default that of the manifest.
    width : int > 0 [frames], optional
        Width of the features; by default that of the manifest.
    floor_db : float > 0 [dB]
        Cells that much below the event's strongest of the same channel are no event: there quantisation noise
        would be compared with itself.
    **options
        Further options of `features.log_mel`, as ``n_mels``.

    Returns
    -------
    mask : ndarray [shape=(3, n_mels, width), bool]
        Ideal binary mask, local criterion 0 dB.

    Raises
    ------
    ParameterError
        Where no clip has this id, or an option is outside its rule.

    References
    ----------
    Wang (2005), see the module's docstring.

    Examples
    --------
    >>> event_mask("siren-f1-g0-0").shape
    (3, 128, 100)
    """
    row, stems = manifest()["synth"], render(id)
    rate, width = sr or row.sr, width or row.width

    def log_mel(samples: np.ndarray) -> np.ndarray:
        y = _waveform(samples)
        if rate != row.sr:
            y = librosa.resample(y, orig_sr=row.sr, target_sr=rate, res_type="soxr_hq")
        return features.log_mel(y, sr=rate, width=width, **options)

    event, rest = log_mel(stems.event), log_mel(stems.background + stems.distractor)
    floor = event.max(axis=(1, 2), keepdims=True) - floor_db * np.log(10) / 10
    return (event > rest) & (event > floor)


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
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write_all(beside, chosen)
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
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


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the built-in data set as files."""
    options = cli.parse(Options, argv, prog="synth")
    print(f"{export(options.out)} clips, clips.csv and masks.h5 in {options.out}")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
