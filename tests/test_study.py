"""Studies: what a file says becomes commands, runs that several ask for are trained once, wrong files are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferlens import cli, study, truncate
from transferlens.study import Step
from transferlens.util.errors import ParameterError

PAPER = Path(__file__).parents[1] / "analyses" / "paper.toml"


def written(folder, text):
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_options_are_as_on_the_command_line(tmp_path):
    path = written(
        tmp_path,
        """
        [all]
        backbone = ["resnet50", "densenet201"]
        seeds = [0, 1]
        [[run]]
        command = "truncate"
        seeds = [2]
        weight_decay = 0.5
        references = false
        dry-run = false
        [[run]]
        command = "tables"
        """,
    )
    first, second = study.read(path)
    assert first.command.name == "truncate"
    assert first.options.sweep.backbone == ("resnet50", "densenet201")
    assert first.options.sweep.seeds == (2,)
    assert first.options.training.weight_decay == 0.5
    assert not first.options.references
    assert (second.command.name, second.named) == ("tables", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 1", "is not TOML"),
        ("x = " + 50_000 * "[", "is not TOML"),
        ("[[run]]\ncommand = ['train']", r"unknown command \['train'\] in \[\[run\]\] 1: did you mean 'train'"),
        ("[[run]]\ncommand = 'train'\nbatch-size = 8\nbatch_size = 9", r"train of \[\[run\]\] 1 has an option in two"),
        ("[[run]]\ncommand = 'train'\nseeds = 'x'", r"train of \[\[run\]\] 1: seeds='x' must be a whole number"),
        ("[[run]]\ncommand = 'train'\nepochs = true", "epochs=True must be a whole number"),
        ("[[run]]\ncommand = 'train'\ndry-run = 'yes'", "dry_run='yes' must be true or false"),
        ('[[run]]\ncommand = "train"\nclips = "a\\u0000b"', "must not hold a zero byte"),
        ("[[run]]\ncommand = 'train'\nepochs = 0x" + 5000 * "f", r"epochs must be 1 to 1048576"),
        (
            "[all]\nbatch-size = 8\nbatch_size = 9\n[[run]]\ncommand = 'train'",
            r"\[all\] has an option in two",
        ),
        ("[[run]]\ncommand = 'train'\nseeds = [[1]]", r"seeds=\[1\] must be a whole number"),
        ("", r"must contain \[\[run\]\], in double brackets, at least once, and \[all\] at most once"),
        ("[all]\nseeds = [1]", "at least once"),
        ('[run]\ncommand = "train"', r"must contain \[\[run\]\], in double brackets"),
        ("[[run]]\ncommand = 'TRAIN'", "did you mean 'train'"),
        ("[[run]]\ncommand = 'train'\nfrozen_through = 'all'", "frozen_through='all' must be .*none or one of 0, 1, 2"),
        ("[[run]]\ncommand = 'train'\nruns = ''", "runs='' must be a path"),
        ('[[run]]\ncommand = "train"\n[other]\na = 1', r"has 'other' besides .*options belong in one"),
        ('[al]\nlr = 1\n[[run]]\ncommand = "train"', "has 'al' besides .*: did you mean 'all'"),
        ('[[run]]\ncommand = "xyz"', r"unknown command 'xyz' in \[\[run\]\] 1: name one of demo, pretraining"),
        ('[[run]]\ncommand = "svca"', "did you mean 'svcca'"),
        ("[[run]]\nseeds = [1]", r"\[\[run\]\] 1 has no command: name one of demo"),
        ('[[run]]\ncommand = "truncate"\nblocks = [1]', r"has no option 'blocks': did you mean 'block'"),
        ('[[run]]\ncommand = "truncate"\nblock = []', r"block=\[\] names none: leave block out"),
        ('[all]\nsedes = [1]\n[[run]]\ncommand = "train"', r"has the option 'sedes' of \[all\]: did you mean 'seeds'"),
    ],
)
def test_files_against_the_rules_are_named(tmp_path, text, message):
    with pytest.raises(ParameterError, match=rf"study\.toml.*{message}"):
        study.read(written(tmp_path, text))


def test_all_options_against_the_rules_are_named_at_once(tmp_path):
    text = "[[run]]\ncommand = 'train'\nlr = -1\n[[run]]\ncommand = 'fuse'\nepochs = 0"
    with pytest.raises(ParameterError, match=r"train of .* 1: lr=-1.0 must.*; fuse of .* 2: epochs=0 must"):
        study.read(written(tmp_path, text))


def test_no_file(tmp_path):
    with pytest.raises(ParameterError, match="none.toml' cannot be read: No such file"):
        study.read(tmp_path / "none.toml")


def test_dry_run_counts_shared_runs_once_and_the_study_trains_them_once(options, tmp_path, capsys):
    texts = dict(option.removeprefix("--").split("=", 1) for option in options)
    lines = [f"{name} = {value if value.isdecimal() else repr(value)}" for name, value in texts.items()]
    lines += ['folds = ["1"]']
    text = "\n".join(["[all]", *lines, "[[run]]", 'command = "pretraining"', 'long = "none"', "[[run]]"])
    path = written(tmp_path, f'{text}\ncommand = "truncate"\nblock = [3]\n[[run]]\ncommand = "tables"\n')
    assert study.main(["--config", str(path), "--dry-run"]) == 0
    assert "3 runs: 0 done, 3 to train" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert study.main(["--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert "== pretraining" in out
    assert {f.name for f in (tmp_path / "figures").glob("*.png")} == {"pretrained_vs_scratch.png", "truncate.png"}
    assert len(list((tmp_path / "runs").rglob("*.h5"))) == 3
    assert study.main(["--config", str(path), "--dry-run"]) == 0
    assert "3 runs: 3 done, 0 to train" in capsys.readouterr().out


def test_all_that_no_step_can_do_is_said_before_the_first(options, tmp_path, capsys):
    texts = dict(option.removeprefix("--").split("=", 1) for option in options)
    lines = [f"{name} = {value if value.isdecimal() else repr(value)}" for name, value in texts.items()]
    steps = "[[run]]\ncommand = 'truncate'\n[[run]]\ncommand = 'fuse'\nblock = [7]\n"
    steps += "[[run]]\ncommand = 'train'\ntruncate_after = 9"
    path = written(tmp_path, "\n".join(["[all]", *lines, steps]))
    assert study.main(["--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "fuse of [[run]] 2: block=7 must be among" in line
    assert "train of [[run]] 3: truncate_after=9 must be one of 1, 2, 3, 4" in line
    assert not (tmp_path / "runs").exists()


def test_places_and_run_files_are_checked_before_the_first_step(options, clips, tmp_path, capsys):
    made = "runs = 'r'\nfolds = 1\nepochs = 1\nbackbone = 'test_resnet'\npretrained_through = 'none'"
    path = tmp_path / "file"
    path.touch()
    steps = f"[[run]]\ncommand = 'train'\nclips = '{clips}'\n{made}\n[[run]]\ncommand = 'runs'\nckpt = 'x.h5'\n"
    steps += f"[[run]]\ncommand = 'tables'\nfigures = '{path}'\n[[run]]\ncommand = 'synth'\nout = '{path}'"
    for flags in [], ["--dry-run"]:
        assert study.main(["--config", str(written(tmp_path, steps)), *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "runs of [[run]] 2: ckpt=x.h5 does not exist, and no earlier step trains it; tables of [[run]] 3" in line
        assert f"figures='{path}' must be a folder" in line and f"out='{path}' must be a folder" in line


def test_a_step_may_take_one_run_file(tmp_path, capsys):
    path = written(tmp_path, "[[run]]\ncommand = 'export'\nckpt = 'x.h5'\nto = 'y'")
    assert study.main(["--config", str(path), "--dry-run"]) == 2
    assert "export of [[run]] 1: ckpt=x.h5 does not exist, and no earlier step" in capsys.readouterr().err


def test_a_step_reads_runs_that_an_earlier_one_trains(clips, tmp_path, capsys):
    options = {"clips": clips, "backbone": "test_resnet", "pretrained_through": "none", "runs": tmp_path / "runs"}
    first = Step.of(cli.load("train"), options | {"folds": 1, "cache": tmp_path})
    (arm,) = first.points().values()
    study.check([first, Step.of(cli.load("svcca"), {"ckpt": arm.points[0].path(tmp_path / "runs")})])


def test_a_step_takes_the_options_that_it_has_and_no_others():
    step = Step.of(truncate.main, {"epochs": 1}).given({"epochs": None, "seeds": (1, 2), "bn": "updating"})
    assert (step.options.training.epochs, step.options.sweep.seeds) == (1, (1, 2))
    assert step.named == {"epochs": 1, "seeds": (1, 2)}
    words = study._words(step.named | {"soup": True, "probe": False, "n_folds": 2})
    assert words == "--epochs 1 --seeds 1 2 --soup --no-probe --n-folds 2"
    with pytest.raises(ParameterError, match="there is no option 'bn'"):
        Step.of(truncate.main, {"bn": "updating"})


def test_the_paper_is_a_study():
    steps = study.read(PAPER)
    named = {step.options.data.dataset for step in steps if step.command.name != "tables"}
    assert named == {"esc50", "urbansound8k", "gtzan"}
    assert {"pretraining", "freeze", "fuse", "truncate", "probe", "ensemble", "tables"} == {
        step.command.name for step in steps
    }
    assert study.tomllib.loads(PAPER.read_text())["all"]["preset"] == "paper"
    folds = {step.options.data.dataset: step.options.sweep.folds for step in steps if step.command.name != "tables"}
    assert folds == {"esc50": (), "urbansound8k": (), "gtzan": ("5",)}
