"""The fields of a run file: whatever one of them holds that it must not, the file and the field are named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys

import h5py
import numpy as np
import pytest

from transferlens import ensemble, report, runs, tables
from transferlens.features.logmel import FeatureSettings
from transferlens.models.plan import TransferPlan
from transferlens.store import index
from transferlens.store.config import RunConfig, Training
from transferlens.store.listing import VERSION, list_runs, summarise
from transferlens.store.run import load_run
from transferlens.store.runfile import RunState, read_state, seal, write_state
from transferlens.store.schema import FIELDS, INNER, PROVENANCE, history_names
from transferlens.util.errors import CheckpointError

CONFIG = RunConfig(
    dataset="made",
    data_key="ab" * 32,
    features=FeatureSettings(8000, width=32),
    fold="1",
    backbone="test_resnet",
    plan=TransferPlan(),
    weights_sha256="cd" * 32,
    seed=0,
    training=Training(epochs=2),
    inner_fold="2",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A valid run of two epochs, which nobody has trained: all right after the first, one of three after the last."""
    labels = np.array([0, 1, 0])
    right, wrong = np.eye(2, dtype=np.float32)[labels], np.eye(2, dtype=np.float32)[1 - labels]
    history = {name: [1.0, 0.5] for name in history_names(CONFIG)} | {"heldout_accuracy": [1.0, 1 / 3]}
    provenance = dict.fromkeys(PROVENANCE, "auto") | {
        "features_key": "ef" * 32,
        "precision": "fp32",
        "n_train": 6,
        "commonest": 0.5,
        "pass_size": 64,
    }
    state = RunState(
        config=CONFIG,
        provenance=provenance,
        label_names=["cat", "dog"],
        clip_ids=["../audio/a.wav", "b.wav", "c.wav"],
        labels=labels,
        normalisation=np.ones((2, 3)),
        history=history,
        logits_last=np.concatenate([right[:1], wrong[1:]]),
        logits_best=right,
        weights={"head.weight": np.zeros(1, np.float32)},
        fresh={"head.weight": np.zeros(1, np.float32)},
        optimizer={},
        groups=["r", "r", "s"],
        recordings=["t", "u"],
    )
    path = CONFIG.path(tmp_path_factory.mktemp("made"))
    write_state(path, state)
    return path


def put(name, change):
    """Replace a field by what becomes of its values."""

    def alter(file):
        values = change(file[name][()])
        del file[name]
        file[name] = values

    return alter


def drop(name):
    return lambda file: file.pop(name)


def give(group, name, value):
    """Give an attribute another value; None removes it."""

    def alter(file):
        attributes = file[group].attrs
        attributes.pop(name)
        attributes.update({} if value is None else {name: value})

    return alter


def first(value):
    return lambda values: [value, *values[1:]]


