"""Augmented features: what they are, how near to those of shifted and stretched waveforms, and training on them."""

from __future__ import annotations

import dataclasses

import librosa
import numpy as np
import pytest
import torch

from transferlens.features import augment
from transferlens.features.augment import Augmentation, VariantCache
from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FeatureSettings
from transferlens.models.plan import TransferPlan
from transferlens.store.config import Training
from transferlens.training import objective
from transferlens.training.presets import TrainingOptions
from transferlens.util.errors import ParameterError

SR = 16_000


def chirps(seconds=2.0, seed=0):
    """A sum of gliding tones over noise."""
    rng, t = np.random.default_rng(seed), np.arange(round(SR * seconds)) / SR
    tones = sum(np.sin(2 * np.pi * (f * t + 50 * t**2)) for f in (300, 700, 1500, 3000))
    return (0.1 * tones + 0.001 * rng.normal(size=len(t))).astype(np.float32)


def settings(**options):
    return FeatureSettings(SR, width=100, **options)


# -------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("seconds", [None, 1.5, 3.0])
@pytest.mark.parametrize("kind", ["spectrum", "waveform"])
def test_the_first_variant_is_the_clip_as_it_is(kind, seconds):
    y, how = chirps(), settings(seconds=seconds)
    S = Augmentation(kind, 3).render(y, how)
    assert S.shape == (3, 3, 128, 100)
    np.testing.assert_allclose(S[0], how.compute(y, SR), atol=1e-4)


def test_draws_are_in_the_ranges_of_the_paper_and_of_each_clip_its_own():
    draws = [Augmentation("spectrum", 200).draws(clip) for clip in range(5)]
    assert all(each[0] == (0, 1.0) for each in draws)
    semitones, rates = np.array([each[1:] for each in draws]).reshape(-1, 2).T
    assert set(semitones) == {-2, -1, 0, 1, 2}
    assert 0.9 <= rates.min() < 0.91
    assert 1.19 < rates.max() <= 1.2
    assert len({str(each) for each in draws}) == 5
    assert Augmentation("spectrum", 200).draws(3) == draws[3]


def test_released_code_shifts_by_two_semitones_always_half_of_the_clips_of_an_epoch():
    draws = Augmentation("released", 50).draws(0)
    assert {semitones for semitones, _ in draws} == {2}
    assert len({rate for _, rate in draws}) == 50
    assert TrainingOptions(augment="released").training(TransferPlan()).draws == 2
    assert TrainingOptions(augment="released", draws=1).training(TransferPlan()).draws == 1


def test_a_small_parameter_mixes_almost_nothing():
    torch.manual_seed(0)
    shares = [augment.mix(torch.zeros(2, 1, 1, 1), 0.01)[2] for _ in range(500)]
    assert np.mean([0.01 < share < 0.99 for share in shares]) < 0.15


def test_both_ways_draw_the_same():
    assert Augmentation("spectrum", 4).draws(7) == Augmentation("waveform", 4).draws(7)


@pytest.mark.parametrize("semitones", [-2, -1, 1, 2])
def test_a_shifted_tone_is_the_tone_of_the_shifted_frequency(semitones):
    """Known answer: the features of a tone, shifted, are those of a tone of the other frequency."""
    t = np.arange(SR) / SR
    low, high = (0.5 * np.sin(2 * np.pi * f * t).astype(np.float32) for f in (1000, 1000 * 2 ** (semitones / 12)))
    (found,) = augment.from_spectrum(low, settings(), [(semitones, 1.0)])
    expected = settings().compute(high, SR)
    assert (found.mean(2).argmax(1) == expected.mean(2).argmax(1)).all()
    loud = expected > expected.max() - 4
    assert np.abs(found - expected)[loud].mean() < 0.25


def test_bands_above_what_was_recorded_are_empty_after_a_shift_down():
    noise = np.random.default_rng(0).normal(size=SR).astype(np.float32)
    (found,) = augment.from_spectrum(noise, settings(), [(-2, 1.0)])
    top = settings().mel_frequencies > SR / 2 * 2 ** (-2 / 12) + 200
    np.testing.assert_allclose(found[:, top], np.log(1e-6), atol=1e-3)
    assert found[:, ~top].min() > np.log(1e-6) + 1


def test_nearer_to_the_waveform_s_shift_than_a_semitone():
    y = chirps()
    ours = augment.from_spectrum(y, settings(), [(1, 1.0), (2, 1.0)])
    theirs = augment.from_waveform(y, settings(), [(2, 1.0)])[0]
    loud = theirs > np.quantile(theirs, 0.7)
    assert np.median(np.abs(ours[1] - theirs)[loud]) < 0.5 * np.median(np.abs(ours[0] - theirs)[loud])


def test_stretch_leaves_nothing_of_itself_where_clips_are_resized():
    y = chirps()
    slow, fast = augment.from_spectrum(y, settings(), [(0, 0.9), (0, 1.2)])
    np.testing.assert_array_equal(slow, fast)


