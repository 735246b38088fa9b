"""Read lists of clips from a user's own table, or from folders."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from transferlens.data.clips import Clip
from transferlens.data.decoding import sound_files
from transferlens.util.errors import DataError, warn_once
from transferlens.util.grouping import group_by
from transferlens.util.text import CONTROL, some

# Columns that name the recording of a clip, the first that is not empty: ours, and those of the official tables and of
# Freesound.
RECORDINGS = ("group", "src_file", "fsID", "freesound_id")
# Our names of columns, and other ones that they have; capitals do not matter.
COLUMNS = {
    "path": ("filename", "file_name", "file", "filepath", "slice_file_name"),
    "label": ("category", "class", "genre"),
    "fold": ("split",),
}
# Names of folders that hold the folders of the classes: a fold each. At least one of the first two is there.
SPLIT_FOLDERS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")
MISSING = ("nan", "null", "n/a", "#n/a", "#value!")  # what other programs write into empty cells
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
METADATA = "metadata.csv"  # of the audiofolder convention: the columns file_name and, if folders are not classes, label


def read_table(path: Path, needed: Sequence[str], *, optional: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Read a table in UTF-8 or as spreadsheets write it; spaces around cells are removed.

    That is: UTF-16 or Windows-1252, and commas, semicolons or tabs between cells. With `optional` columns it is a table
    of a user, in which columns may have other names (`COLUMNS`).

    Raise DataError if the file is not such a table, has no rows, a column of `needed` is missing, one of these or of
    `optional` has an empty cell, or a row has more or fewer cells than the header.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a table of clips: name a csv file with the columns {some(needed)}")
    if path.exists() and not path.is_file():  # reading a pipe may never end
        raise DataError(f"{path} is not a regular file: name a csv file with the columns {some(needed)}")
    if not path.exists():
        raise DataError(f"{path} does not exist: name a csv file with the columns {some(needed)}")
    try:
        text = _decoded(path)
        delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = [name.strip() for name in next(table, [])]
        names = names if optional is None else _renamed(names)
        numbered = [(table.line_num, [cell.strip() for cell in cells]) for cells in table]
        numbered = [(line, cells) for line, cells in numbered if any(cells)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: name a csv file with the columns {some(needed)}") from error
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a csv table: {error}; save it as UTF-8 csv") from error
    filled = [name for name in (*needed, *(optional or ())) if name in names]
    return _checked(path, names, numbered, needed, filled, DELIMITERS[delimiter])


def _decoded(path: Path) -> str:
    """Return the text of a table in UTF-8, UTF-16 or, where it is neither, Windows-1252."""
    content = path.read_bytes()
    if content[:4] == b"\x89HDF":
        raise DataError(f"{path} is an HDF5 file, not a table of clips: a run is given as ckpt")
    if content[:2] == b"PK":
        raise DataError(f"{path} is an Excel workbook or another zip archive, not a csv table: save it as UTF-8 csv")
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
        if CONTROL.search(re.sub(r"[\r\n\t]", "", text)):  # it is not text
            raise
        warn_once(f"{path} is not UTF-8 and is read as Windows-1252: check letters with accents")
        return text


def _renamed(names: Sequence[str]) -> list[str]:
    """Return names of columns, with ours for those that a table calls otherwise."""
    ours: dict[str, str] = {}
    for name, others in COLUMNS.items():
        if name not in names:
            found = [own for own in names if own.lower() in (name, *others)]
            ours |= dict.fromkeys(found[:1], name)
    return [ours.get(name, name) for name in names]


def _checked(
    path: Path,
    names: list[str],
    numbered: list[tuple[int, list[str]]],
    needed: Sequence[str],
    filled: Sequence[str],
    delimiter: str,
) -> list[dict[str, str]]:
    if missing := [name for name in needed if name not in names]:
        raise DataError(
            f"{path} lacks {some(missing)}: it has {some(names) or 'no columns'}, and needs {some(needed)}, "
            "separated by commas, semicolons or tabs"
        )
    if twice := [name for name, n in Counter(names).items() if n > 1 and name]:
        raise DataError(f"{path} has more than one column named {some(twice)}: keep one of them")
    if not numbered:
        raise DataError(f"{path} lists no clips: it has only a header")
    if uneven := [line for line, cells in numbered if len(cells) != len(names)]:
        raise DataError(
            f"{path} must have {len(names)} cells in every row, and has more or fewer in row {some(uneven)}: "
            f"put double quotes around a cell that contains a {delimiter}"
        )
    if odd := [line for line, cells in numbered if any("\0" in cell for cell in cells)]:
        raise DataError(f"{path} contains the character NUL in row {some(odd)}: save it as plain UTF-8 text")
    rows = [dict(zip(names, cells, strict=True)) for _, cells in numbered]
    empty = {name: [line for (line, _), row in zip(numbered, rows, strict=True) if not row[name]] for name in filled}
    if problems := [f"no {name} in row {some(lines)}" for name, lines in empty.items() if lines]:
        raise DataError(f"{path} has {'; '.join(problems)}")
    return rows


def check_files(clips: Sequence[Clip], where: Path, remedy: str) -> None:
    """Raise DataError, with all names, if the files of clips do not exist."""
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


def _whole_numbers(rows: Sequence[dict[str, str]], column: str) -> None:
    """Write 1 for the 1.0 that spreadsheets make of whole numbers, if a column has nothing else, or is empty."""
    if column in rows[0] and all(re.fullmatch(r"(\d+\.0+)?", row[column]) for row in rows):
        for row in rows:
            row[column] = row[column].partition(".")[0]


def read_user_table(path: Path) -> tuple[Clip, ...]:
    """Read a user's own table of clips, as for `open_dataset`; the id of a clip is its path, as written there.

    A path that differs from that of its file by backslashes, or by how letters with accents are encoded, names it too.
    Without a column of folds, the folds of the clips are "".
    """
    needed = ("path", "label")
    rows = read_table(path, needed, optional=["fold"])
    # One column for all rows: the same name in two columns may be of two recordings.
    recording = next((name for name in RECORDINGS if any(row.get(name) for row in rows)), "")
    for column in ("fold", recording):
        _whole_numbers(rows, column)
    _check_spelling(path, rows, [name for name in ("label", "fold", recording) if name in rows[0]])
    if odd := [label for label in dict.fromkeys(row["label"] for row in rows) if label.lower() in MISSING]:
        warn_once(f"{path} has the class {some(odd)}, which may stand for a missing label: leave out rows without one")
    names = cache(_names)
    located = [_located(path.parent, row["path"], names) for row in rows]
    clips = tuple(
        Clip(
            id=id,
            label=row["label"],
            fold=row.get("fold", ""),
            path=file,
            group=row.get(recording) or None,
            extra={name: cell for name, cell in row.items() if name not in (*needed, "fold", "group")},
        )
        for (id, file), row in zip(located, rows, strict=True)
    )
    files = [os.path.realpath(file) for _, file in located]  # Path.resolve raises for circular links
    counts = Counter(files)
    if twice := dict.fromkeys(clip.id for clip, file in zip(clips, files, strict=True) if counts[file] > 1):
        raise DataError(f"{path} lists files more than once: {some(twice)}: keep one row of each")
    foreign = any(PureWindowsPath(clip.id).is_absolute() for clip in clips)
    of_windows = ", and those of a Windows computer are not found here: make them relative" if foreign else ""
    check_files(clips, path.parent, f"paths are relative to the table{of_windows}")
    return clips


def read_folder(folder: Path) -> tuple[Clip, ...]:
    """Read a folder with one folder per class, or with such folders below folders of a split, such as train and test.

    A clip's id is its path below the folder; its label is the name of the class's folder, or that in ``metadata.csv``
    beside the files, of the audiofolder convention (``file_name``, ``label``); its fold is the split, or "".

    Raises
    ------
    DataError
        If there are no sound files, or some lie in no folder of a class.
    """
    files = {file.relative_to(folder): file for file in sound_files(folder)}
    if not files:
        raise DataError(f"{folder} has no sound files: name a folder with one folder per class, or a csv table")
    tops = {path.parts[0].lower() for path in files}
    is_split = tops <= {*SPLIT_FOLDERS} and bool(tops & {*SPLIT_FOLDERS[:2]})
    named = _named_labels(folder, [folder / top.name for top in folder.iterdir()] if is_split else [])
    clips, unplaced = [], []
    for path, file in sorted(files.items()):
        fold, *inside = path.parts if is_split else ("", *path.parts)
        if label := named.get(path, inside[0] if len(inside) > 1 else ""):
            clips.append(Clip(path.as_posix(), label, fold, file))
        else:
            unplaced.append(path)
    if unplaced:
        raise DataError(f"{folder} has sound files in no folder of a class: {some(unplaced)}; move or remove them")
    _check_spelling(folder, [{"label": clip.label} for clip in clips], ["label"])
    return tuple(clips)


def _named_labels(folder: Path, splits: Sequence[Path]) -> dict[Path, str]:
    """Return the labels that ``metadata.csv`` names in a folder and in those of splits, by path below the folder."""
    labels = {}
    for place in (folder, *splits):
        if (place / METADATA).is_file():
            for row in read_table(place / METADATA, ["path"], optional=["label"]):
                if "label" in row:
                    labels[(place / row["path"]).relative_to(folder)] = row["label"]
    return labels
