"""What a method of attribution is told: one input, and how it is explained.

- `Task` is what it is told, `Attributed` what it returns.
- `evaluating` sets a model to evaluation mode for a while, `pass_size` says how many inputs it may take at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferlens.models.forward import forward, hooked
from transferlens.util import processes
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.measures.maps import MapSettings

# Inputs per batch, at most: more are not faster.
MOST_CPU, MOST_GPU = 8, 64
# Memory needed at the worst moment, relative to the outputs of all modules.
OVERHEAD = 3
# Standard deviation of noise, relative to the input's range.
NOISE = 0.15


class Attributed(NamedTuple):
    """The attributions of one input [shape=(1, channels, height, width)].

    `steps` is the number of gradients or outputs that they took; `movement` is NaN where no integral is computed.
    """

    values: torch.Tensor
    steps: int
    movement: float = float("nan")


@dataclass(frozen=True)
class Task:
    """One input to explain, and how.

    Attributes
    ----------
    model : torch.nn.Module
        In evaluation mode.
    x, baseline : torch.Tensor [shape=(1, channels, height, width)]
    references : torch.Tensor [shape=(k, channels, height, width)]
        Other inputs to compare with; the baseline if the method does not need any.
    target : int
    tolerance, map_tolerance : float
        Of the completeness error, and of the movement of the map.
    max_steps : int
        Largest number of gradients of methods that decide how many they need.
    samples : int
        Number of gradients or outputs of those that do not.
    size : int
        How many inputs may go through the model at once.
    blocks : sequence of torch.nn.Module
    patch : tuple of int
        Height and width of a patch [cells].
    shown : MapSettings
    seed : int
    """

    model: torch.nn.Module
    x: torch.Tensor
    baseline: torch.Tensor
    references: torch.Tensor
    target: int
    tolerance: float
    map_tolerance: float
    max_steps: int
    samples: int
    size: int
    blocks: Sequence[torch.nn.Module]
    patch: tuple[int, int]
    shown: MapSettings
    seed: int

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the target's logit of inputs [shape=(n,)], on the CPU."""
        return forward(self.model, inputs, batch_size=self.size)[:, self.target]

    @property
    def noise(self) -> float:
        """Standard deviation of noise that is added to the input."""
        return NOISE * (self.x.max() - self.x.min()).item()


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode; on leaving, restore the modes of all modules."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def pass_size(model: torch.nn.Module, x: torch.Tensor) -> int:
    """Return how many inputs may go through the model at once, by the memory that is free."""
    sizes: list[int] = []
    with hooked(dict(model.named_modules()), lambda name, output: sizes.append(getattr(output, "nbytes", 0))):
        try:
            forward(model, x[:1])
        except RuntimeError as error:
            raise ParameterError(f"inputs of shape {tuple(x.shape)} do not fit the model: {error}") from error
    on_gpu = x.device.type == "cuda"
    free = torch.cuda.mem_get_info(x.device)[0] if on_gpu else processes.free_memory()
    return int(np.clip(free / 2 // (OVERHEAD * max(1, sum(sizes))), 1, MOST_GPU if on_gpu else MOST_CPU))
