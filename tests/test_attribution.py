"""Laws of attributions, and what they are scored by."""

from __future__ import annotations

import inspect
import typing

import captum
import numpy as np
import pytest
import torch

from transferlens.measures import faithfulness, task
from transferlens.measures.attribution import attribute
from transferlens.measures.maps import MapSettings, distance
from transferlens.measures.methods import METHODS, TABLE, MethodName
from transferlens.models import build
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError

SIZE = (64, 64)


def network(seed=0):
    return build.skeleton("test_resnet", n_classes=3, plan=TransferPlan.scratch(), seed=seed)


def clips(n=3, seed=0):
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def silence(level=-2.0):
    return torch.full((3, *SIZE), level)


def others(k=4, size=SIZE):
    return torch.randn(k, 3, *size, generator=torch.Generator().manual_seed(5))


class Chain(torch.nn.Module):
    """A network of blocks that every method knows: no skip connections, each activation a module of its own."""

    def __init__(self, *blocks, classes=3):
        super().__init__()
        self.blocks = torch.nn.ModuleList(blocks)
        self.head = torch.nn.LazyLinear(classes)

    def map(self, state):
        return state

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def chain(seed=0):
    torch.manual_seed(seed)
    nn = torch.nn
    model = Chain(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )
    return model.eval().requires_grad_() if model(clips(1)) is not None else model


def affine(seed=0):
    """A network without activations: its logit is the mean over cells of a weighted sum of channels."""
    torch.manual_seed(seed)
    model = Chain(torch.nn.Conv2d(3, 4, 1, bias=False))
    model(clips(1))
    return model.eval()


def weights_of(model, target):
    """The gradient of a logit of `affine`, times the number of cells [shape=(3,)]."""
    return (model.head.weight[target] @ model.blocks[0].weight[:, :, 0, 0]).detach()


def linear(n=48, classes=2):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(n, classes))


# -------------------------------------------------------------------------------------------------- laws


def test_a_linear_model_gives_weight_times_difference():
    model, x, baseline = linear(), torch.randn(4, 3, 4, 4), torch.randn(3, 4, 4)
    found = attribute(model, x, targets=[0, 1, 1, 0], baseline=baseline)
    weights = model[1].weight.detach()[[0, 1, 1, 0]].reshape(4, 3, 4, 4)
    np.testing.assert_allclose(found.values, weights * (x - baseline), atol=1e-5)
    assert (found.error < 1e-4).all()


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
def test_attributions_sum_to_the_change_within_the_tolerance(tolerance):
    model = network().eval()
    found = attribute(model, clips(), targets=[0, 1, 2], baseline=silence(), tolerance=tolerance, max_steps=5000)
    with torch.no_grad():
        change = (model(clips()) - model(silence()[None]))[range(3), [0, 1, 2]]
    np.testing.assert_allclose(found.change, change, atol=1e-5)
    assert (found.error <= tolerance + 1e-4).all()
    sums = found.values.sum((1, 2, 3), dtype=float)
    np.testing.assert_allclose(sums, found.change, atol=(tolerance + 1e-4) * np.abs(found.change).max())


def test_agrees_with_many_steps_of_captum():
    from captum.attr import IntegratedGradients

    model = network().eval()
    expected = IntegratedGradients(model).attribute(
        clips(1), silence()[None], target=1, n_steps=300, internal_batch_size=20
    )
    found = attribute(model, clips(1), targets=[1], baseline=silence(), tolerance=0.001, max_steps=5000)
    assert np.corrcoef(found.values.ravel(), expected.numpy().ravel())[0, 1] > 0.999


def test_steps_end_where_they_are_told_to_and_the_error_tells():
    found = attribute(network(), clips(), targets=[0, 1, 2], baseline=silence(), tolerance=1e-9, max_steps=42)
    assert (found.steps <= 42).all()
    assert (found.error > 1e-9).any()


