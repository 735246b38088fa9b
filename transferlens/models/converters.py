"""Weights of other libraries' networks under timm's names: networks that were trained on sound and whose twin timm has.

* EfficientAT's ``mn10_as`` [1]_ is torchvision's MobileNetV3-large, whose own weights are understood, too. What its
  BatchNorm adds to variances (1e-3, timm's 1e-5) is added to the running variances, so that blocks in evaluation mode
  compute the same; while they are trained, timm's epsilon and momentum (0.1, not 0.01) hold. EfficientAT's
  squeeze-and-excitation ends in a sigmoid, torchvision's and timm's in its piecewise linear form: gates differ by up to
  0.07.
* ConvNeXt-Tiny trained on AudioSet [2]_ has the names of Meta's ConvNeXt. Its images have time along the height and mel
  bands along the width, here it is the other way round: its filters are transposed. Two of its parts timm's network
  lacks: the BatchNorm of each of 224 mel bands before the stem, and four frames of padding at both ends.

References
----------
.. [1] F. Schmid, K. Koutini, G. Widmer: Efficient large-scale audio tagging via transformer-to-CNN knowledge
   distillation. ICASSP 2023. https://github.com/fschmid56/EfficientAT
.. [2] T. Pellegrini, I. Khalfaoui-Hassani, E. Labbé, T. Masquelier: Adapting a ConvNeXt model to audio classification
   on AudioSet. Interspeech 2023. https://github.com/topel/audioset-convnext-inf
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transferlens.util.errors import CheckpointError
from transferlens.util.lazy import timm, torch

_EPSILON = 1e-3  # of BatchNorm in torchvision's MobileNetV3
_ORDER = ("weight", "bias", "running_mean", "running_var")  # of the tensors of a layer
_TENSOR = rf"\.({'|'.join(_ORDER)})"


@dataclass(frozen=True)
class Family:
    """Networks that were published under names which are not timm's.

    Attributes
    ----------
    title : str
    backbones : str
        What the names of their twins in timm begin with.
    twin : str
        The one of those that were trained on audio.
    marker : str
        The name of a tensor that all of them have, and no network of timm.
    convert : callable
        Return the tensors of the blocks by timm's names, from those by published names and timm's model.
    """

    title: str
    backbones: str
    twin: str
    marker: str
    convert: Callable[[Mapping[str, torch.Tensor], Any], dict[str, torch.Tensor]]


def converted(state: dict[str, torch.Tensor], backbone: str, source: str) -> dict[str, torch.Tensor]:
    """Return tensors by timm's names if they have the names of a known family, else as they are.

    What a training framework has written before the names is kept. Raise CheckpointError, which says where the tensors
    are from, if the family does not fit the backbone.
    """
    for family in FAMILIES:
        if prefixes := [name.removesuffix(family.marker) for name in state if name.endswith(family.marker)]:
            break
    else:
        return state
    if not backbone.startswith(family.backbones):
        raise CheckpointError(
            f"{source} holds weights of {family.title}, which do not fit backbone {backbone!r}: give "
            f"backbone={family.twin}"
        )
    with torch.device("meta"):  # only names, shapes and constants are needed
        model = timm.create_model(backbone)
    renamed: dict[str, torch.Tensor] = {}
    for prefix in prefixes:
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        try:
            renamed |= {prefix + name: tensor for name, tensor in family.convert(own, model).items()}
        except (LookupError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{source} holds weights of {family.title} of another size than backbone {backbone!r}: give "
                f"those of its size, or backbone={family.twin} for the networks that were trained on AudioSet"
            ) from error
    return renamed


def _mobilenet(state: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Convert a MobileNetV3: other names in the same order, and linear layers in place of 1x1 convolutions."""
    published = sorted(filter(re.compile(rf"features\..*{_TENSOR}").fullmatch, state), key=_place)
    names = filter(re.compile(rf"(conv_stem|bn1|blocks).*{_TENSOR}").fullmatch, model.state_dict())
    tensors = {name: state[other] for name, other in zip(names, published, strict=True)}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            tensors[name] = tensor[:, :, None, None]
        if name.endswith("running_var"):
            tensors[name] = tensor + (_EPSILON - model.get_submodule(name.rpartition(".")[0]).eps)
    return tensors


def _place(name: str) -> tuple[list[int], int]:
    """Return the place of a tensor in the order of the layers, in which files of safetensors do not have them."""
    return [int(number) for number in re.findall(r"\d+", name)], _ORDER.index(name.rpartition(".")[2])


def _convnext(state: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Convert a ConvNeXt of Meta's names; that of spectrograms, with a norm of mel bands before it, is transposed."""
    from timm.models.convnext import checkpoint_filter_fn

    blocks = {name: tensor for name, tensor in state.items() if name.startswith(("downsample_layers.", "stages."))}
    if "bn0.weight" in state:
        blocks = {name: tensor.mT.contiguous() if tensor.ndim == 4 else tensor for name, tensor in blocks.items()}
    return checkpoint_filter_fn(blocks, model)


FAMILIES = (
    Family(
        "MobileNetV3 of EfficientAT or torchvision",
        "mobilenetv3_",
        "mobilenetv3_large_100",
        "features.1.block.0.0.weight",
        _mobilenet,
    ),
    Family("ConvNeXt", "convnext", "convnext_tiny", "downsample_layers.0.0.weight", _convnext),
)
