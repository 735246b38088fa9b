"""Networks whose blocks come from several networks of one architecture, and their predictions.

A mixture is written as one letter per block, and one for the head: "TSTTTT" has Block 1 of the network S, and all
others of T. Mixtures that begin with the same blocks share what these compute, so that many cost little more than a
few: of the five blocks the first two take most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from transferlens.models import batchnorm
from transferlens.store.heldout import autocast, batches
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network
    from transferlens.store.run import Run

# Computes one stage, a block or the head, for mini-batches: takes its letters, the last of which is its own.
Stage = Callable[[str, list["torch.Tensor"]], list["torch.Tensor"]]


def classify(
    run: Run,
    networks: Mapping[str, Network],
    mixtures: Collection[str],
    S: np.ndarray,
    *,
    training: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute the logits of mixtures of networks.

    Each network alone gives the bits of `heldout.classify`, but without shifts in time (``test_shifts``). At most one
    mini-batch of S, and all of `training`, are in memory after each block.

    Parameters
    ----------
    run : Run
        Says how features are normalised, and in which precision it is computed.
    networks : dict of letter to Network
        In evaluation mode, on one device; afterwards they are as before.
    mixtures : collection of str
        A letter per block, and one for the head.
    S : ndarray [shape=(n_clips, channels, n_mels, width)]
        The features to classify.
    training : ndarray, optional
        Features on which the BatchNorm statistics of each mixture are estimated anew, as
        `heldout.estimate_statistics` does. Default: blocks have the statistics of their own networks.

    Returns
    -------
    dict of mixture to ndarray [shape=(n_clips, n_classes)]
    """
    mixer = _Mixer(run, networks)
    logits: dict[str, list[torch.Tensor]] = {mixture: [] for mixture in mixtures}
    stored = {letter: batchnorm.statistics(network) for letter, network in networks.items()}
    with torch.no_grad():
        if training is not None:
            for _ in _walk(mixtures, [*batches(run, training, mixer.device)], mixer.estimate):
                pass
        for x in batches(run, S, mixer.device):
            for mixture, (output,) in _walk(mixtures, [x], mixer.evaluate):
                logits[mixture].append(output.float().cpu())
        for letter, network in networks.items():
            batchnorm.restore(network, stored[letter])
    return {mixture: torch.cat(parts).numpy() for mixture, parts in logits.items()}


def _walk(
    mixtures: Collection[str], xs: list[torch.Tensor], stage: Stage, begin: str = ""
) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Yield each mixture that begins so, with its outputs; what mixtures begin with is computed once."""
    if begin in mixtures:
        yield begin, xs
        return
    for letters in dict.fromkeys(mixture[: len(begin) + 1] for mixture in mixtures if mixture.startswith(begin)):
        yield from _walk(mixtures, stage(letters, xs), stage, letters)


class _Mixer:
    """Computes the stages of mixtures, with the statistics that were estimated for each; see `Stage`."""

    def __init__(self, run: Run, networks: Mapping[str, Network]) -> None:
        self.networks = networks
        self.device = next(next(iter(networks.values())).parameters()).device
        self._autocast = autocast(run, self.device)
        self._statistics: dict[str, list[dict[str, torch.Tensor]]] = {}

    def estimate(self, letters: str, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Compute a stage, and estimate its statistics meanwhile."""
        network, number = self.networks[letters[-1]], len(letters) - 1
        if number == len(network.blocks):
            return []
        block = network.blocks[number]
        with batchnorm.estimating(block):
            outputs = self._compute(network, number, xs)
        self._statistics[letters] = batchnorm.statistics(block)
        return outputs

    def evaluate(self, letters: str, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Compute a stage with the statistics of its network, or with those estimated."""
        network, number = self.networks[letters[-1]], len(letters) - 1
        if letters in self._statistics:
            batchnorm.restore(network.blocks[number], self._statistics[letters])
        return self._compute(network, number, xs)

    def _compute(self, network: Network, number: int, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        with self._autocast():
            if number < len(network.blocks):
                return [network.run(x, start=number, through=number) for x in xs]
            return [network.head(network.map(x).mean((2, 3))) for x in xs]
