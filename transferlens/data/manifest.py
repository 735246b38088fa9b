"""The data sets that are known by name, and the facts about them: the table ``data_manifest.csv``."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.metadata
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from transferlens.util.errors import DataError

FILE = "data_manifest.csv"


@dataclass(frozen=True)
class ManifestRow:
    """The facts about one data set.

    Attributes
    ----------
    name : str
        The name that users type.
    title : str
        Full name.
    classes, folds : int > 0
        Numbers of classes and folds of a complete copy.
    sr : int > 0 [Hz]
        Rate at which its clips are loaded.
    seconds : float > 0 [s]
        Nominal length of a clip.
    n_fft : int > 0 [samples]
        Length of the Fourier transform at `sr`.
    width : int > 0 [frames]
        Width of its features.
    layout : str
        Name of the layout of its folders, which decides how it is read.
    licence, homepage : str
        Terms of use, and the page that states them.
    archive, checksum : str
        Address of the file to download, and its checksum as ``algorithm:hex``; empty if not known for certain.
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


def manifest_path() -> Path:
    """Return the path of the table: beside the package in a checkout, else where pip installed it."""
    above = Path(__file__).parents[2]
    candidates = [above / FILE, above / "share" / "transferlens" / FILE]  # the second: pip install --target
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.files("transferlens") or []
        candidates += [Path(file.locate()) for file in installed if file.name == FILE]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{FILE} is not beside the package and was not installed with it: install transferlens again")


@functools.cache
def manifest() -> Mapping[str, ManifestRow]:
    """Return the facts about each data set, by name, in the order of the table; raise DataError if it is not found.

    Examples
    --------
    >>> manifest()["esc50"].folds
    5
    """
    kinds = typing.get_type_hints(ManifestRow).values()  # the columns of the table are the fields, in their order
    with manifest_path().open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.reader(file))[1:]
    rows = [ManifestRow(*(kind(cell) for kind, cell in zip(kinds, cells, strict=True))) for cells in table]
    return MappingProxyType({row.name: row for row in rows})
