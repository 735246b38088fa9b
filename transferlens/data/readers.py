"""Read lists of clips: from the official folders of known data sets, and from a user's own table."""

from __future__ import annotations

import csv
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path, PurePosixPath

from transferlens.data.clips import Clip
from transferlens.data.manifest import ManifestRow
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.grouping import group_by
from transferlens.util.text import some

log = logging.getLogger(__name__)

# Columns that name the recording of a clip, the first that is not empty: ours, and those of the official tables and of
# Freesound.
RECORDINGS = ("group", "src_file", "fsID", "freesound_id")
SPLITS = ("train", "validation", "test")


def read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read a table of comma-separated values, in UTF-8 with or without BOM; spaces around cells are removed.

    Raise DataError if the file is not such a table, has no rows, a column of `needed` is missing or has an empty cell,
    or a row has more or fewer cells than the header.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a table of clips: name a csv file with the columns {some(needed)}")
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise DataError(f"{path} is not a regular file: name a csv file with the columns {some(needed)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file)
            names = [name.strip() for name in next(table, [])]
            numbered = [(table.line_num, [cell.strip() for cell in cells]) for cells in table]
            numbered = [(line, cells) for line, cells in numbered if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if getattr(error, "object", b"")[:4] == b"\x89HDF":
            raise DataError(f"{path} is an HDF5 file, not a table of clips: a run is given as ckpt") from error
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read as a UTF-8 csv table: {reason}") from error
    return _checked(path, names, numbered, needed)


def _checked(
    path: Path, names: list[str], numbered: list[tuple[int, list[str]]], needed: Sequence[str]
) -> list[dict[str, str]]:
    if missing := [name for name in needed if name not in names]:
        raise DataError(
            f"{path} lacks {some(missing)}: it has {some(names) or 'no columns'}, and needs {some(needed)}, "
            "in lower case and separated by commas"
        )
    if twice := [name for name, n in Counter(names).items() if n > 1 and name]:
        raise DataError(f"{path} has more than one column named {some(twice)}: keep one of them")
    if not numbered:
        raise DataError(f"{path} lists no clips: it has only a header")
    if uneven := [line for line, cells in numbered if len(cells) != len(names)]:
        raise DataError(
            f"{path} must have {len(names)} cells in every row, and has more or fewer in row {some(uneven)}: "
            "put double quotes around a cell that contains a comma"
        )
    if odd := [line for line, cells in numbered if any("\0" in cell for cell in cells)]:
        raise DataError(f"{path} contains the character NUL in row {some(odd)}: save it as plain UTF-8 text")
    rows = [dict(zip(names, cells, strict=True)) for _, cells in numbered]
    empty = [line for (line, _), row in zip(numbered, rows, strict=True) if not all(row[name] for name in needed)]
    if empty:
        raise DataError(f"{path} has an empty {', '.join(needed[:-1])} or {needed[-1]} in row {some(empty)}")
    return rows


def _check_files(clips: Sequence[Clip], where: Path, remedy: str) -> None:
    # Path.is_file raises if a name is too long, or a folder may not be read.
    if missing := [clip.id for clip in clips if not os.path.isfile(str(clip.path))]:  # noqa: PTH113
        raise DataError(
            f"{len(missing)} of {len(clips)} audio files do not exist in {where}: {some(missing)}; {remedy}"
        )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _names(folder: Path) -> dict[str, str]:
    """Return the names in a folder by their composed form (NFC); none if it cannot be read."""
    try:
        return {_composed(name): name for name in sorted(os.listdir(folder))}  # noqa: PTH208  # undecodable names too
    except OSError:
        return {}


def _located(folder: Path, written: str, names: Callable[[Path], dict[str, str]]) -> tuple[str, Path]:
    """Return the id and the file of a path in a table.

    The id is the path as written, if there is such a file. Else names are looked up whose letters with accents are
    encoded in another way, and backslashes separate folders; the id of such a file is its path, composed, with slashes.
    """
    if os.path.isfile(folder / written):  # noqa: PTH113  # Path.is_file raises if a name is too long
        return written, folder / written
    id = str(PurePosixPath(_composed(written.replace("\\", "/"))))
    file = folder
    for part in PurePosixPath(id).parts:
        file = file / names(file).get(part, part)
    return (id, file) if os.path.isfile(file) else (written, folder / written)  # noqa: PTH113


def _check_spelling(path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str]) -> None:
    for column in columns:
        spellings = group_by(sorted({row[column] for row in rows}), _composed)
        if twice := [name for name, same in spellings.items() if len(same) > 1]:
            raise DataError(
                f"{path} encodes the letters with accents of a {column} in more than one way: {some(twice)}; save "
                "it in one Unicode form, such as NFC"
            )


def read_user_table(path: Path) -> tuple[Clip, ...]:
    """Read a user's own table of clips, as for `open_dataset`; the id of a clip is its path, as written there.

    A path that differs from that of its file by backslashes, or by how letters with accents are encoded, names it too.
    """
    needed = ("path", "label", "fold")
    rows = read_table(path, needed)
    # One column for all rows: the same name in two columns may be of two recordings.
    recording = next((name for name in RECORDINGS if any(row.get(name) for row in rows)), "")
    _check_spelling(path, rows, ("label", "fold", recording) if recording else ("label", "fold"))
    names = cache(_names)
    located = [_located(path.parent, row["path"], names) for row in rows]
    clips = tuple(
        Clip(
            id=id,
            label=row["label"],
            fold=row["fold"],
            path=file,
            group=row.get(recording) or None,
            extra={name: cell for name, cell in row.items() if name not in (*needed, "group")},
        )
        for (id, file), row in zip(located, rows, strict=True)
    )
    files = [os.path.realpath(file) for _, file in located]  # Path.resolve raises for circular links
    counts = Counter(files)
    if twice := dict.fromkeys(clip.id for clip, file in zip(clips, files, strict=True) if counts[file] > 1):
        raise DataError(f"{path} lists files more than once: {some(twice)}")
    _check_files(clips, path.parent, "paths are relative to the table")
    return clips


def _official_table(root: Path, table: str, needed: Sequence[str]) -> list[dict[str, str]]:
    if not (root / table).is_file():
        raise DataError(f"root={str(root)!r} must be the folder that contains {table}, which does not exist there")
    return read_table(root / table, needed)


def _read_esc(root: Path, splits: Sequence[Path], folds: int, only: str | None = None) -> tuple[Clip, ...]:
    """Read ESC-50: ``meta/esc50.csv`` and ``audio/``; `only` names a column that must be True."""
    needed = ["filename", "fold", "category", "src_file"] + ([only] if only else [])
    rows = _official_table(root, "meta/esc50.csv", needed)
    return tuple(
        Clip(row["filename"], row["category"], row["fold"], root / "audio" / row["filename"], row["src_file"])
        for row in rows
        if only is None or row[only].lower() == "true"
    )


def _read_urbansound(root: Path, splits: Sequence[Path], folds: int) -> tuple[Clip, ...]:
    """Read UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``."""
    rows = _official_table(root, "metadata/UrbanSound8K.csv", ["slice_file_name", "fsID", "fold", "class"])
    ids = [f"fold{row['fold']}/{row['slice_file_name']}" for row in rows]
    return tuple(
        Clip(id, row["class"], row["fold"], root / "audio" / id, row["fsID"]) for id, row in zip(ids, rows, strict=True)
    )


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


def _read_gtzan(root: Path, splits: Sequence[Path], folds: int) -> tuple[Clip, ...]:
    """Read GTZAN: one folder per genre; folds as the notes of `open_dataset` say."""
    clips = tuple(
        Clip(f"{genre}/{file.name}", genre, str(1 + i * folds // len(files)), file)
        for genre, files in _genres(root).items()
        for i, file in enumerate(files)
    )
    return _split(clips, _split_files(splits)) if splits else clips


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


def _split(clips: Sequence[Clip], files: Sequence[Path]) -> tuple[Clip, ...]:
    """Return the clips that the lists name; the fold of a clip is its list."""
    # Without the ending: the lists name .wav files, and some copies have .au files.
    by_stem = {clip.id.rpartition(".")[0]: clip for clip in clips}
    named = [(name, fold) for fold, file in zip(SPLITS, files, strict=True) for name in _read_names(file)]
    stems = [name.rpartition(".")[0] for name, _ in named]
    if unknown := [name for (name, _), stem in zip(named, stems, strict=True) if stem not in by_stem]:
        raise DataError(f"{len(unknown)} names in the split files are not clips of gtzan: {some(unknown)}")
    if twice := [stem for stem, n in Counter(stems).items() if n > 1]:
        raise DataError(f"{len(twice)} clips are named more than once in the split files: {some(twice)}")
    log.info("%d of %d clips are in none of the split files and are left out", len(clips) - len(named), len(clips))
    return tuple(replace(by_stem[stem], fold=fold) for stem, (_, fold) in zip(stems, named, strict=True))


def read_official(row: ManifestRow, root: Path, splits: Sequence[Path]) -> tuple[Clip, ...]:
    """Read the clips of a data set known by name from the folder of its archive; arguments as for `open_dataset`."""
    if not root.is_dir():
        raise ParameterError(f"root={str(root)!r} must be a folder: unpack the archive from {row.homepage} there")
    if splits and row.layout != "gtzan":
        raise ParameterError(f"splits={some(splits)!r} are for gtzan only: this data set has official folds")
    clips = READERS[row.layout](root, splits, row.folds)
    if not clips:
        raise DataError(f"root={str(root)!r} contains no clips of this data set")
    _check_files(clips, root, f"get the complete data set from {row.homepage}")
    return clips


READERS: dict[str, Callable[[Path, Sequence[Path], int], tuple[Clip, ...]]] = {
    "esc50": _read_esc,
    "esc10": partial(_read_esc, only="esc10"),
    "urbansound8k": _read_urbansound,
    "gtzan": _read_gtzan,
}
