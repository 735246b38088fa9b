"""Folders of classes, tables as spreadsheets write them, and folds that are made where there are none."""

from __future__ import annotations

import csv
import logging
import shutil
from collections import Counter

import numpy as np
import pytest
from audio_files import tone, write
from hypothesis import given, settings
from hypothesis import strategies as st

from transferlens import cli, datasets, train
from transferlens.data import folds
from transferlens.data.catalogue import DataOptions, open_dataset
from transferlens.data.clips import Clip
from transferlens.util.errors import DataError, ParameterError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sound") / "a.wav", tone())


@pytest.fixture
def folder(sound, tmp_path):
    """A folder of two classes, with the paths that are given below it."""

    def make(*names, root="sounds"):
        for name in names or [f"{label}/{i}.wav" for label in ("dog", "rain") for i in range(6)]:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sound, tmp_path / root / name)
        return tmp_path / root

    return make


def clips_of(labels, groups=None):
    groups = groups or [None] * len(labels)
    return [
        Clip(f"{i}.wav", label, "", None, group) for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


def by_fold(clips, label):
    counts = Counter(clip.fold for clip in clips if clip.label == label)
    return [counts[fold] for fold in sorted({clip.fold for clip in clips})]


@given(st.integers(2, 6), st.lists(st.integers(6, 30), min_size=2, max_size=5))
@settings(deadline=None, max_examples=30)
def test_folds_of_single_clips_are_even_in_every_class(n_folds, sizes):
    made = folds.made(clips_of([str(label) for label, size in enumerate(sizes) for _ in range(size)]), n_folds)
    assert {clip.fold for clip in made} == {str(i) for i in range(1, n_folds + 1)}
    for label in range(len(sizes)):
        counts = by_fold(made, str(label))
        assert max(counts) - min(counts) <= 1


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_no_recording_is_in_two_folds_and_classes_are_nearly_even(n_folds, seed):
    rng = np.random.default_rng(seed)
    labels = [label for label in "ab" for _ in range(60)]
    groups = [f"{label}{rng.integers(20)}" for label in labels]
    made = folds.made(clips_of(labels, groups), n_folds)
    assert all(len({clip.fold for clip in made if clip.group == group}) == 1 for group in groups)
    largest = max(Counter(groups).values())
    for label in "ab":
        assert max(by_fold(made, label)) - min(by_fold(made, label)) <= 2 * largest


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_no_group_and_no_pair_is_in_two_folds(n_folds, seed):
    """Pairs join recordings, and what they join is joined through others too."""
    rng = np.random.default_rng(seed)
    labels = [label for label in "ab" for _ in range(60)]
    groups = [f"{label}{rng.integers(40)}" if rng.random() < 0.5 else None for label in labels]
    pairs = [(int(i), int(j)) for i, j in rng.integers(120, size=(30, 2)) if labels[i] == labels[j]]
    clips = folds.joined(clips_of(labels, groups), pairs)
    made = folds.made(clips, n_folds)
    assert all(made[i].fold == made[j].fold and made[i].recording == made[j].recording for i, j in pairs)
    for group in {*groups} - {None}:
        assert len({clip.fold for clip, old in zip(made, groups, strict=True) if old == group}) == 1
    untouched = {*range(120)} - {i for pair in pairs for i in pair}
    alone = [i for i in untouched if groups[i] is None]
    assert all(clips[i].group is None for i in alone)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_class_shares_are_within_one_clip_of_even_where_groups_allow(n_folds, seed):
    """They do with as many single clips as make up for the largest recordings."""
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for label in "abc"[: rng.integers(2, 4)]:
        sizes = [int(size) for size in rng.integers(2, 6, size=rng.integers(9))]
        singles = n_folds * max([1, *sizes]) + int(rng.integers(20))
        groups += [f"{label}{i}" for i, size in enumerate(sizes) for _ in range(size)] + [None] * singles
        labels += [label] * (sum(sizes) + singles)
    made = folds.made(clips_of(labels, groups), n_folds)
    for label in {*labels}:
        share = labels.count(label) / n_folds
        assert all(abs(n - share) < 1 for n in by_fold(made, label))


def test_a_chain_of_pairs_is_one_recording_with_the_name_of_its_first_clip():
    clips = folds.joined(clips_of("aaaaaa", [None, None, "x", "x", None, "y"]), [(4, 3), (1, 4)])
    assert [clip.group for clip in clips] == [None, "1.wav", "1.wav", "1.wav", "1.wav", "y"]
    assert folds.joined(clips, []) == clips


def test_folds_are_the_same_again_and_need_enough_recordings(caplog):
    clips = clips_of("aaaaabbbbb")
    assert folds.made(clips) == folds.made(clips)
    with pytest.raises(
        DataError, match=r"recordings for 6 folds, .a. the most \(5 clips of 5 recordings\): give n_folds_made=5"
    ):
        folds.made(clips, 6)
    with pytest.raises(DataError, match=r"2 folds, .a. the most \(5 clips of 1 recording\): add recordings"):
        folds.made(clips_of("aaaaabbbbb", [*"1111122222"]), 2)
    assert {clip.fold for clip in folds.made(clips_of("aaaaab"), 5)} == {*"12345"}
    assert "there are fewer recordings than folds of b" in caplog.text


def test_a_folder_with_a_folder_per_class(folder, caplog):
    caplog.set_level(logging.INFO)
    dataset = open_dataset(clips=folder("dog/1.wav", "dog/far/2.WAV", "rain/1.flac", "rain/2.wav"), n_folds_made=2)
    assert dataset.name == "sounds"
    assert {clip.id: clip.label for clip in dataset.clips} == {
        "dog/1.wav": "dog", "dog/far/2.WAV": "dog", "rain/1.flac": "rain", "rain/2.wav": "rain",
    }  # fmt: skip
    assert dataset.folds == ("1", "2")
    assert "2 folds are made, with seed 0: each clip is taken for a recording of its own" in caplog.text


def test_hidden_files_and_others_are_no_clips(folder):
    path = folder(
        "dog/1.wav", "dog/2.wav", "rain/1.wav", "rain/2.wav", ".Trash/3.wav", "dog/._1.wav", "__MACOSX/x/1.wav"
    )
    (path / "notes.txt").write_text("x")
    assert len(open_dataset(clips=path, n_folds_made=2).clips) == 4


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "validation", "Test")])
def test_folders_of_splits_are_folds(folder, names):
    dataset = open_dataset(clips=folder(*(f"{name}/{label}/1.wav" for name in names for label in ("dog", "rain"))))
    assert {*dataset.folds} == {*names}
    assert dataset.label_names == ("dog", "rain")
    assert dataset.held_out_folds == (names[-1],)


