"""Build the network of a transfer plan, and count what it costs."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transferlens.models.forward import seeded
from transferlens.util.errors import CheckpointError, ParameterError

if TYPE_CHECKING:
    from transferlens.models.network import Anatomy, Network
    from transferlens.models.plan import TransferPlan
    from transferlens.models.weights import Weights

__all__ = ["BlockRow", "Cost", "block_table", "build", "check", "cost", "imagenet_state", "skeleton"]


@dataclass(frozen=True)
class BlockRow:
    """One block in the table of a backbone.

    Attributes
    ----------
    block : int in 0..4
        0 is the stem.
    modules : tuple of str
        timm's names of what it is made of.
    channels, stride : int
        Of its output.
    size : tuple of 2 int [pixels]
        Height and width of its output.
    parameters : int
        Trainable numbers in it.
    multiply_adds : int
        Of its convolutions and linear layers, for one input.
    share : float in [0, 1]
        Of the multiply-adds of the blocks measured.
    """

    block: int
    modules: tuple[str, ...]
    channels: int
    stride: int
    size: tuple[int, int]
    parameters: int
    multiply_adds: int
    share: float


def check(name: str) -> None:
    """Refuse a name that is no backbone, before anything is loaded for it.

    Raises
    ------
    ParameterError
        If timm does not know the name, or the model has no four stages.
    """
    from transferlens.models.network import anatomy

    anatomy(name)


def build(name: str, *, n_classes: int, plan: TransferPlan, weights: str | Path = "auto", seed: int = 0) -> Network:
    """Build the network of a transfer plan: ImageNet weights where the plan has them, fresh ones elsewhere.

    A fresh tensor depends on `name`, `n_classes` and `seed` alone, never on the plan; only the head also
    depends on the width it stands on. Torch's global generator is left as it was.

    Parameters
    ----------
    name : str
        timm's name of a convolutional model, such as ``densenet201`` or ``resnet50.a1_in1k``.
    n_classes : int > 0
        Width of the output.
    plan : TransferPlan
        What is pretrained, frozen and cut.
    weights : str or Path
        A weights file, or "auto" (see `imagenet_state`). Not looked at where the plan pretrains nothing.
    seed : int >= 0
        Of the fresh tensors.

    Returns
    -------
    Network
        In training mode, on the CPU.

    Raises
    ------
    ParameterError
        If an argument is outside its rule, or the model has no four stages.
    CheckpointError
        If weights are needed and cannot be had, or are another network's.

    Examples
    --------
    >>> from transferlens.models.plan import TransferPlan
    >>> net = build("resnet18", n_classes=10, plan=TransferPlan(pretrained_through=None, truncate_after=2))
    >>> net.head
    Linear(in_features=128, out_features=10, bias=True)
    """
    # Weights first: what is most often missing is refused before anything is built.
    found = None if plan.pretrained_through is None else imagenet_state(name, weights)
    network = skeleton(name, n_classes=n_classes, plan=plan, seed=seed)
    if found is not None:
        network.load_pretrained(found.state)
    return network


def skeleton(name: str, *, n_classes: int, plan: TransferPlan, seed: int = 0) -> Network:
    """Build the network of a plan with all tensors fresh: to be pretrained by `build`, or to load a run into.

    Parameters and errors are those of `build`; no weights are looked for.
    """
    from transferlens.models.network import Network, anatomy, create

    for word, value, least in (("n_classes", n_classes, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
            raise ParameterError(f"{word}={value!r} must be an integer of at least {least}")
    parts = anatomy(name)
    with seeded(_seed(name, "backbone", seed)):
        backbone = create(name)
    with seeded(_seed(name, "head", n_classes, seed)):
        return Network(backbone, parts, n_classes=int(n_classes), plan=plan)


def _seed(*words: object) -> int:
    """Return a seed that depends on the words alone."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:7], "little")


def imagenet_state(name: str, weights: str | Path = "auto", *, sha256: str | None = None) -> Weights:
    """Find ImageNet weights for timm's model `name`: see `transferlens.weights.imagenet_state`.

    Raises
    ------
    CheckpointError
        Also where `sha256` is given and the weights found have another one.
    """
    from transferlens.models.weights import imagenet_state as find

    found = find(name, weights)
    if sha256 not in (None, found.sha256):
        raise CheckpointError(
            f"{found.source} holds ImageNet weights with sha256 {found.sha256[:12]}, and the run started from "
            f"{sha256[:12]}: give the weights that it was trained from"
        )
    return found


@functools.lru_cache(maxsize=32)
def block_table(name: str, *, input_size: tuple[int, int] = (128, 250), through: int = 4) -> tuple[BlockRow, ...]:
    """Measure the blocks of a backbone.

    Parameters
    ----------
    name : str
        timm's name of a convolutional model.
    input_size : tuple of int > 0 [pixels]
        Height and width of the input that multiply-adds are counted for.
    through : int in 0..4
        The last block that is measured.

    Returns
    -------
    tuple of BlockRow
        The stem first; the head is not counted.

    Raises
    ------
    ParameterError
        If timm does not know the name, the model has no four stages, or the input is too small for it.
    """
    from transferlens.models.network import anatomy, measure

    parts = anatomy(name)
    parameters, counts, sizes = measure(parts, input_size, through=through)
    return tuple(
        BlockRow(
            block=number,
            modules=_condense(parts, number),
            channels=parts.channels[number],
            stride=parts.strides[number],
            size=sizes[number],
            parameters=parameters[number],
            multiply_adds=counts[number],
            share=counts[number] / sum(counts),
        )
        for number in range(through + 1)
    )


@dataclass(frozen=True)
class Cost:
    """What the network of a plan costs.

    Attributes
    ----------
    parameters, trainable_parameters : int
        Numbers in the blocks kept and in the head, and those of them that are trained.
    multiply_adds : int
        Of the convolutions and linear layers, for one input.
    """

    parameters: int
    trainable_parameters: int
    multiply_adds: int


def cost(name: str, *, n_classes: int, plan: TransferPlan, input_size: tuple[int, int] = (128, 250)) -> Cost:
    """Count what the network of a plan costs; arguments are those of `build` and `block_table`, errors the latter's."""
    rows = block_table(name, input_size=input_size, through=plan.truncate_after)
    width = rows[-1].channels
    head = (width + 1) * n_classes
    return Cost(
        parameters=head + sum(row.parameters for row in rows),
        trainable_parameters=head + sum(row.parameters for row in rows if not plan.is_frozen(row.block)),
        multiply_adds=width * n_classes + sum(row.multiply_adds for row in rows),
    )


def _condense(parts: Anatomy, number: int) -> tuple[str, ...]:
    """Name a block's modules by the outermost containers that lie in it wholly."""
    others = [name for i, names in enumerate(parts.blocks) if i != number for name in names]
    short: dict[str, None] = {}
    for name in parts.blocks[number]:
        steps = name.split(".")
        prefixes = (".".join(steps[:n]) for n in range(1, len(steps) + 1))
        short[next(p for p in prefixes if not any(f"{o}.".startswith(f"{p}.") for o in others))] = None
    return tuple(short)
