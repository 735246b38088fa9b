"""Features: the paper's recipe against float64, the options, and the cache."""

from __future__ import annotations

import dataclasses
import os
import tracemalloc
import zlib
from types import SimpleNamespace

import h5py
import librosa
import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile
import torch
from conftest import write_clips

from transferlens.data import catalogue
from transferlens.features.augment import from_spectrum
from transferlens.features.cache import SEAL, FeatureCache, cached_clips, read_cached
from transferlens.features.logmel import FeatureOptions, FeatureSettings, log_mel, mel_filters, resize
from transferlens.measures.scoring import labels_of
from transferlens.util.errors import DataError, ParameterError


def reference(y, *, sr, n_fft, width=250):
    """Compute the paper's recipe with torch, in double precision."""
    mel = torch.from_numpy(librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=128, htk=True, norm=None, dtype=np.float64))
    channels = []
    for window, hop in ((25, 10), (50, 25), (100, 50)):
        length = round(window * sr / 1000)
        D = torch.stft(
            torch.from_numpy(y).double(),
            n_fft,
            round(hop * sr / 1000),
            length,
            window=torch.hann_window(length, dtype=torch.float64),
            pad_mode="reflect",
            return_complex=True,
        )
        S = torch.log(mel @ D.abs().square() + 1e-6)[None, None]
        channels.append(torch.nn.functional.interpolate(S, size=(128, width), mode="bilinear", antialias=True)[0, 0])
    return torch.stack(channels).numpy()


def sounds(sr, seconds=5.0):
    n = int(sr * seconds)
    t, rng = np.arange(n) / sr, np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal(n)
    return {
        "noise": noise,
        "loud tone": 0.9 * np.sin(2 * np.pi * 1000 * t),
        "noise then digital silence": np.where(t < 2, noise, 0),
        "quiet noise": 1e-4 * noise,
        "click": np.where(np.arange(n) == n // 3, 1.0, 0.0),
        "chirp": 0.5 * np.sin(2 * np.pi * (50 + 1500 * t) * t),
    }


@pytest.mark.parametrize("name", sounds(100))
@pytest.mark.parametrize(("sr", "n_fft"), [(44100, 4410), (22050, 2205)])
def test_paper_recipe_in_double_precision(name, sr, n_fft):
    y = sounds(sr)[name].astype(np.float32)
    error = np.abs(log_mel(y, sr=sr) - reference(y, sr=sr, n_fft=n_fft))
    assert np.mean(error <= 1e-3) >= 0.999
    assert error.max() <= 0.03


@pytest.mark.esc10
def test_paper_recipe_on_real_clips(esc10):
    for path in sorted((esc10.parent / "audio").iterdir())[::20]:
        y = soundfile.read(path, dtype="float32")[0]
        error = np.abs(log_mel(y, sr=44100) - reference(y, sr=44100, n_fft=4410))
        assert np.mean(error <= 1e-3) >= 0.999, path
        assert error.max() <= 0.03, path


def test_gtzan_width():
    y = sounds(22050, 30)["noise"].astype(np.float32)
    S = log_mel(y, sr=22050, width=1500)
    assert S.shape == (3, 128, 1500)
    assert S.dtype == np.float32
    np.testing.assert_allclose(S, reference(y, sr=22050, n_fft=2205, width=1500), atol=1e-3)


def test_silence_is_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(22050), sr=22050), np.log(1e-6), rtol=1e-6)


def test_gain_adds_a_constant():
    y = sounds(22050)["noise"]
    np.testing.assert_allclose(log_mel(2 * y, sr=22050) - log_mel(y, sr=22050), np.log(4), atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 551, 2204, 2205, 2206, 3308])
def test_clip_shorter_than_a_window_is_padded(n):
    y = np.random.default_rng(0).standard_normal(n)
    S = log_mel(y, sr=22050)
    assert S.shape == (3, 128, 250)
    assert np.isfinite(S).all()
    np.testing.assert_array_equal(S, log_mel(np.pad(y, (0, max(0, 2205 - n))), sr=22050))


