"""Robustness: clean clips give what the runs stored, and the command's table, figure and refusals."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from transferlens import robustness
from transferlens.datasets import DataOptions


def options_of(folder):
    return DataOptions(clips=folder / "tones" / "clips.csv")


def test_clean_clips_give_the_stored_logits(seeds_store):
    arms, folder = seeds_store
    conditions = robustness.corrupted(arms["tuned"], options_of(folder), ["gain"], "cpu")
    kind, _, found = next(conditions)
    assert kind == "clean"
    for run, again in zip(arms["tuned"], found, strict=True):
        np.testing.assert_allclose(again.logits, run.logits, atol=0.05)  # stored in the precision of training
    kind, strength, softer = next(conditions)
    assert (kind, strength) == ("gain", -6)
    assert not np.allclose(softer[0].logits, found[0].logits, atol=1e-3)


def test_command(seeds_store, tmp_path, capsys):
    arms, folder = seeds_store
    paths = [str(run.path) for arm in ("tuned", "scratch") for run in arms[arm]]
    argv = ["--ckpt", *paths, "--clips", str(folder / "tones" / "clips.csv"), "--figures", str(tmp_path)]
    assert robustness.main([*argv, "--corruption", "noise", "shift", "--device", "cpu"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"robustness.{end}" for end in ("csv", "pdf", "png")}
    with (tmp_path / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 4 + 3)
    for row in rows:
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
        assert float(row["gain"]) == pytest.approx(float(row["accuracy"]) - float(row["single"]))
    assert "test_resnet, from scratch" in capsys.readouterr().out


def test_bad_input_is_one_line(seeds_store, tmp_path, capsys):
    arms, folder = seeds_store
    paths, clips = [str(run.path) for run in arms["tuned"]], ["--clips", str(folder / "tones" / "clips.csv")]
    for argv, message in (
        (["--ckpt", *paths, *clips, "--corruption", "rain"], "corruption='rain' must be among noise, gain"),
        (["--ckpt", *paths, *clips, "--corruption"], "corruption='' must be among"),
        (["--ckpt", *paths], "was trained on other clips than synth"),
        (["--ckpt", paths[0], *clips], "an ensemble takes at least 2"),
        (["--ckpt", *clips], "ckpt must name at least 1 run, not 0"),
    ):
        assert robustness.main([*argv, "--figures", str(tmp_path / "new")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "new").exists()
