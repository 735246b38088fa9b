"""The paper's tables: cells, what is missing, and the three formats."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from transferlens import tables
from transferlens.compare.ensembles import gather, row_of
from transferlens.compare.published import COLUMNS, Cell, caption, cells, head, lines, published
from transferlens.store.listing import list_runs
from transferlens.store.runfile import seal


def found_in(folder):
    return {(c.dataset, c.backbone, c.column): c for c in cells(list_runs(folder))}


def test_published_values_have_sources():
    values = published()
    assert values["esc50", "densenet201", "pretrained"].accuracy == 91.16
    assert values["urbansound8k", "inception_v3", "ensemble"].accuracy == 86.34
    assert ("gtzan", "resnet50", "ensemble") not in values
    assert len(values) == 15
    assert all(value.source.startswith("arXiv:2007.11154") for value in values.values())


def test_cells_are_over_the_clips_of_all_folds(seeds_store):
    arms, folder = seeds_store
    found = found_in(folder / "runs")
    for column, arm in (("pretrained", "tuned"), ("from scratch", "scratch")):
        cell = found["tones", "test_resnet", column]
        right = {}
        for run in arms[arm]:
            right.setdefault(run.config.seed, []).extend(run.logits.argmax(1) == run.labels)
        accuracies = [100 * np.mean(each) for each in right.values()]
        assert cell.accuracy == pytest.approx(np.mean(accuracies))
        assert cell.std == pytest.approx(np.std(accuracies, ddof=1))
        assert (cell.n_seeds, cell.n_folds, cell.n_clips, cell.missing) == (3, 2, 16, "")
    (members,) = gather(arms["tuned"])
    expected = 100 * row_of(members).accuracy
    assert found["tones", "test_resnet", "ensemble"].accuracy == pytest.approx(expected)


def named(summary, dataset):
    """The summary of a run, as if it were of another data set."""
    return dataclasses.replace(summary, settings=json.dumps(json.loads(summary.settings) | {"dataset": dataset}))


def test_own_rows_come_first_and_the_paper_only_with_its_data_sets(seeds_store):
    own = list_runs(seeds_store[1] / "runs")
    filled = cells(own)
    assert {cell.dataset for cell in filled} == {"tones"}
    assert [name for name in head(filled) if "paper" in name] == []
    assert "paper" not in caption(filled)
    both = cells([named(run, "esc50") if run.config.backbone == "resnet10t" else run for run in own])
    places = list(dict.fromkeys((cell.dataset, cell.backbone) for cell in both))
    paper = list(dict.fromkeys(key[:2] for key in published() if key[0] == "esc50"))
    assert places == [("esc50", "resnet10t"), ("tones", "test_resnet"), *paper]
    assert "The paper's" in caption(both)
    assert [len(line) for line in lines(both)] == [len(head(both))] * len(lines(both))
    found = {(c.dataset, c.backbone, c.column): c for c in both}
    cell = found["esc50", "resnet50", "pretrained"]
    assert (cell.paper, cell.paper_std, cell.n_seeds, cell.text) == (90.65, 0.28, 0, "no runs")
    assert found["esc50", "resnet10t", "pretrained"].text == "no runs"


def test_a_run_that_is_gone_is_named(seeds_store, tmp_path):
    arms, folder = seeds_store
    shutil.copytree(folder / "runs", tmp_path / "runs")
    gone = next(run for run in arms["tuned"] if (run.config.fold, run.config.seed) == ("2", 1))
    (tmp_path / "runs" / gone.path.relative_to(folder / "runs")).unlink()
    cell = found_in(tmp_path / "runs")["tones", "test_resnet", "pretrained"]
    assert cell.n_seeds == 2
    assert cell.missing == "no run of fold 2, seed 1"
    assert cell.text.endswith("[no run of fold 2, seed 1]")


def test_command_writes_three_formats(seeds_store, tmp_path, capsys):
    assert tables.main(["--runs", str(seeds_store[1] / "runs"), "--figures", str(tmp_path)]) == 0
    text = (tmp_path / "tables.md").read_text()
    assert text in capsys.readouterr().out
    lines = text.splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert any(line.startswith("| tones | test_resnet |") for line in lines)
    tex = (tmp_path / "tables.tex").read_text()
    body = tex.split("\\midrule", 1)[1].split("\\bottomrule")[0]
    assert all(line.count("&") == 5 for line in body.splitlines() if "&" in line)
    assert "test\\_resnet" in tex
    assert r"$\pm$" in tex
    with (tmp_path / "tables.csv").open() as file:
        assert {row["column"] for row in csv.DictReader(file)} == set(COLUMNS)


def test_names_are_text_in_every_format():
    table = [Cell("[1em]a|b<img>", r"\input{x}%$#_^~&", "pretrained", "*s*", missing="`m`")]
    row = next(line for line in tables.markdown(table).splitlines() if "1em" in line)
    assert row.startswith(r"| [1em]a\|b\<img> | \\input{x}%\$#\_^\~& | \*s\* | \`m\` |")
    row = next(line for line in tables.latex(table).splitlines() if "1em" in line)
    name = r"\textbackslash{}input\{x\}\%\$\#\_\textasciicircum{}\textasciitilde{}\&"
    assert row.startswith(f"{{}}[1em]a|b<img> & {name} & *s* & `m` &")
    assert row.endswith(r" \\")


def test_damaged_files_are_named_and_the_others_are_used(seeds_store, tmp_path, capsys):
    arms, folder = seeds_store
    shutil.copytree(folder / "runs", tmp_path / "runs")
    broken = tmp_path / "runs" / arms["tuned"][0].path.relative_to(folder / "runs")
    broken.write_bytes(broken.read_bytes()[:-50])
    assert tables.main(["--runs", str(tmp_path / "runs"), "--figures", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "no run of fold" in captured.out and f"error: {broken} is not a readable run file" in captured.err
    assert (tmp_path / "tables.tex").exists()


def test_damaged_files_are_named_if_there_is_no_other(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.h5").write_bytes(b"none")
    assert tables.main(["--runs", str(tmp_path / "runs"), "--figures", str(tmp_path / "figures")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no finished run of a whole network: train some first; " in line
    assert "a.h5 is not a readable run file" in line


def test_no_store_or_nothing_in_it(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    for folder, message in (("nowhere", "is not a folder"), ("runs", "has no finished run of a whole network")):
        assert tables.main(["--runs", str(tmp_path / folder), "--figures", str(tmp_path / "figures")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "figures").exists()


def test_runs_that_keep_an_inner_fold_have_a_cell_of_their_own(seeds_store, tmp_path):
    arms, folder = seeds_store
    shutil.copytree(folder / "runs", tmp_path / "runs")
    for run in arms["tuned"]:
        path = tmp_path / "runs" / run.path.relative_to(folder / "runs")
        other = shutil.copyfile(path, path.with_name(f"nested-{path.name}"))
        with h5py.File(other, "r+") as file:
            file["config"].attrs["inner_fold"] = "3"
            file["history"]["inner_accuracy"] = file["history"]["heldout_accuracy"][:]
        seal(other)
    found = cells(list_runs(tmp_path / "runs"))
    mine = {cell.setting: cell for cell in found if (cell.backbone, cell.column) == ("test_resnet", "ensemble")}
    plain = "1 epoch, lr 0.001, width 32, batch_size 8, from imagenet.safetensors"
    nested = plain.replace(", from", ", an inner fold kept from training, from")
    assert mine.keys() == {plain, nested}
    assert mine[plain].accuracy == mine[nested].accuracy
