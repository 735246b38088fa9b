"""Every layout of a data set is read, and what is wrong with one is named in one line."""

import json
import logging
import os
from unicodedata import normalize

import pytest
from audio_files import SR, table, tone, two_by_two, write

from transferlens.data import readers
from transferlens.data.audit import audit, unreadable
from transferlens.data.catalogue import open_dataset
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.text import natural


@pytest.fixture
def clips(tmp_path):
    return two_by_two(tmp_path)


def test_table_is_read_as_it_lies(tmp_path):
    write(tmp_path / "a b.wav")
    write(tmp_path / "deep" / "c.wav", tone(seconds=0.5))
    rows = [" deep/c.wav , dog ,10, me ", '"a b.wav",cat,9,', ""]
    dataset = open_dataset(clips=table(tmp_path, rows, header="path , label,fold,author", encoding="utf-8-sig"))
    assert [clip.id for clip in dataset.clips] == ["a b.wav", "deep/c.wav"]
    assert dataset.label_names == ("cat", "dog")
    assert dataset.folds == ("9", "10")
    assert dataset.clips[1].extra == {"author": "me"}
    assert dataset.clips[1].group is None
    assert (dataset.sr, dataset.seconds, dataset.n_fft, dataset.width) == (SR, 0.5, None, 250)


def test_recordings_are_named_by_one_column(tmp_path):
    """The first of the columns that is not empty: one name in two columns may be of two recordings."""
    for name in "abc":
        write(tmp_path / f"{name}.wav")
    rows = ["a.wav,x,1,,7,", "b.wav,y,1,,,7", "c.wav,y,1,,7,7"]
    dataset = open_dataset(clips=table(tmp_path, rows, header="path,label,fold,group,fsID,freesound_id"))
    assert dataset.recordings == ("7", "b.wav", "7")


def test_labels_and_folds_do_not_depend_on_the_order_of_rows(tmp_path, clips):
    rows = clips.read_text().splitlines()[1:]
    again = open_dataset(clips=table(tmp_path, rows[::-1], name="other.csv"))
    assert again.clips == open_dataset(clips=clips).clips


@pytest.mark.parametrize(
    ("file", "name"),
    [("clips.csv", "my-birds"), ("Set_2.csv", "set_2"), ("Ä B.csv", "b"), ("ß.csv", "clips")],
)
def test_name_of_a_users_data_set(tmp_path, file, name):
    folder = tmp_path / "My Birds"
    write(folder / "a.wav")
    assert open_dataset(clips=table(folder, ["a.wav,x,1"], name=file)).name == name


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,fold", ["a.wav,1"], "lacks label: it has path, fold, and needs path, label"),
        ("path,label,fold", [], "lists no clips"),
        ("path,label,fold", ["a.wav,x,1", "a.wav,,1", "b.wav,x,"], "has no label in row 3; no fold in row 4"),
        ("path,label,fold", ["a.wav,x,1", "./a.wav,y,2"], "lists files more than once: a.wav, ./a.wav"),
        ("path,label,fold", ["a.wav,x, y,1"], "3 cells in every row, and has more or fewer in row 2.* a comma"),
        ("path;label;fold", ["a.wav;x;y;1"], "3 cells in every row, and has more or fewer in row 2.* a semicolon"),
        (
            "path,label,fold",
            [f"{i}.wav,x,1" for i in range(60)],
            "60 of 60 audio .*: 0.wav.*49.wav and 10 more",
        ),
    ],
)
def test_bad_tables_are_named_in_one_line(tmp_path, header, rows, message):
    write(tmp_path / "a.wav")
    with pytest.raises(DataError, match=message) as error:
        open_dataset(clips=table(tmp_path, rows, header=header))
    assert "\n" not in str(error.value)


def test_tables_that_are_none(tmp_path):
    with pytest.raises(DataError, match="has no sound files: name a folder with one folder per class, or a csv table"):
        open_dataset(clips=tmp_path)
    with pytest.raises(DataError, match="none.csv does not exist: name a csv file with the columns path, label$"):
        open_dataset(clips=tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="it has no columns, and needs path"):
        open_dataset(clips=tmp_path / "empty.csv")
    with pytest.raises(DataError, match="a.wav is not text: name a csv file with the columns path, label"):
        open_dataset(clips=write(tmp_path / "a.wav"))
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="book.xlsx is an Excel workbook or another zip archive, not a csv table"):
        open_dataset(clips=tmp_path / "book.xlsx")


