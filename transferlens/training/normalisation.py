"""What a network's input is normalised with: mean and deviation of each channel.

- `normalisation_of_input` is that of the features of a run
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transferlens.models import torchvision
from transferlens.models.forward import PASS_SIZE
from transferlens.models.weights import Weights
from transferlens.store.config import RunConfig
from transferlens.store.sources import normalisation_of
from transferlens.training.batches import Data, chunks


def normalisation_of_input(
    config: RunConfig, data: Data, rows: np.ndarray, weights: Sequence[Weights] = ()
) -> np.ndarray:
    """Compute what the input of a run's network is normalised with.

    Parameters
    ----------
    config : RunConfig
        Its ``training.normalise`` says how.
    data : Data
    rows : ndarray of int [shape=(n,)]
        The clips that it is computed from: those that are trained on.
    weights : sequence of Weights
        Those of the sources, of which "source" takes the first.

    Returns
    -------
    ndarray [shape=(2, channels)]
        Mean and deviation; if the network itself changes its input, that change is part of them.

    Raises
    ------
    ParameterError
        If "source" is asked for and the first source is not a run.
    """
    normalisation = _normalisation(data, rows, config.training.normalise, weights)
    if not config.changes_input or config.training.normalise == "source":  # then the source has said all of it
        return normalisation
    (mean, deviation), (then_mean, then_deviation) = normalisation, torchvision.input_change()
    return np.stack([mean + deviation * then_mean, deviation * then_deviation])


def _normalisation(data: Data, rows: np.ndarray, how: str, sources: Sequence[Weights]) -> np.ndarray:
    """Return mean and deviation of each channel over the training clips [shape=(2, channels)]; 0 and 1 for "none".

    For "source" they are those of the run that is the first source.
    """
    if how == "source":
        return normalisation_of(sources)
    channels = data.cache.shape[1]
    if how == "none":
        return np.stack([np.zeros(channels), np.ones(channels)])
    moments, lowest, highest = np.zeros((2, channels)), np.inf, -np.inf
    for x in data.batches(chunks(rows, PASS_SIZE)):
        x = x.cpu().double()
        lowest, highest = min(lowest, x.min().item()), max(highest, x.max().item())
        moments += len(x) / len(rows) * np.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
    if how == "imagenet":
        colours = torchvision.COLOURS
        colours = colours if channels == 3 else np.repeat(colours.mean(1, keepdims=True), channels, axis=1)
        return np.array([[lowest], [0]]) + (highest - lowest or 1) * colours
    mean, square = moments
    return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 1e-12))])
