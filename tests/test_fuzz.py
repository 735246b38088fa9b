"""Files from others are data: whatever they contain, readers return it or raise the project's own errors.

``TRANSFERLENS_FUZZ=10000 python -m pytest tests/test_fuzz.py`` tries that many cases per reader; a few by default.
``python tests/fuzz_stored_files.py 100000`` does so for run files and feature caches alone.
"""

from __future__ import annotations

import io
import os
import shutil
import time

import fuzz_stored_files
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transferlens import study
from transferlens.data.audit import unreadable
from transferlens.data.catalogue import DataOptions
from transferlens.models import weights
from transferlens.models.plan import TransferPlan
from transferlens.store.listing import progress, scan, summarise
from transferlens.store.run import load_run
from transferlens.util.errors import TransferLensError

CASES = int(os.environ.get("TRANSFERLENS_FUZZ", "40"))
# Seconds that a case may take, on a busy machine.
MOST = 20

fuzz = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def changed(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, cut short, or with bytes inserted."""
    places = st.integers(0, len(content) - 1)

    def flip(edits):
        made = bytearray(content)
        for place, value in edits:
            made[place] ^= value
        return bytes(made)

    flipped = st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=8).map(flip)
    cut = places.map(lambda n: content[:n])
    put = st.tuples(places, st.binary(max_size=64)).map(lambda p: content[: p[0]] + p[1] + content[p[0] :])
    return st.one_of(flipped, cut, put)


def own_errors_only(*readers):
    """Each reader returns something or raises an error of the project, and does so soon."""
    for reader in readers:
        started = time.monotonic()
        try:
            reader()
        except TransferLensError as error:
            assert str(error).strip()
        assert time.monotonic() - started < MOST


CELLS = st.one_of(
    st.sampled_from(
        ["a.wav", "low-1-0.wav", "../a.wav", "/etc/passwd", "", " ", "1", "train", "low", "\0", "é", '"', "\n"]
    ),
    st.text(max_size=12),
)


@fuzz
@given(rows=st.lists(st.lists(CELLS, max_size=5), max_size=6), joined=st.sampled_from([",", ";", "\t", '","']))
def test_clip_lists_of_odd_cells(clips, rows, joined):
    path = clips.with_name("odd.csv")
    head = "path,label,fold\n"
    path.write_text(head + "\n".join(joined.join(row) for row in rows), encoding="utf-8", newline="")
    own_errors_only(lambda: unreadable(DataOptions(clips=path).open()))


@fuzz
@given(data=st.data())
def test_clip_lists_of_odd_bytes(clips, data):
    path = clips.with_name("odd.csv")
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=200), changed(clips.read_bytes()))))
    own_errors_only(lambda: DataOptions(clips=path).open())


def sounds() -> dict[str, bytes]:
    y = np.random.default_rng(0).normal(size=4000) * 0.1
    made = {}
    for kind in ("WAV", "FLAC", "OGG", "AIFF", "AU"):
        file = io.BytesIO()
        soundfile.write(file, y, 8000, format=kind)
        made[kind.lower()] = file.getvalue()
    return made


SOUNDS = sounds()


@fuzz
@given(data=st.data(), kind=st.sampled_from(sorted(SOUNDS)))
def test_sounds(tmp_path, data, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data.draw(changed(SOUNDS[kind])))
    (tmp_path / "clips.csv").write_text(f"path,label,fold\n{path.name},a,1\n")

    def read():
        dataset = DataOptions(clips=tmp_path / "clips.csv", sr=8000).open()
        y = dataset.load(dataset.clips[0])
        assert np.isfinite(y).all()

    own_errors_only(read)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, clips, weights_file):
    """A small study and its one run."""
    from transferlens.training.sweep import Study

    folder = tmp_path_factory.mktemp("fuzz")
    made = Study(
        clips, backbone="test_resnet", weights=weights_file, width=32, epochs=1, batch_size=8,
        folds=1, device="cpu", runs=folder / "runs", cache=folder / "cache",
    )  # fmt: skip
    (run,) = made.runs(TransferPlan.truncate(1))
    return made, run


@fuzz
@given(data=st.data())
def test_run_files(small_run, tmp_path, data):
    _, run = small_run
    store = tmp_path / "store"
    path = store / "set" / run.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.draw(changed(run.path.read_bytes())))
    own_errors_only(*readers(store, path))


def readers(store, path):
    """All functions that open run files."""

    def whole():
        found = load_run(path)
        found.model()
        found.initial_state()

    return whole, lambda: summarise(path), lambda: scan(store), lambda: progress(store)


def test_stored_files_damaged_at_random():
    """Run files, checkpoints and feature caches, sealed again or not, also where HDF5 might crash or never return."""
    assert fuzz_stored_files.fuzz(CASES // 2) == []


@fuzz
@given(data=st.data())
def test_weights(weights_file, tmp_path, data):
    path = tmp_path / f"odd{weights_file.suffix}"
    path.write_bytes(data.draw(changed(weights_file.read_bytes())))
    own_errors_only(lambda: weights.imagenet_state("test_resnet", str(path)))


@fuzz
@given(data=st.data())
def test_study_files(tmp_path, data):
    text = b'[all]\nfolds = ["1"]\n[[run]]\ncommand = "train"\nepochs = 1\n'
    path = tmp_path / "study.toml"
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=60), changed(text))))
    own_errors_only(lambda: study.read(path))


def test_a_run_file_cut_at_every_4_kib_is_no_run(small_run, tmp_path):
    """A power cut in the middle of a write: no beginning of a run file is accepted as one."""
    _, run = small_run
    content, path = run.path.read_bytes(), tmp_path / "cut.h5"
    for n in range(0, len(content), 4096):
        path.write_bytes(content[:n])
        with pytest.raises(TransferLensError):
            load_run(path)
        path.write_bytes(content[:n] + bytes(len(content) - n))  # or its blocks were never written
        if content[n:].strip(b"\0"):
            own_errors_only(lambda: load_run(path).model())
    shutil.copy(run.path, path)
    assert load_run(path).config == run.config
