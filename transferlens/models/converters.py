"""Weights of other libraries' networks under timm's names: networks that were trained on sound and whose twin timm has.

* torchvision's MobileNetV3, and EfficientAT's, trained on AudioSet (``mn10_as``) [1]_: for ``mobilenetv3_large_100``
* Meta's ConvNeXt, and one trained on AudioSet [2]_: for ``convnext_tiny``

What is left out is not part of the blocks: classifiers, spectrograms, and the second network's BatchNorm of its input.
EfficientAT's squeeze-and-excitation ends in a sigmoid, timm's in its piecewise linear form: outputs differ by that.

References
----------
.. [1] F. Schmid, K. Koutini, G. Widmer: Efficient large-scale audio tagging via transformer-to-CNN knowledge
   distillation. ICASSP 2023.
.. [2] T. Pellegrini, I. Khalfaoui-Hassani, E. Labbé, T. Masquelier: Adapting a ConvNeXt model to audio classification
   on AudioSet. Interspeech 2023.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from transferlens.util.lazy import timm, torch

if TYPE_CHECKING:
    from torch import Tensor

# A name that only networks of a family have, and timm's network that its weights fit.
FAMILIES = {"features.0.0.weight": "mobilenetv3_large_100", "downsample_layers.0.0.weight": "convnext_tiny"}
# What BatchNorm adds to variances: torchvision's MobileNetV3, and timm's.
EPS, TIMM_EPS = 1e-3, 1e-5
_KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def family(state: Mapping[str, Tensor]) -> str:
    """Return timm's name of a network that foreign weights fit, by their names; "" if they are of no known family."""
    return next((backbone for name, backbone in FAMILIES.items() if name in state), "")


def converted(backbone: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return foreign weights under timm's names, if they are of the family of a backbone; others as they are."""
    base, kind = backbone.partition(".")[0], family(state)
    if kind == "mobilenetv3_large_100" and base.startswith("mobilenetv3_"):
        return _mobilenet(backbone, state)
    if kind == "convnext_tiny" and base.startswith("convnext"):
        own = {name: tensor for name, tensor in state.items() if re.match(r"(downsample_layers|stages)\.", name)}
        try:
            return timm.models.convnext.checkpoint_filter_fn(own, _on_meta(backbone))
        except (KeyError, RuntimeError):  # a larger or smaller network
            return dict(state)
    return dict(state)


def _on_meta(backbone: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(backbone, pretrained=False, num_classes=0)


def _mobilenet(backbone: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of torchvision's MobileNetV3, whose modules have the same order as timm's.

    Linear layers become convolutions. Variances are raised by what torchvision's BatchNorm adds more than timm's, so
    that networks in evaluation mode compute the same.
    """
    theirs = sorted((name for name in state if name.startswith("features.")), key=_place)
    shapes = {name: tensor.shape for name, tensor in _on_meta(backbone).state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for ours, name in zip(shapes, theirs, strict=False):
        if ours.rpartition(".")[2] != name.rpartition(".")[2]:  # a larger or smaller network
            return dict(state)
        tensor = state[name]
        if tensor.ndim == 2 and len(shapes[ours]) == 4:
            tensor = tensor[:, :, None, None]
        tensors[ours] = tensor + (EPS - TIMM_EPS) if name.endswith("running_var") else tensor
    return tensors


def _place(name: str) -> tuple[list[tuple[int, str]], int]:
    """Return where a tensor is in the order of modules, which files of safetensors do not keep."""
    module, _, kind = name.rpartition(".")
    parts = [(int(part), "") if part.isdecimal() else (0, part) for part in module.split(".")]
    return parts, _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
