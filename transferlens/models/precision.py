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
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = device.type == "cpu" and bool(_bf16_features()) and not _computed_wrongly(backbone, input_size, through)
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


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Compute a ``with`` block in `precision`; on CPUs the gradients of bf16 depthwise convolutions are in fp32."""
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
    """Computes forward in bf16 and backward in fp32: much faster for large strides or kernels, and more exact."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation, groups):
        half = x.bfloat16()
        ctx.save_for_backward(half, weight)
        ctx.type, ctx.biased, ctx.options, ctx.groups = x.dtype, bias is not None, (stride, padding, dilation), groups
        bias = None if bias is None else bias.bfloat16()
        return torch.conv2d(half, weight.bfloat16(), bias, stride, padding, dilation, groups)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        bias_sizes = [len(weight)] if ctx.biased else None
        needed = [*ctx.needs_input_grad[:2], ctx.biased and ctx.needs_input_grad[2]]
        by_x, by_weight, by_bias = torch.ops.aten.convolution_backward(
            gradient.float(), x.float(), weight, bias_sizes, *ctx.options, False, [0, 0], ctx.groups, needed
        )
        return None if by_x is None else by_x.to(ctx.type), by_weight, by_bias, None, None, None, None
