"""The study on real data: its steps, its text, and all of it at a small size."""

from __future__ import annotations

import csv
import hashlib
import importlib
import itertools
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from analyses import BACKBONES, answers, numbers, results, rq1_sources
from transferlens import cli
from transferlens.data.synthetic import specs
from transferlens.measures.stats import Interval
from transferlens.store.listing import list_runs
from transferlens.synth import export
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.fields import build, flat

all_ = importlib.import_module("analyses.all")
ROOT = Path(__file__).parent.parent


WHOLE = 33  # steps of the whole study of one data set


def contents(folder):
    """The sha256 of every figure, table and text."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".h5", ".wav")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def made(accuracies, **values):
    """Rows of two seeds a fold."""
    return [
        {"backbone": "net", "fold": fold, "seed": seed, "accuracy_last": accuracy, **values}
        for seed in (0, 1)
        for fold, accuracy in enumerate(accuracies, start=1)
    ]


def asked_of(folder, **options):
    """Name and options of every step."""
    chosen = build(all_.Options, {"clips": (folder / "clips.csv",), **options})
    return [(step.command.name, flat(step.options)) for step in all_.steps(chosen)]


@pytest.fixture
def sounds(clips, tmp_path):
    """Folder of a table of clips, called as a data set."""
    return shutil.copytree(clips.parent, tmp_path / "mine")


def test_steps_ask_each_question_of_its_networks(sounds, tmp_path):
    figures = tmp_path / "figures"
    steps = asked_of(sounds, figures=figures, workers=2, threads=1)
    asked = {name: values.get("backbone") for name, values in steps if name not in ("pretraining", "fuse", "truncate")}
    asked |= {"pretraining": steps[0][1]["backbone"]}
    assert asked["pretraining"] == asked["freeze"] == asked["analyses.rq4_ensemble"] == BACKBONES
    assert asked["plan_grid"] == asked["analyses.rq2_svcca"] == BACKBONES[:1]
    first, second = (values for name, values in steps if name == "analyses.rq5_saliency")
    assert (first["clips"], second["dataset"]) == (sounds / "clips.csv", "synth")
    assert second["clips"] is None
    assert (first["figures"], second["figures"]) == (figures / "mine", figures / "synth")
    assert asked["analyses.full_size"] == ("densenet201", "resnet50")
    assert all(values["workers"] == 2 for _, values in steps if "workers" in values)
    assert "workers" not in steps[-1][1]  # the tables train nothing


def test_every_data_set_is_asked_everything_and_generated_ones_once(sounds, tmp_path):
    figures = tmp_path / "figures"
    options = {"dataset": ("synth-gap", "synth-two"), "figures": figures}
    steps = asked_of(sounds, **options)
    folders = Counter(values["figures"].relative_to(figures).name for _, values in steps)
    assert folders["mine"] == folders["synth-gap"] == folders["synth-two"] > 15
    assert folders["mine-permuted0"] == folders["synth-two-permuted0"] == 3
    assert [folders[name] for name in ("synth", "synth-order", "synth-texture", "")] == [2, 1, 1, 1]
    assert {v["permute_labels"] for _, v in steps if v["figures"].name == "mine-permuted0"} == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "clips or dataset must name at least one data set"),
        ({"dataset": ("esc50",)}, "root has 0 folders for dataset=esc50"),
        ({"dataset": ("synth",), "root": ("here",)}, "root has 1 folder for dataset=none"),
        ({"dataset": ("synth-gap", "synth-gap")}, "two data sets are called synth-gap"),
        ({"dataset": ("synth", "synth-order")}, "synth, synth-order: the study asks of these sounds by itself"),
        ({"dataset": ("esc99",), "root": ("here",)}, "dataset='esc99' must be one of esc50"),
    ],
)
def test_data_sets_that_cannot_be_asked(options, message):
    with pytest.raises(ParameterError, match=message):
        all_.data_sets(build(all_.Options, options))


def test_the_look_of_figures_is_that_of_every_step(sounds):
    steps = asked_of(sounds, figure_width="8cm", titles=False)
    drawn = {name: (values["figure_width"], values["titles"]) for name, values in steps if "titles" in values}
    assert {"pretraining", "freeze", "svcca", "ensemble"} & {*drawn} >= {"pretraining", "freeze"}
    assert {*drawn.values()} == {("8cm", False)}


def test_paths_are_relative_to_the_folder_that_it_is_run_in(clips, weights_file, tmp_path, monkeypatch, capsys):
    shutil.copytree(clips.parent, tmp_path / "sounds")
    monkeypatch.chdir(tmp_path)
    argv = ["--clips", f"sounds/{clips.name}", "--backbone", "test_resnet", "--weights", os.path.relpath(weights_file)]
    assert all_.main([*argv, "--dry-run", "--epochs", "2", "--device", "cpu", "--threads", "1"]) == 0
    assert " to train, about " in capsys.readouterr().out.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"sounds"}  # nothing is written


def test_one_network_is_asked_everything(sounds):
    steps = asked_of(sounds, backbone="resnet50")
    of_study = [values for name, values in steps if "backbone" in values and name != "analyses.full_size"]
    assert {values["backbone"] for values in of_study} == {("resnet50",)}


def test_gains_are_paired_and_means_are_over_folds(tmp_path):
    written(tmp_path / "a.csv", [*made([0.9, 0.8, 0.7], arm="x"), *made([0.8, 0.7, 0.6], arm="y")])
    tables = numbers.Tables(tmp_path)
    x, y = tables.rows("a", arm="x"), tables.rows("a", arm="y")
    assert numbers.mean(x).mean == pytest.approx(0.8)
    assert numbers.mean(x).n == 3
    found = numbers.gain(x, y[::-1])
    assert found.mean == pytest.approx(0.1)
    assert numbers.hundred(found) == "10.0"  # differences without spread have no interval


def test_words_follow_the_interval():
    from transferlens.measures.stats import Interval

    above, below, around = Interval(1, 0.5, 2, 3), Interval(-1, -2, -0.5, 3), Interval(0.1, -1, 1, 3)
    assert [numbers.judge(each, "more", "less", "unknown") for each in (above, below, around)] == [
        "more",
        "less",
        "unknown",
    ]
    assert numbers.count([above, below, around]) == "1 of 3 (below 0 on 1)"
    assert [numbers.duration(each) for each in (20, 600, 7200)] == ["20 s", "10 min", "2.0 h"]


def test_a_table_or_row_that_is_missing_is_named(tmp_path, capsys):
    written(tmp_path / "a.csv", made([0.5]))
    with pytest.raises(DataError, match="a.csv has no row with {'fold': '7'}: run python -m analyses.all again"):
        numbers.Tables(tmp_path).row("a", fold="7")
    assert results.main(["--figures", str(tmp_path), "--out", str(tmp_path / "R.md")]) == 2
    assert "steps.csv is missing: python -m analyses.all writes it" in capsys.readouterr().err
    assert not (tmp_path / "R.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "esc10/fuse.csv").unlink(), "lacks fuse.csv: python -m analyses.all writes"),
        (lambda folder: (folder / "esc10/fuse.csv").write_bytes(b"caf\xe9"), "fuse.csv cannot be read"),
        (lambda folder: (folder / "esc10/svcca.csv").write_text("block\n"), "svcca.csv has no rows"),
        (lambda folder: (folder / "steps.csv").write_text("a,b\n1\n"), "steps.csv has a line with more or fewer cells"),
        (lambda folder: (folder / "esc10/probe.csv").write_text("fold\n1\n"), "was not written by analyses.all"),
        (lambda folder: (folder / "tables.md").unlink(), "tables.md is missing"),
    ],
)
def test_tables_that_no_step_writes_are_one_line(change, message, tmp_path, capsys):
    figures = tmp_path / "my figures"
    shutil.copytree(ROOT / "figures", figures, ignore=shutil.ignore_patterns("*.p*"))
    argv = ["--figures", str(figures), "--out", str(tmp_path / "R.md")]
    assert results.main(argv) == 0
    assert "](my%20figures/esc10/fuse.png)" in (tmp_path / "R.md").read_text()
    (tmp_path / "R.md").unlink()
    change(figures)
    assert results.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "R.md").exists()


def test_text_that_cannot_be_written_is_said_at_the_start(clips, tmp_path, capsys):
    assert all_.main(["--clips", str(clips), "--results", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 2
    assert "it is a folder" in capsys.readouterr().err


def test_what_cannot_be_done_is_said_at_the_start_and_records_are_kept(clips, tmp_path, capsys):
    record = tmp_path / "steps.csv"
    shutil.copy(ROOT / "figures" / "steps.csv", record)
    argv = ["--clips", str(clips), "--backbone", "test_resnet", "--weights", str(tmp_path / "none.pth")]
    assert all_.main([*argv, "--figures", str(tmp_path), "--results", str(tmp_path / "R.md")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "pretraining, samples, recipes, analyses.rq1_sources, freeze, fuse, truncate, probe, analyses.rq2_anomaly"
        in line
    )
    assert "none.pth" in line
    assert record.read_text() == (ROOT / "figures" / "steps.csv").read_text()
    assert len(all_.recorded(record)) > 5


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\xd8", b"step,folder\na\n", b"step,folder\na,b,c\n"])
def test_records_that_are_none_are_named(tmp_path, content):
    (tmp_path / "steps.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"steps.csv was not written by this command \(.*\): move it away"):
        all_.recorded(tmp_path / "steps.csv")


def test_what_the_readme_says_of_its_figure_is_in_the_table():
    tables = numbers.Tables(ROOT / "figures" / "esc10")
    for backbone in tables.column("truncate", "backbone"):
        three, four = (tables.row("truncate", backbone=backbone, block=block) for block in "34")
        assert three.parameters < four.parameters / 4
        assert four.change_low < 0 < four.change_high


def test_every_network_is_asked(sounds):
    steps = asked_of(sounds, backbone=("a", "b", "c", "d"))
    asked = {len(values["backbone"]) for name, values in steps if "backbone" in values and name != "analyses.full_size"}
    assert asked == {1, 4}


def test_the_text_has_the_numbers_of_the_tables_beside_the_figures():
    assert results.text(ROOT / "figures", "figures") == (ROOT / "RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "where", "values", "said"),
    [
        ("pretrained_vs_scratch", {"init": "scratch_long"}, {"accuracy_last": 1}, "longer training more than makes up"),
        ("pretrained_vs_scratch", {"init": "scratch"}, {"accuracy_last": 1}, r"images help\? \| \*\*no, it harms"),
        ("truncate", {"block": "3"}, {"change_low": -0.1}, r"before it\? \| \*\*it cannot be told\*\*"),
        ("truncate", {"block": "3"}, {"change_low": 0.1, "change_high": 0.2}, r"before it\? \| \*\*yes\*\*"),
        ("input_form", {"arm": "one window"}, {"accuracy_last": 1}, r"suffice\? \| \*\*no, better: one window"),
        ("ensemble", {}, {"gain_low": 0.1}, r"ensemble help\? \| \*\*yes\*\*"),
        ("saliency", {"network": "pretrained, before training"}, {"energy_correlation": -1}, "cells, more than before"),
        ("fuse", {"block": "3"}, {"change_low": -0.1}, r"fusion\): Block 3 [^:]+: above 0 on 0 of"),
        (
            "truncate",
            {"block": "4"},
            {"change_high": -0.1},
            r"truncation\): .+ Block 4 .+ on 0 of \d \(below 0 on",
        ),
        ("svcca", {"kind": "training", "block": "3"}, {"high": 1}, "that cannot be told: SVCCA"),
        ("svcca", {"kind": "seeds"}, {"low": 0}, "with intervals apart, in no block"),
        ("rank", {"source": "ImageNet", "block": "1"}, {"knn_low": 0.1}, "apart, in Blocks 2 3 4 of lite0"),
        ("rewind_blocks", {"statistics": "anew"}, {"change_high": -0.01}, r"at K = 0, 1, 2, 3, 4 with statistics"),
        ("rewind_blocks", {"block": "3"}, {"needed": "nothing"}, r"statistics \| filters \| nothing \| filters"),
        ("paths_barriers", {"kind": "seeds", "statistics": "anew"}, {"barrier": 0.5}, r"as the networks are, 0\.50 "),
        ("classes_changes", {"label": "dog"}, {"p_adjusted": 0.06}, "below 0.05, in 7 of 10 classes"),
        ("input_form", {"arm": "one window"}, {"accuracy_last": 0.1}, "excludes 0 for 1 of the 4 other forms"),
        ("ensemble", {}, {"gain_low": -0.1}, "above 0 for 0 of the"),
        ("robustness", {}, {"more_than_clean_low": -1, "more_than_clean_high": 1}, "on 0 of 17 corruptions, for"),
        ("saliency", {"network": "pretrained"}, {"energy_correlation": -1}, "they avoid them"),
        ("saliency", {"network": "pretrained, before training"}, {"energy_correlation": -1}, "training adds to it"),
        ("saliency", {"network": "pretrained"}, {"insertion": -1}, "later than in random order"),
        ("steps", {"step": "fuse"}, {"step": "other"}, r"fuse: \*The time it took is not on record"),
    ],
)
def test_words_follow_the_numbers(table, where, values, said, tmp_path):
    shutil.copytree(ROOT / "figures", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.p*"))
    path = tmp_path / ("" if table == "steps" else "esc10") / f"{table}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(values if where.items() <= row.items() else {})
    written(path, rows)
    assert not re.search(said, results.text(ROOT / "figures", "figures"))
    assert re.search(said, results.text(tmp_path, "figures"))


def test_other_sounds_are_not_called_esc10(tmp_path):
    shutil.copytree(ROOT / "figures", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.p*"))
    (tmp_path / "esc10").rename(tmp_path / "mine")
    for table in ("mine/pretrained_vs_scratch.csv", "steps.csv"):
        (tmp_path / table).write_text((tmp_path / table).read_text().replace("esc10", "mine"))
    (tmp_path / "tables.md").write_text("")
    (tmp_path / "notes.md").unlink()
    text = results.text(tmp_path, "figures")
    assert not re.search(r"esc-?10|human|400 clips of about", text, re.IGNORECASE)


def test_all_of_it_from_an_empty_store(clips, weights_file, tmp_path, capsys, monkeypatch):
    """Two of the questions; with ``TRANSFERLENS_ALL`` set all of them, and the text."""
    whole = "TRANSFERLENS_ALL" in os.environ
    if not whole:
        monkeypatch.setattr(all_, "QUESTIONS", (all_.rq1_pretrained_vs_scratch, all_.rq2_svcca))
        monkeypatch.setattr(results, "main", SimpleNamespace(run=lambda options: 0))
    argv = [
        *("--clips", str(clips), "--backbone", "test_resnet", "--weights", str(weights_file), "--epochs", "2"),
        *("--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), "--figures", str(tmp_path / "figures")),
        *("--results", str(tmp_path / "RESULTS.md"), "--device", "cpu"),
    ]
    assert all_.main([*argv, "--dry-run"]) == 0
    planned = re.search(r"(\d+) runs: 0 done", capsys.readouterr().out)
    assert all_.main(argv) == 0
    assert len(list((tmp_path / "runs").rglob("*.h5"))) == int(planned[1])
    steps = [row["step"] for row in csv.DictReader((tmp_path / "figures" / "steps.csv").open())]
    assert len(steps) == (WHOLE if whole else 4)
    calls = {row["call"] for row in csv.DictReader((tmp_path / "figures" / "steps.csv").open())}
    assert len(calls) == 1
    assert {run.call for run in list_runs(tmp_path / "runs")} == calls
    assert "TRANSFERLENS_CALL" not in os.environ
    made = contents(tmp_path)
    assert all_.main(argv) == 0  # nothing is trained again
    assert {path for path, digest in contents(tmp_path).items() if made.get(path) != digest} == set()
    if not whole:
        return
    text = (tmp_path / "RESULTS.md").read_text()
    assert all((tmp_path / link).is_file() for link in re.findall(r"!\[.*?\]\((.*?)\)", text))
    assert not re.search(r"\bnan\b|\bNone\b", text)


@pytest.fixture
def figures(tmp_path):
    """A copy of the tables of the study."""
    return shutil.copytree(ROOT / "figures", tmp_path / "figures", ignore=shutil.ignore_patterns("*.p*"))


def change(path, where, **values):
    """Change the rows of a table that have these values; a column that it lacks is added."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    written(path, [dict.fromkeys(values, "") | row | (values if where.items() <= row.items() else {}) for row in rows])