@pytest.mark.parametrize("method", ["ig", "occlusion"])
def test_nothing_where_the_input_is_the_baseline(method):
    x = clips(1)
    x[..., :32] = -2.0
    values = attribute(network(), x, targets=[0], baseline=silence(), method=method).values
    covered = 32 - 16 * (method == "occlusion")
    np.testing.assert_allclose(values[..., :covered], 0, atol=1e-7)
    assert np.abs(values[..., 32:]).max() > 1e-5
    same = attribute(network(), silence()[None], targets=[0], baseline=silence(), method=method)
    # Occlusion compares passes of one input in batches of several sizes, which some processors round differently.
    np.testing.assert_allclose(same.values, 0, atol=1e-7 if method == "occlusion" else 0)
    assert same.change == 0


@pytest.mark.parametrize("method", ["deeplift", "smoothgrad-input", "lime", "kernelshap", "rise"])
def test_nothing_at_all_for_the_baseline_itself(method):
    found = attribute(network(), silence()[None], targets=[0], baseline=silence(), method=method, **few(method, 20))
    np.testing.assert_allclose(found.values, 0, atol=1e-6)
    assert found.change == 0


@pytest.mark.parametrize("method", ["deeplift", "smoothgrad-input"])
def test_nothing_in_cells_that_equal_the_baseline(method):
    x = clips(1)
    x[..., :32] = -2.0
    values = attribute(network(), x, targets=[0], baseline=silence(), method=method).values
    assert not values[..., :32].any()
    assert np.abs(values[..., 32:]).max() > 1e-5


@pytest.mark.parametrize("method", ["expected", "deepliftshap"])
def test_nothing_in_cells_that_equal_all_references(method):
    x, references = clips(1), others()
    x[..., :32] = references[..., :32] = 0.5
    found = attribute(network(), x, targets=[0], baseline=silence(), references=references, method=method)
    assert not found.values[..., :32].any()
    assert np.abs(found.values[..., 32:]).max() > 1e-5


def few(method, samples):
    return {"samples": samples} if "samples" in TABLE[method].takes else {}


@pytest.mark.parametrize("method", METHODS)
def test_how_many_go_through_at_once_does_not_matter(method, monkeypatch):
    # A tolerance out of reach: all parts of the path are halved until the steps are used up.
    kwargs = {"targets": [0, 1], "baseline": silence(), "method": method, "tolerance": 1e-9, "max_steps": 56}
    kwargs |= {"references": others(), **few(method, 12)}
    found = []
    for most in (1, 3, 8):
        monkeypatch.setattr(task, "MOST_CPU", most)
        found.append(attribute(chain(), clips(2), **kwargs).values)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was_found(method):
    model = chain().train()
    model.blocks[1].eval()
    model.blocks[1][0].weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    handle = model.head.register_forward_hook(lambda module, args, out: None)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random, random_of_numpy = torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    def check():
        assert [module.training for module in model.modules()] == modes
        assert [key for module in model.modules() for key in module._forward_hooks] == [handle.id]
        assert not any(module._forward_pre_hooks or module._backward_hooks for module in model.modules())
        assert (model.head.weight.grad == 1).all()
        assert all(p.grad is None for name, p in model.named_parameters() if name != "head.weight")
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.random.get_rng_state(), random)
        assert (np.random.get_state()[1] == random_of_numpy).all()  # noqa: NPY002
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trained
        assert not any(hasattr(module, "rule") for module in model.modules())

    x, how = clips(1), {"targets": [0], "baseline": silence(), "references": others(), "method": method}
    how |= few(method, 12)
    attribute(model, x, **how)
    check()
    assert not x.requires_grad

    def fail(module, args):
        if args[0].requires_grad or method in ("occlusion", "rise", "lime", "kernelshap"):
            raise KeyError("in the middle")

    broken = model.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        attribute(model, x, **how)
    broken.remove()
    check()


def test_grad_cam_of_a_block_is_spread_over_channels():
    found = [
        attribute(network(), clips(1), targets=[0], baseline=silence(), method="gradcam", block=block).values
        for block in (1, 4)
    ]
    for values in found:
        assert values.shape == (1, 3, *SIZE)
        np.testing.assert_array_equal(values[:, 0], values[:, 2])
    assert not np.allclose(*found)


