"""Runs exported: the front end in torch equals the features; every format gives the run's logits, or is refused."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import soundfile
import timm
import torch

import transferlens as tl
from transferlens.export import main
from transferlens.features.frontend import FrontEnd
from transferlens.features.logmel import FeatureSettings
from transferlens.models.weights import imagenet_state, sha256_of
from transferlens.store import export
from transferlens.util.errors import ParameterError


def trained(study, plan=None):
    (run,) = study.runs(plan or tl.TransferPlan.scratch())
    return run


@pytest.fixture(scope="module")
def run(make_study, tmp_path_factory):
    return trained(make_study(tmp_path_factory.mktemp("export"), folds="1", epochs=1), tl.TransferPlan())


@pytest.fixture(scope="module")
def sounds(run, clips):
    """The held-out waveforms [shape=(n_clips, n_samples)]."""
    return np.stack([soundfile.read(clips.parent / name, dtype="float32")[0] for name in run.clip_ids])


@pytest.fixture(scope="module")
def features(run, sounds):
    return np.stack([run.config.features.compute(y, run.config.features.sr) for y in sounds])


@pytest.fixture(scope="module")
def logits(run, features):
    with torch.no_grad():
        return run.model()(run.inputs(features)).numpy()


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run in all formats."""
    folder = tmp_path_factory.mktemp("formats") / "to"
    assert main(["--ckpt", str(run.path), "--to", str(folder)]) == 0
    return folder


# --------------------------------------------------------------------------------------------------- front end


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("n_samples", [300, 4000, 16007])
@pytest.mark.parametrize(
    "settings",
    [
        {"sr": 8000, "width": 32},
        {"sr": 11025, "width": 300, "windows": (0.025, 0.05), "hops": (0.01, 0.0125), "n_mels": 40},
        {"sr": 8000, "width": 64, "n_fft": 1001},
        {"sr": 8000, "width": 32, "seconds": 0.7},
    ],
)
def test_the_front_end_computes_the_features(settings, n_samples, products):
    settings, rng = FeatureSettings(**settings), np.random.default_rng(0)
    loud = 0.99 * np.sin(2 * np.pi * 440 * np.arange(n_samples) / settings.sr)  # hides quiet bands in single precision
    y = np.stack([rng.normal(scale=0.1, size=n_samples), loud, np.zeros(n_samples)]).astype(np.float32)
    found = FrontEnd(settings, products=products)(torch.from_numpy(y))
    np.testing.assert_allclose(found.numpy(), np.stack([settings.compute(each, settings.sr) for each in y]), atol=1e-5)


# --------------------------------------------------------------------------------------------------------- timm


def test_timm_loads_the_folder(run, features, logits, tmp_path):
    export.write(run, tmp_path / "to", ["timm"])
    model = timm.create_model(f"local-dir:{tmp_path / 'to'}", pretrained=True).eval()
    with torch.no_grad():
        np.testing.assert_allclose(model(run.inputs(features)).numpy(), logits, atol=1e-5)
        np.testing.assert_allclose(export.timm_model(run)(run.inputs(features)).numpy(), logits, atol=1e-5)
    assert model.pretrained_cfg["label_names"] == list(run.label_names)
    mean, std = (np.reshape(model.pretrained_cfg[name], (3, 1, 1)) for name in ("mean", "std"))
    np.testing.assert_allclose((features - mean) / std, run.inputs(features).numpy(), atol=1e-5)


def test_the_folder_is_a_start_for_runs(run, tmp_path, make_study):
    export.write(run, tmp_path / "to", ["timm"])
    final = {name.removeprefix("backbone."): tensor for name, tensor in run.final_state().items()}
    for weights in (tmp_path / "to", tmp_path / "to" / "model.safetensors"):
        assert imagenet_state(run.config.backbone, weights).sha256 == sha256_of(run.config.backbone, final)
    study = make_study(tmp_path, folds="1", weights=str(tmp_path / "to"))
    assert study.points(tl.TransferPlan())[0].weights_sha256 == sha256_of(run.config.backbone, final)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "vit_tiny_patch16_224"])