def test_figures_of_other_commands_are_no_data_set(figures):
    shutil.copytree(figures / "esc10", figures / "another")
    assert results.text(figures, "figures") == results.text(ROOT / "figures", "figures")


def test_two_data_sets_stand_beside_each_other(figures):
    other = shutil.copytree(figures / "esc10", figures / "urbansound8k")
    with (figures / "steps.csv").open("a") as file:
        file.write("fuse,urbansound8k,'--dataset urbansound8k --root path/to/urbansound8k,1,9,9,60,60,1\n")
    text = results.text(figures, "figures")
    assert "| | ESC-10 | UrbanSound8K, folds 1, 2, 3, 4, 5 of 10 | do their verdicts agree? |\n" in text
    assert text.count("| yes |\n") == 5
    assert "\n- **UrbanSound8K" in text
    ours = [each for each in results.SECTIONS if not each.of and not each.control]
    assert text.count("### UrbanSound8K, folds 1, 2, 3, 4, 5 of 10\n") == sum(
        (other / f"{each.tables[0]}.csv").is_file() for each in ours
    )
    assert "not those of the literature" in text
    assert "all --clips path/to/esc10/clips.csv --dataset urbansound8k --root path/to/urbansound8k\n" in text
    assert "rq2_svcca --dataset urbansound8k --root path/to/urbansound8k`" in text
    written(
        other / "ensemble.csv", [{**row, "gain_low": 0.1} for row in csv.DictReader((other / "ensemble.csv").open())]
    )
    (other / "saliency.csv").unlink()
    text = results.text(figures, "figures")
    assert "| Does an ensemble help? | **it cannot be told**" in text
    assert text.count("| yes |\n") == 3
    assert "**not asked** |  |" in text
    change(other / "pretrained_vs_scratch.csv", {"init": "pretrained"}, accuracy_last=0.2)
    text = results.text(figures, "figures")
    assert "**no, it harms**: -" in text
    assert text.count("| no |\n") == 1


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        (("yes", "yes"), "yes"),
        (("yes", "no, it harms"), "no"),
        (("yes", "it cannot be told"), "it cannot be told"),
        (("yes", "on some networks, 2 of 3"), "it cannot be told"),
    ],
)
def test_data_sets_differ_only_if_one_says_yes_and_another_no(verdicts, answer):
    assert answers.Answers("?", tuple(answers.Answer(each, "", "figure") for each in verdicts)).alike == answer


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ([(1, 2), (1, 3)], "yes"),
        ([(-1, 1), (-1, 1)], "it cannot be told"),
        ([(-2, -1), (-2, -1)], "no, it harms"),
        ([(-2, -1), (-1, 1), (-1, 1)], "it harms on some networks, and on others it cannot be told"),
        ([(-2, -1), (1, 2)], "on some networks, and on others it harms"),
        ([(1, 2), (-1, 1)], "on some networks, 1 of 2"),
    ],
)
def test_the_verdict_of_several_networks(bounds, verdict):
    intervals = [Interval((low + high) / 2, low, high, 5) for low, high in bounds]
    assert answers._verdict(intervals) == verdict


