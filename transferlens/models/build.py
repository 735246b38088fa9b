"""Build the network of a transfer plan, and compute its cost.

* `build`: the network of a plan, pretrained as the plan says; `skeleton`: the same, entirely randomly initialised
* `block_table`, `cost`: parameters and multiply-adds of the blocks of a backbone, and of the network of a plan

Importing this module does not import torch; its functions do.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transferlens.models.forward import PASS_SIZE, seed_of, seeded
from transferlens.models.plan import BLOCKS
from transferlens.models.weights import imagenet_state
from transferlens.util.errors import ParameterError
from transferlens.util.processes import memory_limit

if TYPE_CHECKING:
    from transferlens.models.anatomy import Anatomy
    from transferlens.models.costs import Measures
    from transferlens.models.network import Network
    from transferlens.models.plan import TransferPlan

# Memory of a pass without gradients, in units of the largest input and output of a module: measured are up to 3.
OVERHEAD = 3
# Memory that such a pass may always take [bytes]: less would slow it down and save next to nothing.
ALWAYS_ALLOWED = 2**28


@dataclass(frozen=True)
class BlockRow:
    """One block in the table of a backbone.

    Attributes
    ----------
    block : int in 0..4
        0 is the stem.
    modules : tuple of str
        timm's names of its modules.
    channels, stride, size
        Of its output: channels, distance of neighbouring cells [pixels of the input], height and width [cells].
    parameters, normalisation, multiply_adds : int
        Trainable parameters, of all layers and of normalisation alone; multiply-adds of the convolutions, linear layers
        and attention for one input: see `costs.measure`.
    share : float in [0, 1]
        Its part of the multiply-adds of all blocks measured.
    kept, largest : int [bytes]
        Memory for one input in float32: what training keeps for gradients; the most that the input and output of one
        module take.
    """

    block: int
    modules: tuple[str, ...]
    channels: int
    stride: int
    size: tuple[int, int]
    parameters: int
    normalisation: int
    multiply_adds: int
    share: float
    kept: int
    largest: int


def check(name: str) -> None:
    """Raise ParameterError if timm does not know the name, or the network cannot be cut into five blocks."""
    from transferlens.models.anatomy import anatomy

    anatomy(name)


def build(
    name: str,
    *,
    n_classes: int,
    plan: TransferPlan,
    weights: str | Path = "auto",
    seed: int = 0,
    input_size: tuple[int, int] = (128, 250),
) -> Network:
    """Build the network of a transfer plan, with ImageNet weights in the blocks that the plan starts from them.

    All other tensors are randomly initialised. They depend on `name`, `n_classes` and `seed` alone, not on the plan,
    except that the head depends on its number of inputs, and a network made for one size of input on that size.
    Torch's global generator keeps its state.

    Parameters
    ----------
    name : str
        timm's name of a model, such as ``densenet201``, ``resnet50.a1_in1k`` or ``vit_tiny_patch16_224``.
    n_classes : int > 0
        Number of outputs.
    plan : TransferPlan
        Which blocks are pretrained, frozen and cut.
    weights : str or Path
        A weights file, or "auto" (see `transferlens.models.weights`). Ignored if the plan pretrains no block.
    seed : int >= 0
        Of the random initialisation.
    input_size : tuple of int > 0 [pixels]
        Height and width of the input. Only transformers depend on it: positions of pretrained weights are resampled,
        and inputs are padded with zeros on the right and at the bottom (see `transferlens.models.network`).

    Returns
    -------
    Network
        In training mode, on the CPU.

    Raises
    ------
    ParameterError
        If an argument has a value that is not allowed, or the network cannot be cut into five blocks.
    CheckpointError
        If weights are needed and are not available, cannot be read, or belong to another network.

    Examples
    --------
    >>> from transferlens.models.plan import TransferPlan
    >>> net = build("resnet18", n_classes=10, plan=TransferPlan(pretrained_through=None, truncate_after=2))
    >>> net.head
    Linear(in_features=128, out_features=10, bias=True)
    """
    if len(plan.letters) > 1:
        raise ParameterError(f"plan={str(plan)!r} names {len(plan.letters)} sources: `Study` takes several, build one")
    # Weights first: an error about them comes before the time that building takes.
    states = {letter: imagenet_state(name, weights).state for letter in plan.letters}
    network = skeleton(name, n_classes=n_classes, plan=plan, seed=seed, input_size=input_size)
    network.load_pretrained(states, seed=seed)
    return network


def skeleton(
    name: str, *, n_classes: int, plan: TransferPlan, seed: int = 0, input_size: tuple[int, int] = (128, 250)
) -> Network:
    """Build the network of a transfer plan entirely randomly initialised; parameters and errors as for `build`."""
    from transferlens.models.anatomy import anatomy, create
    from transferlens.models.network import Network

    for argument, value, least in (("n_classes", n_classes, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
            raise ParameterError(f"{argument}={value!r} must be an integer of at least {least}")
    parts = anatomy(name)
    with seeded(seed_of(name, "backbone", seed)):
        backbone = create(name, parts.made_for(input_size))
    with seeded(seed_of(name, "head", n_classes, seed)):
        return Network(backbone, parts, n_classes=int(n_classes), plan=plan)


@functools.lru_cache(maxsize=32)
def block_table(name: str, *, input_size: tuple[int, int] = (128, 250), through: int = 4) -> tuple[BlockRow, ...]:
    """Measure the size and cost of each block of a backbone.

    Parameters
    ----------
    name : str
        timm's name of a model.
    input_size : tuple of int > 0 [pixels]
        Height and width of the input.
    through : int in 0..4
        The last block that is measured.

    Returns
    -------
    tuple of BlockRow
        The stem first; the head is not included.

    Raises
    ------
    ParameterError
        If timm does not know the name, the network cannot be cut into five blocks, or the input is too small for it.

    Examples
    --------
    >>> [row.channels for row in block_table("resnet18")]
    [64, 64, 128, 256, 512]
    """
    from transferlens.models.anatomy import anatomy

    parts = anatomy(name)
    try:
        measured = _measured(name, input_size, BLOCKS[-1])[: through + 1]
    except ParameterError:  # it may be large enough for these blocks
        measured = _measured(name, input_size, through)
    total = sum(block.multiply_adds for block in measured)
    return tuple(
        BlockRow(
            number,
            _condense(parts, number),
            channels=parts.channels[number],
            stride=parts.strides[number],
            share=block.multiply_adds / total,
            **block._asdict(),
        )
        for number, block in enumerate(measured)
    )


@functools.lru_cache(maxsize=32)
def _measured(name: str, input_size: tuple[int, int], through: int) -> tuple[Measures, ...]:
    """Return what the blocks of a backbone take for one input; errors as in `block_table`."""
    from transferlens.models.anatomy import anatomy
    from transferlens.models.costs import measure

    return tuple(measure(anatomy(name), input_size, through=through))


@dataclass(frozen=True)
class Cost:
    """The cost of the network of a plan: its kept blocks and its head; multiply-adds are those of one input.

    `kept` and `largest` are memory for one input, as in `BlockRow`: the sum of the trained blocks, the most of all.
    """

    parameters: int
    trainable_parameters: int
    multiply_adds: int
    kept: int
    largest: int

    def training_memory(self, batch_size: int, *, bf16: bool = False) -> int:
        """Return the least memory that training takes besides features [bytes]; it takes up to twice as much."""
        # Weights, and of those that are trained the gradient and two moments; bf16 halves what is kept.
        return batch_size * self.kept // (2 if bf16 else 1) + 4 * (self.parameters + 3 * self.trainable_parameters)

    def pass_size(self, memory: float | None = None) -> int:
        """Return how many inputs may go through the network at once, on a processor and without gradients.

        It is `PASS_SIZE`, or if fewer fit in `memory` [bytes] (default: half of what the container may use) as many as
        do, but at least 2, and as many as fit in `ALWAYS_ALLOWED`. Sums of fewer inputs are rounded differently,
        therefore the memory that other programs take at the moment does not count.
        """
        room = memory_limit() / 2 if memory is None else memory
        return max(2, int(min(PASS_SIZE, max(room, ALWAYS_ALLOWED) // (OVERHEAD * self.largest))))


def cost(name: str, *, n_classes: int, plan: TransferPlan, input_size: tuple[int, int] = (128, 250)) -> Cost:
    """Return the cost of the network of a plan; parameters as for `build` and `block_table`."""
    rows = block_table(name, input_size=input_size, through=plan.truncate_after)
    trained = {"A": lambda row: row.parameters, "N": lambda row: row.normalisation, "F": lambda row: 0}
    width = rows[-1].channels
    head = (width + 1) * n_classes
    return Cost(
        parameters=head + sum(row.parameters for row in rows),
        trainable_parameters=head + sum(trained[plan.train[row.block]](row) for row in rows),
        multiply_adds=width * n_classes + sum(row.multiply_adds for row in rows),
        kept=sum(row.kept for row in rows[plan.n_frozen :]),  # gradients go through frozen blocks behind others
        largest=max(row.largest for row in rows),
    )


def _condense(parts: Anatomy, number: int) -> tuple[str, ...]:
    """Return the modules of a block, replaced by the outermost containers that lie entirely in it."""
    others = [name for i, names in enumerate(parts.blocks) if i != number for name in names]
    short: dict[str, None] = {}
    for name in parts.blocks[number]:
        steps = name.split(".")
        prefixes = (".".join(steps[:n]) for n in range(1, len(steps) + 1))
        short[next(p for p in prefixes if not any(f"{o}.".startswith(f"{p}.") for o in others))] = None
    return tuple(short)