def test_the_audiofolder_convention_names_labels(folder):
    path = folder("train/1.wav", "train/2.wav", "test/1.wav", "test/2.wav")
    for split in ("train", "test"):
        (path / split / "metadata.csv").write_text("file_name,label\n1.wav,dog\n2.wav,rain\n")
    dataset = open_dataset(clips=path)
    assert [(clip.id, clip.label, clip.fold) for clip in dataset.clips] == [
        ("test/1.wav", "dog", "test"), ("test/2.wav", "rain", "test"),
        ("train/1.wav", "dog", "train"), ("train/2.wav", "rain", "train"),
    ]  # fmt: skip


def test_recordings_from_names_stay_in_one_fold(folder):
    path = folder(*(f"{label}/site{site}_{i}.wav" for label in ("dog", "rain") for site in range(4) for i in range(2)))
    dataset = open_dataset(clips=path, n_folds_made=2, group_by=r"(\w+/site\d+)_")
    assert {clip.group for clip in dataset.clips} == {f"{x}/site{i}" for x in ("dog", "rain") for i in range(4)}
    assert all(len({c.fold for c in dataset.clips if c.group == clip.group}) == 1 for clip in dataset.clips)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["notes.txt"], {}, "has no sound files: name a folder with one folder per class"),
        (["dog/1.wav", "2.wav"], {}, "has sound files in no folder of a class: 2.wav; move or remove"),
        ((), {"group_by": "site9"}, "group_by='site9' matches no path, such as 'dog/0.wav'"),
        ((), {"group_by": "("}, r"group_by='\(' must be a regular expression"),
        ((), {"n_folds_made": 7}, "no class has recordings for 7 folds, .* of 6 recordings.: give n_folds_made=6"),
        ((), {"n_folds_made": 1}, "n_folds_made=1 must be at least 2"),
        (["train/a/1.wav", "test/a/1.wav"], {"n_folds_made": 3}, "n_folds_made=3 has no effect: the clips have folds"),
    ],
)
def test_folders_that_cannot_be_used(folder, names, options, message):
    with pytest.raises((DataError, ParameterError), match=message):
        open_dataset(clips=folder(*names), **options)


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["notes.txt"], [], "sounds has no sound files: name a folder with one folder per class, or a csv table"),
        (
            ["dog/1.wav", "dog/2.wav"],
            [],
            "all clips are of one class, dog: two or more are needed; name the folder that",
        ),
        (
            ["dog/1.wav", "rain/2.wav"],
            [],
            "no class has recordings for 5 folds, 'dog' the most (1 clip of 1 recording): add rec",
        ),
        ((), ["--group-by", "site9"], "group_by='site9' matches no path, such as 'dog/0.wav': correct it"),
    ],
)
@pytest.mark.parametrize(
    ("command", "argv"), [(train, []), (datasets, ["--audit"]), (datasets, ["--make-folds", "new.csv"])]
)
def test_a_folder_that_cannot_be_used_is_one_line(
    folder, command, argv, names, more, message, monkeypatch, capsys, caplog
):
    """Of any command, with exit code 2 and nothing else said or written."""
    caplog.set_level(logging.INFO)
    path = folder(*names)
    monkeypatch.chdir(path.parent)
    assert command.main(["--clips", str(path), *argv, *more]) == cli.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not caplog.messages
    assert [*path.parent.iterdir()] == [path]