def test_smoothgrad_repeats_with_its_seed():
    a, b, c = (
        attribute(network(), clips(1), targets=[0], baseline=silence(), method="smoothgrad", seed=seed).values
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


# ------------------------------------------------------------------------------------------ the table of methods


def test_one_table_says_all_about_methods():
    assert typing.get_args(MethodName) == METHODS
    arguments = inspect.signature(attribute).parameters
    for name, how in TABLE.items():
        assert set(how.takes) <= arguments.keys(), name
        assert bool(how.blocks) == ("block" in how.takes)
        assert (how.samples > 1) == ("samples" in how.takes)
        assert not {"references", "baseline"} <= {*how.takes}
        assert not how.complete or {"references", "baseline"} & {*how.takes}


@pytest.mark.parametrize("method", [name for name, how in TABLE.items() if how.complete])
def test_complete_methods_sum_to_the_change(method):
    model = network().eval()
    how = {"references": others(), "max_steps": 2000, **few(method, 60)}
    found = attribute(model, clips(), targets=[0, 1, 2], baseline=silence(), method=method, **how)
    start = others() if TABLE[method].needs_references else silence()[None]
    with torch.no_grad():
        change = (model(clips()) - model(start).mean(0))[range(3), [0, 1, 2]]
    np.testing.assert_allclose(found.change, change, atol=1e-5)
    most = 0.01 if "tolerance" in TABLE[method].takes else 1e-3
    assert (found.error <= most + 1e-4).all()
    sums = found.values.sum((1, 2, 3), dtype=float)
    np.testing.assert_allclose(np.abs(sums - found.change), found.error * np.abs(found.change), atol=1e-6)


@pytest.mark.parametrize("method", [name for name, how in TABLE.items() if not how.complete])
def test_other_methods_have_no_completeness_error(method):
    how = {"references": others(), **few(method, 4)}
    found = attribute(chain(), clips(1), targets=[0], baseline=silence(), method=method, **how)
    assert np.isnan(found.error).all()
    assert np.isnan(found.movement).all()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "convnext_atto"])
@pytest.mark.parametrize("seed", [0, 1])
def test_deeplift_is_complete_for_any_activation_product_and_norm(name, seed):
    """ReLU6, hard swish, GELU; activations that are used twice; gates; layer norm: captum's rules know none of them."""
    check_deeplift(name, seed)