@pytest.mark.parametrize("survives", [False, True])
def test_a_claim_that_permuted_labels_show_too_is_withdrawn(figures, survives):
    control = shutil.copytree(figures / "esc10", figures / "esc10-permuted0")
    for init, fold in itertools.product(("pretrained", "scratch", "scratch_long"), "12345"):
        share = 0.1 if init != "pretrained" else int(fold) / 100 + (0.5 if survives else 0.07)
        where = {"init": init, "fold": fold}
        change(control / "pretrained_vs_scratch.csv", where, accuracy_last=share, commonest=0.1)
    for name in ("fuse", "truncate"):
        low = 0.1 if survives else -0.1
        change(control / f"{name}.csv", {"block": "3"}, change_low=low, change_high=0.2, change_mean=0.15)
    text = results.text(figures, "figures")
    assert text.count("**withdrawn, as permuted labels show it too**") == (2 if survives else 0)
    said = (
        "survives permuted labels: the difference by pretraining, Block 3 of fusion, Block 3 of truncation"
        if survives
        else "no claim survives"
    )
    assert said in text
    assert ("accuracies are above chance" in text) == survives


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "cut", "low", "right"),
    [
        ("synth-order", [0.48, 0.5, 0.52, 0.5, 0.5], 0.1, True),
        ("synth-order", [0.5] * 5, NAN, True),  # the same in all folds, without an interval
        ("synth-order", [0.48, 0.5, 0.52, 0.5, 0.5], -0.1, False),
        ("synth-order", [0.7, 0.72, 0.7, 0.7, 0.7], 0.1, False),
        ("synth-texture", [0.9, 0.92, 0.9, 0.9, 0.9], -0.1, True),
        ("synth-texture", [0.9, 0.92, 0.9, 0.9, 0.9], 0.1, True),
        ("synth-texture", [0.48, 0.5, 0.52, 0.5, 0.5], 0.1, False),
    ],
)
def test_sounds_whose_needed_block_is_known(figures, name, cut, low, right):
    (figures / name).mkdir()
    table = Path(shutil.copy(figures / "esc10" / "truncate.csv", figures / name))
    for fold, accuracy in enumerate(cut, start=1):
        change(table, {"block": "2", "fold": str(fold)}, accuracy_last=accuracy, chance=0.5)
    change(table, {"block": "3"}, change_mean=0.2, change_low=low, change_high=NAN if low != low else 0.3)
    assert ("as it must be" if right else "the pipeline fails its control") in results.text(figures, "figures")


