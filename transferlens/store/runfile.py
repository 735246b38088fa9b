"""The run file: one HDF5 file that holds all that is known of a run."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transferlens.store.config import RunConfig
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.files import UNREADABLE, array, check_space, complete_or_absent
from transferlens.util.lazy import h5py, torch

__all__ = ["HISTORY", "RunState", "SCHEMA", "SEAL", "SEALED", "history_names", "read_state", "seal", "write_state"]

SCHEMA = 1
# What follows the HDF5 file, before its sha256: HDF5 does not look there, and goes astray in damaged files.
SEAL = b"transferlens sha256\n"
SEALED = -len(SEAL) - hashlib.sha256().digest_size  # where what is sealed ends
HISTORY = ("train_loss", "heldout_loss", "heldout_accuracy", "lr", "seconds")


def history_names(config: RunConfig) -> tuple[str, ...]:
    """What the history of a run holds an epoch: with an inner fold, the accuracy there too."""
    return (*HISTORY, "inner_accuracy") if config.inner_fold else HISTORY


@dataclass(frozen=True)
class RunState:
    """All that a run file holds; what a run has reached after some epoch.

    Attributes
    ----------
    history : dict of str to list of float
        An entry an epoch: train_loss, heldout_loss, heldout_accuracy, lr, seconds, and with an inner fold
        inner_accuracy.
    clip_ids, labels : list of str, ndarray of int [shape=(n_clips,)]
        The held-out clips, in the order of the logits' rows.
    logits_last, logits_best : ndarray [shape=(n_clips, n_classes), float32]
    weights : dict of str to ndarray
        The network's state at this epoch.
    fresh : dict of str to ndarray
        Those initial tensors that are not ImageNet's; the others can be had again from the weights.
    optimizer : dict of str to ndarray
        "<parameter>/<moment>" to tensor; empty once the run is complete.
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


_ARRAYS = ("clip_ids", "labels", "label_names", "normalisation", "logits_last", "logits_best")
TENSORS = ("weights", "fresh", "optimizer")


def write_state(path: Path, state: RunState) -> None:
    """Write a run file, complete or absent."""
    check_space(path, sum(array.nbytes for name in TENSORS for array in getattr(state, name).values()))
    with complete_or_absent(path) as beside:
        # In memory first: where a disk or quota ends, HDF5 crashes, and a plain write says so.
        with h5py.File(beside.name, "w", driver="core", backing_store=False) as file:
            _fill(file, state)
            file.flush()
            image = file.id.get_file_image()
        beside.write_bytes(_sealed(image))


def _sealed(image: bytes) -> bytes:
    return image + SEAL + hashlib.sha256(image).digest()


def seal(path: Path) -> None:
    """Seal a run file that was altered on purpose: without a seal that fits, none is opened."""
    content = path.read_bytes()
    if content[SEALED:][: len(SEAL)] == SEAL:
        content = content[:SEALED]
    with complete_or_absent(path) as beside:
        beside.write_bytes(_sealed(content))


def _fill(file: Any, state: RunState) -> None:
    file.attrs["schema"] = SCHEMA
    for name, attributes in (("config", state.config.flat()), ("provenance", state.provenance)):
        group = file.create_group(name)
        group.attrs.update({key: _to_attribute(value) for key, value in attributes.items()})
    for name in _ARRAYS:
        values = np.asarray(getattr(state, name))
        if values.dtype.kind in "fiu":
            file.create_dataset(name, data=values, fletcher32=True)
        else:
            file[name] = getattr(state, name)
    for name in ("history", *TENSORS):
        group = file.create_group(name)
        for key, values in getattr(state, name).items():
            group.create_dataset(key, data=values, fletcher32=np.ndim(values) > 0 or None)


def read_state(path: Path) -> RunState:
    """Read a whole run file; see `load_run` for its errors."""
    with open_runfile(path) as file:
        parts: dict[str, Any] = {name: array(file[name]) for name in _ARRAYS}
        for name in ("clip_ids", "label_names"):
            parts[name] = [text.decode() for text in parts[name]]
        parts |= {name: read_tensors(file[name]) for name in TENSORS}
        history = {key: array(file["history"][key]).tolist() for key in file["history"]}
        provenance = read_attributes(file["provenance"])
        return RunState(config=read_config(file), provenance=provenance, history=history, **parts)


def _to_attribute(value: Any) -> Any:
    if value is None:
        return h5py.Empty("f4")
    return value


def _from_attribute(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def read_attributes(group: Any) -> dict[str, Any]:
    return {key: _from_attribute(value) for key, value in group.attrs.items()}


def read_config(file: Any) -> RunConfig:
    try:
        return RunConfig.from_flat(read_attributes(file["config"]))
    except (KeyError, TypeError, ParameterError) as error:
        raise CheckpointError(f"{file.filename} was written by another version of transferlens: {error}") from error


def tensor_items(group: Any) -> dict[str, Any]:
    """Every HDF5 data set below a group, by its path in it."""
    found: dict[str, Any] = {}
    group.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def read_tensors(group: Any) -> dict[str, np.ndarray]:
    found = tensor_items(group)
    if not all(isinstance(name, str) for name in found):
        raise ValueError("a tensor's name is no text")
    return {name: array(item) for name, item in found.items()}


def to_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def _is_whole(path: Path) -> bool:
    """Whether a file is what was written."""
    content = memoryview(path.read_bytes())
    return content[SEALED:] == SEAL + hashlib.sha256(content[:SEALED]).digest()


@contextlib.contextmanager
def open_runfile(path: Path | str) -> Iterator[Any]:
    """Open a run file for reading; whatever is wrong with it becomes one CheckpointError.

    The whole file is compared with its sha256 first: HDF5 may read a damaged one for ever.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {found}: name a run file, as `python -m transferlens.runs` lists them")
    try:
        if not _is_whole(path):
            raise ValueError("it is not what was written")
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise CheckpointError(f"{path} is an HDF5 file but no run of this version of transferlens")
            yield file
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: permission denied") from error
    except UNREADABLE as error:
        if isinstance(error, ParameterError):
            raise
        raise CheckpointError(
            f"{path} is no readable run file: damaged, cut short or of another kind; "
            "if it was a run, delete it and ask for it again"
        ) from error
