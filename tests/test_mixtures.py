"""Mixtures of networks: each alone is itself, whichever others are computed with it; statistics estimated anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transferlens.compare import finished, mixtures
from transferlens.data.catalogue import DataOptions
from transferlens.models import batchnorm, states
from transferlens.models.plan import TransferPlan
from transferlens.store.heldout import classify, estimate_statistics, heldout_features
from transferlens.util.errors import ParameterError


@pytest.fixture(scope="module")
def given(seeds_store):
    """A run, its network and another by letter, its held-out features and those of its training clips."""
    runs, folder = seeds_store
    run = runs["tuned"][0]
    S, T = (heldout_features(run, DataOptions(), folder / "cache", training=each) for each in (False, True))
    return run, {"T": run.model(), "S": run.model(trained=False)}, S, T


def test_mixtures_of_one_network_are_the_network(given):
    run, networks, S, _ = given
    found = mixtures.classify(run, networks, ["TTTTTT", "TSTTTT", "SSSSSS"], S)
    np.testing.assert_array_equal(found["TTTTTT"], run.logits)
    np.testing.assert_array_equal(found["SSSSSS"], classify(run, networks["S"], S))
    assert not np.array_equal(found["TSTTTT"], run.logits)


@pytest.mark.parametrize("mixture", ["TSTTTT", "SSSTTT", "TTTTST"])
def test_a_mixture_is_the_network_with_these_tensors(given, mixture):
    """Alone or beside others, with stored statistics or with those estimated anew; networks stay the same."""
    run, networks, S, T = given
    whole = run.model()
    tensors = {letter: network.state_dict() for letter, network in networks.items()}
    before = {letter: {name: t.clone() for name, t in state.items()} for letter, state in tensors.items()}
    letters = {name: mixture[-1 if (b := whole.block_of(name)) == "head" else b] for name in tensors["T"]}
    whole.load_state_dict({name: tensors[letter][name] for name, letter in letters.items()})
    others = [mixture, "TTTTTT", "TSTTST"]
    np.testing.assert_array_equal(mixtures.classify(run, networks, others, S)[mixture], classify(run, whole, S))
    anew = mixtures.classify(run, networks, others, S, training=T)
    estimate_statistics(run, whole, T)
    np.testing.assert_array_equal(anew[mixture], classify(run, whole, S))
    assert all(torch.equal(before[i][name], tensor) for i in tensors for name, tensor in tensors[i].items())


def test_statistics_of_one_mini_batch_are_those_of_its_clips():
    """Known answer: of the first layer, mean and variance over all positions; everything else is left alone."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.9), torch.nn.BatchNorm2d(3)).eval()
    x = torch.randn(8, 3, 4, 5) * 3 + 1
    with batchnorm.estimating(network), torch.no_grad():
        y = network(x)
    first, _, second = network
    assert torch.allclose(first.running_mean, x.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(first.running_var, x.var((0, 2, 3)), rtol=1e-5)
    assert torch.allclose(second.running_mean, torch.zeros(3), atol=1e-6)  # dropout was off
    assert not any(module.training for module in network.modules())
    assert (first.momentum, y.shape) == (0.1, x.shape)


def test_training_clips_are_spread_and_always_the_same(seeds_store, monkeypatch):
    runs, folder = seeds_store
    run = runs["tuned"][0]

    class Options:
        data = DataOptions()
        store = type("Store", (), {"cache": folder / "cache"})

    everything = heldout_features(run, DataOptions(), folder / "cache", training=True)
    S, few = finished.features(run, Options, 4)
    assert (len(S), len(few)) == (len(run.labels), 4)
    places = {next(i for i, each in enumerate(everything) if np.array_equal(each, one)) for one in few}
    assert places == {0, 5, 10, 15}
    np.testing.assert_array_equal(few, finished.features(run, Options, 4)[1])
    assert finished.features(run, Options, 0)[1] is None
    assert len(finished.features(run, Options, 10**6)[1]) == len(everything)


def test_points_between_two_networks():
    """The ends are exact, and between equal networks there is nothing else."""
    rng = torch.Generator().manual_seed(0)
    a, b = ({"w": torch.randn(1000, generator=rng), "n": torch.tensor(i)} for i in (3, 5))
    assert torch.equal(states.between(a, b, 0)["w"], a["w"])
    assert torch.equal(states.between(a, b, 1)["w"], b["w"])
    assert states.between(a, b, 0)["n"] == 5
    assert all(torch.equal(states.between(a, a, i / 7)["w"], a["w"]) for i in range(8))
    assert torch.equal(states.between(a, b, 0.5, of=lambda name: name != "w")["w"], b["w"])
    assert all(torch.equal(states.average([a] * k)["w"], a["w"]) for k in range(1, 8))
    assert torch.allclose(states.average([a, b])["w"], states.between(a, b, 0.5)["w"], atol=1e-6)


def test_distance_of_networks():
    start, end = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, {"a": torch.tensor([3.0]), "b": torch.zeros(1)}
    assert states.distance(start, end, ["a", "b"]) == pytest.approx(4 / 5)
    assert states.distance(start, start, ["a"]) == states.distance(start, end, []) == 0
    assert states.distance(end, start, ["b"]) == float("inf")


def test_other_networks_are_refused(seeds_store):
    a, b = {"w": torch.zeros(2)}, {"w": torch.zeros(3)}
    for call in (lambda: states.average([a, b]), lambda: states.between(a, b, 0.5)):
        with pytest.raises(ParameterError, match="states differ in w: they must be of one architecture"):
            call()
    with pytest.raises(ParameterError, match="states must be one or more"):
        states.average([])
    with pytest.raises(ParameterError, match="share=2 must be 0 to 1"):
        states.between(a, a, 2)
    runs = seeds_store[0]
    with pytest.raises(ParameterError, match=r"differ in backbone \(resnet10t and test_resnet\)"):
        finished.average([runs["tuned"][0], runs["other"][0]])


def test_layernorm_has_no_statistics():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    assert batchnorm.layers(network) == [] == batchnorm.statistics(network)


def test_truncated_networks_have_fewer_letters(study, tmp_path):
    (run,) = study(folds=(1,), epochs=1).runs(TransferPlan.truncate(2))
    S = heldout_features(run, DataOptions(), tmp_path / "cache")
    np.testing.assert_array_equal(mixtures.classify(run, {"T": run.model()}, ["TTTT"], S)["TTTT"], run.logits)