@pytest.mark.parametrize("rate", [0.9, 1.2])
def test_stretch_acts_where_clips_are_padded(rate):
    y = np.zeros(2 * SR, np.float32)
    y[SR : SR + 800] = 0.5  # a click after 1 s
    (found,) = augment.from_spectrum(y, settings(seconds=2.5), [(0, rate)])
    theirs = settings(seconds=2.5).compute(librosa.effects.time_stretch(y, rate=rate), SR)
    expected = 1 / rate / 2.5 * 100
    for S in (found, theirs):
        assert abs(S[0].mean(0).argmax() - expected) <= 3
    quiet = round(2 / rate / 2.5 * 100) + 3
    np.testing.assert_allclose(found[:, :, quiet:], np.log(1e-6), atol=1e-3)


@pytest.mark.parametrize("n_samples", [1, 50, 1000])
@pytest.mark.parametrize("seconds", [None, 0.5])
@pytest.mark.parametrize("kind", ["spectrum", "waveform", "released"])
@pytest.mark.filterwarnings("ignore:n_fft=")
def test_short_clips(kind, n_samples, seconds):
    found = Augmentation(kind, 4).render(np.ones(n_samples, np.float32), settings(seconds=seconds), 1)
    assert found.shape == (4, 3, 128, 100)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("options", "message"), [(("mel", 8), "kind='mel'"), (("spectrum", 0), "variants=0")])
def test_bad_augmentations(options, message):
    with pytest.raises(ParameterError, match=message):
        Augmentation(*options)


