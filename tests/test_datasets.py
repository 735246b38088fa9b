"""Laws of the data sets: what is chosen is opened, sounds are decoded as they are, bad input is named."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import SR, add, tone, two_by_two, write

from transferlens import cli, datasets
from transferlens.data import manifest, readers, synthetic
from transferlens.data.catalogue import DataOptions, open_dataset
from transferlens.data.clips import load_audio
from transferlens.util.errors import DataError, ParameterError


@pytest.fixture
def clips(tmp_path):
    return two_by_two(tmp_path)


def test_manifest_agrees_with_the_papers():
    rows = manifest.manifest()
    assert list(rows) == ["esc50", "esc10", "urbansound8k", "gtzan", "synth"]
    assert {name: (row.classes, row.folds, row.sr, row.width) for name, row in rows.items()} == {
        "esc50": (50, 5, 44100, 250),
        "esc10": (10, 5, 44100, 250),
        "urbansound8k": (10, 10, 22050, 250),
        "gtzan": (10, 5, 22050, 1500),
        "synth": (10, 5, 22050, 100),
    }
    # The longest window is 100 ms.
    assert all(row.n_fft == round(row.sr * 0.1) for row in rows.values())


def test_every_layout_has_a_reader():
    layouts = {row.layout for row in manifest.manifest().values()}
    assert layouts - set(readers.READERS) == {"generated"}


def test_manifest_is_found_where_pip_puts_it(monkeypatch, tmp_path):
    installed = tmp_path / "share" / manifest.FILE
    installed.parent.mkdir()
    shutil.copy(Path(manifest.__file__).parents[2] / manifest.FILE, installed)

    class Installed:
        name = manifest.FILE

        def locate(self):
            return installed

    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "site" / "transferlens" / "manifest.py"))
    monkeypatch.setattr(manifest.importlib.metadata, "files", lambda name: [Installed()])
    assert manifest._path() == installed
    monkeypatch.setattr(manifest.importlib.metadata, "files", lambda name: None)
    with pytest.raises(DataError, match="install transferlens again"):
        manifest._path()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "esc50"}, "dataset='esc50' needs root"),
        ({"name": "esc51", "root": "."}, "dataset='esc51' must be one of esc50, esc10"),
        ({"name": "esc50", "clips": "a.csv"}, "leave out dataset='esc50'"),
        ({"root": "."}, "need the data set's name"),
        ({"name": "synth", "root": "."}, "made by code: leave out root"),
        ({"splits": "lists"}, "need the data set's name"),
        ({"name": "esc50", "root": "nowhere"}, "root='nowhere' must be a folder"),
        ({"sr": 0}, "sr=0 must be greater than 0"),
        ({"width": -1}, "width=-1 must be greater than 0"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message):
    with pytest.raises(ParameterError, match=message):
        open_dataset(**arguments)


def test_options_open_what_they_name(clips):
    dataset = DataOptions(clips=clips, width=40).open()
    assert (dataset.width, len(dataset.clips)) == (40, 4)
    assert DataOptions().open().name == "synth"


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "PCM_U8"}, 2e-2),
        ("a.wav", {"subtype": "FLOAT"}, 1e-6),
        ("a.flac", {}, 1e-4),
        ("a.au", {}, 1e-4),
        ("a.ogg", {}, 5e-2),
    ],
)
def test_formats_decode_to_the_same_sound(tmp_path, name, options, tolerance):
    y = load_audio(write(tmp_path / name, tone(sr=16000), 16000, **options), sr=16000)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y[500:4000], tone(sr=16000)[500:4000], atol=tolerance)


def test_channels_are_averaged(tmp_path):
    left, right = tone(300), tone(700)
    y = load_audio(write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"), sr=SR)
    np.testing.assert_allclose(y, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(("native", "sr"), [(48000, 22050), (22050, 44100), (44100, 16000), (8000, 8001)])
def test_resampling_keeps_the_sound_and_agrees_with_librosa(tmp_path, native, sr):
    librosa = pytest.importorskip("librosa")
    path = write(tmp_path / "a.wav", tone(sr=native, seconds=0.5003), native, subtype="FLOAT")
    y, stored = load_audio(path, sr=sr), soundfile.read(path, dtype="float32")[0]
    np.testing.assert_array_equal(y, librosa.resample(stored, orig_sr=native, target_sr=sr, res_type="soxr_hq"))
    middle = slice(len(y) // 10, -len(y) // 10)
    np.testing.assert_allclose(y[middle], tone(sr=sr, seconds=len(y) / sr)[middle], atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, bad):
    y = tone()
    y[7] = bad
    with pytest.raises(DataError, match=r"a.wav holds NaN or infinite"):
        load_audio(write(tmp_path / "a.wav", y, subtype="FLOAT"), sr=SR)


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"text.wav cannot be decoded: Format not recogni"):
        load_audio(tmp_path / "text.wav", sr=SR)
    with pytest.raises(DataError, match=r"empty.wav is empty"):
        load_audio(write(tmp_path / "empty.wav", np.zeros(0)), sr=SR)
    with pytest.raises(DataError, match=r"none.wav is missing"):
        load_audio(tmp_path / "none.wav", sr=SR)
    with pytest.raises(ParameterError, match="sr=0 must be"):
        load_audio(write(tmp_path / "a.wav"), sr=0)


def test_threads_load_what_one_loads(clips):
    dataset = open_dataset(clips=clips, sr=11025)
    alone = [dataset.load(clip) for clip in dataset.clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(dataset.load, dataset.clips * 5))
    for i, y in enumerate(together):
        np.testing.assert_array_equal(y, alone[i % len(alone)])


def test_digest_is_of_the_content_alone(tmp_path, clips):
    dataset = open_dataset(clips=clips)
    before = [dataset.digest(clip) for clip in dataset.clips]
    assert len(set(before)) == 4
    shutil.copytree(tmp_path, tmp_path / "copy")
    copy = open_dataset(clips=tmp_path / "copy" / "clips.csv")
    assert [copy.digest(clip) for clip in copy.clips] == before
    write(tmp_path / "0.wav", tone(999))
    after = [dataset.digest(clip) for clip in dataset.clips]
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_without_leaves_out_what_is_named(clips):
    dataset = open_dataset(clips=clips)
    assert [clip.id for clip in dataset.without(["1.wav", "3.wav"]).clips] == ["0.wav", "2.wav"]
    with pytest.raises(ParameterError, match="9.wav.* are no clips of"):
        dataset.without(["9.wav"])
    with pytest.raises(DataError, match="no clip .* is left"):
        dataset.without([clip.id for clip in dataset.clips])


def test_built_in_clips_load_as_rendered():
    dataset = open_dataset()
    clip = dataset.clips[11]
    np.testing.assert_array_equal(dataset.load(clip), synthetic.render(clip.id).y)
    halved = open_dataset(sr=11025)
    assert halved.load(clip).shape == (22050,)
    assert dataset.digest(clip) == halved.digest(clip) != dataset.digest(dataset.clips[12])


def test_command_lists_describes_and_audits(clips, capsys):
    assert datasets.main([]) == cli.DONE
    assert "urbansound8k" in capsys.readouterr().out
    assert datasets.main(["--clips", str(clips)]) == cli.DONE
    assert "4 clips, 2 classes, 2 folds; 8000 Hz" in capsys.readouterr().out
    assert datasets.main(["--clips", str(clips), "--audit"]) == cli.DONE
    assert "nothing found" in capsys.readouterr().out
    add(clips, "copy.wav", y=tone(300))
    assert datasets.main(["--clips", str(clips), "--audit"]) == cli.FOUND
    assert "0.wav, copy.wav" in capsys.readouterr().out


def test_command_names_bad_input_in_one_line(tmp_path, capsys):
    assert datasets.main(["--clips", str(tmp_path / "none.csv")]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_absurd_levels_and_headerless_files_are_unreadable(tmp_path):
    soundfile.write(tmp_path / "huge.wav", np.full(100, 1e30, "float32"), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"huge\.wav holds samples beyond 1e\+06: full scale is 1"):
        load_audio(tmp_path / "huge.wav", sr=8000)
    (tmp_path / "x.raw").write_bytes(bytes(100))
    with pytest.raises(DataError, match=r"x\.raw cannot be decoded"):
        load_audio(tmp_path / "x.raw", sr=8000)
