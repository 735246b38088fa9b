"""Check a data set for faults that make results invalid: unusable clips, and recordings that are in several folds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from transferlens.data import decoding
from transferlens.data.attempts import attempt_each
from transferlens.data.clips import Clip, DataSet
from transferlens.util.errors import DataError
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm
from transferlens.util.text import natural

SILENT_PEAK = 1e-4  # full scale is 1
SILENT_DBFS = -80.0
SHORTEST = 0.1  # [s], the longest window of the features
SERIOUS = ("unreadable", "same audio", "same group", "one fold")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Attributes
    ----------
    kind : str
        "unreadable", "cut short", "silent", "short", "missing class", "same audio", "same group" or "one fold".
    clips, folds : tuple of str
        Ids of the clips and names of the folds that the finding is about.
    message : str
        The finding in words.
    """

    kind: str
    clips: tuple[str, ...]
    folds: tuple[str, ...]
    message: str

    @property
    def serious(self) -> bool:
        """Whether the clip cannot be used, folds share a recording, or there is only one fold."""
        return self.kind in SERIOUS


@dataclass(frozen=True)
class Audit:
    """All faults that were found in a data set.

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
        """The findings that make results invalid: unreadable clips, leaks between folds, a single fold."""
        return tuple(finding for finding in self.findings if finding.serious)


class _Sound:
    """The properties of a decoded clip that the audit compares."""

    def __init__(self, y: np.ndarray, sr: int) -> None:
        self.seconds = len(y) / sr
        self.peak = float(np.abs(y).max())
        self.dbfs = float(20 * np.log10(max(np.sqrt(np.mean(np.square(y, dtype=np.float64))), 1e-12)))
        self.is_silent = self.peak < SILENT_PEAK or self.dbfs < SILENT_DBFS
        # To 16 bits, so that a wav and its copy in flac or in floats are the same audio.
        samples = np.clip(np.rint(y * 32768.0), -32768, 32767).astype("<i2")
        self.digest = hashlib.sha256(samples.tobytes()).hexdigest()


def _decode_each(dataset: DataSet, measure: Callable[[np.ndarray, int], Result]) -> dict[str, Result | Exception]:
    """Decode every clip; return by id the result of `measure`, or the error if the clip cannot be decoded."""

    def attempt(clip: Clip) -> Result:
        with decoding.naming_memory(clip.path or clip.id):
            return measure(*dataset.decode(clip))

    with tqdm.tqdm(total=len(dataset.clips), desc=f"reading {dataset.name}", unit="clip", delay=2) as bar:
        results = attempt_each(attempt, dataset.clips, bar=bar)
    return {clip.id: result for clip, result in zip(dataset.clips, results, strict=True)}


def decoded_lengths(dataset: DataSet) -> dict[str, tuple[int, int] | Exception]:
    """Decode every clip; return by id its number of frames and the rate of its file [Hz], or the error."""
    return _decode_each(dataset, lambda y, sr: (len(y), sr))


def unreadable(dataset: DataSet) -> dict[str, str]:
    """Decode every clip, and return the error messages of those that cannot be decoded, by id."""
    return {id: str(result) for id, result in decoded_lengths(dataset).items() if isinstance(result, DataError)}


def _in_two_folds(clips: Iterable[Clip], key: Callable[[Clip], Hashable | None]) -> Iterator[list[Clip]]:
    """Yield the clips of each key that is in more than one fold; clips whose key is None are left out."""
    by_key = group_by((clip for clip in clips if key(clip) is not None), key)
    return (same for same in by_key.values() if len({clip.fold for clip in same}) > 1)


def _finding(kind: str, clips: Iterable[Clip], message: str) -> Finding:
    clips = tuple(clips)
    folds = sorted({clip.fold for clip in clips}, key=natural)
    return Finding(kind, tuple(clip.id for clip in clips), tuple(folds), message)


def _silent_or_short(clips: Iterable[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    for clip in clips:
        sound = sounds[clip.id]
        if sound.is_silent:
            level = f"peak {sound.peak:.1g}, {max(sound.dbfs, -240):.0f} dBFS"
            rule = f"silent is a peak below {SILENT_PEAK:g} or a mean level below {SILENT_DBFS:g} dBFS"
            yield _finding("silent", [clip], f"{level}; {rule}")
        if sound.seconds < SHORTEST:
            yield _finding("short", [clip], f"{sound.seconds:.3f} s, less than the longest window of {SHORTEST} s")


def _cut_short(clips: Iterable[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    """Find files that decode to less than their header states."""
    for clip in clips:
        if clip.path is not None and (why := decoding.shortened(clip.path, sounds[clip.id].seconds)):
            yield _finding("cut short", [clip], why)


def _leaks(clips: Iterable[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    """Find recordings that are in more than one fold."""

    def content(clip: Clip) -> str | None:
        # Silent clips are all equal, which is not a leak.
        sound = sounds.get(clip.id)
        return None if sound is None or sound.is_silent else sound.digest

    for same in _in_two_folds(clips, content):
        yield _finding("same audio", same, "the same samples in two folds: a leak")
    for same in _in_two_folds(clips, lambda clip: clip.group):
        yield _finding("same group", same, f"group {same[0].group} is in two folds: a leak")


def _missing_classes(dataset: DataSet) -> Iterator[Finding]:
    present = {(clip.label, clip.fold) for clip in dataset.clips}
    for label in dataset.label_names:
        if folds := tuple(fold for fold in dataset.folds if (label, fold) not in present):
            yield Finding("missing class", (), folds, f"no clip of class {label} in these folds")


def audit(dataset: DataSet) -> Audit:
    """Decode every clip, and check the data set for faults that make results invalid or unreliable.

    These are: clips that cannot be decoded or have no samples; recordings in two folds, recognised by equal samples
    (16-bit mono at their own rate) or an equal group; files that decode to less than their header states, by more than
    0.1 s, or whose end is missing; silent clips, with a peak below 1e-4 or a mean level below -80 dBFS; clips shorter
    than 0.1 s, the longest window of the features; classes that are missing from a fold; a single fold.

    Examples
    --------
    >>> from transferlens.data.catalogue import open_dataset
    >>> audit(open_dataset()).findings
    ()
    """
    results = _decode_each(dataset, _Sound)
    sounds = {id: result for id, result in results.items() if isinstance(result, _Sound)}
    readable = [clip for clip in dataset.clips if clip.id in sounds]
    unread = [clip for clip in dataset.clips if clip.id not in sounds]
    findings = [_finding("unreadable", [clip], str(results[clip.id])) for clip in unread]
    findings += _leaks(dataset.clips, sounds)
    findings += _missing_classes(dataset)
    if len(dataset.folds) == 1:
        why = "one fold alone cannot be held out and trained on: put the clips in two folds or more"
        findings.append(Finding("one fold", (), dataset.folds, why))
    findings += _cut_short(readable, sounds)
    findings += _silent_or_short(readable, sounds)
    return Audit(dataset.name, len(dataset.clips), tuple(findings))
