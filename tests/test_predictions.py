"""Scores of predictions: known answers, and laws that hold for any."""

from __future__ import annotations

import numpy as np
import pytest

from transferlens.measures import predictions
from transferlens.measures.scoring import ONE
from transferlens.util.errors import ParameterError


def some(n_members=4, n_clips=60, n_classes=3, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_clips)
    logits = rng.normal(size=(n_members, n_clips, n_classes)) + sharpness * np.eye(n_classes)[labels]
    return predictions.softmax(logits), labels


def test_softmax_is_a_distribution_and_shifts_do_not_matter():
    logits = np.random.default_rng(0).normal(size=(3, 5, 4)) * 100
    found = predictions.softmax(logits)
    np.testing.assert_allclose(found.sum(-1), 1)
    np.testing.assert_allclose(found, predictions.softmax(logits + 1e4), atol=1e-9)
    with pytest.raises(ParameterError, match="logits must be finite"):
        predictions.softmax(np.array([np.nan, 0]))


def test_squared_error_of_a_member_is_that_of_the_ensemble_and_the_ambiguity():
    each, labels = some()
    single = predictions.brier(each, labels).mean(0)
    np.testing.assert_allclose(single, predictions.brier(each.mean(0), labels) + predictions.ambiguity(each))


def test_an_ensemble_is_at_least_as_likely_as_its_members():
    each, labels = some()
    assert (predictions.nll(each.mean(0), labels) <= predictions.nll(each, labels).mean(0) + 1e-12).all()


def test_known_scores():
    labels, sure = np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]]
    np.testing.assert_array_equal(predictions.accuracy(sure, labels), [1, 1, 0])
    np.testing.assert_array_equal(predictions.brier(sure, labels), [0, 0, 2])
    half = np.full((3, 2), 0.5)
    np.testing.assert_allclose(predictions.nll(half, labels), np.log(2))
    np.testing.assert_allclose(predictions.brier(half, labels), 0.5)
    assert np.isfinite(predictions.nll(sure, labels)).all()


def test_disagreement():
    one = np.eye(2)[[0, 0, 1, 1]]
    assert predictions.disagreement(np.stack([one, one])) == 0
    assert predictions.disagreement(np.stack([one, 1 - one])) == 1
    assert predictions.disagreement(one[None]) == 0
    assert predictions.disagreement(np.stack([one, one, 1 - one])) == pytest.approx(2 / 3)


def test_calibration_of_known_confidences():
    labels = np.array([0] * 8 + [1] * 2)
    right_8_of_10 = np.tile([0.8, 0.2], (10, 1))
    assert ONE.calibration_error(right_8_of_10, labels) == pytest.approx(0)
    assert ONE.calibration_error(np.tile([1.0, 0.0], (10, 1)), labels) == pytest.approx(0.2)
    probabilities = np.array([[0.95, 0.05], [0.55, 0.45]])
    confidence, accuracy, counts = predictions.reliability(probabilities, np.array([0, 1]), bins=10)
    np.testing.assert_allclose(confidence, [0.55, 0.95])
    np.testing.assert_array_equal(accuracy, [0, 1])
    np.testing.assert_array_equal(counts, [1, 1])


def test_a_calibrated_network_is_near_0_with_many_clips():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, size=100_000)
    labels = (rng.uniform(size=p.size) > p).astype(int)
    assert ONE.calibration_error(np.stack([p, 1 - p], axis=1), labels) < 0.01


def test_subsets_are_all_of_a_size_or_as_many_as_allowed():
    assert [*predictions.subsets(4, 2)] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    drawn = [*predictions.subsets(30, 15, most=50)]
    assert len(drawn) == 50
    assert all(len(set(each)) == 15 for each in drawn)
    assert drawn == [*predictions.subsets(30, 15, most=50)]
