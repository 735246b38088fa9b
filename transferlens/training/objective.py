"""What training minimises: the cross-entropy of mini-batches, masked, mixed and smoothed.

- `loss` is that of one mini-batch
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from transferlens.features import augment
from transferlens.store.config import Training
from transferlens.util.lazy import torch


def loss(
    network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, target: torch.Tensor, training: Training
) -> torch.Tensor:
    """Compute the mean cross-entropy of a mini-batch.

    Parameters
    ----------
    network : callable
        Returns the logits [shape=(n_clips, n_classes)] of inputs.
    x : torch.Tensor [shape=(n_clips, channels, n_mels, width)]
    target : torch.Tensor of int [shape=(n_clips,)]
        The class of each clip.
    training : Training
        Says how inputs are masked and mixed, and targets smoothed; torch's global generator draws.

    Returns
    -------
    torch.Tensor [shape=(), nat]
    """
    cross_entropy = functools.partial(torch.nn.functional.cross_entropy, label_smoothing=training.label_smoothing)
    if training.masks:
        x = augment.mask(x, training.masks)
    if not training.mixup:
        return cross_entropy(network(x), target)
    x, others, share = augment.mix(x, training.mixup)
    logits = network(x)
    return share * cross_entropy(logits, target) + (1 - share) * cross_entropy(logits, target[others.to(target.device)])
