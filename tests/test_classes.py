"""Scores by class: those of scikit-learn, known answers, and the command on runs; macro-F1 where classes are uneven."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from conftest import write_clips
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from transferlens import classes, ensemble, report, runs, tables, train, versus
from transferlens.compare import by_class
from transferlens.compare.ensembles import Members, networks
from transferlens.measures import classes as measures
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan
from transferlens.store.rows import RunRow
from transferlens.util.errors import DataError, ParameterError

NAMES = ("ant", "bee", "cat", "dog")


def members(predicted, labels, *, groups=(), name="nets", names=NAMES):
    """Networks that choose these classes [shape=(n_networks, n_clips)]."""
    predicted = np.atleast_2d(predicted)
    return Members(
        name,
        tuple(f"net seed {i}" for i in range(len(predicted))),
        5.0 * np.eye(len(names))[predicted],
        np.asarray(labels),
        np.full(len(labels), "1"),
        groups=groups,
        clips=tuple(f"clip {i}" for i in range(len(labels))),
        classes=names,
    )


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------------------------------------ numbers

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(LABELS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_scores_are_those_of_scikit_learn_and_sum_to_the_accuracy(pairs):
    labels, predicted = np.array(pairs).T
    table = measures.scores(labels, predicted, n_classes=4)
    report = metrics.classification_report(labels, predicted, labels=range(4), output_dict=True, zero_division=np.nan)
    for k, scores in enumerate(table):
        theirs = report[str(k)]
        means = [scores.precision.mean, scores.recall.mean, scores.f1.mean]
        np.testing.assert_allclose(means, [theirs[name] for name in ("precision", "recall", "f1-score")])
        assert scores.n == theirs["support"]
    weighted = sum(scores.n * scores.recall.mean for scores in table if scores.n) / len(labels)
    assert weighted == pytest.approx(np.mean(labels == predicted))
    assert measures.balanced_accuracy(labels, predicted) == pytest.approx(
        metrics.balanced_accuracy_score(labels, predicted)
    )
    assert measures.macro_f1(labels, predicted) == pytest.approx(
        np.mean([scores.f1.mean for scores in table if scores.n])
    )
    counts = measures.confusion(labels, predicted, n_classes=4)
    assert counts.sum() == len(labels)
    assert np.trace(counts) == np.sum(labels == predicted)


@settings(max_examples=60, deadline=None)
@given(LABELS)
def test_intervals_are_wilsons_and_hold_the_score(pairs):
    labels, predicted = np.array(pairs).T
    for k, scores in enumerate(measures.scores(labels, predicted, n_classes=4)):
        for interval in (scores.recall, scores.precision, scores.f1):
            assert not interval.is_bounded or interval.low <= interval.mean + 1e-12
            assert not interval.is_bounded or interval.mean <= interval.high + 1e-12
        if scores.n > 1:
            expected = stats.share_interval((predicted == labels)[labels == k])
            np.testing.assert_allclose([scores.recall.low, scores.recall.high], [expected.low, expected.high])


def test_several_networks_do_not_make_clips_more():
    """Two networks that choose alike tell as much as one of them."""
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(4, size=80), rng.integers(4, size=80)
    one = by_class.rows_of(members(predicted, labels))
    two = by_class.rows_of(members([predicted, predicted], labels))
    for single, double in zip(one, two, strict=True):
        assert (single.n_clips, double.n_networks) == (double.n_clips, 2)
        assert (single.recall, single.precision, single.f1) == (double.recall, double.precision, double.f1)
        assert double.recall_low == pytest.approx(single.recall_low, abs=0.02)  # a little wider, as recordings are few
        assert double.recall_low <= single.recall_low + 1e-12


def test_a_class_that_no_clip_is_of_has_no_recall_and_is_named():
    nets = members([0, 0, 1, 3], [0, 0, 1, 1])
    ant, bee, cat, dog = by_class.rows_of(nets)
    assert (ant.recall, bee.recall, dog.precision) == (1, 0.5, 0)
    assert np.isnan([cat.recall, cat.precision, cat.f1, dog.recall]).all()
    row = by_class.overall(nets)
    assert (row.absent, row.class_ratio) == ("cat; dog", np.inf)
    assert (row.accuracy, row.balanced_accuracy) == (0.75, 0.75)
    assert row.macro_f1 == pytest.approx((1 + 2 / 3) / 2)  # over the classes of the clips
    assert [row.label for row in by_class.changes(np.zeros(4), nets, ("a", "b"))] == ["ant", "bee"]


def test_differences_are_paired_by_clip_and_adjusted_for_the_classes():
    labels = np.repeat(range(4), 20)
    gains = np.where(labels == 2, 1.0, 0.0)
    ant, _, cat, _ = by_class.changes(gains, members(labels, labels), ("a", "b"))
    assert (ant.change, ant.p_adjusted) == (0, 1)
    assert (cat.change, cat.n_clips) == (1, 20)
    assert cat.p < 0.001
    assert cat.p_adjusted == pytest.approx(4 * cat.p)
    text = by_class.changes_text(by_class.changes(gains, members(labels, labels), ("a", "b")))
    assert (
        text == f"better: cat (+100.0 points, adjusted p = {cat.p_adjusted:.3f}); no clear difference: 3 of 4 classes"
    )


def test_random_signs_know_few_recordings():
    """Five recordings that agree have p = 2 / 2^5; their clips alone would have less."""
    values, groups = [1.0] * 20, [str(i // 4) for i in range(20)]
    assert stats.flip_difference(values, groups=groups).p_value == pytest.approx(2 / 2**5, abs=0.01)
    assert stats.flip_difference(values).p_value == pytest.approx(1e-4)
    assert stats.flip_difference([-0.5, 0.5, 0.0]).p_value == 1
    rng = np.random.default_rng(0)
    p = [stats.flip_difference(rng.normal(size=6), resamples=499).p_value for _ in range(200)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.05)


def test_mistakes_are_the_surest_first():
    nets = members([1, 0, 2, 3], [0, 0, 0, 3], groups=("a", "b", "c", "d"))
    logits = nets.logits.copy()
    logits[0, 2] *= 3
    found = classes.mistakes(dataclasses.replace(nets, logits=logits), 5)
    assert [(each.clip, each.label, each.predicted, each.recording) for each in found] == [
        ("clip 2", "ant", "cat", "c"),
        ("clip 0", "ant", "bee", "a"),
    ]
    assert found[0].confidence > found[1].confidence > found[1].of_label
    assert len(classes.mistakes(nets, 1)) == 1


# ------------------------------------------------------------------------------------------------ runs


def test_command_on_runs(seeds_store, tmp_path, capsys):
    found = [*seeds_store[0]["tuned"], *seeds_store[0]["scratch"], *seeds_store[0]["other"]]
    assert classes.main(["--ckpt", *(str(run.path) for run in found), "--figures", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "test_resnet, pretrained - test_resnet, from scratch, paired by clip" in text
    assert "resnet10t, from scratch, ensemble - single, paired by clip" in text
    overall = {(row["network"], row["who"]): row for row in read(tmp_path / "classes_overall.csv")}
    rows = read(tmp_path / "classes.csv")
    for (network, who), row in overall.items():
        each = [(int(r["n_clips"]), float(r["recall"])) for r in rows if (r["network"], r["who"]) == (network, who)]
        assert sum(n * recall for n, recall in each) / int(row["n_clips"]) == pytest.approx(float(row["accuracy"]))
    tuned = np.mean([run.accuracy_last for run in seeds_store[0]["tuned"]])
    assert float(overall["test_resnet, pretrained", "single"]["accuracy"]) == pytest.approx(tuned)
    changes = read(tmp_path / "classes_changes.csv")
    (scratch,) = {row["other"] for row in changes} - {"single"}
    pairs = [row for row in changes if row["other"] == scratch]
    gain = float(overall["test_resnet, pretrained", "single"]["accuracy"]) - float(
        overall[scratch, "single"]["accuracy"]
    )
    assert np.average([float(row["change"]) for row in pairs], weights=[8, 8]) == pytest.approx(gain)
    cells = [row for row in read(tmp_path / "classes_confusion.csv") if row["network"] == scratch]
    assert sum(float(row["n"]) for row in cells) == pytest.approx(16)
    wrong = read(tmp_path / "classes_mistakes.csv")
    assert {row["clip"] for row in wrong} <= {clip for run in found for clip in run.clip_ids}
    assert (tmp_path / "classes.png").is_file()


def test_the_order_of_files_and_a_file_given_twice_change_nothing(seeds_store):
    found = seeds_store[0]["scratch"]
    once, twice = classes.classes(found), classes.classes([*found, found[0]])
    assert str(once.table()) == str(twice.table())
    arms = [*seeds_store[0]["tuned"], *reversed(found)]  # folds in another order: clips are paired by their ids
    usual, others = (classes.classes(each).changes for each in ([*seeds_store[0]["tuned"], *found], arms))
    assert [row.change for row in others] == pytest.approx([row.change for row in usual])


def test_command_trains_what_is_missing_and_reads_the_rest(options, tmp_path, capsys):
    assert classes.main([*options, "--folds", "1"]) == 0
    first = capsys.readouterr().out
    assert "pretrained" in first and "from scratch" in first
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.h5")}
    assert len(files) == 2
    assert classes.main([*options, "--folds", "1"]) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.h5")} == files


def test_runs_without_recordings_have_intervals_over_clips(seeds_store):
    found = [dataclasses.replace(run, groups=()) for run in seeds_store[0]["scratch"]]
    (nets,) = networks(found)
    assert by_class.overall(nets).n_recordings == 0
    assert all(row.recall_low <= row.recall <= row.recall_high for row in by_class.rows_of(nets))


def test_bad_input_is_one_line(seeds_store):
    tuned, scratch = seeds_store[0]["tuned"], seeds_store[0]["scratch"]

    def score(found):
        return classes.analyse({"": found}, classes.Options())

    with pytest.raises(ParameterError, match="differ in labels"):
        score([tuned[0], dataclasses.replace(tuned[1], label_names=("x", "y"))])
    other = dataclasses.replace(tuned[1].config, dataset="other")
    with pytest.raises(ParameterError, match=r"differ in dataset \(other and tones\)"):
        score([tuned[0], dataclasses.replace(tuned[1], config=other)])
    folds = {run.config.fold: run for run in tuned}
    with pytest.raises(
        ParameterError, match=r"differ in held-out clips \(folds 2 and 1\): compare runs of the same fo"
    ):
        classes.changes(networks([folds["1"], *(run for run in scratch if run.config.fold == "2")]), {"from scratch"})
    seeds = {(run.config.fold, run.config.seed): run for run in tuned}
    with pytest.raises(ParameterError, match="has 0 members .* name the runs of one seed for every fold"):
        networks([seeds["1", 0], seeds["2", 1]])
    with pytest.raises(ParameterError, match="epochs cannot be given with ckpt"):
        classes.classes(tuned, epochs=3)
    (nets,) = networks([run for run in tuned if (run.config.fold, run.config.seed) != ("2", 1)])
    assert by_class.overall(nets).missing == "test_resnet seed 1"
    with pytest.raises(ParameterError, match="mistakes=0 must be at least 1"):
        classes.classes(tuned, mistakes=0)


@pytest.mark.parametrize("question", ["classes", "versus"])
def test_a_class_that_no_held_out_clip_is_of_is_drawn_empty(seeds_store, question, tmp_path):
    found = [*seeds_store[0]["tuned"], *seeds_store[0]["scratch"]]
    found = [dataclasses.replace(run, labels=np.zeros_like(run.labels)) for run in found]
    if question == "classes":
        result = classes.analyse({"": found}, classes.Options())
        assert "no held-out clip is of: low; means over classes are over the others" in result.summary()
    else:
        result = versus.compare(*versus.sides(found))
    assert tmp_path / f"{question}.png" in result.write(tmp_path)
    labels = [label.get_text() for ax in result.plot().axes for label in ax.get_yticklabels()]
    assert {"high", "low"} <= {*labels}
    assert {row.label for row in result.changes} == {"high"}


# ------------------------------------------------------------------------------------------------ uneven classes


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, weights_file):
    """A study of classes of which one has twice the clips."""
    folder = tmp_path_factory.mktemp("uneven")
    table = write_clips(folder / "tones")
    rows = [row for row in read(table) if not (row["label"] == "low" and row["path"].endswith(("2.wav", "3.wav")))]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    given = {"clips": table, "backbone": "test_resnet", "weights": weights_file, "width": 32, "epochs": 1}
    folders = {"runs": folder / "runs", "cache": folder / "cache", "device": "cpu", "workers": 1}
    argv = [f"--{name}={value}" for name, value in (given | folders).items()]
    assert train.main([*argv, "--folds", "1", "2", "--seeds", "0", "1", "--batch-size", "8"]) == 0
    return folder


def test_macro_f1_stands_beside_accuracy_where_classes_are_uneven(uneven, tmp_path, capsys):
    found = sorted((uneven / "runs").rglob("*.h5"))
    result = ensemble.ensemble(found)
    table = result.table()
    columns = list(table.columns)
    assert columns[columns.index("accuracy") :][:4] == ["accuracy", "macro_f1_single", "macro_f1", "class_ratio"]
    assert set(table.class_ratio) == {2.0}
    assert runs.main(["--runs", str(uneven / "runs")]) == 0
    assert "last [%]  macro-F1 [%]  chance [%]  commonest [%]  best [%]" in capsys.readouterr().out
    made = tables.tables(uneven / "runs")
    assert ", F1 " in made.summary() and "F1: macro-F1 [%]" in made.summary()
    overall = classes.classes(found).overall[0]
    (cell,) = (row for row in made.rows if row.dataset == "tones" and row.column == "pretrained")
    assert cell.macro_f1 == pytest.approx(100 * overall.macro_f1)


def test_rows_of_even_classes_have_no_such_column(seeds_store):
    table = ensemble.ensemble(seeds_store[0]["tuned"]).table()
    assert not {"macro_f1", "macro_f1_single", "class_ratio"} & {*table.columns}
    assert "F1" not in tables.tables(seeds_store[1] / "runs").summary()
    names = [field.name for field in dataclasses.fields(RunRow)]
    assert names.index("macro_f1") == names.index("accuracy_last") + 1


def test_a_run_knows_its_macro_f1(seeds_store):
    run = seeds_store[0]["tuned"][0]
    theirs = metrics.f1_score(run.labels, run.logits.argmax(1), average="macro", labels=[0, 1])
    assert run.macro_f1 == pytest.approx(theirs)
    assert run.class_ratio == 1
    assert TransferPlan.finetune() == run.config.plan


def test_the_report_shows_scores_by_class_and_the_surest_mistakes(uneven, tmp_path):
    found = sorted((uneven / "runs").rglob("*.h5"))
    result = classes.classes(found)
    result.write(tmp_path)
    store = {"runs": uneven / "runs", "cache": uneven / "cache", "explore": 0, "device": "cpu"}
    page = report.report(figures=tmp_path, **store).page
    assert "Scores by class" in page and "macro-F1 [%]" in page
    assert ("The surest mistakes" in page) == bool(result.mistakes)
    assert all(mistake.clip in page for mistake in result.mistakes)
    (tmp_path / "classes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"classes.csv is not a table of transferlens.classes: run it again"):
        report.report(figures=tmp_path, **store)
