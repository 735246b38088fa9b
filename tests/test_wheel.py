"""The wheel holds what it needs: installed outside the checkout, the demo and the study run in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import write_clips, write_weights

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            (source / name).write_bytes((ROOT / name).read_bytes())
    # The tools that build it are those of this environment: nothing is downloaded.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_wheel_and_sdist_can_be_published(wheel):
    files = [str(wheel), *map(str, wheel.parent.glob("*.tar.gz"))]
    assert len(files) == 2
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True, capture_output=True)


def test_wheel_holds_the_package_and_the_study(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("transferlens/py.typed", "transferlens/__init__.pyi", "transferlens/paper_results.csv"):
        assert needed in names
    templates = {name.rpartition("/")[2] for name in names if name.startswith("transferlens/templates/")}
    assert {path.name for path in (ROOT / "transferlens" / "templates").iterdir()} == templates
    assert {"analyses/all.py", "analyses/paper.toml", "analyses/text/RESULTS.md.jinja"} < {*names}
    assert any(name.endswith("data_manifest.csv") for name in names)
    assert not [name for name in names if name.split("/")[0] in ("tests", "benchmarks", "figures")]


def test_demo_runs_from_the_wheel_in_an_empty_folder(wheel, tmp_path):
    environment, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(list(map(str, install)), check=True)
    # What it depends on comes from this environment, the package itself from the wheel.
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run = {"cwd": empty, "env": {**os.environ, "PYTHONPATH": ""}, "check": True, "capture_output": True, "text": True}
    found = subprocess.run([python, "-c", "import transferlens; print(transferlens.__file__)"], **run).stdout
    assert Path(found.strip()).is_relative_to(environment)
    listed = subprocess.run([python, "-m", "transferlens.datasets"], **run).stdout
    assert "esc50" in listed
    (empty / "study.toml").write_text('[[run]]\ncommand = "demo"\n')
    argv = [python, "-m", "transferlens", "study", "--config", "study.toml", "--dry-run"]
    assert "4 runs: 0 done, 4 to train" in subprocess.run(argv, **run).stdout
    usage = subprocess.run([python, "-m", "transferlens", "all", "--help"], **run).stdout
    assert "transferlens all" in usage and "--results" in usage
    clips, weights = write_clips(empty / "sounds"), empty / "weights.safetensors"
    write_weights(weights, seed=0)
    asked = ["--clips", clips.relative_to(empty), "--backbone", "test_resnet", "--weights", weights.name, "--dry-run"]
    assert " 0 done, " in subprocess.run([python, "-m", "transferlens", "all", *asked], **run).stdout.splitlines()[-1]
    asked = "from analyses import results; print((results.TEMPLATES / 'RESULTS.md.jinja').is_file())"
    assert subprocess.run([python, "-c", asked], **run).stdout == "True\n"
    # What the demo asks, of one fold and at a small size.
    smaller = ["--folds", "1", "--epochs", "1", "--width", "32", "--long", "none", "--figures", "figures/demo"]
    subprocess.run([python, "-m", "transferlens", "pretraining", *smaller], **run)
    assert list((empty / "figures" / "demo").glob("*.png"))
