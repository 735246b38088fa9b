"""What torchvision's networks do and timm's do not: those that the code released with the paper trains.

* Inception-v3 has dropout before its head. If it is pretrained, it also expects images normalised by ImageNet's mean
  and standard deviation, and changes them to those of its weights, 0.5 and 0.5 (``transform_input=True``).
* The last normalisation of each residual branch of a ResNet begins with the weight 1; timm's begins with 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transferlens.models.weights import TORCHVISION
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network

# Mean and standard deviation of red, green and blue in ImageNet.
COLOURS = np.array([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])
DROPOUT = 0.5


def input_change() -> np.ndarray:
    """Return the change of Inception-v3's input as the mean and deviation of each channel [shape=(2, 3)].

    ``(x - mean) / deviation`` is torchvision's ``x * (0.229 / 0.5) + (0.485 - 0.5) / 0.5``, and so on.
    """
    mean, deviation = COLOURS
    return np.stack([(0.5 - mean) / deviation, 0.5 / deviation])


def adapt(network: Network, name: str) -> None:
    """Give a new network of timm's name `name` the dropout and the initial normalisation of torchvision's."""
    base = name.partition(".")[0]
    if base == "inception_v3":
        network.dropout.p = DROPOUT
    if base in TORCHVISION:
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d) and not module.weight.any():
                    module.weight.fill_(1)
