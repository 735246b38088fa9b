"""The held-out clips of a run: their audio, features and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens.features.cache import FeatureCache, read_cached
from transferlens.models.device import PASS_SIZE
from transferlens.util.errors import CheckpointError
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.data.catalogue import DataOptions
    from transferlens.store.run import Run


def classify(run: Run, network: torch.nn.Module, S: np.ndarray) -> np.ndarray:
    """Compute the logits of clips, on the device of the network.

    Parameters
    ----------
    run : Run
        Gives the normalisation of the features.
    network : torch.nn.Module
        As `Run.model` returns it, on any device.
    S : ndarray [shape=(n_clips, channels, n_mels, width)]
        Log-mel features.

    Returns
    -------
    logits : ndarray [shape=(n_clips, n_classes), float32]
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        return torch.cat([network(part.to(device)).cpu() for part in run.inputs(S).split(PASS_SIZE)]).numpy()


def _feature_cache(run: Run, options: DataOptions, folder: Path) -> FeatureCache:
    """Return the feature cache of the clips that the options name; raise if a run was trained on other clips."""
    dataset = options.open()
    cache = FeatureCache(dataset, run.config.features, folder)
    if cache.key != run.provenance["features_key"]:
        raise CheckpointError(
            f"{run.path} was trained on other clips than {dataset.name}: name its clips (--clips, or --dataset and "
            "--root)"
        )
    return cache


def heldout_audio(run: Run, options: DataOptions, ids: Sequence[str] | None = None) -> list[np.ndarray]:
    """Load the waveforms of a run's held-out clips, at the sample rate of its features.

    Parameters
    ----------
    run : Run
    options : DataOptions
        The clips that the run was trained on.
    ids : sequence of str, optional
        Ids of some of the clips; by default all held-out clips.

    Returns
    -------
    waveforms : list of ndarray [shape=(n_samples,), float32]

    Raises
    ------
    CheckpointError
        If the run was trained on other clips than those that the options name.
    DataError
        If clips cannot be read.
    """
    dataset = _feature_cache(run, options, Path()).dataset
    by_id = {clip.id: clip for clip in dataset.clips}
    return [dataset.load(by_id[id]) for id in (run.clip_ids if ids is None else ids)]


def heldout_features(run: Run, options: DataOptions, cache: Path) -> np.ndarray:
    """Load the features of a run's held-out clips; compute them if they are not cached.

    Parameters
    ----------
    run : Run
    options : DataOptions
        The clips that the run was trained on; not opened if the features are cached.
    cache : Path
        Folder of the feature caches.

    Returns
    -------
    S : ndarray [shape=(n_clips, channels, n_mels, width), float32]

    Raises
    ------
    CheckpointError
        If the features are not cached, and the run was trained on other clips than those that the options name.
    DataError
        If clips or the cache cannot be read.
    """
    key = run.provenance["features_key"]
    path = cache / f"{run.config.dataset}-{key[:8]}.h5"
    if not path.is_file():
        try:
            features = _feature_cache(run, options, cache)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}, or name the folder of the cache that holds its features (--cache): {path} does not exist"
            ) from None
        features.fill()
        path = features.path
    return read_cached(path, key, run.clip_ids)
