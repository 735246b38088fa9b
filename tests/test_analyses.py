"""The study on real data: its steps, its text, and all of it at a small size."""

from __future__ import annotations

import csv
import importlib
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from analyses import BACKBONES, results
from transferlens.util.errors import DataError
from transferlens.util.fields import build, flat

all_ = importlib.import_module("analyses.all")
ROOT = Path(__file__).parent.parent


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
    chosen = build(all_.Options, {"clips": folder / "clips.csv", **options})
    return [(step.command.name, flat(step.options)) for step in all_.steps(chosen)]


def test_steps_ask_each_question_of_its_networks(tmp_path):
    figures = tmp_path / "figures"
    steps = asked_of(tmp_path, figures=figures, workers=2, threads=1)
    asked = {name: values.get("backbone") for name, values in steps}
    assert asked["pretraining"] == asked["freeze"] == asked["analyses.rq4_ensemble"] == BACKBONES
    assert asked["plan_grid"] == asked["analyses.rq2_svcca"] == BACKBONES[:1]
    first, second = (values for name, values in steps if name == "analyses.rq5_saliency")
    assert (first["clips"], second["dataset"]) == (tmp_path / "clips.csv", "synth")
    assert second["clips"] is None
    assert second["figures"] == figures / "synth"
    assert all(values["workers"] == 2 for _, values in steps if "workers" in values)
    assert "workers" not in steps[-1][1]  # the report trains nothing


def test_the_look_of_figures_is_that_of_every_step(tmp_path):
    steps = asked_of(tmp_path, figure_width="8cm", titles=False)
    drawn = {name: (values["figure_width"], values["titles"]) for name, values in steps if "titles" in values}
    assert {"pretraining", "freeze", "svcca", "ensemble"} & {*drawn} >= {"pretraining", "freeze"}
    assert {*drawn.values()} == {("8cm", False)}


def test_paths_are_relative_to_the_folder_that_it_is_run_in(clips, weights_file, tmp_path, monkeypatch, capsys):
    shutil.copytree(clips.parent, tmp_path / "sounds")
    monkeypatch.chdir(tmp_path)
    argv = ["--clips", f"sounds/{clips.name}", "--backbone", "test_resnet", "--weights", os.path.relpath(weights_file)]
    assert all_.main([*argv, "--dry-run", "--epochs", "1", "--device", "cpu", "--threads", "1"]) == 0
    assert " to train, about " in capsys.readouterr().out.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"sounds"}  # nothing is written


def test_one_network_is_asked_everything(tmp_path):
    steps = asked_of(tmp_path, backbone="resnet50")
    assert {values["backbone"] for _, values in steps if "backbone" in values} == {("resnet50",)}


def test_gains_are_paired_and_means_are_over_folds(tmp_path):
    written(tmp_path / "a.csv", [*made([0.9, 0.8, 0.7], arm="x"), *made([0.8, 0.7, 0.6], arm="y")])
    tables = results.Tables(tmp_path)
    x, y = tables.rows("a", arm="x"), tables.rows("a", arm="y")
    assert results.mean(x).mean == pytest.approx(0.8)
    assert results.mean(x).n == 3
    found = results.gain(x, y[::-1])
    assert found.mean == pytest.approx(0.1)
    assert results.hundred(found) == "10.0"  # differences without spread have no interval


def test_words_follow_the_interval():
    from transferlens.measures.stats import Interval

    above, below, around = Interval(1, 0.5, 2, 3), Interval(-1, -2, -0.5, 3), Interval(0.1, -1, 1, 3)
    assert [results.judge(each, "more", "less", "unknown") for each in (above, below, around)] == [
        "more",
        "less",
        "unknown",
    ]
    assert results.count([above, below, around]) == "1 of 3 (below 0 on 1)"
    assert [results.duration(each) for each in (20, 600, 7200)] == ["20 s", "10 min", "2.0 h"]


