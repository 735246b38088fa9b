"""Where in its input a decision of a network comes from, by captum: Integrated Gradients and others.

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4). `transferlens.saliency` asks it of runs.

Integrated Gradients are complete: attributions sum to the change of the output between baseline and input. How nearly
they do tells how good the numerical integral is, and is known, without the integral, of every part of the path as well.
So the path is cut where the parts' errors are largest, until the sum is within the tolerance.

References
----------
M. Sundararajan, A. Taly, Q. Yan: Axiomatic attribution for deep networks. ICML 2017, equation 1, proposition 1.
D. Smilkov et al.: SmoothGrad: removing noise by adding noise. 2017, arXiv 1706.03825.
R. Selvaraju et al.: Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017.
M. Zeiler, R. Fergus: Visualizing and understanding convolutional networks. ECCV 2014, section 4.2 (occlusion).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import captum, psutil, torch, tqdm

__all__ = ["METHODS", "Attribution", "attribute", "check_options"]

# Inputs in one pass: more are no faster on a CPU, and are on a GPU.
MOST_CPU, MOST_GPU = 8, 64
# Bytes in use at the worst moment, over those of all modules' outputs.
OVERHEAD = 3
# The path of Integrated Gradients: parts at the start, and gradients in a part; no path has fewer than both.
PARTS, NODES = 4, 2
FEWEST = PARTS * NODES
# SmoothGrad: noisy copies, and their noise's deviation over the input's range.
COPIES, NOISE = 25, 0.15
# Occlusion: height and width of the window, which moves by half of it.
WINDOW = (16, 16)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Attribution:
    """What the input's cells contribute to the target's logit.

    Attributes
    ----------
    values : ndarray [shape=(n, channels, height, width), float32]
    change : ndarray [shape=(n,)]
        The target's logit for the input less that for the baseline.
    error : ndarray [shape=(n,)]
        Completeness error: how far the values' sum is from `change`, relative to it. NaN for methods that do not
        promise completeness.
    steps : ndarray of int [shape=(n,)]
        Gradients taken (outputs for occlusion).
    """

    values: np.ndarray
    change: np.ndarray
    error: np.ndarray
    steps: np.ndarray


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; on leaving, modes, gradients and hooks are as they were."""
    modules, parameters = list(model.modules()), list(model.parameters())
    modes, gradients = [module.training for module in modules], [parameter.grad for parameter in parameters]
    hooks = [(getattr(module, name), dict(getattr(module, name))) for module in modules for name in HOOKS]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for registered, before in hooks:
            for key in registered.keys() - before.keys():
                del registered[key]


def _cuda(x: torch.Tensor) -> list[torch.device]:
    """Devices besides the CPU whose random state the work touches."""
    return [x.device] if x.device.type == "cuda" else []


def _pass_size(model: torch.nn.Module, x: torch.Tensor) -> int:
    """How many inputs may go through the model at once: by the memory that is free."""
    sizes: list[int] = []

    def add(module: torch.nn.Module, args: Any, out: Any) -> None:
        sizes.append(out.numel() * out.element_size() if torch.is_tensor(out) else 0)

    with contextlib.ExitStack() as stack, torch.no_grad():
        for module in model.modules():
            stack.callback(module.register_forward_hook(add).remove)
        model(x[:1])
    on_gpu = x.device.type == "cuda"
    free = torch.cuda.mem_get_info(x.device)[0] if on_gpu else psutil.virtual_memory().available
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

    def logit(self, x: torch.Tensor) -> torch.Tensor:
        """The target's logit [shape=(n,)]."""
        with torch.no_grad():
            return self.model(x)[:, self.target]

    def at(self, places: Sequence[float]) -> torch.Tensor:
        """Points on the straight path from the baseline (0) to the input (1)."""
        alpha = torch.tensor(places, dtype=self.x.dtype, device=self.x.device)[:, None, None, None]
        return self.baseline + alpha * (self.x - self.baseline)


Result = tuple["torch.Tensor", int]


