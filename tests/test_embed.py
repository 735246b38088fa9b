"""Embeddings of sound files: the pooled output of every block, as a table and as arrays, and as HEAR asks for them."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest
import soundfile
import torch

import transferlens as tl
from transferlens.embed import main
from transferlens.store import hear
from transferlens.util.errors import CheckpointError, ParameterError


@pytest.fixture(scope="module")
def run(make_study, tmp_path_factory):
    (run,) = make_study(tmp_path_factory.mktemp("embed"), folds="1", epochs=1, precision="fp32").runs(tl.TransferPlan())
    return run


@pytest.fixture(scope="module")
def files(run, clips):
    return [clips.parent / name for name in run.clip_ids]


@pytest.fixture(scope="module")
def sounds(files):
    return np.stack([soundfile.read(path, dtype="float32")[0] for path in files])


@pytest.mark.parametrize("block", range(5))
def test_embeddings_are_the_pooled_output_of_a_block(run, files, sounds, block):
    S = np.stack([run.config.features.compute(y, run.config.features.sr) for y in sounds])
    with torch.no_grad():
        expected = run.model().features(run.inputs(S), through=block).mean((2, 3)).numpy()
    np.testing.assert_allclose(run.embed(files, block=block).vectors, expected, atol=1e-5)
    model = hear.load_model(run.path, block=block)
    np.testing.assert_allclose(hear.get_scene_embeddings(torch.from_numpy(sounds), model), expected, atol=1e-4)
    assert model.scene_embedding_size == expected.shape[1]


def test_the_head_on_the_last_embedding_gives_the_stored_logits(run, files):
    vectors = tl.embed(run, files=files).embeddings.vectors
    with torch.no_grad():
        np.testing.assert_allclose(run.model().head(torch.from_numpy(vectors)), run.logits, atol=1e-5)


def test_every_kind_of_file_holds_the_same(run, files, tmp_path, capsys):
    argv = [*map(str, files[:3]), "--ckpt", str(run.path), "--block", "1", "--window", "0.2"]
    for ending in ("csv", "npz", "h5"):
        assert main([*argv, "--out", str(tmp_path / f"e.{ending}")]) == 0
    capsys.readouterr()
    assert main(argv) == 0
    assert capsys.readouterr().out == (tmp_path / "e.csv").read_text()
    found = run.embed(files[:3], block=1, window=0.2)
    arrays, rows = np.load(tmp_path / "e.npz"), list(csv.DictReader((tmp_path / "e.csv").open()))
    size = found.vectors.shape[1]
    with h5py.File(tmp_path / "e.h5") as file:
        for values in (
            arrays["embeddings"],
            file["embeddings"][:],
            [[row[f"e{i}"] for i in range(size)] for row in rows],
        ):
            np.testing.assert_array_equal(np.asarray(values, np.float32), found.vectors)
        for paths in (arrays["path"], file["path"].asstr()[:], [row["path"] for row in rows]):
            assert [*paths] == [str(path) for path in found.paths]
        for starts in (arrays["start"], file["start"][:], [float(row["start"]) for row in rows]):
            np.testing.assert_allclose(starts, found.times[:, 0])
        assert arrays["block"] == file["block"][()] == 1
    assert found.table().shape == (len(rows), 3 + size)


def test_a_file_that_cannot_be_read_is_named(run, files, tmp_path, capsys):
    (tmp_path / "empty.wav").touch()
    assert main([str(tmp_path / "empty.wav"), str(files[0]), "--ckpt", str(run.path)]) == 2
    captured = capsys.readouterr()
    assert "empty.wav cannot be decoded" in captured.err
    assert len(captured.out.splitlines()) == 2


def test_bad_input_is_one_line(run, files, make_study, tmp_path, capsys):
    (cut,) = make_study(tmp_path, folds="1", epochs=1).runs(tl.TransferPlan(truncate_after=2))
    for call, message in (
        (lambda: tl.embed(cut, files=files, block=3), "block=3 must be 0 to 2: the network is cut after Block 2"),
        (lambda: tl.embed(run, files=files, block=5), "block=5 must be 0 to 4"),
        (lambda: tl.embed(run, files=files, hop=1), "hop=1 has no effect without window"),
        (lambda: tl.embed(run, files=()), "files must name sound files"),
        (lambda: hear.load_model(), "model_file_path must be a run file"),
        (lambda: hear.load_model(run.path, hop=0), "hop=0.0 must be greater than 0"),
        (lambda: hear.load_model(run.path, hop=1e-9), "must be at least one sample"),
        (
            lambda: hear.get_scene_embeddings(torch.zeros(8), hear.load_model(run.path)),
            r"audio=\(8,\) must be a tensor",
        ),
    ):
        with pytest.raises(ParameterError, match=message):
            call()
    with pytest.raises(CheckpointError, match="none.h5"):
        hear.load_model(tmp_path / "none.h5")
    assert main([str(files[0]), "--ckpt", str(run.path), "--out", str(tmp_path / "e.txt")]) == 2
    assert "does not end in .csv or .npz or .h5" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- the rules of hear-validator


@pytest.mark.parametrize("length", [1.07, 1.98, 4.0])
def test_moments_are_regular_and_reach_the_end(run, length):
    model = hear.load_model(str(run.path), window=0.1)
    assert isinstance(model, torch.nn.Module)
    assert all(isinstance(getattr(model, f"{kind}_embedding_size"), int) for kind in ("scene", "timestamp"))
    audio = torch.rand(2, int(length * model.sample_rate)) * 2 - 1
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    assert embeddings.dtype == torch.float32 and not embeddings.requires_grad
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert timestamps.shape[0] == 2
    steps = timestamps.diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 50.0), atol=1e-2, rtol=0)
    assert timestamps.min() == 0
    assert 1000 * length - 50 < timestamps.max() + 1e-3 <= 1000 * length + 1e-3
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.dtype == torch.float32 and scenes.shape == (2, model.scene_embedding_size)


def test_a_moment_is_embedded_with_the_sound_around_it(run, sounds):
    model = hear.load_model(run.path, window=0.2, hop=0.03)
    audio = torch.from_numpy(sounds[:2])
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
    for i in (5, 9):
        centre = round(timestamps[0, i].item() / 1000 * 8000)
        around = audio[:, centre - 800 : centre + 800]
        torch.testing.assert_close(embeddings[:, i], hear.get_scene_embeddings(around, model), atol=1e-5, rtol=0)
    torch.testing.assert_close(embeddings[:1], hear.get_timestamp_embeddings(audio[:1], model)[0], atol=1e-5, rtol=0)
