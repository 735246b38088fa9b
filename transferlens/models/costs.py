"""What the blocks of a backbone take for one input: parameters, multiply-adds and memory, from shapes alone.

Importing this module imports torch, which takes seconds: import it inside the function that needs it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from transferlens.models.anatomy import Anatomy, chain, create, normalisations, to_map
from transferlens.models.forward import hooked
from transferlens.util.errors import ParameterError

LARGEST = 100_000  # height or width [pixels]


class Measures(NamedTuple):
    """What one block takes for one input: see `measure`."""

    parameters: int
    normalisation: int
    multiply_adds: int
    size: tuple[int, int]
    kept: int
    largest: int


def measure(parts: Anatomy, input_size: tuple[int, int], *, through: int) -> list[Measures]:
    """Return the size and cost of each block up to `through`, for one input in float32.

    They are parameters, multiply-adds, (height, width) of the output, the memory kept for gradients [bytes], and the
    most that the input and output of one module take [bytes]. Multiply-adds are those of convolutions, linear layers
    and the two products of attention, without its softmax and its position biases. Attention is taken to keep its
    matrices for gradients, which fused kernels do not. Raise ParameterError if the input is too small.
    """
    height, width = input_size
    if not (0 < height <= LARGEST and 0 < width <= LARGEST):
        raise ParameterError(f"input_size={height}x{width} must be from 1 to {LARGEST} pixels high and wide")
    with torch.device("meta"):  # only shapes are needed
        model = create(parts.name, parts.made_for(input_size)).eval()
        x = torch.empty(1, 3, height, width)
    measured = []
    for number, block in enumerate(chain(model, parts, through=through)):
        try:
            x, *costs = _run(block, x)
        except RuntimeError as error:
            cut = "" if number < 2 else f", or cut the network (truncate_after={number - 1})"
            raise ParameterError(
                f"input_size={height}x{width} is too small for {parts.name}: Block {number} cannot be computed; "
                f"use a larger input (width){cut}"
            ) from error
        rows, columns = to_map(model, parts, x).shape[2:]
        norms = sum(p.numel() for layer in normalisations(block) for p in layer.parameters())
        parameters = sum(p.numel() for p in block.parameters())
        measured.append(Measures(parameters, norms, costs[0], (rows, columns), *costs[1:]))
    return measured


def _run(block: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int, int, int]:
    """Return the output of a block, without gradients, and its multiply-adds and its memory, as `measure` does."""
    layers = {
        name: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) or not list(module.children())
    }
    kept: dict[int, int] = {}  # by storage, which tensors share
    counts, sizes = [0], [x.nbytes]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    def note(name: str, output: Any) -> None:
        """Note the multiply-adds and the size of a layer's output."""
        if isinstance(layers[name], nn.Conv2d | nn.Linear):
            # Each weight of an output channel (the first axis) is used once for each number that channel gives.
            counts.append(output.numel() * layers[name].weight[0].numel())
        sizes.append(getattr(output, "nbytes", 0))

    products = _Products()
    with hooked(layers, note), products, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = block(x)
    for tensor in block.state_dict().values():
        kept.pop(tensor.untyped_storage()._cdata, None)
    return y.detach(), sum(counts) + products.multiply_adds, sum(kept.values()), max(map(sum, pairwise(sizes)))


class _Products(TorchFunctionMode):
    """Counts the multiply-adds of products of activations, which attention consists of, while it is entered."""

    multiply_adds = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        y = func(*args, **(kwargs or {}))
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            self.multiply_adds += query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        elif getattr(func, "__name__", "") in ("matmul", "__matmul__", "bmm"):
            self.multiply_adds += y.numel() * args[0].shape[-1]
        return y
