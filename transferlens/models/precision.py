"""bf16 mixed precision, where it is correct and fast.

On CPUs torch computes bf16 convolutions by oneDNN. This module avoids two defects of it: wrong numbers for maps one
column wide, and slow gradients of depthwise convolutions (``benchmarks/depthwise.py`` measures the ratio).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from transferlens.models.build import block_table
from transferlens.util.errors import ParameterError


def choose(precision: str, device: torch.device, *, backbone: str, input_size: tuple[int, int], through: int) -> str:
    """Return "bf16" or "fp32"; "auto" gives bf16 only where the hardware supports it and is correct.

    The blocks of `backbone` up to `through` are computed for inputs of `input_size` (height, width). Errors are those
    of `check`.
    """
    if precision != "auto":
        check(precision, device, backbone=backbone, input_size=input_size, through=through)
        return precision
    wrong = device.type == "cpu" and _computed_wrongly(backbone, input_size, through)
    return "fp32" if wrong else fastest(device)


def fastest(device: torch.device) -> str:
    """Return "bf16" where the hardware computes in it; elsewhere "fp32", as bf16 is then emulated and slower."""
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = device.type == "cpu" and bool(_bf16_features())
    return "bf16" if able else "fp32"


def check(precision: str, device: torch.device, *, backbone: str, input_size: tuple[int, int], through: int) -> None:
    """Raise ParameterError if `precision` is known to give wrong numbers on this processor; see `choose`."""
    if precision == "bf16" and device.type == "cpu" and _computed_wrongly(backbone, input_size, through):
        raise ParameterError(
            f"precision='bf16' with width={input_size[1]}: the last maps of {backbone} are then one column "
            "wide, which this processor computes incorrectly in bf16; use fp32, or a larger width"
        )


def _bf16_features() -> set[str]:
    """Return the bf16 instruction sets of the processor (avx512_bf16, amx_bf16, Arm's bf16); none if torch is old."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return {name for name, on in capabilities.items() if on and "bf16" in name}


def _computed_wrongly(backbone: str, input_size: tuple[int, int], through: int) -> bool:
    """Return whether a kernel reads beyond a map, as AMX's strided convolutions to one column do (torch 2.15)."""
    if "amx_bf16" not in _bf16_features():
        return False
    return block_table(backbone, input_size=input_size, through=through)[-1].size[1] < 2


# Largest kernel for whose weight gradient oneDNN is fast.
SMALL = 3


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Compute a ``with`` block in `precision`, on CPUs with gradients of bf16 depthwise convolutions that are fast."""
    bf16 = precision == "bf16"
    depthwise = _DepthwiseGradients() if bf16 and device.type == "cpu" else contextlib.nullcontext()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16), depthwise:
        yield


class _DepthwiseGradients(TorchFunctionMode):
    """Replaces depthwise convolutions by `_Depthwise`, whichever module calls them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (_conv2d if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Compute what ``torch.conv2d`` does, with its parameters."""
    depthwise = groups > 1 and weight.shape[1] == 1 and input.dim() == 4
    if not depthwise or isinstance(padding, str):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    pairs = ([size, size] if isinstance(size, int) else list(size) for size in (stride, padding, dilation))
    return _Depthwise.apply(input, weight, bias, *pairs, groups)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bf16, with gradients that oneDNN computes fast."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation, groups):
        """Return the convolution of `x` [shape=(batch, channels, height, width)] in bf16, whatever the types given."""
        half, half_weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(half, half_weight)
        ctx.type, ctx.biased, ctx.options = x.dtype, bias is not None, (stride, padding, dilation)
        bias = None if bias is None else bias.bfloat16()
        return torch.conv2d(half, half_weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        """Return the gradients of `forward`'s arguments, None where none is asked for."""
        x, weight = ctx.saved_tensors
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _by_input(gradient, x, weight, *ctx.options).to(ctx.type)
        if ctx.needs_input_grad[1]:
            by_weight = _by_weight(gradient, x, weight, *ctx.options)
        if ctx.biased and ctx.needs_input_grad[2]:
            by_bias = gradient.float().sum((0, 2, 3))
        return by_x, by_weight, by_bias, None, None, None, None


def _gradients(gradient, x, weight, stride, padding, dilation, needed):
    """Return the gradients of a depthwise convolution by its input and its weight; None for what is not needed."""
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, [0, 0], x.shape[1], [*needed, False]
    )


def _by_input(gradient, x, weight, stride, padding, dilation):
    """Return the gradient by the input; for strides as a convolution of the gradient, spread with zeros between."""
    before = [size - 1 - pad for size, pad in zip(weight.shape[2:], padding, strict=True)]
    if max(stride) == 1 or max(dilation) > 1 or min(before) < 0 or len(weight) != x.shape[1]:
        return _gradients(gradient, x, weight, stride, padding, dilation, (True, False))[0]
    spread = _zeros(x, [size + kernel - 1 for size, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)])
    rows, columns = (
        slice(start, start + step * (size - 1) + 1, step)
        for start, step, size in zip(before, stride, gradient.shape[2:], strict=True)
    )
    spread[:, :, rows, columns] = gradient
    return torch.conv2d(spread, weight.flip(2, 3).contiguous(), groups=len(weight))


def _zeros(x, size):
    """Return zeros of another height and width, in channels-last order."""
    return x.new_zeros(len(x), *size, x.shape[1]).permute(0, 3, 1, 2)


def _by_weight(gradient, x, weight, stride, padding, dilation):
    """Return the gradient by the weight [fp32], computed for 3x3 windows of larger kernels, which is much faster."""
    height, width = weight.shape[2:]
    if max(height, width) <= SMALL or max(dilation) > 1:
        return _gradients(gradient, x, weight, stride, padding, dilation, (False, True))[1].float()
    top, left = padding
    padded = _zeros(x, (x.shape[2] + 2 * top, x.shape[3] + 2 * left))
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    rows, columns = (step * (size - 1) for step, size in zip(stride, gradient.shape[2:], strict=True))
    result = torch.empty(weight.shape)
    for i in _starts(height):
        for j in _starts(width):
            window = weight[:, :, i : i + SMALL, j : j + SMALL]
            part = padded[:, :, i : i + rows + window.shape[2], j : j + columns + window.shape[3]]
            result[:, :, i : i + SMALL, j : j + SMALL] = _gradients(
                gradient, part, window.contiguous(), stride, [0, 0], dilation, (False, True)
            )[1]
    return result


def _starts(size: int) -> list[int]:
    """Return where windows of `SMALL` begin that together cover `size`."""
    return [*range(0, size - SMALL, SMALL), max(0, size - SMALL)]
