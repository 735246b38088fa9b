"""Attributions by what blocks of a network return: Grad-CAM, LayerCAM and Guided Grad-CAM.

Captum's LayerGradCam does not take the tokens of a ViT, and LayerCAM is not in captum. Maps are signed: they have no
last ReLU. Those of several blocks are divided by their largest magnitude and averaged.
"""

from __future__ import annotations

from collections.abc import Callable

from transferlens.measures import rules
from transferlens.measures.task import Attributed, Task
from transferlens.models.forward import hooked
from transferlens.util.lazy import torch

Weights = Callable[["torch.Tensor"], "torch.Tensor"]


def gradcam(task: Task) -> Attributed:
    """Weight the channels of a block's output by their pooled gradients."""
    return Attributed(_over_channels(task, _gradcam(task)), 1)


def layercam(task: Task) -> Attributed:
    """Weight each cell of a block's output by its gradient where that is positive."""
    values = _map(task, lambda gradients: gradients.clamp(min=0))
    return Attributed(_over_channels(task, values), 1)


def guided_gradcam(task: Task) -> Attributed:
    """Compute the gradients of guided backpropagation times the positive part of Grad-CAM."""
    with rules.replaced(task.model, rules.guided_rules()):
        x = task.x.clone().requires_grad_()
        logits = task.model(x)
    (gradients,) = torch.autograd.grad(logits[:, task.target].sum(), x)
    return Attributed(gradients * _gradcam(task).clamp(min=0), 2)


def _gradcam(task: Task) -> torch.Tensor:
    return _map(task, lambda gradients: gradients.mean((2, 3), keepdim=True))


def _map(task: Task, weights: Weights) -> torch.Tensor:
    """Return the weighted sum over channels of the outputs of the blocks [shape=(1, 1, height, width)]."""
    states: list[torch.Tensor] = []
    with hooked(dict(enumerate(task.blocks)), lambda key, state: states.append(state)):
        logits = task.model(task.x.clone().requires_grad_())
    gradients = torch.autograd.grad(logits[:, task.target].sum(), states)
    maps = []
    for state, gradient in zip(states, gradients, strict=True):
        values, slopes = (task.model.map(each.detach()) for each in (state, gradient))  # type: ignore[operator]
        values = (weights(slopes) * values).sum(1, keepdim=True)
        maps.append(torch.nn.functional.interpolate(values, task.x.shape[2:], mode="bilinear"))
    if len(maps) == 1:
        return maps[0]
    return torch.stack([values / (values.abs().max() or 1.0) for values in maps]).mean(0)


def _over_channels(task: Task, values: torch.Tensor) -> torch.Tensor:
    """Divide each value of a map equally among the channels of the input."""
    return values.expand_as(task.x) / task.x.shape[1]
