"""What would spoil an experiment with a data set: clips that cannot be used, and folds that are not apart."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from transferlens.data.clips import Clip
from transferlens.util.errors import DataError
from transferlens.util.lazy import tqdm
from transferlens.util.text import natural

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet

__all__ = ["Audit", "Finding", "audit", "unreadable"]

SILENT_PEAK = 1e-4
SILENT_DBFS = -80.0
SHORTEST = 0.1  # [s], the longest window of the features
SERIOUS = ("unreadable", "same audio", "same group")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Attributes
    ----------
    kind : str
        "unreadable", "silent", "short", "missing class", "same audio" or "same group".
    clips, folds : tuple of str
        Ids of the clips and names of the folds that are concerned.
    message : str
        What was found, in words.
    """

    kind: str
    clips: tuple[str, ...]
    folds: tuple[str, ...]
    message: str

    @property
    def serious(self) -> bool:
        """Whether a clip cannot be used or folds share a recording."""
        return self.kind in SERIOUS


@dataclass(frozen=True)
class Audit:
    """What the audit of a data set found.

    Attributes
    ----------
    dataset : str
    n_clips : int
    findings : tuple of Finding
        Serious ones first.
    """

    dataset: str
    n_clips: int
    findings: tuple[Finding, ...]

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that forbid an experiment: unreadable clips, and leaks from fold to fold."""
        return tuple(finding for finding in self.findings if finding.serious)


@dataclass(frozen=True)
class _Sound:
    """What is kept of a decoded clip."""

    seconds: float
    peak: float
    dbfs: float
    digest: str


def _sound(y: np.ndarray, sr: int) -> _Sound:
    rms = np.sqrt(np.mean(np.square(y, dtype=np.float64)))
    # To 16 bits, so that a wav and its copy in flac or in floats are the same audio.
    samples = np.clip(np.rint(y * 32768.0), -32768, 32767).astype("<i2")
    return _Sound(
        seconds=len(y) / sr,
        peak=float(np.abs(y).max()),
        dbfs=float(20 * np.log10(max(rms, 1e-12))),
        digest=hashlib.sha256(samples.tobytes()).hexdigest(),
    )


def _each(dataset: DataSet, look: Callable[[np.ndarray, int], Result]) -> dict[str, Result | str]:
    """What a look at every decoded clip gives, or why it cannot be decoded, by id."""

    def one(clip: Clip) -> Result | str:
        try:
            y, sr = dataset.decode(clip)
        except DataError as error:
            return str(error)
        return look(y, sr)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(one, dataset.clips)
        bar = tqdm.tqdm(results, f"reading {dataset.name}", len(dataset.clips), unit="clip", delay=2)
        return {clip.id: result for clip, result in zip(dataset.clips, bar, strict=True)}


def unreadable(dataset: DataSet) -> dict[str, str]:
    """The clips that cannot be decoded.

    Parameters
    ----------
    dataset : DataSet

    Returns
    -------
    reasons : dict of str to str
        Why, by the clip's id; empty where every clip can be decoded.
    """
    return {id: why for id, why in _each(dataset, lambda y, sr: None).items() if why is not None}


def _in_two_folds(clips: Iterable[Clip], key: Callable[[Clip], Hashable | None]) -> Iterator[list[Clip]]:
    """The clips of each key that is found in more than one fold."""
    alike = defaultdict(list)
    for clip in clips:
        if key(clip) is not None:
            alike[key(clip)].append(clip)
    return (same for same in alike.values() if len({clip.fold for clip in same}) > 1)


def _finding(kind: str, clips: Iterable[Clip], message: str) -> Finding:
    clips = tuple(clips)
    folds = sorted({clip.fold for clip in clips}, key=natural)
    return Finding(kind, tuple(clip.id for clip in clips), tuple(folds), message)


def _poor(clips: Iterable[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    """Findings on single clips that can be decoded."""
    for clip in clips:
        sound = sounds[clip.id]
        if _is_silent(sound):
            level = f"peak {sound.peak:.1g}, {max(sound.dbfs, -240):.0f} dBFS"
            rule = f"silent is a peak below {SILENT_PEAK:g} or a mean level below {SILENT_DBFS:g} dBFS"
            yield _finding("silent", [clip], f"{level}; {rule}")
        if sound.seconds < SHORTEST:
            yield _finding("short", [clip], f"{sound.seconds:.3f} s, less than the longest window of {SHORTEST} s")


def _is_silent(sound: _Sound) -> bool:
    return sound.peak < SILENT_PEAK or sound.dbfs < SILENT_DBFS


def _leaks(clips: list[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    """Recordings in two folds."""

    def content(clip: Clip) -> str | None:
        # All silence is alike, and no leak.
        sound = sounds.get(clip.id)
        return None if sound is None or _is_silent(sound) else sound.digest

    for alike in _in_two_folds(clips, content):
        yield _finding("same audio", alike, "the same samples in two folds: a leak")
    for alike in _in_two_folds(clips, lambda clip: clip.group):
        yield _finding("same group", alike, f"group {alike[0].group} is in two folds: a leak")


def _missing_classes(dataset: DataSet) -> Iterator[Finding]:
    there = {(clip.label, clip.fold) for clip in dataset.clips}
    for label in dataset.label_names:
        if folds := tuple(fold for fold in dataset.folds if (label, fold) not in there):
            yield Finding("missing class", (), folds, f"no clip of class {label} in these folds")


def audit(dataset: DataSet) -> Audit:
    """Decode every clip and look for what would spoil an experiment.

    Parameters
    ----------
    dataset : DataSet

    Returns
    -------
    found : Audit
        Clips that cannot be decoded or hold no samples; recordings in two folds, by their samples (as 16-bit
        mono at their own rate) or their group; silent clips, of a peak below 1e-4 or a mean level below
        -80 dBFS; clips shorter than the longest window of the features, 0.1 s; classes missing from a fold.

    Examples
    --------
    >>> from transferlens.data.catalogue import open_dataset
    >>> audit(open_dataset()).findings
    ()
    """
    looks = _each(dataset, _sound)
    sounds = {id: look for id, look in looks.items() if isinstance(look, _Sound)}
    reasons = {id: look for id, look in looks.items() if isinstance(look, str)}
    read = [clip for clip in dataset.clips if clip.id in sounds]
    findings = [_finding("unreadable", [clip], reasons[clip.id]) for clip in dataset.clips if clip.id in reasons]
    findings += _leaks(list(dataset.clips), sounds)
    findings += _missing_classes(dataset)
    findings += _poor(read, sounds)
    return Audit(dataset.name, len(dataset.clips), tuple(findings))
