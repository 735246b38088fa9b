"""Weight change by representation: comparisons of runs, tables and the command."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from transferlens import svcca, train
from transferlens.compare.network_pairs import comparisons
from transferlens.models.plan import TransferPlan
from transferlens.store.run import check_alike, load_run
from transferlens.store.runfile import seal
from transferlens.util.errors import CheckpointError, ParameterError


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights_file):
    """Finished runs of two arms and two seeds, and where their features are cached."""
    from conftest import write_clips

    from transferlens.training.sweep import Study

    folder = tmp_path_factory.mktemp("svcca")
    given = {
        "clips": write_clips(folder / "tones"), "backbone": "test_resnet", "weights": weights_file, "width": 32,
        "epochs": 1, "batch_size": 8, "device": "cpu", "workers": 1, "runs": folder / "runs", "cache": folder / "cache",
    }  # fmt: skip
    made = Study(**given, folds=1, seeds=(0, 1))
    plans = {"tuned": TransferPlan(), "scratch": TransferPlan.scratch(), "cut": TransferPlan.truncate(2)}
    plans["frozen"] = TransferPlan.freeze(2)
    arms = {name: made.runs(plan) for name, plan in plans.items()}
    arms |= {"fold 2": Study(**given, folds=2).runs(TransferPlan())}
    return arms, folder


def command(store, *names, **options):
    arms, folder = store
    paths = [str(run.path) for name in names for run in arms[name]]
    given = {"cache": folder / "cache", "resamples": 100, "groups": 10, "device": "cpu"} | options
    return ["--ckpt", *paths, *(f"--{name}={value}" for name, value in given.items())]


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------------ command


def test_command_compares_each_run_with_its_start_and_seeds_with_each_other(store, tmp_path, capsys):
    assert svcca.main([*command(store, "tuned", "scratch", figures=tmp_path), "--matrix"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"svcca{part}.{suffix}" for part in ("", "_matrix") for suffix in ("csv", "png", "pdf")]
        + ["svcca_weights.csv"]
    )
    table = read(tmp_path / "svcca.csv")
    assert [*dict.fromkeys(row["comparison"] for row in table)] == [
        "pretrained, training, seed 0",
        "pretrained, training, seed 1",
        "from scratch, training, seed 0",
        "from scratch, training, seed 1",
        "pretrained, seeds, seed 0 and 1",
        "from scratch, seeds, seed 0 and 1",
    ]
    for row in table:
        for name in ("svcca", "pwcca", "cka"):
            assert 0 <= float(row[name]) <= 1
        assert float(row["svcca_excess"]) == float(row["svcca"]) - float(row["svcca_null"])
        assert row["too_few"] == str(int(row["n_samples"]) < 5 * int(row["n_neurons"]))
        assert (row["weight_cosine"] == "nan") == row["layer"].startswith("block ")
    tensors = {row["tensor"] for row in read(tmp_path / "svcca_weights.csv")}
    assert any(name.endswith("running_var") for name in tensors)
    assert "head.weight" in tensors


def test_training_clips_are_the_others_and_apart(store, tmp_path):
    run = store[0]["tuned"][0]
    both = svcca.svcca(run, on=("held-out", "training"), cache=store[1] / "cache", resamples=0)
    assert [*dict.fromkeys(row.comparison for row in both.rows)] == [
        "pretrained, training, seed 0",
        "pretrained, training, seed 0, training clips",
    ]
    held_out, training = (
        {row.n_samples for row in both.rows if row.clips == clips} for clips in ("held-out", "training")
    )
    assert {2 * n for n in held_out} == training
    assert "8 held-out clips, 16 training clips" in both.title
    weights = [row.tensor for row in both.weights]
    assert len(weights) == len(set(weights))
    assert len(both.plot().axes[0].get_legend_handles_labels()[0] or both.plot().legends[0].texts) == 4


def test_training_clips_that_are_not_known(store, tmp_path, study):
    run = next(iter(study(folds=("1",), select="nested", epochs=1).runs(TransferPlan())))
    with pytest.raises(ParameterError, match="was not trained on all other clips: its training clips are not known"):
        svcca.svcca(run, on="training", cache=tmp_path / "cache")


def test_the_caption_speaks_of_bands_that_are_drawn(store):
    result = svcca.svcca(store[0]["tuned"][0], resamples=0, positions="mean", cache=store[1] / "cache")
    assert "bands" not in result.plot().axes[0].get_title(loc="left")
    rows = tuple(dataclasses.replace(row, low=0.1, high=0.9) for row in result.rows)
    assert "; bands: 95 %" in dataclasses.replace(result, rows=rows).plot().axes[0].get_title(loc="left")


def test_each_run_is_compared_with_its_own_start(store):
    run = store[0]["scratch"][0]
    (comparison,) = comparisons([run])
    before, after = comparison.states()
    assert all(torch.equal(before[name], tensor) for name, tensor in run.initial_state().items())
    assert all(torch.equal(after[name], tensor) for name, tensor in run.final_state().items())


def test_seeds_are_compared_as_they_ended(store):
    pair = store[0]["scratch"]
    found = comparisons(pair)[-1]
    assert found.kind == "seeds"
    for state, run in zip(found.states(), pair, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in run.final_state().items())


def test_frozen_blocks_have_not_moved(store, tmp_path):
    argv = command(store, "frozen", figures=tmp_path, resamples=0)
    assert svcca.main(argv) == 0
    rows = [row for row in read(tmp_path / "svcca.csv") if row["kind"] == "training"]
    for row in rows:
        if int(row["block"]) <= 2:
            assert float(row["svcca"]) == pytest.approx(1, abs=1e-9), row["layer"]
            assert row["weight_relative_change"] in ("0.0", "nan")
    assert min(float(row["svcca"]) for row in rows) < 0.999


def test_one_run_under_two_paths_is_one(store, tmp_path):
    path = store[0]["tuned"][0].path
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    argv = command(store, figures=tmp_path)
    assert svcca.main([*argv[:1], str(path), str(copy), *argv[1:]]) == 0
    assert {row["comparison"] for row in read(tmp_path / "svcca.csv")} == {"pretrained, training, seed 0"}


def test_runs_of_one_plan_that_differ_in_more_than_the_seed_have_names_of_their_own(store):
    run = store[0]["tuned"][0]
    training = dataclasses.replace(run.config.training, lr=0.5)
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, training=training))
    labels = [each.label for each in comparisons([run, other])]
    assert len(set(labels)) == 3
    assert all("pretrained (" in label for label in labels)


def test_weights_that_do_not_fit_are_a_damaged_run(store, tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(store[0]["tuned"][0].path.read_bytes())
    with h5py.File(path, "a") as file:
        del file["weights/head.weight"]
    seal(path)
    with pytest.raises(CheckpointError, match="damaged: its weights do not fit its backbone and plan"):
        load_run(path).model()


def test_two_runs_that_differ_otherwise_are_compared_too(store):
    pair = [store[0]["tuned"][0], store[0]["scratch"][0]]
    assert [each.kind for each in comparisons(pair)] == ["training", "training", "runs"]


def test_features_that_are_gone_are_computed_again(store, tmp_path):
    argv = command(store, "fold 2", figures=tmp_path / "cached")
    assert svcca.main(argv) == 0
    again = command(
        store, "fold 2", figures=tmp_path / "again", cache=tmp_path / "empty", clips=store[1] / "tones" / "clips.csv"
    )
    assert svcca.main(again) == 0
    assert read(tmp_path / "again" / "svcca.csv") == read(tmp_path / "cached" / "svcca.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("tuned", "cut"), "differ in truncate_after (2 and 4): compare runs of the same"),
        (("tuned", "fold 2"), "differ in held-out clips (fold): compare runs of the same"),
    ],
)
def test_runs_that_cannot_be_compared(store, tmp_path, names, message, capsys):
    assert svcca.main(command(store, *names, figures=tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_another_backbone(store):
    run = store[0]["tuned"][0]
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, backbone="resnet18"))
    with pytest.raises(ParameterError, match=r"differ in backbone \(resnet18 and test_resnet\)"):
        check_alike([run, other], "backbone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": 1.5}, "variance=1.5 must be greater than 0 and at most 1"),
        ({"positions": "none"}, "positions='none' must be all, mean, or a number of at least 1"),
        ({"positions": "0"}, "positions='0' must be"),
        ({"groups": 9}, "groups=9 must be at least 10: intervals from fewer are too narrow"),
        ({"resamples": 5}, "resamples=5 must be 0 (no intervals) or at least 100"),
        ({"cache": "nowhere"}, "was trained on other clips than synth"),
        ({"clips": "nope.csv"}, "nope.csv"),
        ({"dataset": "synth"}, "was trained on other clips than synth: name its clips (clips, or dataset and root)"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(store, tmp_path, options, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert svcca.main(command(store, "tuned", figures=tmp_path / "figures", **options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "figures").exists()


def test_a_matrix_of_few_clips_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(svcca, "heldout_features", lambda *args, **how: np.zeros((3, 1, 1, 1)))
    message = "has 3 held-out clips: matrix=True needs at least 4, leave it out"
    with pytest.raises(ParameterError, match=message):
        svcca.svcca(store[0]["tuned"][0], matrix=True)


def test_no_run_at_all(capsys):
    assert svcca.main(["--ckpt"]) == 2
    assert "Error parsing --ckpt: it needs one value or more" in capsys.readouterr().err


def test_densenet201_within_4_gib(tmp_path):
    """All 200 convolutions of a few clips, of a run from a random start, in a process of its own."""
    from conftest import write_clips

    clips = write_clips(tmp_path / "tones")
    common = ["--clips", str(clips), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    arguments = ["--backbone", "densenet201", "--pretrained-through", "none", "--folds", "1"]
    arguments += ["--width", "32", "--epochs", "1", "--batch-size", "8", "--runs", str(tmp_path / "runs")]
    assert train.main([*common, *arguments]) == 0
    (path,) = (tmp_path / "runs").rglob("*.h5")
    argv = ["--ckpt", str(path), *common, "--figures", str(tmp_path / "figures")]
    script = f"""
from pathlib import Path
from transferlens import svcca
assert svcca.main({argv!r}) == 0
print([line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")][0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 4 * 2**20  # [KiB]
    table = read(tmp_path / "figures" / "svcca.csv")
    assert sum(not row["layer"].startswith("block ") for row in table) == 200
    assert all(0 <= float(row["svcca"]) <= 1 for row in table)
