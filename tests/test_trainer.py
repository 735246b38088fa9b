"""Training: same bits, resumption, what is learned and what is not, and where the features lie."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
import multiprocessing
import random
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from transferlens.models import build
from transferlens.models.device import pick_device
from transferlens.models.plan import TransferPlan
from transferlens.store.listing import list_runs
from transferlens.store.run import load_run
from transferlens.store.runfile import read_state, seal, write_state
from transferlens.training import batches, engines, trainer
from transferlens.training.sweep import Study
from transferlens.util import files
from transferlens.util.errors import CheckpointError, DataError, ParameterError

PLAN = TransferPlan()


def one(study, plan=PLAN):
    return next(iter(study.gather(study.points(plan)).values()))


def same_bits(a, b):
    a, b = a.final_state(), b.final_state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns(study):
    run = one(study(folds=("1",), epochs=8))
    assert run.accuracy_last == 1.0
    assert run.history["train_loss"][-1] < run.history["train_loss"][0] / 2


@pytest.fixture(scope="module")
def whole(make_study, tmp_path_factory):
    """Train a plan on fold 1 without interruption, once."""

    @functools.cache
    def make(plan=PLAN, **options):
        return one(make_study(tmp_path_factory.mktemp("whole"), folds=("1",), **options), plan)

    return make


def test_same_config_same_bits(study, whole):
    a, b = whole(), one(study(folds=("1",)))
    assert a.path != b.path
    assert same_bits(a, b)
    np.testing.assert_array_equal(a.logits, b.logits)


def test_another_seed_gives_other_weights(study):
    made = study(folds=("1",), seeds=(0, 1))
    a, b = made.gather(made.points(PLAN)).values()
    assert not torch.equal(a.initial_state()["head.weight"], b.initial_state()["head.weight"])
    assert not same_bits(a, b)


def test_a_classifier_named_head_among_the_weights_is_not_taken(study, whole, weights_file, tmp_path):
    save_file(load_file(weights_file) | {"head.weight": torch.ones(1000, 3)}, tmp_path / "head.safetensors")
    made = study(folds=("1",), epochs=1, weights=str(tmp_path / "head.safetensors"))
    assert same_bits(whole(epochs=1), one(made))


def test_finished_run_is_read_not_trained(study, monkeypatch):
    made = study(epochs=1)
    first = made.gather(made.points(PLAN))
    monkeypatch.setattr(trainer, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    again = study(epochs=1)
    assert [run.path for run in again.gather(again.points(PLAN)).values()] == [run.path for run in first.values()]


def test_finished_runs_need_no_features(study):
    made = study(folds=("1",), epochs=1)
    made.gather(made.points(PLAN))
    made.cache.path.unlink()
    again = study(folds=("1",), epochs=1)
    again.gather(again.points(PLAN))
    assert not made.cache.path.exists()


@pytest.mark.parametrize(
    ("plan", "epochs_before"), [(PLAN, 1), (PLAN, 2), (PLAN, 3), (TransferPlan.freeze(2), 1), (TransferPlan(1, 4), 2)]
)
def test_interrupted_run_resumes_to_the_same_bits(study, whole, tmp_path, monkeypatch, plan, epochs_before):
    expected = whole(plan, epochs=4)
    epoch = trainer.Trainer.epoch

    def interrupted(self):
        if self.epochs_done == epochs_before:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(trainer.Trainer, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one(study(folds=("1",), epochs=4), plan)
    monkeypatch.setattr(trainer.Trainer, "epoch", epoch)
    (partial,) = list_runs(tmp_path / "runs")
    assert partial.epochs_done == epochs_before
    resumed = one(study(folds=("1",), epochs=4), plan)
    assert same_bits(expected, resumed)
    np.testing.assert_array_equal(expected.logits_best, resumed.logits_best)
    np.testing.assert_array_equal(expected.history["train_loss"], resumed.history["train_loss"])
    assert not list(tmp_path.rglob("*.partial"))


def delete(name):
    def damage(file):
        del file[name]

    return damage


def rewrite_fold(file):
    file["config"].attrs["fold"] = "2"


@pytest.fixture(scope="module")
def begun(make_study, tmp_path_factory):
    """The content of a checkpoint after one of two epochs."""
    made = trained(make_study(tmp_path_factory.mktemp("begun"), folds=("1",)), PLAN)
    path = tmp_path_factory.mktemp("begun") / "run.partial"
    write_state(path, made.state())
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        None,
        rewrite_fold,
        *map(delete, ("weights/head.weight", "history/seconds", "history/heldout_accuracy", "logits_last")),
        *map(delete, ("optimizer/head.weight", "config")),
    ],
)
def test_damaged_partial_starts_over(study, whole, begun, damage, caplog):
    made = study(folds=("1",))
    (point,) = made.points(PLAN)
    partial = point.path(made.options.store.runs).with_suffix(".partial")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(begun if damage else begun[:1000])
    if damage:
        with h5py.File(partial, "r+") as file:
            damage(file)
        seal(partial)
    assert same_bits(one(made), whole())
    assert "starts over" in caplog.text


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read")
def test_a_checkpoint_that_the_machine_cannot_read_is_kept(study):
    made = study(folds=("1",))
    (point,) = made.points(PLAN)
    partial = point.path(made.options.store.runs).with_suffix(".partial")
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/proc/self/mem")
    with pytest.raises(CheckpointError, match="partial cannot be read: Input/output error: it may be whole"):
        one(made)
    assert partial.is_symlink()


def train_all(options):
    made = Study(**options)
    made.gather(made.points(PLAN))


def test_killed_at_random_moments(whole, clips, weights_file, tmp_path):
    epochs, rng = 8, random.Random(0)
    options = {"clips": clips, "backbone": "test_resnet", "weights": weights_file, "width": 32, "epochs": epochs}
    options |= {"batch_size": 4, "device": "cpu", "runs": tmp_path / "runs", "cache": tmp_path / "cache", "folds": 1}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(engines.PRELOADED)  # processes that start with torch in memory
    for reached in range(1, 5):
        process = context.Process(target=train_all, args=(options,), daemon=True)
        process.start()
        while process.is_alive() and epochs_done(tmp_path / "runs") < reached:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        assert process.is_alive(), "finished before it was killed"
        process.kill()
        process.join()
    train_all(options)
    (summary,) = list_runs(tmp_path / "runs")
    assert same_bits(whole(epochs=epochs), load_run(summary.path))
    assert [path.name for path in summary.path.parent.iterdir()] == [summary.path.name]


def epochs_done(store):
    return max((each.epochs_done for each in list_runs(store)), default=0) if store.is_dir() else 0


@pytest.mark.parametrize("plan", [TransferPlan(4, 2), TransferPlan(4, 1, 3), TransferPlan(2, 0), TransferPlan(4, 4)])
def test_frozen_blocks_are_bit_identical_after_training(whole, plan):
    run = whole(plan)
    initial, final, network = run.initial_state(), run.final_state(), run.model()
    for name in initial:
        block = network.block_of(name)
        assert torch.equal(initial[name], final[name]) == (block != "head" and plan.is_frozen(block)), name


def test_updating_statistics_of_frozen_blocks(study):
    run = one(study(folds=("1",)), TransferPlan(4, 4, 4, "updating"))
    initial, final = run.initial_state(), run.final_state()
    moved = {name for name in initial if not torch.equal(initial[name], final[name]) and not name.startswith("head")}
    assert moved
    assert all("running_" in name or "num_batches" in name for name in moved)


def test_features_streamed_from_the_file_give_the_same_bits(study, whole):
    held, streamed_study = whole(), study(folds=("1",), memory=0.0)
    streamed = one(streamed_study)
    assert streamed_study.data.held is None
    assert same_bits(held, streamed)
    np.testing.assert_array_equal(held.normalisation, streamed.normalisation)


@pytest.mark.parametrize("plan", [PLAN, TransferPlan.freeze(4)])
def test_passes_of_fewer_clips_where_memory_is_small(study, plan):
    """They are recorded, kept when an interrupted run goes on, and the same but for rounding."""
    usual = trained(study(folds=("1",), precision="fp32"), plan)
    assert "pass_size" not in usual.provenance
    for batch_size in (4, 2**20):
        made = study(folds=("1",), precision="fp32", width=250, memory=0.0, batch_size=batch_size)
        (point,) = made.points(plan)
        small = trainer.Trainer(point, made.data, made.sources)
        assert small.provenance["pass_size"] == small.pass_size == 43  # in 0.25 GB
    state = copy.deepcopy(usual.state())
    state.provenance["pass_size"] = 3
    made = study(folds=("1",), precision="fp32")
    smaller, sizes = trainer.Trainer(usual.config, made.data, made.sources), []
    smaller.resume(state)
    stem = smaller.network.blocks[0] if plan == PLAN else smaller.network.blocks[4]
    stem.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    smaller.epoch()
    usual.epoch()
    assert sizes[-3:] == ([3, 3, 2] if plan == PLAN else [3, 3, 3])  # the held-out clips, or all
    np.testing.assert_allclose(smaller.logits_last, usual.logits_last, rtol=1e-3, atol=1e-4)


def test_other_programs_do_not_change_the_size_of_passes(study, monkeypatch):
    made = study(folds=("1",), width=250)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    limits = {2**28: 21, 2**40: 64}  # half of which is too little, or suffices
    monkeypatch.setattr(build, "ALWAYS_ALLOWED", 0)
    for limit, size in limits.items():
        monkeypatch.setattr(build, "memory_limit", lambda limit=limit: limit)
        assert trainer.Trainer(*made.points(PLAN), made.data, made.sources).pass_size == size


def test_a_resumed_run_tells_its_own_size_of_passes(study, caplog):
    made = study(folds=("1",), memory=0.0)
    (point,) = made.points(PLAN)
    begun = trainer.Trainer(point, made.data, made.sources)
    begun.provenance["pass_size"] = 3
    begun.epoch()
    write_state(point.path(made.options.store.runs).with_suffix(".partial"), begun.state())
    assert one(made).provenance["pass_size"] == 3
    assert f"{point.id}: 3 clips are evaluated at once, not 64, which changes rounding" in caplog.text


def test_streaming_takes_no_random_numbers_from_dropout(study):
    """Where batches are read must not change what stochastic layers draw."""
    states = []
    for memory in (None, 0.0):
        torch.manual_seed(0)
        data = study(folds=("1",), memory=memory).data
        list(data.batches([np.array([0, 1])]))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_weights_that_changed_under_the_run(study, weights_file):
    made = study(folds=("1",))
    (point,) = made.points(PLAN)
    other = dataclasses.replace(point, weights_sha256="0" * 64)
    with pytest.raises(
        CheckpointError,
        match=r"starts from weights with sha256 000000000000, but the sources are imagenet.safetensors \(sha256 ",
    ):
        trainer.Trainer(other, made.data, made.sources)


def test_partial_of_a_finished_run_goes(study):
    made = study(folds=("1",))
    run = one(made)
    partial = run.path.with_suffix(".partial")
    partial.write_bytes(run.path.read_bytes())
    one(made)
    assert not partial.exists()


def test_a_resumed_run_keeps_its_number_of_threads_and_records_another_environment(study, monkeypatch):
    made = study(folds=("1",))
    epoch = trainer.Trainer.epoch

    def interrupted(self):
        if self.epochs_done == 1:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(trainer.Trainer, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one(made)
    monkeypatch.setattr(trainer.Trainer, "epoch", epoch)
    monkeypatch.setattr(torch, "__version__", "9.9")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        provenance = one(made).provenance
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert (provenance["threads"], provenance["resumed_with"]) == (threads, "torch 9.9")


def test_normalisation_sees_the_training_folds_only(study):
    made = study(folds=("2",))
    run = one(made)
    x = made.cache.load()[made.dataset.split("2")[0]].astype(np.float64)
    np.testing.assert_allclose(run.normalisation, [x.mean((0, 2, 3)), x.std((0, 2, 3))], rtol=1e-6)
    plain = one(study(folds=("2",), normalise="none"))
    np.testing.assert_array_equal(plain.normalisation, [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(("n", "size"), [(33, 32), (65, 32), (320, 32), (7, 64), (5, 2), (3, 2), (2, 2)])
def test_batches_are_nearly_equal(n, size):
    lengths = [len(chunk) for chunk in batches.chunks(np.arange(n), size)]
    assert sum(lengths) == n
    assert max(lengths) <= max(size, 3)
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 2


def test_only_the_fold_named_train_trains_where_there_is_one(clips, study, tmp_path):
    rows = list(csv.DictReader(clips.open()))
    names = {"1": "train", "2": "validation", "3": "test"}
    table = tmp_path / "named.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "fold"])
        writer.writerows((clips.parent / row["path"], row["label"], names[row["fold"]]) for row in rows)
    made = study(clips=table)
    assert made.folds == ("test",)
    training, held_out = made.dataset.split("test")
    assert {made.dataset.clips[i].fold for i in training} == {"train"}
    assert {made.dataset.clips[i].fold for i in held_out} == {"test"}


def test_nothing_to_learn_from(study, tmp_path):
    from conftest import write_clips

    with pytest.raises(DataError, match=r"fold '1' of one.* held out leaves 0 clips of 0 classes to train on"):
        study(clips=write_clips(tmp_path / "one", folds=("1",)))


def test_unknown_device():
    with pytest.raises(ParameterError, match="device='tpu9' is not available here"):
        pick_device("tpu9")


def test_callers_random_numbers_are_left_alone(study):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one(study(folds=("1",)))
    assert torch.equal(torch.rand(3), expected)


def test_provenance(study):
    run = one(study(folds=("1",), precision="fp32"))
    assert run.provenance["precision"] == "fp32"
    assert run.provenance["weights_source"].endswith("imagenet.safetensors")
    assert run.provenance["threads"] == torch.get_num_threads()
    assert run.provenance["skipped_clips"] == "none"
    assert one(study(folds=("1",)), TransferPlan.scratch()).provenance["weights_source"] == "none"


def test_state_of_a_finished_run_holds_no_optimiser(whole):
    assert read_state(whole().path).optimizer == {}


# ------------------------------------------------------------------------------- frozen blocks run once

FROZEN = [TransferPlan.freeze(0), TransferPlan.freeze(3), TransferPlan.freeze(4), TransferPlan.probe(2)]


def trained(study, plan, *, epochs=1, **how):
    (point,) = study.points(plan)
    made = trainer.Trainer(point, study.data, study.sources, **how)
    for _ in range(epochs):
        made.epoch()
    return made


@pytest.mark.parametrize("plan", [*FROZEN, TransferPlan(2, 1), TransferPlan(1, 3)])
def test_frozen_blocks_run_once_train_as_the_plain_way_does(study, plan):
    made = study(folds=("1",), precision="fp32")
    once, plain = trained(made, plan), trained(made, plan, run_frozen_once=False)
    assert (once.start, plain.start) == (plan.frozen_through + 1, 0)
    for name, tensor in plain.network.state_dict().items():
        torch.testing.assert_close(once.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(once.logits_last, plain.logits_last, rtol=1e-4, atol=1e-5)


def test_frozen_blocks_run_once_in_bf16(study):
    made = study(folds=("1",), precision="bf16", width=64)
    once, plain = (trained(made, TransferPlan.freeze(4), run_frozen_once=how) for how in (True, False))
    np.testing.assert_allclose(once.logits_last, plain.logits_last, rtol=0.02, atol=0.02)


def count_passes(made, monkeypatch):
    passes, run = [], trainer.Trainer._prefix
    monkeypatch.setattr(trainer.Trainer, "_prefix", lambda self, x: passes.append(len(x)) or run(self, x))
    return lambda: (sum(passes), passes.clear())[0]


def test_seeds_share_what_frozen_blocks_gave(study, monkeypatch):
    made = study(folds=("1",), seeds=(0, 1), epochs=1)
    passed = count_passes(made, monkeypatch)
    made.gather(made.points(TransferPlan.freeze(2)))
    assert passed() == 24
    made.gather(made.points(TransferPlan(1, 2)))  # Block 2 is frozen as it was drawn, from another seed each
    assert passed() == 48


@pytest.mark.parametrize(("normalise", "times"), [("none", 1), ("channel", 2)])
def test_folds_share_what_frozen_blocks_gave_where_their_input_is_the_same(study, monkeypatch, normalise, times):
    made = study(folds=("1", "2"), normalise=normalise)
    passed = count_passes(made, monkeypatch)
    made.gather(made.points(TransferPlan.freeze(2)))
    assert passed() == 24 * times


def test_updating_statistics_are_computed_in_every_epoch(study):
    assert trained(study(folds=("1",)), TransferPlan.freeze(4, bn="updating")).start == 0


@pytest.mark.parametrize("plan", FROZEN)
def test_outputs_of_frozen_blocks_in_a_file_give_the_same_bits(study, whole, plan):
    mapped = study(folds=("1",), memory=0.0)
    assert same_bits(whole(plan), one(mapped, plan))
    assert [path.suffix for path in mapped.cache.path.parent.iterdir()] == [".h5"]


def test_no_room_for_outputs_of_frozen_blocks(study, monkeypatch):
    made = study(folds=("1",), memory=0.0)
    assert made.data.held is None
    monkeypatch.setattr(batches, "check_space", lambda path, nbytes: files.check_space(path, 10**18))
    with pytest.raises(DataError, match="make room, or name another folder"):
        made.gather(made.points(TransferPlan.freeze(2)))


def test_bf16_begun_where_it_is_wrong_starts_over(study, tmp_path, monkeypatch, caplog):
    """A snapshot from another processor, or from before it was known."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    begun = trained(study(folds=("1",)), PLAN)
    begun.provenance["precision"] = "bf16"
    write_state(begun.config.path(tmp_path / "runs").with_suffix(".partial"), begun.state())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    run = one(study(folds=("1",)))
    assert run.provenance["precision"] == "fp32"
    assert "starts over" in caplog.text
