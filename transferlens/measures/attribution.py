"""Which cells of its input make a network decide for a class? Attributions, by captum (Grad-CAM after it).

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4); `transferlens.saliency` asks it of runs.

`attribute` explains the logit of one class for each input. An attribution has the shape of the input: positive cells
speak for the class, negative cells against it. There are four methods: Integrated Gradients [1]_, SmoothGrad [2]_,
Grad-CAM [3]_ and occlusion [4]_.

Integrated Gradients are complete: they sum to the change of the logit from the baseline to the input. How far they are
from it, the completeness error, is known for every part of the path; the parts with the largest errors are halved until
the sum is within a tolerance.

References
----------
.. [1] M. Sundararajan, A. Taly, Q. Yan: Axiomatic attribution for deep networks. ICML 2017, equation 1, proposition 1.
.. [2] D. Smilkov et al.: SmoothGrad: removing noise by adding noise. 2017, arXiv 1706.03825.
.. [3] R. Selvaraju et al.: Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017.
.. [4] M. Zeiler, R. Fergus: Visualizing and understanding convolutional networks. ECCV 2014, section 4.2.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from transferlens.models.forward import forward, hooked, seeded
from transferlens.util import processes
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, at_least, between, checked
from transferlens.util.lazy import captum, torch, tqdm

# Inputs per batch, at most: more are not faster.
MOST_CPU, MOST_GPU = 8, 64
# Memory needed at the worst moment, relative to the outputs of all modules.
OVERHEAD = 3
# Integrated Gradients: parts of the path at the start, and gradients per part; no path has fewer.
PARTS, NODES = 4, 2
FEWEST = PARTS * NODES
TOLERANCE = Rule("between 0 and 1: the completeness error allowed", lambda tolerance: 0 < tolerance < 1)
STEPS = at_least(FEWEST, ": the gradients of the coarsest path")
# SmoothGrad: number of noisy copies, and standard deviation of the noise relative to the input's range.
COPIES, NOISE = 25, 0.15
# Occlusion: height and width of the window, which moves by half of them.
WINDOW = (16, 16)


@dataclass(frozen=True)
class Attribution:
    """What the cells of each input contribute to the logit of its target.

    Attributes
    ----------
    values : ndarray [shape=(n, channels, height, width), float32]
    change : ndarray [shape=(n,)]
        The target's logit for the input minus that for the baseline.
    error : ndarray [shape=(n,)]
        Completeness error: distance of the values' sum from `change`, relative to it. NaN except for "ig".
    steps : ndarray of int [shape=(n,)]
        Number of gradients computed (of outputs, for occlusion).
    """

    values: np.ndarray
    change: np.ndarray
    error: np.ndarray
    steps: np.ndarray


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode; on leaving, restore the modes of all modules."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _pass_size(model: torch.nn.Module, x: torch.Tensor) -> int:
    """Return how many inputs may go through the model at once, by the memory that is free."""
    sizes: list[int] = []
    with hooked(dict(model.named_modules()), lambda name, output: sizes.append(getattr(output, "nbytes", 0))):
        try:
            forward(model, x[:1])
        except RuntimeError as error:
            raise ParameterError(f"inputs of shape {tuple(x.shape)} do not fit the model: {error}") from error
    on_gpu = x.device.type == "cuda"
    free = torch.cuda.mem_get_info(x.device)[0] if on_gpu else processes.free_memory()
    return int(np.clip(free / 2 // (OVERHEAD * max(1, sum(sizes))), 1, MOST_GPU if on_gpu else MOST_CPU))


@dataclass(frozen=True)
class _Task:
    """One input to explain, and how."""

    model: torch.nn.Module
    x: torch.Tensor
    baseline: torch.Tensor
    target: int
    tolerance: float
    max_steps: int
    size: int
    block: torch.nn.Module | None

    def at(self, positions: Sequence[float]) -> torch.Tensor:
        """Return points on the straight path from the baseline (0) to the input (1)."""
        alpha = torch.tensor(positions, dtype=self.x.dtype, device=self.x.device)[:, None, None, None]
        return self.baseline + alpha * (self.x - self.baseline)

    def logits(self, positions: Sequence[float]) -> dict[float, float]:
        """Return the target's logit at points of the path."""
        logits = forward(self.model, self.at(positions), batch_size=self.size)[:, self.target]
        return dict(zip(positions, logits.tolist(), strict=True))


Result = tuple["torch.Tensor", int]
Part = tuple[float, float]


