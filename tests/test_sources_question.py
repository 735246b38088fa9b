"""The question `sources`, and the analysis of the anomaly: arms, pairing, tables, figures, names of sources."""

import csv
import dataclasses
import itertools

import numpy as np
import pytest

from analyses import rq2_anomaly
from transferlens import freeze, norm, sources
from transferlens.compare import arms
from transferlens.models.plan import TransferPlan


def without(options, *names):
    return [word for word in options if not word.startswith(tuple(f"--{name}=" for name in names))]


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_source_has_an_arm_and_a_control(options, weights_file, other_file, tmp_path, capsys):
    argv = [
        *without(options, "weights"),
        "--source",
        f"audioset={other_file}",
        f"photos={weights_file}",
        "--folds=1",
        "2",
    ]
    assert sources.main(argv) == 0
    rows = read(tmp_path / "figures" / "sources.csv")
    names = ["random", "audioset", "audioset, permuted", "photos", "photos, permuted"]
    assert list(dict.fromkeys(row["arm"] for row in rows)) == names
    assert [row["start"] for row in rows[::2]] == ["RRRRR", "IIIII", "iiiii", "IIIII", "iiiii"]
    assert [row["weights"] for row in rows[::2]] == ["", "audioset", "audioset", "photos", "photos"]
    assert {row["reference"] for row in rows[2:]} == {"random"}
    accuracies = {(row["arm"], row["fold"]): float(row["accuracy_last"]) for row in rows}
    for row in rows[2:]:
        gain = np.mean([accuracies[row["arm"], fold] - accuracies["random", fold] for fold in ("1", "2")])
        assert float(row["less_reference"]) == pytest.approx(gain)
    out = capsys.readouterr().out
    assert "audioset, permuted - random, paired by fold" in out
    assert "ImageNet" not in out
    again = [*argv, "--no-controls", "--reference", "photos"]
    assert sources.main(again) == 0
    rows = read(tmp_path / "figures" / "sources.csv")
    assert [row["arm"] for row in rows[::2]] == ["random", "audioset", "photos"]
    assert {row["reference"] for row in rows} == {"photos", ""}


def test_a_reference_that_is_no_arm_is_refused(options, capsys):
    assert sources.main([*options, "--reference", "audioset", "--dry-run"]) == 2
    assert "reference='audioset' must be one of 'random', 'imagenet.safetensors', 'imag" in capsys.readouterr().err


@pytest.mark.parametrize("command", [freeze, norm])
def test_questions_by_block_take_one_source(command, options, weights_file, other_file, capsys):
    argv = [*without(options, "weights"), "--source", f"a={other_file}", f"b={weights_file}", "--dry-run"]
    assert command.main(argv) == 2
    assert "no source begins with I; the sources are a (A), b (B)" in capsys.readouterr().err


def test_accuracies_of_all_networks_are_drawn(seeds_store):
    """Networks share the axis of accuracies, which begins below the least of all."""
    runs = {arm: seeds_store[0][arm] for arm in ("tuned", "scratch")}
    rows = arms.compare(runs, {}).rows
    low = [dataclasses.replace(row, backbone="low", accuracy_last=0.1) for row in rows]
    high = [dataclasses.replace(row, backbone="high", accuracy_last=0.9) for row in rows]
    fig = sources.draw(sources.Result(arms.Comparison((*low, *high), {}, {})))
    assert [fig.axes[i].get_title(loc="left") for i in (0, 1)] == ["low", "high"]
    assert all(ax.get_ylim()[0] < 10 for ax in fig.axes[:2])


def test_differences_are_those_of_the_same_fold_and_seed(seeds_store):
    runs = seeds_store[0]
    comparison = arms.compare({"tuned": runs["tuned"], "scratch": runs["scratch"]}, {"tuned": "scratch"})
    gains = {}
    for tuned in runs["tuned"]:
        (scratch,) = (
            run
            for run in runs["scratch"]
            if (run.config.fold, run.config.seed) == (tuned.config.fold, tuned.config.seed)
        )
        gains.setdefault(tuned.config.fold, []).append(tuned.accuracy_last - scratch.accuracy_last)
    interval = comparison.differences["test_resnet", "tuned"].interval
    assert interval.mean == pytest.approx(np.mean([np.mean(values) for values in gains.values()]))
    assert interval.n == len(gains)


# --- the anomaly


def test_arms_of_the_anomaly_differ_in_the_stem_alone():
    for plan in rq2_anomaly.PLANS.values():
        assert (plan.start[1:], plan.train[1:]) == ("RRRR", "AAAA")
    assert rq2_anomaly.PLANS[rq2_anomaly.STEM] == TransferPlan.fuse(0)
    assert rq2_anomaly.PLANS["its filters fixed"].start == "IRRRR"


def test_the_anomaly_is_that_of_one_network(options, capsys):
    argv = [*without(options, "backbone"), "--backbone", "test_resnet", "resnet18", "--dry-run"]
    assert rq2_anomaly.main(argv) == 2
    assert "backbone='test_resnet resnet18' must name one here" in capsys.readouterr().err


def test_anomaly_chooses_the_rate_on_the_inner_fold(options, tmp_path, capsys):
    assert rq2_anomaly.main([*options, "--folds", "1", "2"]) == 0
    rows = read(tmp_path / "figures" / "anomaly.csv")
    by_arm = {row["arm"]: row["reference"] for row in rows}
    assert by_arm["its filters fixed"] == "random filters fixed"
    assert by_arm["pretrained stem, tuned"] == "random stem, tuned"
    assert by_arm["pretrained stem, 2 times the epochs"] == "random stem, 2 times the epochs"
    assert by_arm["its values, permuted"] == by_arm["pretrained stem"] == "random stem"
    losses = read(tmp_path / "figures" / "anomaly_losses.csv")
    assert {(row["arm"], row["fold"], row["epoch"]) for row in losses} == {
        (arm, fold, "1") for arm in ("random stem", "pretrained stem") for fold in ("1", "2")
    }
    assert (tmp_path / "figures" / "anomaly.png").is_file()
    trials = read(tmp_path / "figures" / "anomaly_tuning.csv")
    for arm, fold in itertools.product(("random stem", "pretrained stem"), ("1", "2")):
        tried = [row for row in trials if (row["arm"], row["fold"]) == (arm, fold)]
        assert [row["chosen"] for row in tried].count("True") == 1 and len(tried) == 3
    out = capsys.readouterr().out
    assert "pretrained stem: training loss" in out
    assert "pretrained stem, tuned, chosen on inner folds: lr" in out
