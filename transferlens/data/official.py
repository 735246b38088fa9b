"""Read lists of clips from the official folders of data sets that are known by name, with their official folds."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transferlens.data.clips import BETWEEN, Clip
from transferlens.data.manifest import ManifestRow
from transferlens.data.readers import check_files, read_table
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.grouping import group_by
from transferlens.util.text import some

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
BLOCKS = 5  # of neighbouring files of each genre of GTZAN
NOTES = "examples.json"  # of NSynth
TRUTH = "FSD50K.ground_truth"
# Layouts whose clips have several labels.
SEVERAL_LABELS = ("fsd50k",)


def _official_table(root: Path, table: str, needed: Sequence[str]) -> list[dict[str, str]]:
    if not (root / table).is_file():
        raise DataError(f"root={str(root)!r} must be the folder that contains {table}, which does not exist there")
    return read_table(root / table, needed)


def _read_esc(root: Path, only: str | None = None) -> tuple[Clip, ...]:
    """Read ESC-50: ``meta/esc50.csv`` and ``audio/``; `only` names a column that must be True."""
    needed = ["filename", "fold", "category", "src_file"] + ([only] if only else [])
    rows = _official_table(root, "meta/esc50.csv", needed)
    return tuple(
        Clip(row["filename"], row["category"], row["fold"], root / "audio" / row["filename"], row["src_file"])
        for row in rows
        if only is None or row[only].lower() == "true"
    )


def _read_urbansound(root: Path) -> tuple[Clip, ...]:
    """Read UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``."""
    rows = _official_table(root, "metadata/UrbanSound8K.csv", ["slice_file_name", "fsID", "fold", "class"])
    ids = [f"fold{row['fold']}/{row['slice_file_name']}" for row in rows]
    return tuple(
        Clip(id, row["class"], row["fold"], root / "audio" / id, row["fsID"]) for id, row in zip(ids, rows, strict=True)
    )


def _read_fsd50k(root: Path) -> tuple[Clip, ...]:
    """Read FSD50K: ``FSD50K.ground_truth/dev.csv`` and ``eval.csv``, and the folders of their sounds.

    The folds are "train" and "val", as dev.csv splits the development set, and "test", the evaluation set. A clip of
    Freesound is a file of its own; its labels, with commas between, include those above them in the ontology.
    """
    rows = {name: _official_table(root, f"{TRUTH}/{name}.csv", ["fname", "labels"]) for name in ("dev", "eval")}
    known = _vocabulary(root / TRUTH / "vocabulary.csv")
    clips = []
    for name, table in rows.items():
        for row in table:
            labels, fold = row["labels"].split(","), row.get("split", "") if name == "dev" else "test"
            if (unknown := {*labels} - known) or fold not in ("train", "val", "test"):
                what = f"labels that vocabulary.csv lacks: {some(sorted(unknown))}" if unknown else f"split {fold!r}"
                raise DataError(f"{root / TRUTH / name}.csv has, for {row['fname']}, {what}: unpack it again")
            id = f"FSD50K.{name}_audio/{row['fname']}.wav"
            clips.append(Clip(id, BETWEEN.join(labels), fold, root / id))
    return tuple(clips)


def _vocabulary(path: Path) -> set[str]:
    """Return the classes of FSD50K; its table of number, label and AudioSet's id has no header."""
    if not path.is_file():
        raise DataError(f"root must be the folder that contains {TRUTH}/{path.name}: {path} does not exist")
    return {cells[1] for line in _read_names(path) if len(cells := line.split(",")) == 3}


def _genres(root: Path) -> dict[str, list[Path]]:
    """Return the audio files of each genre, sorted."""
    inner = next((root / name for name in ("genres_original", "genres") if (root / name).is_dir()), root)
    # macOS puts files whose names begin with a dot into archives.
    files = [f for f in sorted(inner.glob("*/*")) if f.suffix.lower() in (".wav", ".au") and f.name[0] != "."]
    if not files:
        raise DataError(
            f"root={str(root)!r} must contain genres_original/ or genres/, one folder of .wav or .au files per genre"
        )
    return group_by(files, lambda file: file.parent.name)


