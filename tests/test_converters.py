"""Weights of networks of other libraries: the published names and shapes, and the same outputs as those networks."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from transferlens.models.network import anatomy, chain
from transferlens.models.weights import imagenet_state
from transferlens.util.errors import CheckpointError


def seeded(make):
    """A network with random weights, and BatchNorm statistics as after training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().eval()
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(torch.rand(tensor.shape) * (0.02 if name.endswith("mean") else 1) + 0.01)
    return network


@pytest.fixture(scope="module")
def mobilenet():
    return seeded(lambda: torchvision.models.mobilenet_v3_large(num_classes=5))


def efficientat(state):
    """A state dict under EfficientAT's names: one input channel, and linear layers in squeeze-and-excitation."""
    renamed = {}
    for name, tensor in state.items():
        if ".fc" in name:
            block, _, layer = name.rpartition(".fc")
            name, tensor = f"{block}.conc_se_layers.0.fc{layer}", tensor.flatten(1) if tensor.ndim > 1 else tensor
        renamed[name] = tensor
    stem = renamed["features.0.0.weight"]
    return renamed | {"features.0.0.weight": stem.sum(1, keepdim=True), "classifier.5.weight": torch.zeros(527, 1280)}


def outputs(backbone, state, x):
    """Outputs of the blocks of timm's network with these weights."""
    model, parts = timm.create_model(backbone, num_classes=0).eval(), anatomy(backbone)
    model.load_state_dict({name: state[name] for name in parts.shapes}, strict=False)
    found = []
    for block in chain(model, parts.blocks):
        x = block(x)
        found.append(x)
    return found


def written(tmp_path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "audio.safetensors")
    return tmp_path / "audio.safetensors"


@torch.no_grad()
def test_torchvisions_mobilenet_computes_the_same(mobilenet, tmp_path):
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    state = imagenet_state("mobilenetv3_large_100", written(tmp_path, mobilenet.state_dict())).state
    torch.testing.assert_close(
        outputs("mobilenetv3_large_100", state, x)[-1], mobilenet.features(x), rtol=1e-3, atol=1e-5
    )


@torch.no_grad()
def test_efficientat_is_the_same_network_of_one_channel(mobilenet, tmp_path):
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1)
    file = written(tmp_path, efficientat(mobilenet.state_dict()))
    state = imagenet_state("mobilenetv3_large_100", file).state
    torch.testing.assert_close(
        outputs("mobilenetv3_large_100", state, x)[-1], mobilenet.features(x), rtol=1e-3, atol=1e-5
    )


def meta(state):
    """A state dict under Meta's names of ConvNeXt, as the network for AudioSet has them, with what it has besides."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("stem."):
            name = f"downsample_layers.0.{name[5:]}"
        elif ".downsample." in name:
            stage, layer = name.removeprefix("stages.").split(".downsample.")
            name = f"downsample_layers.{stage}.{layer}"
        name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        renamed[name.replace("head.norm", "norm")] = tensor
    besides = {"bn0.weight": torch.ones(224), "logmel_extractor.melW": torch.ones(513, 224)}
    return renamed | besides | {"head_audioset.weight": torch.zeros(527, 768)}


@torch.no_grad()
def test_metas_convnext_computes_the_same(tmp_path):
    twin = seeded(lambda: timm.create_model("convnext_tiny", num_classes=0))
    names = meta(twin.state_dict())
    assert {
        "downsample_layers.0.0.weight",
        "stages.2.8.pwconv2.bias",
        "stages.0.0.gamma",
        "norm.weight",
    } <= names.keys()
    state = imagenet_state("convnext_tiny", written(tmp_path, names)).state
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = twin.forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(outputs("convnext_tiny", state, x)[1:], expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_100"])
def test_the_backbone_that_fits_is_named(mobilenet, tmp_path, backbone):
    file = written(tmp_path, efficientat(mobilenet.state_dict()))
    message = (
        f"not hold the weights of backbone '{backbone}'.* give the weights of this backbone, or backbone=mobilenetv3_l"
    )
    with pytest.raises(CheckpointError, match=message):
        imagenet_state(backbone, file)