def _integrated_gradients(task: _Task) -> Result:
    edges = np.linspace(0, 1, PARTS + 1).tolist()
    logits = task.logits(edges)
    change = logits[1.0] - logits[0.0]
    values: dict[Part, torch.Tensor] = {}
    errors: dict[Part, float] = {}
    new, steps = list(pairwise(edges)), 0
    while True:
        for part, integral in zip(new, _integrals(task, new), strict=True):
            values[part], errors[part] = integral, logits[part[1]] - logits[part[0]] - integral.sum().item()
        steps += NODES * len(new)
        if abs(sum(errors.values())) <= task.tolerance * abs(change) or steps + 2 * NODES > task.max_steps:
            return functools.reduce(torch.add, values.values())[None], steps
        most = (task.max_steps - steps) // (2 * NODES)
        worst = _worst(errors, task.tolerance * abs(change) / 2, at_least=max(1, task.size // NODES // 2))[:most]
        middles = [(start + end) / 2 for start, end in worst]
        logits |= task.logits(middles)
        new = []
        for (start, end), middle in zip(worst, middles, strict=True):
            del values[start, end], errors[start, end]
            new += [(start, middle), (middle, end)]


def _integrals(task: _Task, parts: Sequence[Part]) -> Iterator[torch.Tensor]:
    """Yield for each part of the path the integral of the gradients, times the difference of its end and start."""
    gradients = captum.attr.IntegratedGradients(task.model)
    size = max(1, task.size // NODES)
    for i in range(0, len(parts), size):
        starts, ends = (task.at(edges) for edges in zip(*parts[i : i + size], strict=True))
        yield from gradients.attribute(ends, starts, target=task.target, n_steps=NODES)


def _worst(errors: dict[Part, float], rest: float, *, at_least: int) -> list[Part]:
    """Return the parts with the largest errors, as many as needed to leave at most `rest` in the others."""
    order = sorted(errors, key=lambda part: -abs(errors[part]))
    left = np.cumsum([abs(errors[part]) for part in order][::-1])[::-1]
    return order[: max(at_least, int((left > rest).sum()))]


def _smoothgrad(task: _Task) -> Result:
    values = captum.attr.NoiseTunnel(captum.attr.Saliency(task.model)).attribute(
        task.x,
        nt_type="smoothgrad",
        nt_samples=COPIES,
        nt_samples_batch_size=min(task.size, COPIES),
        stdevs=NOISE * (task.x.max() - task.x.min()).item(),
        target=task.target,
        abs=False,
    )
    return values, COPIES


def _gradcam(task: _Task) -> Result:
    """Compute Grad-CAM without its last ReLU, to keep negative values; divide each value equally among the channels.

    Of tokens, as in a ViT, those of the patches are taken, as a map.
    """
    assert task.block is not None
    states: list[torch.Tensor] = []
    with hooked({0: task.block}, lambda key, state: states.append(state)):
        logits = task.model(task.x.clone().requires_grad_())
    gradients = torch.autograd.grad(logits[:, task.target].sum(), states)
    maps, slopes = (task.model.map(each[0].detach()) for each in (states, gradients))  # type: ignore[operator]
    values = (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True)
    values = torch.nn.functional.interpolate(values, task.x.shape[2:], mode="bilinear")
    return values.expand_as(task.x) / task.x.shape[1], 1


def _occlusion(task: _Task) -> Result:
    channels, *size = task.x.shape[1:]
    window = [min(pair) for pair in zip(WINDOW, size, strict=True)]
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
    return values / channels, int(np.prod(positions))


_METHODS: dict[str, Callable[[_Task], Result]] = {
    "ig": _integrated_gradients,
    "smoothgrad": _smoothgrad,
    "gradcam": _gradcam,
    "occlusion": _occlusion,
}
METHODS = tuple(_METHODS)


@checked
def attribute(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    *,
    targets: Sequence[int],
    baseline: torch.Tensor,
    method: Literal["ig", "smoothgrad", "gradcam", "occlusion"] = "ig",
    tolerance: Annotated[float, TOLERANCE] = 0.01,
    max_steps: Annotated[int, STEPS] = 256,
    block: int | None = None,
    seed: Annotated[int, between(0, 2**32 - 1)] = 0,
    progress: bool = False,
) -> Attribution:
    """Attribute the logit of a class to the cells of the input.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits [shape=(n, n_classes)]. It is explained in evaluation mode, and left as it was.
    inputs : torch.Tensor [shape=(n, channels, height, width), float]
    targets : sequence of int [shape=(n,)]
        The class of each input whose logit is explained.
    baseline : torch.Tensor
        The input that stands for "nothing", for spectrograms that of silence: one for each input, or one for all.
    method : "ig", "smoothgrad", "gradcam" or "occlusion"
    tolerance : float in (0, 1)
        For "ig": steps are added until the completeness error is at most this.
    max_steps : int >= 8
        For "ig": largest number of gradients of one input. Networks trained from scratch are so rough along the path
        that some inputs need thousands; `Attribution.error` tells what was reached.
    block : int, optional
        For "gradcam": the block of a `Network` whose output is explained. Default: the last.
    seed : int >= 0
        For "smoothgrad": seed of the noise.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Attribution

    Raises
    ------
    ParameterError
        If an argument is outside its range.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x = torch.ones(1, 1, 2, 2)
    >>> attribution = attribute(model, x, targets=[1], baseline=torch.zeros(1, 2, 2))
    >>> bool(abs(attribution.values.flatten() - model[1].weight[1].detach().numpy()).max() < 1e-6)
    True
    """
    inputs, baseline = _checked(inputs, targets, baseline)
    module = _checked_block(model, method, block)
    values, steps = [], []
    bar = tqdm.tqdm(targets, unit="clip", disable=None if progress else True, delay=2, leave=False)
    with _evaluating(model), torch.enable_grad(), seeded(seed, inputs.device):
        size = _pass_size(model, inputs)
        change = _change(model, inputs, baseline, targets, size)
        for x, start, target in zip(inputs, baseline.expand_as(inputs), bar, strict=True):
            task = _Task(model, x[None], start[None], target, tolerance, max_steps, size, module)
            with seeded(seed, inputs.device):
                attributed, taken = _METHODS[method](task)
            values.append(attributed[0].detach().float().cpu().numpy())
            steps.append(taken)
    sums = np.array([value.sum(dtype=np.float64) for value in values])
    error = _relative(sums - change, change) if method == "ig" else np.full(len(values), np.nan)
    return Attribution(np.stack(values), change, error, np.array(steps))


def _change(
    model: torch.nn.Module, inputs: torch.Tensor, baseline: torch.Tensor, targets: Sequence[int], size: int
) -> np.ndarray:
    """Return the logits of the targets for the inputs minus those for the baseline [shape=(n,)]."""
    after, before = (forward(model, x, batch_size=size).double().numpy() for x in (inputs, baseline))
    n_classes = after.shape[1]
    if wrong := sorted({target for target in targets if not 0 <= target < n_classes}):
        raise ParameterError(f"targets={wrong} must be from 0 to {n_classes - 1}: the network has {n_classes} classes")
    return (after - before)[range(len(targets)), targets]


def _relative(difference: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the difference relative to the change; 0 where both are 0."""
    with np.errstate(divide="ignore"):
        return np.divide(np.abs(difference), np.abs(change), out=np.zeros(len(change)), where=difference != 0)


def _checked(inputs: Any, targets: Sequence[int], baseline: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and baseline with as many axes as the inputs; raise if an argument does not fit."""
    for name, value in (("inputs", inputs), ("baseline", baseline)):
        if not torch.is_tensor(value) or not value.is_floating_point() or not value.isfinite().all():
            raise ParameterError(f"{name} must be a tensor of finite floats")
    if inputs.ndim != 4 or 0 in inputs.shape:
        raise ParameterError(f"inputs of shape {tuple(inputs.shape)} must be (n, channels, height, width)")
    if tuple(baseline.shape) not in {tuple(inputs.shape), (1, *inputs.shape[1:]), tuple(inputs.shape[1:]), ()}:
        raise ParameterError(
            f"baseline of shape {tuple(baseline.shape)} must be that of the inputs, {tuple(inputs.shape)}, or of one"
        )
    if len(targets) != len(inputs):
        raise ParameterError(f"targets={targets} must be one for each of the {len(inputs)} inputs")
    baseline = baseline.detach().to(inputs).expand(inputs.shape[1:] if baseline.ndim == 0 else baseline.shape)
    return inputs.detach(), baseline.reshape(-1, *inputs.shape[1:])


def _checked_block(model: Any, method: str, block: int | None) -> torch.nn.Module | None:
    """Return the block that Grad-CAM explains, by default the last; raise if the method or block does not fit."""
    if method != "gradcam":
        if block is not None:
            raise ParameterError(f"block={block!r} applies to method='gradcam' only, not to {method!r}")
        return None
    blocks = getattr(model, "blocks", ())
    if not len(blocks):
        raise ParameterError("method='gradcam' needs a model with blocks, as build.build and Run.model return")
    if block is not None and block not in range(len(blocks)):
        raise ParameterError(f"block={block!r} must be from 0 to {len(blocks) - 1} for gradcam")
    return blocks[-1 if block is None else block]
