"""The question `samples`: its runs, its numbers on made-up accuracies, its one-line messages."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from transferlens import pretraining, probe, recipes, samples
from transferlens.models.plan import TransferPlan
from transferlens.store.run import load_run
from transferlens.store.runfile import read_state
from transferlens.training.batches import chunks
from transferlens.util.errors import ParameterError
from transferlens.util.fields import build, flat


def options_of(kind, study, given):
    """The options of a question, with those of a small study; the defaults of training if its epochs are None."""
    values = flat(study(**{name: value for name, value in given.items() if name not in OWN}).options)
    values = {name: value for name, value in values.items() if name in flat(kind()) and value is not None}
    return build(kind, values | {name: value for name, value in given.items() if name in OWN})


OWN = ("per_class", "equal", "probe")


def points(study, **given):
    return samples.points(options_of(samples.Options, study, given))


# ------------------------------------------------------------------------------------------------- runs


def test_each_start_has_each_number_of_clips(study):
    arms = points(study, seeds=(0, 1))
    names = ["imagenet.safetensors fine-tuned", "imagenet.safetensors linear probe", "from scratch"]
    assert list(dict.fromkeys(name for name, _ in arms)) == names
    assert [size for name, size in arms if name == names[0]] == [1, 2, 4, None]  # 8 are all
    for (_, size), arm in arms.items():
        assert {point.training.clips_per_class for point in arm.points} == {size}
        assert len(arm.points) == 3 * 2
    for fold in ("1", "2", "3"):
        for size in (1, 2, 4):
            of_size = {p.split for (_, n), arm in arms.items() if n == size for p in arm.points if p.fold == fold}
            assert len(of_size) == 1


def test_sources_have_arms_of_their_own(study, weights_file, other_file):
    arms = points(study, weights="auto", source=(f"a={weights_file}", f"b={other_file}"), probe=False)
    assert list(dict.fromkeys(name for name, _ in arms)) == ["a fine-tuned", "b fine-tuned", "from scratch"]


def test_all_clips_are_the_runs_of_other_questions(study):
    """With the same options: those of `pretraining`, and of `probe`, whose heads are trained for longer."""
    arms = points(study)
    others = pretraining.points(build(pretraining.Options, flat(study().options)))
    assert arms["imagenet.safetensors fine-tuned", None].points == others["pretrained"].points
    assert arms["from scratch", None].points == others["scratch"].points
    arms = points(study, epochs=None)
    values = {name: value for name, value in flat(study(epochs=None).options).items() if value is not None}
    probed = probe.main.points(build(probe.Options, values))["probe of ImageNet features", 4]
    assert arms["imagenet.safetensors linear probe", None].points == probed.points
    assert probed.points[0].training.epochs == 100


@pytest.mark.parametrize("batch_size", [4, 8])
def test_equal_steps_are_more_epochs_of_fewer_clips(study, batch_size):
    arms = points(study, epochs=6, batch_size=batch_size)
    steps = {}
    for (name, size), arm in arms.items():
        point = arm.points[0]
        n_train = len(arm.study.dataset.split(*point.split)[0])
        assert n_train == 2 * (size or 8)
        steps[name, size] = point.training.epochs * len(chunks(np.arange(n_train), batch_size))
    assert {*steps.values()} == {6 * 16 // batch_size}


def test_equal_epochs(study):
    arms = points(study, epochs=6, equal="epochs")
    assert {point.training.epochs for arm in arms.values() for point in arm.points} == {6}


def test_milestones_move_with_the_epochs(study):
    arms = points(study, epochs=6, batch_size=4, schedule="step", milestones=(2, 4))
    (fewest,) = {point.training for point in arms["from scratch", 1].points}
    assert (fewest.epochs, fewest.milestones) == (24, (8, 16))


def test_no_subset_is_trained_on_twice(tmp_path, weights_file):
    """The built-in clips have two clips per recording: one per class is two."""
    source = f"a={weights_file}"
    given = {"backbone": "test_resnet", "runs": tmp_path, "cache": tmp_path, "folds": 1, "source": source}
    arms = samples.points(build(samples.Options, given))
    assert [size for name, size in arms if name == "from scratch"] == [1, 4, 8, 16, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"per_class": (2, 9)}, r"per_class=9 must be at most 8, the clips of tones\d+'s class high that can be tr"),
        ({"per_class": (0,)}, r"per_class=0 must be at least 1"),
        ({"clips_per_class": 4}, r"clips_per_class=4 is one number for all runs: give per_class=4 here"),
        ({"layer_decay": 0.5}, r"layer_decay=0.5 has no effect, .*; or leave out the linear probes by .*--no-probe"),
        (
            {"epochs": 2**20},
            r"^epochs=1048576 is too many here, where some runs have 4 times as many, at most 1048576: ",
        ),
        ({"equal": "time"}, r"equal='time' must be one of steps, epochs"),
    ],
)
def test_bad_input_is_one_line(study, given, message):
    with pytest.raises(ParameterError, match=message):
        points(study, **given)


# ------------------------------------------------------------------------------------------------- numbers


def made_rows(shift, *, n_folds=3):
    """Rows of two arms: scratch needs `shift` times the clips of fine-tuning, in every fold."""
    rows = []
    for arm, times in (("ImageNet fine-tuned", 1), ("from scratch", shift)):
        for size, clips in {"1": 1, "2": 2, "4": 4, "8": 8, "16": 16, "all": 32}.items():
            for fold in range(n_folds):
                value = 0.2 + 0.1 * np.log2(clips / times) + 0.01 * fold
                own = {"clips_per_class": size, "fewest": clips, "clips": float(clips), "most": clips, "steps": 60}
                numbers = {"n_train": 10.0 * clips, "n_clips": 80, "n_recordings": 60, "accuracy_last": value}
                other = {"fold": str(fold), "inner_fold": "", "seed": 0, "equal": "steps", "epochs": 6}
                names = {"dataset": "d", "backbone": "net", "arm": arm, "weights": "ImageNet", "run": f"{arm}{fold}"}
                rows.append(samples.Row(**names, **own, **other, **numbers, accuracy_best=value))
    return rows


def result_of(rows, commonest=0.1):
    known = tuple(dataclasses.replace(row, chance=0.1, commonest=commonest) for row in rows)
    return samples.Result(known, samples.worth(rows))


def test_a_known_shift_is_found_at_each_number_and_over_all():
    result = result_of(made_rows(2.0))
    worth = {size: each for (_, _, size), each in result.worth.items()}
    assert worth[""].factor == pytest.approx(2)
    assert [worth[size].factor for size in ("1", "2", "8", "16")] == pytest.approx([2, 2, 2, 2])
    assert (worth["all"].bound, worth["all"].factor) == ("more than", pytest.approx(1))
    assert "from scratch needs, to be as good as ImageNet fine-tuned with all per class: more than 1.0 times" in (
        samples.summary(result)
    )


def test_intervals_are_those_of_all_clips():
    """Ten clips to train on and eighty held out would make an interval of the subset six times too wide."""
    rows = made_rows(2.0)
    few, many = (samples.accuracies(rows, "net", "from scratch", size) for size in ("1", "all"))
    assert few.test_to_train == many.test_to_train == 80 / 320


def test_the_text_says_what_is_equal_and_what_was_taken():
    rows = made_rows(2.0)
    rows = [dataclasses.replace(row, most=2, clips=1.3) if row.clips_per_class == "1" else row for row in rows]
    text = result_of(rows, commonest=0.3).summary()
    assert text.startswith("equal numbers of steps: 60 steps on all clips; runs on fewer clips have more epochs")
    assert "ImageNet fine-tuned, 1 per class (1.3: 1 to 2), 6 epochs: 21.0 %" in text
    assert "ImageNet fine-tuned, 2 per class, 6 epochs: 31.0 %" in text
    assert text.endswith(": chance 10.0 %, always the commonest class 30.0 %")


def test_the_figure_has_folds_means_levels_and_factors():
    result = result_of(made_rows(2.0))
    fig = samples.draw(result)
    above, below = fig.axes
    drawn = [y for line in above.lines for y in np.asarray(line.get_ydata(), float)]
    for row in result.rows:
        assert np.isclose(drawn, 100 * row.accuracy_last).any()
    assert [*above.lines[-1].get_ydata()] == pytest.approx([10, 10])  # chance
    assert [label.get_text() for label in below.get_xticklabels()] == ["1", "2", "4", "8", "16", "32"]
    assert above.get_xscale() == below.get_xscale() == below.get_yscale() == "log"
    factors = [y for line in below.lines for y in np.asarray(line.get_ydata(), float)]
    assert np.isclose(factors, 2).any()
    assert "at equal numbers of steps" in fig.get_suptitle()
    assert "ImageNet fine-tuned: 2.0 times" in below.get_title(loc="left")


def test_the_bits_are_the_same_with_one_and_with_two_workers(clips, weights_file, tmp_path):
    given = {"clips": clips, "backbone": "test_resnet", "weights": str(weights_file), "width": 32, "folds": "1"}
    given |= {"cache": tmp_path / "cache", "device": "cpu", "epochs": 1, "batch_size": 8}
    asked = {
        samples.samples: {"per_class": 2, "probe": False, "equal": "epochs"},
        recipes.recipes: {"recipe": ("masks", "layer-decay+balanced"), "corrupted": False},
    }
    for question, own in asked.items():
        for workers in (1, 2):
            question(**given, **own, runs=tmp_path / f"runs{workers}", workers=workers)
    paths = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.h5"))
        for name in ("runs1", "runs2")
    ]
    assert paths[0] == paths[1]
    assert len(paths[0]) == 6
    for path in paths[0]:
        one, two = (load_run(tmp_path / name / path) for name in ("runs1", "runs2"))
        assert (one.logits == two.logits).all()
        weights = [read_state(run.path).weights for run in (one, two)]
        assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_command(options, tmp_path, capsys):
    argv = [*options, "--folds", "1", "2", "--per-class", "2", "--equal", "epochs", "--no-probe"]
    assert samples.main([*argv, "--dry-run"]) == 0
    assert "8 runs: 0 done, 8 to train" in capsys.readouterr().out
    assert samples.main(argv) == 0
    with (tmp_path / "figures" / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["clips_per_class"], row["clips"], row["n_train"]) for row in rows[::2]] == [
        ("2", "2.0", "4"),
        ("all", "8.0", "16"),
    ] * 2
    assert {row["equal"] for row in rows} == {"epochs"}
    assert (tmp_path / "figures" / "samples_worth.csv").is_file()
    assert (
        "equal numbers of epochs: 2 steps on all clips; runs on fewer clips have fewer steps" in capsys.readouterr().out
    )
    assert TransferPlan.scratch().title in {row["arm"] for row in rows}