@pytest.mark.parametrize("sr", [8000, 11025, 16000, 48000, 96000])
def test_any_sample_rate(sr):
    y = sounds(sr, 1)["chirp"]
    assert np.isfinite(log_mel(y, sr=sr)).all()


def test_one_window_on_three_channels():
    y = sounds(22050)["chirp"]
    S = log_mel(y, sr=22050, windows=(0.05,) * 3, hops=(0.025,) * 3, n_fft=2205)
    np.testing.assert_array_equal(S[0], S[1])
    np.testing.assert_array_equal(S[0], log_mel(y, sr=22050)[1])


def in_one_piece(y, settings, semitones=0):
    """Compute the features from the whole spectrogram of a clip, which is at least as long as the transform."""
    S = np.empty(settings.shape, np.float32)
    for (win_length, hop_length), channels in settings.resolutions.items():
        padded = np.pad(y.astype(np.float32), settings.n_fft // 2, mode="reflect")
        padded = padded[(settings.n_fft - win_length) // 2 :]
        frames = librosa.util.frame(padded, frame_length=win_length, hop_length=hop_length, axis=0)
        frames = frames[: 1 + (len(y) - settings.n_fft % 2) // hop_length]
        D = scipy.fft.rfft(frames * scipy.signal.get_window("hann", win_length), n=settings.n_fft, axis=1)
        power = (D.real**2 + D.imag**2).T.astype(np.float32)
        filters = mel_filters(settings.sr, settings.n_fft, settings.n_mels, semitones)
        S[channels] = resize(np.log(filters @ np.ascontiguousarray(power) + np.float32(1e-6)), settings.width)
    return S


@pytest.mark.parametrize(
    ("sr", "n_fft", "n"),
    [(44100, None, 220500), (22050, None, 110250), (22050, None, 2205), (22050, 2206, 2206), (8000, 2048, 63999)],
)
def test_features_in_pieces_have_the_bits_of_the_whole(sr, n_fft, n):
    y = sounds(sr, n / sr)["noise"].astype(np.float32)
    settings = FeatureSettings(sr, n_fft)
    np.testing.assert_array_equal(settings.compute(y, settings.sr), in_one_piece(y, settings))
    shifted = from_spectrum(y, settings, [(0, 1.0), (2, 1.0)])
    np.testing.assert_array_equal(shifted, [in_one_piece(y, settings, semitones) for semitones in (0, 2)])


def test_a_long_clip_needs_no_memory_for_its_spectrogram():
    y, settings = np.zeros(60 * 16000, np.float32), FeatureSettings(16000)
    settings.compute(y[:16000], settings.sr)  # loads what is loaded at first use
    tracemalloc.start()
    settings.compute(y, settings.sr)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    spectrogram = 4 * (settings.n_fft // 2 + 1) * len(y) / 160
    assert peak < spectrogram / 2


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((2, 100)), r"y of shape \(2, 100\).*mono waveform"),
        (np.zeros(0), r"y of shape \(0,\).*non-empty"),
        (np.zeros(100, int), "dtype int64.*floats"),
        (np.array([0.0, np.nan]), "y must hold finite samples"),
        (np.array([0.0, 1e20]), "y must hold finite samples up to 1e6"),
    ],
)
def test_bad_waveform(y, message):
    with pytest.raises(ParameterError, match=message):
        log_mel(y, sr=22050)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sr": 0}, "sr=0 must be 1000 to 768000 Hz"),
        ({"n_mels": 0}, "n_mels=0 must be 1 to 4096"),
        ({"width": -1}, "width=-1 must be 1 to 100000 frames"),
        ({"width": 2.5}, "width=2.5 must be a whole number"),
        ({"windows": (float("nan"),) * 3}, "windows=nan must be a finite number"),
        ({"hops": (float("inf"),) * 3}, "hops=inf must be a finite number"),
        ({"windows": (0.1,)}, "must have the same length"),
        ({"windows": (), "hops": ()}, "must have the same length, at least 1"),
        ({"hops": (0.0, 0.1, 0.1)}, "hops=.* must each be at least one sample"),
        ({"n_fft": 100}, "n_fft=100 must be at least 2205 samples, the longest window"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ParameterError, match=message):
        log_mel(np.zeros(22050), **({"sr": 22050} | options))


def test_fit_pad_keeps_seconds_equally_wide():
    """A clip of half the length fills half the width; stretched, it fills the full width."""
    y = sounds(8000, 1)["noise"]
    padded = FeatureSettings(8000, width=64, seconds=2.0).compute(y, 8000)
    silence = np.log(np.float32(1e-6))
    assert (padded[0, :, 34:] == silence).all()
    assert (padded[0, :, :30] > silence).all()
    assert (FeatureSettings(8000, width=64).compute(y, 8000)[0] > silence).all()


def test_fit_pad_crops():
    y = sounds(8000, 3)["chirp"]
    np.testing.assert_array_equal(
        FeatureSettings(8000, width=64, seconds=2.0).compute(y, 8000), log_mel(y[:16000], sr=8000, width=64)
    )


def test_options_need_one_or_three_windows(clips):
    dataset = catalogue.open_dataset(clips=clips)
    assert FeatureOptions(windows=(0.05,), hops=(0.02,)).settings(dataset).windows == (0.05,) * 3
    with pytest.raises(ParameterError, match="must be 3 lengths, or 1 for all"):
        FeatureOptions(windows=(0.05, 0.1), hops=(0.02, 0.02)).settings(dataset)


@pytest.fixture
def small(clips):
    dataset = catalogue.open_dataset(clips=clips)
    return dataset, FeatureSettings(dataset.sr, width=32)


def test_cache_holds_the_features_in_the_clips_order(small, tmp_path):
    dataset, settings = small
    cache = FeatureCache(dataset, settings, tmp_path)
    assert not cache.is_complete()
    cache.fill()
    assert cache.is_complete()
    for row, clip in zip(cache.load(), dataset.clips, strict=True):
        # Not bit by bit: the mel product is rounded otherwise where BLAS has more than one thread.
        np.testing.assert_allclose(row, settings.compute(dataset.load(clip), dataset.sr), rtol=0, atol=1e-5)


def test_facts_about_all_clips_are_computed_once(small, tmp_path):
    """As they are read clip by clip, computing them each time takes the square of the number of clips."""
    dataset, settings = small
    cache = FeatureCache(dataset, settings, tmp_path)
    for owner, name in [(cache, "names"), *((dataset, name) for name in ("label_names", "folds"))]:
        assert getattr(owner, name) is getattr(owner, name)
    assert [dataset.label_names[i] for i in labels_of(dataset)] == [clip.label for clip in dataset.clips]


def test_audio_that_changes_while_features_are_computed_is_named(tmp_path):
    clips = write_clips(tmp_path / "tones", folds=("1", "2"), each=1)
    dataset = catalogue.open_dataset(clips=clips)
    cache = FeatureCache(dataset, FeatureSettings(dataset.sr, width=32), tmp_path)
    path = dataset.clips[1].path
    path.write_bytes(dataset.clips[0].path.read_bytes())
    with pytest.raises(DataError, match=rf"1 of 4 clips .*: {path} has changed since the command began: run it again"):
        cache.fill()
    assert not cache.is_complete()


def test_second_use_reads(small, tmp_path, monkeypatch):
    dataset, settings = small
    cache = FeatureCache(dataset, settings, tmp_path)
    cache.fill()
    monkeypatch.setattr(FeatureCache, "compute", lambda *args: pytest.fail("computed again"))
    FeatureCache(dataset, settings, tmp_path).fill()


def test_changed_setting_or_clip_makes_a_new_cache(small, tmp_path):
    dataset, settings = small
    keys = {FeatureCache(dataset, settings, tmp_path).key}
    for change in ({"width": 33}, {"sr": 16000, "n_fft": None}, {"seconds": 1.0}, {"n_mels": 64}):
        keys.add(FeatureCache(dataset, dataclasses.replace(settings, **change), tmp_path).key)
    clip = dataset.clips[0]
    copy = tmp_path / "copy.wav"
    copy.write_bytes(clip.path.read_bytes())
    moved = dataclasses.replace(dataset, clips=(dataclasses.replace(clip, path=copy), *dataset.clips[1:]))
    assert FeatureCache(moved, settings, tmp_path).key in keys
    copy.write_bytes(copy.read_bytes()[:-2] + b"\x01\x02")
    keys.add(FeatureCache(moved, settings, tmp_path).key)
    assert len(keys) == 6


def test_damaged_cache_is_made_anew(small, tmp_path):
    dataset, settings = small
    cache = FeatureCache(dataset, settings, tmp_path)
    cache.fill()
    whole = cache.load().copy()
    cache.path.write_bytes(cache.path.read_bytes()[:5000])
    assert not cache.is_complete()
    cache.fill()
    np.testing.assert_array_equal(cache.load(), whole)


@pytest.mark.parametrize(
    ("sr", "message"),
    [
        (44100, r"sr=44100 must be 22050 .* resample, y = librosa.resample\(y, orig_sr=44100, target_sr=22050\)"),
        ("22050", r"sr='22050' must be 22050 \[Hz\], the rate of these features$"),
        (-1, r"sr=-1 must be 22050 \[Hz\], the rate of these features$"),
        (float("nan"), "sr=nan must be 22050 .* these features$"),
        (None, "sr=None must be 22050 .* these features$"),
    ],
)
def test_features_are_of_clips_at_their_own_rate(sr, message):
    with pytest.raises(ParameterError, match=message):
        FeatureSettings(22050).compute(np.zeros(22050), sr)


def test_interrupted_extraction_leaves_nothing(small, tmp_path, monkeypatch):
    dataset, settings = small
    whole = FeatureSettings.compute
    seen = []

    def interrupted(self, y, sr):
        seen.append(1)
        if len(seen) > 5:
            raise KeyboardInterrupt
        return whole(self, y, sr)

    monkeypatch.setattr(FeatureSettings, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(dataset, settings, tmp_path).fill()
    assert not list(tmp_path.iterdir())


def test_all_unreadable_clips_are_named_at_once(small, tmp_path):
    dataset, settings = small
    broken = []
    for clip, name in zip(dataset.clips[:2], ("one.wav", "two.wav"), strict=True):
        (tmp_path / name).write_text("no sound")
        broken.append(dataclasses.replace(clip, path=tmp_path / name))
    dataset = dataclasses.replace(dataset, clips=(*broken, *dataset.clips[2:]))
    with pytest.raises(DataError, match=r"2 of 24 clips.*one\.wav.*two\.wav.*skip_unreadable"):
        FeatureCache(dataset, settings, tmp_path / "cache").fill()
    assert not list((tmp_path / "cache").iterdir())


def test_cache_says_what_it_holds(small, tmp_path):
    dataset, settings = small
    cache = FeatureCache(dataset, settings, tmp_path)
    cache.fill()
    with h5py.File(cache.path) as file:
        assert list(file["clip_ids"].asstr()) == [clip.id for clip in dataset.clips]
        assert '"width": 32' in file.attrs["settings"]


@pytest.mark.parametrize(("sr", "n_fft", "n_mels"), [(44_100, 4410, 128), (22_050, 2205, 128), (8000, 512, 40)])
def test_mel_bands_are_librosa_s(sr, n_fft, n_mels):
    expected = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, htk=True, norm=None)
    np.testing.assert_allclose(mel_filters(sr, n_fft, n_mels).toarray(), expected, atol=2e-6)


def test_shifted_mel_bands_read_lower_frequencies():
    plain, shifted = (mel_filters(16_000, 2048, 64, semitones).toarray() for semitones in (0, 12))
    np.testing.assert_allclose(shifted[:, :512], plain[:, :1024:2], atol=1e-6)  # an octave: half the bin


class PartByPart(FeatureCache):
    """A cache that is written a few clips at a time, and can be killed before one of them."""

    part_rows = 8
    killed_before = -1

    def __init__(self, *given):
        super().__init__(*given)
        self.computed = []

    def compute(self, number, clip):
        if number == self.killed_before:
            raise KeyboardInterrupt
        self.computed.append(number)
        return super().compute(number, clip)


class Killed(PartByPart):
    killed_before = 20


def test_two_that_fill_one_cache_both_end_with_it(small, tmp_path):
    """The other one ends, and takes its parts away, while this one computes its last part."""

    class Slow(PartByPart):
        def compute(self, number, clip):
            if number == 20:
                other.fill()
            return super().compute(number, clip)

    one, other = Slow(*small, tmp_path), PartByPart(*small, tmp_path)
    one.fill()
    assert sorted(one.computed) == list(range(24))
    assert sorted(other.computed) == list(range(16, 24))
    assert one.is_complete()
    assert {path.name for path in tmp_path.iterdir()} == {one.path.name}


@pytest.fixture
def killed(small, tmp_path):
    """A cache whose first two parts of three were written, and the folder of the parts."""
    cache = Killed(*small, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.fill()
    return cache, cache.path.with_suffix(".parts")


@pytest.mark.parametrize("damage", ["flipped", "short", "long", "text", "empty"])
def test_a_part_that_is_damaged_is_made_again(small, tmp_path, killed, damage):
    cache, parts = killed
    content = (parts / "8").read_bytes()
    flipped = bytearray(content)
    flipped[5000] ^= 1
    damaged = {"flipped": flipped, "short": content[:-4], "long": content + b"0000", "text": b"hello", "empty": b""}
    (parts / "8").write_bytes(damaged[damage])
    again, whole = PartByPart(*small, tmp_path), FeatureCache(*small, tmp_path / "whole")
    again.fill()
    whole.fill()
    assert sorted(again.computed) == list(range(8, 24))
    np.testing.assert_array_equal(again.load(), whole.load())
    assert not parts.exists()


def test_whole_parts_are_used_and_count_as_room(small, tmp_path, killed, monkeypatch):
    cache, parts = killed
    free = 1.05 * (2 * cache.nbytes - sum(part.stat().st_size for part in parts.iterdir())) + 1e6
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    again = PartByPart(*small, tmp_path)
    again.fill()
    assert sorted(again.computed) == list(range(16, 24))
    with pytest.raises(DataError, match="make room"):
        FeatureCache(*small, tmp_path / "other").fill()


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    path.write_bytes(content)
    return bytes(content)


@pytest.fixture
def filled(small, tmp_path):
    """A complete cache and its features."""
    cache = FeatureCache(*small, tmp_path)
    cache.fill()
    return cache, np.array(cache.load())


@pytest.mark.parametrize("place", [8, 100, 2000, 0.5, 0.99, -10, -1])
def test_a_flipped_bit_anywhere_is_seen_by_all_readers_and_mended(filled, caplog, place):
    """In the headers, the features, the ids or the checksum: the file is kept beside, and computed again."""
    cache, features = filled
    damaged = flip(cache.path, place)
    assert not cache.is_complete()
    for read in (
        lambda: cached_clips(cache.path),
        lambda: read_cached(cache.path, cache.key, cached_clips(cache.path)),
    ):
        with pytest.raises(DataError, match=r"is not a readable feature cache \(.*\): run the same command again with"):
            read()
    np.testing.assert_array_equal(cache.load(), features)
    aside = cache.path.with_name(f"{cache.path.name}.damaged")
    assert aside.read_bytes() == damaged
    assert f"{cache.path} is moved to {aside.name} and computed again: " in caplog.text
    assert cache.is_complete()


@pytest.mark.parametrize("change", ["cut", "appended", "gone", "other", "other type", "other order", "text"])
def test_what_is_not_this_cache_is_computed_again(filled, change):
    cache, features = filled
    content = cache.path.read_bytes()
    if change.startswith("other"):
        with h5py.File(cache.path, "r+") as file:
            if change == "other":
                file.attrs["key"] = "0" * 64
            elif change == "other order":
                file["clip_ids"][:] = file["clip_ids"][:][::-1]
            else:
                values = file["features"][()]
                del file["features"]
                file["features"] = values.astype("f8")
        SEAL.write(cache.path)
    elif change == "gone":
        cache.path.unlink()
    else:
        cache.path.write_bytes({"cut": content[:-1], "appended": content + b"0", "text": b"hello"}[change])
    assert not cache.is_complete()
    np.testing.assert_array_equal(cache.load(), features)
    assert cache.is_complete()


def older(cache, **layout):
    """The cache as older versions wrote it: without a checksum of the file, but of the features."""
    features = np.array(cache.load())
    with h5py.File(cache.path, "r") as file:
        attributes, clip_ids = dict(file.attrs), file["clip_ids"][:]
    with h5py.File(cache.path, "w") as file:
        file.create_dataset("features", data=features, **layout)
        file["clip_ids"] = clip_ids
        file.attrs.update(attributes | ({} if layout else {"crc32": zlib.crc32(features.tobytes())}))


@pytest.mark.parametrize("layout", [{}, {"chunks": (1, 3, 128, 32), "fletcher32": True}])
def test_caches_of_older_versions_are_read_and_checked(filled, layout, monkeypatch):
    cache, features = filled
    older(cache, **layout)
    content = cache.path.read_bytes()
    assert cache.is_complete()
    np.testing.assert_array_equal(cache.load(), features)
    assert cache.path.read_bytes() == content
    clips = cached_clips(cache.path)
    np.testing.assert_array_equal(read_cached(cache.path, cache.key, clips), features)
    flip(cache.path, content.index(features[3].tobytes()) + 100)
    assert not cache.is_complete()
    with pytest.raises(DataError, match="is not a readable feature cache"):
        read_cached(cache.path, cache.key, clips)


def test_a_verified_cache_is_mapped_and_not_read_again(filled, monkeypatch):
    cache, features = filled
    os.utime(cache.path, (0, 0))
    verified, open_ = [], type(cache.path).open
    monkeypatch.setattr(type(cache.path), "open", lambda self, *given: verified.append(self) or open_(self, *given))
    for _ in range(3):
        mapped = cache.load()
        assert cache.is_complete()
    assert isinstance(mapped, np.memmap)
    assert verified == [cache.path]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            BlockingIOError(11, "unable to lock file, errno = 11"),
            "it cannot be locked .*set HDF5_USE_FILE_LOCKING=FALSE",
        ),
        (OSError("unable to lock file, errno = 37, error message = 'No locks available'"), "No locks available"),
        (PermissionError(13, "Permission denied"), "Permission denied: ask its owner"),
        (MemoryError(), "Cannot allocate memory: end other programs"),
    ],
)
def test_a_cache_that_the_machine_cannot_read_is_not_computed_again(filled, monkeypatch, error, message):
    cache, _ = filled

    def failing(*given, **options):
        raise error

    content = cache.path.read_bytes()
    monkeypatch.setattr(h5py, "File", failing)
    for read in (cache.is_complete, cache.fill, cache.load, lambda: cached_clips(cache.path)):
        with pytest.raises(DataError, match=f"cannot be read: .*{message}"):
            read()
    assert {path.name: path.read_bytes() for path in cache.path.parent.iterdir()} == {cache.path.name: content}
