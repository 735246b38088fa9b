"""What blocks start from: named sources, finished runs, statistics; what of blocks is trained."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest
import timm
import torch
from conftest import write_clips
from safetensors.torch import load_file, save_file

from transferlens.models import build
from transferlens.models.anatomy import normalisations
from transferlens.models.network import redrawn
from transferlens.models.plan import TransferPlan
from transferlens.models.weights import Source, imagenet_state
from transferlens.store.heldout import classify
from transferlens.store.listing import list_runs
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import check_alike, load_run
from transferlens.store.runfile import seal
from transferlens.store.sources import find
from transferlens.train import main as train
from transferlens.training.trainer import Trainer
from transferlens.util.errors import CheckpointError, ParameterError

BACKBONE = "test_resnet"


@pytest.fixture(scope="module")
def finished(make_study, tmp_path_factory):
    """A finished run that held out fold 1."""
    (run,) = make_study(tmp_path_factory.mktemp("finished"), folds=("1",)).runs(TransferPlan())
    return run


def one(study, plan, **options):
    (run,) = study.gather(study.points(plan, **options)).values()
    return run


def network_of(plan, weights_file, seed=0):
    return build.build(BACKBONE, n_classes=2, plan=plan, weights=weights_file, seed=seed)


# --- statistics


@pytest.mark.parametrize("how", ["normal", "permuted"])
def test_statistics_keep_mean_and_deviation_and_nothing_else(how, weights_file):
    source = imagenet_state(BACKBONE, weights_file).state
    network = network_of(TransferPlan(start="iiiii", statistics=how), weights_file)
    correlations, sizes = [], []
    for name, tensor in network.backbone.state_dict().items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, source[name])
            continue
        start, drawn = source[name].double().flatten(), tensor.double().flatten()
        scale = start.abs().max().item()
        assert drawn.mean().item() == pytest.approx(start.mean().item(), abs=1e-6 * scale)
        assert drawn.std(correction=0).item() == pytest.approx(start.std(correction=0).item(), abs=1e-6 * scale)
        if how == "permuted":
            assert torch.equal(drawn.sort().values, start.sort().values)
        if name.endswith("running_var"):
            assert (drawn > 0).all()
        if len(start) > 50 and start.std() > 0:
            correlations.append(np.corrcoef(start, drawn)[0, 1])
            sizes.append(len(start))
    assert len(correlations) > 5
    assert (np.abs(correlations) * np.sqrt(sizes) < 4).all()


def test_statistics_depend_on_the_seed_alone(weights_file):
    plan = TransferPlan(start="Iiiii")
    first, again, other = (network_of(plan, weights_file, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    network = network_of(plan, weights_file)
    for name in (name for name in first if first[name].ndim == 4):
        assert torch.equal(first[name], other[name]) == (network.block_of(name) == 0)


def test_a_single_value_and_a_constant_stay_as_they_are():
    for tensor in (torch.tensor([0.5]), torch.ones(7), torch.tensor(3)):
        assert torch.equal(redrawn(tensor, "normal", seed=0), tensor)


# --- what is trained


@pytest.mark.parametrize("train_letters", ["NNAFA", "FAFFF", "NNNNN"])
def test_blocks_are_trained_as_the_letters_say(train_letters, study):
    run = one(study(folds=("1",), epochs=1), TransferPlan(train=train_letters))
    before, after, network = run.initial_state(), run.final_state(), run.model()
    layers = {id(p) for p in network.parameters()}
    norms = {id(p) for layer in normalisations(network) for p in layer.parameters()}
    kinds = {name: id(p) in norms for name, p in network.named_parameters() if id(p) in layers}
    moved = {name: not torch.equal(before[name], after[name]) for name in before}
    for name, has_moved in moved.items():
        block = network.block_of(name)
        letter = "A" if block == "head" else train_letters[block]
        if letter == "F":
            assert not has_moved, name
        elif name in kinds:
            assert has_moved == (letter == "A" or kinds[name]), name
        else:
            assert has_moved, name  # running statistics follow the clips


def test_normalisation_layers_of_all_kinds_are_found_and_no_convolution():
    names = ["convnext_pico", "resnet18", "test_vit", "test_byobnet", "tf_efficientnet_lite0"]
    for model in (timm.create_model(name, num_classes=0) for name in names):
        learned = [parameter for layer in normalisations(model) for parameter in layer.parameters()]
        assert all(parameter.ndim == 1 for parameter in learned)
        scales = [p for name, p in model.named_parameters() if name.endswith("weight") and p.ndim == 1]
        assert scales
        assert {id(parameter) for parameter in scales} <= {id(parameter) for parameter in learned}


# --- sources by name


def test_a_named_source_is_the_run_of_its_weights(study, weights_file):
    by_weights = study(folds=("1",), epochs=1)
    by_name = study(folds=("1",), epochs=1, weights="auto", source=(f"audio set={weights_file}",), runs="elsewhere")
    assert by_name.points(TransferPlan()) == by_weights.points(TransferPlan())
    assert by_name.points(TransferPlan(start="AAAAA")) == by_weights.points(TransferPlan())


def test_the_name_is_that_of_the_command_whatever_the_run_was_trained_under(study, weights_file):
    under = {"weights": "auto", "folds": (1,), "epochs": 1}
    (first,) = study(source=(f"first={weights_file}",), **under).runs(TransferPlan.fuse(0))
    other = study(source=(f"other={weights_file}",), **under)
    (run,) = other.runs(TransferPlan.fuse(0))
    assert (first.weights, run.weights, run.path) == ("first", "other", first.path)
    assert load_run(run.path).weights == "first"


def test_names_stand_in_runs_and_tables(options, weights_file, tmp_path, capsys):
    argv = [*(word for word in options if not word.startswith(("--weights", "--figures"))), "--folds", "1"]
    assert train([*argv, "--source", f"audioset={weights_file}", "--start", "AARRR", "--train", "NNAAA"]) == 0
    (path,) = (tmp_path / "runs").rglob("*.h5")
    run = load_run(path)
    assert [summary.weights for summary in list_runs(tmp_path / "runs")] == ["audioset"]
    assert row_of(RunRow, run).weights == "audioset"
    assert (run.weights, run.config.plan) == ("audioset", TransferPlan(start="IIRRR", train="NNAAA"))
    assert run.provenance["weights_option"] == str(weights_file)
    assert "IIRRR-NNAAA" in capsys.readouterr().out


def test_two_sources_in_one_network(study, weights_file, other_file):
    made = study(folds=("1",), epochs=1, weights="auto", source=(f"b={other_file}", f"a={weights_file}"))
    run = one(made, TransferPlan(start="ABbRA"))
    assert run.config.plan == TransferPlan(start="IJjRI")
    assert [source.name for source in run.sources] == ["a", "b"]
    assert run.weights == "a + b"
    network, start = run.model(trained=False), run.initial_state()
    files = {0: load_file(weights_file), 1: load_file(other_file), 4: load_file(weights_file)}
    for name, tensor in start.items():
        block = network.block_of(name)
        if block in files:
            assert torch.equal(tensor, files[block][name.removeprefix("backbone.")])
    again = one(made, TransferPlan(start="ABbRA"))
    assert again.config.weights_sha256.split() == [find(BACKBONE, file).sha256 for file in (weights_file, other_file)]


@pytest.mark.parametrize(
    ("source", "plan", "message"),
    [
        (("other",), "IIIII", r"source='other' must be NAME=VALUE, such as audioset=weights\.pth"),
        (("a=",), "IIIII", r"source='a=' must be NAME=VALUE"),
        (("random=auto",), "IIIII", r"beginning with a letter other than R \(which stands for random\)"),
        (("a={file}", "a={other}"), "AAAAA", r"source='a' is given twice"),
        (
            ("a={file}", "audio={other}"),
            "AAAAA",
            r"several sources begin with A; the sources are a .*: rename audio, so that the first letters differ",
        ),
        (("a={file}", "b={other}"), "IIIII", r"plan='p4-none-4': no source begins with I; the sources are a \(A\), b"),
        (("a={file}", "b={other}"), "AAAAA", r"source='b' has no effect: the plan AAAAA-AAAAA does not name it"),
        (
            ("a={file}", "b={file}"),
            "AABBB",
            r"source='a' and 'b' are the same weights of test_resnet: give one of them",
        ),
        (("a={file}",), "ccccc", r"plan='ccccc-AAAAA': no source begins with C; the sources are a \(A\)"),
        (("a=nowhere.pth",), "IIIII", r"weights file .*nowhere\.pth does not exist"),
        (("a=nowhere.h5",), "IIIII", r"nowhere\.h5 does not exist: name a run file"),
        (("a=some_tag",), "IIIII", r"weights 'some_tag' are neither a file nor a tag of test_resnet on timm's hub"),
    ],
)
def test_sources_that_cannot_be_used_are_one_line(source, plan, message, study, weights_file, other_file):
    source = tuple(each.format(file=weights_file, other=other_file) for each in source)
    with pytest.raises((ParameterError, CheckpointError), match=message) as caught:
        study(weights="auto", source=source).points(TransferPlan(start=plan))
    assert "\n" not in str(caught.value)


def test_a_single_source_is_one_source_under_both_of_its_letters(study, weights_file):
    made = study(folds=("1",), weights="auto", source=(f"audioset={weights_file}",))
    assert made.points(TransferPlan(start="IAAaR")) == made.points(TransferPlan(start="IIIiR"))


def test_a_source_that_the_study_does_not_have_is_named(study, weights_file):
    made = study(weights="auto", source=(f"a={weights_file}", "b=auto"))
    for plan in (TransferPlan(), TransferPlan.scratch()):
        with pytest.raises(ParameterError, match=r"^source='c' must be one of a, b$"):
            made.points(plan, source="c")


@pytest.mark.parametrize("name", ["a\nb.pth", "\N{MUSICAL SYMBOL G CLEF}" * 60 + ".pth"])
def test_files_of_any_name_are_sources(name, study, weights_file, tmp_path):
    try:
        torch.save(load_file(weights_file), tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    run = one(study(folds=("1",), epochs=1, weights=str(tmp_path / name)), TransferPlan())
    assert run.weights[:1] == name[0] and run.weights.isprintable()
    assert len(run.initial_state()) == len(run.final_state())


@pytest.mark.parametrize("weights", ["", "/"])
def test_weights_without_a_name_are_one_line(study, weights):
    with pytest.raises(CheckpointError, match="is a folder, not a file"):
        study(weights=weights).points(TransferPlan())


def test_a_trainer_without_the_sources_of_its_run_says_so(study):
    made = study(folds=("1",))
    with pytest.raises(CheckpointError, match="starts from weights with sha256 .*, but the sources are none: give"):
        Trainer(*made.points(TransferPlan()), made.data, ())


def test_workers_train_from_a_named_source_as_from_a_file(options, weights_file, tmp_path):
    argv = [word for word in options if not word.startswith(("--weights", "--runs", "--workers", "--figures"))]
    plan = ["--start=IIiii", "--train=NAAAA", "--folds=1", "--seeds=0", "1"]
    assert train([*argv, *plan, "--runs", str(tmp_path / "a"), "--weights", str(weights_file)]) == 0
    named = ["--source", f"imagenet={weights_file}", "--workers", "2"]
    assert train([*argv, *plan, "--runs", str(tmp_path / "b"), *named]) == 0
    files = [sorted((tmp_path / store).rglob("*.h5")) for store in "ab"]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert len(files[0]) == 2
    for runs in zip(*(map(load_run, store) for store in files), strict=True):
        a, b = (run.final_state() for run in runs)
        assert all(torch.equal(a[name], b[name]) for name in a)
        np.testing.assert_array_equal(runs[0].logits, runs[1].logits)


def test_weights_and_source_together_are_refused(study, weights_file):
    with pytest.raises(ParameterError, match="weights=.* and source='a=auto': give only source"):
        study(source=("a=auto",)).points(TransferPlan())


def test_a_tag_of_the_hub_is_that_of_the_backbone():
    assert Source.parse("in12k=a1_in1k").option == "a1_in1k"
    with pytest.raises(CheckpointError, match="did you mean 'a1_in1k'"):
        imagenet_state("resnet50", "a1_in1kk")


def test_a_stem_for_fewer_channels_sums_as_it_did(weights_file, tmp_path):
    state = load_file(weights_file)
    (stem,) = (name for name, tensor in state.items() if tensor.ndim == 4 and tensor.shape[1] == 3)
    for channels, origins in ((1, [0, 0, 0]), (2, [0, 1, 0])):
        narrow = state[stem][:, :channels].clone()
        save_file(state | {stem: narrow}, tmp_path / f"{channels}.safetensors")
        wide = imagenet_state(BACKBONE, tmp_path / f"{channels}.safetensors").state[stem]
        torch.testing.assert_close(wide, narrow[:, origins] * channels / 3)


# --- runs as sources


def test_a_run_as_a_source_gives_its_own_logits(finished, study):
    made = study(folds=("1",), weights="auto", source=(f"earlier={finished.path}",))
    (point,) = made.points(TransferPlan())
    network = build.skeleton(BACKBONE, n_classes=2, plan=point.plan)
    network.load_pretrained({"I": find(BACKBONE, finished.path, sha256=point.weights_sha256).state})
    final = finished.final_state()
    assert all(torch.equal(network.state_dict()[name], final[name]) for name in final if name.startswith("backbone"))
    network.head.load_state_dict({name: final[f"head.{name}"] for name in ("weight", "bias")})
    made.cache.fill()
    x = finished.inputs(made.cache.load()[made.dataset.split("1")[1]])
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), torch.from_numpy(finished.logits), rtol=1e-4, atol=1e-5)
    S = made.cache.load()[made.dataset.split("1")[1]]
    np.testing.assert_array_equal(classify(finished, network, S), finished.logits)


def test_a_chain_starts_where_the_run_ended(finished, study):
    made = study(folds=("1",), epochs=1, weights="auto", source=(f"earlier={finished.path}",), normalise="source")
    run = one(made, TransferPlan())
    assert run.weights == "earlier"
    assert run.provenance["weights_source"] == f"run {finished.config.id}"
    np.testing.assert_array_equal(run.normalisation, finished.normalisation)
    start, final = run.initial_state(), finished.final_state()
    assert all(torch.equal(start[name], final[name]) for name in start if name.startswith("backbone"))


def test_runs_that_cannot_be_a_source_are_named(finished, study, tmp_path):
    def refused(path, *, match, **options):
        with pytest.raises((ParameterError, CheckpointError), match=match) as caught:
            made = study(**({"folds": ("1",), "weights": "auto", "source": (f"earlier={path}",)} | options))
            made.points(TransferPlan())
        assert "\n" not in str(caught.value)

    refused(finished.path, folds=("2",), match="source=earlier: its run held out fold 1 of these clips, and has seen")
    refused(finished.path, backbone=("resnet18",), match="is a run of backbone 'test_resnet': it cannot be a source of")
    damaged = tmp_path / "damaged.h5"
    content = bytearray(finished.path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    refused(damaged, match=r"damaged\.h5 is not a readable run file")
    damaged.write_bytes(content[:1000])
    refused(damaged, match=r"damaged\.h5 is not a readable run file: damaged, cut short")
    refused(tmp_path / "none.h5", match=r"none\.h5 does not exist: name a run file")
    refused(tmp_path, match=r"is a folder, not a file")
    cut = one(study(folds=("1",), epochs=1), TransferPlan.truncate(2))
    refused(cut.path, match="was cut after Block 2: a source must have all blocks")


def test_a_run_that_has_seen_the_held_out_clips_is_refused_whatever_its_features(finished, study):
    made = study(folds=("2",), width=48, weights="auto", source=(f"earlier={finished.path}",))
    with pytest.raises(ParameterError, match="held out fold 1 of these clips, and has seen clips of fold 2"):
        made.points(TransferPlan())


def test_a_run_of_other_clips_may_have_held_out_any_fold(finished, study, tmp_path):
    others = write_clips(tmp_path / "tones", each=5, seed=1)
    made = study(clips=others, folds=("2",), weights="auto", source=(f"earlier={finished.path}",))
    assert made.dataset.name != finished.config.dataset  # although the names of the clips are the same
    assert made.points(TransferPlan())


def with_recordings(folder, **recordings):
    """A table of small clips, some of which have the name of a recording: by the name of the clip, _ for -."""
    table = write_clips(folder, seed=ord(folder.name))
    head, *rows = table.read_text().splitlines()
    names = {clip.replace("_", "-"): group for clip, group in recordings.items()}
    lines = [f"{row},{names.get(row.partition('.')[0], '')}" for row in rows]
    table.write_text("\n".join([f"{head},group", *lines]))
    return table


@pytest.fixture
def chained(study, tmp_path):
    """A function that trains on clips, from a run or from random weights, with fold 1 held out."""

    def train(table, source=None):
        given = {"weights": "auto", "source": (f"earlier={source.path}",)} if source else {}
        plan = TransferPlan() if source else TransferPlan.scratch()
        return one(study(clips=table, folds=("1",), epochs=1, **given), plan)

    return train


def named(run):
    return [name for name in run.recordings if not name.startswith("sha256 ")]


def test_a_run_holds_the_recordings_that_it_and_its_sources_were_trained_on(chained, tmp_path):
    first = chained(with_recordings(tmp_path / "a", low_1_0="11111", low_2_0="22222", low_3_1="22222", high_3_0="7"))
    assert named(first) == ["22222", "7"]  # that of fold 1 is held out
    assert len(first.recordings) == 2 + 16  # and the files
    assert first.groups and set(first.groups) >= {"11111"}
    second = chained(with_recordings(tmp_path / "b", high_2_0="33333"), source=first)
    assert named(second) == ["22222", "33333", "7"]
    assert named(chained(write_clips(tmp_path / "c"))) == []


def test_a_run_that_was_trained_on_recordings_that_are_held_out_is_refused(chained, study, tmp_path, caplog):
    first = chained(with_recordings(tmp_path / "a", low_2_0="30344", low_3_0="7", high_2_0="59513", high_1_0="99999"))
    second = chained(with_recordings(tmp_path / "b"), source=first)
    table = with_recordings(tmp_path / "c", low_1_0="30344", high_1_0="59513", low_2_0="7", low_3_0="99999")

    def points(fold, source, table=table):
        given = {"clips": table, "folds": (fold,), "weights": "auto", "source": (f"city={source.path}",)}
        return study(**given).points(TransferPlan())

    for source in (first, second):  # the second has them from the first
        with pytest.raises(ParameterError) as caught:
            points("1", source)
        assert str(caught.value) == (
            "source=city: its run was trained on 2 recordings (30344, 59513), held out here with fold 1; leave them "
            "out of its clips (`duplicates --against ... --leave-out FILE`), and train it again"
        )
    caplog.clear()
    assert points("3", first)  # 99999 was held out by the source, too
    (record,) = caplog.records
    assert record.msg == "source city was trained on 3 recordings (7, 30344, 59513), which are trained on here, too"
    caplog.clear()
    left = with_recordings(tmp_path / "d", low_3_0="1" * 5)
    assert points("1", first, left)
    assert not caplog.records


@pytest.mark.parametrize("change", [lambda rows: rows[::-1], lambda rows: rows[1:]])
def test_files_that_are_held_out_are_known_by_their_content(change, chained, study, tmp_path):
    """Whatever their names, their folds, the name of the data set, and the clips that were left out."""
    table = write_clips(tmp_path / "tones")
    source, (head, *rows) = chained(table), table.read_text().splitlines()
    folds = [row.rpartition(",")[2] for row in change(rows)]
    moved = [f"{row.rpartition(',')[0]},{fold}" for row, fold in zip(rows, folds, strict=False)]
    (tmp_path / "tones" / "other.csv").write_text("\n".join([head, *moved]))
    made = study(clips=tmp_path / "tones" / "other.csv", weights="auto", source=(f"a={source.path}",), folds=("2",))
    with pytest.raises(ParameterError, match=r"a: its run was trained on \d+ files, held out here with fold 2; leave"):
        made.points(TransferPlan())


def test_short_names_may_be_of_two_recordings_and_are_warned_of(chained, study, tmp_path, caplog):
    source = chained(with_recordings(tmp_path / "a", low_2_0="1", high_3_0="site 4"))
    table = with_recordings(tmp_path / "b", low_1_0="1", high_1_0="site 4")
    caplog.clear()
    assert study(clips=table, weights="auto", source=(f"farm={source.path}",), folds=("1",)).points(TransferPlan())
    assert "source farm was trained on 2 recordings (1, site 4)" in caplog.text


def test_a_run_of_the_same_clips_and_fold_may_be_a_source(chained, study, tmp_path, caplog):
    """Also if a recording is in two folds: the new run is trained on it itself."""
    table = with_recordings(tmp_path / "a", low_1_0="30344", low_2_0="30344", low_3_0="59513")
    source = chained(table)
    caplog.clear()
    assert study(clips=table, weights="auto", source=(f"same={source.path}",), folds=("1",)).points(TransferPlan())
    assert "recording" not in caplog.text


def changed(path, target, change):
    """A copy of a run file with its content changed on purpose."""
    shutil.copyfile(path, target)
    with h5py.File(target, "r+") as file:
        change(file)
    seal(target)
    return target


def test_a_run_whose_tensors_are_not_those_of_its_network_is_refused(finished, tmp_path):
    name = "weights/backbone.layer1.0.conv1.weight"

    def not_finite(file):
        file[name][0] = np.nan

    def missing(file):
        del file[name]

    for change, message in (
        (not_finite, r"x\.h5: tensor layer1.0.conv1.weight must be dense, real and finite, but has NaN"),
        (missing, r"x\.h5 does not hold the weights of backbone 'test_resnet': of \d+ tensors 1 are missing"),
    ):
        with pytest.raises(CheckpointError, match=message):
            find(BACKBONE, changed(finished.path, tmp_path / "x.h5", change))


def test_a_run_that_has_not_finished_is_refused(finished, tmp_path):
    def shorter(file):
        for name in file["history"]:
            values = file["history"][name][:1]
            del file["history"][name]
            file["history"][name] = values
        file["history/heldout_accuracy"][0] = finished.accuracy_last
        file["logits_best"][...] = finished.logits

    for name in ("x.h5", "x.partial"):
        with pytest.raises(CheckpointError, match=rf"{name} has finished 1 of 2 epochs: finish the run first"):
            find(BACKBONE, changed(finished.path, tmp_path / name, shorter))


def test_runs_with_the_same_weights_and_another_normalisation_are_two_sources_of_it(finished, tmp_path):
    def scaled(file):
        file["normalisation"][1] *= 2

    paths = finished.path, changed(finished.path, tmp_path / "x.h5", scaled)
    assert len({find(BACKBONE, path).sha256 for path in paths}) == 1
    assert len({find(BACKBONE, path, normalise="source").sha256 for path in paths}) == 2


def test_runs_whose_inputs_are_scaled_as_those_of_two_sources_are_not_compared(finished):
    other = dataclasses.replace(finished, normalisation=2 * finished.normalisation)
    check_alike([finished, other], "normalisation")  # of the training clips: they may differ by rounding
    training = dataclasses.replace(finished.config.training, normalise="source")
    config = dataclasses.replace(finished.config, training=training)
    runs = [dataclasses.replace(run, config=config) for run in (finished, other)]
    check_alike([runs[0], runs[0]], "normalisation")
    with pytest.raises(ParameterError, match="differ in normalisation"):
        check_alike(runs, "normalisation")


def test_normalise_source_needs_a_run(study):
    with pytest.raises(ParameterError, match="normalise='source' needs a run"):
        study(normalise="source").points(TransferPlan())


def test_a_source_that_is_gone_is_named_when_the_start_is_asked_for(finished, study, tmp_path):
    copy = shutil.copyfile(finished.path, tmp_path / "copy.h5")
    run = one(study(folds=("1",), epochs=1, weights="auto", source=(f"earlier={copy}",)), TransferPlan())
    copy.unlink()
    with pytest.raises(CheckpointError, match=r"copy\.h5 does not exist"):
        load_run(run.path).initial_state()


def test_hashes_of_sources_belong_to_the_plan(finished):
    with pytest.raises(ParameterError, match="plan='JJJJJ-AAAAA' must name its sources I, in this order"):
        dataclasses.replace(finished.config, plan=TransferPlan(start="JJJJJ"))
    with pytest.raises(ParameterError, match="weights_sha256='cd' must be a sha256"):
        dataclasses.replace(finished.config, weights_sha256="cd")
