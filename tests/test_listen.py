"""What was used of a clip and what was ignored: sums, bands, times, files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from transferlens.explain import listen
from transferlens.features.logmel import FeatureSettings
from transferlens.util.errors import ParameterError

SR = 16_000


def tones(seconds=2.0, low=500.0, high=4000.0):
    t = np.arange(round(SR * seconds)) / SR
    return (0.4 * np.sin(2 * np.pi * low * t) + 0.4 * np.sin(2 * np.pi * high * t)).astype(np.float32)


def settings(**options):
    return FeatureSettings(SR, width=100, **options)


def power(y, hz):
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y)))) ** 2
    at = round(hz * len(y) / SR)
    return spectrum[at - 5 : at + 6].sum()


def test_mask_is_between_0_and_1_and_follows_what_is_positive():
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 100.0]])
    found = listen.mask(values)
    assert found.min() == 0
    assert found.max() == 1
    assert (np.diff(found[0, 1:]) > 0).all()
    assert not listen.mask(-np.ones((2, 3))).any()


@pytest.mark.parametrize("n_samples", [1, 100, SR, SR + 7])
def test_both_parts_sum_to_the_clip(n_samples):
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, n_samples).astype(np.float32)
    used, ignored = listen.split(y, rng.uniform(size=(128, 100)), settings())
    assert len(used) == len(ignored) == n_samples
    np.testing.assert_allclose(used + ignored, y, atol=1e-6)


@pytest.mark.parametrize(("value", "share"), [(1.0, 1.0), (0.0, 0.0), (0.25, 0.25)])
def test_even_masks_scale_the_clip(value, share):
    used, _ = listen.split(tones(), np.full((128, 100), value), settings())
    np.testing.assert_allclose(used, share * tones(), atol=1e-5)


def test_bands_are_those_of_the_features():
    mask = np.zeros((128, 100))
    mask[settings().mel_frequencies < 1500] = 1
    used, ignored = listen.split(tones(), mask, settings())
    assert power(used, 500) > 1e4 * power(used, 4000)
    assert power(ignored, 4000) > 1e4 * power(ignored, 500)


@pytest.mark.parametrize("seconds", [None, 2.0, 4.0, 1.0])
def test_frames_lie_where_the_features_have_them(seconds):
    """Of 2 s: stretched, as long, padded to 4 s, cropped to 1 s; the second quarter of the features is used."""
    y = tones(2.0)
    mask = np.zeros((128, 100))
    mask[:, 25:50] = 1
    used, _ = listen.split(y, mask, settings(seconds=seconds))
    extent = seconds or 2.0
    inside = np.abs(np.arange(len(y)) / SR / extent - 0.375) < 0.125 - 0.06 / extent
    outside = np.abs(np.arange(len(y)) / SR / extent - 0.375) > 0.125 + 0.06 / extent
    np.testing.assert_allclose(used[inside], y[inside], atol=0.02)
    assert np.abs(used[outside]).max() < 0.02


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_files_play_as_long_as_the_clip_unclipped_and_sum_to_it(gain, tmp_path):
    y = gain * tones()
    paths = listen.write(tmp_path, "tone", y, np.random.default_rng(0).uniform(size=(128, 100)), settings())
    assert [path.name for path in paths] == ["tone_clip.wav", "tone_used.wav", "tone_ignored.wav"]
    clip, used, ignored = (soundfile.read(path)[0] for path in paths)
    assert all(soundfile.info(path).samplerate == SR for path in paths)
    assert len(clip) == len(used) == len(ignored) == len(y)
    assert max(np.abs(each).max() for each in (clip, used, ignored)) < 1
    np.testing.assert_allclose(used + ignored, clip, atol=1e-4)
    np.testing.assert_allclose(clip / np.abs(clip).max(), y / np.abs(y).max(), atol=1e-4)


def test_mask_of_another_shape():
    with pytest.raises(
        ParameterError, match=r"used of shape \(64, 100\) must be a mask over features of shape \(128, 100\)"
    ):
        listen.split(tones(), np.zeros((64, 100)), settings())


def test_silence_is_written_as_silence(tmp_path):
    for path in listen.write(tmp_path, "quiet", np.zeros(SR, np.float32), np.ones((128, 100)), settings()):
        y, _ = soundfile.read(path)
        assert not y.any()
