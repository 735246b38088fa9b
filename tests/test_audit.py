"""The audit finds what would spoil an experiment, and nothing else."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import SR, add, table, tone, two_by_two, write

from transferlens.data import decoding
from transferlens.data.audit import Audit, audit, unreadable
from transferlens.data.catalogue import open_dataset

ESC10 = Path(__file__).parents[2] / "shared" / "esc10" / "clips.csv"


@pytest.fixture
def clips(tmp_path):
    return two_by_two(tmp_path)


def kinds(dataset):
    return sorted(finding.kind for finding in audit(dataset).findings)


def test_audit_of_a_sound_data_set_finds_nothing(clips):
    assert audit(open_dataset(clips=clips)) == Audit(clips.parent.name, 4, ())


def test_audit_of_the_built_in_data_set_finds_nothing():
    assert audit(open_dataset()).findings == ()


@pytest.mark.parametrize("copy", ["copy.wav", "copy.flac", "copy.au"])
def test_same_audio_in_two_folds_is_a_leak(clips, copy):
    samples, _ = soundfile.read(clips.parent / "0.wav", dtype="int16")
    (found,) = audit(open_dataset(clips=add(clips, copy, y=samples))).findings
    assert (found.kind, found.clips, found.folds) == ("same audio", ("0.wav", copy), ("1", "2"))
    assert found.serious


def test_a_stereo_copy_is_a_leak(clips):
    dataset = open_dataset(clips=add(clips, "copy.wav", y=np.stack([tone(300)] * 2, axis=1)))
    assert kinds(dataset) == ["same audio"]


def test_same_audio_in_one_fold_is_no_leak(clips):
    assert kinds(open_dataset(clips=add(clips, "copy.wav", fold="1", y=tone(300)))) == []


def test_same_group_in_two_folds_is_a_leak(tmp_path, clips):
    groups = ["group", "g1", "g2", "g1", "g3"]
    lines = [f"{row},{group}" for row, group in zip(clips.read_text().splitlines(), groups, strict=True)]
    (found,) = audit(open_dataset(clips=table(tmp_path, lines[1:], header=lines[0]))).findings
    assert (found.kind, found.clips, found.folds) == ("same group", ("0.wav", "2.wav"), ("1", "2"))
    assert "g1" in found.message


def test_folds_of_a_finding_are_in_numerical_order(tmp_path):
    write(tmp_path / "a.wav", tone())
    write(tmp_path / "b.wav", tone())
    write(tmp_path / "c.wav")
    write(tmp_path / "c2.wav")
    (found,) = audit(
        open_dataset(clips=table(tmp_path, ["a.wav,x,10", "b.wav,x,9", "c.wav,y,9", "c2.wav,y,10"]))
    ).findings
    assert found.folds == ("9", "10")


def test_silent_and_short_clips_are_found_and_are_no_leaks(clips):
    add(clips, "s1.wav", fold="1", y=np.zeros(SR))
    add(clips, "s2.wav", fold="2", y=np.zeros(SR))
    add(clips, "faint.wav", y=1e-5 * tone(), subtype="FLOAT")
    add(clips, "short.wav", y=tone(seconds=0.09))
    found = audit(open_dataset(clips=clips))
    assert sorted((f.kind, *f.clips) for f in found.findings) == [
        ("short", "short.wav"),
        ("silent", "faint.wav"),
        ("silent", "s1.wav"),
        ("silent", "s2.wav"),
    ]
    assert found.serious == ()


def test_unreadable_and_empty_clips_are_found(clips):
    add(clips, "empty.wav", y=np.zeros(0))
    add(clips, "text.wav")
    (clips.parent / "text.wav").write_text("no audio")
    dataset = open_dataset(clips=clips)
    assert list(unreadable(dataset)) == ["empty.wav", "text.wav"]
    assert kinds(dataset) == ["unreadable", "unreadable"]
    assert unreadable(dataset.without(unreadable(dataset))) == {}


def test_one_fold_cannot_be_held_out_and_trained_on(clips):
    table = clips.read_text().replace(",2\n", ",1\n").replace(",3\n", ",1\n")
    clips.write_text(table)
    (finding,) = audit(open_dataset(clips=clips)).findings
    assert (finding.kind, finding.folds, finding.serious) == ("one fold", ("1",), True)
    assert "cannot be held out and trained on" in finding.message


def test_one_class_cannot_be_told_from_others(clips):
    clips.write_text(clips.read_text().replace("cat", "dog"))
    (finding,) = audit(open_dataset(clips=clips)).findings
    assert (finding.kind, finding.serious) == ("one class", True)
    assert finding.message == "all clips are of class dog: two classes or more are needed"


def test_class_missing_from_a_fold_is_found(clips):
    (found,) = audit(open_dataset(clips=add(clips, "bird.wav", label="bird", fold="2"))).findings
    assert (found.kind, found.folds) == ("missing class", ("1",))
    assert "bird" in found.message
    assert not found.serious


def noise(folder, *, per_fold=4, **of_dogs):
    """Two classes of white noise in two folds; those of dogs are written with other options."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (label, fold) in enumerate([(label, fold) for fold in "12" for label in ("cat", "dog")] * per_fold):
        options = {"sr": SR, "change": lambda y: y, "suffix": "wav"} | (of_dogs if label == "dog" else {})
        path, change = f"{i}.{options.pop('suffix')}", options.pop("change")
        write(folder / path, change(0.1 * rng.standard_normal(1600)), **options)
        rows.append(f"{path},{label},{fold}")
    return open_dataset(clips=table(folder, rows))