@pytest.mark.parametrize("name", ["densenet121", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_deeplift_is_complete_for_concatenation_and_attention(name):
    check_deeplift(name, 0)


def check_deeplift(name, seed):
    model = build.skeleton(name, n_classes=3, plan=TransferPlan.scratch(), seed=seed, input_size=SIZE)
    how = {"targets": [1, 1], "baseline": silence(), "references": others(3)}
    for method in ("deeplift", "deepliftshap"):
        found = attribute(model, clips(2), method=method, **how)
        sums = found.values.sum((1, 2, 3), dtype=float)
        np.testing.assert_allclose(sums, found.change, atol=1e-4 * np.abs(found.values).sum((1, 2, 3)).max())
        assert (found.error < 1e-3).all()


# ------------------------------------------------------------------------------------- known answers, linear model


@pytest.mark.parametrize("method", ["ig", "deeplift", "smoothgrad", "smoothgrad-input", "expected", "deepliftshap"])
def test_gradients_of_a_linear_model(method):
    model, x, baseline, references = linear(), torch.randn(2, 3, 4, 4), torch.randn(3, 4, 4), torch.randn(5, 3, 4, 4)
    found = attribute(model, x, targets=[0, 1], baseline=baseline, references=references, method=method)
    weights = model[1].weight.detach()[[0, 1]].reshape(2, 3, 4, 4)
    start = references.mean(0) if TABLE[method].needs_references else baseline
    np.testing.assert_allclose(found.values, weights * (x - start if method != "smoothgrad" else 1), atol=1e-5)


def test_gradientshap_of_a_linear_model_is_near_weight_times_difference_from_the_references():
    model, x, references = linear(), torch.randn(1, 3, 4, 4), torch.randn(5, 3, 4, 4)
    found = attribute(
        model, x, targets=[0], baseline=x[0], references=references, method="gradientshap", samples=2000
    ).values
    expected = model[1].weight.detach()[0].reshape(3, 4, 4) * (x[0] - references.mean(0))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("method", "least"), [("occlusion", 1), ("kernelshap", 1), ("lime", 0.98), ("rise", 0.7)])
def test_patches_of_a_linear_model(method, least):
    """The change of a patch of one cell is the sum over its channels of weight times difference."""
    model, x, baseline = linear(), torch.randn(1, 3, 4, 4), torch.randn(3, 4, 4)
    how = {"method": method, "patch": (1, 1), **few(method, 2000)}
    found = attribute(model, x, targets=[0], baseline=baseline, **how).values[0]
    np.testing.assert_allclose(found, found[:1].repeat(3, 0))
    expected = (model[1].weight.detach()[0].reshape(3, 4, 4) * (x[0] - baseline)).sum(0).numpy()
    if least == 1:
        np.testing.assert_allclose(found.sum(0), expected, atol=1e-4)
    assert np.corrcoef(found.sum(0).ravel(), expected.ravel())[0, 1] > least - 1e-6


@pytest.mark.parametrize("method", ["rise", "mask", "occlusion", "lime", "kernelshap"])
def test_hidden_parts_find_the_only_patch_that_matters(method):
    class Window(torch.nn.Module):
        def forward(self, x):
            inside = x[:, :, 16:32, 48:64].mean((1, 2, 3))
            return torch.stack([inside, -inside], 1)

    how = {"baseline": torch.zeros(3, *SIZE), "method": method, **few(method, 300)}
    found = attribute(Window(), torch.ones(1, 3, *SIZE), targets=[0], **how).values[0].sum(0)
    inside = np.zeros(SIZE, bool)
    inside[16:32, 48:64] = True
    assert inside.flat[int(found.argmax())]
    assert found[inside].mean() > 3 * max(0, found[~inside].mean())
    against = attribute(Window(), torch.ones(1, 3, *SIZE), targets=[1], **how).values[0].sum(0)
    assert against[inside].mean() < min(0.1, against[~inside].mean())


@pytest.mark.parametrize("method", ["gradcam", "layercam", "guided-gradcam", "lrp"])
def test_blocks_of_a_linear_model(method):
    model, x, n = affine(), clips(1), SIZE[0] * SIZE[1]
    found = attribute(model, x, targets=[1], baseline=silence(), method=method).values[0]
    head, state = model.head.weight.detach()[1], model.blocks[0](x)[0].detach()
    weights = weights_of(model, 1)[:, None, None]
    cam = torch.einsum("c,chw->hw", head, state) / n
    expected = {
        "gradcam": cam.expand(3, -1, -1) / 3,
        "layercam": torch.einsum("c,chw->hw", head.clamp(min=0), state).expand(3, -1, -1) / n / 3,
        "guided-gradcam": weights / n * cam.clamp(min=0),
    }
    if method == "lrp":  # relevance is pooled in proportion to activations, which here cancel
        assert found.sum() == pytest.approx((model(x)[0, 1] - model.head.bias[1]).item(), rel=1e-3)
    else:
        np.testing.assert_allclose(found, expected[method], atol=1e-6)


# --------------------------------------------------------------------------------------- against captum, plainly


def pooled_chain():
    return chain(seed=3)


@pytest.mark.parametrize("method", ["deeplift", "deepliftshap"])
def test_deeplift_agrees_with_captum_where_captum_knows_the_layers(method):
    nn, x, references = torch.nn, clips(1), others()
    torch.manual_seed(0)
    # Without max pooling, of which captum's sums are not complete.
    model = Chain(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Sigmoid())).eval()
    model(x)
    found = attribute(model, x, targets=[1], baseline=silence(), references=references, method=method).values
    theirs = {
        "deeplift": (captum.attr.DeepLift, silence()[None]),
        "deepliftshap": (captum.attr.DeepLiftShap, references),
    }
    kind, start = theirs[method]
    expected = kind(model).attribute(x, start, target=1)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-7)


