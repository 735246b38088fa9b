"""Robustness: clean clips give what the runs stored, and the command's table, figure and refusals."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from transferlens import ensemble, robustness
from transferlens.compare import conditions
from transferlens.data.catalogue import DataOptions
from transferlens.measures import stats


def options_of(folder):
    return DataOptions(clips=folder / "tones" / "clips.csv")


def test_clean_clips_give_the_stored_logits(seeds_store):
    arms, folder = seeds_store
    found, _ = conditions.corrupted(arms["tuned"], options_of(folder), ["gain"], "cpu")
    assert list(found) == [("clean", 0), ("gain", -6), ("gain", -12), ("gain", -24)]
    for run in arms["tuned"]:
        clean, softer = (next(r for r in found[c] if r.path == run.path) for c in (("clean", 0), ("gain", -6)))
        np.testing.assert_array_equal(clean.logits, run.logits)
        assert not np.allclose(softer.logits, clean.logits, atol=1e-3)


def test_noise_of_a_clip_is_its_own(seeds_store):
    """Whatever its place in the fold is, and which other clips are there."""
    run = seeds_store[0]["tuned"][0]
    clips = DataOptions(clips=seeds_store[1] / "tones" / "clips.csv").open()
    y = clips.load(clips.clips[0])
    alone, behind = replace(run, clip_ids=("x",)), replace(run, clip_ids=("w", "x"))
    first = conditions.features(alone, [y], "noise", 10)[0]
    w, x = conditions.features(behind, [y, y], "noise", 10)
    np.testing.assert_array_equal(first, x)
    assert not np.array_equal(w, x)


def test_what_is_gained_more_than_on_clean_clips(seeds_store):
    """Known answer: on clean clips all members are right; corrupted, each of three is wrong on a third of its own."""
    runs = [run for run in seeds_store[0]["tuned"] if run.config.fold == "1"]
    labels, n_classes = runs[0].labels, len(runs[0].label_names)
    clean = np.eye(n_classes, dtype=np.float32)[labels] * 5
    worse = np.eye(n_classes, dtype=np.float32)[(labels + 1) % n_classes] * 5
    mine = np.arange(len(labels)) % 3
    corrupt = [np.where((mine == i)[:, None], worse, clean) for i in range(3)]
    found = {
        ("clean", 0.0): [replace(run, logits=clean) for run in runs],
        ("noise", 10.0): [replace(run, logits=each) for run, each in zip(runs, corrupt, strict=True)],
    }
    before, after = robustness.rows_of(found)
    assert (before.single, before.accuracy, before.gain, before.more_than_clean) == (1, 1, 0, 0)
    assert before.low == stats.share_interval([1] * len(labels)).low < 1
    assert after.accuracy == 1
    assert after.more_than_clean == after.gain == pytest.approx(1 / 3)


def test_the_variation_of_the_clean_gain_counts(seeds_store):
    """If the gain is 0 on every corrupted clip, what is beyond the clean gain varies as the clean gain does."""
    runs = [run for run in seeds_store[0]["tuned"] if run.config.fold == "1"]
    labels, n_classes = runs[0].labels, len(runs[0].label_names)
    right, wrong = (5 * np.eye(n_classes, dtype=np.float32)[(labels + i) % n_classes] for i in (0, 1))
    one_wrong = [np.where((np.arange(len(labels)) % 4 == i)[:, None], wrong, right) for i in range(3)]
    found = {
        ("clean", 0.0): [replace(run, logits=each) for run, each in zip(runs, one_wrong, strict=True)],
        ("noise", 10.0): [replace(run, logits=right) for run in runs],
    }
    clean, noise = robustness.rows_of(found)
    assert (noise.more_than_clean, noise.gain) == (-clean.gain, 0)
    assert (noise.more_than_clean_low, noise.more_than_clean_high) == pytest.approx((-clean.gain_high, -clean.gain_low))
    assert noise.more_than_clean_p == noise.more_than_clean_p_adjusted < 0.05
    assert np.isnan(clean.more_than_clean_p_adjusted)


def test_the_average_of_weights_is_that_of_ensemble(seeds_store, tmp_path):
    """On clean clips; of several backbones there is none."""
    arms, folder = seeds_store
    runs = [*arms["scratch"], *arms["other"]]
    given = {"soup": True, "clips": folder / "tones" / "clips.csv", "device": "cpu"}
    rows = robustness.robustness(runs, **given, corruption="gain").rows
    clean = {row.ensemble: row for row in rows if row.corruption == "clean"}
    expected = ensemble.ensemble(runs, **given, cache=folder / "cache")
    assert len(clean) == 3
    for row in (row for row in expected.rows if not row.fold):
        assert clean[row.ensemble].soup == pytest.approx(row.soup, nan_ok=True)
        assert np.isnan(row.soup) == row.ensemble.startswith("all 2 backbones")
    result = robustness.Result(rows, "tones")
    assert "average of weights [%]" in result.summary()
    assert "average of weights" in {text.get_text() for text in result.plot().legends[0].get_texts()}


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
        (["--ckpt", *paths, *clips, "--corruption", "rain"], "corruption=('rain',) must be one or more of noise, gain"),
        (["--ckpt", *paths, *clips, "--corruption"], "Error parsing --corruption: it needs one value or more"),
        (["--ckpt", *paths], "was trained on other clips than synth"),
        (["--ckpt", paths[0], *clips], "an ensemble takes at least 2"),
        (["--ckpt", *clips], "Error parsing --ckpt: it needs one value or more"),
    ):
        assert robustness.main([*argv, "--figures", str(tmp_path / "new")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "new").exists()
