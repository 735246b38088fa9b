"""The face of the package: what a notebook needs by one import, as one would type it."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import transferlens as tl
from transferlens import cli, synth
from transferlens.data import synthetic
from transferlens.util import processes
from transferlens.util.errors import ParameterError, TransferLensError

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_the_stub_names_what_there_is():
    named = re.findall(r"import (\w+) as \1$", (ROOT / "transferlens" / "__init__.pyi").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(dir(tl)) == sorted(tl.__all__)
    assert all(getattr(tl, name) is not None for name in named)


def test_every_question_is_a_function_that_says_what_it_takes():
    asked = [name for name in dir(tl) if inspect.ismodule(getattr(tl, name))]
    assert set(asked) == {
        n for n in cli.COMMANDS if isinstance(importlib.import_module(f"transferlens.{n}").main.work, cli.Question)
    }
    for name in asked:
        question = getattr(tl, name)
        assert callable(question)
        parameters = inspect.signature(question).parameters
        assert name == "report" or not {"figures", "dry_run"} & set(
            parameters
        )  # its page holds the figures of a folder
        text = pydoc.render_doc(question)
        assert f"    result = tl.{name}(" in text
        assert not re.search(r"--[a-z]", question.main.work.describe())  # arguments, not flags
        assert all(f"\n    {parameter} : " in text or f"\n{parameter} : " in text for parameter in parameters)


def test_help_of_a_question_shows_types_allowed_words_and_defaults():
    lines = tl.truncate.__doc__.splitlines()
    assert {"block : one or several int, optional", "epochs : int, 1 to 1048576, optional"} <= {*lines}
    assert {"fit : {'stretch', 'pad'}, default 'stretch'", "runs : path, default 'runs'", "Returns"} <= {*lines}


def test_help_of_the_package_names_every_question():
    assert all(name in tl.__doc__ for name in dir(tl) if inspect.ismodule(getattr(tl, name)))


@pytest.fixture
def given(clips, weights_file, tmp_path):
    return {
        "backbone": "test_resnet", "weights": weights_file, "width": 32, "epochs": 1, "batch_size": 8, "device": "cpu",
        "runs": str(tmp_path / "runs"), "cache": str(tmp_path / "cache"),
    }  # fmt: skip


def test_a_truncation_study_as_one_would_type_it(clips, given, tmp_path):
    result = tl.truncate(str(clips), blocks=[2, 3], folds=[1], **given)
    table = result.table()
    assert set(table.block.dropna()) == {2, 3, 4} and table.block.isna().any()
    assert set(table.fold) == {1} and set(table.pretrained_through.dropna()) == {4}
    assert "truncation, block 3" in result.summary() and result.summary() in repr(result)
    assert len(result.plot().axes) > 1
    html = result._repr_html_()
    assert html.startswith('<img src="data:image/png;base64,') and "<table" in html
    assert result.write(tmp_path / "out") == [tmp_path / "out" / f"truncate.{kind}" for kind in ("png", "pdf", "csv")]
    (tmp_path / "file").touch()
    for folder, message in ((None, "=None must be a path"), (tmp_path / "file", "must be a folder: .* is a file")):
        with pytest.raises(ParameterError, match=f"folder{message}" if folder is None else message):
            result.write(folder)


def test_runs_are_taken_where_paths_are(clips, given):
    runs = tl.Study(str(clips), folds=(1,), seeds=range(2), **given).runs(tl.TransferPlan.finetune())
    assert [run.config.seed for run in runs] == [0, 1]
    assert runs[0] in runs
    assert tl.ensemble(runs).rows[0].n_members == 2
    assert len(tl.svcca(runs[0], positions="mean", resamples=0, cache=given["cache"]).table()) > 1
    few = {"score": "drawn", "max_steps": 32, "control_steps": 32}
    shown = tl.saliency(runs[0], clips=1, cache=given["cache"], **few)
    assert len(shown.explained[0].clips.ids) == 1
    (summary, _) = tl.list_runs(given["runs"])
    assert "finished, 1 of 1 epoch" in repr(summary)
    for call, message in (
        (lambda: tl.svcca(runs[0].config), "ckpt=RunConfig.* must be a path"),
        (
            lambda: runs[0].inputs(np.zeros((3, 128, 32))),
            r"S of shape \(3, 128, 32\) must be an array of shape \(n_clips, 3, 128, 32\)",
        ),
        (lambda: runs[0].model(trained="x"), "trained='x' must be true or false"),
        (lambda: tl.Study(runs[0].path), "is an HDF5 file, not a table of clips: a run is given as ckpt"),
        (lambda: tl.load_run(runs[0], expected="5f3a"), "expected='5f3a' must be a RunConfig"),
        (
            lambda: tl.svcca(runs[0], clips=clips, cache="/proc/x"),
            "cache='/proc/x' must be a folder that can be",
        ),
        (lambda: tl.saliency(runs[0], clips=str(clips), width=40), "width=40 must be left out: .* says it"),
        (lambda: tl.robustness(runs, clips=clips, sr=4000), "sr=4000 must be left out: .* says it"),
        (lambda: tl.ensemble(runs, device="x"), "device='x' is not available here"),
        (lambda: tl.train(str(clips), folds=1, **given).plot(), "train has no figure: result.table"),
    ):
        with pytest.raises(TransferLensError, match=message):
            call()
    assert tl.load_run(summary).config == tl.load_runs(summary)[0].config == runs[0].config


def test_svcca_of_two_arrays_is_the_measure():
    X = np.random.default_rng(0).normal(size=(100, 3))
    assert tl.svcca(X, X @ [[2.0, 0, 0], [0, 3, 1], [0, 0, 1]]).similarity == pytest.approx(1)
    assert tl.cka(X, X).similarity == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clips: tl.Study(clips, backbone="r"), "backbone='r' is not a model of timm"),
        (lambda clips: tl.Study(clips, folds="12"), "folds='12' not in tones.*: its folds are 1, 2, 3"),
        (lambda clips: tl.Study(clips, epoch="3"), "epochs='3' must be a whole number"),
        (lambda clips: tl.Study("synht"), "clips='synht' does not exist: did you mean dataset='synth'"),
        (lambda clips: tl.load_run([clips]), "path=.* must be a path"),
        (lambda clips: tl.load_run(None), "path=None must be a path"),
        (lambda clips: tl.open_dataset(""), "name='' must be a path"),
        (lambda clips: tl.Study(clips, runs=""), "runs='' must be a path"),
        (lambda clips: tl.ensemble(None), "ckpt=None must be run files, or left out"),
        (lambda clips: tl.selection(ckpt=None), "ckpt=None"),
        (lambda clips: tl.log_mel(np.zeros(9), sr=8000, n_fft=10**9), "n_fft=1000000000 must be 1 to 1048576 samples"),
        (lambda clips: tl.list_runs(3), "folder=3 must be a path"),
        (lambda clips: tl.svcca(np.eye(3)), "svcca takes two arrays"),
        (lambda clips: tl.svcca(np.eye(3), np.eye(3), positions=4), "positions goes with run files"),
        (lambda clips: tl.svcca("a.h5", "b.h5"), r"ckpt: give a list, svcca\(\[a, b\]\)"),
        (lambda clips: tl.svcca(run="a.h5"), "did you mean ckpt"),
        (lambda clips: tl.ensemble(runs=["a.h5"]), "did you mean ckpt"),
        (lambda clips: tl.saliency("a.h5", clips=0), "clips=0 must be at least 1"),
        (lambda clips: tl.saliency("a.h5", clips=3, rows=5), "rows is given twice, also as clips"),
        (lambda clips: tl.selection([]), r"ckpt=\[\] names none: leave ckpt out"),
        (lambda clips: tl.truncate(clips, deep=3), "there is no option 'deep'"),
        (lambda clips: tl.truncate(clips, 3), "truncate takes one argument by position, clips"),
        (lambda clips: tl.svcca(), "ckpt must be given"),
        (lambda clips: tl.truncate(clips, dry_run=True), "dry_run is an option of the command: in Python, tl.Study"),
        (
            lambda clips: tl.truncate(clips, figures="x"),
            r"figures is an option of the command: in Python, result.write",
        ),
        (lambda clips: tl.truncate(clips, clips=clips), "clips is given twice"),
        (lambda clips: tl.Study(clips, folds=1, fold=2), "folds is given twice"),
        (
            lambda clips: tl.ensemble(clips=clips, seeds=5),
            r"seeds=\(5,\) gives one network: an ensemble needs at least 2",
        ),
        (lambda clips: tl.Study(clips).runs("p4-none-4"), "plan='p4-none-4' must be a TransferPlan, such as"),
    ],
)
def test_what_cannot_work_is_one_line(clips, call, message):
    with pytest.raises(ParameterError, match=message):
        call(clips)


def test_the_module_of_a_question_stays_a_module_and_loads_nothing_heavy():
    code = (
        "import sys, transferlens as tl, transferlens.truncate; tl.truncate; tl.truncate.Options; "
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_examples_are_short():
    assert len(EXAMPLES) == 8
    assert all(sum(bool(line.strip()) for line in path.read_text().splitlines()) <= 25 for path in EXAMPLES)


def test_examples_run(tmp_path, monkeypatch, capsys):
    """On a quarter of the built-in clips, in this process: others would see all of them."""
    few = tuple(spec for spec in synthetic.specs() if spec.group.endswith("g0"))
    assert {(spec.label, spec.fold) for spec in few} == {(spec.label, spec.fold) for spec in synthetic.specs()}
    for module in (synthetic, synth):
        monkeypatch.setattr(module, "specs", lambda: few)
    monkeypatch.setattr(synthetic, "_by_id", lambda: {spec.id: spec for spec in few})
    monkeypatch.setattr(processes, "cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example"])
    for name in ("own_sounds", "one_plan", "truncate_sweep", "svcca", "attributions", "ensemble", "read_run"):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        assert capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["new_question.py", "--folds", "1", "--epochs", "2", "--width", "64"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "examples" / "new_question.py"), run_name="__main__")
    assert end.value.code == 0
    assert "accuracy" in (tmp_path / "figures" / "learning_rate.csv").read_text()
