"""Names from others: clips, labels and folders whose names are code, markup, formulas or ways out of a folder."""

from __future__ import annotations

import csv
import html.parser
import json
import re

import numpy as np
import pytest
import soundfile

from transferlens import report, runs, saliency, tables
from transferlens.data.catalogue import open_dataset
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import DataError
from transferlens.util.files import plain_cell
from transferlens.util.text import printable

LABELS = ["</script ><script>alert(1)</script>", "=HYPERLINK(0)|`$\\frac{`\u202e"]
DATA = ("data", "mistakes", "arms-data")
FILES = [
    "<img src=x onerror=alert(2)>.wav",
    "@cmd|' {{7*7}} [a](b) %00 \u202egpj.wav",
    f"{'x' * 244}.wav",  # 250 bytes
]


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights_file):
    """A run on clips whose ids all begin with "../audio/", in a folder that has nothing else."""
    from transferlens.training.sweep import Study

    folder = tmp_path_factory.mktemp("hostile") / "inside"
    (folder / "audio").mkdir(parents=True)
    (folder / "tables").mkdir()
    rng, rows = np.random.default_rng(0), []
    for fold in ("1", "2"):
        for label, name in ((label, name) for label in LABELS for name in FILES):
            path = f"../audio/{LABELS.index(label)}{fold}{name}"
            soundfile.write(folder / "tables" / path, 0.1 * rng.normal(size=800), 8000)
            rows.append((path, label, fold))
    with (folder / "tables" / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "fold"), *rows])
    (run,) = Study(
        folder / "tables" / "clips.csv", backbone="test_resnet", weights=weights_file, width=32, epochs=1,
        batch_size=8, folds=1, device="cpu", runs=folder / "runs", cache=folder / "cache",
    ).runs(TransferPlan())  # fmt: skip
    return run, folder


def run_of(command, store, *argv, **options):
    run, folder = store
    given = {"runs": folder / "runs", "cache": folder / "cache", "figures": folder / "figures", "device": "cpu"}
    flags = [f"--{name}={value}" for name, value in (given | options).items() if value is not None]
    assert command.main([*map(str, argv), *flags]) == 0


def check_folder(folder):
    """Everything is inside, under names that any system can have."""
    assert [path.name for path in folder.parent.iterdir()] == ["inside"]
    for path in (folder / "figures").rglob("*"):
        assert re.fullmatch(r"[\w-][\w.-]*", path.name) and len(path.name.encode()) <= 120


def check_output(capsys):
    out, err = capsys.readouterr()
    assert not err.startswith("error")
    assert printable(out, keep="\n") == out


@pytest.mark.filterwarnings("error:constrained_layout")
def test_sounds_and_pictures_stay_in_their_folder(store, capsys):
    run, folder = store
    clips = folder / "tables" / "clips.csv"
    run_of(saliency, store, "--ckpt", run.path, "--clips", clips, "--listen", "--score=drawn", runs=None, rows=6,
           **{"max-steps": 32, "control-steps": 32})  # fmt: skip
    assert len(list((folder / "figures" / "saliency_audio").iterdir())) == 3 * 2 * 6
    check_folder(folder)
    check_output(capsys)
    with (folder / "figures" / "saliency.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {plain_cell(row["label"]) for row in rows} == {printable(label) for label in LABELS}
    assert not any(cell[:1] in ("=", "@") for row in rows for cell in row.values())


class _Page(html.parser.HTMLParser):
    """The elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_no_name_is_markup_in_the_report(store, capsys):
    run, folder = store
    (folder / "figures").mkdir(exist_ok=True)
    run_of(report, store, "--clips", folder / "tables" / "clips.csv", explore=8, **{"max-steps": 32})
    run_of(tables, store, cache=None, device=None)
    run_of(runs, store, figures=None, cache=None, device=None)
    run_of(runs, store, "--ckpt", run.path, runs=None, figures=None, cache=None, device=None)
    check_folder(folder)
    check_output(capsys)
    text = (folder / "figures" / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == [
        *["application/json"] * 3,
        *[None] * 2,
    ]
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    data = {name: json.loads(re.search(rf'id="{name}">(.*?)</script>', text, re.DOTALL)[1]) for name in DATA}
    assert data["arms-data"]["arms"][0]["classes"] == sorted(LABELS)
    assert set(data["arms-data"]["clips"]) == set(run.clip_ids)
    entries = data["data"] + data["mistakes"]
    assert {entry["clip"] for entry in entries} == set(run.clip_ids)
    assert {entry["label"] for entry in entries} == set(LABELS)


def test_names_in_messages_do_not_control_the_terminal(tmp_path, capsys):
    odd = tmp_path / "a\x1b[31mb\u202e"
    odd.mkdir()
    (odd / "broken.h5").write_bytes(b"")
    (odd / "set").mkdir()
    (odd / "set" / "x.failed").write_text("\x1b]0;title\x07 reason")
    assert runs.main(["--runs", str(odd)]) == 2
    out, err = capsys.readouterr()
    assert "failed: x (\\x1b]0;title\\x07 reason)" in out
    assert err.startswith("error: ") and "a\\x1b[31mb\\u202e/broken.h5 is not a readable run file" in err
    assert printable(out + err, keep="\n") == out + err


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_control_characters_in_a_table_are_named_before_anything_is_trained(tmp_path, column):
    rows = [["a.wav", "dog", "1", "r1"], ["b.wav", "cat", "2", "r2"]]
    rows[1][column] = "b\x1b.wav"
    for row in rows:
        soundfile.write(tmp_path / row[0], np.zeros(80), 8000)
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "fold", "group"), *rows])
    with pytest.raises(DataError, match=r"label, fold or group of b(\\x1b)?\.wav has control"):
        open_dataset(clips=tmp_path / "clips.csv")


@pytest.mark.parametrize(("name", "expected"), [("CON.csv", "_con-"), (f"{'y' * 240}.csv", "y" * 100), ("..csv", "")])
def test_names_of_data_sets_are_names_of_folders(tmp_path, name, expected):
    rows = [("path", "label", "fold"), ("a.wav", "dog", "1"), ("b.wav", "cat", "2")]
    for path, *_ in rows[1:]:
        soundfile.write(tmp_path / path, np.zeros(80), 8000)
    with (tmp_path / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    dataset = open_dataset(clips=tmp_path / name)
    assert dataset.name.startswith(expected) and len(dataset.name) <= 150
