"""Open a data set: one that is known by name, a user's own table, or the built-in one."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from transferlens.data import decoding, folds, known_answers, official, readers
from transferlens.data.attempts import read_each
from transferlens.data.clips import BETWEEN, BUILT_IN, Clip, DataSet
from transferlens.data.manifest import ManifestRow, manifest
from transferlens.util.errors import DataError, ParameterError, warn_once
from transferlens.util.fields import Fields, above, at_least, between, build, checked
from transferlens.util.files import file_name
from transferlens.util.once import once
from transferlens.util.text import CONTROL, counted, printable, some

LONGEST_NAME = 150  # of a data set [bytes]: hashes, endings and the names of temporary files follow it
USER_WIDTH = 250  # [frames], that of the paper for clips of about five seconds
# Number of frames and rate [Hz] of each clip's file, or its error, by id.
Lengths = Mapping[str, tuple[int, int] | DataError]


@checked
def open_dataset(
    name: Path | str | None = None,
    *,
    root: Path | str | None = None,
    clips: Path | str | None = None,
    sr: int | None = None,
    width: int | None = None,
    splits: Sequence[Path | str] | Path | str | None = None,
    longest: float = decoding.LONGEST,
    n_folds_made: int | None = None,
    group_by: str | None = None,
    labels_per_clip: str = "auto",
) -> DataSet:
    """Open a data set; no audio is decoded, except the end of each file of a table, to know its length.

    Parameters
    ----------
    name : str or path, optional
        A data set of `manifest`, or a table as for `clips`. If neither is given: the built-in ``synth``.
    root : path, optional
        Folder of the unpacked archive of `name`.
    clips : path, optional
        Instead of `name`: a table with the columns ``path`` (relative to the table), ``label`` and ``fold``, or a
        folder with one folder per class. ``group`` is optional, other columns are kept in `Clip.extra`. A fold named
        "train" or "training", in any case, alone is trained on.
    sr : int > 0 [Hz], optional
        Rate at which clips are loaded; by default that of the manifest, or the most common one of the files.
    width : int > 0 [frames], optional
        Width of the features; by default that of the manifest, or 250.
    splits : path or three paths, optional
        For GTZAN: lists of the training, validation and test files, or the folder that they are in. The folds are then
        named "train", "validation" and "test".
    longest : float > 0 [s], optional
        Longest clip that is decoded; a longer file is an error when it is loaded.
    n_folds_made : int >= 2, optional
        Number of folds that are made for a table without the column ``fold``, or a folder; by default 5.
    group_by : str, optional
        Regular expression that finds the name of the recording in the path of a clip.
    labels_per_clip : {"auto", "one", "several"}
        Whether the label of a clip is one, or several with ``;`` between; "auto": several if any of them has a ``;``.

    Returns
    -------
    dataset : DataSet

    Raises
    ------
    ParameterError
        If the arguments contradict each other.
    DataError
        If tables or audio files are missing or cannot be used as they are.

    Notes
    -----
    GTZAN has no official folds. Without `splits` the sorted files of each genre are cut into five blocks, so that
    neighbouring files, often of one album, are in one fold.

    Examples
    --------
    >>> dataset = open_dataset()
    >>> dataset.name, len(dataset.clips), dataset.folds
    ('synth', 400, ('1', '2', '3', '4', '5'))
    """
    if clips is None and name is not None and Path(name).suffix.lower() == ".csv":
        name, clips = None, name
    choice = {"dataset": name, "root": root, "clips": clips, "splits": splits}
    values = {"sr": sr, "width": width, "longest": longest, "n_folds_made": n_folds_made, "group_by": group_by}
    values |= {"labels_per_clip": labels_per_clip}
    return build(DataOptions, choice | values).open(argument="name")


def _check_choice(options: DataOptions, argument: str) -> None:
    """Raise if options contradict each other; `argument` is what the name of the data set is given as."""
    name, has_folder = options.dataset, options.root is not None or options.splits
    for made in ("n_folds_made", "group_by"):
        if options.clips is None and getattr(options, made) is not None:
            raise ParameterError(f"{made} goes with clips, a table or a folder: other data sets have folds")
    if options.clips is None and (labels := options.labels_per_clip) != "auto":
        raise ParameterError(f"labels_per_clip={labels!r} goes with clips, a table or a folder: leave it out")
    known = manifest()
    if options.clips is not None:
        if name is not None or has_folder:
            raise ParameterError(
                f"clips={str(options.clips)!r} names a whole data set: leave out {argument}={name!r}, root and splits"
            )
        close = difflib.get_close_matches(str(options.clips).lower(), known, n=1)
        if close and not options.clips.exists():
            raise ParameterError(f"clips={str(options.clips)!r} does not exist: did you mean {argument}={close[0]!r}?")
        return
    if name is None and has_folder:
        raise ParameterError(f"root and splits need the name of a data set: give {argument}, one of {', '.join(known)}")
    if name is not None and name not in known:
        raise ParameterError(f"{argument}={name!r} must be one of {', '.join(known)}, or give clips=CSV")
    is_generated = name is not None and known_answers.is_generated(name)
    if is_generated and has_folder:
        raise ParameterError(f"{argument}={name!r} is generated by code: leave out root and splits")
    if name is not None and not is_generated and options.root is None:
        row = known[name]
        how = f"by `transferlens datasets --download {name}`" if row.archive else f"from {row.homepage}"
        raise ParameterError(f"{argument}={name!r} needs root, the folder it was unpacked to: download it {how}")


def _sorted(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    names = {clip.id: (clip.id, clip.label, clip.fold, clip.group or "") for clip in clips}
    if odd := [printable(id) for id, words in names.items() if any(map(CONTROL.search, words))]:
        raise DataError(
            f"the path, label, fold or group of {some(odd)} has control characters, such as line ends, or is not "
            "UTF-8: correct it in the table, or rename the file"
        )
    if twice := [id for id, n in Counter(clip.id for clip in clips).items() if n > 1]:
        raise DataError(f"clips are listed more than once: {some(twice)}")
    return tuple(sorted(clips, key=lambda clip: clip.id))


def _from_manifest(row: ManifestRow, root: Path | None, splits: Sequence[Path]) -> DataSet:
    if root is None:
        clips = tuple(Clip(spec.id, spec.label, spec.fold, None, spec.group) for spec in known_answers.specs(row.name))
    else:
        clips = official.read_official(row, root, splits)
    dataset = DataSet(row.name, row.sr, row.seconds, row.n_fft, row.width, _sorted(clips))
    if row.layout in official.SEVERAL_LABELS:
        dataset = _with_labels(dataset, "several")
    for what, number, complete in (
        ("class", len(dataset.label_names), row.classes),
        ("fold", len(dataset.folds), 3 if splits else row.folds),
    ):
        if number != complete:
            warn_once(f"{row.name} has {counted(number, what)} here; a complete copy has {complete}")
    return dataset


def _from_table(path: Path) -> DataSet:
    """Return the data set of a table; its rate and length are not known yet."""
    is_folder = path.is_dir()
    stem = path.resolve().name if is_folder else path.resolve().parent.name if path.name == "clips.csv" else path.stem
    name = file_name(re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-") or "clips", most=LONGEST_NAME)
    clips = readers.read_folder(path) if is_folder else readers.read_user_table(path)
    return DataSet(name, 0, 0, None, USER_WIDTH, _sorted(clips))


def _with_labels(dataset: DataSet, choice: str) -> DataSet:
    """Return a data set whose clips have one label each or, sorted, several: by default if any has several."""
    several = choice == "several" or choice == "auto" and any(BETWEEN in clip.label for clip in dataset.clips)
    if not several:
        return dataset
    labels = {clip.id: [label.strip() for label in clip.label.split(BETWEEN)] for clip in dataset.clips}
    remedy = f"correct the table or, if {BETWEEN!r} belongs to the name of a class, give labels_per_clip='one'"
    for what, is_wrong in (("an empty label", lambda own: not all(own)), ("the same label twice", _has_twice)):
        if wrong := [clip.id for clip in dataset.clips if is_wrong(labels[clip.id])]:
            first = next(clip.label for clip in dataset.clips if clip.id == wrong[0])
            raise DataError(f"{some(wrong)} {'has' if len(wrong) == 1 else 'have'} {what}, such as {first!r}: {remedy}")
    clips = tuple(replace(clip, label=BETWEEN.join(sorted(labels[clip.id]))) for clip in dataset.clips)
    return replace(dataset, clips=clips, labels_per_clip="several")


def _has_twice(labels: Sequence[str]) -> bool:
    return len(set(labels)) < len(labels)


def _with_recordings(dataset: DataSet, group_by: str | None) -> DataSet:
    """Return a data set whose clips have the recordings that are found in their names."""
    if group_by is None:
        return dataset
    if any(clip.group for clip in dataset.clips):
        raise ParameterError(f"group_by={group_by!r} has no effect: the table names recordings; leave one out")
    return replace(dataset, clips=folds.grouped(dataset.clips, group_by))


def _with_folds(dataset: DataSet, n_folds: int | None) -> DataSet:
    """Return a data set whose clips have folds, which are made where the table names none."""
    if not any(clip.fold for clip in dataset.clips):
        folds.check_classes(dataset.label_names)
        strata = _rarest(dataset) if dataset.labels_per_clip == "several" else None
        return replace(dataset, clips=folds.made(dataset.clips, n_folds or folds.N_FOLDS, strata))
    if n_folds is not None:
        raise ParameterError(f"n_folds_made={n_folds} has no effect: the clips have folds; leave it out")
    return dataset


def _rarest(dataset: DataSet) -> list[str]:
    """Return that label of each clip which the fewest clips have."""
    counts = Counter(label for clip in dataset.clips for label in dataset.labels_of(clip))
    return [min(dataset.labels_of(clip), key=lambda label: (counts[label], label)) for clip in dataset.clips]


def _measured(dataset: DataSet, lengths: Lengths, table: Path) -> DataSet:
    """Return the data set with the most common rate of its files and the length of the longest; errors do not count."""
    known = [length for length in lengths.values() if not isinstance(length, DataError)]
    if not known:
        first = next(iter(lengths.values()))
        raise DataError(f"no audio file of {table} can be read: {some(lengths)}; the first one: {first}")
    counts = Counter(sr for _, sr in known)
    sr = max(counts, key=lambda rate: (counts[rate], rate))  # of equally common rates the highest
    return replace(dataset, sr=sr, seconds=max(frames / rate for frames, rate in known))


def _readable(dataset: DataSet, lengths: Lengths) -> DataSet:
    """Return the data set without the clips that cannot be read."""
    reasons = {id: length for id, length in lengths.items() if isinstance(length, DataError)}
    for reason in reasons.values():
        warn_once(f"left out: {reason}")
    return replace(dataset.without(reasons), skipped=tuple(reasons))


def permuted_name(name: str, seed: int) -> str:
    """Return the name of a data set after its labels were permuted."""
    return f"{name}-permuted{seed}"


@dataclass(frozen=True, kw_only=True)
class DataOptions(Fields):
    """Which clips to use: those of a data set known by name, of your own table, or the built-in ones."""

    dataset: str | None = None
    """Data set known by name: esc50, esc10, urbansound8k, gtzan, speechcommands, tau2020, tau2022, nsynth,
    nsynth-source or fsd50k, or one that is generated by code: synth, or synth-two, -quiet, -duration, -gap, -low-snr,
    -shortcut, -texture or -order. Default: synth."""
    root: Path | None = None
    """Folder that the data set was unpacked to; needed with --dataset, except for generated ones."""
    clips: Path | None = None
    """Instead of --dataset: a csv table with the columns path (relative to the table), label and fold; or a folder
    with one folder per class. Without folds, these are made."""
    n_folds_made: Annotated[int | None, at_least(2)] = None
    """Number of folds that are made where the clips of --clips have none. Default: 5."""
    group_by: str | None = None
    """Where --clips names no recordings: a regular expression. Clips in whose path it, or its first group, finds the
    same text are of one recording, and in one fold."""
    labels_per_clip: Literal["auto", "one", "several"] = "auto"
    """Whether a label of --clips is the name of one class, or the names of several with a semicolon between. auto:
    several if any of them has a semicolon. Networks are then trained and scored for each class alone."""
    splits: tuple[Path, ...] = ()
    """For gtzan: the folder that holds train*.txt, valid*.txt and test*.txt, or these three files in this order.
    Default: five folds, blocks of neighbouring files of each genre."""
    sr: Annotated[int | None, above(0)] = None
    """Sample rate to load at [Hz]. Default: that of the data set, or the most common one of your files."""
    width: Annotated[int | None, above(0)] = None
    """Width of the features [frames]. Default: that of the data set, or 250."""
    longest: Annotated[float, above(0)] = decoding.LONGEST
    """Longest clip that is decoded [s]: a longer file is refused, as a small one can decode to many hours."""
    skip_unreadable: bool = False
    """Leave out the clips that cannot be read, and record which, instead of stopping with an error."""
    permute_labels: Annotated[int | None, between(0, 2**32 - 1)] = None
    """Negative control: permute the labels of each fold among its recordings, with this seed. What is then
    learned does not hold for other clips, but by chance. The data set is called NAME-permutedSEED."""

    @once
    def open(self, *, argument: str = "dataset") -> DataSet:
        """Open the data set that the options name, with `argument` for its name; errors as in `open_dataset`."""
        _check_choice(self, argument)
        if self.clips is None:
            listed = _from_manifest(manifest()[self.dataset or BUILT_IN], self.root, self.splits)
        else:
            listed = _with_folds(self._listed(self.clips), self.n_folds_made)
        dataset, seed = self._loaded(listed), self.permute_labels
        if seed is None:
            return dataset
        return replace(dataset, name=permuted_name(dataset.name, seed), clips=folds.permuted(dataset.clips, seed))

    def open_with_made_folds(self, recordings: Callable[[DataSet], tuple[Clip, ...]]) -> DataSet:
        """Open a table or a folder whose clips have no folds, and make them for clips that have other recordings.

        `recordings` gets the data set, with its rate and length, and returns its clips with the recordings to keep
        whole. Raise ParameterError if the clips have folds, and errors as in `open_dataset`.
        """
        _check_choice(self, "dataset")
        if self.clips is None:
            raise ParameterError("clips must be a table or a folder without folds: other data sets have folds")
        listed = self._listed(self.clips)
        if any(clip.fold for clip in listed.clips):
            raise ParameterError(f"clips={str(self.clips)!r} has folds: leave out the column, or the folders of splits")
        loaded = self._loaded(listed)
        return _with_folds(replace(loaded, clips=recordings(loaded)), self.n_folds_made)

    def _listed(self, clips: Path) -> DataSet:
        """Return a data set of the clips of a table or a folder, with their labels and recordings."""
        return _with_recordings(_with_labels(_from_table(clips), self.labels_per_clip), self.group_by)

    def _loaded(self, dataset: DataSet) -> DataSet:
        """Return a data set of listed clips with its rate, length and width, without clips that cannot be read."""
        dataset = replace(dataset, longest=self.longest)
        lengths: Lengths = {}
        if self.skip_unreadable or self.clips is not None:
            whole = self.skip_unreadable
            lengths = read_each(partial(dataset.length, whole=whole), dataset, progress=whole)
        if self.clips is not None:
            dataset = _measured(dataset, lengths, self.clips)
        if self.skip_unreadable:
            dataset = _readable(dataset, lengths)
        if self.sr is not None and self.sr != dataset.sr:
            dataset = replace(dataset, sr=self.sr, n_fft=None)
        return dataset if self.width is None else replace(dataset, width=self.width)
