"""Paths: laws of the straight line between two networks, barriers with known answers, soups, and the command."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from transferlens import paths
from transferlens.compare import finished, lines
from transferlens.compare.ensembles import average
from transferlens.data.catalogue import DataOptions
from transferlens.models.plan import TransferPlan
from transferlens.store.heldout import classify, heldout_features
from transferlens.util.errors import ParameterError

CPU = torch.device("cpu")


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cache(seeds_store):
    return seeds_store[1] / "cache"


def heldout(run, cache, **how):
    return heldout_features(run, DataOptions(), cache, **how)


@pytest.fixture(scope="module")
def answer(seeds_store, cache):
    """All kinds of paths: three seeds of a pretrained arm, and one from scratch, on one fold."""
    arms, _ = seeds_store
    runs = [run for run in (*arms["tuned"], arms["scratch"][0]) if run.config.fold == "1"]
    return paths.paths(runs, steps=3, cache=cache, device="cpu")


# --------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("block", [None, 2])
def test_ends_are_the_stored_results(seeds_store, cache, block):
    first, second = seeds_store[0]["tuned"][:2]
    S = heldout(first, cache)
    for line in (lines.Line("seeds", "x", first, second), lines.Line("training", "x", second, second)):
        start, middle, end = lines.walk(line, block, 3, S, None, CPU)
        assert (end.accuracy, end.loss) == lines.scores(second.logits, second.labels)
        assert end.accuracy == second.accuracy_last
        assert end.loss == pytest.approx(second.history["heldout_loss"][-1], rel=1e-5)
        assert (start.excess, end.excess) == (0, 0)
        assert middle.excess == pytest.approx(middle.loss - (start.loss + end.loss) / 2)
    whole = lines.walk(lines.Line("seeds", "x", first, second), None, 3, S, None, CPU)[0]
    assert (whole.accuracy, whole.loss) == lines.scores(first.logits, first.labels)
    untrained = lines.walk(lines.Line("training", "x", first, first), None, 3, S, None, CPU)[0]
    logits = classify(first, first.model(trained=False), S)
    assert (untrained.accuracy, untrained.loss) == lines.scores(logits, first.labels)


def test_a_path_to_itself_is_flat(seeds_store, cache):
    run = seeds_store[0]["tuned"][0]
    line = lines.Line("seeds", "x", run, run)
    rows = lines.walk(line, None, 5, heldout(run, cache), heldout(run, cache, training=True), CPU)
    for statistics in ("as is", "anew"):
        scores = [(row.accuracy, row.loss) for row in rows if row.statistics == statistics]
        assert len(scores) == 5
        assert len(set(scores)) == 1
    assert {barrier.barrier for barrier in lines.barriers(rows)} == {0}


def test_one_block_moves_alone(seeds_store, cache):
    """At its start the network is the end with one block of the first: of a frozen network nothing else can differ."""
    first, second = seeds_store[0]["tuned"][:2]
    network, state = second.model(), second.final_state()
    other = first.final_state()
    state |= {name: other[name] for name in state if network.block_of(name) == 2}
    network.load_state_dict(state)
    S = heldout(first, cache)
    row = lines.walk(lines.Line("seeds", "x", first, second), 2, 3, S, None, CPU)[0]
    assert (row.accuracy, row.loss) == lines.scores(classify(second, network, S), second.labels)


def test_the_soup_of_one_run_is_the_run(seeds_store, cache):
    run = seeds_store[0]["tuned"][0]
    for k in (1, 3):
        np.testing.assert_array_equal(classify(run, finished.average([run] * k), heldout(run, cache)), run.logits)
        row = lines.soup([run] * k, "x", heldout(run, cache), None, CPU)
        assert row.soup == row.single == row.best == row.ensemble == run.accuracy_last
        assert row.soup_loss == pytest.approx(row.ensemble_loss)
        assert np.isnan(row.soup_anew)


def test_the_soup_of_two_is_the_middle_of_their_path(seeds_store, cache):
    runs = seeds_store[0]["tuned"][:2]
    S, training = heldout(runs[0], cache), heldout(runs[0], cache, training=True, most=8)
    row = lines.soup(runs, "x", S, training, CPU)
    line = lines.walk(lines.Line("seeds", "x", *runs), None, 3, S, training, CPU)
    middle = {each.statistics: each for each in line if each.share == 0.5}
    assert row.soup_loss == pytest.approx(middle["as is"].loss, abs=1e-3)
    assert row.soup_anew_loss == pytest.approx(middle["anew"].loss, abs=1e-3)
    together = average([run.logits for run in runs])
    assert row.ensemble == (together.argmax(1) == runs[0].labels).mean()


# ------------------------------------------------------------------------------------------------ barriers


def line_of(answer, losses, accuracies):
    shares = np.linspace(0, 1, len(losses)).tolist()
    over = lines.excess(losses, shares)
    values = zip(shares, losses, accuracies, over, strict=True)
    row = answer.rows[0]
    return [replace(row, share=s, loss=loss, accuracy=a, excess=float(e)) for s, loss, a, e in values]


@pytest.mark.parametrize(
    ("losses", "accuracies", "barrier", "share", "error"),
    [
        ([1.0, 2.5, 2.0], [0.9, 0.5, 0.7], 1.0, 0.5, 0.3),
        ([2.0, 1.0, 1.0], [0.5, 0.9, 0.9], 0.0, 0.0, 0.0),  # below the line: no barrier
        ([0.0, 1.0, 4.0, 3.0, 4.0], [1, 1, 1, 1, 1], 2.0, 0.5, 0.0),
    ],
)
def test_barriers_with_a_known_answer(answer, losses, accuracies, barrier, share, error):
    (found,) = lines.barriers(line_of(answer, losses, accuracies))
    assert (found.barrier, found.barrier_share, found.error_barrier) == pytest.approx((barrier, share, error))
    assert (found.loss_first, found.loss_second) == (losses[0], losses[-1])
    assert (found.accuracy_first, found.accuracy_second) == (accuracies[0], accuracies[-1])


# ------------------------------------------------------------------------------------------------ which paths


def test_paths_of_all_kinds(seeds_store, answer):
    kinds = {(row.kind, row.arm, row.seeds) for row in answer.barriers}
    assert kinds == {
        *(("training", "pretrained", str(seed)) for seed in range(3)),
        ("training", "from scratch", "0"),
        *(("seeds", "pretrained", seeds) for seeds in ("0 and 1", "0 and 2", "1 and 2")),
        ("runs", "pretrained and from scratch", "0"),
    }
    assert {row.statistics for row in answer.rows} == {"as is", "anew"}
    assert [(row.arm, row.n_members, row.seeds) for row in answer.soups] == [("pretrained", 3, "0 1 2")]
    for row in answer.barriers:
        assert row.barrier >= 0
        assert (row.first == row.second) == (row.kind == "training")


def test_runs_of_two_folds_have_no_path_between_them(seeds_store):
    arms, _ = seeds_store
    found = lines.paths_of([*arms["tuned"], *arms["scratch"]])
    assert len(found) == 12 + 12 + 6
    assert all(line.first.config.fold == line.second.config.fold for line in found)


def test_summary_names_barriers_ends_and_soups(answer):
    text = answer.summary()
    run = answer.barriers[0].first
    for words in (
        "test_resnet, pretrained, from start to end, as is: barrier",
        "test_resnet, pretrained, between two seeds, anew: barrier",
        "test_resnet, pretrained and from scratch, between two ways of training",
        f"{run}, start and end (" if run in text else "start and end (",
        "average of the weights of 3 seeds: single",
        "soup, statistics anew - ensemble, paired by fold",
    ):
        assert words in text
    titles = [ax.get_title(loc="left") for ax in answer.plot().axes]
    assert [title for title in titles if title] == [*lines.WORDS.values()]


def test_command(seeds_store, cache, tmp_path, capsys):
    arms, _ = seeds_store
    chosen = [str(run.path) for run in arms["tuned"] if run.config.seed < 2]
    argv = ["--ckpt", *chosen, "--cache", str(cache), "--device", "cpu", "--figures", str(tmp_path)]
    assert paths.main([*argv, "--kind", "seeds", "--block", "1", "3", "--steps", "3", "--estimate", "0"]) == 0
    names = {f"paths.{end}" for end in ("csv", "pdf", "png")} | {"paths_barriers.csv", "paths_soups.csv"}
    assert {path.name for path in tmp_path.iterdir()} == names
    rows = read(tmp_path / "paths.csv")
    assert len(rows) == 2 * 2 * 3
    assert {row["block"] for row in rows} == {"1", "3"}
    assert {float(row["share"]) for row in rows} == {0, 0.5, 1}
    assert len(read(tmp_path / "paths_barriers.csv")) == 4
    assert [row["fold"] for row in read(tmp_path / "paths_soups.csv")] == ["1", "2"]
    assert "between two seeds, Block 1, as is: barrier" in capsys.readouterr().out


def test_bad_input_is_one_line(seeds_store, tmp_path, capsys):
    arms, _ = seeds_store
    a, b = (str(next(run.path for run in arms["tuned"] if run.config.fold == fold)) for fold in "12")
    scratch = next(str(run.path) for run in arms["scratch"] if (run.config.fold, run.config.seed) == ("1", 1))
    other, figures = str(arms["other"][0].path), ["--figures", str(tmp_path / "new"), "--device", "cpu"]
    for argv, message in (
        (["--ckpt", a, b, "--kind", "seeds"], "differ in held-out clips (fold): compare runs of the same"),
        (["--ckpt", a, other, "--kind", "seeds"], "differ in backbone (resnet10t and test_resnet)"),
        (
            ["--ckpt", a, "--kind", "seeds"],
            "no path between two seeds: name runs of one backbone and fold that differ by",
        ),
        (["--ckpt", a, scratch, "--kind", "runs"], "name runs of one backbone, fold and seed that were trained in two"),
        (["--ckpt", a, "--steps", "2"], "steps=2 must be 3 to 1001"),
        (["--ckpt", a, "--block", "5"], "block=(5,) must be among 0, 1, 2, 3, 4"),
        (["--ckpt", a, "--cache", str(tmp_path)], "without clips and features, `classes`, `versus`, `ensemble`"),
        (["--ckpt", a, "--seeds", "1"], "seeds cannot be given with ckpt: leave out one of them"),
    ):
        assert paths.main([*argv, *figures]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "new").exists()


def test_a_block_that_is_cut(study, tmp_path):
    (run,) = study(folds=(1,), epochs=1).runs(TransferPlan.truncate(2))
    with pytest.raises(ParameterError, match="block=3 must be among 0, 1, 2: .* is cut after the last of them"):
        paths.paths(run, block=3, cache=tmp_path / "cache")