def test_timm_takes_other_families(backbone, make_study, tmp_path):
    run = trained(make_study(tmp_path, backbone=backbone, folds="1", epochs=1, width=40, weights="auto"))
    export.write(run, tmp_path / "to", ["timm"])
    model = timm.create_model(f"local-dir:{tmp_path / 'to'}", pretrained=True).eval()
    x = torch.randn(3, *run.config.features.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(model(x).numpy(), run.model()(x).numpy(), atol=1e-5)
    text = (tmp_path / "to" / "model.md").read_text()
    assert ("padded with zeros" in text) == (backbone != "test_efficientnet")


def test_a_network_that_timm_does_not_build_is_refused(make_study, tmp_path):
    cut = trained(make_study(tmp_path, folds="1", epochs=1), tl.TransferPlan(truncate_after=2))
    with pytest.raises(ParameterError, match="format='timm' is not available: the network is cut after Block 2.*try o"):
        export.write(cut, tmp_path / "to", ["timm"])
    normed = trained(make_study(tmp_path, backbone="test_convnext", folds="1", epochs=1, weights="auto"))
    with pytest.raises(ParameterError, match=r"timm's head has layers .* that the run does not have \(head.norm\)"):
        export.timm_model(normed)
    assert not (tmp_path / "to").exists()


# ------------------------------------------------------------------------------------------------ onnx and torch


@pytest.mark.parametrize("source", ["features", "waveform"])
def test_onnx_and_torch_programs_give_the_logits(exported, source, run, sounds, features, logits):
    import onnxruntime

    values = sounds if source == "waveform" else features
    session = onnxruntime.InferenceSession(exported / f"{source}.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(exported / f"{source}.pt2").module()
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["label_names"]) == list(run.label_names)
    assert json.loads(facts["sample_rate"]) == run.config.features.sr
    for part in (slice(0, 1), slice(0, 3), slice(None)):  # any number of clips
        np.testing.assert_allclose(session.run(None, {source: values[part]})[0], logits[part], atol=1e-4)
        with torch.no_grad():
            found = program(torch.from_numpy(values[part])).numpy()
        np.testing.assert_allclose(found, logits[part], atol=1e-4)


@pytest.mark.parametrize("seconds", [0.11, 0.3, 1.7])
def test_waveforms_have_any_length(exported, seconds, run):
    import onnxruntime

    y = np.random.default_rng(0).normal(scale=0.1, size=round(seconds * 8000)).astype(np.float32)
    with torch.no_grad():
        expected = run.model()(run.inputs(run.config.features.compute(y, run.config.features.sr)[None])).numpy()
        found = torch.export.load(exported / "waveform.pt2").module()(torch.from_numpy(y)[None]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    session = onnxruntime.InferenceSession(exported / "waveform.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"waveform": y[None]})[0], expected, atol=1e-4)


def test_all_formats_are_there_and_the_card_names_them(exported, run):
    names = {file.name for file in exported.iterdir()}
    programs = {f"{source}.{kind}" for source in ("features", "waveform") for kind in ("onnx", "pt2")}
    assert names == {"model.safetensors", "config.json", "model.md", *programs}
    text = (exported / "model.md").read_text()
    assert all(name in text for name in names - {"model.md"})


def test_a_format_that_is_named_twice_is_written_once(run, tmp_path):
    names = [file.name for file in export.write(run, tmp_path / "new", ("timm", "timm")).files]
    assert names == ["model.safetensors, config.json"]


def test_the_card_says_what_the_network_is(run):
    text = export.card(run, [])
    for words in (
        f"Accuracy after the last epoch: {100 * run.accuracy_last:.1f} %",
        "n = 8 held-out clips",
        "Always saying the commonest class would score 50.0 %",
        "| high, low |",
        "licence of these weights is not known",
    ):
        assert words in text
    assert "onnxruntime" not in text


def test_the_card_has_the_commonest_class_of_the_training_clips_if_it_is_known(run):
    for commonest, lines in ((0.25, ["Always saying the commonest class would score 25.0 %."]), (float("nan"), [])):
        text = export.card(dataclasses.replace(run, provenance=run.provenance | {"commonest": commonest}), [])
        assert [line for line in text.splitlines() if "commonest class" in line] == lines
        assert "Guessing would score 50.0 %." in text


# ------------------------------------------------------------------------------------------------------ bad input


def test_what_cannot_be_written_is_one_line(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ParameterError, match="to='.*full' is not empty: name a new folder"):
        export.write(run, tmp_path / "full")
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(
        ParameterError, match=r"onnxscript missing: pip install 'transferlens\[onnx\]'; timm would work"
    ):
        export.write(run, tmp_path / "to", ["timm", "onnx"])
    for argv, message in (
        (["--to", "x"], "--ckpt"),
        (["--ckpt", str(run.path), "--to", str(tmp_path / "to"), "--format", "tflite"], "tflite"),
        (["--ckpt", str(tmp_path / "none.h5"), "--to", str(tmp_path / "to")], "none.h5"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "to").exists()
    assert main(["--ckpt", str(run.path), "--to", str(tmp_path / "to"), "--format", "timm"]) == 0
    assert "model.safetensors, config.json  timm" in capsys.readouterr().out
