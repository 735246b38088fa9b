"""Ensembles: known answers by hand, grouping of runs, and the command."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from transferlens import ensemble
from transferlens.compare.ensembles import Members, average, gather, row_of
from transferlens.util.errors import ParameterError


def members(logits, labels, folds=None, name="nets"):
    logits = np.asarray(logits, float)
    folds = np.array(folds or ["1"] * len(labels))
    return Members(name, tuple(f"seed {i}" for i in range(len(logits))), logits, np.asarray(labels), folds)


def logits_of(*probabilities):
    return np.log(np.maximum(probabilities, 1e-12))


# ------------------------------------------------------------------------------------------------ numbers


def test_mean_of_softmax_outputs_not_of_logits():
    logits = np.array([[[10.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    by_hand = np.mean([np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in logits], axis=0)
    np.testing.assert_allclose(average(logits), by_hand)
    loud = np.array([[[4.0, 0.0]], [[0.0, 1.5]], [[0.0, 1.5]]])  # the mean logit says 0, the mean probability 1
    assert loud.mean(0).argmax() == 0
    assert average(loud).argmax() == 1


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3, 2)])
def test_bad_logits(shape):
    with pytest.raises(ParameterError, match=r"must be \(n_members, n_clips, n_classes\)"):
        average(np.zeros(shape))


def test_scores_with_a_known_answer():
    """Each member errs on another clip, so that the mean errs on none."""
    right, wrong = [0.8, 0.2], [0.4, 0.6]
    row = row_of(members(logits_of([right, right, wrong], [right, wrong, right], [wrong, right, right]), [0, 0, 0]))
    assert (row.n_clips, row.n_members) == (3, 3)
    assert row.single == pytest.approx(2 / 3)
    assert row.single_std == pytest.approx(0)
    assert row.accuracy == 1
    assert row.gain == pytest.approx(1 / 3)
    assert row.disagreement == pytest.approx(2 / 3)
    assert row.brier_single == pytest.approx((2 * 0.08 + 0.72) / 3)
    assert row.brier_single == pytest.approx(row.brier + row.ambiguity)
    assert row.nll < row.nll_single


def test_standard_deviation_is_over_members():
    one, other = [[0.9, 0.1]] * 4, [[0.9, 0.1]] * 2 + [[0.1, 0.9]] * 2
    row = row_of(members(logits_of(one, other), [0] * 4))
    assert row.single == 0.75
    assert row.single_std == pytest.approx(np.std([1, 0.5], ddof=1))


def test_alike_members_gain_nothing():
    each = np.random.default_rng(0).normal(size=(20, 3))
    row = row_of(members([each, each, each], np.arange(20) % 3))
    assert row.gain == row.disagreement == 0
    assert np.isnan([row.gain_low, row.gain_high]).all()
    assert row.ambiguity == pytest.approx(0)
    assert row.nll == pytest.approx(row.nll_single)


def test_sizes_are_over_all_subsets():
    rng = np.random.default_rng(0)
    nets = members(rng.normal(size=(4, 50, 3)), rng.integers(3, size=50))
    found, row = ensemble.sizes(nets), row_of(nets)
    assert (found[0].mean, found[-1].mean) == (pytest.approx(row.single), pytest.approx(row.accuracy))
    assert [row.n_subsets for row in found] == [4, 6, 4, 1]
    assert all(row.lowest <= row.mean <= row.highest for row in found)
    assert found[-1].lowest == found[-1].highest


# ------------------------------------------------------------------------------------------------ runs


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_folds_are_scored_together_and_seeds_are_members(seeds_store):
    (found,) = gather(seeds_store[0]["tuned"])
    assert found.name == "test_resnet"
    assert found.names == ("test_resnet seed 0", "test_resnet seed 1", "test_resnet seed 2")
    assert found.logits.shape == (3, 16, 2)
    for run in seeds_store[0]["tuned"]:
        mine = found.folds == run.config.fold
        np.testing.assert_array_equal(found.logits[run.config.seed, mine], run.logits)
        np.testing.assert_array_equal(found.labels[mine], run.labels)


def test_arms_stand_apart_and_backbones_together(seeds_store):
    runs = [*seeds_store[0]["tuned"], *seeds_store[0]["scratch"], *seeds_store[0]["other"]]
    found = {each.name: len(each.names) for each in gather(runs)}
    assert found == {
        "test_resnet, pretrained": 3,
        "test_resnet, from scratch": 3,
        "resnet10t, from scratch": 2,
        "all 2 backbones, from scratch": 5,
    }


def test_members_that_a_fold_lacks_are_left_out_and_named(seeds_store):
    runs = [run for run in seeds_store[0]["tuned"] if (run.config.fold, run.config.seed) != ("2", 1)]
    (found,) = gather(runs)
    assert found.names == ("test_resnet seed 0", "test_resnet seed 2")
    assert row_of(found).missing == "test_resnet seed 1"


@pytest.mark.parametrize(
    ("folds", "words"), [(("1",), "the one fold"), (("1", "2"), "mean and corrected 95 % interval, n = 2 folds")]
)
def test_the_legend_speaks_of_intervals_that_are_drawn(seeds_store, folds, words):
    runs = [run for run in seeds_store[0]["tuned"] if run.config.fold in folds]
    legend = ensemble.ensemble(runs).plot().legends[0]
    assert words in {text.get_text() for text in legend.get_texts()}


def test_too_few_members(seeds_store):
    with pytest.raises(ParameterError, match="an ensemble takes at least 2"):
        gather(seeds_store[0]["tuned"][:1])
    with pytest.raises(ParameterError, match="has 0 members of 'test_resnet' that every one of its 2 folds has"):
        runs = {(run.config.fold, run.config.seed): run for run in seeds_store[0]["tuned"]}
        gather([runs["1", 0], runs["2", 1]])


def test_members_of_other_clips_or_labels_are_refused(seeds_store):
    a, b = seeds_store[0]["tuned"][:2]
    with pytest.raises(ParameterError, match="differ in labels"):
        gather([a, dataclasses.replace(b, label_names=("x", "y"))])
    with pytest.raises(ParameterError, match=r"differ in held-out clips \(fold\)"):
        gather([a, dataclasses.replace(b, clip_ids=tuple(reversed(b.clip_ids)))])


def test_the_average_of_weights(seeds_store):
    """Its accuracy over all folds is the mean over folds, and that of one network several times is its own."""
    arms, folder = seeds_store
    result = ensemble.ensemble(arms["tuned"], soup=True, cache=folder / "cache", device="cpu")
    whole, *folds = result.rows
    assert whole.soup == pytest.approx(np.mean([row.soup for row in folds]))
    assert whole.soup_gain == pytest.approx(whole.soup - whole.accuracy)
    assert "average of their weights, one network" in result.summary()
    assert "average of weights" in {text.get_text() for text in result.plot().legends[0].get_texts()}
    assert all(np.isnan(row.soup) for row in ensemble.ensemble(arms["tuned"]).rows)


def test_command_on_runs(seeds_store, tmp_path, capsys):
    paths = [str(run.path) for run in seeds_store[0]["tuned"]]
    assert ensemble.main(["--ckpt", *paths, "--figures", str(tmp_path)]) == 0
    stems = [("ensemble", ("csv", "pdf", "png")), ("ensemble_sizes", ("csv",)), ("ensemble_reliability", ("csv",))]
    assert {p.name for p in tmp_path.iterdir()} == {f"{stem}.{end}" for stem, ends in stems for end in ends}
    rows = read(tmp_path / "ensemble.csv")
    assert [row["fold"] for row in rows] == ["", "1", "2"]
    assert float(rows[0]["accuracy"]) == pytest.approx(np.mean([float(row["accuracy"]) for row in rows[1:]]))
    assert "standard deviation over 3 members" in capsys.readouterr().out


def test_command_trains_what_is_missing_and_reads_the_rest(seeds_store, tmp_path, weights_file, capsys):
    folder = seeds_store[1]
    options = ["--clips", folder / "tones" / "clips.csv", "--runs", folder / "runs", "--cache", folder / "cache"]
    options += ["--backbone", "test_resnet", "--weights", weights_file, "--width", 32, "--epochs", 1]
    options += ["--batch-size", 8, "--device", "cpu", "--folds", 1, "--seeds", 0, 1, 2, "--figures", tmp_path]
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")}
    assert ensemble.main([str(each) for each in options]) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")} == before
    assert read(tmp_path / "ensemble.csv")[0]["n_members"] == "3"


def test_bad_input_is_one_line(seeds_store, tmp_path, capsys):
    for paths, message in (
        (["nowhere.h5"], "nowhere.h5 does not exist"),
        ([str(seeds_store[0]["tuned"][0].path)], "an ensemble takes at least 2"),
    ):
        assert ensemble.main(["--ckpt", *paths, "--figures", str(tmp_path / "new")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    runs = [str(run.path) for run in seeds_store[0]["tuned"]]
    for given, names in ((["--dry-run"], "dry_run"), (["--runs", "x", "--epochs", "2"], "epochs and runs")):
        assert ensemble.main(["--ckpt", *runs, *given, "--figures", str(tmp_path / "new")]) == 2
        assert f"{names} cannot be given with ckpt: leave out one of them" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
