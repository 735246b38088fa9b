"""Weights of networks of other libraries: the published names and shapes, and the same outputs as those networks."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from transferlens.models import build
from transferlens.models.plan import TransferPlan
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


def output(backbone, file, x):
    """Output of the blocks of timm's network with the weights of a file."""
    return build.build(backbone, n_classes=2, plan=TransferPlan(), weights=file).eval().features(x)


def written(tmp_path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "audio.safetensors")
    return tmp_path / "audio.safetensors"


@torch.no_grad()
def test_torchvisions_mobilenet_computes_the_same(mobilenet, tmp_path):
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    file = written(tmp_path, mobilenet.state_dict())
    torch.testing.assert_close(output("mobilenetv3_large_100", file, x), mobilenet.features(x), rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_efficientat_is_the_same_network_of_one_channel(mobilenet, tmp_path):
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1)
    published = efficientat(mobilenet.state_dict())
    assert published["features.0.0.weight"].shape == (16, 1, 3, 3)
    assert published["features.4.block.2.conc_se_layers.0.fc1.weight"].shape == (24, 72)
    file = written(tmp_path, published)
    torch.testing.assert_close(output("mobilenetv3_large_100", file, x), mobilenet.features(x), rtol=1e-3, atol=1e-5)


LAYERS = {"block.0": "dwconv", "block.2": "norm", "block.3": "pwconv1", "block.5": "pwconv2", "layer_scale": "gamma"}


def meta(state):
    """A state dict under Meta's names, of one under torchvision's names of ConvNeXt."""
    renamed = {}
    for name, tensor in state.items():
        _, number, rest = name.split(".", 2)
        for theirs, ours in LAYERS.items():
            rest = rest.replace(theirs, ours)
        part = ("downsample_layers", "stages")[int(number) % 2]
        renamed[f"{part}.{int(number) // 2}.{rest}"] = tensor.flatten() if rest.endswith("gamma") else tensor
    return renamed


@pytest.fixture(scope="module")
def convnext():
    """torchvision's ConvNeXt-Tiny; its layer scales, initially 1e-6, are of a trained size."""
    network = seeded(torchvision.models.convnext_tiny).features
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):
            parameter.data.fill_(0.3)
    return network


def in_features(network):
    return {f"features.{name}": tensor for name, tensor in network.state_dict().items()}


@torch.no_grad()
def test_metas_convnext_computes_the_same(convnext, tmp_path):
    names = meta(in_features(convnext))
    assert {"downsample_layers.0.0.weight", "downsample_layers.3.1.bias", "stages.2.8.pwconv2.bias"} <= names.keys()
    file = written(tmp_path, names | {"norm.weight": torch.ones(768), "head.weight": torch.zeros(1000, 768)})
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(output("convnext_tiny", file, x), convnext(x), rtol=1e-3, atol=1e-4)


# What the network for AudioSet has besides; its file has all in an entry "model".
BESIDES = {
    "bn0.weight": torch.ones(224),
    "logmel_extractor.melW": torch.ones(513, 224),
    "norm.weight": torch.ones(768),
    "head_audioset.weight": torch.zeros(527, 768),
}


@torch.no_grad()
def test_the_convnext_of_audioset_has_time_along_the_height(convnext, tmp_path):
    names = meta(in_features(convnext)) | BESIDES
    names["downsample_layers.0.0.weight"] = names["downsample_layers.0.0.weight"].sum(1, keepdim=True)
    torch.save({"model": names, "iteration": 3}, tmp_path / "audio.pth")
    file = tmp_path / "audio.pth"
    mel_by_time = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(1)).expand(-1, 3, -1, -1)
    y = output("convnext_tiny", file, mel_by_time)
    torch.testing.assert_close(y, convnext(mel_by_time.mT).mT, rtol=1e-3, atol=1e-4)


def test_names_that_a_training_framework_has_written_are_removed(mobilenet, tmp_path):
    plain = efficientat(mobilenet.state_dict())
    expected = imagenet_state("mobilenetv3_large_100", written(tmp_path, plain)).sha256
    for prefix in ("module.", "student.net."):
        torch.save({"state_dict": {prefix + name: tensor for name, tensor in plain.items()}}, tmp_path / "wrapped.ckpt")
        assert imagenet_state("mobilenetv3_large_100", tmp_path / "wrapped.ckpt").sha256 == expected
    two = {f"{prefix}.{name}": tensor for name, tensor in plain.items() for prefix in ("teacher", "student")}
    torch.save(two, tmp_path / "wrapped.ckpt")
    with pytest.raises(CheckpointError, match="several networks: their names begin with student., teacher.; keep one"):
        imagenet_state("mobilenetv3_large_100", tmp_path / "wrapped.ckpt")


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            "resnet18",
            "holds weights of MobileNetV3 .*, which do not fit backbone 'resnet18': give backbone=mobilenetv3_l",
        ),
        (
            "mobilenetv3_small_100",
            "of another size than backbone 'mobilenetv3_small_100': .*backbone=mobilenetv3_large",
        ),
        ("mobilenetv3_large_075", "of 262 tensors 0 are missing and .* have another shape"),
    ],
)
def test_the_backbone_that_fits_is_named(mobilenet, tmp_path, backbone, message):
    file = written(tmp_path, efficientat(mobilenet.state_dict()))
    with pytest.raises(CheckpointError, match=message) as caught:
        imagenet_state(backbone, file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet18", "holds weights of ConvNeXt, which do not fit backbone 'resnet18': give backbone=convnext_tiny"),
        ("convnext_atto", "holds weights of ConvNeXt of another size than backbone 'convnext_atto'"),
        ("convnext_small", "convnext_small': of 340 tensors 162 are missing"),
    ],
)
def test_a_convnext_of_another_size_is_refused(convnext, tmp_path, backbone, message):
    with pytest.raises(CheckpointError, match=message):
        imagenet_state(backbone, written(tmp_path, meta(in_features(convnext))))


def test_other_networks_of_torchvision_are_not_taken_for_a_family(tmp_path):
    file = written(tmp_path, torchvision.models.mobilenet_v2(num_classes=2).state_dict())
    with pytest.raises(CheckpointError, match=r"it has features\.0\..*\); give the weights of this backbone$"):
        imagenet_state("mobilenetv2_100", file)
