"""Recipes as settings of training: their laws, what they exclude, and that interrupted runs go on to the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from transferlens.models.forward import over_shifts
from transferlens.models.plan import TransferPlan
from transferlens.store.config import RunConfig, Training
from transferlens.store.heldout import classify, heldout_features
from transferlens.store.runfile import read_state, write_state
from transferlens.training import objective, optimiser
from transferlens.training.batches import balanced
from transferlens.training.presets import PRESETS, TrainingOptions
from transferlens.training.trainer import Trainer
from transferlens.util.errors import ParameterError

PLAN = TransferPlan()
RECIPES = {
    "label smoothing": {"label_smoothing": 0.1},
    "balanced": {"sampling": "classes"},
    "warm-up": {"warmup_epochs": 1},
    "layer decay": {"layer_decay": 0.5},
    "LP-FT": {"head_epochs": 2},
    "L2-SP": {"l2_sp": 0.5},
    "average": {"average_epochs": 3},
    "shifts": {"test_shifts": 2},
    "all": {
        "label_smoothing": 0.1, "sampling": "classes", "warmup_epochs": 1, "layer_decay": 0.5, "head_epochs": 1,
        "l2_sp": 0.5, "average_epochs": 2, "test_shifts": 1, "optimizer": "adamw", "mixup": 0.2, "masks": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def train(make_study, tmp_path_factory):
    """Return a trainer of fold 1 of the small clips, which all share their features."""
    folder = tmp_path_factory.mktemp("recipes")

    def make(plan=PLAN, *, epochs=3, then=None, **options):
        study = make_study(folder, folds=("1",), epochs=epochs, **options)
        (point,) = study.points(plan)
        trainer = Trainer(point, study.data, study.sources, run_frozen_once=False)
        for _ in range(epochs if then is None else then):
            trainer.epoch()
        return trainer

    return make


def state_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def differing(a, b):
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


def body(names):
    return {name for name in names if not name.startswith("head")}


def is_statistic(name):
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_recipes_at_their_defaults_are_the_runs_of_before(study):
    (point,) = study(folds=("1",)).points(PLAN)
    flat = point.flat()
    for name in {*RECIPES["all"], "head_lr"} - {"optimizer", "mixup", "masks"}:
        del flat[name]  # as a run file of before has it
    assert RunConfig.from_flat(flat) == point
    plain = Training(layer_decay=1, l2_sp=0, average_epochs=1, test_shifts=0, warmup_epochs=0, head_epochs=0, head_lr=1)
    assert plain == Training()


def test_decay_0_is_a_probe(train):
    """To the bit that of a network whose blocks are frozen, and their BatchNorm statistics are not."""
    decayed = train(layer_decay=0.0)
    before = state_of(train(then=0))
    moved = differing(before, state_of(decayed))
    assert {"head.weight", "head.bias"} <= moved
    assert all(is_statistic(name) for name in body(moved))
    probe = train(TransferPlan(4, 4, 4, "updating"))
    assert not differing(state_of(decayed), state_of(probe))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_decay_0_keeps_all_weights_of_blocks_whatever_the_weight_decay(train, optimizer):
    moved = differing(
        state_of(train(then=0)), state_of(train(layer_decay=0.0, weight_decay=10.0, optimizer=optimizer, then=1))
    )
    assert all(is_statistic(name) for name in body(moved))


def test_each_block_has_its_learning_rate(train):
    trainer = train(TransferPlan.truncate(3), layer_decay=0.5, schedule="constant", lr=0.008, then=1)
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    found = {trainer.network.block_of(name): rates[id(p)] for name, p in trainer.learned.items()}
    assert found == {"head": 0.008, 3: 0.004, 2: 0.002, 1: 0.001, 0: 0.0005}
    assert len(train(then=0).optimizer.param_groups) == 1


def test_the_head_of_lp_ft_is_a_probe_and_then_all_is_trained(train):
    plain, fixed = train(then=0), TransferPlan.freeze(4)
    begun = train(head_epochs=2, head_lr=0.02, then=2)
    probe = train(fixed, lr=0.02, schedule="constant", then=2)
    assert differing(state_of(plain), state_of(begun)) == {"head.weight", "head.bias"}
    assert not differing(state_of(begun), state_of(probe))
    begun.epoch()
    assert begun.learned.keys() <= differing(state_of(probe), state_of(begun))
    assert begun.history["lr"] == [0.02, 0.02, 1e-3]


def test_strong_l2_sp_stays_at_the_start(train):
    start, pulled = state_of(train(then=0)), train(l2_sp=1e12, lr=0.01)
    moved = differing(start, state_of(pulled))
    assert all(is_statistic(name) for name in body(moved))
    assert "head.weight" in moved
    weaker = [state_of(train(l2_sp=strength, lr=0.01, weight_decay=0.0)) for strength in (0.0, 1.0, 100.0)]
    names = [name for name in start if not is_statistic(name) and not name.startswith("head")]
    far, near, nearest = (sum((s[name] - start[name]).square().sum() for name in names) for s in weaker)
    assert far > near > nearest > 0


def test_l2_sp_pulls_only_blocks_from_a_source_which_have_no_weight_decay(train):
    trainer = train(TransferPlan(1), l2_sp=0.1, then=0)
    for group in trainer.optimizer.param_groups:
        names = {name for name, p in trainer.learned.items() if any(p is other for other in group["params"])}
        blocks = {trainer.network.block_of(name) for name in names}
        assert (blocks == {0, 1}) == bool(group["start"]) == (group["weight_decay"] == 0)


def test_a_pull_is_the_minimum_of_its_penalty():
    p = torch.nn.Parameter(torch.tensor([4.0]))
    group = {"params": [p], "start": [torch.tensor([1.0])], "scale": 1.0, "lr": 0.5}
    optimiser.pull(torch.optim.SGD([group]), strength=4.0)  # lr times strength is 2: (4 + 2 * 1) / 3
    assert p.item() == pytest.approx(2)


def test_the_average_is_the_mean_of_the_last_epochs(train):
    plain = train(epochs=4, then=2)
    states = []
    for _ in range(2):
        plain.epoch()
        states.append(state_of(plain))
    averaged = train(epochs=4, average_epochs=2)
    found = state_of(averaged)
    for name in plain.learned:
        torch.testing.assert_close(found[name], (states[0][name] + states[1][name]) / 2)
    np.testing.assert_array_equal(averaged.history["train_loss"], plain.history["train_loss"])
    assert differing(states[1], found) > {name for name in found if name.endswith("running_var")}


def test_statistics_of_an_average_are_those_of_its_training_clips(train):
    trainer = train(average_epochs=2)
    seen = []
    with torch.no_grad():
        stem = next(m for m in trainer.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
        with_hook = stem.register_forward_hook(lambda module, x, y: seen.append(x[0]))
        trainer.network.eval()
        trainer._logits(trainer.rows)
        with_hook.remove()
    torch.testing.assert_close(stem.running_mean, torch.cat(seen).mean((0, 2, 3)))


def test_frozen_blocks_keep_their_statistics_in_an_average(train):
    start, averaged = state_of(train(TransferPlan.freeze(2), then=0)), train(TransferPlan.freeze(2), average_epochs=2)
    frozen = {name for name in start if averaged.network.block_of(name) in (0, 1, 2)}
    assert not differing(start, state_of(averaged)) & frozen


def test_label_smoothing_is_cross_entropy_with_soft_targets():
    logits, target = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    found = objective.loss(lambda x: logits, torch.zeros(5, 3, 128, 32), target, Training(label_smoothing=0.3))
    soft = 0.7 * torch.eye(2)[target] + 0.3 / 2
    torch.testing.assert_close(found, -(soft * logits.log_softmax(1)).sum(1).mean())


@pytest.mark.parametrize("seed", range(5))
def test_balanced_draws_have_each_class_equally_often(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=100, p=[0.6, 0.3, 0.07, 0.03])
    labels[:4] = range(4)
    rows = np.flatnonzero(rng.random(100) < 0.9) if seed else np.arange(100)
    drawn = balanced(rows, labels, rng)
    classes = np.unique(labels[rows])
    each = -(-len(rows) // len(classes))
    assert (np.bincount(labels[drawn])[classes] == each).all()
    assert set(drawn) <= set(rows)
    for label in classes:  # clips of a class are drawn equally often, but for one
        counts = np.bincount(drawn[labels[drawn] == label], minlength=100)[rows[labels[rows] == label]]
        assert counts.max() - counts.min() <= 1


def test_even_classes_are_drawn_entirely():
    labels = np.arange(30) % 3
    assert sorted(balanced(np.arange(30), labels, np.random.default_rng(0))) == [*range(30)]


def test_no_shift_is_the_network_itself():
    assert over_shifts(torch.relu, 0) is torch.relu


def test_shifts_are_of_the_held_out_clips_alone(study):
    """The network is that of training without them; its stored logits are the mean over shifts, as `classify` gives."""
    made, plain = (study(folds=("1",), epochs=1, precision="fp32", test_shifts=n) for n in (3, 0))
    (run,), (other,) = made.runs(PLAN), plain.runs(PLAN)
    assert not differing(run.final_state(), other.final_state())
    S = heldout_features(run, made.options.data, Path(made.options.store.cache))
    np.testing.assert_array_equal(classify(run, run.model(), S), run.logits)
    rolled = [classify(other, other.model(), np.roll(S, 8 * i, axis=3)) for i in range(4)]  # of 32 frames
    np.testing.assert_allclose(run.logits, np.mean(rolled, axis=0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(run.logits, other.logits, atol=1e-3)


def test_shifts_are_those_of_the_clips_and_not_of_the_output_of_frozen_blocks(study):
    (run,) = study(folds=("1",), epochs=1, precision="fp32", test_shifts=1).runs(TransferPlan.freeze(3))
    S = heldout_features(run, study().options.data, Path(study().options.store.cache))
    np.testing.assert_allclose(classify(run, run.model(), S), run.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_each_interrupted_epoch_goes_on_to_the_same_bits(train, name, tmp_path):
    """From the checkpoint after each epoch, the next one is that of the run which was not interrupted."""
    trainer, checkpoints = train(then=0, **RECIPES[name]), [tmp_path / f"{i}.partial" for i in range(3)]
    for path in checkpoints:
        trainer.epoch()
        write_state(path, trainer.state())
    for before, after in zip(checkpoints, checkpoints[1:], strict=False):
        resumed = train(then=0, **RECIPES[name])
        resumed.resume(read_state(before))
        resumed.epoch()
        a, b = resumed.state(), read_state(after)
        for group in ("weights", "optimizer"):
            one, other = getattr(a, group), getattr(b, group)
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one), group
        np.testing.assert_array_equal(a.logits_last, b.logits_last)
        assert {**a.history, "seconds": 0} == {**b.history, "seconds": 0}


def test_the_number_of_workers_does_not_matter(make_study, tmp_path):
    given = {"folds": ("1", "2"), "epochs": 3, "threads": 1, **RECIPES["all"]}
    one, two = (make_study(tmp_path / str(n), workers=n, **given).runs(PLAN) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert not differing(a.final_state(), b.final_state())
        np.testing.assert_array_equal(a.logits, b.logits)


def test_class_balanced_epochs_go_through_training(train):
    assert differing(state_of(train(then=1)), state_of(train(sampling="classes", then=1)))


@pytest.mark.parametrize(
    ("plan", "given", "message"),
    [
        (TransferPlan.freeze(4), {"head_epochs": 1}, "head_epochs=1 has no effect, as the plan p4-4-4 trains only the"),
        (TransferPlan.probe(2), {"layer_decay": 0.5}, "layer_decay=0.5 has no effect, as the plan p2-2-2|p4-2-2 trai"),
        (TransferPlan.freeze(4), {"l2_sp": 0.1}, "l2_sp=0.1 has no effect, as the plan p4-4-4 trains only the head"),
        (TransferPlan.scratch(), {"l2_sp": 0.1}, "l2_sp=0.1 needs a block that is trained from pretrained weights, an"),
        (
            TransferPlan(1, 1),
            {"l2_sp": 0.1},
            "l2_sp=0.1 needs a block .* the plan p1-1-4 has none: leave out the setting or the plan",
        ),
    ],
)
def test_recipes_without_effect_are_refused(study, plan, given, message):
    with pytest.raises(ParameterError, match=message):
        study(**given).points(plan)


def test_the_rate_of_the_head_goes_with_its_epochs():
    with pytest.raises(ParameterError, match="head_lr=0.1 goes with head_epochs=1 or more"):
        TrainingOptions(head_lr=0.1).training(PLAN)


@pytest.mark.parametrize("n_folds", [2, 3, 5, 10])
def test_strong_takes_at_most_four_times_as_long_as_quick(n_folds):
    """In passes through the network: a step counts 1, an evaluation a third."""

    def passes(training):
        held_out = (1 + training.test_shifts) / (n_folds - 1)
        return training.epochs * (1 + held_out / 3) + (training.average_epochs > 1) / 3

    strong, quick = PRESETS["strong"][0], PRESETS["quick"][0]
    assert passes(quick) < passes(strong) < 4 * passes(quick)


def test_strong_trains(train):
    trainer = train(preset="strong", epochs=5, variants=2, batch_size=4, then=2)
    assert trainer.config.training == dataclasses.replace(PRESETS["strong"][0], epochs=5, variants=2, batch_size=4)
    assert np.isfinite(trainer.history["train_loss"]).all()