def _integrated_gradients(task: _Task) -> Result:
    explain = captum.attr.IntegratedGradients(task.model)
    edges = np.linspace(0, 1, PARTS + 1).tolist()
    outputs = dict(zip(edges, task.logit(task.at(edges)).tolist(), strict=True))
    change = outputs[1.0] - outputs[0.0]
    waiting, parts, steps = list(zip(edges, edges[1:], strict=False)), {}, 0
    while True:
        for some in _chunks(waiting, max(1, task.size // NODES)):
            first, last = (task.at([part[end] for part in some]) for end in (0, 1))
            found = explain.attribute(last, first, target=task.target, n_steps=NODES)
            for part, values in zip(some, found, strict=True):
                parts[part] = values, outputs[part[1]] - outputs[part[0]] - values.sum().item()
            steps += NODES * len(some)
        errors = {part: error for part, (_, error) in parts.items()}
        if abs(sum(errors.values())) <= task.tolerance * abs(change) or steps + 2 * NODES > task.max_steps:
            return sum(values for values, _ in parts.values())[None], steps
        most = (task.max_steps - steps) // (2 * NODES)
        worst = _worst(errors, task.tolerance * abs(change) / 2, at_least=max(1, task.size // NODES // 2))[:most]
        middles = [(first + last) / 2 for first, last in worst]
        for some in _chunks(middles, task.size):
            outputs |= zip(some, task.logit(task.at(some)).tolist(), strict=True)
        waiting = []
        for (start, end), middle in zip(worst, middles, strict=True):
            del parts[start, end]
            waiting += [(start, middle), (middle, end)]


def _worst(errors: dict[tuple[float, float], float], rest: float, *, at_least: int) -> list[tuple[float, float]]:
    """The parts of largest error, as many as it takes to leave no more than `rest` in the others."""
    order = sorted(errors, key=lambda part: -abs(errors[part]))
    left = np.cumsum([abs(errors[part]) for part in order][::-1])[::-1]
    return order[: max(at_least, int((left > rest).sum()))]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _smoothgrad(task: _Task) -> Result:
    explain = captum.attr.NoiseTunnel(captum.attr.Saliency(task.model))
    values = explain.attribute(
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
    """Without the last ReLU, so that what speaks against the target is seen too; shared out over the channels."""
    values = captum.attr.LayerGradCam(task.model, task.block).attribute(task.x, target=task.target)
    values = torch.nn.functional.interpolate(values, task.x.shape[2:], mode="bilinear")
    return values.expand_as(task.x) / task.x.shape[1], 1


def _occlusion(task: _Task) -> Result:
    channels, *size = task.x.shape[1:]
    window = [min(pair) for pair in zip(WINDOW, size, strict=True)]
    strides = [max(1, each // 2) for each in window]
    values = captum.attr.Occlusion(task.model).attribute(
        task.x,
        sliding_window_shapes=(channels, *window),
        strides=(channels, *strides),
        baselines=task.baseline,
        target=task.target,
        perturbations_per_eval=task.size,
    )
    places = [1 + -(-(n - w) // s) for n, w, s in zip(size, window, strides, strict=True)]
    return values / channels, int(np.prod(places))


_METHODS: dict[str, Callable[[_Task], Result]] = {
    "ig": _integrated_gradients,
    "smoothgrad": _smoothgrad,
    "gradcam": _gradcam,
    "occlusion": _occlusion,
}
METHODS = tuple(_METHODS)


def attribute(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    *,
    targets: Sequence[int] | torch.Tensor,
    baseline: torch.Tensor,
    method: str = "ig",
    tolerance: float = 0.01,
    max_steps: int = 256,
    block: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Attribution:
    """Attribute the logit of a class to the cells of the input.

    Parameters
    ----------
    model : torch.nn.Module
        Gives logits [shape=(n, n_classes)]. It is left as it was found, after errors too.
    inputs : torch.Tensor [shape=(n, channels, height, width), float]
    targets : sequence of int [shape=(n,)]
        The class of each input whose logit is explained.
    baseline : torch.Tensor
        What "nothing" is: of the shape of the inputs, or one for all of them. For spectrograms that of silence.
    method : "ig", "smoothgrad", "gradcam" or "occlusion"
    tolerance : float in (0, 1)
        For "ig": completeness error up to which steps are added.
    max_steps : int >= 8
        For "ig": gradients of one input after which no more are taken. Networks trained from scratch are so rough
        along the path that some inputs need thousands; `Attribution.error` tells what was reached.
    block : int, optional
        For "gradcam": the block of a `transferlens.network.Network` whose output is looked at; the last by default.
    seed : int >= 0
        For "smoothgrad": of its noise.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Attribution

    Raises
    ------
    ParameterError
        Where an argument is outside its rule.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x = torch.ones(1, 1, 2, 2)
    >>> found = attribute(model, x, targets=[1], baseline=torch.zeros(1, 2, 2))
    >>> bool(abs(found.values.flatten() - model[1].weight[1].detach().numpy()).max() < 1e-6)
    True
    """
    inputs, targets, baseline = _checked(inputs, targets, baseline)
    check_options(tolerance=tolerance, max_steps=max_steps)
    module = _checked_block(model, method, block)
    values, steps = [], []
    with _evaluating(model), torch.enable_grad(), torch.random.fork_rng(_cuda(inputs)):
        size = _pass_size(model, inputs)
        with torch.no_grad():
            logits = [torch.cat([model(part) for part in each.split(size)]) for each in (inputs, baseline)]
        _check_targets(targets, logits[0].shape[1])
        for i, target in enumerate(
            tqdm.tqdm(targets, unit="clip", disable=None if progress else True, delay=2, leave=False)
        ):
            torch.manual_seed(seed)
            each = baseline[i : i + 1] if len(baseline) > 1 else baseline
            task = _Task(
                model=model,
                x=inputs[i : i + 1],
                baseline=each,
                target=target,
                tolerance=tolerance,
                max_steps=max_steps,
                size=size,
                block=module,
            )
            found, taken = _METHODS[method](task)
            values.append(found[0].detach().float().cpu().numpy())
            steps.append(taken)
    rows = np.arange(len(targets))
    after, before = (each.double().cpu().numpy() for each in logits)
    change = after[rows, targets] - np.broadcast_to(before, after.shape)[rows, targets]
    sums = np.array([each.sum(dtype=np.float64) for each in values])
    error = _relative(sums - change, change) if method == "ig" else np.full(len(values), np.nan)
    return Attribution(np.stack(values), change, error, np.array(steps))


def _relative(difference: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Relative to the change; 0 where both are 0."""
    with np.errstate(divide="ignore"):
        return np.divide(np.abs(difference), np.abs(change), out=np.zeros(len(change)), where=difference != 0)


def _checked(inputs: Any, targets: Any, baseline: Any) -> tuple[torch.Tensor, list[int], torch.Tensor]:
    for name, value in (("inputs", inputs), ("baseline", baseline)):
        if not torch.is_tensor(value) or not value.is_floating_point() or not value.isfinite().all():
            raise ParameterError(f"{name} must be a tensor of finite floats")
    if inputs.ndim != 4 or 0 in inputs.shape:
        raise ParameterError(f"inputs of shape {tuple(inputs.shape)} must be (n, channels, height, width)")
    if tuple(baseline.shape) not in {tuple(inputs.shape), (1, *inputs.shape[1:]), tuple(inputs.shape[1:]), ()}:
        raise ParameterError(
            f"baseline of shape {tuple(baseline.shape)} must be that of the inputs, {tuple(inputs.shape)}, or of one"
        )
    targets = [int(target) for target in targets]
    if len(targets) != len(inputs):
        raise ParameterError(f"targets={targets} must be one for each of the {len(inputs)} inputs")
    baseline = baseline.detach().to(inputs).expand(inputs.shape[1:] if baseline.ndim == 0 else baseline.shape)
    return inputs.detach(), targets, baseline.reshape(-1, *inputs.shape[1:])


def _check_targets(targets: Sequence[int], n_classes: int) -> None:
    if wrong := sorted({target for target in targets if not 0 <= target < n_classes}):
        raise ParameterError(f"targets={wrong} must be from 0 to {n_classes - 1}: the network has {n_classes} classes")


def check_options(*, tolerance: float, max_steps: int) -> None:
    """Refuse what Integrated Gradients cannot keep to."""
    if not 0 < tolerance < 1:
        raise ParameterError(f"tolerance={tolerance!r} must lie between 0 and 1: the completeness error allowed")
    if max_steps < FEWEST:
        raise ParameterError(f"max_steps={max_steps!r} must be at least {FEWEST}: the gradients of the coarsest path")


def _checked_block(model: Any, method: str, block: int | None) -> torch.nn.Module | None:
    """What Grad-CAM looks at: by default the last block."""
    if method not in METHODS:
        raise ParameterError(f"method={method!r} must be one of {', '.join(METHODS)}")
    if method != "gradcam":
        if block is not None:
            raise ParameterError(f"block={block!r} goes with method='gradcam' alone, not with {method!r}")
        return None
    blocks = getattr(model, "blocks", ())
    if not len(blocks):
        raise ParameterError("method='gradcam' needs a model with blocks, as backbones.build and Run.model give")
    if block is not None and block not in range(len(blocks)):
        raise ParameterError(f"block={block!r} must be from 0 to {len(blocks) - 1} for gradcam")
    return blocks[-1 if block is None else block]
