"""The command line: one name and many, help, exit codes, and bad input in one line."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys

import h5py
import pytest
from conftest import last_of_each

from transferlens import __main__, __version__, cli, train
from transferlens.util import fields, text
from transferlens.util.errors import DataError

SMALL = [
    "--width",
    "32",
    "--epochs",
    "1",
    "--batch-size",
    "8",
    "--device",
    "cpu",
    "--workers",
    "1",
    "--backbone",
    "test_resnet",
]


@pytest.fixture
def options(clips, weights_file, tmp_path):
    folders = ["--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    return ["--clips", str(clips), "--weights", str(weights_file), *SMALL, *folders]


def refused(argv, capsys):
    """The one line on stderr of a command that exits with code 2; of an option that is named twice, the last counts."""
    code = train.main(last_of_each(argv))
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_explains_every_option(command, capsys):
    module = importlib.import_module(f"transferlens.{command}")
    with pytest.raises(SystemExit) as exit_code:
        module.main(["--help"])
    assert exit_code.value.code == 0
    shown = capsys.readouterr().out
    for name in fields.names(module.Options):
        flag = name.replace("_", "-")
        assert f"--{flag}" in shown or f"--no-{flag}" in shown or name in ("names", "files"), name
    kinds = {each.type for each in dataclasses.fields(module.Options)} | {module.Options}
    for kind in filter(dataclasses.is_dataclass, kinds):
        assert all(
            fields.texts(kind).get(each.name) for each in dataclasses.fields(kind) if each.name in fields.names(kind)
        )


@pytest.mark.parametrize("command", ["truncate", "svcca"])
def test_help_shows_the_options_of_the_question_first_and_groups_in_boxes(command, capsys):
    module = importlib.import_module(f"transferlens.{command}")
    with pytest.raises(SystemExit):
        module.main(["--help"])
    boxes = re.findall(r"^[╭─ ]*((?:\w+ )?options)[ ─╮]*$", capsys.readouterr().out, re.MULTILINE)
    groups = [each.name for each in dataclasses.fields(module.Options) if each.name not in fields.names(module.Options)]
    assert boxes == ["options", *(f"{group} options" for group in groups)]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_each_default_once_and_as_one_paragraph(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.load(command)(["--help"])
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert not re.search(r"Default: [^.]*\. \(default: |default: (None|True|False)?\)", shown)
    assert all(meaning in shown for meaning in fields.texts(cli.load(command).options).values())


def test_help_does_not_load_torch():
    code = (
        "import sys, transferlens.train\n"
        "try: transferlens.train.main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "False\n"


@pytest.mark.parametrize("command", [["-m", "transferlens", "runs"], ["-m", "transferlens.runs"]])
def test_the_same_command_under_both_names(command, tmp_path):
    done = subprocess.run([sys.executable, *command, "--runs", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"no runs in {tmp_path}\n", "")


def test_usage(capsys):
    assert __main__.main([]) == 2
    assert "usage: transferlens" in capsys.readouterr().err
    assert __main__.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)
    assert __main__.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert __main__.main(["trian"]) == 2
    assert "unknown command 'trian': did you mean 'train'?" in capsys.readouterr().err
    assert __main__.main(["x"]) == 2
    assert "unknown command 'x': the commands are demo, pretraining, freeze" in capsys.readouterr().err


def test_train_prints_accuracies_and_reads_them_again(options, capsys):
    assert train.main(options) == 0
    first = capsys.readouterr().out
    assert "n = 3" in first
    assert train.main(options) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("two\nlines"), "two lines"),
        (MemoryError(), "there is too little memory: free some, or take smaller mini-batches"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "there is too little memory: free some, or take smaller mini-batches",
        ),
        (ImportError("libx.so: failed to map segment"), "a library cannot be loaded: libx.so: failed to map segment"),
    ],
)
def test_errors_are_one_line(error, line, capsys):
    def work():
        raise error

    assert cli.guarded(work) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_output_that_is_closed_is_no_fault():
    command = (
        "import sys, os; os.close(1); sys.stdout = None; from transferlens import datasets; sys.exit(datasets.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["runs", "cache"])
def test_file_where_a_folder_should_be(options, name, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused([*options, f"--{name}", str(tmp_path / "file")], capsys)
    assert f"{tmp_path}/file" in message


def test_table():
    assert text.table([("name", "n"), ("a", 1), ("bb", 10)]) == "name   n\na      1\nbb    10"


def test_bugs_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--clips", "none.csv"], "none.csv"),
        (["--clips", "."], "folder"),
        (["--backbone", "resnet5o"], "backbone='resnet5o' is not a model of timm; did you mean"),
        (["--backbone", "gmixer_12_224"], "cannot be cut into a stem and four blocks"),
        (["--pretrained-through", "7"], "pretrained_through=7 must be none or one of 0, 1, 2, 3, 4"),
        (["--pretrained-through", "x"], "x"),
        (["--folds", "9"], "folds='9' not in tones.*: its folds are 1, 2, 3"),
        (["--truncate-after", "0"], "truncate_after=0 must be one of 1, 2, 3, 4"),
        (
            ["--frozen-through", "3", "--truncate-after", "2"],
            "frozen_through=3 must not exceed truncate_after=2",
        ),
        (["--weights", "none.pth"], "weights file .*none.pth does not exist"),
        (
            ["--pretrained-through", "none"],
            "weights='.*' has no effect, as all blocks start from random weights: leave it out",
        ),
        (["--bn", "updating"], "bn='updating' needs frozen blocks: give frozen_through or train, or leave bn out"),
        (["--n-folds", "4"], "n_folds=4 must be at most 3: 1, 2, 3"),
        (["--device", "tpu9"], "device='tpu9' is not available here"),
        (["--epochs", "0"], "epochs=0 must be 1 to 1048576"),
        (["--windows", "0.1", "0.2"], "windows=.* and hops=.* must be of one length|must be 3 lengths"),
        (["--dataset", "esc50"], "esc50|clips"),
    ],
)
def test_wrong_input(options, change, message, capsys, tmp_path):
    import re

    assert re.search(message, refused([*options, *change], capsys))
    assert not list(tmp_path.rglob("*.h5"))


def test_table_without_label(options, tmp_path, capsys):
    table = tmp_path / "clips.csv"
    table.write_text("path,fold\na.wav,1\n")
    assert "lacks label" in refused([*options, "--clips", str(table)], capsys)


def test_text_file_named_wav(options, tmp_path, clips, capsys):
    (tmp_path / "text.wav").write_text("this is no sound")
    table = tmp_path / "clips.csv"
    rows = [f"{clips.parent}/{line}" for line in clips.read_text().splitlines()[1:]]
    table.write_text("\n".join(["path,label,fold", *rows, "text.wav,low,1"]))
    message = refused([*options, "--clips", str(table)], capsys)
    assert "text.wav" in message
    assert "1 of 25 clips cannot be read" in message
    assert not list((tmp_path / "cache").glob("*"))


def test_weights_of_another_network(options, tmp_path, capsys):
    import safetensors.torch
    import timm

    other = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet18").state_dict(), other)
    assert "resnet18.safetensors" in refused([*options, "--weights", str(other)], capsys)


def test_run_file_cut_in_half(options, tmp_path, capsys):
    assert train.main([*options, "--folds", "1"]) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "runs").rglob("*.h5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{path} is not a readable run file: damaged, cut short" in refused([*options, "--folds", "1"], capsys)
    assert path.exists()


def test_some_runs_failed(options, capsys):
    assert train.main([*options, "--folds", "1", "--lr", "1e30", "--precision", "fp32"]) == 3
    assert "1 of 1 runs failed" in capsys.readouterr().err


def test_run_file_is_plain_hdf5(options, tmp_path, capsys):
    assert train.main([*options, "--folds", "1"]) == 0
    (path,) = (tmp_path / "runs").rglob("*.h5")
    with h5py.File(path) as file:
        assert {"config", "provenance", "history", "weights", "fresh", "logits_last", "logits_best"} <= set(file)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workers", "text"], "Error parsing --workers: no type matching INT.*--workers INT.*For full helptext"),
        (["--epochs", "text"], r"Error parsing --epochs: no type matching INT .* from \['text'\]; Argument helptext: "),
        (["--workrs", "3"], "Unrecognized options: --workrs, 3; Perhaps you meant:.*--workers INT"),
        (["--augment", "x"], "augment='x' must be one of none, released, spectrum, waveform$"),
        (["--normalise", "None"], "normalise='None' must be one of none, channel, imagenet, source$"),
        (["--folds"], "Error parsing --folds: it needs one value or more"),
        (["--folds", "--epochs", "1"], "Error parsing --folds: it needs one value or more"),
        (["--batch-size", "3", "--batch_size=4"], "--batch-size is given twice"),
        (["--runs", ""], "--runs has an empty value: leave it out"),
        (["--runs="], "--runs has an empty value: leave it out"),
    ],
)
def test_options_that_cannot_be_parsed_are_one_line(argv, message, capsys):
    assert train.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {message}", line)
    assert not set(line) & set("│─╭|")
    assert "----" not in line