def test_gradientshap_and_smoothgrad_are_those_of_captum():
    model, x, references = pooled_chain(), clips(1), others()
    noise = task.NOISE * float(x.max() - x.min())
    how = {"targets": [1], "baseline": silence(), "references": references, "seed": 7}
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = captum.attr.GradientShap(model).attribute(x, references, n_samples=1, stdevs=noise, target=1)
    found = attribute(model, x, method="gradientshap", samples=1, **how).values
    np.testing.assert_allclose(found, expected.detach(), atol=1e-7)
    torch.manual_seed(7)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    expected = tunnel.attribute(x, nt_samples=9, stdevs=noise, target=1, abs=False)
    found = attribute(model, x, method="smoothgrad", samples=9, **how).values
    np.testing.assert_allclose(found, expected.detach(), atol=1e-7)


def test_expected_gradients_are_the_mean_of_captum_s_integrated_gradients():
    model, x, references = pooled_chain(), clips(1), others()
    how = {"tolerance": 1e-3, "map_tolerance": 0.02, "max_steps": 1000}
    found = attribute(model, x, targets=[1], baseline=silence(), references=references, method="expected", **how)
    integrated = captum.attr.IntegratedGradients(model)
    expected = torch.stack([integrated.attribute(x, one[None], target=1, n_steps=100) for one in references]).mean(0)
    assert distance(found.values, expected.detach().numpy()) < 0.02


@pytest.mark.parametrize("block", [0, 1])
def test_guided_gradcam_agrees_with_captum(block):
    model, x = pooled_chain(), clips(1)
    found = attribute(model, x, targets=[1], baseline=silence(), method="guided-gradcam", block=block).values
    expected = captum.attr.GuidedGradCam(model, model.blocks[block]).attribute(
        x.clone().requires_grad_(), target=1, interpolate_mode="bilinear"
    )
    np.testing.assert_allclose(found, expected.detach(), atol=1e-7)
    assert found.any()


