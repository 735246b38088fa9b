"""The run store: ids, run files, and the errors for files that are not runs."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from transferlens import runs
from transferlens.data.catalogue import open_dataset
from transferlens.features.logmel import FeatureSettings
from transferlens.models.build import build
from transferlens.models.plan import TransferPlan
from transferlens.store.arms import arm_names
from transferlens.store.config import RunConfig, Training
from transferlens.store.listing import list_runs, summarise
from transferlens.store.rows import RunRow, levels_text, row_of
from transferlens.store.run import load_run, load_runs
from transferlens.store.runfile import read_state, seal, write_state
from transferlens.util.errors import CheckpointError, ParameterError

CONFIG = RunConfig(
    dataset="esc10",
    data_key="ab" * 32,
    features=FeatureSettings(44100),
    fold="1",
    backbone="tf_efficientnet_lite0",
    plan=TransferPlan(4, None, 3),
    weights_sha256="cd" * 32,
    seed=0,
    training=Training(milestones=(3, 5)),
)


@pytest.fixture(scope="module")
def finished(make_study, tmp_path_factory):
    """A finished run of two epochs."""
    return make_study(tmp_path_factory.mktemp("finished"), folds=("1",)).runs(TransferPlan())[0]


@pytest.fixture
def run(finished, tmp_path):
    """A copy that a test can damage, in a store of its own."""
    store = tmp_path / "runs" / finished.path.parent.name
    store.mkdir(parents=True)
    return load_run(shutil.copy(finished.path, store))


def test_id_reads_like_the_point():
    assert CONFIG.id.startswith("esc10-f1-lite0-p4-none-3-s0-")
    assert len(CONFIG.id.rsplit("-", 1)[1]) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "esc50"},
        {"data_key": "00" * 32},
        {"features": FeatureSettings(44100, width=200)},
        {"fold": "2"},
        {"backbone": "tf_efficientnet_lite1"},
        {"plan": TransferPlan(4, 0, 3)},
        {"plan": TransferPlan(4, None, 4)},
        {"weights_sha256": ""},
        {"seed": 1},
        *(
            {"training": dataclasses.replace(CONFIG.training, **{name: value})}
            for name, value in {
                "epochs": 13,
                "batch_size": 16,
                "lr": 1e-4,
                "weight_decay": 0.0,
                "optimizer": "adamw",
                "schedule": "step",
                "milestones": (3,),
                "normalise": "none",
                "precision": "fp32",
            }.items()
        ),
    ],
)
def test_settings_are_in_the_id(change):
    assert dataclasses.replace(CONFIG, **change).id != CONFIG.id


def test_every_setting_is_in_the_id():
    """Another value of each field, by its type, makes another run."""
    others = {"optimizer": "adamw", "schedule": "step", "normalise": "none", "precision": "fp32", "augment": "spectrum"}
    others |= {"milestones": (3,), "threads": 2, "network": "torchvision", "label_smoothing": 0.1, "layer_decay": 0.5}
    others |= {"sampling": "classes", "clips_per_class": 4}
    for field in dataclasses.fields(CONFIG.training):
        base = dataclasses.replace(CONFIG.training, augment="waveform", head_epochs=1)
        value = others.get(field.name, getattr(base, field.name) + 1 if field.name not in others else None)
        one, other = (
            dataclasses.replace(CONFIG, training=t) for t in (base, dataclasses.replace(base, **{field.name: value}))
        )
        assert one.id != other.id, field.name
    assert dataclasses.replace(CONFIG, inner_fold="2").id != CONFIG.id


def test_id_is_a_file_name():
    assert "/" not in dataclasses.replace(CONFIG, fold="a/b c").id


def test_flat_and_back():
    flat = CONFIG.flat()
    assert flat["truncate_after"] == 3
    assert flat["frozen_through"] is None
    assert RunConfig.from_flat(flat) == CONFIG


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be 1 to 1048576"),
        ({"batch_size": 1}, "batch_size=1 must be 2 to 1048576"),
        ({"batch_size": 10**9}, "batch_size=1000000000 must be 2 to 1048576"),
        ({"milestones": (-3,)}, "milestones=-3 must be at least 1"),
        ({"lr": 0.0}, "lr=0.0 must be greater than 0"),
        ({"lr": float("nan")}, "lr=nan must be a finite number"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be at least 0"),
        ({"optimizer": "sgd"}, "optimizer='sgd' must be one of adam, adamw"),
        ({"schedule": "x"}, "schedule='x' must be one of cosine, step, constant"),
        ({"normalise": "x"}, "normalise='x' must be one of none, channel"),
        ({"precision": "fp16"}, "precision='fp16' must be one of auto, bf16, fp32"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 must be 0 or more and less than 1"),
        ({"layer_decay": 1.5}, "layer_decay=1.5 must be 0 to 1"),
        ({"l2_sp": float("inf")}, "l2_sp=inf must be a finite number"),
        ({"average_epochs": 0}, "average_epochs=0 must be at least 1"),
        ({"test_shifts": -1}, "test_shifts=-1 must be 0 to 100"),
        ({"sampling": "x"}, "sampling='x' must be one of clips, classes"),
        ({"epochs": 3, "head_epochs": 3}, "^head_epochs=3 must be less than epochs=3: at least one epoch must be left"),
        (
            {"epochs": 3, "warmup_epochs": 2, "head_epochs": 1},
            "head_epochs=1 and warmup_epochs=2 must be less than epochs=3 together",
        ),
        ({"epochs": 3, "average_epochs": 4}, "average_epochs=4 must be at most 3, the epochs in which all is trained"),
        ({"epochs": 3, "head_epochs": 1, "average_epochs": 3}, "average_epochs=3 must be at most 2"),
        ({"layer_decay": 0, "head_epochs": 1}, "head_epochs=1 has no effect with layer_decay=0, which trains only the"),
        ({"layer_decay": 0, "l2_sp": 0.1}, "l2_sp=0.1 has no effect with layer_decay=0"),
    ],
)
def test_bad_training(options, message):
    with pytest.raises(ParameterError, match=message):
        Training(**options)


def test_one_setting_has_one_id():
    whole = dataclasses.replace(CONFIG, training=Training(lr=1, weight_decay=0, milestones=[3]))
    parts = dataclasses.replace(CONFIG, training=Training(lr=1.0, weight_decay=0.0, milestones=(3,)))
    assert whole.id == parts.id
    assert hash(whole) == hash(parts)


def test_learning_rate_known_answers():
    cosine = Training(epochs=10, lr=1.0)
    assert [cosine.lr_at(t) for t in (0, 5, 10)] == pytest.approx([1, 0.5, 0])
    warm = Training(epochs=10, lr=1.0, warmup_epochs=2, head_epochs=4, head_lr=0.5)
    assert [warm.lr_at(t) for t in (0, 3.9, 4, 5, 6, 8, 10)] == pytest.approx([0.5, 0.5, 0, 0.5, 1, 0.5, 0])
    step = Training(epochs=70, lr=1.0, schedule="step", milestones=(30, 60))
    assert [step.lr_at(t) for t in (0, 29.9, 30, 59.9, 60, 69)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Training(lr=0.5, schedule="constant").lr_at(7) == 0.5


def test_file_holds_the_whole_config_readably(run):
    with h5py.File(run.path) as file:
        attributes = file["config"].attrs
        assert attributes["backbone"] == "test_resnet"
        assert attributes["epochs"] == 2
        assert attributes["width"] == 32
        assert isinstance(attributes["frozen_through"], h5py.Empty)
        assert file["provenance"].attrs["torch"] == torch.__version__
        assert "optimizer" not in file or not len(file["optimizer"])
    assert load_run(run.path).config == run.config


def test_held_out_clips_and_labels_by_name(run, clips):
    assert len(run.clip_ids) == 8
    assert all(clip.split("-")[1] == "1" for clip in run.clip_ids)
    assert run.label_names == ("high", "low")
    assert [run.label_names[i] for i in run.labels] == [clip.split("-")[0] for clip in run.clip_ids]
    assert run.logits.shape == run.logits_best.shape == (8, 2)


def test_recordings_are_stored_if_the_data_set_names_them(study, clips, tmp_path):
    """Neither the id nor the weights depend on them; to a run without them the data set gives them."""
    table = shutil.copytree(clips.parent, tmp_path / clips.parent.name) / "clips.csv"
    head, *rows = clips.read_text().split()
    table.write_text("\n".join([f"{head},fsID", *(f"{row},r{i // 2}" for i, row in enumerate(rows))]))
    (plain,) = study(folds=("1",)).runs(TransferPlan())
    (known,) = study(folds=("1",), clips=table).runs(TransferPlan())
    assert load_run(known.path).groups == plain.groups == ()
    plain.path.unlink()
    (named,) = study(folds=("1",), clips=table).runs(TransferPlan())
    assert named.config == known.config == plain.config
    np.testing.assert_array_equal(named.logits, plain.logits)
    assert named.n_recordings == 4
    assert sorted(named.groups) == sorted(2 * named.groups[::2])
    assert known.groups == named.groups == load_run(named.path).groups == tuple(read_state(named.path).groups)
    with pytest.raises(CheckpointError, match="was trained on other clips than synth"):
        plain.within(open_dataset())


def test_number_of_training_clips(run, clips):
    """Stored; in files without it from the data set, or from the number of folds of a data set known by name."""
    assert run.n_train == 16
    older = dataclasses.replace(run, provenance={k: v for k, v in run.provenance.items() if k != "n_train"})
    assert np.isnan(older.n_train)
    assert older.within(open_dataset(clips)).n_train == 16
    known = dataclasses.replace(older, config=dataclasses.replace(CONFIG, inner_fold="2"))
    assert known.n_train == 3 * len(run.labels)


def test_accuracies_to_compare_with(run, clips):
    """Of guessing, and of always naming the commonest training class; older files know it if classes are even."""
    assert run.chance == 1 / len(run.label_names)
    provenance = {key: value for key, value in run.provenance.items() if key != "commonest"}
    older = dataclasses.replace(run, provenance=provenance)
    assert older.class_ratio == 1
    assert run.commonest == older.commonest == run.chance
    uneven = dataclasses.replace(older, labels=np.where(np.arange(len(run.labels)) < 2, 0, 1))
    assert np.isnan(uneven.commonest)
    assert uneven.within(open_dataset(clips)).commonest == pytest.approx(0.5)  # of two classes that are as common
    assert (
        levels_text([row_of(RunRow, run)])
        == f"to compare with, {run.config.dataset}: chance, and always the commonest class 50.0 %"
    )


def test_history_agrees_with_logits(run):
    accuracy = run.history["heldout_accuracy"]
    assert run.accuracy_last == accuracy[-1] == (run.logits.argmax(1) == run.labels).mean()
    assert run.accuracy_best == accuracy.max() == (run.logits_best.argmax(1) == run.labels).mean()
    assert {len(values) for values in run.history.values()} == {2}


def test_initial_state_is_that_of_the_builder(run, weights_file):

    built = build("test_resnet", n_classes=2, plan=TransferPlan(), weights=weights_file).state_dict()
    initial, final = run.initial_state(), run.final_state()
    assert initial.keys() == built.keys() == final.keys()
    assert all(torch.equal(initial[name], built[name]) for name in built)
    assert not torch.equal(initial["head.weight"], final["head.weight"])


def test_initial_state_without_its_weights(run, weights_file, tmp_path):
    other = tmp_path / "moved.safetensors"
    weights_file.rename(other)
    try:
        with pytest.raises(CheckpointError, match=r"imagenet\.safetensors does not exist"):
            run.initial_state()
    finally:
        other.rename(weights_file)


def test_model_gives_the_stored_logits(study):
    made = study(folds=("1",), precision="fp32")
    (run,) = made.gather(made.points(TransferPlan(4, 1, 3))).values()
    network = run.model()
    assert network.plan == run.config.plan
    with torch.inference_mode():
        logits = network(run.inputs(made.cache.load()[made.dataset.split("1")[1]]))
    np.testing.assert_allclose(logits.numpy(), run.logits, rtol=1e-4, atol=1e-5)


def test_a_run_is_itself_and_stands_for_its_file(run):
    other = load_run(run)
    assert run in [other, run]
    assert run not in [other]
    assert len({run, other, run}) == 2
    assert Path(run) == Path(other) == run.path
    assert load_runs([run, other, run.path]) != [run]
    assert len(load_runs([run, other, run.path])) == 1
    assert summarise(run).path == run.path


def test_a_run_is_printed_in_one_line(run):
    expected = f"Run '{run.config.id}': accuracy {100 * run.accuracy_last:.1f} % on fold 1, {run.path}"
    assert repr(run) == expected
    assert run._repr_html_() == f"<p>{expected}</p>"
    marked = dataclasses.replace(run, path=Path("a<b>"))
    assert "a&lt;b&gt;" in marked._repr_html_()


def test_a_row_says_what_the_run_is(run):
    row = row_of(RunRow, run)
    assert (row.dataset, row.backbone, row.pretrained_through, row.frozen_through) == (
        run.config.dataset,
        "test_resnet",
        "4",
        "none",
    )
    assert (row.fold, row.seed, row.epochs, row.run) == ("1", 0, 2, run.config.id)
    assert (row.accuracy_last, row.accuracy_best) == (run.accuracy_last, run.accuracy_best)
    assert row.trainable_parameters == row.parameters == sum(p.numel() for p in run.model().parameters())


def test_listing(run):
    (summary,) = list_runs(run.path.parents[1])
    assert summary.id == run.config.id == run.path.stem
    assert summary.is_complete
    assert summary.accuracy_last == run.accuracy_last
    assert summary.nbytes == run.path.stat().st_size


def test_files_that_are_no_runs(run, tmp_path):
    half, text, other = (tmp_path / name for name in ("half.h5", "text.h5", "other.h5"))
    half.write_bytes(run.path.read_bytes()[: run.path.stat().st_size // 2])
    text.write_text("no HDF5")
    with h5py.File(other, "w") as file:
        file["x"] = 1
    for path in (half, text):
        with pytest.raises(CheckpointError, match=rf"{path.name} is not a readable run file: damaged, cut short"):
            load_run(path)
    with pytest.raises(CheckpointError, match=r"other\.h5 is not a readable run file"):
        load_run(other)
    with pytest.raises(CheckpointError, match=r"none\.h5 does not exist"):
        load_run(tmp_path / "none.h5")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_run(tmp_path)
    with pytest.raises(CheckpointError, match=r"half\.h5.*other\.h5.*text\.h5"):
        list_runs(tmp_path)


def test_file_of_another_version(run):
    with h5py.File(run.path, "r+") as file:
        file["config"].attrs["new_option"] = 1
    seal(run.path)
    with pytest.raises(CheckpointError, match="written by another version of transferlens.*new_option"):
        load_run(run.path)


def test_listing_of_a_folder_that_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="none' is not a folder"):
        list_runs(tmp_path / "none")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_cut_file_is_always_refused(run, tmp_path, share):
    cut = tmp_path / "cut.h5"
    cut.write_bytes(run.path.read_bytes()[: int(share * run.path.stat().st_size)])
    with pytest.raises(CheckpointError, match="damaged, cut short"):
        load_run(cut)


def test_run_under_way_is_refused_and_listed(run, tmp_path):
    state = read_state(run.path)
    partial = tmp_path / "store" / "x.partial"
    write_state(partial, dataclasses.replace(state, history={k: v[:1] for k, v in state.history.items()}))
    with pytest.raises(CheckpointError, match="has finished 1 of 2 epochs"):
        load_run(partial)
    (summary,) = list_runs(tmp_path / "store")
    assert summary.epochs_done == 1
    assert not summary.is_complete


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: load_runs(run, "nope"), "alike='nope' must be one of backbone, dataset, truncate_after, labels"),
        (lambda run: load_runs(run, least=-1), "least=-1 must be at least 0"),
        (lambda run: load_run(""), "path='' must be a path"),
    ],
)
def test_bad_arguments(run, call, message):
    with pytest.raises(ParameterError, match=message):
        call(run)


@pytest.mark.parametrize(("kind", "value"), [(object, 0), (str, "0"), (complex, 0), (float, np.nan), (float, 1e300)])
def test_inputs_that_are_not_finite_real_numbers(run, kind, value):
    with pytest.raises(ParameterError, match="S of type .* must hold finite real numbers"):
        run.inputs(np.full((1, *run.config.features.shape), value, kind))


def test_time_between_updates_goes_with_watch(tmp_path, capsys):
    assert runs.main(["--runs", str(tmp_path), "--every", "3"]) == 2
    assert capsys.readouterr().err == "error: every=3 goes with watch\n"


def test_command(run, tmp_path, capsys):
    store = run.path.parents[1]
    assert runs.main(["--runs", str(store)]) == 0
    assert run.config.id in capsys.readouterr().out
    assert runs.main(["--ckpt", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "weights_source" in shown
    assert "pretrained_through 4" in shown
    assert runs.main(["--ckpt", str(run.path), "none.h5", "nor.h5"]) == 2
    assert re.search(r"none.h5 does not exist.*; nor.h5 does not exist", capsys.readouterr().err)
    assert runs.main(["--ckpt", str(run.path), "--watch"]) == 2
    assert "watch cannot be given with ckpt" in capsys.readouterr().err
    assert runs.main(["--runs", str(store), "--watch", "--table"]) == 2
    assert "table cannot be given with watch: leave out one of them" in capsys.readouterr().err
    (store / "broken.h5").write_text("")
    assert runs.main(["--runs", str(store)]) == 2
    captured = capsys.readouterr()
    assert run.config.id in captured.out
    assert "broken.h5 is not a readable run file" in captured.err
    assert runs.main(["--runs", str(tmp_path / "none")]) == 2
    assert "none' is not a folder" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read")
def test_nobody_is_told_to_delete_what_may_be_whole():
    with pytest.raises(CheckpointError, match="^/proc/self/mem cannot be read: Input/output error: it may be whole"):
        load_run("/proc/self/mem")


def test_another_run_than_the_name_says(study):
    made = study(folds=("1", "2"))
    first, second = made.gather(made.points(TransferPlan())).values()
    first.path.write_bytes(second.path.read_bytes())
    with pytest.raises(CheckpointError, match="holds the run tones.*, not tones.*: move it to another folder"):
        made.gather(made.points(TransferPlan()))


def test_initial_tensors_that_are_missing_are_named(run, tmp_path):
    path = shutil.copyfile(run.path, tmp_path / "altered.h5")
    with h5py.File(path, "r+") as file:
        del file["fresh/head.weight"]
    seal(path)
    with pytest.raises(CheckpointError, match=r"altered\.h5 is damaged: initial values of head\.weight are missing"):
        load_run(path).initial_state()


def test_weights_that_are_not_finite_are_refused(run, tmp_path):
    path = shutil.copyfile(run.path, tmp_path / "altered.h5")
    with h5py.File(path, "r+") as file:
        file["weights/head.weight"][0, 0] = np.nan
    seal(path)
    with pytest.raises(CheckpointError, match=r"altered\.h5 is damaged: some of its weights are NaN"):
        load_run(path).model()


@pytest.mark.parametrize("place", [9, 100, -1, -100, 0.3, 0.7])
def test_a_flipped_bit_anywhere_is_seen_before_hdf5_looks(run, tmp_path, place):
    content = bytearray(run.path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    (tmp_path / "flipped.h5").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"flipped\.h5 is not a readable run file: damaged"):
        load_run(tmp_path / "flipped.h5")


@pytest.mark.parametrize("left", [-1, -52, 0])
def test_no_file_is_opened_whose_seal_is_gone_and_one_that_is_sealed_again_is(run, tmp_path, left):
    content = run.path.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(content[:left])
    for read in (load_run, summarise):
        with pytest.raises(CheckpointError, match=r"cut\.h5 is not a readable run file"):
            read(path)
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file["config"].attrs["seed"] = 7
    with pytest.raises(CheckpointError, match=r"cut\.h5 is not a readable run file"):
        load_run(path)
    for _ in range(2):
        seal(path)
        assert load_run(path).config.seed == 7


def test_a_checksum_is_verified_once_until_the_file_changes(run, tmp_path, monkeypatch):
    path = shutil.copyfile(run.path, tmp_path / "copy.h5")
    verified, open_ = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *given: verified.append(self.name) or open_(self, *given))
    for _ in range(2):
        load_run(path)
    assert verified == ["copy.h5"] * 2  # just written: a second change might not show in its time
    os.utime(path, (0, 0))
    for read in (load_run, summarise, read_state, lambda path: load_run(path).model()):
        read(path)
    assert verified == ["copy.h5"] * 3
    time.sleep(0.05)  # longer than the clock of a file system stands still
    with open(path, "r+b") as file:  # noqa: PTH123
        file.write(b"\1")
    os.utime(path, (0, 0))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"copy\.h5 is not a readable run file"):
            load_run(path)
    assert verified == ["copy.h5"] * 5


def test_a_flipped_bit_in_the_logits_is_seen(run, tmp_path):
    with h5py.File(run.path) as file:
        place = file["logits_last"].id.get_chunk_info(0).byte_offset
    content = bytearray(run.path.read_bytes())
    content[place] ^= 1
    (tmp_path / "flipped.h5").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"flipped\.h5 is not a readable run file: damaged"):
        load_run(tmp_path / "flipped.h5")


def test_arms_of_other_settings_are_told_apart_and_folds_and_seeds_are_not(run):
    config = run.config

    def like(**changes):
        training = dataclasses.replace(config.training, **changes.pop("training", {}))
        return dataclasses.replace(run, config=dataclasses.replace(config, training=training, **changes))

    assert arm_names([like(), like(fold="2", seed=3)]) == ["pretrained"] * 2
    assert arm_names([like(), like(training={"mixup": 0.2}), like(fold="2")]) == [
        "pretrained",
        "pretrained (mixup 0.2)",
        "pretrained",
    ]
    assert arm_names([like(), like(training={"epochs": 7}, fold="2")])[1] == "pretrained (7 epochs)"
    assert arm_names([like(), like(weights_sha256="ab" * 32)])[1] == "pretrained (weights abababab)"
    assert arm_names([like(), like(weights_sha256="ab" * 32, backbone="resnet50")]) == ["pretrained"] * 2
    assert arm_names([like(), like(data_key="cd" * 32)])[1] == "pretrained (data cdcdcdcd)"
    other = like(weights_sha256="ab" * 32)
    other = dataclasses.replace(other, provenance=other.provenance | {"weights_name": "audioset"})
    assert arm_names([like(), other]) == [f"pretrained (from {run.weights})", "pretrained (from audioset)"]


def test_the_list_is_a_table_and_csv(run, tmp_path, capsys):
    from transferlens.runs import main

    table = list_runs(run.path.parents[1]).table()
    (row,) = table[table.id == run.config.id].to_dict("records")
    assert (row["accuracy_last"], row["backbone"]) == (run.accuracy_last, run.config.backbone)
    assert set(run.config.flat()) <= set(table.columns)
    assert "settings" not in table.columns
    assert (row["chance"], row["commonest"]) == (run.chance, run.commonest)
    assert main(["--runs", str(run.path.parents[1]), "--table"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [each["id"] for each in rows] == table.id.tolist()
    assert float(rows[0]["accuracy_last"]) == table.accuracy_last[0]
    (tmp_path / "empty").mkdir()
    assert main(["--runs", str(tmp_path / "empty"), "--table"]) == 0
    assert capsys.readouterr().out.startswith("id,file,epochs")
    assert list_runs(tmp_path / "empty").table().empty


def test_runs_of_numbers_and_of_letters_are_in_one_table(study, tmp_path):
    study(folds=1, epochs=1).runs(TransferPlan())
    study(folds=1, epochs=1).runs(TransferPlan(start="IIRRR", train="NNAAA"))
    table = list_runs(tmp_path / "runs").table()
    letters = table[table.start.notna()]
    assert (letters.start.item(), letters.train.item()) == ("IIRRR", "NNAAA")
    assert table[table.start.isna()].pretrained_through.item() == 4
    assert set(table.backbone) == {"test_resnet"}
