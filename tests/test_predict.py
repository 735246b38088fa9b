"""Sound files classified by finished runs: equal to stored logits, cut into windows, and what cannot be read."""

from __future__ import annotations

import csv
import io
import shutil
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

import transferlens as tl
from transferlens.data import decoding
from transferlens.measures.predictions import softmax
from transferlens.predict import main
from transferlens.store.recordings import sound_files, windows
from transferlens.util.errors import DataError, ParameterError


@pytest.fixture(scope="module")
def runs(make_study, tmp_path_factory):
    """Two runs that held out fold 1, and one that held out fold 2."""
    study = make_study(tmp_path_factory.mktemp("predict"), folds=("1", "2"), seeds=(0, 1))
    found = study.gather(study.points(tl.TransferPlan()))
    runs = sorted(found.values(), key=lambda run: (run.config.fold, run.config.seed))
    return runs[:3]


def held_out(run, clips):
    return [clips.parent / name for name in run.clip_ids]


def test_held_out_files_get_the_stored_logits(runs, clips):
    run = runs[0]
    found = run.predict(held_out(run, clips))
    np.testing.assert_allclose(found.logits[0], run.logits, atol=1e-5)
    assert found.table()["label"].tolist() == [run.label_names[i] for i in run.logits.argmax(1)]
    assert found.paths == tuple(held_out(run, clips))
    np.testing.assert_allclose(found.times, [[0, 0.5]] * len(run.clip_ids))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_predicts_in_its_own_precision_and_says_so(precision, clips, make_study, tmp_path, caplog):
    study = make_study(tmp_path, folds=("1",), precision=precision, epochs=1, width=64)
    (run,) = study.gather(study.points(tl.TransferPlan())).values()
    with caplog.at_level("INFO", "transferlens"):
        found = run.predict(held_out(run, clips))
    assert found.precisions == (precision,)
    assert f"{run.config.id} is computed in {precision}, the precision that it was trained in" in caplog.text
    np.testing.assert_allclose(found.logits[0], run.logits, atol=1e-5)
    features = np.stack([run.config.features.compute(*soundfile.read(path)) for path in held_out(run, clips)])
    with torch.no_grad():
        in_fp32 = run.model()(run.inputs(features)).numpy()
    assert (np.abs(in_fp32 - run.logits).max() < 1e-5) == (precision == "fp32")  # as `Run.model` says


def test_several_runs_are_averaged_after_the_softmax(runs, clips):
    one, two = runs[:2]
    result = tl.predict(runs[:2], files=held_out(one, clips))
    expected = softmax(np.stack([one.logits, two.logits])).mean(0)
    np.testing.assert_allclose(result.predictions.probabilities, expected, atol=1e-5)
    assert [row["probability"] for row in result.rows] == pytest.approx(expected.max(1), abs=2e-5)


def test_the_most_likely_classes_come_first_and_sum_to_one(runs, clips):
    (row,) = tl.predict(runs[0], files=held_out(runs[0], clips)[:1], top=5).rows
    assert {row["label"], row["label_2"]} == {"high", "low"}
    assert row["probability"] >= row["probability_2"]
    assert row["probability"] + row["probability_2"] == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("n_samples", [1, 9, 10, 11, 40, 47])
@pytest.mark.parametrize("hop", [1, 4, 10])
@pytest.mark.parametrize("block", [1, 7, 100])
def test_windows_cover_all_samples(n_samples, hop, block):
    y = np.arange(n_samples, dtype=np.float32)
    found = dict(windows((y[i : i + block] for i in range(0, n_samples, block)), 10, hop))
    starts = [start for start in range(0, n_samples, hop) if start + 10 <= n_samples]
    assert [*found][: len(starts)] == starts
    assert len(found) - len(starts) == (not starts or starts[-1] + 10 < n_samples)
    for start, samples in found.items():
        np.testing.assert_array_equal(samples, y[start : start + 10])
        assert len(samples) == min(10, n_samples)
    assert {*np.concatenate([*found.values()])} == {*y}


def test_a_window_has_the_logits_of_its_own_file(runs, tmp_path, clips):
    files = held_out(runs[0], clips)[:3]
    joined, sr = np.concatenate([soundfile.read(file)[0] for file in files]), soundfile.info(files[0]).samplerate
    soundfile.write(tmp_path / "long.wav", joined, sr, "FLOAT")
    found = runs[0].predict(tmp_path, window=0.5)
    np.testing.assert_allclose(found.logits[0], runs[0].logits[:3], atol=1e-4)
    assert found.times.tolist() == [[0, 0.5], [0.5, 1], [1, 1.5]]
    overlapping = runs[0].predict(tmp_path, window=0.5, hop=0.25)
    np.testing.assert_allclose(overlapping.logits[0, ::2], found.logits[0], atol=1e-5)


@pytest.mark.parametrize("native", [8000, 11025, 48000])
def test_a_stream_is_the_whole_waveform(native, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.normal(scale=0.1, size=(30_001, 2)), native)
    whole = decoding.load(tmp_path / "a.wav", sr=8000)
    monkeypatch.setattr(decoding, "BLOCK", 2000)
    np.testing.assert_array_equal(np.concatenate([*decoding.stream(tmp_path / "a.wav", sr=8000)]), whole)


