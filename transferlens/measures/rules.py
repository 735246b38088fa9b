"""Other gradients for nonlinear functions: those of DeepLIFT and of guided backpropagation.

They apply to whatever torch functions a network calls, in modules or not, and however often. Captum's hooks know ten
kinds of modules, each used once, and no products, which gates and attention consist of.

- `deeplift_rules`: a difference of outputs is attributed to differences of inputs. Functions of one number have the
  slope of their secant (rescale rule [1]_); max pooling that of its larger input; a product shares its difference
  equally between its factors, which is the Shapley value. All others that networks use are composed of these, so that
  attributions sum to the change of the logit.
- `guided_rules`: activations let only positive gradients pass [2]_.

References
----------
.. [1] A. Shrikumar, P. Greenside, A. Kundaje: Learning important features through propagating activation differences.
   ICML 2017, section 3.5.1.
.. [2] J. Springenberg et al.: Striving for simplicity: the all convolutional net. ICLR 2015 workshop, section 3.4.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transferlens.util.lazy import torch

# Differences of inputs below this have the derivative at their middle as slope.
SMALL = 1e-4
ACTIVATIONS = ("relu", "relu6", "hardtanh", "silu", "gelu", "hardswish", "mish", "elu", "selu", "celu", "leaky_relu")
GATES = ("sigmoid", "hardsigmoid", "tanh", "softplus", "softsign", "logsigmoid", "clamp", "clip", "clamp_min")
POWERS = ("exp", "sqrt", "rsqrt", "square", "pow", "abs", "log", "reciprocal", "sin", "cos", "erf")
Rule = Callable[..., Any]


@contextlib.contextmanager
def replaced(model: torch.nn.Module, rules: Mapping[str, Rule]) -> Iterator[None]:
    """Call ``rule(function, *args)`` for each torch function whose name has a rule and whose input has a gradient.

    Only inputs have gradients meanwhile: parameters are constants.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]

    class Mode(torch.overrides.TorchFunctionMode):  # here, as torch is imported on first use
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            rule, kwargs = rules.get(function.__name__), kwargs or {}
            has_gradient = any(torch.is_tensor(value) and value.requires_grad for value in args)
            return rule(function, *args, **kwargs) if rule and has_gradient else function(*args, **kwargs)

    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        with Mode():
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def guided_rules() -> dict[str, Rule]:
    """Return the rules of guided backpropagation."""
    return dict.fromkeys([*ACTIVATIONS, *(f"{name}_" for name in ACTIVATIONS)], _guided)


def deeplift_rules() -> dict[str, Rule]:
    """Return the rules of DeepLIFT, for batches whose first half are inputs, and the second half their references."""
    rules: dict[str, Rule] = {}
    for name in (*ACTIVATIONS, *GATES, *POWERS):
        rules |= {name: _elementwise, f"{name}_": _elementwise}
    for name in ("mul", "multiply", "__mul__", "__rmul__", "mul_", "__imul__"):
        rules[name] = _product
    rules |= dict.fromkeys(("matmul", "__matmul__", "bmm"), _product)
    rules |= dict.fromkeys(("div", "divide", "true_divide", "__truediv__", "div_", "__itruediv__"), _quotient)
    rules |= {"max_pool2d": _max_pool, "layer_norm": _layer_norm, "softmax": _softmax}
    return rules | {"scaled_dot_product_attention": _attention}


def _guided(function: Rule, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    output = function(x.clone(), *args, **kwargs)
    output.register_hook(lambda gradient: gradient.clamp(min=0))
    return output


def _with_gradient(value: torch.Tensor, surrogate: torch.Tensor) -> torch.Tensor:
    """Return a value that has the gradient of another tensor."""
    return surrogate + (value - surrogate).detach()


def _twice(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x])


def _middle(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of inputs and references, for both."""
    a, b = x.detach().chunk(2)
    return _twice((a + b) / 2)


def _elementwise(function: Rule, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Apply a function of one number, with the slope of its secant from reference to input."""
    if any(torch.is_tensor(value) and value.requires_grad for value in args):
        return function(x, *args, **kwargs)
    value = function(x.detach().clone(), *args, **kwargs)
    (a, b), (at_a, at_b) = x.detach().chunk(2), value.chunk(2)
    middle = ((a + b) / 2).requires_grad_()
    (derivative,) = torch.autograd.grad(function(middle.clone(), *args, **kwargs).sum(), middle)
    far = (a - b).abs() > SMALL
    slope = torch.where(far, (at_a - at_b) / torch.where(far, a - b, 1), derivative)
    return _with_gradient(value, x * _twice(slope))


def _product(function: Rule, a: Any, b: Any, **kwargs: Any) -> torch.Tensor:
    """Multiply, and share the difference of the products equally between the factors."""
    if not all(torch.is_tensor(factor) and factor.requires_grad for factor in (a, b)):
        return function(a, b, **kwargs)
    multiply = torch.matmul if function.__name__ in ("matmul", "__matmul__", "bmm") else torch.mul
    surrogate = multiply(a, _middle(b)) + multiply(_middle(a), b)
    return _with_gradient(multiply(a.detach(), b.detach()), surrogate)


def _quotient(function: Rule, a: Any, b: Any, **kwargs: Any) -> torch.Tensor:
    if not (torch.is_tensor(b) and b.requires_grad):
        return function(a, b, **kwargs)
    return _product(torch.mul, a, _elementwise(torch.reciprocal, b))


def _max_pool(function: Rule, x: torch.Tensor, *args: Any, return_indices: bool = False, **kwargs: Any) -> torch.Tensor:
    """Pool, and attribute the difference of outputs to the cell that has the larger of the two."""
    value, index = torch.nn.functional.max_pool2d(x.detach(), *args, return_indices=True, **kwargs)
    (a, b), (index_a, index_b) = value.chunk(2), index.chunk(2)
    winner = _twice(torch.where(a >= b, index_a, index_b))
    cells = x.flatten(2).gather(2, winner.flatten(2)).view_as(value)
    at_a, at_b = cells.detach().chunk(2)
    slope = torch.where(a == b, 1.0, (a - b) / torch.where(a == b, 1.0, at_a - at_b))
    return _with_gradient(value, cells * _twice(slope))


def _layer_norm(
    function: Rule, x: torch.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> torch.Tensor:
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    variance = _elementwise(torch.square, centred).mean(axes, keepdim=True)
    scaled = _product(torch.mul, centred, _elementwise(torch.rsqrt, variance + eps))
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def _softmax(function: Rule, x: torch.Tensor, dim: int = -1, **kwargs: Any) -> torch.Tensor:
    # The shift changes nothing, if it is the same for input and reference, but keeps exponentials finite.
    largest = functools.reduce(torch.maximum, x.detach().amax(dim, keepdim=True).chunk(2))
    exponentials = _elementwise(torch.exp, x - _twice(largest))
    total = exponentials.sum(dim, keepdim=True)
    return _product(torch.mul, exponentials, _elementwise(torch.reciprocal, total))


def _attention(
    function: Rule,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Apply attention without its fused kernel, which hides its products."""
    scale = scale or 1 / math.sqrt(query.shape[-1])
    logits = _product(torch.matmul, query * scale, key.transpose(-2, -1))
    logits = logits if attn_mask is None else logits + attn_mask
    return _product(torch.matmul, _softmax(torch.softmax, logits), value)