@pytest.mark.parametrize("method", ["lime", "kernelshap"])
def test_regressions_agree_with_captum(method):
    from captum._utils.models.linear_model import SkLearnRidge

    model, x = pooled_chain(), clips(1)
    patches = (torch.arange(64)[:, None] // 32 * 4 + torch.arange(64) // 16)[None, None]
    how = {"baselines": silence()[None], "target": 1, "feature_mask": patches, "n_samples": 40}
    torch.manual_seed(0)
    if method == "kernelshap":
        expected = captum.attr.KernelShap(model).attribute(x, **how)
    else:
        expected = captum.attr.Lime(
            model,
            SkLearnRidge(alpha=1.0),
            lambda x, y, z, **_: torch.exp(-(((1 - z.float().mean().sqrt()) / 0.25) ** 2)),
        ).attribute(x, **how)
    given = {"method": method, "patch": (32, 16), "samples": 40}
    found = attribute(model, x, targets=[1], baseline=silence(), **given)
    np.testing.assert_allclose(found.values, expected.expand_as(x) / (3 * 32 * 16), atol=1e-8)
    assert found.steps == 40


def test_relevance_is_that_of_captum():
    """Of the same network, pooled by a module."""
    nn, model, x = torch.nn, pooled_chain(), clips(1)
    head = nn.Conv2d(12, 3, 1)
    head.weight.data, head.bias.data = model.head.weight.data[..., None, None], model.head.bias.data
    plain = nn.Sequential(*model.blocks, nn.AdaptiveAvgPool2d(1), head).eval()
    expected = captum.attr.LRP(plain).attribute(x.clone().requires_grad_(), target=(1, 0, 0))
    found = attribute(model, x, targets=[1], baseline=silence(), method="lrp").values
    np.testing.assert_allclose(found, expected.detach(), atol=1e-7)


def test_relevance_is_kept_through_a_densenet():
    model = build.skeleton("densenet121", n_classes=3, plan=TransferPlan.scratch(), seed=0)
    found = attribute(model, clips(1), targets=[1], baseline=silence(), method="lrp").values
    logit = model.eval()(clips(1))[0, 1] - model.head.bias[1]
    assert found.sum(dtype=float) == pytest.approx(logit.item(), rel=1e-2)


def test_layercam_by_hand():
    model, x = pooled_chain(), clips(1)
    state = model.blocks[0](x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.head(model.blocks[1](state).mean((2, 3)))[0, 1], state)
    cam = (slope.clamp(min=0) * state).sum(1, keepdim=True)
    expected = torch.nn.functional.interpolate(cam, SIZE, mode="bilinear").detach()
    found = attribute(model, x, targets=[1], baseline=silence(), method="layercam", block=0).values
    np.testing.assert_allclose(found, expected.expand(1, 3, -1, -1) / 3, atol=1e-8)


def test_several_blocks_count_equally():
    model, x = network(), clips(1)
    maps = {}
    for block in (1, 3, (1, 3), (3, 1)):
        maps[block] = attribute(model, x, targets=[1], baseline=silence(), method="layercam", block=block).values
    scaled = [maps[block] * 3 / np.abs(maps[block] * 3).max() for block in (1, 3)]
    np.testing.assert_allclose(maps[1, 3] * 3, sum(scaled) / 2, atol=1e-6)
    np.testing.assert_array_equal(maps[1, 3], maps[3, 1])
    default = attribute(model, x, targets=[1], baseline=silence(), method="layercam").values
    named = attribute(model, x, targets=[1], baseline=silence(), method="layercam", block=(2, 3, 4)).values
    np.testing.assert_array_equal(default, named)


# ------------------------------------------------------------------------------------- maps and their convergence


def test_a_map_is_of_one_sign_then_smoothed():
    values = np.random.default_rng(0).normal(size=(2, 3, 20, 30))
    plain = MapSettings(smooth=(0, 0))
    np.testing.assert_allclose(plain(values), values.sum(1))
    signs = {sign: MapSettings(smooth=(1, 3), sign=sign) for sign in ("signed", "positive", "absolute")}
    positive, negative = signs["positive"](values), signs["positive"](-values)
    np.testing.assert_allclose(signs["signed"](values), positive - negative, atol=1e-12)
    np.testing.assert_allclose(signs["absolute"](values), positive + negative, atol=1e-12)
    peak = np.zeros((3, 41, 61))
    peak[0, 20, 30] = 1
    spread = signs["signed"](peak)
    assert spread.sum() == pytest.approx(1)
    np.testing.assert_allclose(spread.sum(1) @ (np.arange(41) - 20) ** 2, 1, rtol=0.02)
    np.testing.assert_allclose(spread.sum(0) @ (np.arange(61) - 30) ** 2, 9, rtol=0.02)
    with pytest.raises(ParameterError, match=r"values of shape \(2, 3\) must be \(..., channels, height, width\)"):
        plain(np.zeros((2, 3)))


@pytest.mark.parametrize("smooth", [(-1, 2), (1,), "a"])
def test_bad_smoothing(smooth):
    with pytest.raises(ParameterError, match="smooth="):
        MapSettings(smooth=smooth)


def test_distance_of_maps():
    assert distance(np.ones(4), np.ones(4)) == distance(np.zeros(4), np.zeros(4)) == 0
    assert distance(np.ones(4), np.zeros(4)) == 1
    assert distance(np.zeros(4), np.ones(4)) == np.inf


@pytest.mark.parametrize("method", ["ig", "expected"])
@pytest.mark.parametrize("sign", ["signed", "positive"])
def test_gradients_are_added_until_the_map_stands_still(method, sign):
    shown = MapSettings(smooth=(2, 2), sign=sign)
    how = {"baseline": silence(), "references": others(), "method": method, "shown": shown, "tolerance": 0.99}
    maps, found = {}, {}
    fine = 0.02 if sign == "signed" else 0.003
    for most in (0.9, 0.1, fine):
        found[most] = attribute(chain(), clips(1), targets=[0], map_tolerance=most, max_steps=3000, **how)
        assert (found[most].movement <= most).all()
        assert (found[most].steps >= 32).all()
        maps[most] = shown(found[most].values)
    assert (found[fine].steps > found[0.9].steps).all()
    # What the movement says holds for the distance from a better map, too.
    assert distance(maps[0.1], maps[fine]) < 0.1


def test_the_movement_is_not_known_before_every_part_is_halved():
    how = {"baseline": silence(), "method": "expected", "max_steps": 36, "tolerance": 1e-6}
    found = attribute(network(), clips(1), targets=[0], references=others(6), **how)
    assert found.steps == 36
    assert found.movement > 0


def test_a_straight_model_needs_no_more_than_the_fewest_gradients():
    found = attribute(linear(), torch.randn(2, 3, 4, 4), targets=[0, 1], baseline=torch.zeros(3, 4, 4))
    assert (found.steps <= 40).all()
    np.testing.assert_allclose(found.movement, 0, atol=1e-5)


# -------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "tolerance=0.0 must be between 0 and 1"),
        ({"method": "grad"}, "method='grad' must be one of ig, expected, deeplift, "),
        ({"map_tolerance": 1}, "map_tolerance=1.0 must be between 0 and 1: the movement of the map allowed"),
        ({"method": "expected"}, "method='expected' needs references: inputs to compare with"),
        ({"method": "expected", "references": others(8)}, "max_steps=32 must be at least 48 for 8 references"),
        ({"method": "deepliftshap", "references": {1: others()}}, r"references must be given for the targets \[0\]"),
        (
            {"method": "expected", "references": clips(1)[0]},
            r"references of shape \(3, 64, 64\) must be \(k, 3, 64, 64\)",
        ),
        (
            {"method": "expected", "references": clips(0)},
            r"references of shape \(0, 3, 64, 64\) must be \(k, 3, 64, 64\)",
        ),
        ({"method": "expected", "references": "a"}, "references must be a tensor of finite floats"),
        ({"samples": 5}, "samples=5 has no effect on method='ig', but on gradientshap, smoothgrad, "),
        ({"method": "rise", "samples": 0}, "samples=0 must be at least 1"),
        ({"method": "lime", "patch": (0, 4)}, "patch=0 must be at least 1"),
        ({"method": "lime", "patch": 4}, "patch=4 must be 2 values"),
        ({"method": "kernelshap", "patch": (64, 99)}, r"patch=\(64, 99\) must be smaller than the input, \(64, 64\)"),
        ({"method": "lrp"}, r"method='lrp' knows networks without skip connections, .* has some \(add\)"),
        ({"max_steps": 0}, "max_steps=0 must be at least 32: fewer gradients leave large errors in the map"),
        ({"targets": [3]}, r"targets=\[3\] must be from 0 to 2"),
        ({"targets": [0, 1]}, "must be one for each of the 1 inputs"),
        ({"baseline": torch.zeros(3, 2, 2)}, r"baseline of shape \(3, 2, 2\) must be that of the inputs"),
        ({"baseline": torch.tensor(float("nan"))}, "baseline must be a tensor of finite floats"),
        ({"targets": "a"}, "targets='a' must be a whole number"),
        ({"targets": None}, "targets=None must be a whole number"),
        ({"targets": [0.5]}, "targets=0.5 must be a whole number"),
        ({"model": "a"}, "model='a' must be a Module"),
        ({"seed": "x"}, "seed='x' must be a whole number"),
        ({"max_steps": "a"}, "max_steps='a' must be a whole number, at least 32"),
        (
            {"inputs": torch.zeros(1, 5, 64, 64), "baseline": torch.tensor(0.0)},
            r"64\) do not fit the model: ",
        ),
        ({"block": 2}, r"block=\(2,\) has no effect on method='ig', but on gradcam, layercam, guided-gradcam only"),
        ({"method": "layercam", "block": (1, 7)}, "block=7 must be from 0 to 4 for layercam"),
        ({"method": "gradcam", "block": 5}, "block=5 must be from 0 to 4"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"model": network(), "inputs": clips(1), "targets": [0], "baseline": silence()} | options
    if "references" in options:
        arguments["max_steps"] = 32
    with pytest.raises(ParameterError, match=message):
        attribute(**arguments)


def test_relevance_is_not_propagated_through_unknown_layers():
    model = Chain(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GELU()))
    model(clips(1))
    with pytest.raises(
        ParameterError, match="method='lrp' does not know the layers GELU of this network, but Adaptive"
    ):
        attribute(model, clips(1), targets=[0], baseline=silence(), method="lrp")


