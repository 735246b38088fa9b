"""Sources: its arms, what is paired, its table, figure and one-line messages."""

from __future__ import annotations

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from transferlens import sources
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError
from transferlens.util.fields import build, flat

# Accuracies by arm, to which 0.02 per fold is added, and 0.01 more per fold from audioset.
LEVELS = {"random": 0.5, "ImageNet": 0.8, "ImageNet, permuted": 0.55, "audioset": 0.85, "audioset, permuted": 0.5}


@pytest.fixture(scope="module")
def named(weights_file, tmp_path_factory):
    """Two sources: the made-up weights of ImageNet, and others."""
    path = tmp_path_factory.mktemp("sources") / "cnn.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), path)
    return f"ImageNet={weights_file}", f"audioset={path}"


@pytest.fixture
def chosen(study, named):
    """Make the options of the question."""

    def make(**changes):
        own = {name: changes.pop(name) for name in ("reference", "controls") if name in changes}
        values = flat(study(**changes).options) | {"weights": "auto", "source": named}
        return build(sources.Options, values | own)

    return make


def accuracy(arm, fold):
    return LEVELS[arm] + 0.02 * fold + 0.01 * fold * (arm == "audioset")


def made_run(arm, point):
    value = accuracy(arm, int(point.fold)) + 0.1 * point.seed
    return SimpleNamespace(
        config=point,
        accuracy_last=value,
        accuracy_best=value,
        n_train=16,
        labels=np.zeros(8),
        n_recordings=0,
        weights="" if arm == "random" else arm.removesuffix(sources.CONTROL),
        cost=point.cost(2),
        history={"seconds": np.ones(1)},
    )


@pytest.fixture
def answer(chosen):
    """Answers from made-up accuracies."""

    def make(**changes):
        options = chosen(**changes)
        arms = sources.points(options)
        return sources.analyse({arm: [made_run(arm, p) for p in arms[arm].points] for arm in arms}, options)

    return make


def test_arms_are_random_weights_each_source_and_its_control(chosen):
    arms = sources.points(chosen())
    assert [*arms] == [*LEVELS]
    plans = {name: {point.plan for point in arm.points} for name, arm in arms.items()}
    permuted = TransferPlan(start="iiiii", statistics="permuted")
    assert plans["random"] == {TransferPlan.scratch()}
    assert plans["ImageNet"] == plans["audioset"] == {TransferPlan.finetune()}
    assert plans["ImageNet, permuted"] == plans["audioset, permuted"] == {permuted}
    hashes = {name: {point.weights_sha256 for point in arm.points} for name, arm in arms.items()}
    assert hashes["random"] == {""}
    assert hashes["ImageNet"] == hashes["ImageNet, permuted"] != hashes["audioset"] == hashes["audioset, permuted"]
    assert len({point.id for arm in arms.values() for point in arm.points}) == 5 * 3
    assert len({point.training for arm in sources.points(chosen(preset="paper")).values() for point in arm.points}) == 1


def test_controls_can_be_left_out(chosen, answer):
    assert [*sources.points(chosen(controls=False))] == ["random", "ImageNet", "audioset"]
    assert answer(controls=False).arms == ["random", "ImageNet", "audioset"]


def test_arms_are_paired_by_fold_with_random_weights(answer):
    result = answer()
    differences = {arm: difference for (_, arm), difference in result.differences.items()}
    assert "random" not in differences
    assert differences["ImageNet"].interval.mean == pytest.approx(0.3)
    assert differences["audioset"].interval.mean == pytest.approx(np.mean([0.36, 0.37, 0.38]))
    assert differences["audioset"].interval.n == 3
    expected = stats.fold_difference([0.36, 0.37, 0.38]).interval
    assert differences["audioset"].interval.plain_low == pytest.approx(expected.plain_low)
    assert differences["audioset"].p_adjusted >= differences["audioset"].p_value > 0


def test_seeds_of_one_fold_count_once(answer):
    result = answer(seeds=(0, 1))
    assert {difference.interval.n for difference in result.differences.values()} == {3}
    assert result.differences["test_resnet", "ImageNet"].interval.mean == pytest.approx(0.3)


