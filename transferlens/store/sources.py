"""What blocks start from: weights of `models.weights`, or the final weights of a finished run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transferlens.models.plan import CUT, TransferPlan
from transferlens.models.weights import Source, Weights, imagenet_state, sha256_of, title
from transferlens.store import runfile, schema
from transferlens.store.config import RunConfig
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.files import expanded

RUN = ".h5"  # ending of run files


@dataclass(frozen=True)
class RunWeights(Weights):
    """The weights of a run after its last epoch, with its configuration and the normalisation of its input."""

    config: RunConfig
    normalisation: np.ndarray


def find(backbone: str, option: str | Path, *, sha256: str | None = None) -> Weights:
    """Find weights for a backbone, once per process.

    Parameters
    ----------
    backbone : str
        timm's name of the model.
    option : str or Path
        A finished run (.h5), or what `models.weights.imagenet_state` takes.
    sha256 : str, optional
        The `Weights.sha256` that is required.

    Raises
    ------
    CheckpointError
        If the weights cannot be found or read, belong to another network or have another sha256, or if the run has not
        finished, or was cut.
    """
    if Path(option).suffix.lower() != RUN:
        return imagenet_state(backbone, option, sha256=sha256)
    path = expanded(option)
    stat = path.stat() if path.is_file() else None
    loaded = _of_run(backbone, path, (stat.st_mtime_ns, stat.st_size) if stat else ())
    loaded.check(sha256)
    return loaded


@functools.lru_cache(maxsize=4)
def _of_run(backbone: str, path: Path, version: tuple[int, ...]) -> RunWeights:
    """Read the weights of a run; `version` changes with the content of the file."""
    with runfile.open_runfile(path) as file:
        fields = schema.read(file)
        state = runfile.to_torch(runfile.read_tensors(file["weights"]))
    config: RunConfig = fields["config"]
    if config.backbone.partition(".")[0] != backbone.partition(".")[0]:
        raise CheckpointError(f"{path} is a run of backbone {config.backbone!r}: it cannot be a source of {backbone!r}")
    if (done := len(fields["history"]["lr"])) < config.training.epochs:
        raise CheckpointError(f"{path} has finished {done} of {config.training.epochs} epochs: finish the run first")
    if CUT in config.plan.start:
        raise CheckpointError(f"{path} was cut after Block {config.plan.truncate_after}: a source must have all blocks")
    tensors = {name.partition(".")[2]: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    return RunWeights(tensors, f"run {config.id}", sha256_of(backbone, tensors), config, fields["normalisation"])


def normalisation_of(sources: Sequence[Weights]) -> np.ndarray:
    """Return the normalisation of the input of the first source; raise ParameterError if it is not a run."""
    if not sources or not isinstance(sources[0], RunWeights):
        raise ParameterError("normalise='source' needs a run (.h5) as the first source of the plan")
    return sources[0].normalisation


def named_by(config: RunConfig, sources: Sequence[Source]) -> list[tuple[Source, Weights]]:
    """Return the sources that a configuration names by the hashes of their weights, in its order, and these weights.

    Raise CheckpointError if one is missing.
    """
    hashes = config.weights_sha256.split()
    found = [(source, find(config.backbone, source.option)) for source in sources] if hashes else []
    by_hash = {weights.sha256: (source, weights) for source, weights in reversed(found)}
    if unknown := [sha256 for sha256 in hashes if sha256 not in by_hash]:
        found[0][1].check(unknown[0])
    return [by_hash[sha256] for sha256 in hashes]


def origins(sources: Sequence[tuple[Source, Weights]]) -> dict[str, str]:
    """Return what the provenance of a run says of its sources: the keys of a second one end in ``_2``, and so on."""
    if not sources:
        return {"weights_option": "auto", "weights_source": "none"}
    return {
        f"weights_{key}{f'_{i}' if i > 1 else ''}": value
        for i, (source, weights) in enumerate(sources, start=1)
        for key, value in (("name", source.name), ("option", source.option), ("source", weights.source))
    }


def sources_of(provenance: Mapping[str, Any], plan: TransferPlan) -> tuple[Source, ...]:
    """Return the sources of a run; in files of older versions they have no name."""
    keys = [f"_{i}" if i > 1 else "" for i in range(1, len(plan.letters) + 1)]
    return tuple(
        Source(
            provenance.get(f"weights_name{key}", title(provenance["weights_source"])),
            provenance[f"weights_option{key}"],
        )
        for key in keys
    )
