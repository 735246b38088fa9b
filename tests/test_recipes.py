"""The question `recipes`: its arms, its numbers on known runs, its files, its one-line messages."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from transferlens import recipes
from transferlens.models.plan import TransferPlan
from transferlens.training.presets import PRESETS, TrainingOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import build


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def options_of(clips, weights_file, tmp_path, **given):
    common = {"clips": clips, "backbone": "test_resnet", "weights": str(weights_file), "width": 32, "folds": ("1", "2")}
    common |= {"runs": tmp_path / "runs", "cache": tmp_path / "cache", "device": "cpu"}
    return build(recipes.Options, common | given)


@pytest.fixture
def arms(clips, weights_file, tmp_path):
    """The settings of each arm, but for those of the plain one."""

    def make(**given):
        found = recipes.points(options_of(clips, weights_file, tmp_path, **given))
        settings = {name: vars(arm.points[0].training) for name, arm in found.items()}
        plain = settings["plain"]
        return {name: {k: v for k, v in values.items() if v != plain[k]} for name, values in settings.items()}

    return make


def test_each_recipe_is_the_plain_arm_but_for_its_settings(arms):
    assert arms() == {
        "plain": {},
        "layer-decay": {"layer_decay": 0.7},
        "lp-ft": {"head_epochs": 3},
        "l2-sp": {"l2_sp": 1.0},
        "warm-up": {"warmup_epochs": 2},
        "label-smoothing": {"label_smoothing": 0.1},
        "averaging": {"average_epochs": 3},
        "balanced": {"sampling": "classes"},
        "time-shifts": {"test_shifts": 3},
    }


def test_recipes_are_combined_and_any_setting_is_one(arms):
    given = ("averaging+time-shifts", "layer_decay=0.5", "lr=1e-4+optimizer=adamw", "head-epochs=2")
    found = arms(recipe=given, epochs=40)
    assert found == {
        "plain": {},
        "averaging+time-shifts": {"average_epochs": 10, "test_shifts": 3},
        "layer_decay=0.5": {"layer_decay": 0.5},
        "lr=1e-4+optimizer=adamw": {"lr": 1e-4, "optimizer": "adamw"},
        "head-epochs=2": {"head_epochs": 2},
    }


def test_strong_is_the_preset_but_for_what_is_given(clips, weights_file, tmp_path):
    given = {"recipe": "strong", "batch_size": 8}
    found = recipes.points(options_of(clips, weights_file, tmp_path, **given))
    assert found["strong"].points[0].training == replace(PRESETS["strong"][0], batch_size=8)


def test_a_recipe_is_trained_as_its_options_are(clips, weights_file, tmp_path):
    """What an option implies, it implies in a recipe: a recipe is the run of `train` with these options."""
    given = {"recipe": ("augment=released", "lr=1e+1", "strong"), "preset": "paper"}
    found = recipes.points(options_of(clips, weights_file, tmp_path, **given))
    paper = TrainingOptions(preset="paper")
    wanted = [replace(paper, augment="released"), replace(paper, lr=10), TrainingOptions(preset="strong")]
    trained = [found[name].points[0].training for name in given["recipe"]]
    assert trained == [options.training(TransferPlan()) for options in wanted]


def test_the_plan_is_that_of_the_options(clips, weights_file, tmp_path):
    given = {"recipe": "warm-up", "frozen_through": 2}
    found = recipes.points(options_of(clips, weights_file, tmp_path, **given))
    assert {point.plan for arm in found.values() for point in arm.points} == {TransferPlan.freeze(2)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "ema"}, "recipe='ema' is not a recipe, nor a setting with a value .*: they are layer-decay, lp-ft"),
        ({"recipe": "warmup"}, "recipe='warmup' is not a recipe.*did you mean 'warm-up'"),
        ({"recipe": "warm-up+warmup_epochs=3"}, "recipe='warm-up.warmup_epochs=3' sets warmup_epochs twice"),
        ({"recipe": "layer_decay=2"}, "layer_decay=2.0 must be 0 to 1"),
        ({"recipe": "layer_decay=x"}, "layer_decay='x' must be a finite number"),
        ({"recipe": "epochs=12"}, "recipe='epochs=12' changes nothing, as all arms are trained so: leave it out"),
        ({"recipe": "balanced", "sampling": "classes"}, "recipe='balanced' changes nothing"),
        ({"recipe": "layer_decay=0+l2-sp"}, "l2_sp=1 has no effect with layer_decay=0"),
        (
            {"recipe": "lp-ft", "epochs": 1},
            "recipe='lp-ft': head_epochs=1 must be less than epochs=1: at least one epoch must be",
        ),
        (
            {"recipe": "l2-sp", "pretrained_through": None, "weights": "auto"},
            "l2_sp=1 needs a block that is trained from pretrained weig",
        ),
        ({"recipe": "lp-ft", "frozen_through": 4}, "head_epochs=3 has no effect, as the plan p4-4-4 trains only the"),
        ({"recipe": "milestones=2"}, "recipe='milestones=2': milestones=.2,. goes with schedule='step', not 'cosine'"),
        (
            {"recipe": "schedule=step+milestones=99"},
            "recipe=.*: milestones=.99,. must increase and be less than epochs",
        ),
        ({"recipe": "head_lr=0.1"}, "recipe='head_lr=0.1': head_lr=0.1 goes with head_epochs=1 or more"),
        ({"recipe": "draws=2"}, "recipe='draws=2': draws=2 goes with augment="),
        ({"recipe": "lr=2e+3+lr=1"}, "recipe='lr=2e.3.lr=1' sets lr twice"),
        (
            {"recipe": ("layer-decay", "layer_decay=0.7")},
            "recipe='layer_decay=0.7' and 'layer-decay' are the same sett",
        ),
        ({"recipe": ("masks+mixup", "mixup+masks")}, "recipe='mixup.masks' and 'masks.mixup' are the same settings"),
        ({"recipe": "clips_per_class=8", "folds": "1"}, "recipe='clips_per_class=8' changes nothing"),
        (
            {"corrupted": False, "corruption": "noise"},
            "corruption='noise' has no effect with corrupted=False: leave it",
        ),
        ({"recipe": ()}, "recipe=.* must be one or more of layer-decay, lp-ft"),
        ({"corruption": "rain"}, "corruption=.* must be one or more of noise, gain"),
    ],
)
def test_bad_recipes(clips, weights_file, tmp_path, given, message):
    with pytest.raises(ParameterError, match=message):
        recipes.points(options_of(clips, weights_file, tmp_path, **given))


def test_recipes_of_a_preset_that_has_them_are_left_out(clips, weights_file, tmp_path, caplog):
    given = {"preset": "strong", "augment": "none", "precision": "fp32"}
    chosen = recipes.points(options_of(clips, weights_file, tmp_path, **given))
    assert [*chosen] == ["plain", *(recipe for recipe in recipes.NEW if recipe != "label-smoothing")]
    assert "the recipe label-smoothing is left out, as all arms are trained so" in caplog.text
    with pytest.raises(ParameterError, match="recipe='label-smoothing' changes nothing"):
        recipes.points(options_of(clips, weights_file, tmp_path, **given, recipe="label-smoothing"))


def test_strong_is_shortened_with_the_epochs(clips, weights_file, tmp_path):
    given = {"epochs": 4, "augment": "none", "recipe": "strong"}
    strong = recipes.points(options_of(clips, weights_file, tmp_path, **given))["strong"].points[0].training
    assert (strong.epochs, strong.warmup_epochs, strong.average_epochs, strong.mixup) == (4, 0, 1, 0.2)


def test_the_mean_counts_each_kind_alike():
    scores = {("clean", 0.0): 0.0, ("noise", 1.0): 0.2, ("noise", 2.0): 0.4, ("shift", 1.0): 0.9}
    assert recipes.mean_over(scores) == pytest.approx((0.3 + 0.9) / 2)


def test_differences_are_paired_by_fold_under_each_condition(seeds_store):
    """Known answer: one arm is better by 0.25 under each condition, whatever the fold and the seed."""
    runs = seeds_store[0]["tuned"]
    scratch = [replace(run, config=replace(run.config, training=replace(run.config.training, lr=0.5))) for run in runs]
    compared = recipes.arms.compare({"plain": runs, "warm-up": scratch}, {"warm-up": "plain"})
    rng, scores = np.random.default_rng(0), {}
    rows = [recipes.Row(**vars(row)) for row in compared.rows]
    base = {(fold, seed): rng.random(3) for fold in "12" for seed in range(3)}
    for row in rows:
        values = base[row.fold, row.seed] + 0.25 * (row.arm == "warm-up")
        scores[row.run] = dict(zip([("clean", 0.0), ("noise", 10.0), ("gain", -6.0)], values, strict=True))
    found = recipes.condition_rows(rows, scores)
    assert [(row.arm, row.corruption) for row in found] == [
        (arm, kind) for kind in ("clean", "noise", "gain") for arm in ("plain", "warm-up")
    ]
    for row in found:
        assert row.n_folds == 2
        assert (row.less_plain == pytest.approx(0.25)) == (row.arm == "warm-up")
    plain = np.mean([[base[fold, seed][1] for seed in range(3)] for fold in "12"])
    assert found[2].accuracy == pytest.approx(plain)


def test_clean_and_corrupted_on_the_small_clips(options, tmp_path, capsys):
    argv = [*options, "--folds=1", "2", "--recipe", "averaging", "time-shifts", "--corruption", "gain", "noise"]
    argv = [word.replace("--epochs=1", "--epochs=3") for word in argv]
    assert recipes.main([*argv, "--dry-run"]) == 0
    assert "6 runs: 0 done, 6 to train" in capsys.readouterr().out
    assert recipes.main(argv) == 0
    out = capsys.readouterr().out
    assert "corrupted: mean over gain, noise" in out
    figures = tmp_path / "figures"
    assert {p.name for p in figures.iterdir()} == {
        "recipes.csv", "recipes.png", "recipes.pdf", "recipes_corruptions.csv",
    }  # fmt: skip
    rows, by_condition = read(figures / "recipes.csv"), read(figures / "recipes_corruptions.csv")
    assert list(dict.fromkeys(row["arm"] for row in rows)) == ["plain", "averaging", "time-shifts"]
    for row in rows:
        of_arm = [float(each["accuracy_corrupted"]) for each in rows if each["arm"] == row["arm"]]
        by_kind = [
            np.mean([float(c["accuracy"]) for c in by_condition if (c["arm"], c["corruption"]) == (row["arm"], kind)])
            for kind in ("gain", "noise")
        ]
        assert np.mean(of_arm) == pytest.approx(np.mean(by_kind))
        clean = [float(c["accuracy"]) for c in by_condition if (c["arm"], c["corruption"]) == (row["arm"], "clean")]
        own = [float(each["accuracy_last"]) for each in rows if each["arm"] == row["arm"]]
        assert clean == [pytest.approx(np.mean(own))]
    assert {len(by_condition)} == {3 * (1 + 3 + 4)}


def test_without_corrupted_clips(clips, weights_file, tmp_path):
    given = {"clips": clips, "backbone": "test_resnet", "weights": str(weights_file), "width": 32, "folds": [1, 2]}
    given |= {"runs": tmp_path / "runs", "cache": tmp_path / "cache", "device": "cpu", "epochs": 2, "batch_size": 8}
    result = recipes.recipes(**given, recipe=["warm-up"], corrupted=False, workers=1)
    assert result.conditions == ()
    assert list(result.tables()) == ["recipes"]
    assert np.isnan(result.table()["accuracy_corrupted"]).all()
    assert "corrupted" not in result.summary()
    assert len(result.plot().axes) == 2
    gains = [a.accuracy_last - b.accuracy_last for a, b in zip(result.rows[2:], result.rows[:2], strict=True)]
    assert result.rows[-1].less_reference == pytest.approx(np.mean(gains))
