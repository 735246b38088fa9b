"""Near-duplicates: what is alike, what is not, and the command on clips that were copied on purpose."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import soundfile

from transferlens import datasets, duplicates
from transferlens.data.catalogue import DataOptions
from transferlens.features import near_duplicates
from transferlens.features.cache import FeatureCache
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.features.logmel import FeatureOptions, log_mel

SR = 8000


def sound(seed, seconds=1.0):
    """Bursts of noise at random times."""
    rng = np.random.default_rng(seed)
    y = 0.001 * rng.normal(size=int(SR * seconds))
    for start in rng.integers(len(y) - 800, size=4):
        y[start : start + 800] += rng.normal(size=800) * np.hanning(800)
    return (0.2 * y).astype(np.float32)


def fingerprint_of(y):
    return near_duplicates.fingerprints(log_mel(y, sr=SR, width=64)[None])


def alike(a, b):
    return near_duplicates.similarity(fingerprint_of(a)[0], fingerprint_of(b))[0]


def test_a_clip_is_like_itself_and_symmetric():
    assert alike(sound(0), sound(0)) == pytest.approx(1)
    assert alike(sound(0), sound(1)) == pytest.approx(alike(sound(1), sound(0)))


def test_all_are_compared_at_once_as_one_by_one(monkeypatch):
    marks = np.concatenate([fingerprint_of(sound(seed)) for seed in range(7)])
    expected = [near_duplicates.similarity(mark, marks) for mark in marks[:3]]
    for size in (1, 40_000, 2**22):  # one pair at once, some, all
        monkeypatch.setattr(near_duplicates, "AT_ONCE", size)
        np.testing.assert_allclose(near_duplicates.similarities(marks[:3], marks), expected, atol=1e-6)
    first = np.einsum("bf,nbf->nf", marks[0].conj(), marks)  # the largest correlation over shifts
    np.testing.assert_allclose(np.fft.irfft(first, axis=1).max(1), expected[0], atol=1e-6)


def test_gain_does_not_matter_and_a_shift_little():
    assert alike(sound(0), 0.1 * sound(0)) == pytest.approx(1, abs=0.05)
    shifted = CORRUPTIONS["shift"](sound(0), 10, sr=SR)
    assert alike(sound(0), shifted) > 0.75
    assert alike(sound(0), shifted) > max(alike(sound(0), sound(seed)) for seed in range(1, 20))


def test_steady_noises_of_one_kind_are_not_alike():
    noise = [np.random.default_rng(seed).normal(size=SR).astype(np.float32) for seed in range(2)]
    assert alike(*noise) < 0.3


def test_silence_is_like_nothing():
    assert alike(np.zeros(SR, np.float32), sound(0)) == 0


@pytest.fixture
def clips(tmp_path):
    """Two classes in two folds; one clip of the second fold is a softer, shifted copy of one of the first."""
    rows = []
    for number in range(24):
        name, fold = f"{number}.wav", 1 + number % 2
        y = sound(number)
        if number == 9:
            y = 0.5 * CORRUPTIONS["shift"](sound(4), 5, sr=SR)
        soundfile.write(tmp_path / name, y, SR, subtype="FLOAT")
        rows.append(
            (name, "ab"[number % 4 == 1 or number % 4 == 2], fold) if number not in (4, 9) else (name, "a", fold)
        )
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold"), *rows])
    return tmp_path / "clips.csv"


def arguments(clips, *more):
    folder = clips.parent
    return [
        "--clips",
        str(clips),
        "--width",
        "64",
        "--cache",
        str(folder / "cache"),
        "--figures",
        str(folder / "f"),
        *more,
    ]


def test_command_names_the_copy_alone(clips, capsys):
    assert duplicates.main(arguments(clips)) == 1
    with (clips.parent / "f" / "duplicates.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["clip"], row["other_clip"], row["label"]) == ("4.wav", "9.wav", "a")
    assert "4.wav (fold 1)  9.wav (fold 2)" in capsys.readouterr().out


@pytest.fixture
def without_folds(clips):
    """The table of the clips without its column of folds; three pairs of them are copies, two of them a chain."""
    for number, of, shift in ((12, 8, 5), (16, 12, 5), (22, 2, 4)):
        y = soundfile.read(clips.parent / f"{of}.wav", dtype="float32")[0]
        soundfile.write(clips.parent / f"{number}.wav", CORRUPTIONS["shift"](y, shift, sr=SR), SR, subtype="FLOAT")
    with clips.open() as file:
        rows = [row[:2] for row in csv.reader(file)]
    table = clips.with_name("sounds.csv")
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return table


def make_folds(table, *more, n=3):
    written = table.with_name(f"with_folds{len(more)}.csv")
    argv = ["--clips", str(table), "--make-folds", str(written), f"--n-folds-made={n}"]
    return datasets.main([*argv, "--cache", str(table.parent / "cache"), *more]), written


def test_folds_that_are_made_keep_near_duplicates_together(without_folds, capsys, caplog):
    """The law: by the search itself no pair is in two folds, and what was grouped is said in two lines."""
    caplog.set_level("INFO")
    code, table = make_folds(without_folds, "--group-duplicates")
    assert code == 0
    grouped, made = caplog.messages
    assert "in 24 clips: 7 clips are of 3 recordings, of at most 3 clips" in grouped
    assert "3 folds are made, with seed 0: recordings are kept whole" in made
    groups = {clip.id: clip.group for clip in DataOptions(clips=table).open().clips if clip.group}
    assert groups == {
        "12.wav": "12.wav", "16.wav": "12.wav", "8.wav": "12.wav", "2.wav": "2.wav", "22.wav": "2.wav",
        "4.wav": "4.wav", "9.wav": "4.wav",
    }  # fmt: skip
    argv = ["--clips", str(table), "--cache", str(table.parent / "cache"), "--figures", str(table.parent / "f")]
    assert duplicates.main(argv) == 0
    assert "pairs of one class in different folds that are as alike: 0" in capsys.readouterr().out
    code, table = make_folds(without_folds)
    assert code == 0
    argv[1] = str(table)
    assert duplicates.main(argv) == 1


def test_near_duplicates_join_the_recordings_that_names_tell(without_folds):
    """Clips 2 and 8 are of one recording by their names: a chain of pairs and names is one."""
    _, table = make_folds(without_folds, "--group-duplicates", "--group-by", r"([28])\.wav")
    homes = {clip.id: clip.recording for clip in DataOptions(clips=table).open().clips}
    assert homes["12.wav"] == homes["16.wav"] == homes["8.wav"] == homes["18.wav"]
    assert homes["2.wav"] == homes["22.wav"] == homes["12.wav"]
    assert homes["4.wav"] == homes["9.wav"] != homes["2.wav"]


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        (["0.wav,a,1", "1.wav,b,2"], [], "clips=.* has folds: leave out the column, or the folders of splits"),
        (["0.wav,a", "1.wav,a"], [], "all clips are of one class, a: two or more are needed; name the folder"),
        (["0.wav,a", "1.wav,b"], [], "no class has recordings for 3 folds, .a. the most"),
        (["0.wav,a", "1.wav,b"], ["--group-by", "wav"], "the threshold follows: .* or make folds without group_dup"),
    ],
)
def test_clips_whose_near_duplicates_cannot_be_grouped(without_folds, rows, more, message, capsys):
    header = ["path,label,fold" if rows[0].count(",") == 2 else "path,label"]
    without_folds.write_text("\n".join([*header, *rows]) + "\n")
    assert make_folds(without_folds, "--group-duplicates", *more)[0] == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_near_duplicates_are_grouped_for_a_table_of_folds_only(without_folds, capsys):
    for argv, message in (
        (
            ["--clips", str(without_folds), "--group-duplicates"],
            "group_duplicates goes with make_folds, the table that",
        ),
        (
            ["--group-duplicates", "--make-folds", "x.csv"],
            "clips must be a table or a folder without folds: other data",
        ),
    ):
        assert datasets.main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_no_copies(clips, capsys):
    assert duplicates.main(arguments(clips, "--threshold", "1")) == 0
    assert "pairs of one class in different folds that are as alike: 0" in capsys.readouterr().out
    assert len((clips.parent / "f" / "duplicates.csv").read_text().splitlines()) == 1  # the names of the columns


def test_accuracy_without_them(seeds_store, tmp_path, capsys):
    arms, folder = seeds_store
    clips = folder / "tones" / "clips.csv"
    paths = [str(run.path) for run in arms["tuned"]]
    argv = arguments(clips, "--ckpt", *paths, "--threshold", "1e-9")
    argv[argv.index("--figures") + 1] = str(tmp_path)
    argv[argv.index("--cache") + 1] = str(tmp_path / "cache")
    assert duplicates.main(argv) == 1  # at this threshold everything is alike
    assert "every one of which has a near-duplicate" in capsys.readouterr().out
    argv[argv.index("--threshold") + 1] = "1"
    assert duplicates.main(argv) == 0
    right = np.concatenate([run.right for run in arms["tuned"]])
    assert f"{100 * right.mean():.1f} % over the {len(right)} without" in capsys.readouterr().out


def test_arms_are_told_apart_and_clips_with_a_copy_are_left_out(seeds_store):
    arms, _ = seeds_store
    both = [*arms["tuned"], *arms["scratch"]]
    twin = arms["tuned"][0].clip_ids[0]
    lines = duplicates._without(both, {twin}, "another fold").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["test_resnet, pretrained", "test_resnet, from scratch"]
    for line, mine in zip(lines, (arms["tuned"], arms["scratch"]), strict=True):
        keep = np.concatenate([[clip != twin for clip in run.clip_ids] for run in mine])
        right = np.concatenate([run.right for run in mine])
        assert f"{100 * right[keep].mean():.1f} % over the {keep.sum()} without" in line
        assert keep.sum() == len(right) - len({run.config.seed for run in mine})


def test_pairs_of_one_recording_calibrate_nothing(tmp_path):
    """Two classes of the same recording are the same sound: without leaving them out the threshold would be 1."""
    table = [("path", "label", "fold", "group")]
    for number in range(8):
        for label in "ab":
            soundfile.write(tmp_path / f"{number}{label}.wav", sound(number), SR, subtype="FLOAT")
            table.append((f"{number}{label}.wav", label, 1 + number % 2, f"recording {number}"))
    found = {}
    for columns in (3, 4):
        with (tmp_path / "clips.csv").open("w", newline="") as file:
            csv.writer(file).writerows([row[:columns] for row in table])
        dataset = DataOptions(clips=tmp_path / "clips.csv", width=64).open()
        cache = FeatureCache(dataset, FeatureOptions().settings(dataset), tmp_path / "cache")
        cache.fill()
        found[columns] = near_duplicates.calibrate(dataset, cache, near_duplicates.fingerprints(cache.load()))
    assert found[3].threshold == pytest.approx(1, abs=1e-3)
    assert found[4].threshold < 0.9
    assert (found[3].n_pairs, found[4].n_pairs) == (64, 56)  # each once


@pytest.mark.parametrize(
    ("threshold", "rule"),
    [("0", "greater than 0"), ("1.5", "greater than 0 and at most 1"), ("nan", "a finite number")],
)
def test_bad_threshold(clips, threshold, rule, capsys):
    assert duplicates.main(arguments(clips, "--threshold", threshold)) == 2
    assert f"must be {rule}" in capsys.readouterr().err


def test_one_class_needs_a_threshold(clips, capsys):
    clips.write_text("path,label,fold\n0.wav,a,1\n1.wav,a,2\n")
    assert duplicates.main(arguments(clips)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no two clips of different recordings and classes, " in line
    assert "from which the threshold follows: give one to `duplicates`" in line
    assert duplicates.main(arguments(clips, "--threshold", "0.9")) == 0


def test_runs_of_other_clips(clips, seeds_store, capsys):
    path = str(seeds_store[0]["tuned"][0].path)
    assert duplicates.main(arguments(clips, "--ckpt", path)) == 2
    assert "was trained on other clips" in capsys.readouterr().err


@pytest.fixture
def others(tmp_path):
    """Clips of another class, rate and length: a copy of a clip, one of a shared recording, and a third."""
    folder = tmp_path / "others"
    folder.mkdir()
    rows = [("path", "label", "fold", "group")]
    for name, y, group in (
        ("copy.wav", 0.5 * sound(4), "x"),
        ('take, "2".wav', sound(100), "r7"),
        ("größe.wav", sound(101), ""),
    ):
        y = np.concatenate([y, np.zeros(SR, np.float32)])
        soundfile.write(folder / name, np.repeat(y, 2), 2 * SR, subtype="FLOAT")
        rows.append((name, "c", "1", group))
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "clips.csv"


@pytest.fixture
def grouped(clips):
    """The clips, the seventh of recording r7."""
    with clips.open() as file:
        rows = list(csv.reader(file))
    table = clips.with_name("grouped.csv")
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*rows[0], "group"], *([*row, "r7" if row[0] == "7.wav" else ""] for row in rows[1:])]
        )
    return table


def test_another_data_set_shares_a_copy_and_a_recording(grouped, others, tmp_path, capsys):
    left = tmp_path / "left.csv"
    assert duplicates.main(arguments(grouped, "--against", str(others), "--leave-out", str(left))) == 1
    with (tmp_path / "f" / "duplicates.csv").open(encoding="utf-8") as file:
        found = {(row["clip"], row["other_clip"], row["recording"], row["other_label"]) for row in csv.DictReader(file)}
    assert ("7.wav", 'take, "2".wav', "r7", "c") in found
    assert ("4.wav", "copy.wav", "", "c") in found
    assert {clip for clip, *_ in found} <= {"7.wav", "4.wav", "9.wav"}  # 9 is a copy of 4
    out = capsys.readouterr().out
    assert "recordings that are in others too: 1 (r7), of 1 clip; other clips that sound like one there: " in out
    rest = DataOptions(clips=left).open()
    assert {clip.id for clip in rest.clips}.isdisjoint(("7.wav", "4.wav"))
    before = {clip.path: (clip.label, clip.fold) for clip in DataOptions(clips=grouped).open().clips}
    assert len(rest.clips) == 24 - len({clip for clip, *_ in found})
    assert all(before[clip.path] == (clip.label, clip.fold) for clip in rest.clips)


def test_what_is_left_has_the_ids_that_it_had_beside_its_table(grouped, others, tmp_path):
    """Below the folder of the new table paths are relative, elsewhere absolute."""
    (tmp_path / "elsewhere").mkdir()
    found = []
    for left in (tmp_path / "left.csv", tmp_path / "elsewhere" / "left.csv"):
        assert duplicates.main(arguments(grouped, "--against", str(others), "--leave-out", str(left))) == 1
        found.append(DataOptions(clips=left).open().clips)
    beside, elsewhere = found
    before = DataOptions(clips=grouped).open().clips
    assert {(clip.id, clip.label, clip.fold, clip.group) for clip in beside} < {
        (clip.id, clip.label, clip.fold, clip.group) for clip in before
    }
    assert {clip.id for clip in elsewhere} == {str(tmp_path.resolve() / clip.id) for clip in beside}


def test_nothing_is_left(grouped, others, tmp_path, capsys):
    left = tmp_path / "left.csv"
    argv = arguments(grouped, "--against", str(others), "--leave-out", str(left), "--threshold", "1e-9")
    assert duplicates.main(argv) == 2
    assert "no clip of grouped is left: all 24 were left out" in capsys.readouterr().err
    assert not left.exists()


def test_tables_that_are_read_are_not_replaced(grouped, others, tmp_path, capsys):
    for table, what in (
        (grouped, "exists already: name a new file"),
        (others, "exists already: name a new file"),
        (tmp_path, "is a fo"),
    ):
        before = None if table.is_dir() else table.read_bytes()
        assert duplicates.main(arguments(grouped, "--against", str(others), "--leave-out", str(table))) == 2
        assert f"leave_out='{table}' {what}" in capsys.readouterr().err
        assert before is None or table.read_bytes() == before


def test_a_path_that_is_not_plain_text_is_not_written(others, tmp_path, capsys):
    """A folder may have any name: the table could not be opened again."""
    odd = tmp_path / "a\nb"
    others.parent.rename(odd)
    argv = ["--clips", str(odd / "clips.csv"), "--against", str(odd / "clips.csv"), f"--cache={tmp_path / 'cache'}"]
    assert duplicates.main([*argv, f"--figures={tmp_path}", "--leave-out", str(tmp_path / "left.csv")]) == 2
    assert r"a\nb/copy.wav', which is not plain text: name a file in the folder of the clips" in capsys.readouterr().err


def test_a_long_clip_in_the_other_table_hides_no_copy(clips, others, capsys):
    """All are padded to it, and none is squeezed: the 250 frames of a clip would be half a second here."""
    y = 0.001 * np.random.default_rng(0).normal(size=60 * SR).astype(np.float32)
    soundfile.write(others.parent / "long.wav", y, SR)
    with others.open("a") as file:
        file.write("long.wav,d,1,\n")
    assert duplicates.main(arguments(clips, "--against", str(others))) == 1
    assert "4.wav (fold 1)" in capsys.readouterr().out


def test_both_data_sets_calibrate_the_threshold(grouped, others, capsys):
    """With a second class the other one has pairs of strangers, too, and more clips of the first are drawn."""
    numbers = []
    for _ in range(2):
        assert duplicates.main(arguments(grouped, "--against", str(others))) == 1
        numbers.append(int(capsys.readouterr().out.partition("most alike of ")[2].split()[0]))
        soundfile.write(others.parent / "d.wav", sound(200), SR)
        with others.open("a") as file:
            file.write("d.wav,d,1,\n")
    assert 0 < numbers[0] <= 3 * 24
    assert numbers[0] + 3 < numbers[1] <= 4 * 24


def test_what_is_left_survives_odd_names(grouped, others, tmp_path):
    left = tmp_path / "left.csv"
    argv = ["--clips", str(others), "--cache", str(tmp_path / "cache"), "--figures", str(tmp_path / "f"), "--width=64"]
    assert duplicates.main([*argv, "--against", str(grouped), "--leave-out", str(left), "--threshold", "0.99"]) == 1
    assert [clip.path.name for clip in DataOptions(clips=left).open().clips] == ["copy.wav", "größe.wav"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--leave-out", "x.csv"], "leave_out goes with against, the other data set"),
        (["--against-root", "x"], "against_root goes with against, the other data set"),
        (["--against", "esc99"], "against='esc99' must be one of"),
        (["--against", "esc50"], "against='esc50' needs root"),
        (["--against", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_another_data_set_that_cannot_be_opened(clips, more, message, capsys):
    assert duplicates.main(arguments(clips, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.esc10
@pytest.mark.urbansound8k
def test_recordings_of_esc10_in_urbansound8k(esc10, urbansound8k):
    """Nine recordings are in both, of which these folds have some: see the read-me of the copy."""
    both = {"30344", "59513", "114587", "116400", "163459", "170015", "180256", "199261", "203128"}
    target, source = DataOptions(clips=esc10).open(), DataOptions(dataset="urbansound8k", root=urbansound8k).open()
    marks = [np.zeros((len(dataset.clips), 1, 2), complex) for dataset in (target, source)]
    pairs = duplicates.shared(target, marks[0], source, marks[1], 1.0)
    names = {pair.recording for pair in pairs}
    assert names == {clip.group for clip in target.clips} & {clip.group for clip in source.clips}
    assert names and names <= both


@pytest.mark.esc10
@pytest.mark.urbansound8k
def test_what_esc10_and_urbansound8k_share_is_heard(esc10, urbansound8k, tmp_path, capsys):
    """Of the shared recordings three pairs of clips are mostly the same sound; all of them are left out."""
    target, source = DataOptions(clips=esc10).open(), DataOptions(dataset="urbansound8k", root=urbansound8k).open()
    both = {clip.group for clip in target.clips} & {clip.group for clip in source.clips}
    paths = {}
    for name, dataset in (("target", target), ("source", source)):
        clips = [
            clip for i, clip in enumerate(dataset.clips) if clip.group in both or i % (len(dataset.clips) // 30) == 0
        ]
        paths[name] = tmp_path / f"{name}.csv"
        with paths[name].open("w", newline="") as file:
            rows = [(clip.path, clip.label, clip.fold, clip.group) for clip in clips]
            csv.writer(file).writerows([("path", "label", "fold", "group"), *rows])
    left = tmp_path / "left.csv"
    argv = [f"--clips={paths['source']}", f"--against={paths['target']}", f"--leave-out={left}", "--threshold=0.7"]
    assert duplicates.main([*argv, f"--cache={tmp_path}", f"--figures={tmp_path}"]) == 1
    assert f"recordings that are in target too: {len(both)} (" in capsys.readouterr().out
    with (tmp_path / "duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    heard = [row for row in rows if float(row["similarity"]) >= 0.7]
    assert len(heard) == 3 and all(row["recording"] for row in heard)
    assert both.isdisjoint(clip.group for clip in DataOptions(clips=left).open().clips)
