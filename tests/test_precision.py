"""Mixed precision: bf16 where it is correct, and depthwise gradients against those of fp32."""

from __future__ import annotations

import pytest
import torch

from transferlens.models import precision
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError

CPU = torch.device("cpu")


@pytest.fixture
def able(monkeypatch):
    def make(*names):
        on = {"avx2": True, "avx512_fp16": False, **dict.fromkeys(names, True)}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: on, raising=False)

    return make


def choose(study, *, plan=None, **options):
    point = study(folds=("1",), **options).points(plan or TransferPlan())[0]
    return precision.choose(point.training.precision, CPU, **point.computed)


@pytest.mark.parametrize(
    ("names", "width", "expected"),
    [
        (("avx512_bf16",), 32, "bf16"),
        (("bf16",), 32, "bf16"),
        (("avx512_bf16", "amx_bf16"), 32, "fp32"),
        (("avx512_bf16", "amx_bf16"), 64, "bf16"),
        ((), 64, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_processor_computes_in_it_correctly(study, able, names, width, expected):
    able(*names)
    assert choose(study, width=width) == expected


def test_maps_of_networks_without_padding_get_narrow_earlier(study, able):
    able("amx_bf16")
    scratch = TransferPlan.scratch()
    assert choose(study, plan=scratch, backbone=("inception_v3",), width=90) == "fp32"
    assert choose(study, plan=scratch, backbone=("inception_v3",), width=128) == "bf16"


def test_wrong_precision_is_refused_before_features_are_computed(study, able):
    able("amx_bf16")
    bf16 = study(folds=("1",), precision="bf16")
    with pytest.raises(ParameterError, match="use fp32"):
        bf16.gather(bf16.points(TransferPlan()))
    assert not bf16.cache.path.exists()


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_a_precision_that_is_named_is_used(study, able, asked):
    able()
    assert choose(study, precision=asked) == asked


def test_bf16_is_refused_where_it_is_known_to_be_wrong(study, able):
    able("amx_bf16")
    with pytest.raises(ParameterError, match="width=32.* one column wide, .* use fp32, or a larger width"):
        choose(study, precision="bf16")


def gradients(x, layer, *, precision_):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with precision.autocast(CPU, precision_):
        y = layer(x)
    y.float().square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (7, 1, 1), (3, 1, 2)])
def test_depthwise_gradients_are_those_of_fp32(kernel, stride, dilation, bias):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(
        8, 8, kernel, stride=stride, padding=kernel // 2, dilation=dilation, groups=8, bias=bias
    ).to(memory_format=torch.channels_last)
    x = torch.randn(4, 8, 20, 24).to(memory_format=torch.channels_last)
    with precision.autocast(CPU, "bf16"):
        assert type(layer(x).grad_fn).__name__ == "_DepthwiseBackward"
    for ours, exact in zip(gradients(x, layer, precision_="bf16"), gradients(x, layer, precision_="fp32"), strict=True):
        assert (ours - exact).norm() <= 0.01 * exact.norm()


def test_a_second_derivative_is_refused():
    layer = torch.nn.Conv2d(4, 4, 3, groups=4)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    with precision.autocast(CPU, "bf16"):
        y = layer(x).float().square().sum()
    (gradient,) = torch.autograd.grad(y, layer.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_arguments_by_name_and_single_clips():
    weight = torch.randn(9, 1, 3, 3)
    with precision.autocast(CPU, "bf16"):
        named = torch.nn.functional.conv2d(input=torch.randn(1, 9, 9, 9), weight=weight, groups=9)
        single = torch.nn.functional.conv2d(torch.randn(9, 9, 9), weight, groups=9)
    assert named.shape[1:] == single.shape == (9, 7, 7)


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(8, 16, 3, groups=4),
        torch.nn.Conv2d(8, 16, 3, groups=8),
        torch.nn.Conv2d(8, 8, 3, groups=8, padding="same"),
        torch.nn.Conv2d(8, 4, 1),
    ],
)
def test_other_convolutions_agree_with_fp32_too(layer):
    x = torch.randn(4, 8, 20, 24)
    for ours, exact in zip(gradients(x, layer, precision_="bf16"), gradients(x, layer, precision_="fp32"), strict=True):
        assert (ours - exact).norm() <= 0.02 * exact.norm()


def test_types_are_those_of_autocast():
    layer = torch.nn.Conv2d(8, 8, 3, groups=8)
    with precision.autocast(CPU, "bf16"):
        assert layer(torch.randn(2, 8, 5, 5)).dtype == torch.bfloat16
    with precision.autocast(CPU, "fp32"):
        assert layer(torch.randn(2, 8, 5, 5)).dtype == torch.float32


def test_frozen_layers_and_frozen_inputs():
    layer = torch.nn.Conv2d(8, 8, 3, groups=8).requires_grad_(False)
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    with precision.autocast(CPU, "bf16"):
        layer(x).float().sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    layer.requires_grad_(True)
    with precision.autocast(CPU, "bf16"):
        layer(x.detach()).float().sum().backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.bias.grad.isfinite().all()
