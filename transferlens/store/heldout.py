"""Held-out clips of a run: audio, features, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens.features.cache import FeatureCache, read_cached
from transferlens.models.forward import forward
from transferlens.util.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from transferlens.data.catalogue import DataOptions
    from transferlens.store.run import Run

__all__ = ["classify", "heldout_audio", "heldout_features"]


def classify(run: Run, network: torch.nn.Module, S: np.ndarray) -> np.ndarray:
    """Return the logits of the network of a run for features [shape=(n_clips, n_classes)].

    Parameters
    ----------
    run : Run
    network : torch.nn.Module
        As `Run.model` returns it, on any device.
    S : ndarray [shape=(n_clips, channels, n_mels, width)]
        Log-mel features.
    """
    return forward(network, run.inputs(S)).numpy()


def _own_features(run: Run, options: DataOptions, cache: Path) -> FeatureCache:
    """The feature cache of the data set that the options name, which must be that of the run."""
    dataset = options.open()
    found = FeatureCache(dataset, run.config.features, cache)
    if found.key != run.provenance["features_key"]:
        raise CheckpointError(
            f"{run.path} was trained on other clips than {dataset.name}: name its clips (--clips, or --dataset and "
            "--root)"
        )
    return found


def heldout_audio(run: Run, options: DataOptions, ids: Sequence[str] | None = None) -> list[np.ndarray]:
    """Waveforms of a run's held-out clips, or of those named, at the rate of its features, each [shape=(n_samples,)].

    Raises
    ------
    CheckpointError
        Where the clips that the options name are not those of the run.
    DataError
        Where the clips cannot be read.
    """
    dataset = _own_features(run, options, Path()).dataset
    by_id = {clip.id: clip for clip in dataset.clips}
    return [dataset.load(by_id[clip]) for clip in (run.clip_ids if ids is None else ids)]


def heldout_features(run: Run, options: DataOptions, cache: Path) -> np.ndarray:
    """Features of a run's held-out clips [shape=(n_clips, channels, n_mels, width)], cached or computed again.

    Raises
    ------
    CheckpointError
        Where they are not cached, and the clips that the options name are not those of the run.
    DataError
        Where the clips cannot be read.
    """
    key = run.provenance["features_key"]
    path = cache / f"{run.config.dataset}-{key[:8]}.h5"
    if not path.is_file():
        try:
            made = _own_features(run, options, cache)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}, or the cache that has its features (--cache); they are not in {path}"
            ) from None
        made.fill()
    return read_cached(path, key, run.clip_ids)