def test_another_arm_can_be_the_reference(answer):
    result = answer(reference="ImageNet")
    assert {row.reference for row in result.rows} == {"ImageNet"}
    assert result.differences["test_resnet", "random"].interval.mean == pytest.approx(-0.3)
    assert ("test_resnet", "ImageNet") not in result.differences
    assert "audioset - ImageNet, paired by fold: 7.0 points" in result.summary()


def test_table_has_the_plan_the_source_and_the_difference(answer, tmp_path):
    answer().write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "sources.csv").open()))
    assert {(row["arm"], row["start"], row["statistics"], row["weights"]) for row in rows} == {
        ("random", "RRRRR", "normal", ""),
        ("ImageNet", "IIIII", "normal", "ImageNet"),
        ("ImageNet, permuted", "iiiii", "permuted", "ImageNet"),
        ("audioset", "IIIII", "normal", "audioset"),
        ("audioset, permuted", "iiiii", "permuted", "audioset"),
    }
    assert {row["pretrained_through"] for row in rows if "permuted" in row["arm"]} == {""}
    assert {row["less_reference"] for row in rows if row["arm"] == "random"} == {"nan"}
    own = [row for row in rows if row["arm"] == "audioset"]
    assert [float(row["less_reference"]) for row in own] == pytest.approx([0.37] * 3)
    assert all(float(row["less_reference_low"]) < 0.37 < float(row["less_reference_high"]) for row in own)
    assert all(float(row["less_reference_p_adjusted"]) >= float(row["less_reference_p"]) for row in own)


def test_figure_holds_accuracies_above_and_differences_below(answer):
    above, below = answer().plot().axes
    drawn = [y for line in above.lines for y in np.asarray(line.get_ydata(), float)]
    assert all(np.isclose(drawn, 100 * accuracy(arm, fold)).any() for arm in LEVELS for fold in (1, 2, 3))
    changes = [y for line in below.lines for y in np.asarray(line.get_ydata(), float)]
    assert np.isclose(changes, 30).any() and np.isclose(changes, 37).any()
    labels = [label.get_text() for label in below.get_xticklabels()]
    assert [label.replace("\n", " ") for label in labels] == [*LEVELS]
    assert max(len(line) for label in labels for line in label.splitlines()) <= 15
    assert below.get_ylabel() == "less random\n[points]"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--reference", "birds"], "reference='birds' must be one of random, ImageNet, ImageNet, permuted, audioset"),
        (["--reference", "audioset, permuted", "--no-controls"], "reference='audioset, permuted' must be one of"),
        (["--weights", "w.pth"], "weights='w.pth' and source='ImageNet="),
    ],
)
def test_bad_input_is_one_line(argv, message, named, options, capsys):
    given = [each for each in options if not each.startswith("--weights")]
    assert sources.main([*given, "--source", *named, *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_run_of_another_study_is_a_source(chosen, study, named):
    made = study(folds=("1",), epochs=1).runs(TransferPlan.finetune())[0]
    options = chosen(folds=("1",))
    chain = build(sources.Options, {"source": (f"ImageNet then tones={made.path}",)}, base=options)
    arms = sources.points(chain)
    assert [*arms] == ["random", "ImageNet then tones", "ImageNet then tones, permuted"]
    # Its clips of fold 2 were trained on: that would not be held out.
    other = build(sources.Options, {"folds": ("2",)}, base=chain)
    with pytest.raises(ParameterError, match="its run held out fold 1 of these clips"):
        sources.points(other)


@pytest.mark.slow(8)
def test_command_trains_nothing_twice(named, options, tmp_path, capsys):
    given = [each for each in options if not each.startswith("--weights")]
    argv = [*given, "--source", *named, "--folds", "1", "2", "--no-controls"]
    assert sources.main(argv) == 0
    printed = capsys.readouterr().out
    assert re.search(r"audioset - random, paired by fold: .* points", printed)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert len(files) == 6 + 1  # and the feature cache
    assert sources.main(argv) == 0
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == files