TEXTS = {
    "empty": first(b""),
    "newline": first(b"a\nb"),
    "escape": first(b"\x1b[2J"),
    "line separator": first("a\u2028b".encode()),
    "next line": first("a\x85".encode()),
    "not UTF-8": first(b"\xff"),
    "numbers": lambda values: np.arange(len(values)),
    "one deep": lambda values: [[value] for value in values],
    "one": lambda values: values[0],
}
NUMBERS = {
    "text": lambda values: np.full(np.shape(values), b"x"),
    "complex": lambda values: values + 0j,
    "half": lambda values: values.astype("float16"),
    "compound": lambda values: np.zeros(np.shape(values), [("a", "f4")]),
    "deeper": lambda values: values[..., None],
    "flat": lambda values: values.reshape(-1)[:1][0],
    "longer": lambda values: np.concatenate([values, values]),
    "shorter": lambda values: values[:-1],
}
FLOATS = NUMBERS | {
    "nan": lambda values: values * np.nan,
    "infinite": lambda values: values + np.inf,
    "integers": lambda values: values.astype("int64"),
}
NAMES = ("label_names", "clip_ids", "groups", "recordings")
ALL = {
    **{(name, kind): change for name in NAMES for kind, change in TEXTS.items()},
    **{("labels", kind): change for kind, change in NUMBERS.items()},
    **{
        (name, kind): change
        for name in ("logits_last", "logits_best", "normalisation", *(n for n in FIELDS | INNER if "/" in n))
        for kind, change in FLOATS.items()
    },
    ("label_names", "same"): lambda values: [b"cat", b"cat"],
    ("label_names", "order"): lambda values: values[::-1],
    ("label_names", "single"): lambda values: values[:1],
    ("clip_ids", "same"): lambda values: np.repeat(values[:1], 3),
    ("clip_ids", "none"): lambda values: values[:0],
    ("groups", "shorter"): lambda values: values[1:],
    ("recordings", "same"): lambda values: [b"t", b"t"],
    ("labels", "unknown"): lambda values: values + 9,
    ("labels", "negative"): lambda values: values - 9,
    ("labels", "half way"): lambda values: values + 0.5,
    ("logits_last", "of another accuracy"): lambda values: -values,
    ("logits_best", "of another accuracy"): lambda values: -values,
    ("logits_last", "double"): lambda values: values.astype("float64"),
    ("normalisation", "of seven channels"): lambda values: np.ones((2, 7)),
    ("normalisation", "without deviation"): lambda values: 0 * values,
    ("normalisation", "negative"): lambda values: -values,
    ("history/heldout_accuracy", "above 1"): lambda values: values + 7,
    ("history/inner_accuracy", "below 0"): lambda values: values - 7,
    ("history/seconds", "negative"): lambda values: -values,
    ("history/lr", "negative"): lambda values: -values,
}
CASES = {f"{name}: {kind}": (put(name, change), name) for (name, kind), change in ALL.items()}
CASES |= {f"{name}: missing": (drop(name), name) for name, field in (FIELDS | INNER).items() if not field.optional}
CASES |= {f"{name}: missing": (drop(name), name) for name in ("config", "provenance", "history", "weights", "fresh")}
CASES |= {
    f"{group}/{name}: {value!r:.20}": (give(group, name, value), name)
    for group, name, values in (
        ("provenance", "features_key", (None, "../../../../etc/passwd", "ef" * 31, 5)),
        ("provenance", "precision", (None, "int8", 32)),
        ("provenance", "weights_option", (None, 5, np.ones(3))),
        ("provenance", "weights_source", (None, 5, h5py.Empty("f4"))),
        ("provenance", "n_train", ("many", -3, 0, [3, 3], np.nan, 3.0)),
        ("provenance", "commonest", ("many", -0.1, 1.1, 1, np.nan, [0.5, 0.5])),
        ("provenance", "pass_size", ("many", 0, 1, 3.5, 65, 10**15)),
        ("config", "dataset", (None, "../../etc", "/etc", "..", "a\\b", "", "a\nb", "\x1b]0;x\a", "x" * 256, 5, ["a"])),
        ("config", "data_key", (None, "", "AB" * 32, "ab" * 33, 5)),
        ("config", "fold", (None, "", "1\r2", 1, "x" * 256, h5py.Empty("f4"))),
        ("config", "backbone", (None, "", "\x9b31m", 18)),
        ("config", "weights_sha256", (None, "", "x", 5)),
        ("config", "inner_fold", ("1", "\t", 2)),
        ("config", "seed", (None, -1, 1.5, "0", np.bool_(True))),
        ("config", "epochs", (None, 0, 1, 2.0, "2", 2**40)),
        ("config", "batch_size", (None, 1, "x")),
        ("config", "lr", (None, np.nan, -1.0, "x")),
        ("config", "optimizer", (None, "sgd", 3)),
        ("config", "milestones", (None, [-3], "x")),
        ("config", "windows", (None, [-1.0, 0.05, 0.1], "x", [0.05])),
        ("config", "n_mels", (None, 0, 10**9)),
        ("config", "sr", (None, 0, -5, "x")),
        ("config", "truncate_after", (None, 9, 0, "x")),
        ("config", "pretrained_through", (None, 7, "x")),
        ("config", "bn", (None, "melted", 1)),
    )
    for value in values
}
# A contradiction is told of one of the two fields.
CASES |= {
    f"history/train_loss: {kind}": (CASES[f"history/train_loss: {kind}"][0], "history")
    for kind in ("longer", "shorter")
}
CASES["config/epochs: 1"] = (CASES["config/epochs: 1"][0], "history")
CASES["config/windows: [0.05]"] = (CASES["config/windows: [0.05]"][0], "hops")
CASES["config/pretrained_through: none"] = (give("config", "pretrained_through", h5py.Empty("f4")), "weights_sha256")