def test_files_of_folders_are_found_in_natural_order(tmp_path, clips):
    source = next(clips.parent.glob("*.wav"))
    for name in ("10.wav", "2.wav", "inside/3.WAV", "notes.txt", "._2.wav", ".cache/4.wav", "__MACOSX/5.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / name)
    names = [path.relative_to(tmp_path).as_posix() for path in sound_files([tmp_path, tmp_path / "2.wav"])]
    assert names == ["2.wav", "10.wav", "inside/3.WAV"]


def test_the_command_prints_or_writes_a_table_and_names_what_it_cannot_read(runs, clips, tmp_path, capsys):
    good = held_out(runs[0], clips)[:2]
    (tmp_path / "empty.wav").touch()
    argv = [str(tmp_path / "empty.wav"), *map(str, good), "--ckpt", *map(str, (runs[0].path, runs[1].path))]
    assert main(argv) == 2
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [row["path"] for row in rows] == [*map(str, good)]
    assert "empty.wav cannot be decoded" in captured.err
    for out, problem in (("new/p.txt", "does not end in .csv"), (good[0], "exists already"), (".", "is a folder")):
        assert main([*argv[1:], "--out", str(tmp_path / out)]) == 2
        assert f"out='{tmp_path / out}' {problem}" in capsys.readouterr().err
    assert main([*argv[1:], "--out", str(tmp_path / "new" / "p.csv")]) == 0
    assert list(csv.DictReader((tmp_path / "new" / "p.csv").open())) == rows
    assert capsys.readouterr().out == f"written: {tmp_path / 'new' / 'p.csv'}\n"


def test_a_damaged_recording_keeps_its_first_windows(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK", 8000)
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.flac", rng.normal(scale=0.1, size=8000 * 60), 8000)
    content = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "long.flac").write_bytes(content[: len(content) // 2])
    found = runs[0].predict(tmp_path / "long.flac", window=0.5)
    assert 50 <= len(found.paths) <= 60  # of 120
    (problem,) = found.problems
    assert "long.flac cannot be decoded" in problem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": ()}, "files must name sound files"),
        ({"files": ["none.wav"]}, "no file can be read: .*none.wav does not exist"),
        ({"hop": 0.1}, "hop=0.1 has no effect without window"),
        ({"window": 0.5, "hop": 1}, "hop=1 must be at most window=0.5, so that no sound is left out"),
        ({"window": 1e-9}, "^window=1e-09 must be at least one sample, .* s at the rate of [0-9]+ Hz$"),
        ({"window": -1}, "window=-1.0 must be greater than 0"),
        ({"top": 0}, "top=0 must be at least 1"),
        ({"out": "x.csv"}, r"out is an option of the command: in Python, result.table\(\)"),
    ],
)
def test_bad_input_is_one_line(options, message, runs, clips):
    with pytest.raises((ParameterError, DataError), match=message):
        tl.predict(runs[0], **{"files": held_out(runs[0], clips)} | options)


def test_a_folder_without_sounds_is_named(runs, tmp_path):
    with pytest.raises(ParameterError, match="must be sound files, or folders with some: it has none"):
        runs[0].predict(tmp_path)


def test_a_folder_without_sounds_is_one_line_of_the_command(runs, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    (tmp_path / "notes.txt").touch()
    assert main([str(tmp_path), "--ckpt", str(runs[0].path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"files='{tmp_path}' must be sound files, or folders with some: it has none" in line
    assert not caplog.messages


def test_an_empty_file_among_a_thousand_is_named_and_the_others_are_classified(runs, clips, tmp_path, capsys):
    source, n = held_out(runs[0], clips)[0], 1000
    for number in range(n):
        (tmp_path / f"{number}.wav").symlink_to(source)
    (tmp_path / "567.wav").unlink()
    (tmp_path / "567.wav").touch()
    assert main([str(tmp_path), "--ckpt", str(runs[0].path)]) == 2
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [row["path"] for row in rows] == [str(tmp_path / f"{number}.wav") for number in range(n) if number != 567]
    expected = softmax(runs[0].logits[:1])[0].max()
    assert [float(row["probability"]) for row in rows] == pytest.approx([expected] * (n - 1), abs=2e-5)
    (line,) = [line for line in captured.err.splitlines() if "567" in line]
    assert "567.wav cannot be decoded" in line


def test_memory_does_not_grow_with_the_length_of_a_recording(runs, tmp_path, monkeypatch):
    """The waveform of the long one takes 19 MB. Batches of a network are of one size, and are not counted here."""
    monkeypatch.setattr(decoding, "BLOCK", 2**16)
    peaks = {}
    for minutes in (1, 1, 10):  # the first time imports what it needs
        path = tmp_path / f"{minutes}.wav"
        soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=60 * 8000 * minutes), 8000)
        tracemalloc.start()
        assert len(runs[0].predict(path, window=0.5).paths) == 120 * minutes
        peaks[minutes] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10] < peaks[1] + 3e6


def test_runs_of_other_rates_are_not_averaged(runs, clips, make_study, tmp_path):
    study = make_study(tmp_path, folds=("1",), sr=4000)
    (other,) = study.gather(study.points(tl.TransferPlan())).values()
    with pytest.raises(ParameterError, match=r"differ in rate \(4000 and 8000 Hz\)"):
        tl.predict([runs[0], other], files=held_out(other, clips))
