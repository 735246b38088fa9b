"""Choosing the epoch: nested runs, their accuracies, and the report over a store."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from transferlens import selection
from transferlens.models.plan import TransferPlan
from transferlens.store.run import load_run
from transferlens.training.sweep import Study
from transferlens.util.errors import ParameterError


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights_file):
    """Runs of three epochs with and without an inner fold."""
    from conftest import write_clips

    folder = tmp_path_factory.mktemp("selection")
    options = {
        "clips": write_clips(folder / "tones"), "backbone": "test_resnet", "weights": weights_file, "width": 32,
        "epochs": 3, "batch_size": 8, "device": "cpu", "folds": (1, 3), "runs": folder / "runs",
        "cache": folder / "cache",
    }  # fmt: skip
    found = {select: Study(**options, select=select).runs(TransferPlan()) for select in ("last", "nested")}
    return found, folder, options


def test_the_inner_fold_is_the_next_one_and_is_not_trained_on(store):
    runs, _, options = store
    assert [(run.config.fold, run.config.inner_fold) for run in runs["nested"]] == [("1", "2"), ("3", "1")]
    study = Study(**options, select="nested")
    (point, _) = study.points(TransferPlan())
    rows, held_out = study.dataset.split(point.fold, point.inner_fold)
    folds = np.array([clip.fold for clip in study.dataset.clips])
    assert set(folds[rows]) == {"3"}
    assert set(folds[held_out]) == {"1"}


def test_nested_runs_stand_beside_the_others(store):
    runs, _, _ = store
    for last, nested in zip(runs["last"], runs["nested"], strict=True):
        assert last.config.id != nested.config.id
        assert f"-n{nested.config.inner_fold}-" in nested.config.id
        assert last.accuracy_nested is None
        assert nested.clip_ids == last.clip_ids
        assert not np.array_equal(nested.normalisation, last.normalisation)  # of the clips trained on alone


def test_the_epoch_is_the_first_best_of_the_inner_fold(store):
    run = store[0]["nested"][0]
    history = {**run.history, "inner_accuracy": np.array([0.5, 0.75, 0.75])}
    history["heldout_accuracy"] = np.array([1.0, 0.25, 0.5])
    made = dataclasses.replace(run, history=history)
    assert (made.accuracy_last, made.accuracy_best, made.accuracy_nested) == (0.5, 1.0, 0.25)
    (row,) = selection.rows_of([made])
    assert (row.epoch_last, row.epoch_best, row.epoch_nested) == (3, 1, 2)
    assert selection.optimism([row]).mean == 0.5
    assert selection.optimism([row], "accuracy_nested").mean == 0.75


def test_the_file_holds_the_inner_accuracies(store):
    run = store[0]["nested"][0]
    again = load_run(run.path, expected=run.config)
    np.testing.assert_array_equal(again.history["inner_accuracy"], run.history["inner_accuracy"])
    assert again.history["inner_accuracy"].shape == (3,)


def test_best_is_never_below_last_or_nested(store):
    rows = selection.rows_of([run for runs in store[0].values() for run in runs])
    assert all(row.accuracy_best >= row.accuracy_last for row in rows)
    assert all(row.accuracy_best >= row.accuracy_nested for row in rows if row.inner_fold)


def test_command(store, tmp_path, capsys):
    assert selection.main(["--runs", str(store[1] / "runs"), "--figures", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"selection.{end}" for end in ("csv", "pdf", "png")}
    with (tmp_path / "selection.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert [row["accuracy_nested"] == "nan" for row in rows] == [row["inner_fold"] == "" for row in rows]
    assert "nested" in capsys.readouterr().out
    paths = [str(path) for path in sorted((store[1] / "runs").rglob("*.h5"))]
    assert selection.main(["--ckpt", *paths, "--runs", "other"]) == 2
    assert "runs cannot be given with ckpt" in capsys.readouterr().err


def test_too_few_folds(store, tmp_path):
    from conftest import write_clips

    options = store[2] | {"clips": write_clips(tmp_path / "two", folds=("1", "2")), "folds": (), "select": "nested"}
    with pytest.raises(ParameterError, match="select='nested' needs three folds or more and two has 2"):
        Study(**options)


def test_an_empty_store(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert selection.main(["--runs", str(tmp_path / "runs"), "--figures", str(tmp_path / "figures")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no finished run" in line
