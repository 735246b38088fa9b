"""The held-out clips of a run: their audio, features and predictions; the features of its training clips."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens.data import known_answers
from transferlens.features.cache import FeatureCache, UnusableCache, cached_clips, read_cached
from transferlens.models import batchnorm
from transferlens.models.forward import PASS_SIZE, forward, over_shifts
from transferlens.util import lazy
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.files import check_writable
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.data.catalogue import DataOptions
    from transferlens.data.clips import DataSet
    from transferlens.store.run import Run

precision = lazy.load("transferlens.models.precision")

log = logging.getLogger(__name__)


def classify(run: Run, network: torch.nn.Module, S: np.ndarray) -> np.ndarray:
    """Compute the logits [shape=(n_clips, n_classes)] of features S [shape=(n_clips, channels, n_mels, width)].

    They are computed as in training, in the precision of the run, and averaged over shifts in time if those of the run
    are (``test_shifts``): for its held-out clips they are the stored logits, bit by bit on the same machine with as
    many threads, if its container allows as many clips at once. (The outputs of frozen blocks, which training computes
    in batches of other sizes, may differ by rounding.) The run normalises the features; the network, as `Run.model`
    returns it, may be on any device.
    """
    device = next(network.parameters()).device
    computing = autocast(run, device)

    def logits(x: torch.Tensor) -> torch.Tensor:
        with computing():
            return network(x).float()

    return forward(over_shifts(logits, run.config.training.test_shifts), batches(run, S, device)).numpy()


def estimate_statistics(run: Run, network: torch.nn.Module, S: np.ndarray) -> None:
    """Estimate the BatchNorm statistics of a network anew on features S, such as those of training clips.

    They are computed as `classify` does; see `transferlens.models.batchnorm`. Without BatchNorm nothing happens.
    """
    if not batchnorm.layers(network):
        return
    device = next(network.parameters()).device
    computing = autocast(run, device)
    with batchnorm.estimating(network), torch.no_grad():
        for x in batches(run, S, device):
            with computing():
                network(x)


def batches(run: Run, S: np.ndarray, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the inputs of a run's network in mini-batches of nearly equal size, as many clips at once as in training.

    S are features [shape=(n_clips, channels, n_mels, width)], which the run normalises.
    """
    size = run.provenance.get("pass_size", PASS_SIZE)
    if device.type == "cpu" and (fitting := run.cost.pass_size()) < size:
        words = "%s: memory suffices to evaluate %d clips at once, not %d as in training, which changes rounding"
        log.warning(words, run.config.id, fitting, size)
        size = fitting
    for x in run.inputs(S).tensor_split(max(1, -(-len(S) // size))):
        yield x.to(device).contiguous(memory_format=torch.channels_last)


def autocast(run: Run, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Return the context in which a run computes: that of its precision."""
    return functools.partial(precision.autocast, device, precision_of(run, device))


def precision_of(run: Run, device: torch.device) -> str:
    """Return the precision that a run was trained in, or fp32 where this processor computes it wrongly."""
    recorded = run.provenance["precision"]
    try:
        precision.check(recorded, device, **run.config.computed)
    except ParameterError as error:
        log.warning("%s is computed in fp32, not in %s as it was trained: %s", run.config.id, recorded, error)
        return "fp32"
    return recorded


def of_run(run: Run, options: DataOptions) -> DataOptions:
    """Return the options that name a run's clips: if none are named and code generates them, these."""
    is_named = options.dataset is not None or options.clips is not None
    if is_named or not known_answers.is_generated(run.config.dataset):
        return options
    return replace(options, dataset=run.config.dataset)


def _feature_cache(run: Run, options: DataOptions, folder: Path) -> FeatureCache:
    """Return the feature cache of the clips that the options name; raise if a run was trained on other clips."""
    settings = run.config.features
    for name in ("sr", "width"):
        if getattr(options, name) not in (None, getattr(settings, name)):
            raise ParameterError(f"{name}={getattr(options, name)} must be left out: {run.path} says it")
    cache = FeatureCache(replace(of_run(run, options).open(), sr=settings.sr), settings, folder)
    if cache.key != run.provenance["features_key"]:
        raise CheckpointError(
            f"{run.path} was trained on other clips than {cache.dataset.name}: name its clips (clips, or dataset and "
            "root)"
        )
    return cache


def heldout_dataset(run: Run, options: DataOptions) -> DataSet:
    """Open the data set that the options name, at the rate of a run's features.

    Raise CheckpointError if the run was trained on other clips.
    """
    return _feature_cache(run, options, Path()).dataset


def load(dataset: DataSet, ids: Sequence[str]) -> list[np.ndarray]:
    """Load the waveforms [shape=(n_samples,)] of clips of a data set."""
    by_id = {clip.id: clip for clip in dataset.clips}
    return [dataset.load(by_id[id]) for id in ids]


def heldout_audio(run: Run, options: DataOptions, ids: Sequence[str]) -> list[np.ndarray]:
    """Load the waveforms of some of a run's held-out clips; errors as in `heldout_dataset`."""
    return load(heldout_dataset(run, options), ids)


def heldout_features(
    run: Run, options: DataOptions, cache: Path, *, training: bool = False, most: int | None = None
) -> np.ndarray:
    """Load the features [shape=(n_clips, channels, n_mels, width)] of a run's held-out clips from a folder of caches.

    If they are not there, or clips are named, these are opened, and their features computed or compared. With
    `training` they are those of the clips that the run was trained on, in the order of the data set, or with `most`
    of so many of them at most, as `spread` chooses.

    Raise CheckpointError if the run was trained on other clips than those that are named, or the built-in ones if no
    features are cached; DataError if clips or the cache cannot be read.
    """

    def choose(path: Path) -> Sequence[str]:
        clips = _trained_on(run, path) if training else run.clip_ids
        return clips if most is None else [clips[i] for i in spread(len(clips), most)]

    return _chosen_features(run, options, cache, choose)[1]


def training_features(
    run: Run, options: DataOptions, cache: Path, choose: Callable[[Sequence[str]], Sequence[str]]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Load ids and features of those of a run's training clips that `choose` returns of all their ids.

    Errors are those of `heldout_features`; ParameterError if the run was not trained on all clips that it did not hold
    out, so that its training clips are not known.
    """
    return _chosen_features(run, options, cache, lambda path: choose(_trained_on(run, path)))


def _chosen_features(
    run: Run, options: DataOptions, cache: Path, choose: Callable[[Path], Sequence[str]]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Load ids and features of the clips that `choose` names, given the cache file, which is computed if need be."""
    key, unusable = run.provenance["features_key"], None
    path = cache / f"{run.config.dataset}-{key[:8]}.h5"

    def read(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
        clips = tuple(choose(path))
        return clips, read_cached(path, key, clips)

    if options == type(options)():
        try:
            return read(path)
        except UnusableCache as error:
            unusable = error
    try:
        features = _feature_cache(run, options, cache)
    except CheckpointError as error:
        if path.is_file():
            raise (unusable or error) from None
        raise CheckpointError(
            f"{error}, or name the folder of the cache that holds its features (cache): {path} does not exist"
        ) from None
    if unusable or not path.is_file():
        check_writable("cache", cache)
    features.fill()
    return read(features.path)


def spread(n_clips: int, most: int) -> np.ndarray:
    """Return the indices of some clips, evenly spread, in a random order that is always the same.

    The clips of a class are often next to each other in a data set: so each mini-batch has clips of many classes.
    """
    places = np.linspace(0, n_clips - 1, min(n_clips, most)).round().astype(int)
    return np.random.default_rng(0).permutation(places)


def _trained_on(run: Run, cache: Path) -> list[str]:
    """Return the ids of a run's training clips: all of its feature cache that are not held out."""
    held_out = set(run.clip_ids)
    others = [clip for clip in cached_clips(cache) if clip not in held_out]
    if run.config.inner_fold or run.provenance.get("n_train", len(others)) != len(others):
        raise ParameterError(f"{run.path} was not trained on all other clips: its training clips are not known")
    return others
