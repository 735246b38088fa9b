"""Intervals against scipy, and their edge cases."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.stats

from transferlens.errors import ParameterError
from transferlens.stats import Interval, by_fold, fold_means, mean_interval, standard_error


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_against_scipy(level):
    values = [0.81, 0.84, 0.79, 0.9, 0.83]
    low, high = scipy.stats.t.interval(level, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    interval = mean_interval(values, level=level)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((np.mean(values), low, high))
    assert interval.n == 5


def test_one_value_has_no_interval():
    interval = mean_interval([0.9])
    assert interval.mean == 0.9
    assert np.isnan([interval.low, interval.high]).all()
    assert str(interval) == "90.0 %, n = 1"


def test_cut_to_its_bounds():
    interval = mean_interval([1.0, 0.9])
    assert interval.high == 1.0
    assert interval.low >= 0.0
    assert mean_interval([0.1, -0.3], bounds=(-1, 1)).low == -1


def test_coverage_where_the_assumptions_hold():
    rng = np.random.default_rng(0)
    samples = rng.normal(0.5, 0.05, size=(4000, 5))
    covered = np.mean([(i := mean_interval(s)).low <= 0.5 <= i.high for s in samples])
    assert 0.94 <= covered <= 0.96


def test_corrected_for_shared_training_clips():
    """Nadeau and Bengio's variance, (1/n + n_test/n_train) s^2, on a worked example."""
    differences = [0.02, 0.05, -0.01, 0.04, 0.03]
    spread = np.std(differences, ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    low, high = scipy.stats.t.interval(0.95, 4, loc=np.mean(differences), scale=spread)
    interval = mean_interval(differences, bounds=(-1, 1), test_to_train=1 / 4)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    plain = mean_interval(differences, bounds=(-1, 1))
    assert (interval.high - interval.mean) / (plain.high - plain.mean) == pytest.approx(1.5)


def test_corrected_interval_covers_where_folds_share_clips():
    """The difference of two classifiers that are equally good for new data, over five-fold cross-validation."""
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 0.25: 0}
    for _ in range(2000):
        # What a fold finds: an effect of its training clips, three quarters of which it shares, and of its test clips.
        shared = rng.normal(0, 0.02)
        gains = np.sqrt(0.75) * shared + np.sqrt(0.25) * rng.normal(0, 0.02, 5) + rng.normal(0, 0.02, 5)
        for ratio in covered:
            interval = mean_interval(gains, bounds=(-1, 1), test_to_train=ratio)
            covered[ratio] += interval.low <= 0 <= interval.high
    assert covered[0.0] / 2000 < 0.85
    assert covered[0.25] / 2000 > 0.85


def test_an_interval_that_excludes_zero():
    assert Interval(0.1, 0.01, 0.2, 5).excludes_zero
    assert Interval(-0.1, -0.2, -0.01, 5).excludes_zero
    assert not Interval(0.1, -0.01, 0.2, 5).excludes_zero
    assert not mean_interval([0.3]).excludes_zero


def test_standard_error():
    values = [0.81, 0.84, 0.79]
    assert standard_error(values) == pytest.approx(scipy.stats.sem(values))
    assert np.isnan(standard_error([0.5]))


def test_by_fold_selects_and_averages_seeds():
    @dataclasses.dataclass
    class Row:
        fold: str
        arm: str
        value: float

    rows = [Row("1", "a", 0.1), Row("2", "a", 0.4), Row("1", "a", 0.3), Row("1", "b", 0.9)]
    assert by_fold(rows, "value", arm="a") == pytest.approx([0.2, 0.4])
    assert by_fold(rows, "value", arm="c") == []


def test_seeds_of_one_fold_count_once():
    assert fold_means([0.8, 1.0, 0.5], ["1", "1", "2"]) == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "at least 1 value"),
        ([[0.1]], 0.95, "one axis"),
        ([0.1], 1.0, "level=1.0 must lie between 0 and 1"),
    ],
)
def test_bad_input(values, level, message):
    with pytest.raises(ParameterError, match=message):
        mean_interval(values, level=level)


def test_bad_ratio():
    with pytest.raises(ParameterError, match="test_to_train=-1 must be 0 or more"):
        mean_interval([0.1, 0.2], test_to_train=-1)


def test_values_that_are_no_numbers():
    with pytest.raises(ParameterError, match="values must be finite"):
        mean_interval([0.5, float("nan")])
