"""The table of the benchmarks: what a claim says, and that every script is run and starts."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in ("__main__", "claims"))


def claims():
    spec = importlib.util.spec_from_file_location("claims", BENCHMARKS / "claims.py")
    module = sys.modules["claims"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_claim_says_whether_it_is_met(tmp_path, monkeypatch, capsys):
    made = claims()
    fast = made.Claim("sorting", "plain loop", 0.5, 5.0, "s", 10)
    slow = made.Claim("sorting", "plain loop", 1.0, 5.0, "s", 10, "of 3 lists")
    assert (fast.gain, slow.gain) == (10, 5)
    assert fast.row == ("sorting", "plain loop", "0.5 s", "5 s", "10.0x", "10x", "")
    assert slow.row[5:] == ("10x, **missed**", "of 3 lists")
    assert len(made.HEAD) == len(fast.row)
    monkeypatch.setenv(made.COLLECT, str(tmp_path / "claims"))
    made.report(fast)
    made.report(slow)
    lines = (tmp_path / "claims").read_text().splitlines()
    assert [made.Claim(**json.loads(line)) for line in lines] == [fast, slow]
    assert "**missed**" in capsys.readouterr().out


def test_every_script_is_run():
    text = (BENCHMARKS / "__main__.py").read_text()
    named = ast.parse(text).body
    values = {node.targets[0].id: node.value for node in named if isinstance(node, ast.Assign)}
    run = {key.value for key in values["SCRIPTS"].keys}
    apart = set(ast.literal_eval(values["APART"]))
    assert run | apart == set(SCRIPTS)
    assert not run & apart


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name):
    argv = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    assert "usage" in done.stdout


def test_intervals_cover_what_they_say(monkeypatch):
    """On real cross-validations the corrected interval covers, conservatively; the plain one does not of every kind."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    intervals = importlib.import_module("intervals")
    for row in intervals.over_folds(300, 100):
        (corrected, _), (plain, _) = row["corrected"], row["plain"]
        assert corrected >= 0.94
        assert 0.85 <= plain < corrected
    for row in intervals.over_clips(300)[:6]:  # as many clips per recording as in ESC-10
        assert 0.92 <= row["Wilson over recordings"][0] <= 0.98
        assert 0.91 <= row["bootstrap over recordings"][0] <= 0.97


def test_one_script_from_the_runner(tmp_path):
    argv = [sys.executable, "-m", "benchmarks", "--clips", "clips.csv", "--only", "start"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True, cwd=BENCHMARKS.parent)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert "--help of any command" in table[2]