def test_a_table_or_row_that_is_missing_is_named(tmp_path, capsys):
    written(tmp_path / "a.csv", made([0.5]))
    with pytest.raises(DataError, match="a.csv has no row with {'fold': '7'}: run python -m analyses.all again"):
        results.Tables(tmp_path).row("a", fold="7")
    assert results.main(["--figures", str(tmp_path), "--out", str(tmp_path / "R.md")]) == 2
    assert "lacks pretrained_vs_scratch.csv, freeze.csv, fuse.csv" in capsys.readouterr().err
    assert not (tmp_path / "R.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "fuse.csv").unlink(), "lacks fuse.csv: python -m analyses.all writes"),
        (lambda folder: (folder / "fuse.csv").write_bytes(b"caf\xe9"), "fuse.csv cannot be read"),
        (lambda folder: (folder / "svcca.csv").write_text("block\n"), "svcca.csv has no rows"),
        (lambda folder: (folder / "steps.csv").write_text("a,b\n1\n"), "steps.csv has a line with more or fewer cells"),
        (lambda folder: (folder / "probe.csv").write_text("fold\n1\n"), "was not written by analyses.all"),
        (lambda folder: (folder / "tables.md").unlink(), "tables.md is missing"),
    ],
)
def test_tables_that_no_step_writes_are_one_line(change, message, tmp_path, capsys):
    figures = tmp_path / "my figures"
    shutil.copytree(ROOT / "figures", figures, ignore=shutil.ignore_patterns("*.p*"))
    argv = ["--figures", str(figures), "--out", str(tmp_path / "R.md")]
    assert results.main(argv) == 0
    assert "](my%20figures/fuse.png)" in (tmp_path / "R.md").read_text()
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
    assert "pretraining, freeze, fuse, truncate, probe, analyses.rq2_anomaly" in line
    assert "none.pth" in line
    assert record.read_text() == (ROOT / "figures" / "steps.csv").read_text()
    assert len(all_.recorded(record)) > 5


def test_what_the_readme_says_of_its_figure_is_in_the_table():
    tables = results.Tables(ROOT / "figures")
    for backbone in tables.column("truncate", "backbone"):
        three, four = (tables.row("truncate", backbone=backbone, block=block) for block in "34")
        assert three.parameters < four.parameters / 4
        assert four.change_low < 0 < four.change_high


def test_every_network_is_asked(tmp_path):
    steps = asked_of(tmp_path, backbone=("a", "b", "c", "d"))
    assert {len(values["backbone"]) for _, values in steps if "backbone" in values} == {1, 4}


def test_the_text_has_the_numbers_of_the_tables_beside_the_figures():
    assert results.text(ROOT / "figures", "figures") == (ROOT / "RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "where", "values", "said"),
    [
        ("pretrained_vs_scratch", {"init": "scratch_long"}, {"accuracy_last": 1}, "longer training more than makes up"),
        ("pretrained_vs_scratch", {}, {"dataset": "mine"}, "path/to/mine/clips.csv"),
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
    with (tmp_path / f"{table}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(values if where.items() <= row.items() else {})
    written(tmp_path / f"{table}.csv", rows)
    assert not re.search(said, results.text(ROOT / "figures", "figures"))
    assert re.search(said, results.text(tmp_path, "figures"))


def test_other_sounds_are_not_called_esc10(tmp_path):
    shutil.copytree(ROOT / "figures", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.p*"))
    table = tmp_path / "pretrained_vs_scratch.csv"
    table.write_text(table.read_text().replace("esc10", "mine"))
    (tmp_path / "tables.md").write_text("")
    (tmp_path / "notes.md").unlink()
    text = results.text(tmp_path, "figures")
    assert not re.search(r"esc-?10|human|400 clips of", text, re.IGNORECASE)


@pytest.mark.slow(20)
def test_all_of_it_from_an_empty_store(clips, weights_file, tmp_path, capsys, monkeypatch):
    """Two of the questions; with ``TRANSFERLENS_ALL`` set all of them, and the text."""
    whole = "TRANSFERLENS_ALL" in os.environ
    if not whole:
        monkeypatch.setattr(all_, "QUESTIONS", (all_.rq1_pretrained_vs_scratch, all_.rq2_svcca))
        monkeypatch.setattr(results, "main", SimpleNamespace(run=lambda options: 0))
    argv = [
        *("--clips", str(clips), "--backbone", "test_resnet", "--weights", str(weights_file), "--epochs", "1"),
        *("--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), "--figures", str(tmp_path / "figures")),
        *("--results", str(tmp_path / "RESULTS.md"), "--device", "cpu"),
    ]
    assert all_.main([*argv, "--dry-run"]) == 0
    planned = re.search(r"(\d+) runs: 0 done", capsys.readouterr().out)
    assert all_.main(argv) == 0
    assert len(list((tmp_path / "runs").rglob("*.h5"))) == int(planned[1])
    steps = [row["step"] for row in csv.DictReader((tmp_path / "figures" / "steps.csv").open())]
    assert len(steps) == (22 if whole else 4)
    assert all_.main(argv) == 0  # nothing is trained again
    assert {row["n_trained_now"] for row in csv.DictReader((tmp_path / "figures" / "steps.csv").open())} == {"0"}
    if not whole:
        return
    text = (tmp_path / "RESULTS.md").read_text()
    assert all((tmp_path / link).is_file() for link in re.findall(r"!\[.*?\]\((.*?)\)", text))
    assert not re.search(r"\bnan\b|\bNone\b", text)