def test_a_class_that_may_be_a_missing_label_is_named(tmp_path, caplog):
    for name in "ab":
        write(tmp_path / f"{name}.wav")
    open_dataset(clips=table(tmp_path, ["a.wav,dog,1", "b.wav,NaN,2"]))
    assert "has the class NaN, which may stand for a missing label" in caplog.text


def test_rate_is_the_commonest_and_unreadable_headers_do_not_vote(tmp_path):
    for i, sr in enumerate([16000, 16000, 48000]):
        write(tmp_path / f"{i}.wav", sr=sr)
    for i in (3, 4, 5):
        (tmp_path / f"{i}.wav").write_bytes(b"no audio")
    rows = [f"{i}.wav,x,1" for i in range(6)]
    assert open_dataset(clips=table(tmp_path, rows)).sr == 16000
    assert open_dataset(clips=table(tmp_path, rows), sr=22050).sr == 22050
    with pytest.raises(DataError, match="no audio file .*: 3.wav, 4.wav, 5.wav"):
        open_dataset(clips=table(tmp_path, rows[3:]))


def esc50(root, rows):
    header = "filename,fold,target,category,esc10,src_file,take"
    (root / "meta").mkdir(parents=True)
    table(root / "meta", rows, name="esc50.csv", header=header)
    for row in rows:
        write(root / "audio" / row.split(",")[0])
    return root


ESC_ROWS = ["1-9-A-0.wav,1,0,dog,True,9,A", "2-8-A-0.wav,2,0,dog,True,8,A", "2-7-B-3.wav,2,3,cow,False,7,B"]


def test_esc50_and_its_subset(tmp_path, caplog):
    root = esc50(tmp_path, ESC_ROWS)
    whole, subset = open_dataset("esc50", root=root), open_dataset("esc10", root=str(root))
    assert [(clip.id, clip.label, clip.fold, clip.group) for clip in whole.clips] == [
        ("1-9-A-0.wav", "dog", "1", "9"),
        ("2-7-B-3.wav", "cow", "2", "7"),
        ("2-8-A-0.wav", "dog", "2", "8"),
    ]
    assert [clip.id for clip in subset.clips] == ["1-9-A-0.wav", "2-8-A-0.wav"]
    assert (whole.sr, whole.n_fft, whole.width, whole.seconds) == (44100, 4410, 250, 5)
    assert "esc50 has 2 classes here; a complete copy has 50" in caplog.text
    # Another rate leaves the length of the transform to the features.
    assert open_dataset("esc50", root=root, sr=16000).n_fft is None


def test_names_sort_as_people_count():
    names = ["10", "2", "02", "1" * 5000, "fold3", "fold10", ""]
    assert sorted(names, key=natural) == ["", "02", "2", "10", "1" * 5000, "fold3", "fold10"]


def test_a_link_in_a_circle_is_named(tmp_path):
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "clips.csv").write_text("path,label,fold\nloop.wav,a,1\n")
    with pytest.raises(DataError, match="loop.wav"):
        readers.read_user_table(tmp_path / "clips.csv")


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_letters_with_accents_find_the_file_however_they_are_encoded(tmp_path, written):
    """Also if folder and file differ; the id is as written if it is the file's name, and else composed."""
    on_disk = {"NFC": "NFD", "NFD": "NFC"}[written]
    write(tmp_path / normalize(on_disk, "Gäste") / normalize(on_disk, "Geräusch.wav"), tone(300))
    write(tmp_path / normalize(written, "é") / normalize(on_disk, "è.wav"), tone(400))
    write(tmp_path / normalize("NFD", "ö.wav"), tone(500))
    rows = [f"{normalize(written, path)},x,1" for path in ("Gäste/Geräusch.wav", "é/è.wav")]
    rows.append(f"{normalize('NFD', 'ö.wav')},y,2")
    dataset = open_dataset(clips=table(tmp_path, rows))
    expected = ["Gäste/Geräusch.wav", normalize("NFD", "ö.wav"), "é/è.wav"]
    assert {clip.id for clip in dataset.clips} == {
        normalize("NFC", expected[0]),
        expected[1],
        normalize("NFC", expected[2]),
    }
    assert all(clip.path.is_file() for clip in dataset.clips)


