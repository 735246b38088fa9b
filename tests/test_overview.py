"""The arms of a store as data: the laws of confusion matrices and scores, pairs of arms, and what is left out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import sklearn.metrics as metrics

from transferlens import classes, versus
from transferlens.compare.overview import MOST_PAIRS, overview, size, surest
from transferlens.measures.predictions import softmax


@pytest.fixture(scope="module")
def runs(seeds_store):
    return [run for runs_of_arm in seeds_store[0].values() for run in runs_of_arm]


@pytest.fixture(scope="module")
def seen(runs):
    return overview(runs)


def logits_of(runs, arm, seed):
    """Labels and logits of a network of the first backbone by clip."""
    chosen = [run for run in runs if run.config.seed == seed and run.config.plan.title in arm and "test" in arm]
    chosen = [run for run in chosen if run.config.backbone == "test_resnet"]
    return {
        clip: (label, logits)
        for run in chosen
        for clip, label, logits in zip(run.clip_ids, run.labels.tolist(), run.logits, strict=True)
    }


def test_arms_are_named_and_the_papers_come_first(seen):
    names = [arm.name for arm in seen.arms]
    assert names == ["resnet10t, from scratch", "test_resnet, pretrained", "test_resnet, from scratch"]
    assert [arm.n_networks for arm in seen.arms] == [2, 3, 3]
    assert all(arm.folds == ["1", "2"] for arm in seen.arms)
    assert seen.left_out == []


def test_predictions_and_scores_are_those_of_scikit_learn(runs, seen):
    for arm in seen.arms[1:]:
        every_label, every_choice = [], []
        for seed, chosen in enumerate(arm.clips.chosen):
            stored = logits_of(runs, arm.name, seed)
            expected = [stored[seen.clips[clip]] for clip in arm.clips.clips]
            assert arm.clips.labels == [label for label, _ in expected]
            assert chosen == [int(logits.argmax()) for _, logits in expected]
            matrix = metrics.confusion_matrix(arm.clips.labels, chosen, labels=[0, 1])
            assert matrix.sum() == len(arm.clips.clips) == len(set(arm.clips.clips)) == 16
            every_label += arm.clips.labels
            every_choice += chosen
        values = metrics.precision_recall_fscore_support(every_label, every_choice, labels=[0, 1], zero_division=np.nan)
        for k, row in enumerate(arm.scores["single"]):
            for name, column in zip(("precision", "recall", "f1"), values[:3], strict=True):
                assert (row[name] if row[name] is not None else np.nan) == pytest.approx(
                    column[k], nan_ok=True, abs=1e-5
                )
            assert row["n_clips"] == 8 == values[3][k] / 3
        accuracy = np.mean(np.equal(every_label, every_choice))
        assert arm.overall["single"]["accuracy"] == pytest.approx(accuracy, abs=1e-5)


def test_the_mean_of_networks_makes_the_mistakes_that_classes_lists(seeds_store, seen):
    result = classes.classes(seeds_store[0]["tuned"], mistakes=100)
    clips = seen.arms[1].clips
    wrong = [i for i, (label, one) in enumerate(zip(clips.labels, clips.together, strict=True)) if label != one]
    assert {seen.clips[clips.clips[i]] for i in wrong} == {mistake.clip for mistake in result.mistakes}
    confidence = {mistake.clip: mistake.confidence for mistake in result.mistakes}
    for i in wrong:
        assert clips.confidence[i] == pytest.approx(confidence[seen.clips[clips.clips[i]]], abs=1e-3)


def test_pairs_are_what_versus_says(seeds_store, seen):
    arms, _ = seeds_store
    pair = next(pair for pair in seen.pairs if (pair.first, pair.second) == (1, 2))
    result = versus.versus([*arms["tuned"], *arms["scratch"]])
    names = ("accuracy", "accuracy_other", "change", "change_low", "change_high", "folds_low", "gained", "lost", "fold")
    for row, expected in zip(pair.rows, result.rows, strict=True):
        for name in names:
            value = getattr(expected, name)
            if isinstance(value, float):
                assert (np.nan if row[name] is None else row[name]) == pytest.approx(value, abs=1e-5, nan_ok=True)
            else:
                assert row[name] == value
    assert pair.settings == [(each.setting, each.network, each.other) for each in result.settings]
    assert len(seen.pairs) == 3 and seen.n_more == 0


def test_pairs_are_compared_on_the_folds_that_both_have(runs):
    tuned, scratch = (
        [run for run in runs if (run.config.backbone, run.config.plan.title) == ("test_resnet", title)]
        for title in ("pretrained", "from scratch")
    )
    second = [run for run in tuned if run.config.fold == "2"]
    found = overview([*second, *scratch])
    assert [arm.folds for arm in found.arms] == [["2"], ["1", "2"]]
    (pair,) = found.pairs
    assert pair.rows[0]["n_clips"] == 8
    assert {row["fold"] for row in pair.rows} == {"", "2"}
    assert overview([*second, *(run for run in scratch if run.config.fold == "1")]).pairs == []


def test_an_arm_whose_folds_no_seed_has_is_named(runs):
    odd = [run for run in runs if (run.config.fold, run.config.seed) in (("1", 0), ("2", 1))]
    found = overview(odd)
    assert found.arms == []
    assert all("that every one of its 2 folds has" in words for words in found.left_out)
    assert len(found.left_out) == 3


def test_more_pairs_than_are_compared_are_counted(runs):
    tuned = [run for run in runs if run.config.plan.title == "pretrained"]
    many = [
        dataclasses.replace(
            run, config=dataclasses.replace(run.config, training=dataclasses.replace(run.config.training, lr=lr))
        )
        for lr in np.linspace(0.1, 0.2, 11).round(2).tolist()
        for run in tuned
        if run.config.seed == 0
    ]
    found = overview(many)
    assert (len(found.arms), len(found.pairs), found.n_more) == (11, MOST_PAIRS, 55 - MOST_PAIRS)


def test_curves_are_over_runs(runs, seen):
    tuned = [run.history["heldout_accuracy"] for run in runs if run.config.plan.title == "pretrained"]
    curve = seen.arms[1].curves["heldout_accuracy"]
    assert curve["mean"] == pytest.approx(np.mean(tuned, 0), abs=1e-5)
    assert curve["low"] == pytest.approx(np.min(tuned, 0), abs=1e-5)
    assert curve["high"] == pytest.approx(np.max(tuned, 0), abs=1e-5)


def test_it_is_json_and_predictions_are_left_out_where_they_do_not_fit(seen):
    text = json.dumps(seen.plain(), allow_nan=False)
    assert json.loads(text)["clips"] == seen.clips
    room = size(seen.arms[0].clips) + size(seen.arms[1].clips)
    kept = seen.within(room).plain()["arms"]
    assert [arm["clips"] is None for arm in kept] == [False, False, True]
    measured = len(json.dumps(dataclasses.asdict(seen.arms[0].clips)))
    assert size(seen.arms[0].clips) == pytest.approx(measured, rel=0.6)


def test_the_surest_mistakes_come_first_and_each_once(seen):
    found = surest(seen.sides, 100)
    assert len({clip for _, clip in found}) == len(found) > 3
    firsts = []
    for side in seen.sides:
        probabilities = softmax(side.members.logits).mean(0)
        wrong = np.flatnonzero(probabilities.argmax(1) != side.members.labels)
        if len(wrong):
            firsts.append(side.members.clips[wrong[probabilities.max(1)[wrong].argmax()]])
    assert [clip for _, clip in found][: len(set(firsts))] == list(dict.fromkeys(firsts))
    assert all(clip in run.clip_ids for run, clip in found)
    assert len(surest(seen.sides, 2)) == 2
