"""Data sets: clips with labels and folds, from the built-in set, an official folder or a user's own table.

``python -m transferlens.datasets`` lists the data sets known by name, describes one, and with ``--audit``
looks for what would spoil an experiment: clips that cannot be read, and recordings that stand in two folds.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from transferlens import cli, downloads, layouts, synth
from transferlens.audit import Audit, audit, unreadable
from transferlens.errors import DataError, ParameterError, TransferLensError
from transferlens.files import check_writable
from transferlens.layouts import Clip, natural, some
from transferlens.manifest import ManifestRow, manifest

__all__ = [
    "Audit",
    "Clip",
    "DataOptions",
    "DataSet",
    "ManifestRow",
    "audit",
    "load_audio",
    "manifest",
    "open_dataset",
    "unreadable",
]

log = logging.getLogger(__name__)

BUILT_IN = "synth"
USER_WIDTH = 250  # [frames], that of the paper for clips of about five seconds
LOUDEST = 1e6  # beyond it powers leave the range of float32
# TypeError: what soundfile raises for headerless files.
UNREADABLE = (soundfile.SoundFileError, OSError, TypeError)
HINTS = {"jazz.00054": " (known to be damaged in the popular copy of GTZAN)"}


@dataclass(frozen=True)
class DataSet:
    """Clips, and how they are loaded.

    Attributes
    ----------
    name : str
    sr : int > 0 [Hz]
        Rate at which clips are loaded.
    seconds : float > 0 [s]
        Nominal length of a clip, or that of the longest one.
    n_fft : int > 0 [samples] or None
        Length of the Fourier transform; None leaves it to the features.
    width : int > 0 [frames]
        Width of the features.
    clips : tuple of Clip
        Sorted by id.
    skipped : tuple of str
        Ids of clips that were left out because they cannot be read.
    """

    name: str
    sr: int
    seconds: float
    n_fft: int | None
    width: int
    clips: tuple[Clip, ...]
    skipped: tuple[str, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted({clip.label for clip in self.clips}))

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds, numbers in numerical order."""
        return tuple(sorted({clip.fold for clip in self.clips}, key=natural))

    @property
    def held_out_folds(self) -> tuple[str, ...]:
        """The folds that are held out by default: each in turn, or "test" alone where one is named "train"."""
        if "train" not in self.folds:
            return self.folds
        return ("test",) if "test" in self.folds else tuple(fold for fold in self.folds if fold != "train")

    def split(self, fold: str, inner_fold: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Places among the clips of those trained on and of those held out: two ndarrays of int.

        All other folds but `inner_fold` are trained on, or only the one named "train" where there is one.

        Raises
        ------
        DataError
            Where the other folds leave nothing to learn from.
        """
        folds = np.array([clip.fold for clip in self.clips], dtype=object)
        other = folds == "train" if "train" in self.folds and fold != "train" else folds != fold
        training = np.flatnonzero(other & (folds != inner_fold))
        if (classes := len({self.clips[i].label for i in training})) < 2:
            raise DataError(
                f"fold {fold!r} of {self.name} held out leaves {len(training)} clips of {classes} classes to train on: "
                "at least 2 classes are needed in the other folds"
            )
        return training, np.flatnonzero(folds == fold)

    def decode(self, clip: Clip) -> tuple[np.ndarray, int]:
        """One clip as it is stored: mono samples [shape=(n,), float32] and their rate [Hz].

        Raises
        ------
        DataError
            Where the file is missing, unreadable, empty, or holds NaN or infinite samples.
        """
        if clip.path is None:
            return synth.render(clip.id).y, manifest()[BUILT_IN].sr
        return _decode(clip.path)

    def load(self, clip: Clip) -> np.ndarray:
        """One clip at the rate `sr`; threads may call it side by side.

        Returns
        -------
        y : ndarray [shape=(n,), float32]
            Mono waveform, as long as the clip is.

        Raises
        ------
        DataError
            Where the file is missing, unreadable, empty, or holds NaN or infinite samples.
        """
        return _resample(*self.decode(clip), self.sr)

    def digest(self, clip: Clip) -> str:
        """Sha256 in hexadecimal of the clip's content, which need not be decoded for it.

        Raises
        ------
        DataError
            Where the file cannot be read.
        """
        if clip.path is None:
            return synth.digest(clip.id)
        try:
            return hashlib.sha256(clip.path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{clip.path} cannot be read: {error.strerror}") from error

    def without(self, ids: Collection[str]) -> DataSet:
        """The same data set without some clips.

        Raises
        ------
        ParameterError
            Where an id is of no clip.
        DataError
            Where no clip is left.
        """
        if unknown := sorted(set(ids) - {clip.id for clip in self.clips}):
            raise ParameterError(f"ids={some(unknown)!r} are no clips of {self.name}")
        clips = tuple(clip for clip in self.clips if clip.id not in set(ids))
        if not clips:
            raise DataError(f"no clip of {self.name} is left: all {len(self.clips)} were left out")
        return replace(self, clips=clips)


def _decode(path: Path) -> tuple[np.ndarray, int]:
    hint = HINTS.get(path.stem, "")
    if not path.is_file():
        raise DataError(f"{path} is missing{hint}")
    try:
        y, sr = soundfile.read(path, dtype="float32", always_2d=True)
    except UNREADABLE as error:
        reason = str(getattr(error, "error_string", None) or error).rstrip(".")
        raise DataError(f"{path} cannot be decoded{hint}: {reason}") from error
    if not y.size:
        raise DataError(f"{path} is empty: it has no samples{hint}")
    if not np.isfinite(y).all():
        raise DataError(f"{path} holds NaN or infinite samples{hint}")
    if np.abs(y).max() > LOUDEST:
        raise DataError(f"{path} holds samples beyond {LOUDEST:g}: full scale is 1{hint}")
    return y.mean(axis=1, dtype=np.float32), sr


def _resample(y: np.ndarray, native: int, sr: int) -> np.ndarray:
    """As librosa.resample with res_type="soxr_hq", without its import, which threads may not share."""
    if native == sr:
        return y
    n = -(-len(y) * sr // native)
    resampled = soxr.resample(y, native, sr, quality="HQ")[:n]
    return np.pad(resampled, (0, n - len(resampled)))


def load_audio(path: Path, *, sr: int) -> np.ndarray:
    """Decode an audio file, mix it to mono and resample it.

    Parameters
    ----------
    path : Path
        A file that libsndfile reads: wav, flac, ogg, mp3, au and more.
    sr : int > 0 [Hz]
        Rate to load at.

    Returns
    -------
    y : ndarray [shape=(n,), float32]

    Raises
    ------
    DataError
        Where the file is missing, unreadable, empty, or holds NaN or infinite samples.
    ParameterError
        Where `sr` is not positive.
    """
    return _resample(*_decode(Path(path)), _positive("sr", sr))


def _positive(name: str, value: int) -> int:
    if value <= 0:
        raise ParameterError(f"{name}={value!r} must be greater than 0")
    return value


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
        _positive(key, 1 if value is None else value)
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
        clips = tuple(Clip(s.id, s.label, s.fold, None, s.group) for s in synth.specs())
    else:
        clips = layouts.read_official(row.layout, root, splits=splits, folds=row.folds, homepage=row.homepage)
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
    clips = layouts.read_user_table(path)
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
class DataOptions:
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


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """List the data sets known by name; or describe one; or audit it for what would spoil an experiment; or get one."""

    download: str | None = None
    """Data set known by name to download and unpack: esc50, esc10, urbansound8k or gtzan."""
    to: Path = Path("data")
    """Folder that it goes to."""
    audit: bool = False
    """Decode every clip; exit code 1 where one cannot be read or a recording is in two folds."""


def _known() -> str:
    names = ["name", "title", "classes", "folds", "sr", "seconds", "licence", "homepage"]
    rows = [[getattr(row, name) for name in names] for row in manifest().values()]
    return cli.table([["dataset", *names[1:4], "Hz", "s", *names[6:]], *rows])


def _summary(dataset: DataSet) -> str:
    """Size of a data set, and a table of the clips of each class in each fold."""
    counts = Counter((clip.label, clip.fold) for clip in dataset.clips)
    head = (
        f"{dataset.name}: {len(dataset.clips)} clips, {len(dataset.label_names)} classes, "
        f"{len(dataset.folds)} folds; {dataset.sr} Hz, {dataset.seconds:.3g} s, {dataset.width} frames"
    )
    rows: list[list[object]] = [["class", *(f"fold {fold}" for fold in dataset.folds), "clips"]]
    for label in dataset.label_names:
        row = [counts[label, fold] for fold in dataset.folds]
        rows.append([label, *row, sum(row)])
    return f"{head}\n\n{cli.table(rows)}"


def _report(found: Audit) -> str:
    """What an audit found, a line a finding."""
    if not found.findings:
        return f"{found.dataset}: {found.n_clips} clips, nothing found"
    rows = [
        [
            f"{'! ' * finding.serious}{finding.kind}",
            ", ".join(finding.folds),
            some(finding.clips),
            finding.message,
        ]
        for finding in found.findings
    ]
    return f"{found.dataset}: {found.n_clips} clips\n\n{cli.table([['finding', 'folds', 'clips', 'why'], *rows])}"


def _download(name: str, folder: Path) -> str:
    """Get a data set; say how it is used."""
    known = {name: row for name, row in manifest().items() if row.archive}
    if name not in known:
        raise ParameterError(f"download={name!r} must be one of {', '.join(known)}")
    check_writable("to", folder)
    target = downloads.fetch(known[name], folder)
    # Archives hold the data set's folder, or what is in it.
    roots = [target, *sorted(path for path in target.iterdir() if path.is_dir())]
    problems = []
    for root in roots:
        try:
            dataset = open_dataset(name, root=root)
        except TransferLensError as error:
            problems.append(str(error))
        else:
            return f"{len(dataset.clips)} clips: use them with --dataset {name} --root {root}"
    raise DataError(f"{target} is no complete {name}, delete it and try again: {problems[0]}")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """List the known data sets, describe one, audit it, or get it."""
    options = cli.parse(Options, argv, prog="datasets")
    if options.download is not None:
        print(_download(options.download, options.to))
        return cli.DONE
    if options.audit:
        found = audit(options.open())
        print(_report(found))
        return cli.FOUND if found.serious else cli.DONE
    print(_known() if options == Options() else _summary(options.open()))
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