def test_backslashes_separate_folders(tmp_path):
    for name in ("audio/dog/1.wav", "audio/2.wav", "a/3.wav", "b\\4.wav"):
        write(tmp_path / name)
    rows = ["audio\\dog\\1.wav,x,1", ".\\audio\\2.wav,x,2", "audio\\..\\a/3.wav,y,1", "b\\4.wav,y,2"]
    dataset = open_dataset(clips=table(tmp_path, rows))
    assert {clip.id for clip in dataset.clips} == {"audio/dog/1.wav", "audio/2.wav", "audio/../a/3.wav", "b\\4.wav"}
    with pytest.raises(DataError, match=r"2 of 3 audio files .*: audio\\no.wav, no/../2.wav; paths"):
        open_dataset(clips=table(tmp_path, ["audio\\no.wav,x,1", "no/../2.wav,x,1", rows[0]]))
    with pytest.raises(DataError, match=r"lists files more than once: audio/dog/1.wav"):
        open_dataset(clips=table(tmp_path, ["audio/dog/1.wav,x,1", rows[0]]))


@pytest.mark.parametrize("column", ["label", "fold", "group", "src_file"])
def test_one_name_in_two_encodings_is_named(tmp_path, column):
    names = [normalize(form, "Käfig") for form in ("NFC", "NFD")]
    header = ["path", "label", "fold"] + ([column] if column in readers.RECORDINGS else [])
    rows = [",".join(name if key == column else "a.wav" for key in header) for name in names]
    with pytest.raises(DataError, match=f"letters with accents of a {column} in more than one way: {names[0]}"):
        open_dataset(clips=table(tmp_path, rows, header=",".join(header)))


@pytest.mark.parametrize(
    ("names", "training", "held_out"),
    [
        (("train", "test", "validation"), ["train"], ["test"]),
        (("Train", "Test", "Validation"), ["Train"], ["Test"]),
        (("TRAINING", "TEST", "dev"), ["TRAINING"], ["TEST"]),
        (("Train", "train", "eval"), ["Train", "train"], ["eval"]),
        (("Training", "Validation", "Val2"), ["Training"], ["Val2", "Validation"]),
        (("Test", "site A", "trainer"), [], ["Test", "site A", "trainer"]),
    ],
)
def test_folds_named_train_and_test_are_understood_in_any_case(tmp_path, names, training, held_out):
    rows = [f"{fold}-{label}.wav,{label},{fold}" for fold in names for label in "xy"]
    for row in rows:
        write(tmp_path / row.split(",")[0])
    dataset = open_dataset(clips=table(tmp_path, rows))
    assert (list(dataset.training_folds), list(dataset.held_out_folds)) == (training, held_out)
    for fold in held_out:
        expected = training or [other for other in names if other != fold]
        assert {dataset.clips[row].fold for row in dataset.split(fold)[0]} == set(expected)


def test_missing_files_are_named_at_once(tmp_path):
    root = esc50(tmp_path, ESC_ROWS)
    for file in (root / "audio").glob("2-*"):
        file.unlink()
    with pytest.raises(DataError, match=r"2 of 3 audio files .*: 2-8-A-0.wav, 2-7-B-3.wav; get the complete data set"):
        open_dataset("esc50", root=root)


def test_wrong_root_says_what_is_looked_for(tmp_path):
    for name, expected in [
        ("esc50", "meta/esc50.csv"),
        ("urbansound8k", "metadata/Urban"),
        ("gtzan", "genres/"),
        ("speechcommands", "must be the folder that contains validation_list.txt, testing_list.txt, and a folder per"),
        ("tau2020", "must be the folder that contains meta.csv, which does not exist there"),
        ("tau2022", "must be the folder that contains meta.csv"),
        ("nsynth", "nsynth-train/examples.json, nsynth-valid/examples.json or nsynth-test/examples.json"),
    ]:
        with pytest.raises(DataError, match=expected) as error:
            open_dataset(name, root=tmp_path)
        assert "\n" not in str(error.value)


def test_splits_are_for_gtzan_only(tmp_path):
    with pytest.raises(ParameterError, match="for gtzan only"):
        open_dataset("esc50", root=esc50(tmp_path, ESC_ROWS), splits=tmp_path)


