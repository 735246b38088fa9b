"""Settings chosen on inner folds: what is tried, chosen and shown, and that held-out clips take no part."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from transferlens import fuse, norm, pretraining, truncate
from transferlens.compare import by_block, tuning
from transferlens.compare.tuning import Trial, Tuned, TuneOptions
from transferlens.store.config import Training
from transferlens.util.errors import ParameterError
from transferlens.util.fields import build, flat

MODULES = (pretraining, fuse, truncate, norm)
GRID = {"tune_lr": (1e-2, 1e-3), "tune_epochs": (2, 4)}


def options_of(module, study, given, **own):
    return build(module.Options, flat(study(**given).options) | own)


# ------------------------------------------------------------------------------------------------- the grid


def test_the_grid_is_all_pairs_and_begins_with_the_untuned_settings():
    training = Training(lr=1e-3, epochs=12, schedule="step", milestones=(6,))
    grid = TuneOptions(tune_lr=(1e-2, 1e-3), tune_epochs=(24, 12)).grid(training)
    assert grid[0] == training
    assert {(each.lr, each.epochs, each.milestones) for each in grid} == {
        (1e-2, 24, (12,)), (1e-2, 12, (6,)), (1e-3, 24, (12,)), (1e-3, 12, (6,)),
    }  # fmt: skip
    longer = TuneOptions(tune_epochs=(12, 24)).grid(training.lasting(72), times=6)
    assert [each.epochs for each in longer] == [72, 144]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("given", [{"tune_lr": (1e-3,)}, {"tune_lr": 1e-3, "tune_epochs": (2,)}, {}])
def test_one_value_is_the_question_of_today(module, study, given):
    today = module.main.points(options_of(module, study, {}))
    points = module.main.points(options_of(module, study, {}, **given))
    assert {name: arm.points for name, arm in points.items()} == {name: arm.points for name, arm in today.items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tune_lr": (1e-2,)}, r"tune_lr=0.01 is not a choice: give several values, or lr=0.01"),
        ({"tune_epochs": (7,)}, r"tune_epochs=7 is not a choice: give several values, or epochs=7"),
        ({"tune_lr": (0.0, 1.0)}, r"tune_lr=0.0 must be greater than 0"),
        ({"tune_epochs": (0, 1)}, r"tune_epochs=0 must be 1 to"),
    ],
)
def test_bad_grids(study, given, message):
    with pytest.raises(ParameterError, match=message):
        truncate.main.points(options_of(truncate, study, {}, **given))


def test_two_folds_leave_none_to_choose_on(study, tmp_path):
    from conftest import write_clips

    clips = write_clips(tmp_path / "two", folds=("1", "2"))
    with pytest.raises(
        ParameterError, match=r"tuning needs three folds or more and two has 2: one to hold out, one to"
    ):
        truncate.main.points(options_of(truncate, study, {"clips": clips}, **GRID))


# ------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("module", MODULES)
def test_every_setting_is_tried_with_an_inner_fold(module, study):
    arms = module.main.work.points(options_of(module, study, {}, **GRID))
    names = [name for name in arms if not isinstance(name, Trial)]
    assert [name for name in arms if isinstance(name, Trial)] == [Trial(n, i) for n in names for i in range(4)]
    for name in names:
        for i in range(4):
            pairs = zip(arms[name].points, arms[Trial(name, i)].points, strict=True)
            for point, trial in pairs:
                assert (trial.plan, trial.fold, trial.backbone) == (point.plan, point.fold, point.backbone)
                assert (point.inner_fold, trial.inner_fold) == ("", {"1": "2", "2": "3", "3": "1"}[point.fold])
        settings = {arms[Trial(name, i)].points[0].training for i in range(4)}
        assert len({(setting.lr, setting.epochs) for setting in settings}) == 4


class FakeRun(SimpleNamespace):
    """A run that has an inner accuracy, and a held-out one that says the opposite."""

    def __init__(self, point, inner):
        super().__init__(config=point, n_train=16, labels=np.zeros(8), n_recordings=0, weights="ImageNet")
        self.score_last = self.score_best = self.macro_f1 = 1 - inner
        self.scoring, self.lwlrap = point.scoring, float("nan")
        self.scores, self.history = np.array([0.2, 1 - inner]), {"seconds": np.ones(2)}
        self.inner_scores = np.array([1.0, inner]) if point.inner_fold else None
        self.class_ratio, self.cost = 1.0, point.cost(2)
        self.chance, self.commonest = 0.125, 0.375


def inner(point, best):
    """An inner accuracy that is best for one setting per fold, given as (lr, epochs)."""
    return 0.9 if (point.training.lr, point.training.epochs) == best[point.fold] else 0.6


BEST = {"1": (1e-2, 4), "2": (1e-3, 2), "3": (1e-2, 4)}


@pytest.fixture
def answered(study):
    """The answer of a question to made-up runs whose inner folds like `BEST`, with the arms that were chosen."""

    def answer(module, best=BEST, accuracy=inner, **given):
        options, question = options_of(module, study, given, **GRID), module.main.work
        arms = question.points(options)
        runs = {name: [FakeRun(p, accuracy(p, best)) for p in arm.points] for name, arm in arms.items()}
        chosen = tuning.tuned(arms, runs)
        more = {name: [FakeRun(p, accuracy(p, best)) for p in arm.points] for name, arm in chosen.items()}
        return question.analyse(runs | more, options), chosen, arms

    return answer


@pytest.mark.parametrize("module", [fuse, truncate])
def test_the_inner_fold_chooses_for_each_fold_and_the_choice_is_trained_on_all_folds(answered, module):
    """Held-out accuracies say the opposite, and earlier epochs are perfect: neither counts."""
    _, chosen, arms = answered(module)
    assert {*chosen} == {Tuned(name) for name in arms if not isinstance(name, Trial)}
    for tuned, arm in chosen.items():
        for point, untuned in zip(arm.points, arms[tuned.arm].points, strict=True):
            assert (point.training.lr, point.training.epochs) == BEST[point.fold]
            assert (point.plan, point.inner_fold, point.seed) == (untuned.plan, "", untuned.seed)
        assert arm.points[1] == arms[tuned.arm].points[1]  # where the untuned setting is best, it is the run of today


def test_of_equal_settings_the_untuned_one_is_chosen(answered):
    _, chosen, arms = answered(truncate, accuracy=lambda point, best: 0.7)
    assert all(arm.points == arms[tuned.arm].points for tuned, arm in chosen.items())


def test_seeds_are_averaged_and_share_their_choice(answered):
    """One seed likes a setting very much, but all of them another one better."""

    def accuracy(point, best):
        scores = {(1e-2, 4): (1.0, 0.0), (1e-3, 4): (0.7, 0.6)}
        return scores.get((point.training.lr, point.training.epochs), (0.1, 0.1))[point.seed]

    _, chosen, _ = answered(truncate, accuracy=accuracy, seeds=(0, 1))
    settings = {(p.training.lr, p.training.epochs) for arm in chosen.values() for p in arm.points}
    assert settings == {(1e-3, 4)}


def test_a_longer_arm_has_longer_settings(answered):
    _, chosen, _ = answered(pretraining, best={"1": (1e-2, 24), "2": (1e-3, 12), "3": (1e-2, 24)})
    assert [p.training.epochs for p in chosen[Tuned("scratch_long")].points] == [24, 12, 24]


# ------------------------------------------------------------------------------------------------- the answer


def test_tuned_blocks_stand_beside_the_untuned_ones(answered):
    result, chosen, arms = answered(fuse)
    assert [*result.analysis.plans] == ["weight fusion", "weight fusion, tuned"]
    for block in ("none", "0", "4"):
        values = result.accuracies(variant="weight fusion, tuned", block=block)
        assert values == pytest.approx([0.1, 0.1, 0.1])
    assert result.accuracies(arm="pretrained") == pytest.approx([0.4, 0.1, 0.4])  # without the tuned runs
    assert result.accuracies(variant="weight fusion", block="2") == pytest.approx([0.4, 0.1, 0.4])
    (gain,) = [each for each in result.less_untuned if each.after == "2"]
    assert gain.difference.interval.mean == pytest.approx((-0.3 + 0 - 0.3) / 3)
    tables = result.tables()
    assert [*tables] == ["fuse", "fuse_tuned", "fuse_tuning"]
    assert {(row.variant, row.control) for row in tables["fuse_tuned"]} == {("weight fusion, tuned", "weight fusion")}
    rows = [row for row in tables["fuse_tuning"] if row.arm == "weight fusion, block 2"]
    assert len(rows) == 4 * 3
    assert {(row.fold, row.lr, row.epochs) for row in rows if row.chosen} == {(f, *s) for f, s in BEST.items()}
    text = result.summary()
    assert "weight fusion, tuned less untuned, block 2, paired by fold: -20.0 points" in text
    words = "weight fusion, block 2, tuned, chosen on inner folds: lr 0.01, 4 epochs (2 folds); lr 0.001, 2 epochs (1 f"
    assert words in text


def test_references_without_a_place_are_lines_of_their_own(answered):
    result, *_ = answered(truncate)
    assert result.accuracies(arm="scratch") == pytest.approx([0.4, 0.1, 0.4])
    assert result.accuracies(arm="scratch, tuned") == pytest.approx([0.1, 0.1, 0.1])
    assert not result.accuracies(arm="pretrained, tuned")  # it has the place of Block 4
    assert "from scratch, tuned: 10.0 %" in result.summary()
    names = [text.get_text() for text in by_block.draw(result).legends[0].get_texts()]
    networks = ["test_resnet", "test_resnet, tuned"]  # networks have the colours where they share Axes
    assert names[:5] == ["fully pretrained", "from scratch", "from scratch, tuned", *networks]


def test_a_tuned_variant_has_the_tuned_control(answered):
    result, *_ = answered(norm)
    controls = {(row.variant, row.control) for row in result.tables()["norm_control"]}
    one, other = "from ImageNet", "from random weights"
    assert controls == {(one, other), (f"{one}, tuned", f"{other}, tuned")}


def test_pretraining_shows_both(answered):
    result, *_ = answered(pretraining)
    inits = list(dict.fromkeys(row.init for row in result.rows))
    assert inits == ["pretrained", "scratch", "scratch_long", *(f"{a}, tuned" for a in pretraining.ARMS)]
    text = result.summary()
    assert "ImageNet-pretrained, tuned (2 to 4 epochs): 10.0 %" in text
    assert "pretrained, tuned - pretrained, paired by fold: -20.0 points" in text
    assert "pretrained, tuned - scratch, tuned, paired by fold: 0.0 points" in text
    assert "ImageNet-pretrained, tuned, chosen on inner folds: lr 0.01, 4 epochs (2 folds)" in text
    assert [*result.tables()] == ["pretrained_vs_scratch", "pretrained_vs_scratch_tuning"]
    left, right = result.plot().axes
    assert len(right.lines) == 3 * 4 + 2  # curves of arms that are not tuned, with their means, and levels
    assert len(left.collections) == 6


def test_command_counts_trains_and_reads(options, tmp_path, capsys):
    """Of 1 place with 1 fold: two settings with an inner fold, the untuned run, and perhaps the chosen one."""
    argv = [*options, "--folds", "1", "--block", "2", "--no-references", "--tune-lr", "0.001", "0.01"]
    assert truncate.main([*argv, "--dry-run"]) == 0
    assert "4 runs: 0 done, 4 to train" in capsys.readouterr().out
    assert truncate.main(argv) == 0
    with (tmp_path / "figures" / "truncate_tuning.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["inner_accuracy"]))  # the first of equal ones
    assert [row["run"] for row in rows if row["chosen"] == "True"] == [best["run"]]
    assert [row["inner_fold"] for row in rows] == ["2", "2"]
    capsys.readouterr()
    assert truncate.main([*argv, "--dry-run"]) == 0
    n = 3 + (best["lr"] != "0.001")
    assert f"{n} runs: {n} done, 0 to train" in capsys.readouterr().out