def altered(made, folder, change):
    path = folder / made.parent.name / "altered.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, path)
    with h5py.File(path, "r+") as file:
        change(file)
    seal(path)
    return path


def test_the_made_up_run_is_valid(made):
    run = load_run(made)
    assert (run.accuracy_last, run.accuracy_best, run.n_recordings) == (pytest.approx(1 / 3), 1.0, 2)
    assert summarise(made).accuracy_best == 1.0
    assert tuple(read_state(made).clip_ids) == run.clip_ids == ("../audio/a.wav", "b.wav", "c.wav")


@pytest.mark.parametrize("case", CASES)
def test_every_inconsistency_is_one_error_that_names_the_field(made, tmp_path, case):
    change, name = CASES[case]
    path = altered(made, tmp_path, change)
    for read in (load_run, read_state):
        with pytest.raises(CheckpointError, match=rf"altered\.h5 .*\b{name}\b") as error:
            read(path)
        assert str(error.value).isprintable()
    with contextlib.suppress(CheckpointError):  # it reads what it lists
        summarise(path)


def test_all_broken_fields_are_named_at_once(made, tmp_path):
    def change(file):
        for name in ("labels", "normalisation"):
            del file[name]

    with pytest.raises(CheckpointError, match=r"labels must be int64 of shape \(3\); normalisation must be float64"):
        load_run(altered(made, tmp_path, change))


def test_what_newer_and_older_versions_write_is_read(made, tmp_path):
    def change(file):
        del file["groups"], file["recordings"]
        del file["provenance"].attrs["n_train"]
        file["new_field"] = np.arange(3)
        file["provenance"].attrs["new"] = "words"

    assert load_run(altered(made, tmp_path, change)).groups == ()


def test_numbers_of_the_other_byte_order_are_read(made, tmp_path):
    run = load_run(altered(made, tmp_path, put("logits_last", lambda values: values.astype(">f4"))))
    assert run.logits.dtype == np.dtype("float32")


HOSTILE = ["normalisation: of seven channels", "label_names: newline", "provenance/features_key: None",
           "config/fold: 1", "weights: missing", "logits_last: of another accuracy"]  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_commands_name_the_file_and_go_on(made, tmp_path, capsys, case):
    path = altered(made, tmp_path / "runs", CASES[case][0])
    shutil.copyfile(made, path.with_name(made.name))
    store, figures = ["--runs", str(tmp_path / "runs")], ["--figures", str(tmp_path / "figures")]
    for command, argv in (
        (report, [*store, *figures, "--explore", "0"]),
        (tables, [*store, *figures]),
        (ensemble, ["--ckpt", str(path), str(made), *figures]),
        (runs, ["--ckpt", str(path)]),
    ):
        assert command.main(argv) == 2, command
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {path} is not a valid run: ")
    assert (tmp_path / "figures" / "report.html").is_file()
    assert runs.main(store) in (0, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8")
def test_a_folder_whose_name_is_not_text(made, tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"\xff\x1b")
    shutil.copytree(made.parents[1], folder / "runs")
    # Without clips: a warning would have the name, which worker processes of pytest cannot pass on.
    page = ["--runs", str(folder / "runs"), "--figures", str(folder), "--explore", "0", "--mistakes", "0"]
    assert report.main(page) == 0
    assert "\\udcff\\x1b" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    ["5", "{}", '{"id": 5}', "{},{}", "[" * 10**5, '"', *('{"settings": "[]"}', '{"settings": "{\\"sr\\": 5}"}')],
)
def test_an_index_of_other_content_is_named(made, tmp_path, capsys, line):
    """It is a file as any other in a store from someone else, with a checksum that anyone can compute."""
    store = tmp_path / "runs"
    shutil.copytree(made.parents[1], store)
    (summary,) = list_runs(store)
    (store / ".index.tsv").unlink()
    values = {name: value for name, value in vars(summary).items() if name not in ("file", "config")}
    given = json.dumps(values | json.loads(line)) if "settings" in line else line
    index.read_through(store, suffixes=(".h5",), read=lambda path: given, version=VERSION)
    for command in (runs, tables):
        argv = [] if command is runs else ["--figures", str(tmp_path / "figures")]
        assert command.main(["--runs", str(store), *argv]) == 2 or (command is runs and "settings" in line)
    (error, *_) = capsys.readouterr().err.splitlines()
    assert "delete .index.tsv of its store, which is written again" in error