def test_urbansound8k(tmp_path):
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    rows = ["7-3-0-0.wav,7,0.0,4.0,1,10,3,dog_bark", "8-1-0-0.wav,8,0.5,1.2,2,2,1,car_horn"]
    (tmp_path / "metadata").mkdir()
    table(tmp_path / "metadata", rows, name="UrbanSound8K.csv", header=header)
    write(tmp_path / "audio" / "fold10" / "7-3-0-0.wav")
    write(tmp_path / "audio" / "fold2" / "8-1-0-0.wav")
    dataset = open_dataset("urbansound8k", root=tmp_path)
    assert [(clip.id, clip.label, clip.group) for clip in dataset.clips] == [
        ("fold10/7-3-0-0.wav", "dog_bark", "7"),
        ("fold2/8-1-0-0.wav", "car_horn", "8"),
    ]
    assert dataset.folds == ("2", "10")


@pytest.fixture
def gtzan(tmp_path):
    for genre in ("blues", "rock"):
        for i in range(10):
            path = tmp_path / "genres_original" / genre / f"{genre}.{i:05d}.wav"
            write(path, tone(300 + i + len(genre)))
    (tmp_path / "genres_original" / "rock" / "._rock.00000.wav").write_bytes(b"left by macOS")
    return tmp_path


def test_gtzan_is_cut_into_blocks_of_neighbours(gtzan):
    dataset = open_dataset("gtzan", root=gtzan)
    assert len(dataset.clips) == 20
    for genre in ("blues", "rock"):
        folds = [clip.fold for clip in dataset.clips if clip.label == genre]
        assert folds == list("1122334455")  # fold 5 is the last fifth, as the paper's code holds it out
    assert open_dataset("gtzan", root=gtzan / "genres_original").clips == dataset.clips


def split_files(folder, train, valid, test):
    folder.mkdir(exist_ok=True)
    names = {"train_filtered.txt": train, "valid_filtered.txt": valid, "test_filtered.txt": test}
    for name, numbers in names.items():
        (folder / name).write_text("".join(f"blues/blues.{i:05d}.wav\n" for i in numbers))
    return folder


def test_gtzan_with_published_splits(gtzan, caplog):
    folder = split_files(gtzan / "lists", [0, 1, 2], [5], [9, 8])
    with caplog.at_level(logging.INFO):
        dataset = open_dataset("gtzan", root=gtzan, splits=folder)
    assert {clip.id[-9:-4]: clip.fold for clip in dataset.clips} == {
        "00000": "train",
        "00001": "train",
        "00002": "train",
        "00005": "validation",
        "00008": "test",
        "00009": "test",
    }
    assert dataset.held_out_folds == ("test",)
    assert "14 of 20 clips are in none of the split files" in caplog.text
    files = [folder / f"{kind}_filtered.txt" for kind in ("train", "valid", "test")]
    assert open_dataset("gtzan", root=gtzan, splits=files).clips == dataset.clips


def test_gtzan_splits_fit_copies_in_au(gtzan):
    for file in (gtzan / "genres_original" / "blues").glob("*.wav"):
        file.rename(file.with_suffix(".au"))
    folder = split_files(gtzan / "lists", [0], [1], [2])
    dataset = open_dataset("gtzan", root=gtzan, splits=folder)
    assert [clip.path.suffix for clip in dataset.clips] == [".au"] * 3


def test_bad_splits_are_named_at_once(gtzan):
    with pytest.raises(DataError, match=r"2 names .* blues/blues.00070.wav, blues/blues.00080.wav"):
        open_dataset("gtzan", root=gtzan, splits=split_files(gtzan / "a", [0, 70], [1], [80]))
    with pytest.raises(DataError, match="1 clips are named more than once .*: blues/blues.00001"):
        open_dataset("gtzan", root=gtzan, splits=split_files(gtzan / "b", [0, 1], [1], [2]))
    (gtzan / "b" / "train2.txt").touch()
    with pytest.raises(DataError, match=r"contains 2 train\*.txt"):
        open_dataset("gtzan", root=gtzan, splits=gtzan / "b")
    with pytest.raises(ParameterError, match="must be a folder that contains"):
        open_dataset("gtzan", root=gtzan, splits=[gtzan / "train.txt", gtzan / "test.txt"])


