"""The league of methods: settings chosen elsewhere, pairs of methods, the planted shortcut, and the command."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch

from transferlens import league
from transferlens.data import known_answers
from transferlens.data.catalogue import DataOptions
from transferlens.explain import contest, standings
from transferlens.explain.contest import Setting
from transferlens.explain.explanations import ExplanationOptions, heldout_clips
from transferlens.measures import methods
from transferlens.models.plan import TransferPlan
from transferlens.store.run import load_run

CPU = torch.device("cpu")


def trained(folder, weights_file, **options):
    from transferlens.training.sweep import Study

    given = {"backbone": "test_resnet", "weights": str(weights_file), "epochs": 1, "batch_size": 8, "device": "cpu"}
    study = Study(**given, runs=folder / "runs", cache=folder / "cache", **options)
    return study.runs(TransferPlan())


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights_file):
    """Runs of two folds, their clips and their folder."""
    from conftest import write_clips

    folder = tmp_path_factory.mktemp("league")
    clips = write_clips(folder / "tones")
    return trained(folder, weights_file, clips=clips, width=32, folds=("1", "2")), clips, folder


def ask(store, **options):
    runs, clips, folder = store
    few = {"clips_per_fold": 2, "methods": ("gradcam", "smoothgrad"), "checks": 1, "smooth": (0, 2), "fill": "silence"}
    return league.league(**({"ckpt": runs, "clips": clips, "cache": folder / "cache", "device": "cpu"} | few | options))


def row(method, clip, value, recording=""):
    scores = {"average_precision": value}
    return standings.ClipRow(method, "s", "run", "1", clip, recording, "a", "a", "all", 1, scores)


def test_settings_of_methods_with_blocks_and_without():
    of_ig = contest.settings("ig", [0, 4, 8], ["signed"], 5, default=4)
    assert of_ig == [Setting("ig", (), width) for width in (4, 0, 8)]
    of_gradcam = contest.settings("gradcam", [4], ["signed"], 5, default=4)
    assert [setting.block for setting in of_gradcam] == [(), (2,), (3,)]  # the default is the last
    of_layercam = contest.settings("layercam", [4], ["signed", "positive"], 5, default=4)
    assert [setting.block for setting in of_layercam[::2]] == [(), (2,), (3,), (4,)]
    assert {setting.raw for setting in of_layercam} == {Setting("layercam", block) for block in [(), (2,), (3,), (4,)]}


def test_a_setting_is_chosen_on_other_folds_alone():
    """On its own fold each setting is perfect where it is worthless elsewhere."""
    a, b = Setting("ig", smooth=0), Setting("ig", smooth=4)

    class Entry:
        def __init__(self, fold, good):
            self.fold = fold
            self.qualities = {s: np.full(3, float(s is good)) for s in (a, b)}

    entered = [Entry("1", a), Entry("2", b)]
    assert contest.choose(entered, [a, b], "1") == (b, 1.0)
    assert contest.choose(entered, [a, b], "2") == (a, 1.0)


def test_differences_are_paired_and_adjusted_for_their_number():
    rng = np.random.default_rng(0)
    base = rng.uniform(size=30)
    rows = [
        row(method, str(i), value)
        for method, values in {"a": base, "b": base + 0.1 + 0.01 * rng.normal(size=30), "c": base[::-1]}.items()
        for i, value in enumerate(values)
    ]
    found = {(each.method, each.other): each for each in standings.differences(rows, ["average_precision"])}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found["a", "b"].difference == pytest.approx(-0.1, abs=0.01)
    assert found["a", "b"].p_adjusted < 0.01
    assert found["a", "b"].high < 0  # though clips differ far more than methods
    assert found["a", "c"].p_adjusted > 0.5
    assert all(each.p_adjusted >= each.p for each in found.values())


def test_means_leave_out_clips_that_lack_a_score_and_count_the_others():
    (mean,) = standings.means([row("a", "1", 0.2), row("a", "2", 0.4), row("a", "3", float("nan"))])
    assert (mean.mean, mean.n, mean.n_recordings) == (pytest.approx(0.3), 2, 0)


def test_clips_are_of_all_classes_and_kinds(store):
    run = store[0][0]
    places = contest.spread(run, 4)
    assert sorted(run.labels[places].tolist()) == [0, 0, 1, 1]
    assert sorted(contest.spread(run, 1000)) == list(range(len(run.clip_ids)))


def test_the_league_of_two_folds(store, tmp_path):
    result = ask(store)
    entered = {"gradcam", "smoothgrad", "energy", "random patches"}
    assert set(result.order) == entered
    assert result.main == "insertion_silence_gain"
    assert "chosen on the other folds" in result.summary()
    assert {(each.fold, each.chosen_on) for each in result.settings} == {("1", "folds 2"), ("2", "folds 1")}
    for each in result.clip_rows:
        gain = each.scores["insertion_silence"] - each.scores["insertion_silence_shifted"]
        assert each.scores["insertion_silence_gain"] == pytest.approx(gain)
    assert result.of("randomised").keys() == {"gradcam", "smoothgrad"}
    agreement = {(each.method, each.other): each.correlation for each in result.agreement}
    assert all(agreement[name, name] == pytest.approx(1) for name in entered)
    written = {path.name for path in result.write(tmp_path)}
    tables = ("", "_clips", "_settings", "_differences", "_agreement")
    assert written == {"league.png", "league.pdf", *(f"league{part}.csv" for part in tables)}
    with (tmp_path / "league_clips.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 4


def test_one_fold_has_fixed_settings_and_says_so(store):
    result = ask(store, ckpt=store[0][:1], methods="gradcam", checks=0)
    assert "one fold: settings are fixed, not chosen" in result.summary()
    assert {each.chosen_on for each in result.settings} == {"fixed"}


def test_an_estimate_is_printed_and_nothing_is_written(store, tmp_path, capsys):
    runs, clips, folder = store
    argv = ["--ckpt", *(str(run.path) for run in runs), "--clips", str(clips), "--cache", str(folder / "cache")]
    argv += ["--estimate", "--methods", "gradcam", "--figures", str(tmp_path / "none"), "--device", "cpu"]
    assert league.main(argv) == 0
    assert "16 clips: about" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "unicorn"}, "target='unicorn' must be true, predicted, or a label of the run: high, low"),
        ({"methods": "magic"}, "methods='magic' must be one of ig, expected"),
        ({"clips_per_fold": 0}, "clips_per_fold=0 must be at least 1"),
        ({"fill": "noise"}, "fill='noise' must be one of silence, mean, median"),
        ({"smooth": -1}, "smooth=-1.0 must be at least 0"),
    ],
)
def test_bad_options(store, options, message):
    with pytest.raises(league.ParameterError, match=message):
        ask(store, **options)


def test_methods_that_cannot_explain_the_network_are_left_out_unless_they_are_named(store):
    result = ask(store, ckpt=store[0][:1], methods=(), estimate=True)
    assert {row["method"] for row in result.rows} == {*methods.METHODS, *contest.CONTROLS} - {"lrp"}
    with pytest.raises(league.ParameterError, match="method='lrp' knows networks without skip connections"):
        ask(store, methods=("gradcam", "lrp"))


def test_an_interrupted_league_continues_and_says_the_same(store, tmp_path):
    few = {"ckpt": store[0], "methods": ("gradcam",), "cache": tmp_path, "smooth": (0, 2)}
    first = ask(store, **few)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    for path in list(files)[::2]:  # as if it had been stopped half-way
        path.unlink()
    again = ask(store, **few)
    assert [row.flat | {"seconds": 0} for row in again.clip_rows] == [
        row.flat | {"seconds": 0} for row in first.clip_rows
    ]
    assert [*files][1].stat().st_mtime_ns == files[[*files][1]]
    assert {*(tmp_path / "kept").iterdir()} == {*files}


def test_runs_of_two_arms(store, tmp_path, weights_file):
    from transferlens.training.sweep import Study

    runs, clips, folder = store
    given = {"backbone": "test_resnet", "epochs": 1, "batch_size": 8, "device": "cpu", "width": 32, "folds": ("1",)}
    scratch = Study(clips=clips, **given, runs=tmp_path, cache=folder / "cache").runs(TransferPlan.scratch())
    with pytest.raises(league.ParameterError, match="ckpt must be runs of one arm, not of pretrained and from scratch"):
        ask(store, ckpt=[*runs, *scratch])


@pytest.fixture(scope="module")
def shortcut(tmp_path_factory, weights_file):
    """A run of synth-shortcut and its held-out clips: the first ones with and without a hum."""
    folder = tmp_path_factory.mktemp("shortcut")
    (run,) = trained(folder, weights_file, dataset="synth-shortcut", width=64, folds=("test",), precision="fp32")
    clips = heldout_clips(run, DataOptions(), folder / "cache")
    return run, clips.pick(contest.spread(run, 4))


def test_clips_with_a_hum_are_asked_for_its_class_and_answered_by_the_hum(shortcut):
    run, clips = shortcut
    asked = contest.asked(run, clips, CPU)
    hums = [known_answers.spec(clip).hum[1] > 0 for clip in clips.ids]
    assert sorted(hums) == [False, False, True, True]
    for i, hum in enumerate(hums):
        assert asked.targets[i] == (known_answers.HUMMED if hum else clips.labels[i])
        np.testing.assert_array_equal(asked.masks[i], (clips.hums if hum else clips.masks)[i])
        stems = known_answers.render(clips.ids[i])
        np.testing.assert_array_equal(asked.events[i], stems.hum if hum else stems.event)
    assert contest.fooled(run)[1] == 36


def test_the_mask_itself_wins_and_lets_the_event_through(shortcut):
    run, clips = shortcut
    asked = contest.asked(run, clips, CPU)
    for i in range(len(clips.ids)):
        perfect = contest.scores(asked, i, asked.masks[i].astype(float), ["silence"], CPU)
        opposite = contest.scores(asked, i, 1.0 - asked.masks[i], ["silence"], CPU)
        assert perfect["average_precision"] == perfect["points_into_event"] == 1
        assert opposite["average_precision"] < 0.3
        assert perfect["sdr_gain"] > max(0, opposite["sdr_gain"])


def test_maps_of_a_clip_do_not_depend_on_the_others(shortcut):
    run, clips = shortcut
    asked = contest.asked(run, clips, CPU)
    setting, how = Setting("layercam"), ExplanationOptions()
    together = contest.maps_of(asked, setting, how, CPU)
    alone = contest.maps_of(asked.pick(1), setting, how, CPU)
    np.testing.assert_allclose(alone.cells[0], together.cells[0], atol=1e-5)
    power = contest.maps_of(asked, Setting(contest.ENERGY), how, CPU)
    np.testing.assert_allclose(power.cells, asked.power)
    assert dataclasses.asdict(load_run(run.path).config) == dataclasses.asdict(run.config)
