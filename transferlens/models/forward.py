"""How networks are run: batch by batch without gradients, with layers observed, with fixed random numbers.

- `forward` returns the outputs of a network for any number of inputs.
- `over_shifts` averages the outputs of a network over shifts of its inputs in time.
- `hooked` calls a function with the output of every chosen module.
- `seeded` fixes torch's random numbers for a while, `threads_of` the number of threads.
- `seed_of` turns words into a seed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from transferlens.util.lazy import torch
from transferlens.util.processes import cores

K = TypeVar("K")
# Clips per batch where nothing is learned: evaluation, normalisation statistics, frozen blocks.
PASS_SIZE = 64


def forward(
    network: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor | Iterable[torch.Tensor],
    *,
    batch_size: int = PASS_SIZE,
) -> torch.Tensor:
    """Return the outputs of a network for all inputs, computed batch by batch without gradients.

    Parameters
    ----------
    network : torch.nn.Module or callable
        A module gets every batch on its own device; whether it is in evaluation mode is the caller's choice.
    x : torch.Tensor [shape=(n, ...)] or iterable of torch.Tensor
        The inputs, or batches of them.
    batch_size : int > 0
        Most inputs per batch, where `x` is one tensor; batches are nearly equal, as in training.

    Returns
    -------
    torch.Tensor [shape=(n, ...)]
        On the CPU.

    Examples
    --------
    >>> import torch
    >>> forward(torch.nn.Flatten(), torch.zeros(100, 2, 3)).shape
    torch.Size([100, 6])
    """
    parameters = network.parameters() if isinstance(network, torch.nn.Module) else ()
    device = next((parameter.device for parameter in parameters), None)
    batches = x.tensor_split(max(1, -(-len(x) // batch_size))) if isinstance(x, torch.Tensor) else x
    # Not inference_mode: a module may store a tensor that a later pass with gradients needs.
    with torch.no_grad():
        return torch.cat([network(batch.to(device)).cpu() for batch in batches])


def over_shifts(
    network: Callable[[torch.Tensor], torch.Tensor], n_shifts: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that is the mean of a network's outputs over circular shifts of its inputs in time.

    Parameters
    ----------
    network : callable
        Takes inputs [shape=(n, channels, n_mels, width)].
    n_shifts : int >= 0
        Besides as they are, inputs are shifted by 1 to `n_shifts` times the width over ``n_shifts + 1``. 0: `network`
        itself is returned.

    Examples
    --------
    >>> import torch
    >>> first = over_shifts(lambda x: x[:, 0, 0, :1], 3)
    >>> first(torch.arange(8.0).reshape(1, 1, 1, 8))  # of 0, 6, 4 and 2
    tensor([[3.]])
    """
    if n_shifts == 0:
        return network

    def mean(x: torch.Tensor) -> torch.Tensor:
        shifts = (round(i * x.shape[-1] / (n_shifts + 1)) for i in range(1, n_shifts + 1))
        shifted = (x.roll(shift, -1).contiguous(memory_format=torch.channels_last) for shift in shifts)
        return torch.stack([network(x), *map(network, shifted)]).mean(0)

    return mean


@contextlib.contextmanager
def hooked(modules: Mapping[K, torch.nn.Module], hook: Callable[[K, Any], object]) -> Iterator[None]:
    """Call ``hook(key, output)`` whenever one of the modules has run; on leaving, all hooks are removed.

    Examples
    --------
    >>> import torch
    >>> model, names = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), []
    >>> with hooked(dict(model.named_children()), lambda key, output: names.append(key)):
    ...     output = model(torch.zeros(1, 2))
    >>> names
    ['0', '1']
    """

    def call(key: K, module: torch.nn.Module, args: Any, output: Any) -> None:
        hook(key, output)

    with contextlib.ExitStack() as stack:
        for key, module in modules.items():
            stack.callback(module.register_forward_hook(functools.partial(call, key)).remove)
        yield


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device`; on leaving, restore the states that they had before."""
    kind = torch.device(device).type
    with torch.random.fork_rng(devices=[device] if kind == "cuda" else []):
        # torch.manual_seed would reseed the caller's GPUs, too.
        (torch.random.default_generator.manual_seed if kind == "cpu" else torch.manual_seed)(seed)
        yield


def seed_of(*words: object) -> int:
    """Return a seed that depends on the words alone."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:7], "little")


@contextlib.contextmanager
def threads_of(number: int | None) -> Iterator[None]:
    """Use this number of threads in a ``with`` block; None: the present number, but at most one per core."""
    before = torch.get_num_threads()
    # Torch starts one per core of the machine, of which a container may use fewer.
    torch.set_num_threads(number or min(before, cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
