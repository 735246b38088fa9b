"""The built-in data set: its clips are what their parameters say, and the same on every machine."""

import csv
import dataclasses
import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
import soundfile

from transferlens import synth
from transferlens.data import synthetic
from transferlens.data.manifest import manifest
from transferlens.features import event_mask, logmel
from transferlens.util.errors import ParameterError

ROW = manifest()["synth"]
# Sha256 over the 16-bit samples of all mixtures, little-endian, in the order of the ids. If it changes, the data set
# has changed, and old results on it can no longer be compared.
PINNED = "6783200dbe9822d015b9a5a7f05c803d74575491f0f12a884bc3569a831bea13"
SPECS = synthetic.specs()


@pytest.fixture(scope="module")
def stems():
    """Stems of every clip, by id."""
    return {spec.id: synthetic.render(spec.id) for spec in SPECS}


def place(spec, kind):
    """Samples that the event or the distractor of a clip may fill."""
    prefix = "" if kind == "event" else "distractor_"
    n = round(ROW.sr * ROW.seconds)
    start = round(getattr(spec, f"{prefix}onset") * n)
    return slice(start, start + round(getattr(spec, f"{prefix}length") * n))


def power(samples):
    return float(np.mean(samples.astype(float) ** 2))


def test_mixtures_are_pinned(stems):
    every = hashlib.sha256()
    for spec in SPECS:
        every.update(stems[spec.id].mixture.astype("<i2").tobytes())
    assert every.hexdigest() == PINNED


def test_a_clip_does_not_depend_on_those_made_before():
    first = synthetic.render(SPECS[7].id).mixture.copy()
    synthetic.render.cache_clear()
    np.random.seed(3)  # noqa: NPY002
    np.testing.assert_array_equal(synthetic.render(SPECS[7].id).mixture, first)


def test_size_agrees_with_the_manifest(stems):
    assert len({spec.label for spec in SPECS}) == ROW.classes
    assert {spec.fold for spec in SPECS} == {str(1 + i) for i in range(ROW.folds)}
    assert {each.y.shape for each in stems.values()} == {(round(ROW.sr * ROW.seconds),)}
    assert set(Counter((spec.label, spec.fold) for spec in SPECS).values()) == {8}


def test_ids_are_unique_and_sorted():
    assert list(synthetic.clip_ids()) == sorted(set(synthetic.clip_ids()))


def test_stems_sum_to_the_mixture_without_clipping(stems):
    for each in stems.values():
        total = each.event.astype(int) + each.background + each.distractor
        np.testing.assert_array_equal(each.mixture, total)
        assert np.abs(total).max() < 32000
        np.testing.assert_array_equal(each.y * 32768, total)
        assert each.y.dtype == np.float32


def test_stems_cannot_be_changed(stems):
    with pytest.raises(ValueError, match="read-only"):
        stems[SPECS[0].id].event[0] = 1


def test_half_of_every_class_and_fold_holds_a_distractor(stems):
    count = Counter((s.label, s.fold) for s in SPECS if s.has_distractor)
    assert set(count.values()) == {4}
    assert len(count) == ROW.classes * ROW.folds
    assert all(stems[s.id].distractor.any() == s.has_distractor for s in SPECS)


def test_distractor_tells_nothing_of_class_or_fold():
    shapes = {s.distractor for s in SPECS} - {"none"}
    for shape in shapes:
        count = Counter((s.label, s.fold) for s in SPECS if s.distractor == shape)
        assert count == {(s.label, s.fold): 1 for s in SPECS}
    assert not shapes & {s.label for s in SPECS}


def test_levels_are_those_specified(stems):
    for spec in SPECS:
        each = stems[spec.id]
        event = power(each.event[place(spec, "event")])
        assert 10 * np.log10(event / power(each.background)) == pytest.approx(spec.snr_db, abs=0.1)
        if spec.has_distractor:
            louder = power(each.distractor[place(spec, "distractor")]) / event
            assert 10 * np.log10(louder) == pytest.approx(spec.distractor_db, abs=0.1)


def test_distractor_is_louder_than_the_event_and_apart_from_it(stems):
    for spec in (spec for spec in SPECS if spec.has_distractor):
        each = stems[spec.id]
        assert power(each.distractor) > power(each.event)
        assert not (each.event.astype(bool) & each.distractor.astype(bool)).any()


def test_event_is_only_where_it_is_said_to_be(stems):
    for spec in SPECS:
        event = stems[spec.id].event.copy()
        event[place(spec, "event")] = 0
        assert not event.any()


