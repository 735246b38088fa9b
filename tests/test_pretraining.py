"""Question 1: its arms, its table, its figure and its command."""

from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace

from transferlens import pretraining
from transferlens.models.plan import TransferPlan
from transferlens.pretraining import Result, Row
from transferlens.store.config import Training
from transferlens.training.presets import PRESETS
from transferlens.util.fields import build, flat


def rows(accuracies, init):
    return [Row("d", "net", init, str(i), 8, 4, 0, 0, 3, a, 2, a + 0.1, f"{init}{i}") for i, a in enumerate(accuracies)]


RESULT = Result(
    rows=(*rows([0.8, 0.9], "pretrained"), *rows([0.5, 0.7], "scratch")),
    curves=((0.7, 0.9, 0.8), (0.8, 1.0, 0.9), (0.4, 0.6, 0.5), (0.5, 0.8, 0.7)),
)


def test_command_writes_one_stem_and_trains_nothing_twice(options, tmp_path, capsys):
    argv = [*options, "--folds", "1", "2"]
    assert pretraining.main(argv) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "figures"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"pretrained_vs_scratch.{suffix}" for suffix in ("csv", "pdf", "png")
    ]
    table = list(csv.DictReader((folder / "pretrained_vs_scratch.csv").open()))
    assert len(table) == 6
    assert {
        "dataset",
        "backbone",
        "init",
        "fold",
        "seed",
        "epoch_last",
        "accuracy_last",
        "accuracy_best",
    } <= set(table[0])
    assert {row["init"]: row["epoch_last"] for row in table} == {
        "pretrained": "1",
        "scratch": "1",
        "scratch_long": "6",
    }
    assert {row["init"]: row["weights"] for row in table} == {
        "pretrained": "imagenet.safetensors",
        "scratch": "",
        "scratch_long": "",
    }
    assert "imagenet.safetensors-pretrained (1 epoch)" in printed
    assert "ImageNet" not in printed
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert len(files) == 7
    assert pretraining.main(argv) == 0
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == files


def test_without_the_long_arm(options, tmp_path, capsys):
    assert pretraining.main([*options, "--long", "none", "--folds", "1"]) == 0
    table = list(csv.DictReader((tmp_path / "figures" / "pretrained_vs_scratch.csv").open()))
    assert [row["init"] for row in table] == ["pretrained", "scratch"]
    assert "n = 1" in capsys.readouterr().out


def points(study, *, long="all", **options):
    """The points of each arm."""
    values = flat(study(**options).options) | {"long": long}
    arms = pretraining.pretraining.points(build(pretraining.Options, values))
    return {name: arm.points for name, arm in arms.items()}


def test_the_long_arm_of_the_first_network_alone(study, monkeypatch):
    monkeypatch.setattr("transferlens.training.sweep.find", lambda *_, **__: SimpleNamespace(sha256="0" * 64))
    networks = ("test_resnet", "resnet18")
    arms = points(study, backbone=networks, long="first")
    assert {name: {point.backbone for point in arm} for name, arm in arms.items()} == {
        "pretrained": {*networks},
        "scratch": {*networks},
        "scratch_long": {"test_resnet"},
    }


def test_arms(study):
    arms = points(study)
    assert list(arms) == ["pretrained", "scratch", "scratch_long"]
    assert {point.plan for point in arms["pretrained"]} == {TransferPlan.finetune()}
    assert {point.plan for point in arms["scratch"] + arms["scratch_long"]} == {TransferPlan.scratch()}
    epochs = [arm[0].training.epochs for arm in arms.values()]
    assert epochs == [2, 2, 12]


def test_longer_arm_drops_its_rate_later_too(study):
    arms = points(study, schedule="step", milestones=(1, 2), epochs=3)
    assert arms["scratch"][0].training.milestones == (1, 2)
    assert arms["scratch_long"][0].training.milestones == (6, 12)
    arms = points(study, preset="paper", epochs=70)
    assert arms["scratch_long"][0].training.epochs == 420
    assert arms["scratch_long"][0].training.milestones == (180, 360)


def test_paper_preset_keeps_its_450_epochs(study):
    arms = points(study, preset="paper", epochs=None, batch_size=None)
    tuned, scratch = PRESETS["paper"]
    assert arms["pretrained"][0].training == arms["scratch"][0].training == tuned
    assert arms["scratch_long"][0].training == scratch


def test_more_epochs_add_no_average():
    assert Training(epochs=12).lasting(72) == Training(epochs=72)
    several = Training(epochs=12, warmup_epochs=1, average_epochs=2).lasting(72)
    assert several == Training(epochs=72, warmup_epochs=6, average_epochs=12)


def test_summary_pairs_by_fold():
    text = pretraining.summary(RESULT)
    assert "ImageNet-pretrained (3 epochs): 85.0 %" in text
    assert "best epoch 95.0%" in text
    assert "pretrained - scratch, paired by fold: 25.0 points" in text
    assert "n = 2" in text


def test_arms_are_named_by_the_file_that_the_weights_are_from():
    named = tuple(replace(row, weights="w.safetensors" if row.init == "pretrained" else "") for row in RESULT.rows)
    assert "w.safetensors-pretrained (3 epochs): 85.0 %" in pretraining.summary(replace(RESULT, rows=named))
    auto = tuple(replace(row, weights=row.weights and "ImageNet") for row in named)
    assert pretraining.summary(replace(RESULT, rows=auto)) == pretraining.summary(RESULT)


def test_figure_holds_means_and_curves():
    fig = pretraining.draw(RESULT)
    left, right = fig.axes
    drawn = [y for line in left.lines for y in line.get_ydata()]
    assert all(any(abs(y - 100 * value) < 1e-9 for y in drawn) for value in (0.8, 0.9, 0.85, 0.5, 0.7, 0.6, 1.0))
    assert len(right.lines) == 6
    marks = {text.get_text() for text in fig.legends[0].get_texts()}
    assert {"mean and corrected 95 % interval, n = 2 folds", "best epoch on the held-out fold (optimistic)"} < marks
