"""Running networks: batches, hooks, random numbers."""

from __future__ import annotations

import pytest
import torch

from transferlens.models.forward import PASS_SIZE, forward, hooked, seeded, threads_of
from transferlens.util.processes import cores


def model():
    with seeded(0):
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


@pytest.mark.parametrize("batch_size", [1, 7, PASS_SIZE])
def test_batches_do_not_matter(batch_size):
    network, x = model(), torch.randn(20, 3)
    outputs = forward(network, x, batch_size=batch_size)
    torch.testing.assert_close(outputs, network(x).detach())
    assert not outputs.requires_grad
    assert torch.equal(forward(network, x.split(batch_size)), outputs)


def test_any_function_of_batches():
    sizes = []
    doubled = forward(lambda batch: sizes.append(len(batch)) or 2 * batch, torch.ones(130, 1))
    assert sizes == [44, 43, 43]
    assert max(sizes) <= PASS_SIZE
    assert (doubled == 2).all()


def test_hooks_see_the_outputs_and_go_even_after_an_error():
    network, outputs = model(), {}
    with hooked(dict(network.named_children()), outputs.__setitem__):
        result = network(torch.zeros(1, 3))
    assert list(outputs) == ["0", "1", "2"]
    assert outputs["2"] is result
    with pytest.raises(RuntimeError), hooked(dict(network.named_children()), outputs.__setitem__):
        network(torch.zeros(1, 5))
    assert not any(module._forward_hooks for module in network.modules())


def test_what_a_hook_returns_does_not_change_the_network():
    network, x = model(), torch.randn(2, 3)
    expected = network(x)
    with hooked(dict(network.named_children()), lambda key, output: 2 * output):
        assert torch.equal(network(x), expected)


def test_seeds_repeat_and_leave_the_caller_alone():
    state = torch.random.get_rng_state()
    draws = []
    for seed in (3, 3, 4):
        with seeded(seed):
            draws.append(torch.rand(5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(KeyError), seeded(3):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.random.get_rng_state(), state)


def test_at_most_one_thread_per_core_unless_another_number_is_given():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(cores() + 1)
        with threads_of(None):
            assert torch.get_num_threads() == cores()
        with threads_of(cores() + 2):
            assert torch.get_num_threads() == cores() + 2
        assert torch.get_num_threads() == cores() + 1
    finally:
        torch.set_num_threads(before)


def test_a_seed_is_torch_s_own():
    with seeded(11):
        drawn = torch.rand(5)
    assert torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(11)))
