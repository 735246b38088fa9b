"""A timm model as a chain of five blocks and one linear head.

How the blocks are found: timm lists the module at which each level of resolution ends (``model.feature_info``). A
forward pass records which modules ``forward_features`` calls, in order. The last four levels end Blocks 1 to 4; modules
that downsample after a level begin the next block, modules after the last level belong to Block 4, and those before
Block 1 are the stem, Block 0. Run one after the other, the modules must return what ``forward_features`` returns.

Importing this module imports torch, which takes seconds: import it inside the function that needs it.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import timm
import torch
from torch import nn

from transferlens.models.forward import hooked, seed_of
from transferlens.models.plan import RANDOM
from transferlens.util.errors import ParameterError

if TYPE_CHECKING:
    from transferlens.models.plan import Statistics, TransferPlan

LARGEST = 100_000  # height or width [pixels]
PROBE_SIZE = (128, 128)  # height and width [pixels] of the one input that finds the chain


@dataclass(frozen=True)
class Anatomy:
    """The five blocks of a backbone, and the shapes of their parameters and buffers, by timm's names."""

    name: str
    blocks: tuple[tuple[str, ...], ...]  # names of the modules, in the order in which they run
    channels: tuple[int, ...]  # of the output of each block
    strides: tuple[int, ...]  # distance of neighbouring cells of each output [pixels of the input]
    shapes: dict[str, torch.Size]


class _Step(NamedTuple):
    """One module that ``forward_features`` called, and the shape of its output."""

    module: str
    shape: tuple[int, ...]


class _Level(NamedTuple):
    """One entry of timm's ``feature_info``: the steps `first` to `last` run inside its module."""

    first: int
    last: int
    stride: int


def create(name: str) -> nn.Module:
    """Return timm's model `name` without a classifier, randomly initialised by torch's global generator."""
    base, dot, _ = name.partition(".")
    tagged = timm.list_pretrained(f"{base}.*") if dot else []
    if not (name in tagged if dot else timm.is_model(name)):
        known = tagged or timm.list_models()
        near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ParameterError(f"backbone={name!r} is not a model of timm; {hint}")
    return timm.create_model(name, pretrained=False, num_classes=0)


