"""Audio files that lie or are damaged: what is decoded counts, and whatever a decoder raises names the file."""

import os
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from audio_files import SR, add, table, two_by_two, write

from transferlens import cli, datasets
from transferlens.data import decoding
from transferlens.data.audit import audit
from transferlens.data.catalogue import DataOptions, open_dataset
from transferlens.data.clips import load_audio
from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FeatureOptions
from transferlens.util.errors import DataError, ParameterError

RATE = 16000
FORMATS = {
    "a.wav": {},
    "float.wav": {"subtype": "FLOAT"},
    "adpcm.wav": {"subtype": "IMA_ADPCM"},
    "gsm.wav": {"subtype": "GSM610"},
    "a.flac": {},
    "a.ogg": {},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {},
    "a.aiff": {},
    "a.au": {},
    "a.caf": {},
    "alac.caf": {"subtype": "ALAC_16"},
    "a.w64": {},
    "a.rf64": {"format": "RF64"},
    "a.svx": {},
    "a.voc": {},
    "a.nist": {"format": "NIST"},
    "a.mat": {"format": "MAT5"},
    "a.avr": {},
    "a.wve": {"format": "WVE", "subtype": "ALAW"},
}


def noise(seconds=2.0, sr=RATE):
    rng = np.random.default_rng(0)
    return 0.3 * np.convolve(rng.standard_normal(round(seconds * sr)), np.ones(8) / 8, "same")


def encoded(path, y=None, sr=RATE, **options):
    return write(path, noise() if y is None else y, 8000 if path.suffix == ".wve" else sr, **options)


def damaged(path, content):
    path.write_bytes(content)
    return path


def cut(path, part=0.4):
    content = path.read_bytes()
    return damaged(path, content[: int(part * len(content))])


