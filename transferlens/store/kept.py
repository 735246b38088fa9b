"""What was computed from finished runs, kept in the cache: a question that is interrupted continues where it was.

Arrays are kept under a hash of everything that they depend on: the run files, what was asked of them, and the code of
the package with the versions of the packages that compute. After a change of any of these they are computed again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from transferlens.util import hdf5
from transferlens.util.files import complete_or_absent, content_hash, once_per_state
from transferlens.util.lazy import h5py

SEAL = hdf5.Seal(b"transferlens crc32\n", hdf5.Crc32)
FOLDER = "kept"
PREFIX = 6  # of names in a file: their order
COMPUTE = ("torch", "timm", "captum", "numpy", "scipy", "librosa")


def kept(cache: Path | None, depends_on: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return arrays that were computed before, or compute them and keep them.

    Parameters
    ----------
    cache : Path, optional
        The folder of the feature cache; arrays are kept in its folder ``kept``. None: nothing is kept.
    depends_on : dicts, sequences, texts, numbers and None
        Everything that they depend on, except the code: of a run file its `digest`.
    compute : callable
        Returns the arrays by name. A file that is missing or damaged is computed again.
    """
    if cache is None:
        return compute()
    path = cache / FOLDER / f"{content_hash([_code(), depends_on])[:32]}.h5"
    try:
        with hdf5.opened(path, SEAL) as file:
            return {name[PREFIX:]: hdf5.array(file[name]) for name in sorted(file)}
    except (FileNotFoundError, hdf5.Damaged):
        pass
    arrays = {name: np.asarray(values) for name, values in compute().items()}
    with complete_or_absent(path) as beside:
        with h5py.File(beside, "w", locking=False) as file:
            for number, (name, values) in enumerate(arrays.items()):
                file[f"{number:0{PREFIX - 1}} {name}"] = values
        SEAL.write(beside)
    return arrays


@once_per_state
def digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _code() -> str:
    """Return a hash of the code that computes."""
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    sources = [[path.relative_to(package).as_posix(), digest(path)] for path in files]
    return content_hash([sources, [version(name) for name in COMPUTE]])
