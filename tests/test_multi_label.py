"""Clips with several labels: read, trained by binary cross-entropy, scored by mAP and lwlrap; what follows from it."""

from __future__ import annotations

import csv
import dataclasses
import logging
import shutil

import h5py
import numpy as np
import pytest
import soundfile
import torch
from sklearn import metrics

import transferlens as tl
from transferlens import datasets, runs, tables
from transferlens.classes import classes as classes_of
from transferlens.compare.by_label import mistakes, precisions
from transferlens.compare.ensembles import gather
from transferlens.data.audit import audit
from transferlens.data.catalogue import open_dataset
from transferlens.explain.explanations import by_label, heldout_clips
from transferlens.features import near_duplicates
from transferlens.measures import multilabel
from transferlens.measures.scoring import ONE, SEVERAL
from transferlens.measures.stats import by_fold
from transferlens.predict import main as predict
from transferlens.store.config import RunConfig, Training
from transferlens.store.export import card
from transferlens.store.rows import RunRow, row_of
from transferlens.store.runfile import seal
from transferlens.training import objective
from transferlens.training.batches import balanced
from transferlens.util.errors import CheckpointError, DataError, ParameterError

TONES = {"high": 2500, "low": 300, "mid": 1100}
LABELS = ["low", "mid", "high", "mid; low", "high;mid", "low;high"]


