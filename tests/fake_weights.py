"""Weights for the tests of backbones: all timm models have some, without a network."""

import pytest
import timm
import torch
from safetensors.torch import save_file


def randomised(name, *, seed):
    """Random values of all tensors of timm's model: no layer is an identity, no statistic a default."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):  # names and shapes: drawing the initial values would take most of the time
        state = timm.create_model(name).state_dict()
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            state[key] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif key.endswith("running_var"):
            state[key] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif tensor.ndim > 1:
            state[key] = torch.randn(tensor.shape, generator=generator).mul_((2 / tensor[0].numel()) ** 0.5)
        else:
            state[key] = key.endswith("weight") + 0.05 * torch.randn(tensor.shape, generator=generator)
    return state


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine OpenMP's threads wait for each other: a forward pass then takes seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", name="fake")
def fake_files(tmp_path_factory):
    """Make a file of "ImageNet" weights for a backbone, and say where it is."""
    folder = tmp_path_factory.mktemp("weights")

    def make(name):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            save_file(randomised(name, seed=1), path)
        return path

    return make
