"""Check a data set for faults that make results invalid: unusable clips, recordings in several folds, and confounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from transferlens.data import decoding
from transferlens.data.attempts import read_each
from transferlens.data.clips import Clip, DataSet
from transferlens.data.cues import Property, cues
from transferlens.util.errors import DataError
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, natural

SILENT_PEAK = 1e-4  # full scale is 1
SILENT_DBFS = -80.0
SHORTEST = 0.1  # [s], the longest window of the features
OVERSHOOT = 2.0  # peak to which decoders of lossy formats may exceed full scale
CANCELLED_DB = 20.0
# Accuracies from which on a property that tells a class is reported: of files, which should be alike in all classes,
# and of sounds, whose duration and level may well be typical of a class.
TOLD_BY_FILE, TOLD_BY_SOUND = 0.6, 0.8
CONFOUNDED = 0.8  # from which on a property of the files makes results invalid
SERIOUS = ("unreadable", "same audio", "same group", "one fold", "one class", "confound")


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Attributes
    ----------
    kind : str
        "unreadable", "same audio", "same group", "one fold", "one class", "confound", "cue", "missing class",
        "cut short", "beyond full scale", "channels cancel", "silent" or "short".
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
        """Whether a clip cannot be used, folds share a recording, a fold or class is alone, or files tell a class."""
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
        """The findings that make results invalid: unreadable clips, leaks, a single fold or class, confounds."""
        return tuple(finding for finding in self.findings if finding.serious)


def _peak(y: np.ndarray) -> float:
    return float(max(y.max(), -y.min()))


def _digest(y: np.ndarray) -> str:
    """Return the sha256 of 16-bit samples, so that a wav and its copy in flac or in floats are the same audio."""
    digest = hashlib.sha256()
    for start in range(0, len(y), decoding.BLOCK):
        samples = np.rint(y[start : start + decoding.BLOCK] * 32768.0)
        digest.update(np.clip(samples, -32768, 32767).astype("<i2").tobytes())
    return digest.hexdigest()


class _Sound:
    """The properties of a decoded clip that the audit compares."""

    def __init__(self, y: np.ndarray, sr: int, file: decoding.Properties) -> None:
        self.sr, self.seconds, self.file = sr, len(y) / sr, file
        self.peak = _peak(y)
        centred = y - np.float32(y.mean(dtype=np.float64))  # a constant is not heard
        is_faint = _peak(centred) < SILENT_PEAK
        self.dbfs = float(10 * np.log10(max(np.square(centred, out=centred).mean(dtype=np.float64), 1e-24)))
        self.is_silent = is_faint or self.dbfs < SILENT_DBFS
        self.digest = _digest(y)

    @property
    def is_beyond(self) -> bool:
        return self.peak > (1 if self.file.is_float else OVERSHOOT)

    @property
    def cancels(self) -> bool:
        return self.file.cancelled_db > CANCELLED_DB

    @property
    def shortened(self) -> str:
        """In words how the file decodes to less than its header states; empty if it does not."""
        if self.file.stated > self.seconds + decoding.SLACK:
            return f"decodes to {self.seconds:.1f} s, its header says {self.file.stated:.1f} s"
        return f"decodes to {self.seconds:.1f} s, and its end is missing" if self.file.lacks_end else ""


def _measured(dataset: DataSet, clip: Clip) -> _Sound:
    with decoding.naming_memory(clip.path or clip.id):
        if clip.path is None:
            return _Sound(*dataset.decode(clip), decoding.Properties())
        return _Sound(*decoding.examine(clip.path, longest=dataset.longest))


def unreadable(dataset: DataSet) -> dict[str, str]:
    """Decode every clip, and return the error messages of those that cannot be decoded, by id."""
    lengths = read_each(partial(dataset.length, whole=True), dataset)
    return {id: str(length) for id, length in lengths.items() if isinstance(length, DataError)}


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
        if sound.is_silent and not sound.cancels:
            level = f"peak {sound.peak:.1g}, {max(sound.dbfs, -240):.0f} dBFS without its mean"
            rule = f"silent is a peak below {SILENT_PEAK:g} or a mean level below {SILENT_DBFS:g} dBFS"
            yield _finding("silent", [clip], f"{level}; {rule}")
        if sound.seconds < SHORTEST:
            yield _finding("short", [clip], f"{sound.seconds:.3f} s, less than the longest window of {SHORTEST} s")


def _cut_short(clips: Iterable[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    """Find files that decode to less than their header states."""
    for clip in clips:
        if why := sounds[clip.id].shortened:
            yield _finding("cut short", [clip], why)


def _bad_levels(clips: Sequence[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    if beyond := [clip for clip in clips if sounds[clip.id].is_beyond]:
        peak = max(sounds[clip.id].peak for clip in beyond)
        yield _finding("beyond full scale", beyond, f"peaks up to {peak:.4g}: scale the samples to -1 to 1")
    if cancelled := [clip for clip in clips if sounds[clip.id].cancels]:
        why = f"their mean, which is used, is more than {CANCELLED_DB:g} dB quieter than they are: keep one of them"
        yield _finding("channels cancel", cancelled, why)


def _told_classes(dataset: DataSet, clips: Sequence[Clip], sounds: dict[str, _Sound]) -> Iterator[Finding]:
    """Find classes that properties of the files or of the sounds tell; of several labels, each from all others."""
    measured = [sounds[clip.id] for clip in clips]
    of_files = {
        "sample rate": [f"{sound.sr} Hz" for sound in measured],
        "encoding": [sound.file.encoding for sound in measured],
        "number of channels": [counted(sound.file.channels, "channel") for sound in measured],
    }
    properties = [Property(name, "", np.array(values), TOLD_BY_FILE) for name, values in of_files.items()]
    # Rounded to what can be heard.
    properties.append(Property("duration", " s", np.array([round(s.seconds, 2) for s in measured]), TOLD_BY_SOUND))
    properties.append(Property("level", " dBFS", np.array([round(s.dbfs, 1) for s in measured]), TOLD_BY_SOUND))
    folds, several = [clip.fold for clip in clips], dataset.labels_per_clip == "several"
    for of in dataset.label_names if several else ("",):
        labels = [of if of in dataset.labels_of(clip) else "" for clip in clips] if of else [c.label for c in clips]
        for cue, accuracy, message in cues(
            properties, labels, folds, of=of, tests=len(dataset.label_names) if of else 1
        ):
            is_confound = cue.name in of_files and accuracy >= CONFOUNDED
            yield Finding("confound" if is_confound else "cue", (), (), message)


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
    present = {(label, clip.fold) for clip in dataset.clips for label in dataset.labels_of(clip)}
    for label in dataset.label_names:
        if folds := tuple(fold for fold in dataset.folds if (label, fold) not in present):
            yield Finding("missing class", (), folds, f"no clip of class {label} in these folds")


def audit(dataset: DataSet) -> Audit:
    """Decode every clip, and check the data set for faults that make results invalid or unreliable.

    These are: clips that cannot be decoded or have no samples; recordings in two folds, recognised by equal samples
    (16-bit mono at their own rate) or an equal group; a single fold or class; classes that are told by a property of
    their files (sample rate, encoding, number of channels; from 60 % accuracy on) or sounds (duration, level; from 80 %
    on), as `transferlens.data.cues` explains; classes that are missing from a fold; files that decode to less than
    their header states, by more than 0.1 s, or whose end is missing; samples beyond full scale; channels whose mean is
    more than 20 dB quieter than they are; silent clips, which without their mean have a peak below 1e-4 or a level
    below -80 dBFS; clips shorter than 0.1 s, the longest window of the features.

    Examples
    --------
    >>> from transferlens.data.catalogue import open_dataset
    >>> audit(open_dataset()).findings
    ()
    """
    results = read_each(partial(_measured, dataset), dataset)
    sounds = {id: result for id, result in results.items() if isinstance(result, _Sound)}
    readable = [clip for clip in dataset.clips if clip.id in sounds]
    unread = [clip for clip in dataset.clips if clip.id not in sounds]
    findings = [_finding("unreadable", [clip], str(results[clip.id])) for clip in unread]
    findings += _leaks(dataset.clips, sounds)
    if len(dataset.folds) == 1:
        why = "one fold alone cannot be held out and trained on: put the clips in two folds or more"
        findings.append(Finding("one fold", (), dataset.folds, why))
    if len(dataset.label_names) == 1:
        why = f"all clips are of class {dataset.label_names[0]}: two classes or more are needed"
        findings.append(Finding("one class", (), dataset.folds, why))
    findings += _told_classes(dataset, readable, sounds)
    findings += _missing_classes(dataset)
    findings += _cut_short(readable, sounds)
    findings += _bad_levels(readable, sounds)
    findings += _silent_or_short(readable, sounds)
    findings.sort(key=lambda finding: not finding.serious)
    return Audit(dataset.name, len(dataset.clips), tuple(findings))
