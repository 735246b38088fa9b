"""Corruptions of waveforms: each has the strength that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from transferlens.features.corruptions import CORRUPTIONS
from transferlens.util.errors import ParameterError

SR = 8000


def tone(hz=500.0, seconds=1.0):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(SR * seconds)) / SR)).astype(np.float32)


def power(y):
    return np.mean(np.square(y, dtype=float))


def apply(kind, y, strength, seed=0):
    return CORRUPTIONS[kind](y, strength, sr=SR, seed=seed)


@pytest.mark.parametrize("snr", [30, 10, 0])
def test_noise_has_the_ratio_asked_for(snr):
    y = tone()
    added = apply("noise", y, snr) - y
    assert 10 * np.log10(power(y) / power(added)) == pytest.approx(snr, abs=0.01)
    assert not np.array_equal(added, apply("noise", y, snr, seed=1) - y)
    np.testing.assert_array_equal(apply("noise", y, snr), apply("noise", y, snr))


def test_gain_is_in_decibels():
    assert 10 * np.log10(power(apply("gain", tone(), -20)) / power(tone())) == pytest.approx(-20, abs=1e-4)


def test_low_pass_keeps_lower_frequencies_and_removes_higher_ones():
    assert power(apply("low-pass", tone(200), 1000)) == pytest.approx(power(tone(200)), rel=0.01)
    assert power(apply("low-pass", tone(3000), 1000)) < 1e-3 * power(tone(3000))
    np.testing.assert_array_equal(apply("low-pass", tone(3000), SR), tone(3000))
    assert apply("low-pass", tone(seconds=0.001), 1000).shape == (8,)


@pytest.mark.parametrize("percent", [1, 20])
def test_clipping_touches_the_share_asked_for(percent):
    y = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    changed = apply("clipping", y, percent)
    assert np.mean(changed != y) == pytest.approx(percent / 100, abs=0.001)
    assert (np.abs(changed) <= np.abs(y)).all()


def test_shift_moves_the_end_to_the_start():
    y = np.arange(10.0)
    np.testing.assert_array_equal(apply("shift", y, 30), [7, 8, 9, 0, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_length_type_and_silence_stay_and_the_input_is_not_changed(kind):
    y, strengths = tone(), CORRUPTIONS[kind].strengths
    before = y.copy()
    for strength in strengths:
        changed = apply(kind, y, strength)
        assert (changed.shape, changed.dtype) == (y.shape, np.float32)
        assert np.isfinite(changed).all()
        assert not apply(kind, np.zeros(100, np.float32), strength).any()
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("y", [np.zeros(0), np.zeros((2, 3)), np.array([np.nan])])
def test_bad_waveforms_and_strengths(y):
    with pytest.raises(ParameterError, match="must be a waveform of finite samples"):
        apply("gain", y, 0)
    with pytest.raises(ParameterError, match="strength=nan must be finite"):
        apply("gain", tone(), np.nan)