def write_table(folder, labels=LABELS, *, folds=("1", "2"), sr=8000, name="clips.csv", header="path,label,fold"):
    """A table of tones in noise; a clip has a tone for each of its labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows, time = np.random.default_rng(0), [], np.arange(sr // 2) / sr
    for fold in folds:
        for i, cell in enumerate(labels):
            own = [label.strip() for label in cell.split(";")]
            y = sum(np.sin(2 * np.pi * TONES.get(label, 700) * time) for label in own) + rng.normal(size=len(time)) / 2
            soundfile.write(folder / f"{fold}-{i}.wav", 0.1 * y, sr)
            rows.append((f"{fold}-{i}.wav", cell, fold)[: header.count(",") + 1])
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return folder / name


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("tones") / "tones", LABELS * 2)


@pytest.fixture(scope="module")
def make(make_study, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    return lambda **options: make_study(folder, **({"clips": table, "seeds": (0, 1), "batch_size": 8} | options))


@pytest.fixture(scope="module")
def trained(make):
    """Runs of two seeds and two folds, sorted by fold."""
    return make().runs(tl.TransferPlan())


def random_scores(n=40, k=5, *, ties=True):
    rng = np.random.default_rng(0)
    labels = (rng.random((n, k)) < 0.3).astype(np.uint8)
    labels[np.arange(n), rng.integers(k, size=n)] = 1
    return labels, rng.integers(0, 6, size=(n, k)).astype(float) if ties else rng.normal(size=(n, k))


# ------------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize("ties", [True, False])
def test_map_and_lwlrap_are_those_of_scikit_learn(ties):
    labels, scores = random_scores(ties=ties)
    assert multilabel.mean_average_precision(labels, scores) == pytest.approx(
        metrics.average_precision_score(labels, scores, average="macro"), abs=1e-12
    )
    assert multilabel.lwlrap(labels, scores) == pytest.approx(
        metrics.label_ranking_average_precision_score(labels, scores, sample_weight=labels.sum(1)), abs=1e-12
    )


def test_lwlrap_is_that_of_its_definition():
    labels, scores = random_scores(ties=False)
    shares = []
    for own, row in zip(labels, scores, strict=True):
        for k in np.flatnonzero(own):
            above = row >= row[k]
            shares.append(own[above].sum() / above.sum())
    assert multilabel.lwlrap(labels, scores) == pytest.approx(np.mean(shares), abs=1e-12)


def test_classes_that_no_clip_has_do_not_count():
    labels, scores = random_scores()
    with_absent = np.concatenate([labels, np.zeros((len(labels), 1), np.uint8)], 1)
    more = np.concatenate([scores, scores[:, :1]], 1)
    assert SEVERAL.score(more, with_absent) == SEVERAL.score(scores, labels)
    assert SEVERAL.chance(with_absent, 6) == pytest.approx(labels.mean(0).mean())
    assert np.isnan(multilabel.average_precisions(with_absent, more)[-1])


def test_weights_of_clips_are_those_of_scikit_learn():
    labels, scores = random_scores()
    weights = np.random.default_rng(1).integers(0, 3, size=(5, len(labels))).astype(float)
    expected = [metrics.average_precision_score(labels[:, 0], scores[:, 0], sample_weight=each) for each in weights]
    np.testing.assert_allclose(multilabel.weighted(labels[:, 0], scores[:, 0], weights), expected, atol=1e-12)
    assert np.isnan(multilabel.weighted(labels[:, 0], scores[:, 0], weights * (labels[:, 0] == 0))).all()


def test_recordings_are_drawn_whole_and_alike_for_all_networks():
    labels, scores = random_scores()
    twice = np.repeat(labels, 2, axis=0), np.repeat(scores, 2, axis=0)[None].repeat(2, 0)
    groups = np.repeat(np.arange(len(labels)), 2).astype(str).tolist()
    one = multilabel.resampled(labels, scores[None], groups=groups[::2], resamples=20)
    two = multilabel.resampled(*twice, groups=groups, resamples=20)
    np.testing.assert_allclose(two[0], one[0])
    np.testing.assert_array_equal(two[0], two[1])


def test_the_interval_covers_the_score_and_none_is_without_spread():
    labels, scores = random_scores(200)
    drawn = multilabel.resampled(labels, scores[None])[0]
    mean = multilabel.mean_average_precision(labels, scores)
    interval = multilabel.interval(mean, drawn.mean(1), len(labels))
    assert interval.low < mean < interval.high
    assert 0.02 < interval.high - interval.low < 0.3
    assert not multilabel.interval(1.0, np.ones(9), 4).is_bounded


def test_the_loss_and_its_gradient_are_known():
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1, 0], [1, 1]], dtype=torch.uint8)
    loss = objective.loss(lambda x: x, logits, target, Training(), SEVERAL)
    loss.backward()
    p = torch.sigmoid(logits.detach())
    expected = -(target * p.log() + (1 - target.double()) * (1 - p).log()).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    np.testing.assert_allclose(logits.grad, (p - target) / 4, atol=1e-12)


def test_smoothing_pulls_targets_towards_one_half():
    logits = torch.zeros((1, 2), dtype=torch.float64, requires_grad=True)
    objective.loss(lambda x: x, logits, torch.tensor([[1, 0]]), Training(label_smoothing=0.2), SEVERAL).backward()
    np.testing.assert_allclose(logits.grad, [[(0.5 - 0.9) / 2, (0.5 - 0.1) / 2]], atol=1e-12)


def test_each_class_is_drawn_equally_often():
    labels = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 2 + [[1, 0, 1]], np.uint8)
    drawn = balanced(np.arange(9), labels, np.random.default_rng(0), SEVERAL)
    assert len(drawn) == 9
    assert labels[drawn].sum(0).tolist()[1:] == [3, 3]  # the last clip is drawn for its rare class
    assert np.bincount(drawn, minlength=9)[8] >= 3


def test_the_scores_of_an_ensemble_hold_their_law():
    labels, logits = random_scores(ties=False)
    each = SEVERAL.probabilities(np.stack([logits, logits[::-1]]))
    brier, mean = SEVERAL.brier(each, labels).mean(0), SEVERAL.brier(each.mean(0), labels)
    np.testing.assert_allclose(brier, mean + ((each - each.mean(0)) ** 2).sum(-1).mean(0))
    confidence, share, counts = SEVERAL.reliability(each[0], labels)
    assert counts.sum() == labels.size
    assert np.average(share, weights=counts) == pytest.approx(labels.mean())
    assert np.average(confidence, weights=counts) == pytest.approx(each[0].mean())


# ----------------------------------------------------------------------------------------------------- data


def test_labels_are_sorted_and_counted_each(table):
    dataset = open_dataset(table)
    assert dataset.labels_per_clip == "several"
    assert dataset.label_names == ("high", "low", "mid")
    assert {clip.label for clip in dataset.clips} == {"low", "mid", "high", "low;mid", "high;mid", "high;low"}
    assert dataset.counts().sum(axis=1).tolist() == [12, 12, 12]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "low;;mid",
            "1-0.wav, 2-0.wav have an empty label, such as 'low;;mid': correct the table or, if ';' belongs to",
        ),
        ("low;", "1-0.wav, 2-0.wav have an empty label, such as 'low;'"),
        ("low;mid; low", "1-0.wav, 2-0.wav have the same label twice, such as 'low;mid; low'"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(cell, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_dataset(write_table(tmp_path, [cell, "mid", "high"]))


def test_a_semicolon_may_belong_to_a_name(table):
    dataset = open_dataset(table, labels_per_clip="one")
    assert dataset.labels_per_clip == "one"
    assert "mid; low" in dataset.label_names


def test_one_label_each_stays_as_it_was_unless_asked_otherwise(clips):
    assert open_dataset(clips).labels_per_clip == "one"
    assert open_dataset(clips, labels_per_clip="several").labels_per_clip == "several"
    with pytest.raises(ParameterError, match="labels_per_clip='several' goes with clips"):
        open_dataset("synth", labels_per_clip="several")


def test_ids_and_settings_of_one_label_are_those_of_before(make_study, tmp_path, clips):
    (point,) = make_study(tmp_path, folds=("1",)).points(tl.TransferPlan())
    (other,) = make_study(tmp_path, folds=("1",), labels_per_clip="several").points(tl.TransferPlan())
    assert "labels_per_clip" not in point.flat()
    assert RunConfig.from_flat(point.flat()) == point
    assert RunConfig.from_flat(other.flat()) == other
    assert (point.id[:-8], point.data_key) == (other.id[:-8], other.data_key)
    assert point.id != other.id
    assert point.arm_key != other.arm_key
    with pytest.raises(ParameterError, match="labels_per_clip='two' must be one or several"):
        dataclasses.replace(point, labels_per_clip="two")


def test_folds_are_made_by_the_rarest_label(tmp_path, caplog):
    labels = ["low"] * 8 + ["low;mid"] * 4 + ["low;high"] * 4
    path = write_table(tmp_path, labels, folds=("",), header="path,label")
    with caplog.at_level(logging.INFO):
        dataset = open_dataset(path, n_folds_made=2)
    assert "by the rarest label of each clip" in caplog.text
    assert dataset.counts().to_numpy().tolist() == [[2, 2], [8, 8], [2, 2]]


def test_the_audit_and_the_summary_count_a_clip_for_each_label(table, tmp_path, capsys):
    datasets.main([f"--clips={table}"])
    assert "1.5 labels per clip: one counts for each of its classes" in capsys.readouterr().out
    missing = write_table(tmp_path, ["low", "low;mid"], folds=("1",))
    rows = missing.read_text() + "2-0.wav,low,2\n"
    shutil.copy(missing.parent / "1-0.wav", missing.parent / "2-0.wav")
    missing.write_text(rows)
    found = [finding.message for finding in audit(open_dataset(missing)).findings]
    assert "no clip of class mid in these folds" in found


def test_the_audit_tells_a_label_by_its_files(tmp_path):
    path = write_table(tmp_path, ["low", "mid", "high", "low;mid"] * 8)
    for i, label in enumerate(["low", "mid", "high", "low;mid"] * 8):
        if label == "high":
            for fold in "12":
                y, sr = soundfile.read(tmp_path / f"{fold}-{i}.wav")
                soundfile.write(tmp_path / f"{fold}-{i}.wav", y[::2], sr // 2)
    findings = [finding for finding in audit(open_dataset(path)).findings if finding.kind == "confound"]
    assert [finding.message.split(":")[0] for finding in findings] == [
        "sample rate alone distinguishes high from all others with 100 % accuracy (chance"
    ]


def test_clips_per_class_is_refused(make):
    with pytest.raises(ParameterError, match="clips_per_class=2 is for clips with one label, and those of tones have"):
        make(clips_per_class=2).points(tl.TransferPlan())


# --------------------------------------------------------------------------------------------------- FSD50K


def write_fsd50k(root, *, split="val", label="Music"):
    truth = root / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "vocabulary.csv").write_text("0,Guitar,/m/0342h\n1,Music,/m/04rlf\n2,Rain,/m/06mb1\n")
    rows = [
        ("1", "Guitar,Music", "train"),
        ("2", "Rain", "train"),
        ("3", f"Guitar,{label}", split),
        ("4", "Rain", "val"),
    ]
    with (truth / "dev.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("fname", "labels", "mids", "split"), *((a, b, "/m/1", c) for a, b, c in rows)])
    (truth / "eval.csv").write_text('fname,labels,mids\n5,"Guitar,Music","/m/1,/m/2"\n6,Rain,/m/3\n')
    for folder, names in (("FSD50K.dev_audio", "1234"), ("FSD50K.eval_audio", "56")):
        (root / folder).mkdir()
        for name in names:
            soundfile.write(root / folder / f"{name}.wav", np.ones(100) / 2, 44100)
    return root


def test_fsd50k_is_read_as_it_is_unpacked(tmp_path):
    dataset = open_dataset("fsd50k", root=write_fsd50k(tmp_path))
    assert dataset.labels_per_clip == "several"
    assert dataset.label_names == ("Guitar", "Music", "Rain")
    assert {clip.id: (clip.label, clip.fold) for clip in dataset.clips} == {
        "FSD50K.dev_audio/1.wav": ("Guitar;Music", "train"),
        "FSD50K.dev_audio/2.wav": ("Rain", "train"),
        "FSD50K.dev_audio/3.wav": ("Guitar;Music", "val"),
        "FSD50K.dev_audio/4.wav": ("Rain", "val"),
        "FSD50K.eval_audio/5.wav": ("Guitar;Music", "test"),
        "FSD50K.eval_audio/6.wav": ("Rain", "test"),
    }
    assert dataset.held_out_folds == ("test",)
    assert dataset.trained_on("test") == ("train",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "Musik"}, "dev.csv has, for 3, labels that vocabulary.csv lacks: Musik: unpack it again"),
        ({"split": "test2"}, "dev.csv has, for 3, split 'test2': unpack it again"),
    ],
)
def test_fsd50k_that_is_not_as_published_is_refused(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_dataset("fsd50k", root=write_fsd50k(tmp_path, **options))


def test_fsd50k_without_its_tables_is_refused(tmp_path):
    shutil.rmtree(write_fsd50k(tmp_path) / "FSD50K.ground_truth")
    with pytest.raises(DataError, match=r"must be the folder that contains FSD50K.ground_truth/dev.csv"):
        open_dataset("fsd50k", root=tmp_path)


# ----------------------------------------------------------------------------------------------------- runs


def test_a_run_holds_labels_and_scores(trained):
    run = trained[0]
    assert run.labels.dtype == np.uint8
    assert run.labels.shape == run.logits.shape == (12, 3)
    assert run.score_last == pytest.approx(metrics.average_precision_score(run.labels, run.logits))
    assert run.lwlrap == pytest.approx(multilabel.lwlrap(run.labels, run.logits))
    assert run.chance == pytest.approx(0.5)
    assert set(run.history) == {"train_loss", "heldout_loss", "heldout_mAP", "lr", "seconds"}
    assert run.history["heldout_loss"][-1] == pytest.approx(
        torch.nn.functional.binary_cross_entropy_with_logits(
            torch.from_numpy(run.logits), torch.from_numpy(run.labels).float()
        ).item()
    )
    assert f"mAP {100 * run.score_last:.1f} % on fold 1" in repr(run)
    with pytest.raises(ParameterError, match="has several labels per clip, and so no accuracy: score_last is its mAP"):
        run.accuracy_last  # noqa: B018


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels + 1, "labels must be 0 or 1, with a 1 for every clip"),
        (lambda labels: labels * 0, "labels must be 0 or 1, with a 1 for every clip"),
        (lambda labels: labels[:, :2], r"labels must be uint8 of shape \(12, 3\)"),
        (lambda labels: labels.astype(float), r"labels must be uint8 of shape \(12, 3\)"),
        (lambda labels: labels.argmax(1), r"labels must be uint8 of shape \(12, 3\)"),
        (lambda labels: labels[:, ::-1], "logits_last must have the last mAP"),
    ],
)
def test_labels_that_a_run_must_not_hold_are_named(change, message, trained, tmp_path):
    path = tmp_path / "run.h5"
    shutil.copy(trained[0].path, path)
    with h5py.File(path, "r+") as file:
        labels = change(file["labels"][()])
        del file["labels"]
        file["labels"] = labels
    seal(path)
    with pytest.raises(CheckpointError, match=message):
        tl.load_run(path)


def test_held_out_files_get_the_stored_logits(trained, table):
    run = trained[0]
    found = run.predict([table.parent / clip for clip in run.clip_ids])
    np.testing.assert_allclose(found.logits[0], run.logits, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, torch.sigmoid(torch.from_numpy(found.logits[0]).double()))
    for row, shares in zip(found.rows(threshold=0.5), found.probabilities, strict=True):
        named = {run.label_names[i] for i in np.flatnonzero(shares >= 0.5)}
        assert set(filter(None, row["label"].split(";"))) == named


def test_a_threshold_is_for_several_labels(trained, table, make_study, tmp_path, capsys):
    sound = str(table.parent / "1-0.wav")
    assert predict([sound, "--ckpt", str(trained[0].path), "--threshold", "0"]) == 0
    row = list(csv.DictReader(capsys.readouterr().out.splitlines()))[0]
    assert set(row["label"].split(";")) == {"high", "low", "mid"}
    assert len(row["probability"].split(";")) == 3
    assert predict([sound, "--ckpt", str(trained[0].path), "--threshold", "0.5", "--top", "2"]) == 2
    assert "top cannot be given with threshold" in capsys.readouterr().err
    (one,) = make_study(tmp_path, folds=("1",), epochs=1).runs(tl.TransferPlan())
    assert predict([sound, "--ckpt", str(one.path), "--threshold", "0.5"]) == 2
    assert "threshold=0.5 is for runs with several labels per clip" in capsys.readouterr().err
    assert predict([sound, "--ckpt", str(one.path), str(trained[0].path)]) == 2
    assert "differ in labels per clip (several and one): compare runs of the same" in capsys.readouterr().err


def test_a_run_with_one_label_and_a_table_of_several(trained, table, make_study, tmp_path):
    (one,) = make_study(tmp_path, folds=("1",), epochs=1).runs(tl.TransferPlan())
    dataset = open_dataset(clips=table)
    same = dataclasses.replace(one, clip_ids=tuple(trained[0].clip_ids))
    with pytest.raises(CheckpointError, match="with labels_per_clip=one, and tones has labels_per_clip=several: name"):
        same.within(dataset)


def test_samples_of_several_labels_have_no_answer(table, weights_file):
    with pytest.raises(ParameterError, match="tones has several labels per clip, for which `samples` has no answer"):
        tl.samples(clips=table, backbone="test_resnet", weights=str(weights_file), per_class=1)


def test_other_recipes_of_training_work(make):
    recipe = {"label_smoothing": 0.1, "sampling": "classes", "mixup": 0.2, "folds": ("1",), "seeds": (0,)}
    (run,) = make(**recipe, epochs=1).runs(tl.TransferPlan())
    assert np.isfinite(run.history["train_loss"]).all()


def test_an_ensemble_is_the_mean_of_sigmoids(trained):
    (members,) = gather(trained)
    np.testing.assert_allclose(members.average, SEVERAL.probabilities(members.logits).mean(0))
    result = tl.ensemble([run.path for run in trained])
    whole = result.rows[0]
    means = [SEVERAL.score(members.average[members.folds == f], members.labels[members.folds == f]) for f in "12"]
    assert whole.accuracy == pytest.approx(np.mean(means))
    assert whole.single == pytest.approx(np.mean([run.score_last for run in trained]))
    assert whole.gain == pytest.approx(whole.accuracy - whole.single)
    assert whole.brier_single == pytest.approx(whole.brier + whole.ambiguity)
    table = result.table()
    assert "mAP" in table
    assert not [name for name in table if "accuracy" in name or "macro" in name]
    labels = [ax.get_ylabel() for ax in result.plot().axes]
    assert labels[:2] == ["held-out mAP [%]"] * 2
    assert labels[3] == "share of clips that have the class"


def test_classes_have_average_precisions(trained, tmp_path):
    result = classes_of([run.path for run in trained])
    single = {row.label: row for row in result.rows if row.who == "single"}
    for k, label in enumerate(trained[0].label_names):
        own = [metrics.average_precision_score(run.labels[:, k], run.logits[:, k]) for run in trained]
        assert single[label].average_precision == pytest.approx(np.mean(own))
        assert single[label].average_precision_low <= np.mean(own) <= single[label].average_precision_high
        assert (single[label].n_clips, single[label].chance) == (12, 0.5)
    whole = result.overall[0]
    assert whole.accuracy == pytest.approx(np.mean([run.score_last for run in trained]))
    assert whole.lwlrap == pytest.approx(np.mean([run.lwlrap for run in trained]))
    assert result.confusions == ()
    written = {path.name for path in result.write(tmp_path)}
    assert {"classes.csv", "classes_overall.csv", "classes_changes.csv"} <= written
    assert "mAP_low" in (tmp_path / "classes_overall.csv").read_text().splitlines()[0]
    assert "accuracy" not in result.summary()


def test_mistakes_are_classes_above_a_label(trained):
    (members,) = gather(trained)
    for mistake in mistakes(members, 50):
        i = members.clips.index(mistake.clip)
        assert mistake.predicted not in mistake.label.split(";")
        assert mistake.confidence == members.average[i, members.classes.index(mistake.predicted)] > mistake.of_label


def test_the_same_network_does_not_differ_from_itself(trained):
    (members,) = gather(trained)
    one, other = precisions(members), precisions(members)
    np.testing.assert_array_equal(one.drawn, other.drawn)


def test_pretraining_is_asked_by_map(make, trained, tmp_path):
    study = make()
    options = {"clips": study.options.data.clips, "backbone": "test_resnet", "weights": study.options.sweep.weights}
    options |= {"width": 32, "epochs": 2, "batch_size": 8, "device": "cpu", "workers": 1, "folds": (1, 2)}
    result = tl.pretraining(**options, long="none", runs=study.options.store.runs, cache=study.options.store.cache)
    assert {"score", "mAP_last", "mAP_best", "lwlrap"} <= set(result.table().columns)
    assert result.plot().axes[0].get_ylabel() == "held-out mAP [%]"
    assert result.summary().endswith("scores are mAP: average precision, the mean over classes")
    assert "chance 50.0 %" in result.summary()


def test_folds_with_equal_map_have_no_interval_over_clips(trained):
    rows = [row_of(RunRow, run) for run in trained]
    equal = [dataclasses.replace(row, accuracy_last=1.0) for row in rows]
    assert by_fold(equal, "accuracy_last").n_clips == 0
    assert by_fold([dataclasses.replace(row, score="accuracy") for row in equal], "accuracy_last").n_clips == 24


@pytest.mark.parametrize("question", ["versus", "robustness", "paths", "rewind", "league", "duplicates"])
def test_what_has_no_answer_says_what_has(question, trained):
    message = rf"{trained[0].path.name} has several labels per clip, for which `{question}` has no answer: train, "
    with pytest.raises(ParameterError, match=message):
        getattr(tl, question)(ckpt=[run.path for run in trained[:2]])


@pytest.mark.parametrize("question", ["samples", "recipes", "rank", "input_form"])
def test_what_would_train_says_so_before(question, table, weights_file, tmp_path):
    folders = {"runs": tmp_path / "runs", "cache": tmp_path / "cache"}
    with pytest.raises(ParameterError, match="of tones have several|tones has several labels per clip, for which"):
        getattr(tl, question)(table, backbone="test_resnet", weights=weights_file, **folders)
    assert not folders["runs"].exists()


def test_lists_and_tables_name_the_score(trained, capsys):
    store = trained[0].path.parents[1]
    runs.main([f"--runs={store}"])
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "mAP"
    listed = tl.list_runs(store).table()
    assert {"mAP_last", "mAP_best", "lwlrap", "score"} <= set(listed.columns)
    assert "accuracy_last" not in listed
    result = tables.tables(store)
    cells = {cell.column: cell for cell in result.rows if cell.n_seeds}
    assert cells["pretrained"].text.startswith("mAP ")
    assert result.summary().splitlines()[-1].startswith("mAP over all held-out clips [%]")
    assert "mAP" in result.table()


def test_a_clip_is_explained_for_each_of_its_labels(trained, table, make):
    run = trained[0]
    clips = heldout_clips(run, make().options.data, make().options.store.cache)
    once, places = by_label(run, clips, [3])
    assert len(once.ids) == run.labels.sum()
    assert [(once.ids[i], once.labels[i]) for i in places] == [("1-11.wav", "high"), ("1-11.wav", "low")]
    assert once.groups == once.ids
    np.testing.assert_array_equal(once.S[places[0]], clips.S[3])


def test_the_model_card_says_map(trained):
    text = card(trained[0], [])
    assert f"Mean average precision (mAP) after the last epoch: {100 * trained[0].score_last:.1f} %" in text
    assert "the sigmoid of a logit is the probability of its class" in text
    assert "commonest" not in text


def test_absent_classes_are_named(tmp_path, make_study, caplog):
    path = write_table(tmp_path / "some", ["low;mid", "mid", "low", "low;mid"], folds=("1", "2"))
    path.write_text(path.read_text().replace("1-1.wav,mid", "1-1.wav,mid;high"))
    study = make_study(tmp_path, clips=path, folds=("2",), epochs=1)
    (run,) = study.runs(tl.TransferPlan())
    assert "fold 2 has no clip of high: mAP is the mean over the other classes" in caplog.text
    assert run.score_last == pytest.approx(
        np.mean([metrics.average_precision_score(run.labels[:, k], run.logits[:, k]) for k in (1, 2)])
    )


def test_one_label_is_scored_as_before():
    labels, logits = np.array([0, 1, 1]), np.array([[2.0, 1], [0, 1], [3, 0]])
    assert ONE.score(logits, labels) == pytest.approx(2 / 3)
    assert ONE.encode([["b"], ["a"]], ["a", "b"]).tolist() == [1, 0]
    assert ONE.chance(labels, 2) == 0.5


def test_clips_that_share_a_label_are_compared_as_of_one_class(tmp_path):
    dataset = open_dataset(clips=write_table(tmp_path, ("a", "a;b", "b", "c"), folds=("1", "2")))
    homes = [clip.id for clip in dataset.clips]
    found = near_duplicates.partners(dataset, homes, same_class=True)
    labels = [{*clip.label.split(";")} for clip in dataset.clips]
    assert [rows.tolist() for rows in found] == [
        [j for j in range(i + 1, len(labels)) if labels[i] & labels[j]] for i in range(len(labels))
    ]


def test_folds_are_made_where_all_clips_have_all_labels(tmp_path, caplog):
    dataset = open_dataset(clips=write_table(tmp_path, ("a;b",) * 6, header="path,label"), n_folds_made=2)
    assert dataset.folds == ("1", "2")
    assert "fewer recordings than folds" not in caplog.text
    one = write_table(tmp_path / "one", ("a",) * 6, header="path,label")
    with pytest.raises(DataError, match="all clips are of one class, a"):
        open_dataset(clips=one, n_folds_made=2, labels_per_clip="several")
