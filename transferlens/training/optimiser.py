"""The optimiser of a run: its groups of parameters, the pull to their start, the mean of their weights, its state.

- `make` returns torch's optimiser, with a group for each learning rate (layer-wise decay [1]_)
- `begin` begins an epoch: all is trained or, in the first epochs of LP-FT [4]_, only the head
- `pull` pulls pretrained weights to their start (L2-SP [2]_)
- `average` takes weights into their mean over the last epochs [3]_
- `state` and `resume` write all of this to a checkpoint, and read it

References
----------
.. [1] J. Howard, S. Ruder: Universal language model fine-tuning for text classification. ACL 2018, section 3.2
   ("discriminative fine-tuning").
.. [2] X. Li, Y. Grandvalet, F. Davoine: Explicit inductive bias for transfer learning with convolutional networks. ICML
   2018.
.. [3] P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson: Averaging weights leads to wider optima and
   better generalization. UAI 2018, algorithm 1.
.. [4] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang: Fine-tuning can distort pretrained features and underperform
   out-of-distribution. ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from transferlens.store.runfile import to_torch
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network
    from transferlens.store.config import RunConfig, Training

AVERAGE = "average"  # the mean of the weights of a parameter, beside its moments


def make(network: Network, learned: Mapping[str, torch.nn.Parameter], config: RunConfig) -> torch.optim.Optimizer:
    """Return the optimiser of parameters that are learned, by name, at their start.

    Each group of parameters has a ``scale``, which its learning rate is multiplied by, and a ``start``: the values that
    its parameters are pulled to, none if they are not. Such parameters have no weight decay.
    """
    training = config.training

    def group_of(name: str) -> tuple[float, bool]:
        block = network.block_of(name)
        depth = 0 if block == "head" else len(network.blocks) - block
        return training.layer_decay**depth, training.l2_sp > 0 and config.plan.is_pretrained(block)

    groups = []
    for (scale, is_pulled), names in group_by(learned, group_of).items():
        parameters = [learned[name] for name in names]
        start = [p.detach().clone() for p in parameters] if is_pulled else []
        decay = 0.0 if is_pulled else training.weight_decay
        groups.append({"params": parameters, "scale": scale, "start": start, "weight_decay": decay})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return kind(groups, lr=training.lr, fused=True)


def trained(network: Network, learned: Mapping[str, torch.nn.Parameter], *, only_head: bool) -> set[str]:
    """Return the names of the parameters that an epoch trains."""
    return {name for name in learned if not only_head or network.block_of(name) == "head"}


def begin(network: Network, learned: Mapping[str, torch.nn.Parameter], *, only_head: bool) -> None:
    """Set a network to training mode; with `only_head` all blocks stay as they are, BatchNorm statistics too."""
    network.train()
    for block in network.blocks if only_head else ():
        block.eval()
    names = trained(network, learned, only_head=only_head)
    for name, p in learned.items():
        p.requires_grad_(name in names)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the head, and those of other groups by their scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def pull(optimizer: torch.optim.Optimizer, strength: float) -> None:
    """Pull weights to their start, after a step: the proximal step of L2-SP.

    A weight w with the start s becomes (w + a s) / (1 + a), where a is `strength` times the learning rate: the minimum
    of ``strength / 2 (w' - s)**2 + (w' - w)**2 / (2 lr)`` over w'. As weight decay in AdamW, this does not go through
    the moments of Adam, which would make a strong penalty as weak as a weak one; and no strength overshoots.
    """
    with torch.no_grad():
        for group in optimizer.param_groups:
            a = strength * group["lr"]
            for p, start in zip(group["params"], group["start"], strict=False):  # some groups have no start
                p.lerp_(start, a / (1 + a))


def average(optimizer: torch.optim.Optimizer, training: Training, epoch: int) -> bool:
    """Take the weights after an epoch into their mean, if it is one of the last; the mean is kept with the moments.

    Epochs count from 0. After the last one, the weights are replaced by the mean; return whether they have been.
    """
    n = epoch + 1 - (training.epochs - training.average_epochs)  # they are the n-th in the mean
    if training.average_epochs == 1 or n < 1:
        return False
    is_last = n == training.average_epochs
    with torch.no_grad():
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            kept = optimizer.state[p]
            kept[AVERAGE] = p.detach().clone() if n == 1 else kept[AVERAGE].lerp_(p, 1 / n)
            if is_last:
                p.copy_(kept[AVERAGE])
    return is_last


def state(optimizer: torch.optim.Optimizer, learned: Mapping[str, torch.nn.Parameter]) -> dict[str, np.ndarray]:
    """Return moments, and the mean of the weights if there is one, by "<parameter>/<moment>"."""
    return {
        f"{name}/{key}": value.numpy(force=True)
        for name, p in learned.items()
        for key, value in optimizer.state.get(p, {}).items()
    }


def resume(
    optimizer: torch.optim.Optimizer, learned: Mapping[str, torch.nn.Parameter], arrays: Mapping[str, np.ndarray]
) -> None:
    """Set what `state` has returned."""
    for key, value in to_torch(arrays).items():
        name, moment = key.rsplit("/", 1)
        p = learned[name]
        # Moments need the memory layout of their parameter: fused steps go through both in order of memory.
        like = torch.empty_like(p) if value.shape == p.shape else torch.empty(value.shape, device=p.device)
        optimizer.state[p][moment] = like.copy_(value)
