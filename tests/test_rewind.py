"""Rewind: laws of networks whose blocks are put back, what a block needed, and the command."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from transferlens import ensemble, paths, rewind
from transferlens.compare import mixtures
from transferlens.data.catalogue import DataOptions
from transferlens.models.plan import TransferPlan
from transferlens.store.heldout import classify, heldout_features
from transferlens.store.rows import row_of
from transferlens.util.errors import CheckpointError, ParameterError

CPU = torch.device("cpu")


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def answer(seeds_store):
    """Two folds of two arms, put back to both, with statistics estimated on all training clips."""
    arms, folder = seeds_store
    runs = [run for name in ("tuned", "scratch") for run in arms[name] if run.config.seed == 0]
    return rewind.rewind(runs, to=["start", "random"], cache=folder / "cache", device="cpu")


def heldout(seeds_store, run):
    return heldout_features(run, DataOptions(), seeds_store[1] / "cache")


# --------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("target", ["start", "random"])
def test_nothing_put_back_gives_the_stored_logits(seeds_store, target):
    run = seeds_store[0]["tuned"][0]
    networks = rewind.rewound(run, target, ["all", "filters", "normalisation"], CPU)
    found = mixtures.classify(run, networks, ["TTTTTT", "AAAAAT", "FTTTTT"], heldout(seeds_store, run))
    np.testing.assert_array_equal(found["TTTTTT"], run.logits)


@pytest.mark.parametrize("arm", ["tuned", "scratch"])
def test_everything_put_back_with_the_head_is_the_untrained_network(seeds_store, arm):
    run, S = seeds_store[0][arm][0], heldout(seeds_store, seeds_store[0][arm][0])
    found = mixtures.classify(run, rewind.rewound(run, "start", ["all"], CPU), ["AAAAAA"], S)["AAAAAA"]
    np.testing.assert_array_equal(found, classify(run, run.model(trained=False), S))


def test_filters_and_normalisation_are_all(seeds_store):
    run = seeds_store[0]["tuned"][0]
    start, end = run.initial_state(), run.final_state()
    networks = rewind.rewound(run, "start", ["all", "filters", "normalisation"], CPU)
    every, filters, norms = (networks[letter].state_dict() for letter in "AFN")
    names = rewind.normalisation_names(run.model())
    assert {name.rpartition(".")[2] for name in names} == {
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    for name, tensor in start.items():
        assert torch.equal(every[name], tensor)
        assert torch.equal(filters[name], end[name] if name in names else tensor)
        assert torch.equal(norms[name], tensor if name in names else end[name])


def test_start_and_random_are_alike_from_scratch_alone(seeds_store, answer):
    for arm in ("tuned", "scratch"):
        run = seeds_store[0][arm][0]
        start, random = run.initial_state(), run.random_state()
        assert all(torch.equal(start[name], random[name]) for name in start) == (arm == "scratch")
    rows = {(row.arm, row.fold, row.kind, row.block, row.what, row.to): row for row in answer.rows}
    values = ("accuracy", "accuracy_anew", "moved")
    for (arm, *place, to), row in rows.items():
        if arm == "from scratch" and to == "random":
            other = rows[(arm, *place, "start")]
            assert [getattr(row, name) for name in values] == [getattr(other, name) for name in values]


def test_runs_of_torchvision_start_as_they_say(study):
    (run,) = study(folds=(1,), epochs=1, backbone="resnet18", network="torchvision").runs(TransferPlan.scratch())
    start, random = run.initial_state(), run.random_state()
    assert all(torch.equal(start[name], random[name]) for name in start)


def test_directions_meet(answer):
    """All from Block 0 on are all to the last; of the first and the last block each direction is the block alone."""
    rows = {(row.arm, row.fold, row.to, row.what, row.kind, row.block): row for row in answer.rows}
    twins = {("through", 0): ("alone", 0), ("from", 4): ("alone", 4), ("from", 0): ("through", 4)}
    for place, row in rows.items():
        assert row.accuracy_run == rows[(*place[:4], "alone", 0)].accuracy_run
        assert row.lost == pytest.approx(row.accuracy_run - row.accuracy)
        assert row.lost_anew == pytest.approx(row.accuracy_run - row.accuracy_anew)
        twin = rows[place[:4] + twins.get(place[4:], place[4:])]
        assert (row.accuracy, row.accuracy_anew) == (twin.accuracy, twin.accuracy_anew)


def test_movement_is_that_of_the_parameters(seeds_store):
    run = seeds_store[0]["tuned"][0]
    start, end, network = run.initial_state(), run.final_state(), run.model()
    names = [name for name, _ in network.named_parameters() if network.block_of(name) == 2]
    before, after = (np.concatenate([state[name].numpy().ravel() for name in names]) for state in (start, end))
    found = rewind.moved(run, "start", "all")
    assert found[2] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5)
    assert set(found) == {0, 1, 2, 3, 4} and min(found.values()) > 0
    parts = [rewind.moved(run, "start", what)[2] for what in ("filters", "normalisation")]
    assert min(parts) <= found[2] <= max(parts)


def test_a_frozen_block_needed_nothing(study, tmp_path):
    (run,) = study(folds=(1,), epochs=1).runs(TransferPlan.freeze(2))
    result = rewind.rewind(run, kind="through", what="all", estimate=0, cache=tmp_path / "cache", device="cpu")
    frozen = [row for row in result.rows if row.block <= 2]
    assert [(row.block, row.lost, row.moved) for row in frozen] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert [row.needed for row in result.means if row.block <= 2] == ["nothing"] * 3


# ----------------------------------------------------------------------------------------------- what was needed


def scored(run, changes, **own):
    row = {"arm": "x", "kind": "alone", "block": 1, "to": "start", "what": "all", "moved": 0.1} | own
    numbers = ("accuracy", "accuracy_anew", "accuracy_run", "accuracy_run_anew", "lost", "lost_anew")
    row = dict.fromkeys(numbers, 0.5) | row
    changes = {name: np.full(len(run.labels), change) for name, change in changes.items()}
    return rewind.Scored(row_of(rewind.Row, run, **row), changes, ())


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"as is": 0.0, "anew": -0.5}, "nothing"),
        ({"as is": -0.5, "anew": -0.02}, "statistics"),
        ({"as is": -0.5, "anew": 0.1}, "statistics"),
        ({"as is": -0.5, "anew": -0.03}, "filters"),
        ({"as is": -0.03}, "weights"),
        ({"as is": -0.02}, "nothing"),
    ],
)
def test_what_a_block_needed(seeds_store, changes, needed):
    rows = rewind.means([scored(run, changes) for run in seeds_store[0]["tuned"]], 2.0)
    assert [(row.statistics, row.needed) for row in rows] == [(name, needed) for name in changes]
    assert [row.change for row in rows] == pytest.approx([*changes.values()])
    assert {(row.n_folds, row.over) for row in rows} == {(2, "folds")}


def test_differences_are_paired_and_seeds_averaged_first(seeds_store):
    """Known answer: two folds whose changes are -0.2 and -0.4, whatever the seeds of each say."""
    each = {("1", 0): -0.1, ("1", 1): -0.2, ("1", 2): -0.3, ("2", 0): -0.4, ("2", 1): -0.4, ("2", 2): -0.4}
    runs = seeds_store[0]["tuned"]
    (row,) = rewind.means([scored(r, {"as is": each[r.config.fold, r.config.seed]}) for r in runs], 2.0)
    assert row.change == pytest.approx(-0.3)
    half = 12.7062047 * np.std([-0.2, -0.4], ddof=1) * np.sqrt(1 / 2 + 1 / 2)  # t of one degree; 8 of 16 held out
    assert (row.change_low, row.change_high) == pytest.approx((max(-1, -0.3 - half), min(1, -0.3 + half)))


def test_one_fold_has_an_interval_over_clips(seeds_store):
    run = seeds_store[0]["tuned"][0]
    one = scored(run, {"as is": 0.0})
    changes = np.array([0.0, -1.0] * (len(run.labels) // 2))
    (row,) = rewind.means([rewind.Scored(one.row, {"as is": changes}, ())], 2.0)
    assert (row.n_folds, row.over, row.change) == (1, "clips", -0.5)
    assert -1 <= row.change_low < -0.5 < row.change_high <= 0
    (row,) = rewind.means([rewind.Scored(one.row, {"as is": changes}, ("a",) * 4 + ("b",) * 4)], 2.0)
    assert row.over == "recordings"


# ------------------------------------------------------------------------------------------------ the command


def test_summary_and_figure_name_arms_and_directions(answer):
    text = answer.summary()
    for words in ("test_resnet, pretrained, all back to the start, Block K alone needed", "from scratch", "anew:"):
        assert words in text
    figure = answer.plot()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert "test_resnet, pretrained: back to random weights" in titles
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [tick.split("\n")[0] for tick in ticks] == ["0", "1", "2", "3", "4"]
    assert {tick.split("\n")[1] for tick in ticks} <= {"nothing", "statistics", "filters"}
    # Below, networks have marks, not the colours of what is put back.
    below = figure.axes[-1].lines
    assert {line.get_color() for line in below} == {"0.35"}
    assert len({line.get_marker() for line in below}) == len(below)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "change of test_resnet, pretrained, from random weights" in legend


def test_command(seeds_store, tmp_path, capsys):
    arms, folder = seeds_store
    paths = [str(run.path) for run in arms["tuned"][:2]]
    argv = ["--ckpt", *paths, "--cache", str(folder / "cache"), "--device", "cpu", "--figures", str(tmp_path)]
    assert rewind.main([*argv, "--kind", "alone", "--what", "all", "filters", "--estimate", "8"]) == 0
    names = {f"rewind.{end}" for end in ("csv", "pdf", "png")} | {"rewind_blocks.csv"}
    assert {path.name for path in tmp_path.iterdir()} == names
    rows = read(tmp_path / "rewind.csv")
    assert len(rows) == 2 * 2 * 5
    for row in rows:
        assert float(row["accuracy"]) == pytest.approx(float(row["accuracy_run"]) - float(row["lost"]))
    means = read(tmp_path / "rewind_blocks.csv")
    assert len(means) == 2 * 2 * 5
    assert {row["needed"] for row in means if row["what"] == "filters"} == {""}
    assert "Block K alone needed" in capsys.readouterr().out


def test_the_runs_of_a_study_are_read(seeds_store, weights_file, capsys, tmp_path):
    folder = seeds_store[1]
    given = {
        "clips": folder / "tones" / "clips.csv", "runs": folder / "runs", "cache": folder / "cache", "folds": [1, 2],
        "backbone": "test_resnet", "weights": weights_file, "width": 32, "epochs": 1, "batch_size": 8, "device": "cpu",
    }  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")}
    result = rewind.rewind(**given, kind="from", what="all", estimate=0)
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")} == before
    assert {(row.fold, row.arm) for row in result.rows} == {("1", "pretrained"), ("2", "pretrained")}
    assert all(np.isnan(row.accuracy_anew) for row in result.rows)
    assert "statistics were not estimated anew" in result.summary()
    assert result.plot()


def test_a_network_without_batchnorm_has_nothing_to_estimate(study, tmp_path):
    (run,) = study(folds=(1,), epochs=1, backbone="test_vit2").runs(TransferPlan.scratch())
    result = rewind.rewind(run, kind="alone", what=["all", "normalisation"], cache=tmp_path / "cache", device="cpu")
    assert {row.statistics for row in result.means} == {"as is"}
    assert {row.needed for row in result.means} <= {"", "nothing", "weights"}
    assert "the network has no BatchNorm" in result.summary()
    assert result.plot()


def test_bad_input_is_one_line(seeds_store, tmp_path, capsys):
    arms, folder = seeds_store
    paths = ["--ckpt", *(str(run.path) for run in arms["tuned"][:2])]
    figures = ["--figures", str(tmp_path / "new"), "--device", "cpu"]
    for argv, message in (
        ([*paths, "--kind"], "it needs one value or more"),
        ([*paths, "--estimate", "-1"], "estimate=-1 must be at least 0"),
        ([*paths, "--epochs", "2"], "epochs cannot be given with ckpt: leave out one of them"),
        (["--ckpt", "nowhere.h5"], "nowhere.h5 does not exist"),
        (
            [*paths, "--cache", str(tmp_path)],
            "without clips and features, `classes`, `versus`, `ensemble`, `selection`, `tables` and `runs`",
        ),
    ):
        assert rewind.main([*argv, *figures]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "new").exists()


def test_training_clips_that_are_not_known(study, tmp_path):
    (run,) = study(folds=(1,), epochs=1, select="nested").runs(TransferPlan())
    given = {"cache": tmp_path / "cache", "kind": "alone", "what": "all", "device": "cpu"}
    with pytest.raises(ParameterError, match=r"its training clips are not known: give estimate=0"):
        rewind.rewind(run, **given)
    assert rewind.rewind(run, **given, estimate=0).rows
    with pytest.raises(CheckpointError, match="was trained on other clips than synth.*need run files alone"):
        rewind.rewind(run, cache=tmp_path / "elsewhere")


@pytest.mark.parametrize("setting", [{"select": "nested"}, {"clips_per_class": 3}])
def test_no_run_is_scored_with_statistics_of_the_training_clips_of_another(study, tmp_path, setting):
    plan, given = TransferPlan(), {"folds": (1,), "epochs": 1}
    runs = [study(**given).runs(plan)[0], study(**given, **setting).runs(plan)[0]]
    for order in (runs, runs[::-1]):
        with pytest.raises(ParameterError, match=f"{runs[1].path} was not trained on all other clips.*estimate=0"):
            rewind.rewind(order, kind="alone", what="all", cache=tmp_path / "cache", device="cpu")
    with pytest.raises(ParameterError, match="differ in normalisation: compare runs of the same"):
        paths.paths(runs, kind="runs", estimate=0, cache=tmp_path / "cache", device="cpu")
    seeds = study(**given, **setting, seeds=(0, 1)).runs(plan)
    for order in ([*study(**given, seeds=(0, 1)).runs(plan), *seeds], seeds):
        with pytest.raises(ParameterError, match="training clips are not known: leave soup out"):
            ensemble.ensemble(order, soup=True, cache=tmp_path / "cache", device="cpu")
