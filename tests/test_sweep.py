"""Sweeps: which points an analysis names, what is trained, and what happens to a run that fails."""

from __future__ import annotations

import dataclasses

import pytest

from transferlens import trainer
from transferlens.errors import CheckpointError, DataError, ParameterError, SweepError
from transferlens.plan import TransferPlan
from transferlens.sweep import PRESETS, SweepOptions


def test_points_are_backbones_folds_and_seeds(study):
    made = study(seeds=(0, 1))
    points = made.points(TransferPlan())
    assert [(p.fold, p.seed) for p in points] == [("1", 0), ("1", 1), ("2", 0), ("2", 1), ("3", 0), ("3", 1)]
    assert len({p.id for p in points}) == 6


def test_equal_experiments_are_one_point(study):
    made = study()
    assert made.points(TransferPlan(3, None, 3)) == made.points(TransferPlan(4, None, 3))


def test_weights_do_not_matter_from_scratch(study, tmp_path):
    plan = TransferPlan.scratch()
    assert study().points(plan) == study(weights=str(tmp_path / "none.pth")).points(plan)


def test_weights_matter_by_content_not_by_name(study, weights_file, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights_file.read_bytes())
    assert study().points(TransferPlan()) == study(weights=str(copy)).points(TransferPlan())


def test_labels_and_folds_are_in_the_point(study, clips, tmp_path):
    lines = clips.read_text().splitlines()
    absolute = [f"{clips.parent}/{line}" for line in lines[1:]]
    table = tmp_path / "clips.csv"
    table.write_text("\n".join([lines[0], *absolute]))
    before = study(clips=table).points(TransferPlan())
    table.write_text("\n".join([lines[0], *absolute[:-1], absolute[-1][:-1] + "1"]))
    after = study(clips=table).points(TransferPlan())
    assert before[0].data_key != after[0].data_key


def test_presets():
    quick, paper = SweepOptions(), SweepOptions(preset="paper")
    tuned, scratch = TransferPlan(), TransferPlan.scratch()
    assert paper.training(tuned).epochs == 70
    assert paper.training(tuned).milestones == (30, 60)
    assert paper.training(scratch).epochs == 450
    assert paper.training(scratch).milestones == (300, 350)
    assert (paper.training(tuned).lr, paper.training(tuned).weight_decay) == (1e-4, 1e-3)
    assert (paper.training(tuned).batch_size, paper.training(tuned).normalise) == (32, "none")
    assert quick.training(tuned) == quick.training(scratch) == PRESETS["quick"][0]


def test_every_value_of_a_preset_can_be_replaced():
    given = {
        "epochs": 3, "batch_size": 8, "lr": 0.5, "weight_decay": 0.0, "optimizer": "adamw", "schedule": "step",
        "milestones": (1, 2), "normalise": "none", "precision": "fp32",
        "augment": "spectrum", "variants": 3, "masks": 1, "mixup": 0.2,
    }  # fmt: skip
    assert dataclasses.asdict(SweepOptions(**given).training(TransferPlan())) == given


def test_unknown_fold(study):
    with pytest.raises(ParameterError, match="folds='9' not in tones.*: its folds are 1, 2, 3"):
        study(folds=("1", "9"))


def test_negative_seed(study):
    for seed in (-1, 2**32):
        with pytest.raises(ParameterError, match=f"seeds={seed} must be from 0 to 4294967295"):
            study(seeds=(seed,))


@pytest.mark.parametrize("memory", [-1.0, float("nan")])
def test_bad_memory(study, memory):
    with pytest.raises(ParameterError, match="memory=.* must be 0 GB or more"):
        study(memory=memory)


@pytest.mark.parametrize("name", ["seeds", "backbone"])
def test_nothing_named(study, name):
    with pytest.raises(ParameterError, match=f"{name} must name at least one"):
        study(**{name: ()})


def test_named_twice_is_one_point(study):
    made = study(folds=("1", "1"), seeds=(0, 0), backbone=("test_resnet", "test_resnet"))
    assert len(made.points(TransferPlan())) == 1


def test_unknown_backbone_before_anything_is_read(study):
    with pytest.raises(ParameterError, match="backbone='resnet5o' is not a model"):
        study(backbone=("resnet5o",))


def test_one_failed_run_stops_no_other(study, monkeypatch):
    made = study()
    epoch = trainer.Trainer.epoch

    def failing(self):
        if self.config.fold == "2":
            raise FloatingPointError("the training loss is nan")
        epoch(self)

    monkeypatch.setattr(trainer.Trainer, "epoch", failing)
    points = made.points(TransferPlan())
    with pytest.raises(SweepError, match="1 of 3 runs failed: .*-f2-.*training loss is nan.*tries just these again"):
        made.gather(points)
    assert [point.path(made.options.runs).is_file() for point in points] == [True, False, True]
    assert SweepError.exit_code == 3


def test_diverging_training_is_a_failed_run(study):
    made = study(folds=("1",), lr=1e30, precision="fp32")
    with pytest.raises(SweepError, match="lower the learning rate"):
        made.gather(made.points(TransferPlan()))


def test_bad_weights_stop_the_sweep_before_training(study, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        study(weights=str(tmp_path / "none.pth")).points(TransferPlan())


def test_damaged_run_file_is_named(study):
    made = study(folds=("1",))
    (run,) = made.gather(made.points(TransferPlan())).values()
    run.path.write_bytes(run.path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged, cut short or of another kind.*delete it"):
        made.gather(made.points(TransferPlan()))


def test_all_damaged_run_files_are_named_before_training(study):
    made = study()
    points = made.points(TransferPlan())
    for point in points[:2]:
        path = point.path(made.options.runs)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with pytest.raises(CheckpointError, match="-f1-.*-f2-"):
        made.gather(points)
    assert not points[2].path(made.options.runs).exists()


def test_only_fold_is_train(study, tmp_path):
    from conftest import write_clips

    with pytest.raises(DataError, match="has no fold to hold out"):
        study(clips=write_clips(tmp_path / "x", folds=("train",)))


def test_skipped_clips_are_recorded(study, clips, tmp_path):
    lines = clips.read_text().splitlines()
    rows = [f"{clips.parent}/{line}" for line in lines[1:]]
    (tmp_path / "broken.wav").write_text("no sound")
    table = tmp_path / "clips.csv"
    table.write_text("\n".join([lines[0], *rows, f"{tmp_path}/broken.wav,low,1"]))
    made = study(clips=table, skip_unreadable=True, folds=("1",), sr=8000)
    (run,) = made.gather(made.points(TransferPlan())).values()
    assert run.provenance["skipped_clips"].endswith("broken.wav")
    assert len(run.clip_ids) == 8
