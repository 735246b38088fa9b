"""Layers of networks, their samples, and two networks against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transferlens.measures import layerwise
from transferlens.measures.similarity import cka
from transferlens.models.build import skeleton
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError

SIZE = (128, 64)


def network(name="test_resnet", seed=0, **plan):
    return skeleton(name, n_classes=3, plan=TransferPlan(None, **plan), seed=seed).eval()


def clips(n=6, seed=0):
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "tf_efficientnet_lite0", "densenet121"])
def test_every_convolution_and_every_end_of_a_block_in_order(name):
    net = network(name)
    found = layerwise.layers(net, clips(1))
    convolutions = [n for n, m in net.backbone.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted(layer.name for layer in found if not layer.is_block) == sorted(convolutions)
    assert [layer.name for layer in found if layer.is_block] == [f"block {k}" for k in range(5)]
    assert [layer.depth for layer in found] == list(range(len(found)))
    assert [layer.block for layer in found] == sorted(layer.block for layer in found)


def test_layers_of_a_cut_network_end_at_the_cut():
    assert {layer.block for layer in layerwise.layers(network(truncate_after=2), clips(1))} == {0, 1, 2}


def test_no_hook_stays_even_after_an_error():
    net = network()
    layerwise.layers(net, clips(1))
    with pytest.raises(RuntimeError):
        layerwise.compare(net, net, torch.zeros(2, 5, *SIZE))
    assert not any(module._forward_hooks for module in net.modules())


def test_samples_of_a_map():
    out = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).float()
    every = layerwise.samples(out, "all")
    assert every.shape == (40, 3)
    np.testing.assert_array_equal(every[7], out[0, :, 1, 2])
    np.testing.assert_array_equal(every[20 + 7], out[1, :, 1, 2])
    np.testing.assert_allclose(layerwise.samples(out, "mean"), out.mean((2, 3)))
    some = layerwise.samples(out, "6", draw=1)
    assert some.shape == (12, 3)
    assert {tuple(row) for row in some.tolist()} <= {tuple(row) for row in every.tolist()}
    np.testing.assert_array_equal(some[6:] - some[:6], (out[1, :, 0, 0] - out[0, :, 0, 0]).expand(6, 3))
    assert not np.array_equal(some, layerwise.samples(out, "6", draw=2))
    np.testing.assert_array_equal(layerwise.samples(out, "20"), every)


def test_positions_are_spread_over_the_map():
    out = torch.arange(640.0).reshape(1, 1, 16, 40)
    for draw in range(20):
        np.testing.assert_array_equal(layerwise.samples(out, "64", draw)[:, 0] // 10, np.arange(64))


# -------------------------------------------------------------------------------------------- similarity


def test_a_network_is_like_itself_and_unlike_another():
    x = clips(8)
    same = layerwise.compare(network(), network(), x, resamples=0)
    other = layerwise.compare(network(), network(seed=1), x, resamples=0)
    for each in same:
        assert all(found.similarity == pytest.approx(1, abs=1e-6) for found in each.measures.values())
    assert np.mean([each.measures["cka"].similarity for each in other]) < 0.9


def test_groups_of_clips_do_not_matter_to_the_estimate():
    x = clips(12)
    nets = network(), network(seed=1)
    one, many = (layerwise.compare(*nets, x, positions="40", groups=groups, resamples=0) for groups in (1, 6))
    for a, b in zip(one, many, strict=True):
        for name in ("svcca", "cka"):  # both first layers are linear maps of one input, where PWCCA is not unique
            assert a.measures[name].similarity == pytest.approx(b.measures[name].similarity, abs=1e-6), (a.layer, name)


def test_clips_of_one_recording_are_left_out_together():
    x, pair = clips(20), (network(), network(seed=1))
    twice = layerwise.compare(*pair, x, recordings=[str(i // 2) for i in range(20)], resamples=100)
    usual = layerwise.compare(*pair, x, resamples=100)  # groups of two neighbours
    assert [each.intervals for each in twice] == [each.intervals for each in usual]
    apart = layerwise.compare(*pair, x, recordings=[str(i % 10) for i in range(20)], resamples=100)
    assert all(np.isfinite([*each.intervals.values()]).all() for each in apart)
    assert apart[0].intervals != twice[0].intervals


def test_intervals_contain_the_estimate():
    for each in layerwise.compare(network(), network(seed=1), clips(12), groups=12, resamples=200):
        for name, (low, high) in each.intervals.items():
            assert 0 <= low <= each.measures[name].similarity <= high <= 1, (each.layer, name)


def test_layers_of_few_samples_have_no_intervals():
    compared = layerwise.compare(network(), network(seed=1), clips(20), resamples=100)
    assert {each.too_few for each in compared} == {False, True}
    for each in compared:
        assert each.too_few == (each.n_samples < 5 * each.n_neurons)
        assert bool(each.intervals) == (not each.too_few), each.layer


def test_means_over_positions_are_a_sample_a_clip():
    for each in layerwise.compare(network(), network(seed=1), clips(7), positions="mean", resamples=0):
        assert each.measures["svcca"].n_samples == 7


def test_a_convolution_can_be_the_end_of_a_block():
    net = network("test_nfnet")
    found = layerwise.compare(net, net, clips(4), resamples=0)
    assert len({each.layer.module for each in found}) < len(found)
    assert [each.layer for each in found] == layerwise.layers(net, clips(1))


def test_change_of_weights():
    a = torch.tensor([3.0, 4.0])
    assert layerwise.weight_change(a, a) == (0.0, pytest.approx(1.0))
    assert layerwise.weight_change(a, 2 * a) == (pytest.approx(1.0), pytest.approx(1.0))
    assert layerwise.weight_change(a, torch.tensor([-4.0, 3.0]))[1] == pytest.approx(0.0)
    assert layerwise.weight_change(torch.zeros(2), torch.zeros(2)) == (0.0, 1.0)
    assert layerwise.weight_change(a, torch.zeros(2)) == (1.0, 0.0)
    assert layerwise.weight_change(torch.zeros(2), a) == (float("inf"), 0.0)
    assert layerwise.weight_change(1e-30 * a, 1e-30 * a) == (0.0, pytest.approx(1.0))


def test_networks_with_other_layers_and_unknown_positions():
    with pytest.raises(ParameterError, match="must be networks of one backbone, cut after the same block"):
        layerwise.compare(network(), network(truncate_after=2), clips(2))
    with pytest.raises(ParameterError, match="positions='-1' must be all, mean, or a number of at least 1"):
        layerwise.compare(network(), network(), clips(2), positions="-1")
    with pytest.raises(ParameterError, match="x is one clip, of which .* has one sample: compare at least 2 clips"):
        layerwise.compare(network(), network(), clips(1), positions="mean")


def test_matrix_is_cka_of_what_blocks_give():
    one, other, x = network(), network(seed=1), clips(10)
    matrix = layerwise.block_matrix(one, other, x)
    assert matrix.shape == (5, 5)
    with torch.inference_mode():
        a, b = one.features(x, through=1).mean((2, 3)), other.features(x, through=3).mean((2, 3))
    assert matrix[1, 3] == pytest.approx(cka(a.numpy(), b.numpy(), debiased=True).similarity)
    np.testing.assert_allclose(np.diag(layerwise.block_matrix(one, one, x)), 1)
