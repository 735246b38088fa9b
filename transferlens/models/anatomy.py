"""How a timm model is cut into a chain of five blocks; `transferlens.models.costs` says what each takes.

How the blocks are found: timm lists the module at which each level of resolution ends (``model.feature_info``). A
forward pass records which modules ``forward_features`` calls, in order. The last four levels end Blocks 1 to 4; modules
that downsample after a level begin the next block, modules after the last level belong to Block 4, and those before
Block 1 are the stem, Block 0. Run one after the other, the modules must return what ``forward_features`` returns.
Where all levels have one resolution, as in a ViT, Blocks 1 to 4 are quarters of the depth.

Transformers are made for one size of input (timm's ``img_size``). Inputs are padded on the right and at the bottom with
zeros, as timm's ``dynamic_img_pad`` does, to multiples of the stride of the last block: 128 x 250 becomes 128 x 256 for
patches of 16 pixels. The last columns of the last patches then hold zeros, and count as much as the others.

Importing this module imports torch, which takes seconds: import it inside the function that needs it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import nn

from transferlens.models.forward import hooked
from transferlens.util.errors import ParameterError

PROBE_SIZE = (128, 128)  # height and width [pixels] of the one input that finds the chain
Layout = Literal["NCHW", "NHWC", "NLC"]  # axes of what modules return: batch, channels, height, width, length
_ERRORS = (AssertionError, AttributeError, RuntimeError, TypeError, ValueError)  # of models on inputs they do not take


@dataclass(frozen=True)
class Anatomy:
    """The five blocks of a backbone, and the shapes of their parameters and buffers, by timm's names.

    The shapes are those of timm's own size of input, which its weights have.
    """

    name: str
    blocks: tuple[tuple[str, ...], ...]  # names of the modules, in the order in which they run
    channels: tuple[int, ...]  # of the output of each block
    strides: tuple[int, ...]  # distance of neighbouring cells of each output [pixels of the input]
    shapes: dict[str, torch.Size]
    layout: Layout = "NCHW"  # of what the modules return
    multiple: int = 1  # to which inputs are padded [pixels], of a network that is made for one size of input

    def made_for(self, input_size: tuple[int, int]) -> tuple[int, int] | None:
        """Return the size of input (height, width) that timm makes the network for; None if it takes all sizes."""
        height, width = (-(-length // self.multiple) * self.multiple for length in input_size)
        return (height, width) if self.multiple > 1 else None

    def shapes_for(self, input_size: tuple[int, int]) -> dict[str, torch.Size]:
        """Return the shapes for a size of input (height, width), on which only transformers depend."""
        size = self.made_for(input_size)
        if size is None:
            return self.shapes
        with torch.device("meta"):  # only shapes are needed
            state = create(self.name, size).state_dict()
        return {name: state[name].shape for name in self.shapes}


class _Step(NamedTuple):
    """One module that ``forward_features`` called, and the shape of its output."""

    module: str
    shape: tuple[int, ...]


class _Level(NamedTuple):
    """One entry of timm's ``feature_info``: the steps `first` to `last` run inside its module."""

    first: int
    last: int
    stride: int


def create(name: str, size: tuple[int, int] | None = None) -> nn.Module:
    """Return timm's model `name` without a classifier, randomly initialised by torch's global generator.

    `size` is that of its input (see `Anatomy.made_for`); None: timm's own.
    """
    base, dot, _ = name.partition(".")
    tagged = timm.list_pretrained(f"{base}.*") if dot else []
    if not (name in tagged if dot else timm.is_model(name)):
        known = tagged or timm.list_models()
        near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ParameterError(f"backbone={name!r} is not a model of timm; {hint}")
    options: dict[str, Any] = {"img_size": size} if size else {}
    return timm.create_model(name, pretrained=False, num_classes=0, **options)


