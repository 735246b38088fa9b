"""Intervals against scipy, and their edge cases."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from transferlens.measures import stats
from transferlens.measures.stats import Interval, by_fold, fold_means, mean_interval, standard_error
from transferlens.util.errors import ParameterError


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
    rows = [SimpleNamespace(fold=fold) for fold in ("1", "1", "2")]
    assert fold_means([0.8, 1.0, 0.5], rows) == pytest.approx([0.9, 0.5])


def test_the_ratio_is_that_of_the_split_if_only_some_folds_are_there():
    """Two of five folds: trained on four times as many clips as were held out, as in the run of all five."""
    rows = [SimpleNamespace(fold=fold, n_train=320, n_clips=80, accuracy=0.9 + int(fold) / 100) for fold in "12"]
    folds = by_fold(rows, "accuracy")
    assert folds.test_to_train == 1 / 4
    assert same(stats.fold_interval(folds), mean_interval([0.91, 0.92], test_to_train=1 / 4))
    paired = stats.paired_difference(folds, [0.9, 0.9])
    assert paired == stats.paired_difference([*folds], [0.9, 0.9], test_to_train=1 / 4)
    assert by_fold([SimpleNamespace(fold=fold, accuracy=0.9) for fold in "123"], "accuracy").test_to_train == 1 / 2
    rows = [SimpleNamespace(fold=fold, inner_fold="9", accuracy=0.9) for fold in "123"]
    assert by_fold(rows, "accuracy").test_to_train == 1


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
    with pytest.raises(ParameterError, match="test_to_train=-1.0 must be at least 0"):
        mean_interval([0.1, 0.2], test_to_train=-1)


def test_values_that_are_no_numbers():
    with pytest.raises(ParameterError, match="values must be finite"):
        mean_interval([0.5, float("nan")])


# ------------------------------------------------------------------------------- wilson, bootstrap, pairs


def wilson(right, n):
    return stats.share_interval(np.repeat([1, 0], [right, n - right]))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, table I, method 3 (Wilson's score).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(right, n, low, high):
    found = wilson(right, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_paired_difference_is_scipys_paired_t_test_where_nothing_is_shared():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.8, 0.9, size=(2, 6))
    found, expected = stats.paired_difference(a, b, test_to_train=0), scipy.stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue)
    bounds = expected.confidence_interval()
    assert (found.interval.low, found.interval.high) == (pytest.approx(bounds.low), pytest.approx(bounds.high))


def test_corrected_t_statistic_by_its_formula():
    """Nadeau and Bengio 2003: the variance of the mean is (1/n + n_test/n_train) times that of the values."""
    differences = np.array([0.05, 0.02, 0.04, 0.01, 0.03])
    t = differences.mean() / np.sqrt((1 / 5 + 1 / 4) * differences.var(ddof=1))
    found = stats.paired_difference(differences, np.zeros(5), test_to_train=1 / 4)
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(t, 4))
    assert found.p_value > stats.paired_difference(differences, np.zeros(5), test_to_train=0).p_value


def test_pairs_without_spread_or_with_one_fold():
    for a, b in (([0.5, 0.6], [0.5, 0.6]), ([0.3, 0.6], [0.2, 0.5])):
        found = stats.paired_difference(a, b)
        assert np.isnan([found.p_value, found.interval.low, found.interval.high]).all()
        assert str(found).endswith("points (no interval: all values are equal), n = 2")
    assert np.isnan(stats.paired_difference([0.5], [0.4], test_to_train=1).p_value)
    with pytest.raises(ParameterError, match="a has 2 folds and b has 1"):
        stats.paired_difference([0.5, 0.6], [0.5], test_to_train=0)


def test_folds_without_spread():
    """All clips of all folds are right: Wilson's interval over the clips, or none if their number is not known."""
    found = stats.fold_interval(stats.Folds([1.0, 1.0, 1.0], n_clips=120))
    assert (found.low, found.high) == (wilson(120, 120).low, 1)
    assert str(found) == "100.0 % (95 % interval 96.9 to 100.0, Wilson's over 120 clips, as all folds are equal), n = 3"
    assert str(stats.fold_interval([1.0, 1.0])) == "100.0 % (no interval: all values are equal), n = 2"
    assert not stats.fold_interval(stats.Folds([0.1, 0.1], n_clips=120), bounds=(-1, 1)).is_bounded
    assert not stats.bootstrap_difference([1.0, 1.0, 1.0]).interval.excludes_zero


def test_the_plain_interval_stands_next_to_the_corrected_one():
    values = [0.90, 0.92, 0.94]
    found, plain = stats.fold_interval(values), mean_interval(values)
    assert (found.plain_low, found.plain_high) == (plain.low, plain.high)
    assert str(found) == "92.0 % (95 % interval 84.1 to 99.9, plain 87.0 to 97.0), n = 3"


def same(folds, expected):
    """Whether an interval over folds is another one, but for the plain one next to it."""
    return dataclasses.replace(folds, plain_low=np.nan, plain_high=np.nan).text("%") == expected.text("%")


def test_folds_of_one_cross_validation():
    values = [0.9, 0.95, 0.92, 0.97, 0.91]
    assert same(stats.fold_interval(values), mean_interval(values, test_to_train=1 / 4))
    assert stats.paired_difference(values, [0.9] * 5) == stats.paired_difference(values, [0.9] * 5, test_to_train=1 / 4)
    assert stats.fold_interval([0.9]).n == 1


def covered(intervals, truth):
    return np.mean([each.low <= truth <= each.high for each in intervals])


