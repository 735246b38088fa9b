"""Attributions by hiding parts of the input, which only needs outputs: occlusion, RISE, LIME, KernelSHAP, masks.

What is hidden has the values of the baseline. Patches are rectangles of cells, through all channels; a value of a patch
is divided equally among the channels (occlusion, RISE, mask) or among all its cells (LIME, KernelSHAP).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transferlens.measures.task import Attributed, Task
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import captum, torch

# RISE: probability that a patch is shown.
SHOWN = 0.5
# LIME: width of the kernel that weights samples by their similarity to the input, and strength of the ridge.
KERNEL, RIDGE = 0.25, 1.0
# Mask by optimisation: shares of the patches that are shown, rate of learning, and weight of the share's constraint.
AREAS = (0.05, 0.1, 0.2, 0.4)
RATE, WEIGHT = 0.3, 10.0


def occlusion(task: Task) -> Attributed:
    """Compute by how much the logit falls if a patch is hidden; patches overlap by half."""
    channels, *size = task.x.shape[1:]
    window = [min(pair) for pair in zip(task.patch, size, strict=True)]
    strides = [max(1, length // 2) for length in window]
    values = captum.attr.Occlusion(task.model).attribute(
        task.x,
        sliding_window_shapes=(channels, *window),
        strides=(channels, *strides),
        baselines=task.baseline,
        target=task.target,
        perturbations_per_eval=task.size,
    )
    positions = [1 + -(-(n - w) // s) for n, w, s in zip(size, window, strides, strict=True)]
    return Attributed(values / channels, int(np.prod(positions)))


def rise(task: Task) -> Attributed:
    """Compute the mean logit where a cell is shown minus that where it is hidden, over random smooth masks."""
    size = task.x.shape[2:]
    # One row and column more, as each mask is shifted by less than a patch.
    rows, columns = (-(-length // patch) + 1 for length, patch in zip(size, task.patch, strict=True))
    grids = (torch.rand(task.samples, 1, rows, columns) < SHOWN).float()
    shifts = [torch.randint(patch, (task.samples,)).tolist() for patch in task.patch]
    seen, hidden, weights = (torch.zeros(size, dtype=torch.float64) for _ in range(3))
    middle = task.logits(task.x).item()
    for start in range(0, task.samples, task.size):
        batch = range(start, min(start + task.size, task.samples))
        masks = torch.stack([_shifted(grids[i], (shifts[0][i], shifts[1][i]), task) for i in batch])
        logits = task.logits(_shown(task, masks.to(task.x))).double() - middle
        seen += torch.einsum("n,nhw->hw", logits, masks[:, 0].double())
        hidden += torch.einsum("n,nhw->hw", logits, 1 - masks[:, 0].double())
        weights += masks[:, 0].double().sum(0)
    values = seen / weights.clamp(min=1e-9) - hidden / (task.samples - weights).clamp(min=1e-9)
    return Attributed(_over_channels(task, values.to(task.x)[None, None]), task.samples + 1)


def _shifted(grid: torch.Tensor, shift: tuple[int, int], task: Task) -> torch.Tensor:
    """Return one mask [shape=(1, height, width)]: a grid, enlarged smoothly and shifted."""
    (height, width), (down, right) = task.x.shape[2:], shift
    size = [n * patch for n, patch in zip(grid.shape[1:], task.patch, strict=True)]
    mask = torch.nn.functional.interpolate(grid[None], size, mode="bilinear")[0]
    return mask[:, down : down + height, right : right + width]


def _shown(task: Task, masks: torch.Tensor) -> torch.Tensor:
    """Return the input where masks [shape=(n, 1, height, width)] are 1, and the baseline where they are 0."""
    return task.baseline + masks * (task.x - task.baseline)


def lime(task: Task) -> Attributed:
    """Fit a linear model of which patches are shown, on samples near the input."""
    from captum._utils.models.linear_model import SkLearnRidge

    def similarity(x: Any, perturbed: Any, shown: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        # Cosine distance from all patches shown.
        return torch.exp(-((1 - shown.float().mean().sqrt()) ** 2) / KERNEL**2)

    return _of_patches(task, captum.attr.Lime(task.model, SkLearnRidge(alpha=RIDGE), similarity))


def kernel_shap(task: Task) -> Attributed:
    """Estimate the Shapley values of patches by weighted regression."""
    return _of_patches(task, captum.attr.KernelShap(task.model))


def _of_patches(task: Task, method: Any) -> Attributed:
    numbers = _patches(task)
    n = int(numbers.max()) + 1
    if n < 2:
        raise ParameterError(f"patch={task.patch} must be smaller than the input, {tuple(task.x.shape[2:])}")
    with torch.no_grad():
        values = method.attribute(
            task.x,
            baselines=task.baseline,
            target=task.target,
            feature_mask=numbers[None, None].to(task.x.device),
            n_samples=task.samples,
            perturbations_per_eval=task.size,
        )
    cells = torch.bincount(numbers.flatten())[numbers] * task.x.shape[1]
    return Attributed(values.expand_as(task.x) / cells.to(task.x), task.samples)


def _patches(task: Task) -> torch.Tensor:
    """Return the number of the patch of each cell [shape=(height, width), int]."""
    rows, columns = (torch.arange(n) // patch for n, patch in zip(task.x.shape[2:], task.patch, strict=True))
    return rows[:, None] * (int(columns.max()) + 1) + columns


def mask(task: Task) -> Attributed:
    """Find the parts of given areas that alone give the largest logit, and average their masks over areas."""
    size = task.x.shape[2:]
    rows, columns = (-(-length // patch) for length, patch in zip(size, task.patch, strict=True))
    iterations = max(1, task.samples // len(AREAS))
    before, after = task.logits(torch.cat([task.baseline, task.x])).tolist()
    scale = abs(after - before) or 1.0
    # Small random numbers decide between patches that do not matter.
    starts = 0.01 * torch.randn(len(AREAS), 1, rows, columns)
    masks = []
    for areas, start in zip(torch.tensor(AREAS).split(task.size), starts.split(task.size), strict=True):
        # Sorted values that a mask of this area has.
        order = torch.arange(rows * columns) / (rows * columns)
        wanted = (order >= 1 - areas[:, None]).to(task.x)
        grid = start.to(task.x).requires_grad_()
        optimiser = torch.optim.Adam([grid], lr=RATE)
        for i in range(iterations):
            weight = WEIGHT * i / iterations  # first what matters, then how much may be shown
            shown = torch.sigmoid(grid)
            logits = task.model(_shown(task, _enlarged(shown, size)))[:, task.target]
            distance = ((shown.flatten(1).sort().values - wanted) ** 2).mean(1)
            grid.grad = torch.autograd.grad((weight * distance - logits / scale).sum(), grid)[0]
            optimiser.step()
        masks.append(_enlarged(torch.sigmoid(grid.detach()), size))
    return Attributed(_over_channels(task, torch.cat(masks).mean(0, keepdim=True)), iterations * len(AREAS))


def _enlarged(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(mask, size, mode="bilinear")


def _over_channels(task: Task, values: torch.Tensor) -> torch.Tensor:
    return values.expand_as(task.x) / task.x.shape[1]
