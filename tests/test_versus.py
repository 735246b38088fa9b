"""Two runs, or two arms, against each other: nothing differs from itself, flips add up, names are understood."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from transferlens import versus
from transferlens.util.errors import ParameterError


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(seeds_store):
    return seeds_store[0]


def of(runs, *, fold, seed):
    (run,) = (run for run in runs if (run.config.fold, run.config.seed) == (fold, seed))
    return run


@pytest.mark.parametrize("arm", ["one run", "an arm"])
def test_a_run_compared_with_itself_has_no_difference_anywhere(runs, arm):
    found = runs["scratch"][:1] if arm == "one run" else runs["scratch"]
    others = runs["tuned"][:1] if arm == "one run" else runs["tuned"]
    first, second = (versus.sides([*found, *others])[0] for _ in range(2))
    result = versus.compare(first, second)
    assert result.settings == result.flips == ()
    assert {(row.change, row.gained, row.lost, row.change_p) for row in result.rows} == {(0, 0, 0, 1)}
    assert {(row.change, row.p_adjusted) for row in result.changes} == {(0, 1)}
    assert "no setting differs" in result.summary() and "no clip flipped" in result.summary()


def test_flips_are_the_difference_of_correct_clips(runs):
    a, b = of(runs["tuned"], fold="1", seed=0), of(runs["scratch"], fold="1", seed=0)
    result = versus.versus([a, b])
    whole = result.rows[0]
    assert whole.gained - whole.lost == a.right.sum() - b.right.sum()
    assert len(result.flips) == whole.gained + whole.lost == np.sum(a.right != b.right)
    assert whole.change == pytest.approx(a.accuracy_last - b.accuracy_last)
    for flip in result.flips:
        i = a.clip_ids.index(flip.clip)
        assert (flip.right, flip.right_other) == (a.right[i], b.right[i])
        assert flip.predicted == a.label_names[a.logits[i].argmax()]
    assert np.isnan(whole.folds_low)  # of one fold


def test_arms_are_means_over_their_seeds(runs):
    result = versus.versus([*runs["tuned"], *runs["scratch"]])
    whole, *by_fold = result.rows
    assert [row.fold for row in by_fold] == ["1", "2"]
    for row, arm in (("accuracy", "tuned"), ("accuracy_other", "scratch")):
        assert getattr(whole, row) == pytest.approx(np.mean([run.accuracy_last for run in runs[arm]]))
    assert whole.change == pytest.approx(np.mean([row.change for row in by_fold]))
    assert sum(flip.right - flip.right_other for flip in result.flips) == pytest.approx(whole.change * whole.n_clips)
    weights = [row.n_clips for row in result.changes]
    assert np.average([row.change for row in result.changes], weights=weights) == pytest.approx(whole.change)
    backwards = versus.versus([*runs["scratch"], *runs["tuned"]]).rows[0]
    assert (backwards.gained, backwards.lost) == (whole.lost, whole.gained)
    assert backwards.change == pytest.approx(-whole.change)


def test_settings_that_differ(runs):
    result = versus.versus([*runs["tuned"], *runs["scratch"]])
    found = {each.setting: (each.network, each.other) for each in result.settings}
    assert found["pretrained_through"] == ("4", "none")
    assert found["weights"] == ("imagenet.safetensors", "")
    assert not {"fold", "seed", "epochs", "dataset"} & found.keys()
    seeds = versus.versus([of(runs["tuned"], fold="1", seed=0), of(runs["tuned"], fold="1", seed=1)])
    assert [(each.setting, each.network, each.other) for each in seeds.settings] == [("seed", "0", "1")]
    assert seeds.rows[0].network == "pretrained, seed 0"


def test_command_on_two_files(runs, tmp_path, capsys):
    a, b = of(runs["tuned"], fold="2", seed=1), of(runs["other"], fold="2", seed=1)
    assert versus.main(["--ckpt", str(a.path), str(b.path), "--figures", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "backbone" in text and "test_resnet, pretrained" in text and "by class:" in text
    assert (tmp_path / "versus.png").is_file()
    (first, *_) = read(tmp_path / "versus.csv")
    assert first["network"] == "test_resnet, pretrained"
    assert [row["run"] for row in read(tmp_path / "versus_epochs.csv")] == [a.config.id, b.config.id]
    assert len(read(tmp_path / "versus_classes.csv")) == 2


def test_arms_of_a_store_by_their_words(seeds_store, tmp_path, capsys):
    store = ["--runs", str(seeds_store[1] / "runs"), "--figures", str(tmp_path)]
    assert versus.main([*store, "--arms", "pretrained", "test_resnet, from scratch"]) == 0
    (whole, *_) = read(tmp_path / "versus.csv")
    assert (whole["network"], whole["other"], whole["n_clips"]) == ("pretrained", "from scratch", "16")
    capsys.readouterr()
    assert versus.main([*store, "--arms", "p4-none-4", "test_resnet, pnone-none-4"]) == 0
    assert read(tmp_path / "versus.csv")[0] == whole
    capsys.readouterr()
    for words, message in (
        (
            ["pretrained", "from scratch"],
            "can be each of 'tones, resnet10t, from scratch', 'tones, test_resnet, from scratch': say more",
        ),
        (["pretrained", "frozen"], "arms='frozen' must be one of 'tones, "),
        (["pretrained", "PRETRAINED"], "are both 'tones, test_resnet, pretrained': name two"),
    ):
        assert versus.main([*store, "--arms", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert versus.main(store) == 2
    assert "arms must name two of 'tones, " in capsys.readouterr().err
    assert versus.main([*store, "--arms", "pretrained"]) == 2
    assert "must be two names" in capsys.readouterr().err


def test_bad_input_is_one_line(runs, tmp_path):
    a, b = of(runs["tuned"], fold="1", seed=0), of(runs["scratch"], fold="1", seed=0)
    other_fold = of(runs["scratch"], fold="2", seed=0)
    third = of(runs["other"], fold="1", seed=0)
    for found, message in (
        ([a, a], "ckpt names a run twice"),
        ([a, other_fold], r"differ in held-out clips \(folds 2 and 1\): compare runs of the same folds"),
        ([a], "ckpt has runs of 1 arm"),
        ([a, b, third], "ckpt has runs of 3 arms .*: name runs of two"),
    ):
        with pytest.raises(ParameterError, match=message):
            versus.versus(found)
    with pytest.raises(ParameterError, match="differ in labels"):
        versus.sides([a, dataclasses.replace(b, label_names=("x", "y"))])
    with pytest.raises(ParameterError, match="differ in the labels of clips: compare runs of one table"):
        versus.sides([a, dataclasses.replace(b, labels=1 - b.labels)])
    with pytest.raises(ParameterError, match="arms cannot be given with ckpt"):
        versus.versus([a, b], arms=["x", "y"])