@pytest.mark.parametrize("sr", [16000, 22050, 44100])
def test_lengths_below_the_longest_window_are_padded_alike(sr):
    y = np.random.default_rng(0).normal(size=sr // 20).astype(np.float32)
    made = FeatureSettings(sr=sr, n_fft=sr // 10, width=100, seconds=0.05)
    (found,) = augment.from_spectrum(y, made, [(1, 1.0)])
    plain = made.compute(y, made.sr)
    assert np.abs(found - plain).mean() < 1  # a semitone's difference, not that of silence


# --------------------------------------------------------------------------------------- masks and mixtures


def test_masks_hide_at_most_an_eighth_of_each_axis_and_the_mean_stays_about():
    torch.manual_seed(0)
    x = torch.randn(200, 3, 64, 80)
    hidden = augment.mask(x, 1) != x
    bands, frames = hidden.all(3).all(1).float().mean(1), hidden.all(2).all(1).float().mean(1)
    assert 0.1 < bands.max() <= 1 / 8 + 1 / 64
    assert 0.1 < frames.max() <= 1 / 8 + 1 / 64
    assert len(set(bands.tolist())) > 3  # of each clip its own
    assert torch.equal(augment.mask(x, 0), x)
    once = augment.mask(x[:1], 2)
    assert torch.isclose(once[once != x[:1]], x[:1].mean()).all()


def test_mixture_is_of_two_clips_of_the_batch():
    torch.manual_seed(0)
    x = torch.randn(16, 3, 8, 8)
    mixed, others, share = augment.mix(x, 0.4)
    assert 0 <= share <= 1
    torch.testing.assert_close(mixed, share * x + (1 - share) * x[others])
    shares = [augment.mix(x, 0.2)[2] for _ in range(400)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.07)
    assert np.var(shares) == pytest.approx(0.25 / 1.4, rel=0.15)  # of a beta distribution


# ------------------------------------------------------------------------------------------ cache and training


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    from conftest import write_clips

    return write_clips(tmp_path_factory.mktemp("augment") / "tones")


def study(tones, folder, weights_file, **options):
    from transferlens.training.sweep import Study

    given = {"epochs": 2, "batch_size": 8, "width": 32, "folds": ("1",)} | options
    return Study(
        clips=tones,
        backbone=("test_resnet",),
        weights=str(weights_file),
        device="cpu",
        runs=folder / "runs",
        cache=folder / "cache",
        **given,
    )


def test_cache_holds_the_variants_of_each_clip_after_another(tones, tmp_path, weights_file):
    data = study(tones, tmp_path, weights_file).data
    cache = data.variants(Augmentation("spectrum", 3))
    rows = cache.load().reshape(len(data.dataset.clips), 3, 3, 128, 32)
    plain = data.cache.load()
    np.testing.assert_allclose(rows[:, 0], plain, atol=0.004)
    clip = data.dataset.clips[5]
    expected = Augmentation("spectrum", 3).render(data.dataset.load(clip), data.cache.settings, 5)
    np.testing.assert_allclose(rows[5], expected, atol=0.004)
    (batch,) = data.batches([np.array([17, 1])], cache)
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch, rows.reshape(-1, 3, 128, 32)[[17, 1]].astype(np.float32))


class PartByPart(VariantCache):
    """A cache that is written four clips at a time, and is killed before clip `killed_before`."""

    part_rows = 8
    killed_before = 9

    def compute(self, number, clip):
        if number == self.killed_before:
            raise KeyboardInterrupt
        self.computed.append(number)
        return super().compute(number, clip)


def test_rendering_goes_on_where_it_was_killed(tones, tmp_path, weights_file):
    data = study(tones, tmp_path, weights_file).data
    cache = PartByPart(FeatureCache(data.dataset, data.cache.settings, tmp_path / "other"), Augmentation("spectrum", 2))
    cache.computed = []
    with pytest.raises(KeyboardInterrupt):
        cache.fill()
    assert not cache.is_complete()
    assert set(range(8)) <= set(cache.computed)
    cache.killed_before, cache.computed = -1, []
    cache.fill()
    assert sorted(cache.computed) == list(range(8, len(data.dataset.clips)))
    whole = data.variants(Augmentation("spectrum", 2))
    np.testing.assert_array_equal(cache.load(), whole.load())
    assert [path.name for path in (tmp_path / "other").iterdir()] == [cache.path.name]


@pytest.mark.parametrize("options", [{"augment": "spectrum"}, {"masks": 2}, {"mixup": 0.2}])
def test_training_on_them_repeats_and_is_another_run(options, tones, tmp_path, weights_file):

    without = study(tones, tmp_path, weights_file)
    plain = without.points(TransferPlan())[0]
    runs = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        made = study(tones, folder, weights_file, **options)
        (run,) = made.gather(made.points(TransferPlan())).values()
        runs.append(run)
    assert runs[0].config == runs[1].config
    assert runs[0].config.id != plain.id
    np.testing.assert_array_equal(runs[0].logits, runs[1].logits)
    assert runs[0].config.training == dataclasses.replace(plain.training, **options)
    assert not np.array_equal(runs[0].logits, without.gather([plain])[plain].logits)


def test_loss_of_a_mixture_is_that_of_both_labels_by_their_shares(monkeypatch):
    x, target = torch.randn(4, 3, 128, 32), torch.tensor([0, 1, 0, 1])
    others = torch.tensor([1, 0, 2, 3])
    monkeypatch.setattr(augment, "mix", lambda x, alpha: (0.3 * x + 0.7 * x[others], others, 0.3))
    logits = torch.randn(4, 2)
    soft = 0.3 * torch.eye(2)[target] + 0.7 * torch.eye(2)[target[others]]
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert torch.isclose(objective.loss(lambda x: logits, x, target, Training(mixup=0.2)), expected)


@pytest.mark.parametrize("memory", [None, 0.0])
def test_variants_are_drawn_anew_in_every_epoch_from_memory_or_a_file(memory, tones, tmp_path, weights_file):
    from transferlens.training.trainer import Trainer

    made = study(tones, tmp_path, weights_file, augment="spectrum", variants=5, memory=memory)
    (point,) = made.points(TransferPlan())
    trainer = Trainer(point, made.data, made.sources)
    parts = [np.arange(6), np.arange(6, 12)]
    epochs = [torch.cat(list(trainer._drawn(trainer.variants, parts, epoch))) for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    rows = trainer._inputs(torch.from_numpy(trainer.variants.load()[:60].astype(np.float32))).reshape(12, 5, -1)
    for clip, drawn in enumerate(epochs[2].flatten(1)):
        assert (rows[clip] == drawn).all(1).any()


def test_frozen_blocks_run_in_every_epoch_where_inputs_change(tones, tmp_path, weights_file):
    from transferlens.training.trainer import Trainer

    for options, start in (({}, 3), ({"masks": 1}, 0)):
        made = study(tones, tmp_path, weights_file, **options)
        (point,) = made.points(TransferPlan.freeze(2))
        assert Trainer(point, made.data, made.sources).start == start


def test_ids_of_runs_without_augmentation_are_those_of_before(tones, tmp_path, weights_file):
    from transferlens.store.config import RunConfig

    (point,) = study(tones, tmp_path, weights_file).points(TransferPlan())
    flat = point.flat()
    for name in ("augment", "variants", "draws", "masks", "mixup", "network"):
        del flat[name]  # as a run file of before has it
    assert RunConfig.from_flat(flat) == point
    assert Training(augment="spectrum").variants == 8
    assert Training(variants=8) == Training()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variants": 5}, "variants=5 goes with augment='spectrum', 'waveform' or 'released'"),
        ({"draws": 2}, "draws=2 goes with augment='spectrum', 'waveform' or 'released'"),
        ({"draws": 3}, "draws=3 must be 1 to 2"),
        ({"draws": 2, "augment": "spectrum", "variants": 1}, "variants=1 must be 2 or more with draws=2"),
    ],
)
def test_settings_without_effect_are_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        TrainingOptions(**given).training(TransferPlan())
    assert TrainingOptions(preset="paper", augment="none").training(TransferPlan()).draws == 1
