"""Scores without training: LogME by brute force, neighbours as scikit-learn's, and the question on a small store."""

from __future__ import annotations

import csv
import dataclasses
import functools
import re

import numpy as np
import pytest
import scipy.optimize
import sklearn.neighbors
import torch
from conftest import last_of_each

import transferlens as tl
from transferlens import rank
from transferlens.compare import transfer_scores
from transferlens.measures import transferability
from transferlens.measures.stats import share_interval
from transferlens.models.plan import TransferPlan
from transferlens.store.run import normalised
from transferlens.training.trainer import Trainer
from transferlens.util.errors import ParameterError

RNG = np.random.default_rng(0)


# --- LogME


def log_evidence(F, y, alpha, beta):
    """The log marginal likelihood of Bayesian linear regression, per clip, written out as in the paper."""
    n, n_neurons = F.shape
    A = alpha * np.eye(n_neurons) + beta * F.T @ F
    m = beta * np.linalg.solve(A, F.T @ y)
    fit = -beta / 2 * np.square(y - F @ m).sum() - alpha / 2 * m @ m - np.linalg.slogdet(A)[1] / 2
    return (fit + n / 2 * np.log(beta / (2 * np.pi)) + n_neurons / 2 * np.log(alpha)) / n


def highest_evidence(F, y):
    """The maximum over both precisions, from several starts, as there may be more than one maximum."""

    def loss(logs):
        return -log_evidence(F, y, *np.exp(np.clip(logs, -20, 20)))

    starts = [(a, b) for a in (-6, -2, 2, 6, 10) for b in (0, 3)]
    options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 2000}
    return -min(scipy.optimize.minimize(loss, x, method="Nelder-Mead", options=options).fun for x in starts)