@functools.lru_cache(maxsize=32)
def anatomy(name: str) -> Anatomy:
    """Find the blocks of timm's model `name`, or raise ParameterError; torch's global generator keeps its state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = create(name).eval()
        try:
            return _dissect(name, model)
        except _NotAChain as why:
            raise ParameterError(
                f"backbone={name!r} cannot be cut into a stem and four blocks ({why}); choose a convolutional backbone "
                "with four spatial stages, such as densenet201, resnet50, inception_v3 or tf_efficientnet_lite0"
            ) from None


class _NotAChain(Exception):
    """The reason why a model cannot be cut into five blocks."""


def _dissect(name: str, model: nn.Module) -> Anatomy:
    """Cut the chain of modules after the stem and after each of the last four levels."""
    atoms = dict(_atoms(model))
    x = torch.randn(1, 3, *PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    steps, output = _trace(model, atoms, x)
    _verify(steps, atoms, x, output)
    levels = _levels(model, steps, atoms)
    ends = [_stem_end(levels), *(level.last for level in levels[-4:-1]), len(steps) - 1]
    parts = [steps[first + 1 : last + 1] for first, last in pairwise([-1, *ends])]
    return Anatomy(
        name=name,
        blocks=tuple(tuple(step.module for step in part) for part in parts),
        channels=tuple(part[-1].shape[1] for part in parts),
        strides=_strides(levels, steps, ends),
        shapes={
            f"{step.module}.{key}": tensor.shape
            for step in steps
            for key, tensor in atoms[step.module].state_dict().items()
        },
    )


def _atoms(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and modules of a chain: the children, with plain Sequentials replaced by their children."""
    for name, child in module.named_children():
        if type(child).forward is nn.Sequential.forward:
            yield from _atoms(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _trace(model: nn.Module, atoms: dict[str, nn.Module], x: torch.Tensor) -> tuple[list[_Step], torch.Tensor]:
    """Return the modules that ``forward_features`` calls (no classifier or auxiliary head), and its output."""
    steps: list[_Step] = []

    def note(name: str, output: Any) -> None:
        steps.append(_Step(name, tuple(getattr(output, "shape", ()))))

    try:
        with hooked(atoms, note):
            return steps, model.forward_features(x)  # type: ignore[operator]  # torch takes what timm adds for a tensor
    except (AssertionError, RuntimeError, ValueError, AttributeError) as error:
        raise _NotAChain(f"it does not run on {PROBE_SIZE[0]}x{PROBE_SIZE[1]} pixels") from error


def _verify(steps: list[_Step], atoms: dict[str, nn.Module], x: torch.Tensor, output: torch.Tensor) -> None:
    """Raise if a model is not its modules one after the other, but has skip connections or functions between them."""
    if len({step.module for step in steps}) < len(steps):
        raise _NotAChain("it calls a module twice")
    try:
        y = nn.Sequential(*(atoms[step.module] for step in steps))(x)
        same = torch.allclose(y, output, rtol=1e-5, atol=1e-6)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        same = False
    if not same:
        raise _NotAChain("its modules do not run one after the other")


def _levels(model: nn.Module, steps: list[_Step], atoms: dict[str, nn.Module]) -> list[_Level]:
    """Return the levels of resolution, at least four, each with its own parameters and NCHW output."""
    levels: list[_Level] = []
    for info in getattr(model, "feature_info", None) or []:
        level = _level(info, steps)
        start = levels[-1].last + 1 if levels else 0
        own = [atoms[step.module] for step in steps[start : level.last + 1]]
        if not any(list(atom.parameters()) for atom in own):
            continue  # VGG lists its last pooling as a level
        if levels and levels[-1].stride >= level.stride:
            levels.pop()  # of two levels at one resolution the deeper one counts
        levels.append(level)
    if len(levels) < 4:
        raise _NotAChain(f"it has {len(levels)} levels of resolution")
    return levels


def _level(info: dict, steps: list[_Step]) -> _Level:
    """Find the steps of one entry of ``feature_info``."""
    module, channels = info["module"], info["num_chs"]
    inside = [i for i, step in enumerate(steps) if f"{step.module}.".startswith(f"{module}.")]
    if not inside:
        raise _NotAChain(f"its level {module} ends inside a module")
    shape = steps[inside[-1]].shape
    if len(shape) != 4 or shape[1] != channels:
        raise _NotAChain(f"its level {module} returns {shape}, not (batch, {channels}, height, width)")
    return _Level(inside[0], inside[-1], info["reduction"])


def _stem_end(levels: list[_Level]) -> int:
    """Return the last step of the stem: the end of the level before Block 1's, or the step before Block 1's module."""
    end = levels[-5].last if len(levels) > 4 else levels[-4].first - 1
    if end < 0:
        raise _NotAChain("nothing runs before its first level")
    return end


def _strides(levels: list[_Level], steps: list[_Step], ends: list[int]) -> tuple[int, ...]:
    """Return the stride of each block: timm's where known, as unpadded convolutions shrink maps by more than that."""
    known = {level.last: level.stride for level in levels}
    last = levels[-1]
    after = round(steps[last.last].shape[2] / steps[ends[-1]].shape[2])
    stem = round(PROBE_SIZE[0] / steps[ends[0]].shape[2])
    return (known.get(ends[0], stem), *(known[end] for end in ends[1:-1]), last.stride * after)


def chain(model: nn.Module, blocks: Iterable[Iterable[str]]) -> tuple[nn.Sequential, ...]:
    """Return the blocks of `model`, given by the names of their modules, as modules that can be called."""
    return tuple(nn.Sequential(*map(model.get_submodule, names)) for names in blocks)


class Measures(NamedTuple):
    """What one block takes for one input: see `measure`."""

    parameters: int
    multiply_adds: int
    size: tuple[int, int]
    kept: int
    largest: int


def measure(parts: Anatomy, input_size: tuple[int, int], *, through: int) -> list[Measures]:
    """Return the size and cost of each block up to `through`, for one input in float32.

    They are parameters, multiply-adds, (height, width) of the output, the memory kept for gradients [bytes], and the
    most that the input and output of one module take [bytes]. Raise ParameterError if the input is too small.
    """
    height, width = input_size
    if not (0 < height <= LARGEST and 0 < width <= LARGEST):
        raise ParameterError(f"input_size={height}x{width} must be from 1 to {LARGEST} pixels high and wide")
    with torch.device("meta"):  # only shapes are needed
        blocks = chain(create(parts.name).eval(), parts.blocks[: through + 1])
        x = torch.empty(1, 3, height, width)
    measured = []
    for number, block in enumerate(blocks):
        try:
            x, *costs = _run(block, x)
        except RuntimeError as error:
            cut = "" if number < 2 else f", or cut the network (truncate_after={number - 1})"
            raise ParameterError(
                f"input_size={height}x{width} is too small for {parts.name}: Block {number} cannot be computed; "
                f"use a larger input (width){cut}"
            ) from error
        parameters, (rows, columns) = sum(p.numel() for p in block.parameters()), x.shape[2:]
        measured.append(Measures(parameters, costs[0], (rows, columns), *costs[1:]))
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
        if isinstance(layers[name], nn.Conv2d | nn.Linear):
            # Each weight of an output channel (the first axis) is used once for each number that channel gives.
            counts.append(output.numel() * layers[name].weight[0].numel())
        sizes.append(getattr(output, "nbytes", 0))

    with hooked(layers, note), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = block(x)
    for tensor in block.state_dict().values():
        kept.pop(tensor.untyped_storage()._cdata, None)
    return y.detach(), sum(counts), sum(kept.values()), max(map(sum, pairwise(sizes)))


class Network(nn.Module):
    """A backbone cut after one of its blocks, global average pooling, and a linear head.

    Nothing else is between the last block and the head, in any architecture, except for `dropout`, which is 0 unless
    `torchvision.adapt` sets it. The last convolution of MobileNetV3 and the last normalisation of ConvNeXt work on
    pooled features: they are part of timm's head and are left out.
    `transferlens.models.build.build` constructs it.

    Attributes
    ----------
    backbone : nn.Module
        The kept modules, under timm's names; its own ``forward`` does not work.
    dropout : nn.Dropout
        Before the head, in training.
    head : nn.Linear
        The classifier.
    blocks : tuple of nn.Sequential
        The kept blocks: the modules of `backbone`, not registered a second time.
    width : int
        Channels of the last kept block.
    plan : TransferPlan
    """

    def __init__(self, backbone: nn.Module, parts: Anatomy, *, n_classes: int, plan: TransferPlan) -> None:
        super().__init__()
        kept = [parts.blocks[block] for block in plan.blocks]
        _prune(backbone, keep={name for names in kept for name in names})
        self.backbone = backbone
        self.width = parts.channels[plan.truncate_after]
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(self.width, n_classes)
        self.plan = plan
        self.blocks = chain(backbone, kept)
        self._homes = {name: block for block, names in enumerate(kept) for name in names}
        self._frozen = [block for block in plan.blocks if plan.is_frozen(block)]
        for block in plan.blocks:
            if plan.train[block] != "A":
                self.blocks[block].requires_grad_(False)
            if plan.train[block] == "N":
                for layer in normalisations(self.blocks[block]):
                    layer.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> Network:
        """Set training mode, except for frozen blocks: there only BatchNorm, and only if its statistics are updated."""
        super().train(mode)
        for block in self._frozen:
            self.blocks[block].eval()
            for module in self.blocks[block].modules() if self.plan.bn == "updating" else ():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.training = mode  # not train(mode), as timm's contain dropout
        return self

    def load_pretrained(self, states: Mapping[str, Mapping[str, torch.Tensor]], *, seed: int = 0) -> None:
        """Start blocks from the sources that the plan names for them.

        Parameters
        ----------
        states : mapping of str to mapping of str to torch.Tensor
            The tensors of each source, under timm's names, by the capital letter of the source in the plan.
        seed : int >= 0
            Of the values of blocks that start from the statistics of a source.
        """
        with torch.no_grad():
            for name, tensor in self.backbone.state_dict().items():
                block = self.block_of(f"backbone.{name}")
                letter = self.plan.start[block] if block != "head" else RANDOM
                if letter == RANDOM:
                    continue
                source = states[letter.upper()][name]
                if letter.islower():
                    # Variances are permuted in any case: what is drawn from a normal distribution may be negative.
                    how = "permuted" if name.endswith("running_var") else self.plan.statistics
                    source = redrawn(source, how, f"{name}/{seed}")
                tensor.copy_(source)

    def features(self, x: torch.Tensor, *, start: int = 0, through: int | None = None) -> torch.Tensor:
        """Run the blocks `start` to `through`, both included; raise ParameterError if the network lacks one of them.

        Parameters
        ----------
        x : torch.Tensor [shape=(batch, channels, height, width)]
            The input of the network, or for ``start > 0`` the output of block ``start - 1``.
        start, through : int
            By default the stem and the last block kept. If `start` is ``through + 1``, `x` is returned.

        Returns
        -------
        torch.Tensor [shape=(batch, channels, height, width)]
        """
        last = len(self.blocks) - 1 if through is None else through
        if not 0 <= start <= last + 1 <= len(self.blocks):
            raise ParameterError(f"start={start}, through={last} must be in order, from 0 to {len(self.blocks) - 1}")
        for block in self.blocks[start : last + 1]:
            x = block(x)
        return x

    def forward(self, x: torch.Tensor, *, start: int = 0) -> torch.Tensor:
        """Return the logits [shape=(batch, n_classes)] of inputs, or of the outputs of block ``start - 1``."""
        return self.head(self.dropout(self.features(x, start=start).mean(dim=(2, 3))))

    def block_of(self, name: str) -> int | Literal["head"]:
        """Return the block of a parameter or buffer, or "head", by its name in ``state_dict()``."""
        root, _, path = name.partition(".")
        if root == "head":
            return "head"
        while path and path not in self._homes:
            path = path.rpartition(".")[0]
        if root != "backbone" or not path:
            raise ParameterError(f"name={name!r} is not a parameter or buffer of this network")
        return self._homes[path]


def normalisations(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the normalisation layers in a module: of batches, layers, groups or instances, of torch or timm."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    for layer in module.modules():
        is_other = "norm" in type(layer).__name__.lower() and not any(layer.children())  # such as timm's RmsNorm
        if isinstance(layer, kinds) or is_other:
            yield layer


def redrawn(tensor: torch.Tensor, how: Statistics, words: str) -> torch.Tensor:
    """Return a tensor with the mean and standard deviation of another, but none of its structure.

    Parameters
    ----------
    tensor : torch.Tensor
    how : {"normal", "permuted"}
        Values are drawn from a normal distribution, or are those of the tensor in random order.
    words : str
        Of the seed.

    Returns
    -------
    torch.Tensor [shape of `tensor`, float32]
        Integers, such as BatchNorm's counters, are returned as they are.
    """
    if not tensor.is_floating_point():
        return tensor
    generator = torch.Generator().manual_seed(seed_of(words))
    values = tensor.double().flatten()
    if how == "permuted" or values.numel() == 1:
        return values[torch.randperm(values.numel(), generator=generator)].view_as(tensor).float()
    drawn = torch.randn(values.numel(), generator=generator, dtype=torch.float64)
    drawn = (drawn - drawn.mean()) / drawn.std(correction=0)
    return (values.mean() + values.std(correction=0) * drawn).view_as(tensor).float()


def _prune(module: nn.Module, *, keep: Collection[str], prefix: str = "") -> None:
    """Delete all modules except those in `keep` and their parents."""
    for name, child in list(module.named_children()):
        path = prefix + name
        if path in keep:
            continue
        if any(kept.startswith(f"{path}.") for kept in keep):
            _prune(child, keep=keep, prefix=f"{path}.")
        else:
            delattr(module, name)