def test_a_table_of_the_folds_is_written_and_is_the_same_data_set(folder, tmp_path, capsys):
    path = folder()
    assert datasets.main(["--clips", str(path), "--n-folds-made", "3", "--make-folds", str(path / "clips.csv")]) == 0
    assert f"written: {path / 'clips.csv'}" in capsys.readouterr().out
    made, read = open_dataset(clips=path, n_folds_made=3), open_dataset(clips=path / "clips.csv")
    assert [(c.id, c.label, c.fold) for c in read.clips] == [(c.id, c.label, c.fold) for c in made.clips]
    assert read.name == made.name == "sounds"
    for table, problem in (
        (tmp_path, "is a folder"),
        (path / "clips.csv", "exists already"),
        ("a.txt", "does not end in"),
    ):
        argv = ["--clips", str(path / "clips.csv"), "--make-folds", str(table)]
        assert datasets.main(argv) == cli.BAD_INPUT
        assert f"make_folds='{table}' {problem}" in capsys.readouterr().err


TABLE = [("path", "label", "fold"), ("ä/1.wav", "hünd", "1"), ("ä/2.wav", "hünd", "2"), ("b,c/1.wav", "x", "1")]


@pytest.fixture
def table(folder):
    """A table of these rows, written in some way."""

    def make(rows=TABLE, *, delimiter=",", encoding="utf-8"):
        root = folder("ä/1.wav", "ä/2.wav", "b,c/1.wav")
        with (root / "clips.csv").open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
        return root / "clips.csv"

    return make


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(table, delimiter, encoding):
    clips = open_dataset(clips=table(delimiter=delimiter, encoding=encoding)).clips
    assert [(clip.id, clip.label, clip.fold) for clip in clips] == [*TABLE[3:], *TABLE[1:3]]


@pytest.mark.parametrize(
    "header", [("Path", "LABEL", "Fold"), ("filename", "category", "split"), ("File_Name", "Class", "fold")]
)
def test_columns_have_other_names(table, header):
    clips = open_dataset(clips=table([header, *TABLE[1:]])).clips
    assert [(clip.id, clip.label, clip.fold) for clip in clips] == [*TABLE[3:], *TABLE[1:3]]


def test_our_own_names_come_before_others(table):
    rows = [("class", "path", "label", "fold"), *(("no", *row) for row in TABLE[1:])]
    clips = open_dataset(clips=table(rows)).clips
    assert {clip.label for clip in clips} == {"hünd", "x"}
    assert clips[0].extra == {"class": "no"}


def test_folds_that_are_numbers_of_a_spreadsheet(table):
    rows = [TABLE[0], *((path, label, f"{fold}.0") for path, label, fold in TABLE[1:])]
    assert open_dataset(clips=table(rows)).folds == ("1", "2")


def test_recordings_that_are_numbers_of_a_spreadsheet(table):
    rows = [(*TABLE[0], "group"), *((*row, group) for row, group in zip(TABLE[1:], ("100.0", "", "7.0"), strict=True))]
    assert [clip.group for clip in open_dataset(clips=table(rows)).clips] == ["7", "100", None]


def test_a_table_without_folds_gets_some(table):
    dataset = open_dataset(clips=table([row[:2] for row in TABLE]), n_folds_made=2)
    assert dataset.folds == ("1", "2")


def test_paths_of_a_windows_computer_are_named(table):
    with pytest.raises(DataError, match="those of a Windows computer are not found here: make them relative"):
        open_dataset(clips=table([TABLE[0], (r"C:\sounds\1.wav", "a", "1"), *TABLE[1:]]))


def test_a_picture_is_no_table(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\x8f")
    with pytest.raises(DataError, match="is not text: name a csv file with the columns path, label"):
        open_dataset(clips=tmp_path / "x.csv")


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_permuted_labels_stay_in_their_fold_and_recordings_keep_one_label(seed):
    before, after = open_dataset(), DataOptions(permute_labels=seed).open()
    assert after.name == f"synth-permuted{seed}"
    assert [(c.id, c.fold, c.group) for c in after.clips] == [(c.id, c.fold, c.group) for c in before.clips]
    assert len({(c.group, c.label) for c in after.clips}) == len({c.group for c in before.clips})
    assert (after.counts() == before.counts()).all(axis=None)  # recordings are as long as each other
    moved = np.mean([c.label != d.label for c, d in zip(before.clips, after.clips, strict=True)])
    assert 0.8 < moved < 1
    assert DataOptions(permute_labels=seed).open() == after


def test_clips_without_recordings_and_with_several_labels_are_permuted():
    clips = [Clip(str(i), "ab"[i % 2] if i else "a;b", str(i % 4), None) for i in range(40)]
    after = folds.permuted(clips, 0)
    for fold in "0123":
        labels = [Counter(c.label for c in each if c.fold == fold) for each in (clips, after)]
        assert labels[0] == labels[1]


def test_a_seed_that_cannot_be():
    with pytest.raises(ParameterError, match="permute_labels=-1 must be 0 to 4294967295"):
        DataOptions(permute_labels=-1)
