"""What training minimises: the loss of mini-batches, masked, mixed and smoothed.

- `loss` is that of one mini-batch
"""

from __future__ import annotations

from collections.abc import Callable

from transferlens.features import augment
from transferlens.measures.scoring import ONE, Scoring
from transferlens.store.config import Training
from transferlens.util.lazy import torch


def loss(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    training: Training,
    scoring: Scoring = ONE,
) -> torch.Tensor:
    """Compute the mean loss of a mini-batch: cross-entropy, or binary cross-entropy if clips have several labels.

    Parameters
    ----------
    network : callable
        Returns the logits [shape=(n_clips, n_classes)] of inputs.
    x : torch.Tensor [shape=(n_clips, channels, n_mels, width)]
    target : torch.Tensor of int [shape=(n_clips,) or (n_clips, n_classes)]
        The class of each clip, or 1 for the classes that it has, else 0.
    training : Training
        Says how inputs are masked and mixed, and targets smoothed; torch's global generator draws.
    scoring : Scoring

    Returns
    -------
    torch.Tensor [shape=(), nat]
    """
    smoothing = training.label_smoothing
    if training.masks:
        x = augment.mask(x, training.masks)
    if not training.mixup:
        return scoring.loss(network(x), target, smoothing=smoothing)
    x, others, share = augment.mix(x, training.mixup)
    logits = network(x)
    own, of_others = (
        scoring.loss(logits, each, smoothing=smoothing) for each in (target, target[others.to(target.device)])
    )
    return share * own + (1 - share) * of_others
