"""BatchNorm statistics estimated anew: the running mean and variance of other weights than those they were made for.

Weights that are put back, mixed or averaged change the activations that a BatchNorm layer sees. Its running statistics
then are those of another network, and accuracy falls for that reason alone. They are estimated again, without labels,
by one pass over training clips [1]_: every layer normalises by the statistics of the mini-batch, as in training, and
takes the mean over mini-batches (torch's ``momentum=None``). All other modules stay as in evaluation.

* `layers` lists the layers that have running statistics; networks with LayerNorm alone have none
* `estimating` estimates them anew in a ``with`` block
* `statistics` copies them, and `restore` puts them back

References
----------
.. [1] P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson: Averaging weights leads to wider optima and
   better generalization. UAI 2018, section 3.2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm


def layers(module: torch.nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers in a module that have running statistics, in the order of their names."""
    kind = torch.nn.modules.batchnorm._BatchNorm
    return [layer for layer in module.modules() if isinstance(layer, kind) and layer.running_mean is not None]


@contextlib.contextmanager
def estimating(module: torch.nn.Module) -> Iterator[None]:
    """Estimate the statistics of all BatchNorm layers in a module from the mini-batches of a ``with`` block.

    At its start they are reset. At its end the layers are in evaluation mode, as the whole module should be before.

    Examples
    --------
    >>> import torch
    >>> norm = torch.nn.BatchNorm1d(1).eval()
    >>> with estimating(norm):
    ...     outputs = [norm(torch.tensor([[0.0], [2.0]])), norm(torch.tensor([[3.0], [5.0]]))]
    >>> norm.running_mean.item(), norm.running_var.item()
    (2.5, 2.0)
    """
    norms = layers(module)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over mini-batches
        norm.training = True  # not train(), as timm's contain dropout
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False


def statistics(module: torch.nn.Module) -> list[dict[str, torch.Tensor]]:
    """Return a copy of the running statistics of each BatchNorm layer in a module."""
    return [{name: tensor.clone() for name, tensor in norm.named_buffers(recurse=False)} for norm in layers(module)]


def restore(module: torch.nn.Module, values: Sequence[dict[str, torch.Tensor]]) -> None:
    """Give the BatchNorm layers in a module the running statistics that `statistics` returned."""
    for norm, buffers in zip(layers(module), values, strict=True):
        for name, tensor in norm.named_buffers(recurse=False):
            tensor.copy_(buffers[name])