def test_no_group_is_in_two_folds_and_no_group_shares_a_register():
    folds, centres = defaultdict(set), defaultdict(list)
    for spec in SPECS:
        folds[spec.group].add(spec.fold)
        centres[spec.label, spec.group].append(spec.centre_hz)
    assert {len(each) for each in folds.values()} == {1}
    for label in {spec.label for spec in SPECS}:
        spans = sorted((min(c), max(c)) for (name, _), c in centres.items() if name == label)
        assert all(high < low for (_, high), (low, _) in zip(spans, spans[1:], strict=False))


def test_registers_of_the_classes_overlap():
    centres = defaultdict(list)
    for spec in SPECS:
        centres[spec.label].append(np.log2(spec.centre_hz))
    means = [np.mean(each) for each in centres.values()]
    assert np.ptp(means) < 0.1


SOME = [spec for spec in SPECS if spec.group.endswith(("f1-g0", "f3-g2"))]


def mel_power(samples):
    y = samples.astype(np.float32) / 32768
    return np.exp(logmel.log_mel(y, sr=ROW.sr, width=ROW.width)) - logmel.FLOOR


@pytest.mark.parametrize("label", sorted({spec.label for spec in SPECS}))
def test_mask_holds_the_event_and_nothing_else(label, stems):
    shares = []
    for spec in (spec for spec in SOME if spec.label == label):
        mask, event = event_mask.event_mask(spec.id), mel_power(stems[spec.id].event)
        rest = mel_power(stems[spec.id].background + stems[spec.id].distractor)
        shares.append((event * mask).sum(axis=(1, 2)) / event.sum(axis=(1, 2)))
        assert (rest * mask).sum() < 0.2 * (event * mask).sum()
        # Half a window and one frame of the widest channel may be touched on either side.
        reach = (0.05 + 2 * 0.05) / ROW.seconds
        columns = np.flatnonzero(mask.any(axis=(0, 1))) / ROW.width
        assert columns.min() > spec.onset - reach
        assert columns.max() < spec.onset + spec.length + reach
    assert np.mean(shares) > 0.9


def test_mask_of_a_pure_event_is_the_whole_event(monkeypatch, stems):
    event = stems[SPECS[0].id].event
    alone = synthetic.Stems(event, np.zeros_like(event), np.zeros_like(event))
    monkeypatch.setattr(event_mask.known_answers, "render", lambda id: alone)
    power = mel_power(event)
    loud = power > power.max(axis=(1, 2), keepdims=True) * 10**-3.9
    assert event_mask.event_mask(SPECS[0].id)[loud].all()


def test_mask_follows_the_features():
    id = SPECS[0].id
    assert event_mask.event_mask(id).shape == (3, 128, ROW.width)
    small = event_mask.event_mask(id, sr=16000, n_mels=64, width=40)
    assert small.shape == (3, 64, 40)
    # The event lies below 4 kHz, and takes up more of the axis where that ends at 8 kHz than at 11 kHz.
    top = [np.flatnonzero(mask.any(axis=(0, 2))).max() / mask.shape[1] for mask in (event_mask.event_mask(id), small)]
    assert top[1] > top[0]


def test_digest_tells_clips_and_code_apart(monkeypatch):
    digests = {synthetic.digest(id) for id in synthetic.clip_ids()}
    assert len(digests) == len(SPECS)
    monkeypatch.setattr(synthetic, "RECIPE", synthetic.RECIPE + 1)
    synthetic.digest.cache_clear()
    assert synthetic.digest(SPECS[0].id) not in digests
    synthetic.digest.cache_clear()


def test_unknown_id_is_refused():
    with pytest.raises(ParameterError, match="'dog-1' is not a clip of the synth"):
        synthetic.render("dog-1")


def test_export_is_what_was_rendered(tmp_path):
    chosen = SPECS[::80]
    assert synth.export(tmp_path / "out", chosen) == len(chosen)
    with (tmp_path / "out" / "clips.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [spec.label for spec in chosen]
    assert [row["group"] for row in rows] == [spec.group for spec in chosen]
    for row, spec in zip(rows, chosen, strict=True):
        samples, sr = soundfile.read(tmp_path / "out" / row["path"], dtype="int16")
        np.testing.assert_array_equal(samples, synthetic.render(spec.id).mixture)
        assert sr == ROW.sr


def test_exported_masks_are_the_event_masks(tmp_path):
    h5py = pytest.importorskip("h5py")
    synth.export(tmp_path, SPECS[:2])
    with h5py.File(tmp_path / "masks.h5") as file:
        assert list(file["clips"].asstr()) == [f"{spec.id}.wav" for spec in SPECS[:2]]
        np.testing.assert_array_equal(file["masks"][1], event_mask.event_mask(SPECS[1].id))


def test_export_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert synth.main(["--out", str(tmp_path)]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_specs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPECS[0].label = "dog"
