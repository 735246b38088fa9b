"""The run file: its layout, and reading and writing one.

A run file is an HDF5 file, followed by the tag of `SEAL` and the sha256 of the HDF5 content. The checksum is verified
before HDF5 opens the file, because HDF5 may never return from a damaged one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transferlens.store import schema
from transferlens.store.config import RunConfig
from transferlens.store.schema import TENSORS
from transferlens.util import hdf5
from transferlens.util.errors import CheckpointError
from transferlens.util.files import check_space, complete_or_absent
from transferlens.util.lazy import h5py, torch

SCHEMA = 1
SEAL = hdf5.Seal(
    b"transferlens sha256\n",
    hashlib.sha256,
    "its checksum is missing or does not match its content: if it was changed on purpose, "
    "transferlens.store.runfile.seal writes a new one",
)
_ARRAYS = ("clip_ids", "labels", "label_names", "normalisation", "logits_last", "logits_best")


@dataclass(frozen=True)
class RunState:
    """All that a run file holds: a run after some epoch, as `transferlens.store.run.Run`, and its tensors.

    `groups` has the recording of each held-out clip, and `recordings` the names of those that the run and its sources
    were trained on, each once; they are empty if they are not known. The tensors are the state dict of the network;
    `fresh`, those that did not start from the weights of a source, before training (those of sources are not stored
    again); and the optimiser's state by "<parameter>/<moment>", empty in a complete run.
    """

    config: RunConfig
    provenance: dict[str, Any]
    label_names: list[str]
    clip_ids: list[str]
    labels: np.ndarray
    normalisation: np.ndarray
    history: dict[str, list[float]]
    logits_last: np.ndarray
    logits_best: np.ndarray
    weights: dict[str, np.ndarray]
    fresh: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    groups: list[str] = field(default_factory=list)
    recordings: list[str] = field(default_factory=list)


def write_state(path: Path, state: RunState) -> None:
    """Write a run file, complete or absent; raise DataError if it does not fit on the disk."""
    check_space(path, sum(tensor.nbytes for name in TENSORS for tensor in getattr(state, name).values()))
    with complete_or_absent(path) as beside:
        # In memory first: on a full disk HDF5 crashes, where a plain write raises an error.
        with h5py.File(beside.name, "w", driver="core", backing_store=False) as file:
            _fill(file, state)
            file.flush()
            content = file.id.get_file_image()
        beside.write_bytes(content)
        SEAL.write(beside)


def _fill(file: Any, state: RunState) -> None:
    file.attrs["schema"] = SCHEMA
    for name, attributes in (("config", state.config.flat()), ("provenance", state.provenance)):
        group = file.create_group(name)
        group.attrs.update({key: h5py.Empty("f4") if value is None else value for key, value in attributes.items()})
    for name in _ARRAYS:
        values = getattr(state, name)
        file.create_dataset(name, data=values, fletcher32=isinstance(values, np.ndarray) or None)
    for name in ("groups", "recordings"):
        if names := getattr(state, name):
            file.create_dataset(name, data=names)
    for name in ("history", *TENSORS):
        group = file.create_group(name)
        for key, values in getattr(state, name).items():
            group.create_dataset(key, data=values, fletcher32=np.ndim(values) > 0 or None)


def read_state(path: str | os.PathLike[str]) -> RunState:
    """Read a whole run file, finished (.h5) or not (.partial); errors as in `open_runfile`."""
    with open_runfile(path) as file:
        fields = schema.read(file) | {name: read_tensors(file[name]) for name in TENSORS}
        fields["history"] = {name: values.tolist() for name, values in fields["history"].items()}
        return RunState(**fields)


def read_tensors(group: hdf5.Group) -> dict[str, np.ndarray]:
    """Return the content of every HDF5 data set below a group, by its path in the group."""
    return {name: hdf5.array(item) for name, item in group.datasets().items()}


def to_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return arrays as tensors."""
    return {name: torch.from_numpy(np.asarray(values)) for name, values in arrays.items()}


def seal(path: str | os.PathLike[str]) -> None:
    """Replace the checksum of a run file that was changed on purpose, which could not be opened otherwise."""
    path = Path(path)
    with complete_or_absent(path) as beside:
        shutil.copyfile(path, beside)
        SEAL.write(beside)


@contextlib.contextmanager
def open_runfile(path: str | os.PathLike[str]) -> Iterator[hdf5.Group]:
    """Open a run file for reading, after its checksum was verified.

    Raise CheckpointError if it is missing, of another version, or found to be damaged, now or while it is read.
    """
    path = Path(path)
    try:
        with hdf5.opened(path, SEAL) as file:
            if file.attrs.get("schema") != SCHEMA:
                raise CheckpointError(f"{path} is an HDF5 file, but not a run of this version of transferlens")
            yield file
    except FileNotFoundError as error:
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(
            f"{path} {problem}: name a run file, as `python -m transferlens.runs` lists them"
        ) from error
    except hdf5.Damaged as error:
        raise CheckpointError(
            f"{path} is not a readable run file: damaged, cut short or of another kind ({error}); if it was "
            "a run, move it to another folder and train it again"
        ) from error
