"""The horizontal distance of curves of accuracies: known shifts, bounds, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from transferlens.measures import stats
from transferlens.measures.clips_worth import Curve, Times, over_folds, times, times_at
from transferlens.util.errors import ParameterError

CLIPS = [1, 2, 4, 8, 16, 32]


def shifted(factor, clips=CLIPS, top=0.9):
    """An accuracy that rises with the logarithm of the number of clips, at `factor` times the clips."""
    return Curve(clips, [top * (1 - np.exp(-0.4 * max(0.0, np.log2(n / factor) + 4))) for n in clips])


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_curve_that_is_shifted_needs_so_many_times_the_clips(factor):
    assert times(shifted(1), shifted(factor)).factor == pytest.approx(factor)
    assert times(shifted(factor), shifted(1)).factor == pytest.approx(1 / factor)
    at_two = shifted(1).accuracies[1]
    assert times_at(at_two, 2, shifted(factor)) == Times(pytest.approx(factor), "")


def test_shifts_between_the_numbers_of_clips():
    """Straight lines against the logarithm: their distance is exact wherever they are sampled."""
    one = Curve(CLIPS, [0.1 + 0.1 * np.log2(n) for n in CLIPS])
    other = Curve(CLIPS, [0.1 + 0.1 * np.log2(n / 3) for n in CLIPS])
    assert times(one, other).factor == pytest.approx(3)


def test_a_curve_that_ends_too_low_has_a_bound():
    one, other = Curve([1, 2, 4], [0.5, 0.7, 0.9]), Curve([1, 2, 4], [0.1, 0.2, 0.6])
    assert times_at(0.7, 2, other) == Times(2.0, "more than")
    assert times_at(0.05, 4, other) == Times(0.25, "less than")
    assert times(one, other).bound == ""
    low = Curve([1, 2, 4], [0.1, 0.2, 0.4])
    assert times(one, low) == Times(4.0, "more than")
    assert times(low, one) == Times(0.25, "less than")


def test_an_accuracy_is_reached_where_it_is_first_attained():
    curve = Curve([1, 2, 4, 8], [0.5, 0.3, 0.3, 0.7])
    assert curve.reaches(0.5) == 1
    assert curve.reaches(0.6) == pytest.approx(4 * 2**0.75)
    assert curve.reaches(0.8) == np.inf


@pytest.mark.parametrize("clips", [[], [1, 1], [2, 1], [0, 1], [1]])
def test_curves_that_are_none(clips):
    with pytest.raises(ParameterError, match="must be 2 numbers above 0 that increase"):
        Curve(clips, [0.1, 0.2])


def test_the_interval_is_that_of_the_logarithms_over_folds():
    folds, logs = stats.Folds([0.9] * 5, test_to_train=0.25), np.array([1.0, 1.5, 2.0, 2.5, 3.0])
    worth = over_folds([Times(value) for value in np.exp(logs)], folds)
    half = 2.776445 * logs.std(ddof=1) * np.sqrt(1 / 5 + 0.25)
    assert np.log([worth.factor, worth.low, worth.high]) == pytest.approx([2, 2 - half, 2 + half])
    assert worth.plain_low > worth.low
    assert "n = 5 folds" in str(worth)


def test_bounds_of_folds():
    folds = stats.Folds([0.9, 0.9])
    above = over_folds([Times(2.0), Times(8.0, "more than")], folds)
    assert (above.factor, above.bound, above.n_bounds) == (pytest.approx(4), "more than", 1)
    assert np.isnan(above.low)
    both = over_folds([Times(2.0, "less than"), Times(8.0, "more than")], folds)
    assert both.bound == "not known"
    assert "bounds on both sides" in str(both)
    assert str(over_folds([Times(2.0)], stats.Folds([0.9]))) == "2.0 times the clips, n = 1 fold"
