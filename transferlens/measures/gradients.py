"""Attributions by gradients at or near the input, and by other backward passes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from transferlens.measures import rules
from transferlens.measures.task import Attributed, Task
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import captum, torch


def smoothgrad(task: Task) -> Attributed:
    """Compute the mean gradient of noisy copies."""
    values = captum.attr.NoiseTunnel(captum.attr.Saliency(task.model)).attribute(
        task.x,
        nt_type="smoothgrad",
        nt_samples=task.samples,
        nt_samples_batch_size=min(task.size, task.samples),
        stdevs=task.noise,
        target=task.target,
        abs=False,
    )
    return Attributed(values, task.samples)


def smoothgrad_times_input(task: Task) -> Attributed:
    """Compute SmoothGrad times the distance of the input from the baseline."""
    values, steps, _ = smoothgrad(task)
    return Attributed(values * (task.x - task.baseline), steps)


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which captum uses; on leaving, restore its state."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def gradient_shap(task: Task) -> Attributed:
    """Compute the mean, over noisy copies and references, of gradient times distance at a random point between."""
    method, total = captum.attr.GradientShap(task.model), torch.zeros_like(task.x)
    with _numpy_seeded(task.seed):
        # One by one: captum computes all samples at once, and its random numbers would depend on how many these are.
        for _ in range(task.samples):
            total += method.attribute(task.x, task.references, n_samples=1, stdevs=task.noise, target=task.target)
    return Attributed(total / task.samples, task.samples)


def deeplift(task: Task) -> Attributed:
    """Compute DeepLIFT, from the baseline."""
    return _deeplift(task, task.baseline)


def deeplift_shap(task: Task) -> Attributed:
    """Compute the mean of DeepLIFT over the references."""
    return _deeplift(task, task.references)


def _deeplift(task: Task, references: torch.Tensor) -> Attributed:
    total = torch.zeros_like(task.x)
    for batch in references.split(max(1, task.size // 2)):
        with rules.replaced(task.model, rules.deeplift_rules()):
            x = task.x.expand_as(batch).clone().requires_grad_()
            logits = task.model(torch.cat([x, batch]))
        (multipliers,) = torch.autograd.grad(logits[: len(batch), task.target].sum(), x)
        total += (multipliers * (task.x - batch)).sum(0, keepdim=True)
    return Attributed(total / len(references), len(references))


def lrp(task: Task) -> Attributed:
    """Compute layer-wise relevance propagation by the rules of captum, on a copy of the network."""
    model, target = _for_lrp(task.model, task.target)
    _check_layers(model)
    with rules.replaced(model, dict.fromkeys(("add", "__add__", "add_", "__iadd__", *PRODUCTS), _refuse)):
        model(task.x.clone().requires_grad_())
    return Attributed(captum.attr.LRP(model).attribute(task.x.clone().requires_grad_(), target=target), 1)


PRODUCTS = ("sub", "mul", "__mul__", "mul_", "__imul__", "matmul", "__matmul__", "scaled_dot_product_attention")


def _refuse(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if sum(torch.is_tensor(value) and value.requires_grad for value in args) > 1:
        raise ParameterError(
            f"method='lrp' knows networks without skip connections, gates and attention only, and this one has some "
            f"({function.__name__.strip('_')}): use another method, such as deepliftshap"
        )
    return function(*args, **kwargs)


def _for_lrp(model: Any, target: int) -> tuple[torch.nn.Module, Any]:
    """Return a copy made of modules that captum knows, and the target in its output."""
    model = copy.deepcopy(model)
    if hasattr(model, "blocks") and hasattr(model, "head"):
        head = torch.nn.Conv2d(model.head.in_features, model.head.out_features, 1)
        head.load_state_dict(
            {name: value.view_as(getattr(head, name)) for name, value in model.head.state_dict().items()}
        )
        pooling = torch.nn.AdaptiveAvgPool2d(1)
        model, target = torch.nn.Sequential(*model.blocks, pooling, head.to(model.head.weight)).eval(), (target, 0, 0)
    for module in list(model.modules()):
        if hasattr(module, "inplace"):
            module.inplace = False
        for name, child in module.named_children():
            setattr(module, name, _known(child))
    return model, target


def _known(module: Any) -> torch.nn.Module:
    """Return a module that does the same in evaluation, and that captum knows."""
    if isinstance(module, torch.nn.Identity):
        return torch.nn.Dropout(0.0).eval()
    if type(module).__name__ == "BatchNormAct2d":  # timm's, which contains the activation
        batchnorm = torch.nn.BatchNorm2d(module.num_features, module.eps).to(module.weight)
        batchnorm.load_state_dict(module.state_dict())
        return torch.nn.Sequential(batchnorm, module.act).eval()
    return module


def _check_layers(model: torch.nn.Module) -> None:
    from captum.attr._core import lrp as captum_lrp

    known = {*captum_lrp.SUPPORTED_LAYERS_WITH_RULES, *captum_lrp.SUPPORTED_NON_LINEAR_LAYERS}
    unknown = {
        type(module).__name__
        for module in model.modules()
        if (list(module.parameters(recurse=False)) or not list(module.children())) and type(module) not in known
    }
    if unknown:
        raise ParameterError(
            f"method='lrp' does not know the layers {', '.join(sorted(unknown))} of this network, but "
            f"{', '.join(sorted(kind.__name__ for kind in known))}: use another method, such as deepliftshap"
        )
