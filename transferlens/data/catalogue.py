"""Open a data set: a known one, a user's table, or the built-in one."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

from transferlens.data import readers, synthetic
from transferlens.data.audit import unreadable
from transferlens.data.clips import BUILT_IN, UNREADABLE, Clip, DataSet, positive
from transferlens.data.manifest import ManifestRow, manifest
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.fields import Fields
from transferlens.util.text import some

__all__ = ["DataOptions", "USER_WIDTH", "open_dataset"]

log = logging.getLogger(__name__)

USER_WIDTH = 250  # [frames], that of the paper for clips of about five seconds


def open_dataset(
    name: str | None = None,
    *,
    root: Path | str | None = None,
    clips: Path | str | None = None,
    sr: int | None = None,
    width: int | None = None,
    splits: Path | str | Sequence[Path | str] | None = None,
) -> DataSet:
    """Open a data set; no audio is decoded.

    Parameters
    ----------
    name : str, optional
        A data set of `manifest`; without it and without `clips`, the built-in ``synth``.
    root : path, optional
        Folder of the unpacked archive of `name`.
    clips : path, optional
        Instead of `name`: a table with the columns ``path`` (relative to the table), ``label`` and ``fold``.
        ``group`` is optional, further columns are kept in `Clip.extra`.
    sr : int > 0 [Hz], optional
        Rate at which clips are loaded; by default that of the manifest, or the commonest of the files.
    width : int > 0 [frames], optional
        Width of the features; by default that of the manifest, or 250.
    splits : path or three paths, optional
        For GTZAN: lists of the training, validation and test files, or the folder they lie in. Its folds are
        then "train", "validation" and "test".

    Returns
    -------
    dataset : DataSet

    Raises
    ------
    ParameterError
        Where the arguments do not go together.
    DataError
        Where tables or audio files are missing or cannot be used as they are.

    Notes
    -----
    GTZAN has no official folds. Without `splits` the sorted files of each genre are cut into five blocks,
    so that neighbouring files, often of one album, are in one fold.

    Examples
    --------
    >>> dataset = open_dataset()
    >>> dataset.name, len(dataset.clips), dataset.folds
    ('synth', 400, ('1', '2', '3', '4', '5'))
    """
    lists = (splits,) if isinstance(splits, (str, Path)) else tuple(splits or ())
    _check_choice(name, root, clips, lists)
    for key, value in (("sr", sr), ("width", width)):
        positive(key, 1 if value is None else value)
    if clips is not None:
        dataset = _from_table(Path(clips))
    else:
        row = manifest()[name or BUILT_IN]
        dataset = _from_manifest(row, None if root is None else Path(root), [Path(each) for each in lists])
    if sr is not None and sr != dataset.sr:
        dataset = replace(dataset, sr=sr, n_fft=None)
    return dataset if width is None else replace(dataset, width=width)


def _check_choice(name: str | None, root: object, clips: object, splits: Sequence[object]) -> None:
    if clips is not None and (name is not None or root is not None or splits):
        raise ParameterError(
            f"clips={str(clips)!r} is a data set of its own: leave out dataset={name!r}, root and splits"
        )
    if clips is not None:
        return
    known = manifest()
    if name is None and (root is not None or splits):
        raise ParameterError(f"root and splits need the data set's name: dataset is one of {', '.join(known)}")
    if name is not None and name not in known:
        raise ParameterError(f"dataset={name!r} must be one of {', '.join(known)}, or give clips=CSV")
    if name in (None, BUILT_IN) and (root is not None or splits):
        raise ParameterError(f"dataset={BUILT_IN!r} is made by code: leave out root and splits")
    if name not in (None, BUILT_IN) and root is None:
        raise ParameterError(
            f"dataset={name!r} needs root, the folder it was unpacked to; get it from {known[name].homepage}"
        )


def _sorted(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    if twice := [id for id, n in Counter(clip.id for clip in clips).items() if n > 1]:
        raise DataError(f"clips are listed more than once: {some(twice)}")
    return tuple(sorted(clips, key=lambda clip: clip.id))


def _from_manifest(row: ManifestRow, root: Path | None, splits: Sequence[Path]) -> DataSet:
    if root is None:
        clips = tuple(Clip(s.id, s.label, s.fold, None, s.group) for s in synthetic.specs())
    else:
        clips = readers.read_official(row.layout, root, splits=splits, folds=row.folds, homepage=row.homepage)
    dataset = DataSet(row.name, row.sr, row.seconds, row.n_fft, row.width, _sorted(clips))
    for what, found, full in (
        ("classes", len(dataset.label_names), row.classes),
        ("folds", len(dataset.folds), 3 if splits else row.folds),
    ):
        if found != full:
            log.warning("%s has %d %s here, and %d where it is complete", row.name, found, what, full)
    return dataset


def _header(clip: Clip) -> tuple[int, float] | None:
    """Rate [Hz] and length [s] that a file's header gives, None where it cannot be read."""
    try:
        info = soundfile.info(str(clip.path))
    except UNREADABLE:
        return None
    return info.samplerate, info.duration


def _from_table(path: Path) -> DataSet:
    clips = readers.read_user_table(path)
    with ThreadPoolExecutor() as pool:
        headers = [header for header in pool.map(_header, clips) if header]
    if not headers:
        raise DataError(f"no audio file of {path} can be read: {some(clip.id for clip in clips)}")
    votes = Counter(rate for rate, _ in headers)
    # The higher rate of two equally common ones loses nothing.
    commonest = max(votes, key=lambda rate: (votes[rate], rate))
    stem = path.resolve().parent.name if path.name == "clips.csv" else path.stem
    name = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-") or "clips"
    seconds = max(length for _, length in headers)
    return DataSet(name, commonest, seconds, None, USER_WIDTH, _sorted(clips))


@dataclass(frozen=True, kw_only=True)
class DataOptions(Fields):
    """Which clips to use: those of a data set known by name, of your own table, or else the built-in ones."""

    dataset: str | None = None
    """Data set known by name: esc50, esc10, urbansound8k, gtzan or synth. Default: synth, made by code."""
    root: Path | None = None
    """Folder that the data set was unpacked to; needed with --dataset, except for synth."""
    clips: Path | None = None
    """Instead of --dataset: a csv table with the columns path (relative to the table), label and fold."""
    splits: tuple[Path, ...] = ()
    """For gtzan: the folder that holds train*.txt, valid*.txt and test*.txt, or three such files, in order.
    Default: five folds, blocks of neighbouring files of each genre."""
    sr: int | None = None
    """Sample rate to load at [Hz]. Default: that of the data set, or the commonest of your files."""
    width: int | None = None
    """Width of the features [frames]. Default: that of the data set, or 250."""
    skip_unreadable: bool = False
    """Leave out the clips that cannot be read, and record which, instead of stopping at them."""

    def open(self) -> DataSet:
        """Open the data set that the options name.

        Raises
        ------
        ParameterError
            Where the options do not go together.
        DataError
            Where tables or audio files are missing or cannot be used as they are.
        """
        dataset = open_dataset(
            self.dataset, root=self.root, clips=self.clips, sr=self.sr, width=self.width, splits=self.splits
        )
        return _readable(dataset) if self.skip_unreadable else dataset


def _readable(dataset: DataSet) -> DataSet:
    """The data set without the clips that cannot be read."""
    reasons = unreadable(dataset)
    for reason in reasons.values():
        log.warning("left out: %s", reason)
    return replace(dataset.without(reasons), skipped=tuple(reasons))