def test_nominal_95_percent_covers_93_to_97():
    """Where the assumptions hold: normal folds, many clips, networks as they are."""
    rng = np.random.default_rng(0)
    folds = [stats.mean_interval(rng.normal(0.8, 0.02, size=5)) for _ in range(2000)]
    assert 0.93 <= covered(folds, 0.8) <= 0.97
    clips = [wilson(right, 400) for right in rng.binomial(400, 0.9, size=2000)]
    assert 0.93 <= covered(clips, 0.9) <= 0.97
    pairs = rng.choice([-1, 0, 1], p=[0.05, 0.8, 0.15], size=(1000, 400))
    gains = [stats.bootstrap_difference(each, resamples=300).interval for each in pairs]
    assert 0.93 <= covered(gains, 0.1) <= 0.97


INTERVALS = [
    lambda x, **groups: mean_interval(x, **groups),
    lambda x, **groups: stats.bootstrap_difference(x, resamples=500, **groups).interval,
    lambda x, **groups: stats.share_interval(x, **groups),
]


@pytest.mark.parametrize("interval", INTERVALS)
def test_recordings_of_one_clip_each_are_clips(interval):
    x = np.random.default_rng(0).integers(2, size=60)
    assert interval(x, groups=[f"{i:02}" for i in range(60)]) == interval(x)


@pytest.mark.parametrize("interval", INTERVALS)
def test_copies_of_a_clip_tell_nothing_new(interval):
    x = np.random.default_rng(0).integers(2, size=60)
    once, copied = interval(x), interval(np.repeat(x, 5), groups=np.repeat([f"{i:02}" for i in range(60)], 5).tolist())
    assert copied.mean == once.mean
    assert copied.n == 300
    # But for the correction of shares for few recordings.
    assert (copied.low, copied.high) == (pytest.approx(once.low, abs=3e-3), pytest.approx(once.high, abs=3e-3))
    assert interval(np.repeat(x, 5)).low > copied.low + 0.04


def test_shares_without_spread_count_recordings():
    found = stats.share_interval(np.ones(400), groups=[str(i // 4) for i in range(400)])
    assert found.low == pytest.approx(wilson(100, 100).low, abs=1e-3)


def test_shares_of_networks_vary_less_than_hits():
    hits, shares = np.repeat([1.0, 0.0], [80, 20]), np.full(100, 0.8)
    bounds = scipy.stats.binomtest(80, 100).proportion_ci(method="wilson")
    assert (stats.share_interval(hits).low, stats.share_interval(hits).high) == pytest.approx((bounds.low, bounds.high))
    shares[:10], shares[10:20] = 1.0, 0.6
    assert stats.share_interval(shares).low > stats.share_interval(hits).low + 0.04


def test_clips_of_one_recording_have_no_interval():
    for interval in INTERVALS:
        assert str(interval([0, 1, 1, 0], groups=["a"] * 4)).endswith(
            "(no interval: all clips are of one recording), n = 4"
        )


def test_recordings_of_equal_means_have_no_interval():
    """They do not tell how far other recordings would be: the interval was of width 0."""
    values, groups = [0, 1, 1, 0], ["a", "a", "b", "b"]
    for interval in (mean_interval, stats.bootstrap_difference):
        assert str(interval(values, groups=groups)).endswith("(no interval: all recordings have equal means), n = 4")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0, 1, 1, 0], {"groups": "aabb"}, "groups has 1 names and there are 4 values"),
        ([0, 1, 1, 0], {"groups": [["a"], ["a", "b"], "c", "d"]}, r"groups=\['a'\] must be a string"),
        ([0, 1, 1, 0], {"groups": None}, "groups=None must be a string"),
        ([0, 1, 1, 0], {"level": "high"}, "level='high' must be a finite number"),
        ("high", {}, "values='high' must be numbers"),
    ],
)
def test_bad_clips(values, options, message):
    for interval in INTERVALS:
        with pytest.raises(ParameterError, match=message):
            interval(values, **options)


def test_adjusted_p_values():
    """Known answer: Benjamini and Hochberg 1995, section 4.1; of 15 tests, four are significant at 0.05."""
    p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459,
        0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1,
    ]  # fmt: skip

    def adjusted(p_values):
        differences = [stats.Difference(Interval(0, 0, 0, 5), p) for p in p_values]
        return [difference.p_adjusted for difference in stats.adjusted(differences)]

    assert sum(np.array(adjusted(p)) <= 0.05) == 4
    assert adjusted([0.03, np.nan]) == pytest.approx([0.03, np.nan], nan_ok=True)
    assert adjusted([]) == []


def test_p_values_of_the_bootstrap_agree_with_its_interval():
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = stats.bootstrap_difference(rng.choice([-1, 0, 1], p=[0.1, 0.7, 0.2], size=100), resamples=999)
        assert found.interval.excludes_zero <= (found.p_value <= 0.06)
        assert (found.p_value < 0.04) <= found.interval.excludes_zero
    assert np.isnan(stats.bootstrap_difference(np.zeros(9)).p_value)


def test_bad_groups():
    with pytest.raises(ParameterError, match="groups has 1 names and there are 2 values: give one per value"):
        stats.share_interval([0, 1], groups=["a"])
    with pytest.raises(ParameterError, match="values from 0 to 2 must be from 0 to 1"):
        stats.share_interval([0, 2])


@pytest.mark.parametrize(
    ("values", "message"), [([], "at least 1 value"), ([[1.0]], "one axis"), ([np.nan], "values must be finite")]
)
def test_bad_values_of_the_bootstrap(values, message):
    with pytest.raises(ParameterError, match=message):
        stats.bootstrap_difference(values)


def test_bootstrap_of_one_value_has_no_interval():
    found = stats.bootstrap_difference([1.0]).interval
    assert found.mean == 1
    assert np.isnan(found.low)
