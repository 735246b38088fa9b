"""How the input is made: the arms differ in one thing each, and stretching is undone by the resize alone."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from conftest import last_of_each

from transferlens import input_form
from transferlens.store.run import load_run
from transferlens.util.errors import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory, weights_file):
    """The command's tables on clips of one length, and the folder."""
    from conftest import write_clips

    folder = tmp_path_factory.mktemp("input_form")
    clips = write_clips(folder / "tones", sr=16000)
    argv = ["--clips", clips, "--backbone", "test_resnet", "--weights", weights_file, "--width", 32, "--epochs", 1]
    argv += ["--batch-size", 8, "--device", "cpu", "--folds", 1, "--stretched", 6, "--runs", folder / "runs"]
    argv += ["--cache", folder / "cache", "--figures", folder / "figures"]
    assert input_form.main([str(each) for each in argv]) == 0
    return folder, [str(each) for each in argv]


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_arms_differ_in_one_thing_each(made):
    rows = read(made[0] / "figures" / "input_form.csv")
    assert [row["arm"] for row in rows] == list(input_form.ARMS)
    configs = {row["arm"]: load_run(made[0] / "runs" / "tones" / f"{row['run']}.h5").config.flat() for row in rows}
    base = configs[input_form.BASE]
    changed = {arm: {key for key in base if config[key] != base[key]} - {"data_key"} for arm, config in configs.items()}
    assert changed == {
        input_form.BASE: set(),
        "one window": {"windows", "hops", "n_fft"},
        "padded, not stretched": {"seconds"},
        "not normalised": {"normalise"},
        "ImageNet statistics": {"normalise"},
    }


def test_imagenet_statistics_take_the_training_range_to_0_and_1(made):
    rows = {row["arm"]: row["run"] for row in read(made[0] / "figures" / "input_form.csv")}
    run = load_run(made[0] / "runs" / "tones" / f"{rows['ImageNet statistics']}.h5")
    red, green, blue = run.normalisation.T
    size = (red[1] - green[1]) / (0.229 - 0.224)
    np.testing.assert_allclose(run.normalisation[1], size * np.array([0.229, 0.224, 0.225]))
    lowest = red[0] - 0.485 * size
    np.testing.assert_allclose(run.normalisation[0], lowest + size * np.array([0.485, 0.456, 0.406]))


def test_resizing_undoes_stretching_and_padding_does_not(made):
    rows = read(made[0] / "figures" / "input_form_stretch.csv")
    assert len(rows) == 2 * len(input_form.RATES)
    assert {row["n_clips"] for row in rows} == {"6"}
    change = {(row["fit"], float(row["rate"])): float(row["difference"]) * float(row["between"]) for row in rows}
    resized, padded = input_form.FITS
    for rate in (1.1, 1.2):  # faster clips are shorter, and silence follows them
        assert change[padded, rate] > 1.5 * change[resized, rate]


def test_arms_do_not_follow_the_preset():
    normalise = {arm: changes["normalise"] for arm, changes in input_form.ARMS.items()}
    assert normalise[input_form.BASE] == "channel"
    assert normalise["not normalised"] == "none"
    assert all(changes.keys() == {"windows", "hops", "fit", "normalise"} for changes in input_form.ARMS.values())


def test_a_clip_and_a_slower_one_give_nearly_the_same_picture():
    """By the features alone: bursts of noise, played slower by resampling their envelope."""
    from transferlens.features.logmel import FeatureSettings

    def bursts(seconds, sr=16000):
        rng, t = np.random.default_rng(0), np.linspace(0, 1, int(seconds * sr), endpoint=False)
        return (rng.normal(size=t.size) * (np.sin(2 * np.pi * 4 * t) > 0.5)).astype(np.float32)

    for seconds, least, most in ((None, 0, 0.35), (2.0, 0.6, 9)):
        settings = FeatureSettings(sr=16000, n_fft=1600, width=64, seconds=seconds)
        plain, slow = (settings.compute(bursts(s), settings.sr) for s in (2.0, 2.0 / 0.8))
        change = np.sqrt(np.mean((slow - plain) ** 2)) / plain.std()
        assert least <= change <= most


def test_folds_in_which_no_two_clips_are_of_one_class(made, capsys, tmp_path):
    argv = [*made[1], "--stretched", "2", "--runs", str(tmp_path / "runs"), "--figures", str(tmp_path / "figures")]
    assert input_form.main(last_of_each(argv)) == 2
    assert "fold '1' of tones has no two clips of one class among the 2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_clips_of_a_class_that_are_all_equal(made):
    run = load_run(next((made[0] / "runs" / "tones").glob("*.h5")))
    places = np.flatnonzero(run.labels == run.labels[0])
    with pytest.raises(DataError, match=r"do not differ within any class.*: name more --stretched, or other clips"):
        input_form.stretch_rows("", run, [np.ones(16000, np.float32)] * len(places), places)


def test_bad_input_is_one_line(made, capsys):
    assert input_form.main(last_of_each([*made[1], "--stretched", "1"])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "stretched=1 must be at least 2 clips" in line