def test_bad_inputs():
    with pytest.raises(ParameterError, match=r"inputs of shape \(3, 64, 64\) must be"):
        attribute(network(), clips(1)[0], targets=[0], baseline=silence())
    with pytest.raises(ParameterError, match="gradcam' needs a model with blocks"):
        attribute(linear(), torch.zeros(1, 3, 4, 4), targets=[0], baseline=torch.tensor(0.0), method="gradcam")


# ------------------------------------------------------------------------------------------------ scores


def test_claims_of_attributions_that_are_the_energy_itself():
    rng = np.random.default_rng(0)
    energy = rng.normal(size=(20, 60))
    found = faithfulness.claims(np.exp(energy), energy)
    assert found["energy_correlation"] == pytest.approx(1)
    assert abs(found["energy_correlation_chance"]) < 0.1
    assert found["loudest_share"] > 3 * found["loudest_share_chance"]
    assert found["loudest_share_chance"] == pytest.approx(0.1, abs=0.03)
    even = faithfulness.claims(np.ones((20, 60)), energy)
    assert even["energy_correlation"] == 0
    assert even["loudest_share"] == pytest.approx(0.1)


def test_edges_of_a_step():
    energy = np.zeros((10, 40))
    energy[:, 20:] = 1
    edge = faithfulness.edges(energy)
    np.testing.assert_array_equal(np.flatnonzero(edge[0]), [19, 20])
    assert (edge == edge[0]).all()
    assert faithfulness.claims(edge, energy)["edge_correlation"] == pytest.approx(1)


