"""The table of the data sets that are known by name: ``data_manifest.csv``, the one place for their facts."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from transferlens.util.errors import DataError

__all__ = ["ManifestRow", "manifest"]

FILE = "data_manifest.csv"


@dataclass(frozen=True)
class ManifestRow:
    """What is known about one data set before its files are seen.

    Attributes
    ----------
    name : str
        What users type.
    title : str
        What it is, in words.
    classes, folds : int > 0
        How many of each a complete copy has.
    sr : int > 0 [Hz]
        Rate at which its clips are loaded.
    seconds : float > 0 [s]
        Nominal length of a clip.
    n_fft : int > 0 [samples]
        Length of the Fourier transform at `sr`.
    width : int > 0 [frames]
        Width of its features.
    layout : str
        How its folders are laid out: the reader to use.
    licence, homepage : str
        Terms of use, and where they stand.
    archive, checksum : str
        Where it is downloaded, and ``algorithm:hex`` of that file; empty where none is certain.
    """

    name: str
    title: str
    classes: int
    folds: int
    sr: int
    seconds: float
    n_fft: int
    width: int
    layout: str
    licence: str
    homepage: str
    archive: str
    checksum: str


def _path() -> Path:
    """The table beside the package in a checkout, else where pip installed it."""
    above = Path(__file__).parents[2]
    candidates = [above / FILE, above / "share" / "transferlens" / FILE]  # the second: pip install --target
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.files("transferlens") or []
        candidates += [Path(file.locate()) for file in installed if file.name == FILE]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{FILE} is neither beside the package nor installed with it: install transferlens again")


def _row(cells: dict[str, str]) -> ManifestRow:
    texts = {name: cells[name] for name in ("name", "title", "layout", "licence", "homepage", "archive", "checksum")}
    return ManifestRow(
        classes=int(cells["classes"]),
        folds=int(cells["folds"]),
        sr=int(cells["sample_rate_hz"]),
        seconds=float(cells["clip_length_s"]),
        n_fft=int(cells["n_fft"]),
        width=int(cells["width_frames"]),
        **texts,
    )


@functools.cache
def _rows() -> tuple[ManifestRow, ...]:
    with _path().open(encoding="utf-8-sig", newline="") as file:
        return tuple(_row(cells) for cells in csv.DictReader(file))


def manifest() -> dict[str, ManifestRow]:
    """Read the table of data sets.

    Returns
    -------
    rows : dict of str to ManifestRow
        By name, in the table's order.

    Raises
    ------
    DataError
        Where the table is not found.

    Examples
    --------
    >>> manifest()["esc50"].folds
    5
    """
    return {row.name: row for row in _rows()}