@functools.lru_cache(maxsize=32)
def anatomy(name: str) -> Anatomy:
    """Find the blocks of timm's model `name`, or raise ParameterError; torch's global generator keeps its state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = create(name).eval()
        try:
            return _dissect(name, model)
        except _NotAChain as why:
            raise ParameterError(
                f"backbone={name!r} cannot be cut into a stem and four blocks ({why}); choose a network with four "
                "stages, such as densenet201, resnet50, tf_efficientnet_lite0 or swin_tiny_patch4_window7_224, or a ViT"
            ) from None


class _NotAChain(Exception):
    """The reason why a model cannot be cut into five blocks."""


def _dissect(name: str, native: nn.Module) -> Anatomy:
    """Cut the chain of modules after the stem and after each of the last four levels."""
    model, x, multiple = _sized(name, native)
    atoms = dict(_atoms(model))
    steps, output = _trace(model, atoms, x)
    _verify(model, steps, x, output)
    levels, layout = _levels(model, steps, atoms)
    ends = [_stem_end(levels), *(level.last for level in levels[-4:-1]), len(steps) - 1]
    if any(len(steps[end].shape) != len(layout) for end in ends):
        raise _NotAChain("what its stem returns has other axes than what its stages return")
    parts = [steps[first + 1 : last + 1] for first, last in pairwise([-1, *ends])]
    shapes = {key: tensor.shape for step in steps for key, tensor in _tensors(native, step.module)}
    if model is not native:
        _check_weights(model, native, shapes)
    if layout == "NLC" and not hasattr(getattr(model, "patch_embed", None), "grid_size"):
        raise _NotAChain("its tokens are not those of patches on a grid")
    return Anatomy(
        name=name,
        blocks=tuple(tuple(step.module for step in part) for part in parts),
        channels=tuple(part[-1].shape[layout.index("C")] for part in parts),
        strides=_strides(levels, steps, ends, layout, x.shape[2]),
        shapes=shapes,
        layout=layout,
        multiple=multiple,
    )


def _sized(name: str, native: nn.Module) -> tuple[nn.Module, torch.Tensor, int]:
    """Return a model, an input of about `PROBE_SIZE` that it takes, and the multiple that its inputs are padded to.

    It is `native` itself, unless that takes only one size of input and timm makes it for others.
    """
    x = torch.randn(1, 3, *PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    if not any("img_size" in inspect.signature(kind).parameters for kind in type(native).__mro__):
        return native, x, 1
    try:
        native.forward_features(x[..., :-3])  # type: ignore[operator]  # torch takes what timm adds for a tensor
        return native, x, 1
    except _ERRORS:
        multiple = max((info["reduction"] for info in getattr(native, "feature_info", None) or []), default=1)
    x = _padded(x, multiple)
    try:
        return create(name, (x.shape[2], x.shape[3])).eval(), x, multiple
    except _ERRORS as error:
        raise _NotAChain(f"timm makes it for {_own_size(native)} pixels only") from error


def _own_size(model: nn.Module) -> str:
    return "x".join(map(str, getattr(model, "pretrained_cfg", {}).get("input_size", (0, "?", "?"))[1:]))


def _check_weights(model: nn.Module, native: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
    """Raise if timm's weights cannot be resampled for another size of input."""
    own, state = model.state_dict(), native.state_dict()
    try:
        fitted = resampled(model, {name: state[name] for name in shapes})
        misfit = [name for name in shapes if fitted[name].shape != own[name].shape]
    except (*_ERRORS, KeyError) as error:
        raise _NotAChain(f"timm does not resample its weights, which fit {_own_size(native)} pixels") from error
    if misfit:
        raise _NotAChain(f"its weights fit inputs of {_own_size(native)} pixels only: {misfit[0]} has another shape")