def test_known_answer():
    mask = np.zeros((2, 4, 10), bool)
    mask[:, :, 3:5] = True
    energy = np.where(mask, 1.0, 5.0)
    found = faithfulness.known_answer(mask - 0.5 * ~mask, mask, energy)
    assert found["event_share"] == 1
    assert found["points_into_event"] == 1
    assert found["event_share_energy"] == pytest.approx(0.2 / (0.2 + 5 * 0.8))
    assert found["points_into_event_energy"] == 0
    assert found["event_share_chance"] < 0.3
    against = faithfulness.known_answer(-np.ones(mask.shape), np.ones_like(mask), energy)
    assert against["event_share"] == against["points_into_event"] == against["points_into_event_chance"] == 0


class Counter(torch.nn.Module):
    """Logits: the sum of the input, and 0."""

    def forward(self, x):
        total = x.sum((1, 2, 3))
        return torch.stack([total, torch.zeros_like(total)], 1)


def test_insertion_and_deletion_follow_the_order():
    x = torch.zeros(1, 4, 5)
    x[0, 1, 2] = 10.0
    order = x[0].numpy()
    arguments = {"baseline": torch.zeros(1, 4, 5), "target": 0}
    first = faithfulness.curve(Counter(), x, order=order, insert=True, **arguments)
    last = faithfulness.curve(Counter(), x, order=-order, insert=True, **arguments)
    away = faithfulness.curve(Counter(), x, order=order, insert=False, **arguments)
    full = torch.sigmoid(torch.tensor(10.0)).item()
    np.testing.assert_allclose(first, [0.5] + [full] * 10, atol=1e-6)
    np.testing.assert_allclose(last, [0.5] * 10 + [full], atol=1e-6)
    np.testing.assert_allclose(away, [full] + [0.5] * 10, atol=1e-6)
    assert faithfulness.area(first) == pytest.approx(full - (full - 0.5) / 20)
    for found, insert in ((first, True), (away, False)):
        known = faithfulness.curve(Counter(), x, order=order, insert=insert, ends=(0.5, full), **arguments)
        np.testing.assert_allclose(known, found, atol=1e-6)


def test_cascade_randomises_from_the_top():
    trained, random = network().eval(), network(seed=1)
    stages = dict(faithfulness.cascade(trained, random))
    assert list(stages) == ["head", "block 4", "block 3", "block 2", "block 1", "block 0"]
    x = clips(1)
    with torch.no_grad():
        assert torch.equal(stages["head"].features(x), trained.features(x))
        assert torch.equal(stages["block 3"].features(x, through=2), trained.features(x, through=2))
        assert not torch.allclose(stages["block 3"].features(x, through=3), trained.features(x, through=3))
        assert torch.equal(stages["block 0"](x), random.eval()(x))
