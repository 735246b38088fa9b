"""Small data, a small network and made-up ImageNet weights, shared by all tests."""

from __future__ import annotations

import csv
import functools
import importlib
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

# Before torch is loaded, here and in what the tests start: as many processes as cores run tests, each with one thread.
os.environ["OMP_NUM_THREADS"] = "1"

BACKBONE = "test_resnet"
SHARED = Path(__file__).parents[2] / "shared"
# Real data, by the marker of the tests that need them.
REAL = {"esc10": SHARED / "esc10" / "clips.csv", "urbansound8k": SHARED / "urbansound8k"}


# Mean seconds of each test function and each fixture, without the fixtures that it uses: to compare, as they were
# measured beside other work, which about doubles them.
SECONDS = Path(__file__).with_name("seconds.csv")
LIBRARIES = ("torch", "timm", "librosa", "sklearn.model_selection", "matplotlib.pyplot", "captum.attr", "h5py", "numba")
LIMIT = 0.2  # above which a test is slow [s]


def pytest_addoption(parser):
    parser.addoption("--write-seconds", action="store_true", help=f"measure all tests, for {SECONDS.name}")


@functools.cache
def measured():
    if not SECONDS.is_file():
        return {}
    with SECONDS.open(encoding="utf-8", newline="") as file:
        return {row["name"]: float(row["seconds"]) for row in csv.DictReader(file)}


def name_of(fixture):
    return f"{fixture.baseid}::{fixture.argname}"


def seconds(item):
    """About how long a test takes, or the longest of its fixtures."""
    fixtures = getattr(item, "_fixtureinfo", None)
    names = [name_of(each[-1]) for each in fixtures.name2fixturedefs.values()] if fixtures else []
    return max(measured().get(name, 0) for name in (item.nodeid.partition("[")[0], *names))


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items):
    items.sort(key=seconds, reverse=True)  # no long test is left for one process at the end
    for item in items:
        if seconds(item) > LIMIT:
            item.add_marker("slow")
        for marker, place in REAL.items():
            if item.get_closest_marker(marker) and not place.exists():
                item.add_marker(pytest.mark.skip(reason=f"the clips of {marker} are not at ../shared/{marker}"))


class Timer:
    """Times fixtures; a hook of this file would not see those of the session."""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        start = time.perf_counter()
        try:
            return (yield)
        finally:
            request._pyfuncitem.user_properties.append((name_of(fixturedef), time.perf_counter() - start))


class Record:
    """Collects seconds in the process that all reports reach, and writes them."""

    def __init__(self):
        self.found = defaultdict(list)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.found[report.nodeid.partition("[")[0]].append(report.duration)
        if report.when == "teardown":
            for name, took in report.user_properties:
                self.found[name].append(took)

    def pytest_sessionfinish(self):
        rows = [(name, round(statistics.fmean(each), 2)) for name, each in sorted(self.found.items())]
        with SECONDS.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerows([("name", "seconds"), *(row for row in rows if row[1] >= 0.05)])


def pytest_configure(config):
    if not config.getoption("write_seconds"):
        return
    config.pluginmanager.register(Timer())
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record())
    for name in LIBRARIES:  # so that no test is charged for them
        importlib.import_module(name)


@pytest.fixture(autouse=True)
def warn_again():
    """A warning of an earlier test is given again."""
    from transferlens.util.errors import warn_once

    warn_once.cache_clear()


@pytest.fixture(scope="session")
def esc10():
    return REAL["esc10"]


@pytest.fixture(scope="session")
def urbansound8k():
    return REAL["urbansound8k"]


def write_clips(folder: Path, *, folds=("1", "2", "3"), each=4, sr=8000, seconds=0.5, seed=0) -> Path:
    """A table of short clips of two classes, a low and a high tone in noise."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for label, frequency in (("low", 300), ("high", 2500)):
        for fold in folds:
            for i in range(each):
                y = np.sin(2 * np.pi * frequency * np.arange(int(sr * seconds)) / sr) + rng.normal(
                    size=int(sr * seconds)
                )
                path = f"{label}-{fold}-{i}.wav"
                soundfile.write(folder / path, 0.2 * y, sr)
                rows.append((path, label, fold))
    table = folder / "clips.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold"), *rows])
    return table


def last_of_each(argv):
    """Arguments without the options that are named again later."""
    options = {}
    for word in argv:
        if word.startswith("--"):
            name = word.partition("=")[0]
            options[name] = []
        options[name].append(word)
    return [word for words in options.values() for word in words]


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """The table of 24 small clips: 2 classes, 3 folds."""
    return write_clips(tmp_path_factory.mktemp("tones"))


def write_weights(path, *, seed):
    """Write made-up weights of the small network, and return the path of their file."""
    import safetensors.torch
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        safetensors.torch.save_file(timm.create_model(BACKBONE).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Made-up ImageNet weights of the small network, in a file."""
    return write_weights(tmp_path_factory.mktemp("weights") / "imagenet.safetensors", seed=123)


@pytest.fixture(scope="session")
def other_file(weights_file):
    """Other weights of the small network."""
    return write_weights(weights_file.with_name("other.safetensors"), seed=7)


@pytest.fixture(scope="session")
def make_study(clips, weights_file):
    """Make a study of the small clips and network, in a folder; options can be replaced by name."""
    from transferlens.training.sweep import Study

    def make(folder, **options):
        given = {
            "clips": clips,
            "backbone": (BACKBONE,),
            "weights": str(weights_file),
            "width": 32,
            "epochs": 2,
            "batch_size": 4,
            "device": "cpu",
            "workers": 1,
            "runs": folder / "runs",
            "cache": folder / "cache",
        }
        return Study(**(given | options))

    return make


@pytest.fixture
def study(make_study, tmp_path):
    """`make_study` in the folder of the test."""
    return functools.partial(make_study, tmp_path)


@pytest.fixture
def options(clips, weights_file, tmp_path):
    """The command line of a small analysis: an epoch of the small network on the small clips."""
    given = {
        "clips": clips, "backbone": "test_resnet", "weights": weights_file, "width": 32, "epochs": 1, "batch-size": 8,
        "device": "cpu", "workers": 1, "runs": tmp_path / "runs", "cache": tmp_path / "cache",
        "figures": tmp_path / "figures",
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in given.items()]


@pytest.fixture(scope="session")
def seeds_store(tmp_path_factory, weights_file):
    """Runs of three seeds and two folds, of two arms and a second backbone."""
    from transferlens.models.plan import TransferPlan
    from transferlens.training.sweep import Study

    folder = tmp_path_factory.mktemp("seeds")
    given = {
        "clips": write_clips(folder / "tones"), "width": 32, "epochs": 1, "batch_size": 8, "device": "cpu",
        "workers": 1, "folds": (1, 2), "runs": folder / "runs", "cache": folder / "cache",
    }  # fmt: skip
    made = Study(**given, backbone="test_resnet", weights=weights_file, seeds=range(3))
    arms = {"tuned": made.runs(TransferPlan()), "scratch": made.runs(TransferPlan.scratch())}
    other = Study(**given, backbone="resnet10t", seeds=(0, 1))
    return arms | {"other": other.runs(TransferPlan.scratch())}, folder