def _read_gtzan(root: Path) -> tuple[Clip, ...]:
    """Read GTZAN: one folder per genre; folds as the notes of `open_dataset` say."""
    return tuple(
        Clip(f"{genre}/{file.name}", genre, str(1 + i * BLOCKS // len(files)), file)
        for genre, files in _genres(root).items()
        for i, file in enumerate(files)
    )


def _split_files(splits: Sequence[Path]) -> tuple[Path, ...]:
    """Return the three lists that were given, or that are in the folder that was given."""
    if len(splits) == 3:
        return tuple(splits)
    if len(splits) != 1 or not splits[0].is_dir():
        raise ParameterError(
            f"splits={some(splits)!r} must be a folder that contains train*.txt, valid*.txt and test*.txt, or "
            "these three files in this order"
        )
    lists = {pattern: sorted(splits[0].glob(pattern)) for pattern in ("train*.txt", "valid*.txt", "test*.txt")}
    if wrong := [f"{len(files)} {pattern}" for pattern, files in lists.items() if len(files) != 1]:
        raise DataError(f"splits={str(splits[0])!r} must contain one file of each kind, and contains {some(wrong)}")
    return tuple(files[0] for files in lists.values())


def _read_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of file names: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _split(name: str, clips: Sequence[Clip], named: Sequence[tuple[str, str]]) -> tuple[Clip, ...]:
    """Return the clips of a data set that its lists name; `named` are pairs of a path and the fold of its list."""
    # Without the ending: the lists of gtzan name .wav files, and some copies have .au files.
    by_stem = {clip.id.rpartition(".")[0]: clip for clip in clips}
    stems = [path.rpartition(".")[0] for path, _ in named]
    if unknown := [path for (path, _), stem in zip(named, stems, strict=True) if stem not in by_stem]:
        raise DataError(f"{len(unknown)} names in the split files are not clips of {name}: {some(unknown)}")
    if twice := [stem for stem, n in Counter(stems).items() if n > 1]:
        raise DataError(f"{len(twice)} clips are named more than once in the split files: {some(twice)}")
    if left := len(clips) - len(named):
        log.info("%d of %d clips are in none of the split files and are left out", left, len(clips))
    return tuple(replace(by_stem[stem], fold=fold) for stem, (_, fold) in zip(stems, named, strict=True))


def _read_speech_commands(root: Path) -> tuple[Clip, ...]:
    """Read Speech Commands: a folder per word, and the lists of the validation and test clips; a speaker is a group.

    The folders whose names begin with ``_`` hold background noise.
    """
    lists = {"validation": root / "validation_list.txt", "test": root / "testing_list.txt"}
    if missing := [path.name for path in lists.values() if not path.is_file()]:
        raise DataError(f"root={str(root)!r} must be the folder that contains {some(missing)}, and a folder per word")
    files = [file for file in sorted(root.glob("[!_.]*/*.wav")) if file.name[0] != "."]
    clips = [
        Clip(f"{file.parent.name}/{file.name}", file.parent.name, "train", file, file.name.partition("_nohash_")[0])
        for file in files
    ]
    named = [(name, fold) for fold, path in lists.items() for name in _read_names(path)]
    others = {clip.id for clip in clips} - {name for name, _ in named}
    return _split("speechcommands", clips, [*named, *((id, "train") for id in others)])


def _read_tau(root: Path) -> tuple[Clip, ...]:
    """Read TAU Urban Acoustic Scenes: ``meta.csv``, ``evaluation_setup/`` and ``audio/``; a location is a group."""
    rows = _official_table(root, "meta.csv", ["filename", "scene_label", "identifier"])
    lists = {fold: f"evaluation_setup/fold1_{fold}.csv" for fold in ("train", "test")}
    clips = [Clip(row["filename"], row["scene_label"], "", root / row["filename"], row["identifier"]) for row in rows]
    tables = {fold: _official_table(root, path, ["filename"]) for fold, path in lists.items()}
    named = [(row["filename"], fold) for fold, listed in tables.items() for row in listed]
    return _split("this data set", clips, named)


def _read_nsynth(root: Path, label: str) -> tuple[Clip, ...]:
    """Read NSynth: ``nsynth-train/``, ``-valid/`` and ``-test/``, each if it is there; an instrument is a group."""
    folders = {fold: root / f"nsynth-{name}" for fold, name in zip(SPLITS, ("train", "valid", "test"), strict=True)}
    folders = {fold: folder for fold, folder in folders.items() if (folder / NOTES).is_file()}
    if not folders:
        raise DataError(
            f"root={str(root)!r} must be the folder that contains nsynth-train/{NOTES}, nsynth-valid/{NOTES} or "
            f"nsynth-test/{NOTES}"
        )
    return tuple(
        Clip(f"{name}.wav", note[label], fold, folder / "audio" / f"{name}.wav", note["instrument_str"])
        for fold, folder in folders.items()
        for name, note in _read_notes(folder / NOTES, (label, "instrument_str")).items()
    )


def _read_notes(path: Path, needed: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read the notes of a part of NSynth by name; raise DataError if they are not as they were published."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: of JSON, and of UTF-8
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    as_published = isinstance(notes, dict) and all(
        isinstance(note, dict) and all(isinstance(note.get(key), str) for key in needed) for note in notes.values()
    )
    if not as_published:
        raise DataError(f"{path} must have the texts {some(needed)} for every note: download it again")
    return notes


def read_official(row: ManifestRow, root: Path, splits: Sequence[Path]) -> tuple[Clip, ...]:
    """Read the clips of a data set known by name from the folder of its archive; arguments as for `open_dataset`."""
    if not root.is_dir():
        raise ParameterError(f"root={str(root)!r} must be a folder: unpack the archive from {row.homepage} there")
    if splits and row.layout != "gtzan":
        raise ParameterError(f"splits={some(splits)!r} are for gtzan only: this data set has official folds")
    clips = READERS[row.layout](root)
    if splits:
        lists = zip(SPLITS, _split_files(splits), strict=True)
        clips = _split(row.name, clips, [(name, fold) for fold, file in lists for name in _read_names(file)])
    if not clips:
        raise DataError(f"root={str(root)!r} contains no clips of this data set")
    check_files(clips, root, f"get the complete data set from {row.homepage}")
    return clips


READERS: dict[str, Callable[[Path], tuple[Clip, ...]]] = {
    "esc50": _read_esc,
    "esc10": partial(_read_esc, only="esc10"),
    "urbansound8k": _read_urbansound,
    "gtzan": _read_gtzan,
    "fsd50k": _read_fsd50k,
    "speechcommands": _read_speech_commands,
    "tau": _read_tau,
    "nsynth": partial(_read_nsynth, label="instrument_family_str"),
    "nsynth-source": partial(_read_nsynth, label="instrument_source_str"),
}