@pytest.mark.parametrize(
    ("of_dogs", "expected"),
    [
        ({}, {}),
        ({"sr": 11025}, {"confound": "sample rate .* 8000 Hz in 100 %", "cue": "duration .*: median 0.2 s, .* 0.15 s"}),
        ({"subtype": "PCM_24"}, {"confound": "encoding alone distinguishes cat .* WAV PCM_16 in 100 % of its clips"}),
        ({"suffix": "flac"}, {"confound": "encoding alone"}),
        (
            {"change": lambda y: np.stack([y, y], axis=1)},
            {"confound": "number of channels alone .* 1 channel in"},
        ),
        ({"change": lambda y: y / 2}, {"cue": "level alone distinguishes cat from all others with 100 % accuracy"}),
        ({"change": lambda y: np.tile(y, 2)}, {"cue": "duration alone"}),
    ],
)
def test_properties_that_go_with_the_label_are_named(tmp_path, of_dogs, expected):
    findings = audit(noise(tmp_path, **of_dogs)).findings
    assert {finding.kind for finding in findings} == set(expected)
    assert {finding.kind for finding in findings if finding.serious} == {"confound"} & set(expected)
    for finding in findings:
        assert re.search(expected[finding.kind], finding.message)


def test_float_scale_is_a_confound_and_named(tmp_path):
    findings = audit(noise(tmp_path, change=lambda y: 32768 * y, subtype="FLOAT")).findings
    assert [finding.kind for finding in findings] == ["confound", "cue", "beyond full scale"]
    assert len(findings[2].clips) == 8
    assert re.search(r"peaks up to .*e\+04: scale the samples", findings[2].message)


def test_full_scale_is_1_in_floats_and_lossy_decoders_may_exceed_it(clips):
    for name, peak in (("ok.wav", 1.0), ("beyond.wav", 1.01), ("lossy.ogg", 0.999)):
        options = {} if name == "lossy.ogg" else {"subtype": "FLOAT"}
        add(clips, name, y=2 * peak * tone(100 + 10 * peak, seconds=1), **options)
    findings = audit(open_dataset(clips=clips)).findings
    assert [(finding.kind, finding.clips) for finding in findings] == [("beyond full scale", ("beyond.wav",))]


def test_channels_that_cancel_are_named_and_an_offset_does_not_hide_it(tmp_path, clips):
    y = tone(300)
    for name, left, right in (
        ("inverted.wav", y, -y),
        ("offset.wav", y + 0.2, 0.01 * tone(700) - y + 0.2),
        ("left.wav", tone(350), 0 * y),
        ("quarter.wav", tone(400), np.roll(tone(400), 5)),
    ):
        add(clips, name, y=np.stack([left, right], axis=1))
    (finding,) = audit(open_dataset(clips=clips)).findings
    assert (finding.kind, finding.clips) == ("channels cancel", ("inverted.wav", "offset.wav"))
    assert re.search("their mean, which is used, is more than 20 dB quieter than they are", finding.message)


def test_the_audit_opens_every_file_once(clips, monkeypatch):
    opened, init = [], soundfile.SoundFile.__init__

    def counted(self, file, *args, **options):
        opened.append(file)
        init(self, file, *args, **options)

    dataset = open_dataset(clips=add(clips, "stereo.wav", y=np.stack([tone(375)] * 2, axis=1)))
    monkeypatch.setattr(soundfile.SoundFile, "__init__", counted)
    assert audit(dataset).findings == ()
    assert len(opened) == len(set(opened)) == 5


def test_the_audit_needs_memory_for_two_waveforms(tmp_path, monkeypatch):
    path = write(tmp_path / "long.wav", np.zeros(10**6))
    dataset = open_dataset(clips=table(tmp_path, [f"{path.name},x,1"]))
    monkeypatch.setattr(decoding, "BLOCK", 2**16)
    audit(dataset)  # imports what it needs
    tracemalloc.start()
    audit(dataset)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 4 * 10**6


def test_a_constant_clip_is_silent(clips):
    dataset = open_dataset(clips=add(clips, "offset.wav", y=np.full(SR, 0.5)))
    (finding,) = audit(dataset).findings
    assert (finding.kind, finding.clips) == ("silent", ("offset.wav",))


@pytest.mark.esc10
@pytest.mark.skipif(not ESC10.is_file(), reason="the ESC-10 clips are not at ../shared/esc10")
def test_only_the_quiet_clocks_of_esc10_are_told():
    dataset = open_dataset(clips=ESC10)
    assert (dataset.name, dataset.sr, len(dataset.clips)) == ("esc10", 44100, 400)
    (finding,) = audit(dataset).findings
    assert (finding.kind, finding.serious) == ("cue", False)
    assert finding.message.startswith("level alone distinguishes clock_tick from all others with 92 % accuracy")
