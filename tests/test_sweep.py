"""Sweeps: which points an analysis names, what is trained, and what happens to a run that fails."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import filelock
import numpy as np
import psutil
import pytest
import soundfile
import torch
from conftest import last_of_each

from transferlens import runs, train
from transferlens.data.clips import DataSet
from transferlens.models.plan import TransferPlan
from transferlens.store import listing, locks
from transferlens.store.run import load_run
from transferlens.store.runfile import read_state
from transferlens.training import forecast, schedule, sweep, trainer
from transferlens.training.presets import PRESETS, TrainingOptions
from transferlens.util import processes
from transferlens.util.errors import CheckpointError, DataError, ParameterError, SweepError, warn_once
from transferlens.util.fields import flat


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
    quick, paper = TrainingOptions(), TrainingOptions(preset="paper")
    tuned, scratch = TransferPlan(), TransferPlan.scratch()
    assert paper.training(tuned).epochs == 70
    assert paper.training(tuned).milestones == (30, 60)
    assert paper.training(scratch).epochs == 450
    assert paper.training(scratch).milestones == (300, 350)
    assert (paper.training(tuned).lr, paper.training(tuned).weight_decay) == (1e-4, 1e-3)
    assert (paper.training(tuned).batch_size, paper.training(tuned).normalise) == (32, "none")
    assert (paper.training(tuned).precision, paper.training(tuned).draws) == ("fp32", 2)
    assert quick.training(tuned) == quick.training(scratch) == PRESETS["quick"][0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": 30}, (2, 5)),
        ({"epochs": 5}, (2, 5)),  # it fits, as before
        ({"epochs": 4}, (0, 1)),
        ({"epochs": 12, "head_epochs": 9}, (1, 2)),
        ({"epochs": 4, "average_epochs": 3}, (0, 3)),
        ({"epochs": 1}, (0, 1)),
    ],
)
def test_a_preset_is_shortened_where_it_does_not_fit(given, expected):
    training = TrainingOptions(preset="strong", **given).training(TransferPlan())
    assert (training.warmup_epochs, training.average_epochs) == expected
    assert training.epochs == given["epochs"]


def test_shortening_is_said_and_what_is_given_is_kept(caplog):
    TrainingOptions(preset="strong", epochs=4).training(TransferPlan())
    words = "made for 30 epochs, and 4 are asked for: it is shortened to warmup_epochs=0 and average_epochs=1"
    assert words in caplog.text
    with pytest.raises(ParameterError, match="average_epochs=5 must be at most 4"):
        TrainingOptions(preset="strong", epochs=4, average_epochs=5).training(TransferPlan())


def test_every_value_of_a_preset_can_be_replaced():
    given = {
        "epochs": 3, "batch_size": 8, "lr": 0.5, "weight_decay": 0.0, "optimizer": "adamw", "schedule": "step",
        "milestones": (1, 2), "normalise": "none", "precision": "fp32",
        "augment": "spectrum", "variants": 3, "masks": 1, "mixup": 0.2, "threads": 2, "label_smoothing": 0.1,
        "sampling": "classes", "warmup_epochs": 1, "layer_decay": 0.7, "head_epochs": 1, "head_lr": 0.1, "l2_sp": 0.1,
        "average_epochs": 2, "test_shifts": 1,
        "draws": 2, "network": "torchvision",
        "clips_per_class": 4,
    }  # fmt: skip
    assert dataclasses.asdict(TrainingOptions(**given).training(TransferPlan())) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"milestones": (1,)}, "milestones=.* goes with schedule='step', not 'cosine'"),
        ({"milestones": (2, 1), "schedule": "step"}, "milestones=.* must increase and be less than epochs=12"),
        ({"milestones": (30,), "schedule": "step"}, "milestones=.* must increase and be less than epochs=12"),
    ],
)
def test_milestones_without_effect(given, message):
    with pytest.raises(ParameterError, match=message):
        TrainingOptions(**given).training(TransferPlan())
    assert TrainingOptions(preset="paper", schedule="cosine", epochs=20).training(TransferPlan()).milestones == (30, 60)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda made: made.training(None), "plan=None must be a TransferPlan, such as TransferPlan.freeze"),
        (lambda made: made.arm(TransferPlan(), backbones="x"), "backbones='x' must be of the study: test_resnet"),
        (lambda made: made.runs(TransferPlan(), {"lr": 1}), "training={'lr': 1} must be a Training, as study.training"),
        (lambda made: made.gather([3]), r"points=3 must be a RunConfig, as study.points\(plan\) returns them"),
        (lambda made: made.gather(None), "points=None must be a RunConfig"),
        (lambda made: made.check_one("x"), "names='x' must be one of folds, backbone, seeds"),
    ],
)
def test_wrong_arguments_of_methods(study, call, message):
    with pytest.raises(ParameterError, match=message):
        call(study())


def test_unknown_fold(study):
    with pytest.raises(ParameterError, match="folds='9' not in tones.*: its folds are 1, 2, 3"):
        study(folds=("1", "9"))


def test_negative_seed(study):
    for seed in (-1, 2**32):
        with pytest.raises(ParameterError, match=f"seeds={seed} must be 0 to 4294967295"):
            study(seeds=(seed,))


@pytest.mark.parametrize("memory", [-1.0, float("nan")])
def test_bad_memory(study, memory):
    with pytest.raises(ParameterError, match="memory=.* must be (0 GB or more|a finite number)"):
        study(memory=memory)


def test_an_input_too_small_for_a_network_is_an_error_before_anything_is_computed(study, tmp_path, capsys, options):
    made = study(backbone=("test_resnet", "inception_v3"), width=64)
    message = "input_size=128x64 is too small for inception_v3: Block 4 cannot be computed"
    for call in (made.points, made.runs, made.arm):
        with pytest.raises(ParameterError, match=message):
            call(TransferPlan.scratch())
    point = made.points(TransferPlan(None, truncate_after=3))[-1]
    with pytest.raises(ParameterError, match=message):  # points that are made by hand
        made.gather([dataclasses.replace(point, plan=TransferPlan.scratch())])
    options = [word for word in options if not word.startswith(("--weights", "--figures"))]
    argv = [*last_of_each([*options, "--backbone=inception_v3", "--width=64"]), "--pretrained-through=none"]
    for last in ([], ["--dry-run"]):
        assert train.main([*argv, *last]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("workers", "needed", "remedy"),
    [(1, " takes at least 0.2 GB", ""), (3, ", 3 at once, takes at least 0.6 GB", ", or fewer workers")],
)
def test_a_run_that_memory_cannot_hold_is_an_error_before_training(
    study, monkeypatch, tmp_path, workers, needed, remedy
):
    made = study(workers=workers)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**8))
    message = f"test_resnet on inputs of 128x32 with batch_size=4{needed} of memory, and 0.1 GB are free"
    with pytest.raises(ParameterError, match=f"{message}.* use a smaller batch_size or width{remedy}, or allow more"):
        made.runs(TransferPlan.scratch())
    assert not list(tmp_path.iterdir())


def test_a_warning_where_memory_hardly_suffices(study, monkeypatch, caplog):
    made = study(folds=("1",), epochs=1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * 10**8))
    made.runs(TransferPlan.scratch())
    assert "training needs 0.2 to 0.4 GB, and 0.3 GB are free" in caplog.text
    assert "; if it is killed, use a smaller batch_size or width, or allow more memory" in caplog.text


def test_workers_share_the_free_memory(study, monkeypatch):
    """Half of it in all, for features and for outputs of frozen blocks; a run outside workers has all of it."""
    made = study(folds=("1",), workers=3)
    free = 5 * made.cache.nbytes
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    for workers, is_held in ((2, True), (3, False)):
        in_worker = sweep.Study.of(schedule.for_workers(made.options), sharers=workers)
        assert (in_worker.data.held is not None) == is_held
    assert made.data.held is not None


def test_the_clips_of_a_fold_are_counted_once_for_all_its_runs(study, monkeypatch):
    """Of a large data set that takes as long as a whole run file, and sweeps have thousands of runs."""
    made, calls = study(folds=("1",), seeds=range(50)), []
    split = DataSet.split
    monkeypatch.setattr(DataSet, "split", lambda *args: calls.append(args) or split(*args))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    with pytest.raises(ParameterError, match="takes at least"):
        made.runs(TransferPlan.scratch())
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["seeds", "backbone"])
def test_nothing_named(study, name):
    with pytest.raises(ParameterError, match=rf"{name}=\(\) must be one or more"):
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
    assert [point.path(made.options.store.runs).is_file() for point in points] == [True, False, True]
    assert SweepError.exit_code == 3


def test_diverging_training_is_a_failed_run(study):
    made = study(folds=("1",), lr=1e30, precision="fp32")
    with pytest.raises(SweepError, match="lower the learning rate"):
        made.gather(made.points(TransferPlan()))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_a_run_for_which_memory_does_not_suffice_says_what_to_do(study, monkeypatch, error):
    made = study(folds=("1",))

    def failing(self):
        raise error

    monkeypatch.setattr(trainer.Trainer, "epoch", failing)
    with pytest.raises(SweepError, match=r"\(memory ran out: use a smaller batch_size or width, or fewer workers"):
        made.gather(made.points(TransferPlan()))


def test_bad_weights_stop_the_sweep_before_training(study, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        study(weights=str(tmp_path / "none.pth")).points(TransferPlan())


def test_damaged_run_file_is_named(study):
    made = study(folds=("1",))
    (run,) = made.gather(made.points(TransferPlan())).values()
    run.path.write_bytes(run.path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged, cut short or of another kind.*move it to another folder"):
        made.gather(made.points(TransferPlan()))


def test_all_damaged_run_files_are_named_before_training(study):
    made = study()
    points = made.points(TransferPlan())
    for point in points[:2]:
        path = point.path(made.options.store.runs)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    with pytest.raises(CheckpointError, match="-f1-.*-f2-"):
        made.gather(points)
    assert not points[2].path(made.options.store.runs).exists()


def test_only_fold_is_train(study, tmp_path):
    from conftest import write_clips

    with pytest.raises(DataError, match="has no fold to hold out"):
        study(clips=write_clips(tmp_path / "x", folds=("train",)))


def warnings_of(study, tmp_path, caplog, where, **options):
    """The warnings about a table of classes in folds when points of two plans are named."""
    names = [(label, fold) for label, folds in where.items() for fold in folds]
    for label, fold in names:
        soundfile.write(tmp_path / f"{label}-{fold}.wav", np.random.default_rng(0).normal(size=4000) / 9, 8000)
    rows = [f"{label}-{fold}.wav,{label},{fold}" for label, fold in names]
    (tmp_path / "mice.csv").write_text("\n".join(["path,label,fold", *rows]))
    warn_once.cache_clear()
    caplog.clear()
    made = study(clips=tmp_path / "mice.csv", **options)
    assert not caplog.records  # the worker processes open studies too
    made.points(TransferPlan.scratch())
    study(clips=tmp_path / "mice.csv", **options).points(TransferPlan.scratch())
    return [record.getMessage() for record in caplog.records]


def test_classes_that_are_never_both_trained_on_and_held_out_are_named_once(study, tmp_path, caplog):
    def messages(where, **options):
        warnings = warnings_of(study, tmp_path, caplog, where, **options)
        assert all(warning.endswith(remedy) for warning in warnings)
        return [warning.removesuffix(remedy) for warning in warnings]

    remedy = ": put clips of each class both in folds that are held out and in folds that are trained on"
    good = {"a": "1234", "b": "1234"}
    assert messages(good) == []
    assert messages(good | {"c": "12"}) == []
    alone = "mice has classes that are in one fold only, and so never both trained on and held out: c, d"
    assert messages(good | {"d": "3", "c": "2"}) == [alone]
    assert messages({"a": ["Train", "Test"], "b": ["Train", "Test"], "c": ["Test"], "d": ["Train"]}) == [alone]
    untrained = "held out by a run that is not trained on them: e"
    assert messages(good | {"e": "12"}, select="nested") == [f"mice has classes that are {untrained}"]
    assert messages(good | {"e": "12", "c": "1", "d": "3"}, select="nested") == [f"{alone}; {untrained}"]
    assert messages(good | {"e": "12"}, select="nested", folds=(2,)) == []


def test_runs_of_a_data_set_that_was_renamed_are_named_before_they_are_trained_again(study, tmp_path, caplog):
    shutil.copytree(study().options.data.clips.parent, tmp_path / "tones")
    study(clips=tmp_path / "tones" / "clips.csv", folds=1).runs(TransferPlan.scratch())
    (tmp_path / "tones").rename(tmp_path / "bells")
    renamed = study(clips=tmp_path / "bells" / "clips.csv", folds=(1, 2))
    warn_once.cache_clear()
    renamed.warn_of_other_name(renamed.points(TransferPlan()))
    assert not caplog.records
    renamed.warn_of_other_name(renamed.points(TransferPlan.scratch()))
    words = "has runs of the same clips, whose folder or table was called tones then and is bells now: call it tones"
    assert words in caplog.text
    (tmp_path / "bells").rename(tmp_path / "tones")
    assert all(
        point.path(renamed.options.store.runs).is_file()
        for point in study(clips=tmp_path / "tones" / "clips.csv", folds=1).points(TransferPlan.scratch())
    )


def test_empty_mel_bands_are_named_once_before_training(study, caplog):
    low = study(sr=1000, folds=(1,), epochs=1)
    low.points(TransferPlan.scratch())
    assert not caplog.records
    low.runs(TransferPlan.scratch())
    expected = "29 of 128 mel bands are empty at sr=1000 and n_fft=100: give longer windows (now at most 0.1 s)"
    assert [record.getMessage() for record in caplog.records] == [expected]
    low.runs(TransferPlan.scratch())
    assert len(caplog.records) == 1


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


def without_costs(path):
    """All that a run file holds, but when it was trained, how long that took and with how much memory."""
    state = read_state(path)
    for name in ("started", "most_memory_bytes"):
        state.provenance.pop(name)
    state.history.pop("seconds")
    return state


def assert_same_bits(one, other):
    one, other = without_costs(one), without_costs(other)
    assert (one.config, one.provenance, one.history) == (other.config, other.provenance, other.history)
    np.testing.assert_array_equal(one.logits_last, other.logits_last)
    for name in ("weights", "fresh"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])


@pytest.mark.parametrize("workers", [2, None])
def test_the_number_of_workers_changes_no_bit(study, tmp_path, workers):
    one_after_another = study()
    points = one_after_another.points(TransferPlan())
    runs = one_after_another.gather(points)
    at_once = study(workers=workers, runs=tmp_path / "at once")
    at_once.gather(points)
    for point in points:
        assert_same_bits(point.path(one_after_another.options.store.runs), point.path(tmp_path / "at once"))
    assert {path.suffix for path in (tmp_path / "at once").rglob("*") if path.is_file()} == {".h5"}
    (alone,) = study(folds=("1",), threads=1).runs(TransferPlan())
    np.testing.assert_array_equal(alone.logits, runs[points[0]].logits)


def test_kills_change_nothing(study, tmp_path):
    """Workers and whole sweeps are killed at random; the same command goes on until all is done, to the same bits.

    ``TRANSFERLENS_KILLS`` says how often. A sweep that is through before loses half of its runs and is asked again.
    """
    kills, seeds = int(os.environ.get("TRANSFERLENS_KILLS", "6")), (0, 1, 2)
    alone = study(threads=1, epochs=4, seeds=seeds)
    points = alone.points(TransferPlan())
    alone.gather(points)
    store, options = tmp_path / "killed", SimpleNamespace(**flat(alone.options))
    argv = [sys.executable, "-m", "transferlens.train", "--threads", "1", "--workers", "2", "--epochs", "4"]
    argv += ["--clips", options.clips, "--backbone", *options.backbone, "--weights", options.weights, "--width", "32"]
    argv += ["--batch-size", "4", "--device", "cpu", "--cache", options.cache, "--runs", store, "--seeds", *seeds]
    rng, killed = np.random.default_rng(0), {"worker": 0, "sweep": 0}
    while True:
        sweep = subprocess.Popen([*map(str, argv)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while sweep.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                sweep.wait(rng.uniform(0, 1))
            holders = [filelock.SoftFileLease(path).pid for path in sorted(store.rglob("*.lock"))]
            holders = [pid for pid in holders if pid and processes.is_alive(pid)]
            if sum(killed.values()) == kills or not holders:
                continue
            if rng.random() < 0.2:
                sweep.kill()
                killed["sweep"] += 1
            else:
                with contextlib.suppress(OSError):
                    os.kill(int(rng.choice(holders)), signal.SIGKILL)
                    killed["worker"] += 1
        if sweep.returncode == -signal.SIGKILL:
            continue
        if sweep.returncode or sum(killed.values()) == kills:
            break
        for path in sorted(store.rglob("*.h5"))[::2]:
            path.unlink()
    assert sweep.returncode == 0, sweep.stderr.read().decode()
    print(killed)
    assert sum(killed.values()) == kills
    for point in points:
        assert_same_bits(point.path(options.runs), point.path(store))
    assert {path.suffix for path in store.rglob("*") if path.is_file()} == {".h5"}


def test_threads_are_part_of_a_run_and_as_they_were_after_it(study):
    before = torch.get_num_threads()
    made = study(threads=before + 1, folds=("1",), epochs=1)
    (point,) = made.points(TransferPlan())
    run = made.gather([point])[point]
    assert run.provenance["threads"] == before + 1
    assert torch.get_num_threads() == before
    (other,) = study(folds=("1",), epochs=1).points(TransferPlan())
    assert other.id != point.id
    assert "threads" in point.setting


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers=0 must be 1 to 1024"),
        ({"engine": "ray", "workers": 2}, "workers=2 goes with engine='local'"),
        ({"address": "auto"}, "address='auto' goes with engine='ray'"),
        ({"gpus_per_run": 0.5}, "gpus_per_run=0.5 goes with engine='ray'"),
        (
            {"engine": "ray", "workers": None, "gpus_per_run": -1.0},
            "gpus_per_run=-1.0 must be 0 to 1, or a whole number to 64",
        ),
    ],
)
def test_engines_and_what_goes_with_them(study, options, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        study(**options)


@pytest.mark.parametrize(
    ("at_once", "words"), [(1, "about 20 s one after the other"), (2, "about 10 s with up to 2 at")]
)
def test_runs_at_once_shorten_the_estimate(at_once, words):
    rows = [forecast.Planned(name, 2, 0, 10.0, 10**6, is_measured=False, at_once=at_once) for name in "ab"]
    assert words in forecast.text(rows)


def test_a_sweep_is_estimated_as_it_is_trained(study):
    several, one = study(workers=2), study(workers=2, folds=("1",))
    for made, at_once in ((several, 2), (one, 1)):
        rows = sweep.planned({"tuned": made.arm(TransferPlan())})
        assert {row.at_once for row in rows} == {at_once}


def test_no_threads(study):
    with pytest.raises(ParameterError, match="threads=0 must be 1 to 4096"):
        study(threads=0).points(TransferPlan())


def test_failures_are_kept_beside_the_store_until_mended(study, monkeypatch, capsys):
    made = study(folds=("1",))
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "epoch", lambda self: 1 / 0)
        with pytest.raises(SweepError, match="ZeroDivisionError: division by zero, at test_sweep.py"):
            made.gather(made.points(TransferPlan()))
    (point,) = made.points(TransferPlan())
    text = point.path(made.options.store.runs).with_suffix(".failed").read_text()
    assert text.startswith("ZeroDivisionError: division by zero")
    assert "Traceback" in text
    assert runs.main(["--runs", str(made.options.store.runs)]) == 0
    assert f"failed: {point.id} (ZeroDivisionError" in capsys.readouterr().out
    made.gather([point])
    assert listing.failed(made.options.store.runs) == {}
    assert {path.suffix for path in made.options.store.runs.rglob("*") if path.is_file()} == {".h5"}


def test_runs_that_others_train_are_awaited(study, monkeypatch):
    """The first is held by someone else, who finishes it; the others are trained in the meantime."""
    monkeypatch.setattr(schedule, "POLL", 0.05)
    made = study(epochs=1)
    points = made.points(TransferPlan())
    first = points[0].path(made.options.store.runs)
    order = []
    train = trainer.train

    def noted(config, *rest, **options):
        order.append(config.fold)
        if config.fold == points[-1].fold:
            threading.Timer(0.3, finish).start()
        return train(config, *rest, **options)

    held = locks.lock(first)

    def finish():
        held.__exit__(None, None, None)

    monkeypatch.setattr(trainer, "train", noted)
    assert held.__enter__()
    assert made.gather(points).keys() == set(points)
    assert order == [*[point.fold for point in points[1:]], points[0].fold]


def test_unfinished_runs_of_other_settings_are_kept_and_named(study, monkeypatch, caplog):
    """A sweep is ended after an epoch of its second run, and another one is asked for: neither changes the other."""
    caplog.set_level("INFO", "transferlens")
    first, second = study(epochs=3), study(epochs=2)
    points = first.points(TransferPlan())
    epoch, left = trainer.Trainer.epoch, iter(range(4))

    def ended(self):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return epoch(self)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "epoch", ended)
        with pytest.raises(KeyboardInterrupt):
            first.gather(points)
    store = first.options.store.runs
    done, partial = points[0].path(store), points[1].path(store).with_suffix(".partial")
    before = done.read_bytes(), partial.read_bytes()
    second.gather(second.points(TransferPlan()))
    assert (done.read_bytes(), partial.read_bytes()) == before
    assert f"1 unfinished run with other settings, kept as it is: {points[1].id}; the command that" in caplog.text
    caplog.clear()
    first.gather(points)
    assert "unfinished" not in caplog.text
    assert not partial.exists()


def test_only_so_many_folds(study):
    assert study(n_folds=2).folds == ("1", "2")
    assert study(folds=("3", "1"), n_folds=1).folds == ("3",)
    with pytest.raises(ParameterError, match="n_folds=0 must be at least 1"):
        study(n_folds=0)


def test_dry_run_trains_nothing_and_says_what_is_missing(study):
    made = study(epochs=2)
    points = made.points(TransferPlan())
    made.gather(points[:1])
    arms = {"tuned": made.arm(TransferPlan()), "scratch": made.arm(TransferPlan.scratch())}
    planned_rows = sweep.planned(arms)
    rows = {row.id: row for row in planned_rows}
    assert [*rows] == [point.id for arm in arms.values() for point in arm.points]
    done, missing = rows[points[0].id], rows[points[1].id]
    assert (done.seconds, done.nbytes, done.epochs_done) == (0, 0, 2)
    run = load_run(points[0].path(made.options.store.runs))
    assert missing.is_measured
    assert missing.seconds == pytest.approx(run.history["seconds"].sum(), rel=1e-3)
    assert missing.nbytes == run.path.stat().st_size
    scratch = next(row for row in planned_rows if "pnone" in row.id)
    assert not scratch.is_measured
    assert scratch.seconds > 0
    network = run.model()
    assert scratch.nbytes == 2 * sum(
        t.numel() * t.element_size() for t in network.state_dict().values()
    )  # and its start
    assert "6 runs: 1 done, 5 to train, about" in forecast.text(planned_rows)
    assert len(list(made.options.store.runs.rglob("*.h5"))) == 1


def test_estimate_counts_clips_that_an_epoch_draws_twice(study, monkeypatch):
    """With a clock that advances by a second per look, gradients and update take a second each, for 4 clips."""
    ticks = itertools.count()
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(ticks))
    for draws, expected in ((1, 2 * (16 + 8 / 3) * 2 / 4), (2, 2 * (2 * 16 + 8 / 3) * 2 / 4)):
        made = study(folds=("1",), augment="spectrum", draws=draws)
        (row,) = sweep.planned({"": made.arm(TransferPlan())})
        assert row.seconds == pytest.approx(expected)


def timed(*arms):
    """The number of networks whose steps are timed, by the looks at the clock: gradients, update; outputs of blocks."""
    looks = itertools.count()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forecast.time, "perf_counter", lambda: next(looks))
        sweep.planned(dict(enumerate(arms)))
    calls = next(looks) / 2 / (1 + forecast.CALLS)
    return calls / 2 if calls % 3 else calls / 3  # frozen blocks are a third call


def test_networks_that_differ_in_nothing_that_takes_time_are_timed_once(study):
    tuned, slower = study(seeds=(0, 1)), study(lr=0.5, epochs=3, weight_decay=0.1)
    alike = [
        tuned.arm(TransferPlan()),
        tuned.arm(TransferPlan.scratch()),
        tuned.arm(TransferPlan(2)),
        slower.arm(TransferPlan()),
    ]
    assert timed(alike[0]) == timed(*alike) == 1
    frozen, cut, probe = TransferPlan.freeze(2), TransferPlan(truncate_after=2), TransferPlan.probe(2)
    assert timed(study(folds=("1",)).arm(frozen)) == 1
    others = [study(batch_size=2).arm(TransferPlan()), study(width=64).arm(TransferPlan()), study().arm(cut)]
    assert timed(alike[0], *others) == 4
    keys = {forecast.Sweep((), tuned.options.store.runs, tuned.dataset, tuned.device).work(tuned.points(plan)[0])
            for plan in (TransferPlan(), TransferPlan(2), frozen, cut, probe)}  # fmt: skip
    assert len(keys) == 4


def test_files_of_random_blocks_are_larger_though_they_are_timed_once(study):
    made = study(folds=("1",))
    (tuned,), (scratch,) = (sweep.planned({"": made.arm(plan)}) for plan in (TransferPlan(), TransferPlan.scratch()))
    both = sweep.planned({"a": made.arm(TransferPlan()), "b": made.arm(TransferPlan.scratch())})
    assert [row.nbytes for row in both] == [tuned.nbytes, scratch.nbytes]
    assert tuned.nbytes < scratch.nbytes


def test_what_goes_on_in_a_store(study):
    made = study(epochs=1)
    points = made.points(TransferPlan())
    made.gather(points[:1])
    with locks.lock(points[1].path(made.options.store.runs)):
        text = listing.progress(made.options.store.runs)
    assert "1 run done, 1 under way" in text
    assert f"{points[1].id}  first epoch  process {os.getpid()} on " in text


def test_a_snapshot_is_kept_beside_a_damaged_run(study):
    made = study(folds=("1",), epochs=1)
    (point,) = made.points(TransferPlan())
    path = point.path(made.options.store.runs)
    made.gather([point])
    path.with_suffix(".partial").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="not a readable run file"):
        made.gather([point])
    assert path.with_suffix(".partial").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="sizes of files are not limited there")
def test_a_write_that_is_refused_half_way_is_one_line(study, tmp_path):
    """A quota: the free space does not tell, and the write breaks off."""
    options = SimpleNamespace(**flat(study(epochs=2).options))
    argv = [sys.executable, "-m", "transferlens.train", "--clips", options.clips, "--backbone", *options.backbone]
    argv += ["--weights", options.weights, "--width", "32", "--epochs", "2", "--folds", "1", "--device", "cpu"]
    argv += ["--cache", options.cache, "--runs", options.runs]
    words = " ".join(map(str, argv))
    done = subprocess.run(["bash", "-c", f"ulimit -f 3000; trap '' XFSZ; {words}"], capture_output=True, text=True)
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error")]
    assert done.returncode == 2
    assert re.search(r"error: .*\.(partial|h5): File too large", line)
    assert not [path for path in options.runs.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)])
def test_one_interruption_leaves_cleanly(study, workers, number):
    options = SimpleNamespace(**flat(study(threads=1, epochs=200).options))
    argv = [sys.executable, "-m", "transferlens.train", "--clips", options.clips, "--backbone", *options.backbone]
    argv += ["--weights", options.weights, "--width", "32", "--epochs", "200", "--device", "cpu", "--threads", "1"]
    argv += ["--cache", options.cache, "--runs", options.runs, "--workers", workers]
    # Shells start jobs in the background with SIGINT ignored, which processes inherit.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    sweep = subprocess.Popen([*map(str, argv)], preexec_fn=heard, **quiet)  # noqa: PLW1509
    while not list(options.runs.rglob("*.partial")) and sweep.poll() is None:
        time.sleep(0.05)
    sweep.send_signal(number)
    errors = sweep.communicate(timeout=60)[1]
    assert sweep.returncode == 128 + number
    assert "interrupted: all finished epochs are kept, the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert {path.suffix for path in options.runs.rglob("*") if path.is_file()} <= {".partial", ".h5"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB, and a way to mount it again with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", f"size=8m,{options}", "tmpfs", str(disk)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not shutil.which("mount") or not mount("rw"):
        pytest.skip("a file system cannot be mounted here")
    yield disk, mount
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_and_one_that_cannot_be_written_to(study, small_disk):
    disk, mount = small_disk
    made = study(runs=disk, epochs=1)
    points = made.points(TransferPlan())
    (disk / "other").write_bytes(bytes(3_500_000))
    with pytest.raises(DataError, match=r"needs [\d.]+ MB and .* has [\d.]+ MB free: make room, or name"):
        made.gather(points)
    done = [point.path(disk) for point in points if point.path(disk).is_file()]
    assert len(done) == 1  # 2.7 MB each
    before = done[0].read_bytes()
    assert {path.suffix for path in disk.rglob("*") if path.is_file()} <= {".h5", ""}  # nothing half-written
    assert mount("remount,ro")
    with pytest.raises(ParameterError, match=r"runs='.*disk' must be a folder that can be written to"):
        study(runs=disk, epochs=1).gather(points)
    assert study(runs=disk, epochs=1).gather([point for point in points if point.path(disk) in done])
    assert mount("remount,rw")
    (disk / "other").unlink()
    assert made.gather(points).keys() == set(points)
    assert done[0].read_bytes() == before


def test_a_cluster_that_loses_a_machine(study, tmp_path):
    """Two nodes of Ray on this machine, of which one is killed when the first run is done."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    alone = study(threads=1, seeds=(0, 1))
    points = alone.points(TransferPlan())
    alone.gather(points)
    store = tmp_path / "cluster"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)

        def kill():
            while not list(store.rglob("*.h5")):
                time.sleep(0.1)
            cluster.remove_node(node, allow_graceful=False)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        study(threads=1, seeds=(0, 1), workers=None, engine="ray", address=cluster.address, runs=store).gather(points)
        killer.join(30)
        assert not killer.is_alive()
    finally:
        cluster.shutdown()
    for point in points:
        assert_same_bits(point.path(alone.options.store.runs), point.path(store))
    assert {path.suffix for path in store.rglob("*") if path.is_file()} == {".h5"}