def test_another_data_set_is_a_start_without_what_both_share(clips, weights_file, tmp_path, capsys):
    mine, yours = shutil.copytree(clips.parent, tmp_path / "mine"), tmp_path / "yours"
    chosen = [spec for spec in specs() if spec.label in ("siren", "band_noise") and spec.fold in "123"]
    export(yours, chosen)
    shared = shutil.copy(min(mine.glob("*.wav")), yours / "shared.wav")
    with (yours / "clips.csv").open("a") as table:
        table.write("shared.wav,siren,1,,,\n")
    argv = [
        *(
            "--clips",
            str(mine / clips.name),
            "--other-clips",
            str(yours / "clips.csv"),
            "--epochs",
            "1",
            "--folds",
            "1",
        ),
        *("--backbone", "test_resnet", "--weights", str(weights_file), "--device", "cpu", "--figures", str(tmp_path)),
        *("--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")),
    ]
    assert rq1_sources.main(argv) == 0
    (table,) = tmp_path.glob("cache/others/*/yours-without-mine/clips.csv")
    left = [Path(row["path"]).name for row in csv.DictReader(table.open())]
    assert shared.name not in left
    assert len(left) > len(chosen) / 2
    arms = {row["arm"] for row in csv.DictReader((tmp_path / "sources.csv").open())}
    starts = {"ImageNet", "yours", "ImageNet-yours"}
    assert arms == {"random", *starts, *(f"{start}, permuted" for start in starts)}
    ids = {
        point.id
        for arm in rq1_sources.points(
            cli.parse(rq1_sources.Options, argv, prog="", default=rq1_sources.Options())
        ).values()
        for point in arm.points
    }
    assert ids == {path.stem for path in tmp_path.glob("runs/*/*.h5")}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["--other-dataset", "synth-two"], "other_dataset='synth-two' is generated by code"),
        (["--other-clips", "none.csv"], "none.csv does not exist: name a csv file"),
        (["--other-dataset", "esc50"], "dataset='esc50' needs root"),
    ],
)
def test_another_data_set_that_cannot_be_used(clips, other, message, tmp_path, capsys):
    argv = ["--clips", str(clips), *other, "--runs", str(tmp_path / "r"), "--figures", str(tmp_path), "--dry-run"]
    assert rq1_sources.main(argv) == 2
    assert message in capsys.readouterr().err
