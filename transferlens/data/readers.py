"""Lists of clips, read from the official folders of known data sets and from a user's own table."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from transferlens.data.clips import Clip
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.text import some

__all__ = ["read_official", "read_table", "read_user_table"]

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Read a table of comma-separated values, in UTF-8 with or without BOM, spaces trimmed.

    Parameters
    ----------
    path : Path
    needed : sequence of str
        Columns that must be there and full.

    Returns
    -------
    rows : list of dict of str to str
        By column name, in the table's order.

    Raises
    ------
    DataError
        Where the file is none, has no rows, or lacks a needed column or cell.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a table of clips: give the csv file in it")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file)
            names = [name.strip() for name in next(table, [])]
            numbered = [(table.line_num, [cell.strip() for cell in cells]) for cells in table]
            numbered = [(line, cells) for line, cells in numbered if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read as a UTF-8 csv table: {reason}") from error
    return _checked(path, names, numbered, needed)


def _checked(
    path: Path, names: list[str], numbered: list[tuple[int, list[str]]], needed: Sequence[str]
) -> list[dict[str, str]]:
    if missing := [name for name in needed if name not in names]:
        raise DataError(
            f"{path} lacks {some(missing)}: it has {some(names) or 'no columns'}, needs {some(needed)}, "
            "in small letters and parted by commas"
        )
    if twice := [name for name, n in Counter(names).items() if n > 1 and name]:
        raise DataError(f"{path} has more than one column named {some(twice)}: leave one")
    if not numbered:
        raise DataError(f"{path} lists no clips: only its header is there")
    if uneven := [line for line, cells in numbered if len(cells) != len(names)]:
        raise DataError(
            f"{path} must have {len(names)} cells in every row, and has not in row {some(uneven)}: "
            "put double quotes around a cell that holds a comma"
        )
    if odd := [line for line, cells in numbered if any("\0" in cell for cell in cells)]:
        raise DataError(f"{path} holds the character NUL in row {some(odd)}: write it as plain UTF-8 text")
    rows = [dict(zip(names, cells, strict=True)) for _, cells in numbered]
    empty = [line for (line, _), row in zip(numbered, rows, strict=True) if not all(row[name] for name in needed)]
    if empty:
        raise DataError(f"{path} has an empty {', '.join(needed[:-1])} or {needed[-1]} in row {some(empty)}")
    return rows


def _is_file(path: Path | None) -> bool:
    try:
        return path is not None and path.is_file()
    except OSError:  # the name is too long, or a folder may not be looked into
        return False


def _check_files(clips: Sequence[Clip], where: Path, remedy: str) -> None:
    if missing := [clip.id for clip in clips if not _is_file(clip.path)]:
        raise DataError(f"{len(missing)} of {len(clips)} audio files are not under {where}: {some(missing)}; {remedy}")


def read_user_table(path: Path) -> tuple[Clip, ...]:
    """Read a user's own list of clips.

    Parameters
    ----------
    path : Path
        A table with the columns ``path`` (relative to the table), ``label`` and ``fold``; ``group`` is
        optional, further columns are kept in `Clip.extra`.

    Returns
    -------
    clips : tuple of Clip
        With the path, as written in the table, for an id.

    Raises
    ------
    DataError
        Where the table cannot be used as it is, or audio files are missing.
    """
    known = ("path", "label", "fold")
    clips = tuple(
        Clip(
            id=row["path"],
            label=row["label"],
            fold=row["fold"],
            path=path.parent / row["path"],
            group=row.get("group") or None,
            extra={name: cell for name, cell in row.items() if name not in (*known, "group")},
        )
        for row in read_table(path, known)
    )
    files = [os.path.realpath(path.parent / clip.id) for clip in clips]  # takes links that lead in a circle
    times = Counter(files)
    if twice := dict.fromkeys(clip.id for clip, file in zip(clips, files, strict=True) if times[file] > 1):
        raise DataError(f"{path} lists files more than once: {some(twice)}")
    _check_files(clips, path.parent, "paths are relative to the table")
    return clips


def _official_table(root: Path, table: str, needed: Sequence[str]) -> list[dict[str, str]]:
    if not (root / table).is_file():
        raise DataError(f"root={str(root)!r} must be the folder that holds {table}: it is not there")
    return read_table(root / table, needed)


def _read_esc(root: Path, splits: Sequence[Path], folds: int, only: str | None = None) -> tuple[Clip, ...]:
    """ESC-50: ``meta/esc50.csv`` and ``audio/``; `only` names a column that must say True."""
    _refuse_splits(splits)
    needed = ["filename", "fold", "category", "src_file"] + ([only] if only else [])
    rows = _official_table(root, "meta/esc50.csv", needed)
    return tuple(
        Clip(row["filename"], row["category"], row["fold"], root / "audio" / row["filename"], row["src_file"])
        for row in rows
        if only is None or row[only].lower() == "true"
    )


def _read_urbansound(root: Path, splits: Sequence[Path], folds: int) -> tuple[Clip, ...]:
    """UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``."""
    _refuse_splits(splits)
    rows = _official_table(root, "metadata/UrbanSound8K.csv", ["slice_file_name", "fsID", "fold", "class"])
    ids = [f"fold{row['fold']}/{row['slice_file_name']}" for row in rows]
    return tuple(
        Clip(id, row["class"], row["fold"], root / "audio" / id, row["fsID"]) for id, row in zip(ids, rows, strict=True)
    )


def _refuse_splits(splits: Sequence[Path]) -> None:
    if splits:
        raise ParameterError(f"splits={some(splits)!r} are for gtzan only: this data set has official folds")


def _genres(root: Path) -> dict[str, list[Path]]:
    """Audio files of each genre folder, sorted."""
    inner = next((root / name for name in ("genres_original", "genres") if (root / name).is_dir()), root)
    # Names that begin with a dot are what macOS leaves in archives.
    files = [f for f in sorted(inner.glob("*/*")) if f.suffix.lower() in (".wav", ".au") and f.name[0] != "."]
    if not files:
        raise DataError(
            f"root={str(root)!r} must hold genres_original/ or genres/: .wav or .au files, a folder a genre"
        )
    genres: dict[str, list[Path]] = {}
    for file in files:
        genres.setdefault(file.parent.name, []).append(file)
    return genres


def _read_gtzan(root: Path, splits: Sequence[Path], folds: int) -> tuple[Clip, ...]:
    """GTZAN: a folder a genre.

    There are no official folds. Without split files the sorted files of each genre are cut into as many
    blocks as there are folds, so that neighbours, often of one album, stay together.
    """
    clips = tuple(
        Clip(f"{genre}/{file.name}", genre, str(1 + i * folds // len(files)), file)
        for genre, files in _genres(root).items()
        for i, file in enumerate(files)
    )
    return _split(clips, _split_files(splits)) if splits else clips


def _split_files(splits: Sequence[Path]) -> tuple[Path, ...]:
    """The three lists that were given, or that lie in the folder given."""
    if len(splits) == 3:
        return tuple(splits)
    if len(splits) != 1 or not splits[0].is_dir():
        raise ParameterError(
            f"splits={some(splits)!r} must be a folder that holds train*.txt, valid*.txt and test*.txt, or "
            "three such files in that order"
        )
    found = {pattern: sorted(splits[0].glob(pattern)) for pattern in ("train*.txt", "valid*.txt", "test*.txt")}
    if wrong := [f"{len(files)} {pattern}" for pattern, files in found.items() if len(files) != 1]:
        raise DataError(f"splits={str(splits[0])!r} must hold one file of each kind, and holds {some(wrong)}")
    return tuple(files[0] for files in found.values())


def _listed(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of file names: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _split(clips: Sequence[Clip], files: Sequence[Path]) -> tuple[Clip, ...]:
    """The clips that the lists name, each with its list for a fold."""
    # Without the ending: the lists say .wav where some copies hold .au.
    by_stem = {clip.id.rpartition(".")[0]: clip for clip in clips}
    named = [(name, fold) for fold, file in zip(SPLITS, files, strict=True) for name in _listed(file)]
    stems = [name.rpartition(".")[0] for name, _ in named]
    if unknown := [name for (name, _), stem in zip(named, stems, strict=True) if stem not in by_stem]:
        raise DataError(f"{len(unknown)} names in the split files are no clips of gtzan: {some(unknown)}")
    if twice := [stem for stem, n in Counter(stems).items() if n > 1]:
        raise DataError(f"{len(twice)} clips stand more than once in the split files: {some(twice)}")
    log.info("%d of %d clips are in none of the split files and are left out", len(clips) - len(named), len(clips))
    chosen = ((by_stem[stem], fold) for stem, (_, fold) in zip(stems, named, strict=True))
    return tuple(Clip(clip.id, clip.label, fold, clip.path) for clip, fold in chosen)


def read_official(layout: str, root: Path, *, splits: Sequence[Path], folds: int, homepage: str) -> tuple[Clip, ...]:
    """Read the clips of a data set known by name.

    Parameters
    ----------
    layout : str
        As the manifest calls it: a key of `READERS`.
    root : Path
        Folder of the unpacked archive.
    splits : sequence of Path
        Lists of the training, validation and test files, or the folder they lie in; for GTZAN only.
    folds : int > 0
        Number of folds, for a data set that has no official ones.
    homepage : str
        What to name as a remedy.

    Returns
    -------
    clips : tuple of Clip

    Raises
    ------
    DataError
        Where tables or audio files are missing or cannot be used as they are.
    ParameterError
        Where `root` is no folder or `splits` do not apply.
    """
    if not root.is_dir():
        raise ParameterError(f"root={str(root)!r} must be a folder: unpack there what {homepage} offers")
    clips = READERS[layout](root, splits, folds)
    if not clips:
        raise DataError(f"root={str(root)!r} holds no clips of this data set")
    _check_files(clips, root, f"get the complete set from {homepage}")
    return clips


READERS: dict[str, Callable[[Path, Sequence[Path], int], tuple[Clip, ...]]] = {
    "esc50": _read_esc,
    "esc10": partial(_read_esc, only="esc10"),
    "urbansound8k": _read_urbansound,
    "gtzan": _read_gtzan,
}
