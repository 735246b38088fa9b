"""Laws of attributions, and what they are scored by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transferlens.measures import attribution, faithfulness
from transferlens.measures.attribution import METHODS, attribute
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
    found = attribute(network(), clips(), targets=[0, 1, 2], baseline=silence(), tolerance=1e-9, max_steps=30)
    assert (found.steps <= 30).all()
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


@pytest.mark.parametrize("method", METHODS)
def test_how_many_go_through_at_once_does_not_matter(method, monkeypatch):
    # A tolerance out of reach: all parts of the path are halved until the steps are used up.
    kwargs = {"targets": [0, 1], "baseline": silence(), "method": method, "tolerance": 1e-9, "max_steps": 56}
    found = []
    for most in (1, 3, 8):
        monkeypatch.setattr(attribution, "MOST_CPU", most)
        found.append(attribute(network(), clips(2), **kwargs).values)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was_found(method):
    model = network().train()
    model.blocks[1].eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    handle = model.head.register_forward_hook(lambda module, args, out: None)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()

    def check():
        assert [module.training for module in model.modules()] == modes
        assert [key for module in model.modules() for key in module._forward_hooks] == [handle.id]
        assert not any(module._forward_pre_hooks or module._backward_hooks for module in model.modules())
        assert (model.head.weight.grad == 1).all()
        assert all(p.grad is None for name, p in model.named_parameters() if name != "head.weight")
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.random.get_rng_state(), random)

    x = clips(1)
    attribute(model, x, targets=[0], baseline=silence(), method=method)
    check()
    assert not x.requires_grad

    def fail(module, args):
        if args[0].requires_grad or method == "occlusion":
            raise KeyError("in the middle")

    broken = model.head.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        attribute(model, x, targets=[0], baseline=silence(), method=method)
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


# -------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "tolerance=0.0 must be between 0 and 1"),
        ({"method": "lime"}, "method='lime' must be one of ig, smoothgrad, gradcam, occlusion"),
        ({"max_steps": 0}, "max_steps=0 must be at least 8"),
        ({"targets": [3]}, r"targets=\[3\] must be from 0 to 2"),
        ({"targets": [0, 1]}, "must be one for each of the 1 inputs"),
        ({"baseline": torch.zeros(3, 2, 2)}, r"baseline of shape \(3, 2, 2\) must be that of the inputs"),
        ({"baseline": torch.tensor(float("nan"))}, "baseline must be a tensor of finite floats"),
        ({"targets": "a"}, "targets='a' must be a whole number"),
        ({"targets": None}, "targets=None must be a whole number"),
        ({"targets": [0.5]}, "targets=0.5 must be a whole number"),
        ({"model": "a"}, "model='a' must be a Module"),
        ({"seed": "x"}, "seed='x' must be a whole number"),
        ({"max_steps": "a"}, "max_steps='a' must be a whole number, at least 8"),
        (
            {"inputs": torch.zeros(1, 5, 64, 64), "baseline": torch.tensor(0.0)},
            r"64\) do not fit the model: ",
        ),
        ({"block": 2}, "block=2 applies to method='gradcam' only"),
        ({"method": "gradcam", "block": 5}, "block=5 must be from 0 to 4"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"model": network(), "inputs": clips(1), "targets": [0], "baseline": silence()} | options
    with pytest.raises(ParameterError, match=message):
        attribute(**arguments)


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