def holed(path):
    """Zeros over a twentieth of the file, in its middle."""
    content, n = path.read_bytes(), path.stat().st_size
    return damaged(path, content[: n // 2] + bytes(n // 20) + content[n // 2 + n // 20 :])


def unknown_length(path):
    """A FLAC as an encoder leaves it that writes to a pipe: it states 0 samples."""
    content = bytearray(encoded(path).read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return damaged(path, bytes(content))


@pytest.fixture
def clips(tmp_path):
    return two_by_two(tmp_path)


def listed(clips, path):
    """Add a file that is there to a table."""
    clips.write_text(f"{clips.read_text()}{path.name},dog,2\n")
    return clips


# ------------------------------------------------------------------------------------------------- in pieces


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_decoded_in_pieces_has_the_bits_of_the_whole(tmp_path, monkeypatch, name):
    path = encoded(tmp_path / name, **FORMATS[name])
    whole, native = soundfile.read(path, dtype="float32")
    for block in (decoding.BLOCK, 10_000):
        monkeypatch.setattr(decoding, "BLOCK", block)
        np.testing.assert_array_equal(decoding.decode(path)[0], whole)
        resampled, n = soxr.resample(whole, native, 22050, quality="HQ"), -(-len(whole) * 22050 // native)
        np.testing.assert_array_equal(load_audio(path, sr=22050), np.pad(resampled, (0, 1))[:n])


@pytest.mark.parametrize("channels", [3, 12])
def test_channels_are_mixed_in_pieces_as_in_the_whole(tmp_path, monkeypatch, channels):
    y = np.random.default_rng(0).uniform(-0.5, 0.5, (5000, channels))
    path = write(tmp_path / "a.wav", y, subtype="FLOAT")
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1, dtype=np.float32)
    for block in (decoding.BLOCK, 1000):
        monkeypatch.setattr(decoding, "BLOCK", block)
        np.testing.assert_array_equal(decoding.decode(path)[0], expected)


def test_a_long_file_is_decoded_in_the_memory_of_its_result(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", np.zeros((10**6, 4)), 48000)
    monkeypatch.setattr(decoding, "BLOCK", 2**16)
    tracemalloc.start()
    y = load_audio(path, sr=8000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * y.nbytes < 4e6  # the samples of the file are 16 MB


def test_flac_of_unknown_length_is_decoded_to_its_end(tmp_path, clips):
    path = unknown_length(tmp_path / "piped.flac")
    expected = soundfile.read(encoded(tmp_path / "known.flac"), dtype="float32")[0]
    np.testing.assert_array_equal(load_audio(path, sr=RATE), expected)
    dataset = open_dataset(clips=listed(clips, path))
    assert dataset.seconds == 2
    assert audit(dataset).findings == ()
    with pytest.raises(DataError, match=r"piped\.flac is longer than 1 s, the longest that is allowed: cut"):
        load_audio(path, sr=RATE, longest=1)


# -------------------------------------------------------------------------------- facts come from what decodes


def test_a_header_that_states_too_much_does_not_pad_the_data_set(tmp_path, clips):
    path = cut(encoded(tmp_path / "long.mp3", noise(30)), 0.05)
    dataset = open_dataset(clips=listed(clips, path))
    assert 1 < dataset.seconds < 2
    assert dataset.seconds == len(load_audio(path, sr=RATE)) / RATE
    assert FeatureOptions(fit="pad").settings(dataset).seconds == dataset.seconds
    (found,) = audit(dataset).findings
    assert (found.kind, found.clips, found.serious) == ("cut short", ("long.mp3",), False)
    assert found.message == f"decodes to {dataset.seconds:.1f} s, its header says 30.0 s"


def test_damage_in_the_middle_counts_if_the_whole_file_is_decoded(tmp_path, clips):
    path = holed(encoded(tmp_path / "a.flac"))
    dataset = open_dataset(clips=listed(clips, path))
    clip = next(clip for clip in dataset.clips if clip.path == path)
    assert dataset.length(clip) == (2 * RATE, RATE)
    with pytest.raises(DataError, match=r"a\.flac cannot be decoded"):
        dataset.length(clip, whole=True)
    built_in = open_dataset()
    assert built_in.length(built_in.clips[0])[0] == len(built_in.decode(built_in.clips[0])[0])


@pytest.mark.parametrize("damage", [cut, holed])
def test_files_that_are_left_out_do_not_decide(tmp_path, clips, damage):
    for i in range(5):
        add(clips, f"{i}.flac", y=noise(2, 48000), sr=48000)
        damage(tmp_path / f"{i}.flac")
    dataset = DataOptions(clips=clips, skip_unreadable=True).open()
    assert (dataset.sr, dataset.seconds, len(dataset.skipped)) == (SR, 0.3, 5)
    if damage is cut:  # it shows at the end of the file
        assert open_dataset(clips=clips).sr == SR


def test_facts_of_whole_files_are_those_of_their_headers(tmp_path):
    for name, options in FORMATS.items():
        path = encoded(tmp_path / name, **options)
        info = soundfile.info(path)
        assert decoding.length(path) == (info.frames, info.samplerate), name


# ------------------------------------------------------------------------------------------ the audit names


@pytest.mark.parametrize("name", FORMATS)
def test_the_audit_names_a_file_that_was_cut_in_every_format(tmp_path, clips, name):
    path = encoded(tmp_path / name, noise(4), **FORMATS[name])
    seconds = soundfile.info(path).duration
    assert audit(open_dataset(clips=listed(clips, path))).findings == ()
    cut(path)
    (found,) = audit(open_dataset(clips=clips)).findings
    assert found.clips == (name,)
    if found.kind == "unreadable":
        assert path.suffix in (".flac", ".caf")
    elif path.suffix in (".ogg", ".opus", ".voc"):
        assert found.kind == "cut short"
        assert found.message.endswith("s, and its end is missing")
    else:
        assert found.kind == "cut short"
        decoded, stated = map(float, re.fullmatch(r"decodes to (.*) s, its header says (.*) s", found.message).groups())
        assert decoded < seconds / 2
        assert stated == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_the_audit_names_damage_in_the_middle_of_an_ogg(tmp_path, clips, name):
    path = holed(encoded(tmp_path / name, noise(8), **FORMATS[name]))
    (found,) = audit(open_dataset(clips=listed(clips, path))).findings
    assert found.kind == "cut short"
    assert found.message.endswith("its header says 8.0 s")


def test_a_wav_that_was_written_to_a_pipe_is_whole(tmp_path, clips):
    content = bytearray(encoded(tmp_path / "piped.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    dataset = open_dataset(clips=listed(clips, damaged(tmp_path / "piped.wav", bytes(content))))
    assert dataset.seconds == 2
    assert audit(dataset).findings == ()


def test_the_length_of_an_mp3_without_a_stated_one_is_no_claim(tmp_path):
    """libsndfile estimates it, here three times too long."""
    path = tmp_path / "a.mp3"
    with soundfile.SoundFile(path, "w", 44100, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5) as file:
        file.write(np.concatenate([np.zeros(10 * 44100), noise(10, 44100)]))
    content = path.read_bytes()
    damaged(path, content[content.index(b"\xff\xfb", 4) :])  # without its first frame, which states the length
    frames, sr = decoding.length(path)
    assert soundfile.info(path).frames > 1.2 * frames
    assert frames == len(load_audio(path, sr=sr))
    assert decoding.examine(path)[2].stated == 0


# ------------------------------------------------------------------------------------ what decoders raise


def not_utf8(folder, name):
    path = folder / os.fsdecode(name)
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system allows only UTF-8 names")
    path.unlink()
    return path


def test_files_in_a_folder_whose_name_is_not_utf8_are_read(tmp_path):
    folder = two_by_two(tmp_path / "clips").parent.rename(not_utf8(tmp_path, b"Ger\xe4usche"))
    dataset = open_dataset(clips=folder / "clips.csv")
    assert audit(dataset).findings == ()
    assert len(FeatureCache(dataset, FeatureOptions().settings(dataset), tmp_path / "cache").key) == 64


def test_names_that_are_not_utf8_are_named(tmp_path, capsys, caplog):
    path = write(tmp_path / "rock" / "a.wav").rename(not_utf8(tmp_path / "rock", b"Ger\xe4usche.wav"))
    assert len(load_audio(path, sr=SR)) == 2400
    with pytest.raises(DataError, match=r"fold or group of rock/Ger\\udce4usche.wav has .* is not UTF-8"):
        open_dataset("gtzan", root=tmp_path)
    table(tmp_path, ["Geräusche.wav,dog,1"], encoding="latin-1")
    assert datasets.main(["--clips", str(tmp_path / "clips.csv"), "--audit"]) == cli.BAD_INPUT
    assert "is read as Windows-1252: check letters with accents" in caplog.text
    assert "1 of 1 audio files do not exist" in capsys.readouterr().err


LIMITED = """
import resource, sys
from pathlib import Path
from transferlens.data.clips import load_audio
from transferlens.util.errors import DataError
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**26, resource.RLIM_INFINITY))
try:
    load_audio(Path(sys.argv[1]), sr=8000)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_a_clip_that_exceeds_the_memory_is_named(tmp_path):
    path = write(tmp_path / "long.flac", np.zeros(40 * 60 * SR))
    run = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"{path} needs more memory than there is")


def test_features_that_exceed_the_memory_name_the_clip(tmp_path, clips):
    class Exhausted(FeatureCache):
        def compute(self, number, clip):
            raise MemoryError

    dataset = open_dataset(clips=clips)
    cache = Exhausted(dataset, FeatureOptions().settings(dataset), tmp_path / "cache")
    with pytest.raises(DataError, match="^[0-3].wav needs more memory than there is: free some"):
        cache.fill()


def test_an_error_without_a_message_is_named_by_its_type(tmp_path, monkeypatch):
    def read(*args, **options):
        raise AssertionError

    path = encoded(tmp_path / "a.wav")
    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(DataError, match=r"a\.wav cannot be decoded: AssertionError$"):
        load_audio(path, sr=RATE)


# --------------------------------------------------------------------------------------------- audio bombs


def test_a_clip_that_is_too_long_is_refused_before_it_is_decoded(tmp_path, clips):
    path = write(tmp_path / "bomb.flac", np.zeros(3 * 3600 * 1000), 1000)
    assert path.stat().st_size < 50_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb\.flac is longer than 3600 s, the longest that is allowed: cut"):
        load_audio(path, sr=768_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
    assert open_dataset(clips=listed(clips, path)).seconds == 0.3
    assert open_dataset(clips=clips, longest=10800).seconds == 10800
    assert DataOptions(clips=clips, skip_unreadable=True).open().skipped == ("bomb.flac",)
    with pytest.raises(DataError, match=r"bomb\.flac is longer than 10799\.9 s"):
        load_audio(path, sr=1000, longest=10799.9)
    with pytest.raises(ParameterError, match="longest=0.0 must be greater than 0"):
        open_dataset(clips=clips, longest=0)


def test_a_header_alone_does_not_make_a_clip_too_long(tmp_path):
    path = cut(encoded(tmp_path / "long.mp3", noise(30)), 0.05)
    assert 1 < len(load_audio(path, sr=RATE, longest=3)) / RATE < 2


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
def test_absurd_rates_are_refused(tmp_path, clips, capsys, rate):
    content = bytearray(write(tmp_path / "odd.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    listed(clips, damaged(tmp_path / "odd.wav", bytes(content)))
    assert open_dataset(clips=clips).sr == SR
    assert datasets.main(["--clips", str(clips), "--audit"]) == cli.FOUND
    assert f"odd.wav has a rate of {rate} Hz: 1000 to 768000 Hz are allowed" in capsys.readouterr().out


def test_a_fault_of_the_machine_is_not_one_of_the_clip(tmp_path):
    """No clip is left out, nor said to be unreadable, where too few files can be open."""
    path = write(tmp_path / "0.wav")
    code = f"""
import os, resource
from pathlib import Path
from transferlens.data import decoding
from transferlens.data.attempts import attempt_each
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
try:
    print(attempt_each(decoding.decode, [Path({str(path)!r})]))
except decoding.MachineError as error:
    print("raised:", error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.startswith(f"raised: {path} cannot be read: Too many open files: the file may be whole"), run