def test_damaged_clip_of_gtzan_is_named_with_a_hint(gtzan):
    (gtzan / "genres_original" / "jazz").mkdir()
    (gtzan / "genres_original" / "jazz" / "jazz.00054.wav").write_bytes(b"damaged")
    reasons = unreadable(open_dataset("gtzan", root=gtzan))
    assert list(reasons) == ["jazz/jazz.00054.wav"]
    assert "known to be damaged" in reasons["jazz/jazz.00054.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_not_a_table(tmp_path):
    os.mkfifo(tmp_path / "clips.csv")
    with pytest.raises(DataError, match="clips.csv is not a regular file: name a csv file with the columns path"):
        open_dataset(clips=tmp_path / "clips.csv")


def places(dataset):
    """Label, fold and recording of each clip."""
    return {clip.id: (clip.label, clip.fold, clip.group) for clip in dataset.clips}


@pytest.fixture
def speech_commands(tmp_path):
    """The layout of the archive: a folder per word, background noise, two lists, two texts."""
    for name in ("bed/aa_nohash_0", "bed/bb_nohash_0", "bed/bb_nohash_1", "cat/cc_nohash_0", "cat/aa_nohash_0"):
        write(tmp_path / f"{name}.wav", sr=16000)
    write(tmp_path / "_background_noise_" / "pink_noise.wav", sr=16000)
    (tmp_path / "README.md").write_text("Speech Commands")
    (tmp_path / "validation_list.txt").write_text("bed/bb_nohash_0.wav\nbed/bb_nohash_1.wav\n")
    (tmp_path / "testing_list.txt").write_text("cat/cc_nohash_0.wav\n")
    return tmp_path


def test_speech_commands_are_split_by_their_lists_and_grouped_by_speaker(speech_commands, caplog):
    dataset = open_dataset("speechcommands", root=speech_commands)
    assert places(dataset) == {
        "bed/aa_nohash_0.wav": ("bed", "train", "aa"),
        "cat/aa_nohash_0.wav": ("cat", "train", "aa"),
        "bed/bb_nohash_0.wav": ("bed", "validation", "bb"),
        "bed/bb_nohash_1.wav": ("bed", "validation", "bb"),
        "cat/cc_nohash_0.wav": ("cat", "test", "cc"),
    }
    assert (dataset.sr, dataset.seconds, dataset.n_fft, dataset.width) == (16000, 1, 1600, 100)
    assert (dataset.training_folds, dataset.held_out_folds) == (("train",), ("test",))
    assert caplog.messages == ["speechcommands has 2 classes here; a complete copy has 35"]
    assert audit(dataset).serious == ()


def test_lists_of_speech_commands_that_name_other_files(speech_commands):
    (speech_commands / "testing_list.txt").write_text("cat/cc_nohash_0.wav\ndog/dd_nohash_0.wav\n")
    with pytest.raises(DataError, match="1 names in the split files are not clips of speechcommands: dog/dd_nohash_0"):
        open_dataset("speechcommands", root=speech_commands)
    (speech_commands / "testing_list.txt").unlink()
    with pytest.raises(DataError, match=r"must be the folder that contains testing_list.txt, and a folder per word"):
        open_dataset("speechcommands", root=speech_commands)


@pytest.fixture
def tau(tmp_path):
    """The layout of the development set: tables with tabs, in which one segment is in neither list."""
    rows = []
    for scene, city, place, device in (
        ("airport", "lisbon", 1000, "a"),
        ("airport", "lisbon", 1000, "s1"),
        ("park", "paris", 7, "a"),
        ("park", "vienna", 8, "b"),
        ("airport", "lyon", 9, "c"),
    ):
        name = f"audio/{scene}-{city}-{place}-40000-{device}.wav"
        write(tmp_path / name, sr=44100, subtype="PCM_24")
        rows.append((name, scene, f"{city}-{place}", device))
    table(tmp_path, ["\t".join(row) for row in rows], "meta.csv", "filename\tscene_label\tidentifier\tsource_label")
    (tmp_path / "evaluation_setup").mkdir()
    labelled = ["\t".join(row[:2]) for row in rows]
    for name, header, lines in (
        ("train", "filename\tscene_label", labelled[:3]),
        ("test", "filename", [row[0] for row in rows[3:4]]),
        ("evaluate", "filename\tscene_label", labelled[3:4]),
    ):
        table(tmp_path / "evaluation_setup", lines, f"fold1_{name}.csv", header)
    return tmp_path


@pytest.mark.parametrize(("name", "seconds", "width"), [("tau2020", 10, 500), ("tau2022", 1, 100)])
def test_tau_is_split_by_its_setup_and_grouped_by_location(tau, name, seconds, width, caplog):
    caplog.set_level(logging.INFO)
    dataset = open_dataset(name, root=tau)
    assert places(dataset) == {
        "audio/airport-lisbon-1000-40000-a.wav": ("airport", "train", "lisbon-1000"),
        "audio/airport-lisbon-1000-40000-s1.wav": ("airport", "train", "lisbon-1000"),
        "audio/park-paris-7-40000-a.wav": ("park", "train", "paris-7"),
        "audio/park-vienna-8-40000-b.wav": ("park", "test", "vienna-8"),
    }
    assert (dataset.sr, dataset.seconds, dataset.width) == (44100, seconds, width)
    assert (dataset.training_folds, dataset.held_out_folds) == (("train",), ("test",))
    assert "1 of 5 clips are in none of the split files and are left out" in caplog.messages


def test_tau_without_its_setup_or_its_sounds(tau):
    (tau / "audio" / "park-paris-7-40000-a.wav").unlink()
    with pytest.raises(DataError, match=r"1 of 4 audio files do not exist .*: audio/park-paris-7-40000-a.wav; get the"):
        open_dataset("tau2020", root=tau)
    (tau / "evaluation_setup" / "fold1_train.csv").unlink()
    with pytest.raises(DataError, match="must be the folder that contains evaluation_setup/fold1_train.csv"):
        open_dataset("tau2020", root=tau)


@pytest.fixture
def nsynth(tmp_path):
    """The layout of the three archives."""
    for part, names in (
        ("train", ("bass_synthetic_068-049-025", "bass_synthetic_068-049-050", "flute_acoustic_002-077-100")),
        ("valid", ("bass_electronic_001-024-025",)),
        ("test", ("flute_acoustic_000-070-075",)),
    ):
        notes = {}
        for name in names:
            family, source, _ = name.split("-")[0].rsplit("_", 2)
            write(tmp_path / f"nsynth-{part}" / "audio" / f"{name}.wav", sr=16000)
            notes[name] = {
                "note_str": name, "instrument_str": name.split("-")[0], "instrument_family_str": family,
                "instrument_source_str": source, "pitch": 49, "velocity": 25, "sample_rate": 16000,
            }  # fmt: skip
        (tmp_path / f"nsynth-{part}" / "examples.json").write_text(json.dumps(notes))
    return tmp_path


def test_nsynth_is_split_by_its_folders_and_grouped_by_instrument(nsynth):
    dataset = open_dataset("nsynth", root=nsynth)
    assert places(dataset) == {
        "bass_synthetic_068-049-025.wav": ("bass", "train", "bass_synthetic_068"),
        "bass_synthetic_068-049-050.wav": ("bass", "train", "bass_synthetic_068"),
        "flute_acoustic_002-077-100.wav": ("flute", "train", "flute_acoustic_002"),
        "bass_electronic_001-024-025.wav": ("bass", "validation", "bass_electronic_001"),
        "flute_acoustic_000-070-075.wav": ("flute", "test", "flute_acoustic_000"),
    }
    assert (dataset.sr, dataset.seconds, dataset.width) == (16000, 4, 250)
    assert (dataset.training_folds, dataset.held_out_folds) == (("train",), ("test",))
    sources = open_dataset("nsynth-source", root=nsynth)
    assert sources.label_names == ("acoustic", "electronic", "synthetic")
    assert [clip.group for clip in sources.clips] == [clip.group for clip in dataset.clips]


def test_parts_of_nsynth_are_a_data_set_too(nsynth, caplog):
    (nsynth / "nsynth-train" / "examples.json").unlink()
    dataset = open_dataset("nsynth", root=nsynth)
    assert dataset.held_out_folds == ("test", "validation")
    assert "nsynth has 2 folds here; a complete copy has 3" in caplog.messages


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "examples.json cannot be read as JSON: Expecting property name"),
        ("[1]", "must have the texts instrument_family_str, instrument_str for every note: download it again"),
        ('{"a": {"instrument_str": "b"}}', "must have the texts instrument_family_str, instrument_str for every note"),
        ('{"a": {"instrument_str": "b", "instrument_family_str": "c"}}', "1 of 3 audio files do not exist .*: a.wav"),
    ],
)
def test_notes_of_nsynth_that_are_not_as_published(nsynth, content, message):
    (nsynth / "nsynth-train" / "examples.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        open_dataset("nsynth", root=nsynth)
    assert "\n" not in str(error.value)