def problem(seed):
    """Features of uneven scales, some about zero and some above, with labels that depend on them or not."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(8, 30))
    F = rng.normal(size=(n, int(rng.integers(1, n - 1)))) * np.exp(rng.normal())
    F = F * np.exp(rng.normal(size=F.shape[1]))
    F = np.abs(F) if seed % 2 else F
    y = F[:, 0] + seed % 3 * F[:, 0].std() * rng.normal(size=n)
    return F, np.digitize(y, np.quantile(y, [0.3, 0.7]))


@pytest.mark.parametrize("seed", range(12))
def test_logme_is_the_highest_evidence(seed):
    F, labels = problem(seed)
    expected = np.mean([highest_evidence(F, (labels == label).astype(float)) for label in range(3)])
    assert transferability.logme(F, labels) == pytest.approx(expected, abs=1e-6)


def updated_evidence(F, y):
    """The evidence where the updates of the first paper end that begin with both precisions at 1."""
    alpha = beta = 1.0
    values = np.linalg.eigvalsh(F.T @ F)
    for _ in range(3000):
        m = beta * np.linalg.solve(alpha * np.eye(len(values)) + beta * F.T @ F, F.T @ y)
        gamma = (beta * values / (alpha + beta * values)).sum()
        alpha, beta = gamma / (m @ m), (len(F) - gamma) / np.square(y - F @ m).sum()
        if alpha > 1e10 * beta:  # it has no end
            break
    return log_evidence(F, y, alpha, beta)


# In the last two problems it is best to have no weights at all: the prior is as narrow as it may be.
@pytest.mark.parametrize(("seed", "is_empty"), [(37, False), (195, False), (245, True), (342, True)])
def test_of_several_maxima_the_highest_is_found(seed, is_empty):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(10, 40))
    F = rng.normal(size=(n, int(rng.integers(2, n - 2))))
    F = F * np.exp(2 * rng.normal(size=F.shape[1]))
    y = (rng.random(n) < 0.4).astype(float)
    y[0] = 1
    (highest,) = transferability.evidence(F, y[:, None])
    assert highest > updated_evidence(F, y) + 0.01
    expected = -(np.log(2 * np.pi * y.mean()) + 1) / 2 if is_empty else highest_evidence(F, y)
    assert highest == pytest.approx(expected, abs=1e-6)


def test_rotated_scaled_and_reordered_features_have_the_same_score():
    F, labels = problem(1)
    score = transferability.logme(F, labels)
    rotation = np.linalg.qr(RNG.normal(size=(F.shape[1],) * 2))[0]
    order = RNG.permutation(len(F))
    for changed, names in ((F @ rotation, labels), (1e-4 * F, labels), (1e4 * F, labels), (F[order], labels[order])):
        assert transferability.logme(changed, names) == pytest.approx(score, abs=1e-9)
    assert transferability.logme(F, np.array(["b", "c", "a"])[labels]) == pytest.approx(score, abs=1e-12)


def test_features_that_say_nothing_add_nothing():
    F, labels = problem(4)
    wider = np.hstack([F, np.zeros((len(F), 3))])
    assert transferability.logme(wider, labels) == pytest.approx(transferability.logme(F, labels), abs=1e-12)
    assert transferability.logme(0 * F, labels) <= transferability.logme(F, labels)


@pytest.mark.parametrize("n_neurons", [5, 200])
def test_true_labels_score_higher_than_permuted_ones(n_neurons):
    labels = np.repeat(np.arange(4), 20)
    F = RNG.normal(size=(80, n_neurons)) + 3 * RNG.normal(size=(4, n_neurons))[labels]
    permuted = [transferability.logme(F, RNG.permutation(labels)) for _ in range(20)]
    assert transferability.logme(F, labels) > max(permuted)


def test_labels_that_are_exactly_linear_in_few_features_have_no_bound():
    labels = np.repeat([0, 1], 5)
    assert transferability.logme(np.eye(2)[labels], labels) == np.inf
    assert np.isfinite(transferability.logme(np.eye(10), labels))  # as many features as clips


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((4, 2)), [1, 1, 1, 1], "labels name 1 class: at least 2 are needed"),
        (np.ones((4, 2)), [0, 1, 1], "features has 4 clips and targets has 3: give one per clip"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], "features must be finite"),
        (np.ones(4), [0, 0, 1, 1], r"features of shape \(4,\) must have two axes"),
        (np.ones((4, 0)), [0, 0, 1, 1], r"features of shape \(4, 0\) must have two axes.* neither of them empty"),
    ],
)
def test_features_that_cannot_be_scored(features, labels, message):
    with pytest.raises(ParameterError, match=message):
        transferability.logme(features, labels)


def test_a_class_without_clips_has_no_evidence():
    with pytest.raises(ParameterError, match="targets has a column of zeros, such as a class without clips"):
        transferability.evidence(np.ones((3, 2)), np.eye(2)[[0, 0, 0]])


# --- nearest neighbours


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_neighbours_are_those_of_scikit_learn(k, monkeypatch):
    monkeypatch.setattr(transferability, "AT_ONCE", 100)  # several parts
    X, Q, labels = RNG.normal(size=(40, 6)), RNG.normal(size=(30, 6)), RNG.integers(0, 4, 40)
    other = sklearn.neighbors.KNeighborsClassifier(k, metric="cosine").fit(X, labels)
    np.testing.assert_array_equal(transferability.nearest(X, labels, Q, k=k), other.predict(Q))


def test_clips_of_one_recording_are_not_neighbours():
    X, labels, groups = np.eye(4), np.array([0, 1, 2, 3]), ["a", "b", "c", "a"]
    query = np.array([[1.0, 0.5, 0.1, 0.9]])
    assert transferability.nearest(X, labels, query, k=1) == [0]
    assert transferability.nearest(X, labels, query, k=1, groups=groups, query_groups=["a"]) == [1]


@pytest.mark.parametrize(("k", "fewest"), [(0, 3), (4, 3)])
def test_more_neighbours_than_there_are(k, fewest):
    groups = {"groups": ["a", "a", "b", "c", "d"], "query_groups": ["a", "b"]}
    with pytest.raises(ParameterError, match=f"k={k} must be 1 to {fewest}, the number of clips that may be neighb"):
        transferability.nearest(np.eye(5), np.arange(5), np.eye(5)[:2], k=k, **groups)


# --- correlation


def test_correlation_is_that_of_scipy_and_exact_for_few_points():
    x, y = RNG.normal(size=7), RNG.normal(size=7)
    x[1] = x[0]
    correlation = transferability.rank_correlation(x, y)
    assert correlation.rho == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    perfect = transferability.rank_correlation([1, 2, 3, 4], [0, 2, 4, np.inf])
    assert (perfect.rho, perfect.p_value, perfect.n) == pytest.approx((1, 2 / 24, 4))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2, 3], [1, 2, 3], r"Spearman none \(n = 3, at least 4 points are needed\)"),
        ([], [], r"Spearman none \(n = 0, at least 4 points are needed\)"),
        ([1, 1, 1, 1], [1, 2, 3, 4], r"Spearman none \(n = 4, all values of one side are equal\)"),
    ],
)
def test_no_correlation_says_why(x, y, words):
    correlation = transferability.rank_correlation(x, y)
    assert np.isnan([correlation.rho, correlation.p_value]).all()
    assert re.fullmatch(words, str(correlation))


def test_a_correlation_is_of_pairs():
    with pytest.raises(ParameterError, match="x has 1 values and y has 2: give pairs"):
        transferability.rank_correlation([1], [1, 2])


# --- the question


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def given(clips, weights_file, tmp_path):
    return {
        "backbone": "test_resnet", "weights": weights_file, "width": 32, "device": "cpu", "k": 3,
        "runs": tmp_path / "runs", "cache": tmp_path / "cache",
    }  # fmt: skip


@pytest.fixture
def argv(clips, given, tmp_path):
    return [f"--clips={clips}", f"--figures={tmp_path / 'figures'}", *(f"--{n}={v}" for n, v in given.items())]


def test_scores_of_each_block_and_of_the_random_network(argv, tmp_path, capsys):
    assert rank.main([*argv, "--seeds", "0", "1"]) == 0
    rows = read(tmp_path / "figures" / "rank.csv")
    names = {(row["source"], row["seed"]) for row in rows}
    assert names == {("imagenet.safetensors", ""), ("random", "0"), ("random", "1")}
    assert {row["block"] for row in rows} == set("01234") and {row["fold"] for row in rows} == {"", "1", "2", "3"}
    assert len(rows) == 3 * 5 * 4
    assert {(row["n_train"], row["n_clips"]) for row in rows if row["fold"]} == {("16", "8")}
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".csv", ".png", ".pdf"}
    assert not (tmp_path / "runs").exists()  # nothing is trained
    assert "block  LogME   3 neighbours [%]" in capsys.readouterr().out


def test_features_are_what_a_probe_reads(make_study, tmp_path):
    """The pooled output of the network that is cut after the block, as its head gets it."""
    study = make_study(tmp_path)
    (config, *_) = study.points(TransferPlan.probe(3))
    counts = []
    features = transfer_scores.outputs(config, study, [0, 3], counts.append)
    assert sum(counts) == len(study.dataset.clips)
    trainer = Trainer(config, study.data, study.sources)
    S = torch.from_numpy(np.array(study.cache.load()))
    whole = np.stack([S.double().mean((0, 2, 3)), S.double().std((0, 2, 3), correction=0)])
    with torch.no_grad():
        pooled = trainer.network.eval().before(normalised(S, whole), 4)
    np.testing.assert_allclose(features[3], pooled[:, :, 0, 0], rtol=1e-4, atol=1e-5)


def test_numbers_are_those_of_the_measures(clips, given):
    result = tl.rank(clips, **given, blocks=[2], folds=[1, 3], controls=False)
    *folds, whole = result.rows
    assert [row.fold for row in folds] == ["1", "3"] and whole.fold == ""
    assert whole.logme == pytest.approx(np.mean([row.logme for row in folds]))
    n_right = round(sum(row.knn * row.n_clips for row in folds))
    interval = share_interval([1] * n_right + [0] * (16 - n_right))
    assert (whole.knn, whole.knn_low, whole.knn_high) == pytest.approx((interval.mean, interval.low, interval.high))
    study = tl.Study(clips, **{name: value for name, value in given.items() if name != "k"})
    features = transfer_scores.outputs(study.points(TransferPlan.truncate(2))[0], study, [2], lambda n: None)[2]
    training, held_out = study.dataset.split("3")
    labels = study.data.labels
    assert folds[1].logme == pytest.approx(transferability.logme(features[training], labels[training]))
    predicted = transferability.nearest(features[training], labels[training], features[held_out], k=3)
    assert folds[1].knn == np.mean(predicted == labels[held_out])


def test_scores_are_held_against_the_runs_of_the_store(make_study, clips, given, tmp_path, capsys):
    study = make_study(tmp_path, folds=("1", "2"), epochs=1, lr=1e-2)
    probes = {k: study.runs(TransferPlan.probe(k), study.training(TransferPlan.probe(k))) for k in (1, 2, 3, 4)}
    study.runs(TransferPlan(None, 4, 4))
    study.runs(TransferPlan.truncate(2))
    (one_fold, _) = study.points(TransferPlan(None, 3, 3))
    study.gather([one_fold])
    files = sorted((tmp_path / "runs").rglob("*.h5"))
    ask = functools.partial(tl.rank, clips, **given, folds=[1, 2], batch_size=4, epochs=1)
    result = ask(against="probe")
    assert "over the networks at one block: none, as at least 4 are needed" in result.summary()
    assert sorted((tmp_path / "runs").rglob("*.h5")) == files
    for row in (row for row in result.rows if row.source != "random" and row.block):
        runs = [run for run in probes[row.block] if row.fold in ("", run.config.fold)]
        assert (row.accuracy, row.n_runs) == (pytest.approx(np.mean([r.accuracy_last for r in runs])), len(runs))
    cells = {(row.source, row.block): row for row in result.cells}
    assert cells["random", 4].n_runs == 2 and np.isfinite(cells["random", 4].accuracy)
    assert cells["random", 3].n_runs == 1 and np.isnan(cells["random", 3].accuracy)  # a fold is missing
    assert np.isnan(cells["imagenet.safetensors", 0].accuracy)
    assert {key[1]: each.n for key, each in result.correlations.items()} == {
        "all blocks": 4, "all blocks, with random": 5
    }  # fmt: skip
    assert {path.name for path in result.write(tmp_path / "out")} >= {"rank.png", "rank.csv", "rank_correlation.csv"}
    assert "nearest neighbours and probe, all blocks, with random: Spearman" in result.summary()
    few = ask(against="truncate", controls=False, lr=1e-2)
    assert "LogME and truncate, all blocks: Spearman none (n = 1, at least 4 points are needed)" in few.summary()
    few.plot()
    other = ask(against="probe", controls=False, lr=0.5)
    assert "the store has no finished probe run of these settings" in other.summary()
    assert {row.n_runs for row in other.rows} == {0}
    other.plot()


def row_of(source, block, accuracy, **own):
    zeros = {field.name: 0 for field in dataclasses.fields(rank.Row)}
    values = zeros | {"source": source, "block": block, "fold": "", "accuracy": accuracy, "seed": ""}
    return rank.Row(**(values | own))


def test_a_block_has_a_correlation_of_its_own_over_networks():
    rows = [
        row_of("a", block, net + block, backbone=str(net), logme=block - net) for net in range(5) for block in (1, 4)
    ]
    by_cells = rank.correlations([*rows, row_of("random", 1, np.nan)])
    assert {key[1] for key in by_cells} == {"all blocks", "Block 1", "Block 4"}
    assert {key[1] for key in rank.correlations(rows[:6])} == {"all blocks"}  # three networks
    assert by_cells["logme", "Block 4"].rho == pytest.approx(-1)
    assert by_cells["knn", "Block 4"].note == "all values of one side are equal"


@pytest.mark.filterwarnings("error")
def test_a_score_without_bound_is_ranked_and_left_out_of_the_figure(tmp_path):
    rows = [row_of("a", block, block / 10, logme=score) for block, score in enumerate([0.1, 0.2, 0.3, np.inf])]
    rows += [dataclasses.replace(row, fold="1") for row in rows]
    result = rank.Result(tuple(rows), rank.correlations(rows), "probe")
    assert result.correlations["logme", "all blocks"].rho == pytest.approx(1)
    assert f"{rank.INFINITE}: are clips silent, or there twice?" in result.summary()
    assert (tmp_path / "rank.png") in result.write(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["--k", "17"],
            "k=17 must be at most 16: clips of fold 1 of tones.* have no more neighbours in the other folds",
        ),
        (["--k", "0"], "k=0 must be at least 1"),
        (["--block", "5"], "block=5 must be 0 to 4"),
        (["--backbone", "gmixer_12_224"], "backbone='gmixer_12_224' cannot be cut into a stem and four blocks"),
        (["--backbone", "resnet10t"], "does not hold the weights of backbone 'resnet10t'"),
        (["--against", "finetune", "--block", "1", "2"], "against='finetune' needs one of block=4: no run ends with"),
        (["--against", "probe", "--block", "0"], "against='probe' needs one of block=1, 2, 3, 4"),
        (["--folds", "7"], "folds='7' not in tones"),
        (
            ["--against", "probe", "--runs", "nowhere"],
            "runs='nowhere' is not a folder: against='probe' needs the store",
        ),
    ],
)
def test_bad_input_is_one_line(argv, change, message, capsys, tmp_path):
    assert rank.main(last_of_each([*argv, *change])) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line)
    assert not (tmp_path / "figures").exists() or not list((tmp_path / "figures").iterdir())


def test_one_class_only_is_one_line(clips, argv, tmp_path, capsys):
    table = clips.with_name("one.csv")
    lines = clips.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line for line in lines if ",low," in line)]))
    try:
        assert rank.main([f"--clips={table}", *argv[1:]]) == 2
    finally:
        table.unlink()
    assert "leaves 8 clips of 1 class to train on: at least 2 classes are needed" in capsys.readouterr().err