def resampled(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights of timm's own size of input for a model of another: positions are interpolated as timm does."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    with warnings.catch_warnings():  # timm's interpolation calls torch in ways that it will not allow for ever
        warnings.simplefilter("ignore")
        return convert(state, model) if convert else state


def check_grid(model: nn.Module) -> None:
    """Raise if position embeddings of another grid of as many patches would be taken for those of the model."""
    patches: Any = getattr(model, "patch_embed", None)
    if not hasattr(model, "pos_embed") or not getattr(patches, "grid_size", None):
        return
    configuration: Any = model.pretrained_cfg
    (height, width), (down, across) = configuration["input_size"][1:], patches.patch_size
    own, here = (height // down, width // across), tuple(patches.grid_size)
    if own != here and own[0] * own[1] == here[0] * here[1]:
        raise ParameterError(
            f"an input of {here[0]}x{here[1]} patches has as many as timm's own of {own[0]}x{own[1]}, so that position "
            "embeddings cannot be told apart: use another width"
        )


class _Tokens(nn.Module):
    """What a ViT does after its patch embedding: it adds its class token and its position embedding.

    That is a function of timm's model, whose last call is its module ``pos_drop``: it has the name of this module.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.pos_drop = model.pos_drop
        self._model = [model]  # in a list, so that it is not registered in a part of itself

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._model[0]._pos_embed(x)  # type: ignore[operator]


def _module(model: nn.Module, name: str) -> nn.Module:
    """Return the module of a step of the chain."""
    return _Tokens(model) if name == "pos_drop" and hasattr(model, "_pos_embed") else model.get_submodule(name)


def _tensors(model: nn.Module, step: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters and buffers of a step by their names in the model."""
    module = _module(model, step)
    yield from module.state_dict(prefix="" if isinstance(module, _Tokens) else f"{step}.").items()


def _padded(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad an input with zeros on the right and at the bottom, to multiples of a number of pixels."""
    bottom, right = (-length % multiple for length in x.shape[2:])
    return nn.functional.pad(x, (0, right, 0, bottom)) if bottom or right else x


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
    except _ERRORS as error:
        why = f"it does not run on {x.shape[2]}x{x.shape[3]} pixels, but on {_own_size(model)}"
        raise _NotAChain(why) from error


def _verify(model: nn.Module, steps: list[_Step], x: torch.Tensor, output: torch.Tensor) -> None:
    """Raise if a model is not its modules one after the other, but has skip connections or functions between them."""
    if len({step.module for step in steps}) < len(steps):
        raise _NotAChain("it calls a module twice")
    try:
        y = nn.Sequential(*(_module(model, step.module) for step in steps))(x)
        same = torch.allclose(y, output, rtol=1e-5, atol=1e-6)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        same = False
    if not same:
        raise _NotAChain("its modules do not run one after the other")


def _levels(model: nn.Module, steps: list[_Step], atoms: dict[str, nn.Module]) -> tuple[list[_Level], Layout]:
    """Return the levels of resolution, at least four, each with its own parameters, and the axes of their outputs.

    If there is one resolution, they are quarters of the depth.
    """
    infos = list(getattr(model, "feature_info", None) or [])
    layout = _layout(infos, steps)
    listed = [_level(info, steps) for info in infos]
    if len(listed) >= 4 and len({level.stride for level in listed}) == 1:
        return _quarters(listed), layout
    levels: list[_Level] = []
    for level in listed:
        start = levels[-1].last + 1 if levels else 0
        own = [atoms[step.module] for step in steps[start : level.last + 1]]
        if not any(list(atom.parameters()) for atom in own):
            continue  # VGG lists its last pooling as a level
        if levels and levels[-1].stride >= level.stride:
            levels.pop()  # of two levels at one resolution the deeper one counts
        levels.append(level)
    if len(levels) < 4:
        raise _NotAChain(f"it has {len(levels)} levels of resolution")
    return levels, layout


def _quarters(listed: list[_Level]) -> list[_Level]:
    """Return four levels of as many of those that timm lists."""
    depth, rest = divmod(len(listed), 4)
    if rest:
        raise _NotAChain(f"it has one resolution, and its depth of {len(listed)} is not a multiple of 4")
    return [_Level(listed[i].first, listed[i + depth - 1].last, listed[i].stride) for i in range(0, len(listed), depth)]


def _level(info: dict, steps: list[_Step]) -> _Level:
    """Find the steps of one entry of ``feature_info``."""
    inside = _inside(info, steps)
    return _Level(inside[0], inside[-1], info["reduction"])


def _inside(info: dict, steps: list[_Step]) -> list[int]:
    """Return the places of the steps in the module of one entry of ``feature_info``."""
    inside = [i for i, step in enumerate(steps) if f"{step.module}.".startswith(f"{info['module']}.")]
    if not inside:
        raise _NotAChain(f"its level {info['module']} ends inside a module")
    return inside


def _layout(infos: list[dict], steps: list[_Step]) -> Layout:
    """Return the axes of what all levels return."""
    outputs = [(info, steps[_inside(info, steps)[-1]].shape) for info in infos]
    layout: Layout
    for layout in ("NCHW", "NHWC", "NLC"):
        channel = layout.index("C")
        if all(len(shape) == len(layout) and shape[channel] == info["num_chs"] for info, shape in outputs):
            return layout
    info, shape = next((info, shape) for info, shape in outputs if len(shape) != 4 or shape[1] != info["num_chs"])
    raise _NotAChain(f"its level {info['module']} returns {shape}, not (batch, {info['num_chs']}, height, width)")


def _stem_end(levels: list[_Level]) -> int:
    """Return the last step of the stem: the end of the level before Block 1's, or the step before Block 1's module."""
    end = levels[-5].last if len(levels) > 4 else levels[-4].first - 1
    if end < 0:
        raise _NotAChain("nothing runs before its first level")
    return end


def _strides(levels: list[_Level], steps: list[_Step], ends: list[int], layout: Layout, height: int) -> tuple[int, ...]:
    """Return the stride of each block: timm's where known, as unpadded convolutions shrink maps by more than that."""
    known = {level.last: level.stride for level in levels}
    last = levels[-1]
    if layout == "NLC":
        return (last.stride,) * len(ends)
    rows = layout.index("H")
    after = round(steps[last.last].shape[rows] / steps[ends[-1]].shape[rows])
    stem = round(height / steps[ends[0]].shape[rows])
    return (known.get(ends[0], stem), *(known[end] for end in ends[1:-1]), last.stride * after)


class _Block(nn.Sequential):
    """The modules of a block, from state to state [shape=(batch, channels, height, width)].

    Tokens, with those before the patches, are a state of height 1. The first block takes inputs instead.
    """

    def __init__(self, modules: Iterable[nn.Module], layout: Layout, multiple: int = 0) -> None:
        super().__init__(*modules)
        self.layout, self.multiple = layout, multiple

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output as a map [shape=(batch, channels, height, width)], whatever the layout of the block."""
        y = super().forward(_padded(x, self.multiple) if self.multiple else self._unpacked(x))
        if self.layout == "NLC":
            return y.transpose(1, 2).unsqueeze(2)
        return y.permute(0, 3, 1, 2) if self.layout == "NHWC" else y

    def _unpacked(self, x: torch.Tensor) -> torch.Tensor:
        if self.layout == "NLC":
            return x.flatten(2).transpose(1, 2)
        return x.permute(0, 2, 3, 1) if self.layout == "NHWC" else x


def chain(model: nn.Module, parts: Anatomy, *, through: int) -> tuple[nn.Sequential, ...]:
    """Return the blocks of `model` up to `through` as modules that can be called."""
    return tuple(
        _Block((_module(model, name) for name in names), parts.layout, 0 if number else parts.multiple)
        for number, names in enumerate(parts.blocks[: through + 1])
    )


def to_map(model: nn.Module, parts: Anatomy, state: torch.Tensor) -> torch.Tensor:
    """Return the state after a block as a map: of tokens those of the patches, where these are in the input."""
    if parts.layout != "NLC":
        return state
    tokens: Any = model  # which timm's class describes
    return state[..., tokens.num_prefix_tokens :].squeeze(2).unflatten(2, tokens.patch_embed.grid_size)


def normalisations(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the normalisation layers in a module: of batches, layers, groups or instances, of torch or timm."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    for layer in module.modules():
        is_other = "norm" in type(layer).__name__.lower() and not any(layer.children())  # such as timm's RmsNorm
        if isinstance(layer, kinds) or is_other:
            yield layer
