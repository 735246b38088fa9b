"""What blocks start from: weights of `models.weights`, or the final weights of a finished run."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from transferlens.models.plan import CUT, TransferPlan
from transferlens.models.weights import Source, Weights, check_tensors, imagenet_state, sha256_of, title
from transferlens.store import runfile, schema
from transferlens.store.config import RunConfig
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.files import expanded
from transferlens.util.text import some

RUN_ENDINGS = (".h5", ".partial")


@dataclass(frozen=True)
class RunWeights(Weights):
    """The weights of a run after its last epoch.

    Attributes
    ----------
    config : RunConfig
    clip_ids : frozenset of str
        The clips that were held out.
    recordings : frozenset of str
        The names (`FeatureCache.names`) of the clips that it, and runs that it started from, were trained on.
    normalisation : ndarray [shape=(2, channels)]
        Mean and standard deviation that its input was normalised with.
    """

    config: RunConfig
    clip_ids: frozenset[str]
    recordings: frozenset[str]
    normalisation: np.ndarray


def find(backbone: str, option: str | Path, *, normalise: str = "none", sha256: str | None = None) -> Weights:
    """Find weights for a backbone, once per process.

    Parameters
    ----------
    backbone : str
        timm's name of the model.
    option : str or Path
        A finished run (.h5), or what `models.weights.imagenet_state` takes.
    normalise : str
        As in `Training`. With "source" the hash of a run is that of its weights and its normalisation.
    sha256 : str, optional
        The `Weights.sha256` that is required.

    Raises
    ------
    CheckpointError
        If the weights cannot be found or read, belong to another network or have another sha256, or if the run has not
        finished, or was cut.
    """
    if Path(option).suffix.lower() not in RUN_ENDINGS:
        return imagenet_state(backbone, option, sha256=sha256)
    path = expanded(option)
    stat = path.stat() if path.is_file() else None
    loaded = _of_run(backbone, path, (stat.st_mtime_ns, stat.st_size) if stat else ())
    if normalise == "source":
        both = loaded.sha256.encode() + loaded.normalisation.tobytes()
        loaded = replace(loaded, sha256=hashlib.sha256(both).hexdigest())
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
    check_tensors(tensors, backbone, str(path), input_size=config.input_size)
    return RunWeights(
        tensors,
        f"run {config.id}",
        sha256_of(backbone, tensors),
        config=config,
        clip_ids=frozenset(fields["clip_ids"]),
        recordings=frozenset(fields["recordings"]),
        normalisation=fields["normalisation"],
    )


def normalisation_of(sources: Sequence[Weights]) -> np.ndarray:
    """Return `RunWeights.normalisation` of the first source; raise ParameterError if it is not a run."""
    if not sources or not isinstance(sources[0], RunWeights):
        raise ParameterError(
            "normalise='source' needs a run (.h5) as the first source of every plan: arms from random weights, such as "
            "references and controls, have none"
        )
    return sources[0].normalisation


def named_by(config: RunConfig, sources: Sequence[Source]) -> list[tuple[Source, Weights]]:
    """Return the sources that a configuration names by the hashes of their weights, in its order, and these weights.

    Raise CheckpointError if one is missing.
    """
    hashes, by_hash = config.weights_sha256.split(), {}
    for source in reversed(sources) if hashes else ():
        weights = find(config.backbone, source.option, normalise=config.training.normalise)
        by_hash[weights.sha256] = source, weights
    if unknown := [sha256 for sha256 in hashes if sha256 not in by_hash]:
        names = some(f"{source.name} (sha256 {sha256[:12]})" for sha256, (source, _) in by_hash.items()) or "none"
        raise CheckpointError(
            f"{config.id} starts from weights with sha256 {unknown[0][:12]}, but the sources are {names}: give the "
            "weights that it was named with"
        )
    return [by_hash[sha256] for sha256 in hashes]


def recordings_of(names: Iterable[set[str]], sources: Sequence[Weights]) -> list[str]:
    """Return the names, of `FeatureCache.names`, of all clips that a run is trained on, itself or by its sources."""
    seen = [weights.recordings for weights in sources if isinstance(weights, RunWeights)]
    return sorted(set().union(*names, *seen))


def origins(sources: Sequence[tuple[Source, Weights]]) -> dict[str, str]:
    """Return what the provenance of a run says of its sources, by keys that end in `schema.source_endings`."""
    if not sources:
        return {"weights_option": "auto", "weights_source": "none"}
    return {
        f"weights_{key}{end}": value
        for end, (source, weights) in zip(schema.source_endings(len(sources)), sources, strict=True)
        for key, value in (("name", source.name), ("option", source.option), ("source", weights.source))
    }


def sources_of(provenance: Mapping[str, Any], plan: TransferPlan) -> tuple[Source, ...]:
    """Return the sources of a run; in files of older versions they have no name."""
    older = title(provenance["weights_source"])
    return tuple(
        Source(provenance.get(f"weights_name{end}", older), provenance[f"weights_option{end}"])
        for end in schema.source_endings(len(plan.letters))
    )
