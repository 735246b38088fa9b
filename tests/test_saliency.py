"""What networks look at: clips, scores, tables, figures, sounds and the command."""

from __future__ import annotations

import csv
import dataclasses
import re

import numpy as np
import pytest
import scipy
import soundfile
import torch

from transferlens import saliency
from transferlens.data.catalogue import DataOptions
from transferlens.explain import explanations, scores
from transferlens.measures import stats
from transferlens.models import build
from transferlens.models.plan import TransferPlan
from transferlens.store.run import load_run
from transferlens.util.errors import ParameterError

PLANS = {"tuned": TransferPlan(), "scratch": TransferPlan.scratch()}


def trained(folder, weights_file, plans=PLANS, **data):
    from transferlens.training.sweep import Study

    made = Study(
        backbone=("test_resnet",),
        weights=str(weights_file),
        epochs=1,
        batch_size=8,
        device="cpu",
        folds=("1",),
        runs=folder / "runs",
        cache=folder / "cache",
        **data,
    )
    return {name: made.runs(plan)[0] for name, plan in plans.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights_file):
    """Finished runs of two arms, their clips and their cache."""
    from conftest import write_clips

    folder = tmp_path_factory.mktemp("saliency")
    clips = write_clips(folder / "tones")
    return trained(folder, weights_file, clips=clips, width=32), clips, folder


def command(store, *names, audio=True, **options):
    runs, clips, folder = store
    given = {"cache": folder / "cache", "device": "cpu", "max-steps": 32, "rows": 2} | options
    data = ["--clips", str(clips)] if audio else []
    return ["--ckpt", *(str(runs[name].path) for name in names), *data, *(f"--{k}={v}" for k, v in given.items())]


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_command_draws_scores_and_writes_sounds(store, tmp_path, capsys):
    argv = [*command(store, "tuned", "scratch", figures=tmp_path), "--listen"]
    assert saliency.main(argv) == 0
    names = [f"saliency{part}.{suffix}" for part in ("", "_summary", "_classes") for suffix in ("csv", "png", "pdf")]
    assert {path.name for path in tmp_path.iterdir()} == {
        *names,
        "saliency_cascade.csv",
        "saliency_changes.csv",
        "saliency_audio",
    }
    table = read(tmp_path / "saliency.csv")
    run = store[0]["tuned"]
    networks = ["pretrained", "from scratch", "pretrained, before training"]
    assert [(row["network"], row["clip"]) for row in table] == [(n, c) for n in networks for c in run.clip_ids]
    for row in table:
        assert -1 <= float(row["energy_correlation"]) <= 1
        assert 0 <= float(row["insertion"]) <= 1
        assert float(row["completeness_error"]) >= 0
        assert row["target"] == row["label"]
    summary = {(r["network"], r["score"]): r for r in read(tmp_path / "saliency_summary.csv")}
    mine = [float(row["insertion"]) for row in table if row["network"] == "pretrained"]
    assert float(summary["pretrained", "insertion"]["mean"]) == pytest.approx(np.mean(mine))
    assert int(summary["pretrained", "insertion"]["n"]) == len(run.clip_ids)
    cascade = read(tmp_path / "saliency_cascade.csv")
    stages = [*dict.fromkeys(row["randomised_through"] for row in cascade)]
    assert stages == ["head", *(f"block {block}" for block in range(4, -1, -1))]
    sounds = sorted((tmp_path / "saliency_audio").iterdir())
    assert len(sounds) == 3 * 3 * len({row["clip"] for row in cascade})
    clip, ignored, used = (soundfile.read(path)[0] for path in sounds[:3])
    np.testing.assert_allclose(used + ignored, clip, atol=1e-4)


def test_clips_targets_and_methods_by_name(store, tmp_path):
    run = store[0]["tuned"]
    argv = command(store, "tuned", figures=tmp_path, clip=run.clip_ids[2], target=run.label_names[1], score="drawn")
    assert saliency.main([*argv, "--method", "gradcam", "--block", "2", "--baseline", "mean"]) == 0
    table = read(tmp_path / "saliency.csv")
    assert {row["clip"] for row in table} == {run.clip_ids[2]}
    assert {row["target"] for row in table} == {run.label_names[1]}
    assert {row["completeness_error"] for row in table} == {"nan"}


def test_the_summary_warns_of_attributions_that_are_not_complete(store):
    runs, clips, folder = store
    options = {"clips": str(clips), "cache": folder / "cache", "rows": 1, "score": "drawn", "control_steps": 32}
    result = saliency.saliency(runs["tuned"], **options, max_steps=32)
    for error, movement, missed in (
        (0.005, 0.05, ""),
        (0.2, 0.05, "\ncompleteness error above 1 % (pretrained: 1 clip, before training: 1 clip): increase max_steps"),
        (0.005, 0.2, "\nmovement of the map above 10 % (pretrained: 1 clip, before training: 1 clip): increase"),
        (0.2, 0.2, "1 clip); movement of the map above 10 % (pretrained: 1 clip, "),
    ):
        values = {"completeness_error": error, "map_movement": movement}
        text = dataclasses.replace(
            result, clip_rows=tuple(dataclasses.replace(row, **values) for row in result.clip_rows)
        ).summary()
        assert missed in text
        assert bool(missed) == ("above" in text)
    assert "none" in text and "nan" not in text  # the interval of one clip


def test_the_control_is_the_run_before_its_training(store):
    run = store[0]["tuned"]
    *_, (name, origin, network) = explanations.networks([run])
    assert name == "before training"
    assert origin is run
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in run.initial_state().items())


def test_baselines(store):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    held_out = explanations.heldout_clips(run, DataOptions(clips=clips), folder / "cache")
    silence = explanations.baseline_of(run, held_out, "silence")
    np.testing.assert_allclose(held_out.silent, np.log(1e-6), atol=1e-4)
    np.testing.assert_allclose(silence, run.inputs(held_out.silent[None])[0])
    assert not explanations.baseline_of(run, held_out, "zeros").any()
    for clips in (held_out, held_out.pick([1]), held_out.pick([1, 2]).pick([0])):
        mean = explanations.baseline_of(run, clips, "mean")
        np.testing.assert_allclose(mean, run.inputs(held_out.S).mean(0), atol=1e-4)


@pytest.mark.parametrize("method", ["ig", "gradcam"])
def test_randomised_networks_are_asked_the_same(store, method, monkeypatch):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    held_out = explanations.heldout_clips(run, DataOptions(clips=clips), folder / "cache").pick([0, 3])
    options = explanations.ExplanationOptions(target="predicted", method=method, baseline="mean", max_steps=32)
    found = explanations.explain("it", run, run.model(), held_out, options, torch.device("cpu"))
    asked = []
    attribute = explanations.attribute
    monkeypatch.setattr(
        explanations, "attribute", lambda net, x, **how: asked.append((net, x, how)) or attribute(net, x, **how)
    )
    stages = list(explanations.randomised(found, options))
    assert [stage for stage, _ in stages] == ["head", *(f"block {block}" for block in range(4, -1, -1))]
    assert all(cells.shape == found.maps.shape for _, cells in stages)
    for _, x, how in asked:
        assert x is found.x
        assert how["baseline"] is found.baseline
        assert how["targets"] == found.predicted.tolist()


def how(**options):
    return explanations.ExplanationOptions(**options)


def test_references_are_training_clips_of_other_classes_and_recorded(store, tmp_path):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    options = {"clips": str(clips), "cache": folder / "cache", "rows": 2, "score": "drawn", "references": 5}
    result = saliency.saliency(run, method="deepliftshap", **options)
    dataset = DataOptions(clips=clips).open()
    label_of = {clip.id: clip.label for clip in dataset.clips}
    for row in result.rows:
        ids = row["references"].split("; ")
        assert len(set(ids)) == 5
        assert not {*ids} & {*run.clip_ids}
        assert row["target"] not in {label_of[id] for id in ids}
        assert row["baseline"] == ""
        assert row["map"] == "signed, smoothed over 4 bands x 4 frames"
    assert result.how.title == "DeepLIFT-SHAP from 5 training clips"
    result.write(tmp_path)
    assert [row["references"] for row in read(tmp_path / "saliency.csv")] == [row["references"] for row in result.rows]


@pytest.mark.parametrize("method", ["expected", "deepliftshap", "gradientshap"])
def test_the_choice_of_references_repeats_with_its_seed(store, method):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    data = DataOptions(clips=clips), folder / "cache"
    pools = [explanations.heldout_clips(run, *data, how(method=method, seed=seed)).references for seed in (0, 0, 1)]
    assert pools[0].ids == pools[1].ids != pools[2].ids
    held_out = explanations.heldout_clips(run, *data, how(method=method, references=2)).pick([0, 5])
    options = how(method=method, references=2, max_steps=32)
    found = explanations.explain("it", run, run.model(), held_out, options, torch.device("cpu"))
    assert len(found.references_of(1)) == 2
    assert (found.attribution.steps >= 2).all()


def test_references_without_labels_are_any_training_clips(store):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    pool = explanations.heldout_clips(run, DataOptions(), folder / "cache", how(method="expected")).references
    assert {*pool.labels} == {""}
    assert len(pool.of("a")) == 6
    assert not {*pool.ids} & {*run.clip_ids}
    named = explanations.heldout_clips(run, DataOptions(clips=clips), folder / "cache", how(method="ig"))
    assert named.references is None


def test_one_class_more_than_the_target_s_gives_all_references():
    pool = explanations.References(tuple("abcdef"), tuple("xyxyxy"), np.zeros((6, 1)), 3)
    assert pool.of("x") == [1, 3, 5]
    assert pool.of("y") == [0, 2, 4]
    assert pool.of("z") == [0, 1, 2]
    assert explanations.References(("a", "b"), ("x", "x"), np.zeros((2, 1)), 2).of("x") == [0, 1]


def test_the_map_is_one_for_picture_scores_sounds_and_report(store, monkeypatch):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    held_out = explanations.heldout_clips(run, DataOptions(clips=clips), folder / "cache").pick([0])
    options = how(method="gradcam", smooth=(0.1, 3), sign="positive")
    found = explanations.explain("it", run, run.model(), held_out, options, torch.device("cpu"))
    frames = 0.1 * 32 / held_out.seconds
    assert found.shown.smooth == pytest.approx((3, frames))
    plain = np.maximum(found.attribution.values.sum(1), 0)
    np.testing.assert_allclose(found.maps[0].sum(), plain.sum(), rtol=1e-4)
    by_hand = scipy.ndimage.gaussian_filter(plain[0], (3, frames))
    np.testing.assert_allclose(found.maps[0], by_hand, atol=1e-6)
    np.testing.assert_array_equal(found.pick([0]).maps, found.maps)
    assert scores.scores(found, 0)["energy_correlation"] == pytest.approx(
        scores.claims(by_hand, held_out.energy[0])["energy_correlation"]
    )


def test_sizes_are_physical(store):
    run, clips, folder = store[0]["tuned"], store[1], store[2]
    named = explanations.heldout_clips(run, DataOptions(clips=clips), folder / "cache")
    cached = explanations.heldout_clips(run, DataOptions(), folder / "cache")
    assert (named.seconds, cached.seconds) == (DataOptions(clips=clips).open().seconds, None)
    patch = how(method="lime", patch=(named.seconds / 4, 12))
    assert patch.patch_cells(named) == (12, 8)
    assert how(method="lime").patch_cells(cached) == (16, 16)
    assert how(smooth=(0, 2)).shown(cached).smooth == (2, 0)
    assert how().shown(cached).smooth == (4, 4)
    with pytest.raises(ParameterError, match="patch is in seconds, and the length of the clips is not known: name"):
        patch.patch_cells(cached)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": (-1, 2)}, "smooth=(-1.0, 2.0) must be two numbers of at least 0, seconds and mel bands"),
        ({"smooth": 1}, "smooth=1 must be 2 values"),
        ({"method": "lime", "patch": (0, 2)}, "patch=(0.0, 2.0) must be two numbers greater than 0, seconds and mel"),
        (
            {"patch": (1, 2)},
            "patch=(1.0, 2.0) has no effect on method='ig', but on occlusion, rise, lime, kernelshap, ",
        ),
        ({"samples": 9}, "samples=9 has no effect on method='ig', but on gradientshap, "),
        ({"references": 0}, "references=0 must be 1 to 1000"),
        ({"sign": "negative"}, "sign='negative' must be one of signed, positive, absolute"),
        ({"method": "expected", "references": 50}, "max_steps=256 must be at least 300 for references=50: 6 gradients"),
        ({"map_tolerance": 2}, "map_tolerance=2.0 must be between 0 and 1"),
    ],
)
def test_bad_explanations(options, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        how(**options)


def test_randomised_networks_are_no_run_s_own_start(store):
    run, clips, folder = store[0]["scratch"], store[1], store[2]
    held_out = explanations.heldout_clips(run, DataOptions(clips=clips), folder / "cache").pick([0])
    options = explanations.ExplanationOptions(max_steps=32)
    for seed in (0, 1):
        start = build.skeleton("test_resnet", n_classes=len(run.label_names), plan=run.config.plan, seed=seed)
        config = dataclasses.replace(run.config, seed=seed)
        mine = dataclasses.replace(run, config=config)
        found = explanations.explain("it", mine, start, held_out, options, torch.device("cpu"))
        *_, (_, last) = explanations.randomised(found, options)
        assert not np.allclose(last, found.maps)


def test_sounds_of_clips_of_one_name_are_apart(tmp_path):
    used: set[str] = set()
    names = ["a/1.wav-net", "b/1.wav-net", "a 1.wav-net", "A/1.wav-net"]
    assert [saliency._stem(name, used) for name in names] == [
        "a_1.wav-net",
        "b_1.wav-net",
        "a_1.wav-net-2",
        "A_1.wav-net-3",
    ]


def test_shares_of_clips_have_the_interval_of_a_share(tmp_path):
    row = scores.Row(
        *["x"] * 3,
        "",
        *["x"] * 3,
        0.5,
        "x",
        "ig",
        "silence",
        "",
        "signed",
        8,
        1.0,
        0.0,
        0.0,
        {"points_into_event": 1.0},
    )
    (found,) = scores.summary([dataclasses.replace(row, subset="all")] * 20)
    expected = stats.share_interval([1] * 20)
    assert (found.mean, found.low, found.high) == (1.0, expected.low, expected.high)
    assert found.low < 0.9


def test_clips_chosen_are_wrong_and_right_ones_of_several_classes(store):
    run = store[0]["tuned"]
    right = run.logits.argmax(1) == run.labels
    chosen = explanations.choose(run, 4)
    assert len(chosen) == len(set(chosen)) <= 4
    assert sum(~right[chosen]) == min(2, sum(~right))
    assert not right[chosen[: sum(~right[chosen])]].any()


def test_features_are_computed_again_at_the_rate_of_the_run(store, weights_file, tmp_path):
    run = trained(tmp_path, weights_file, clips=store[1], width=32, sr=4000)["tuned"]
    folders = tmp_path / "cache", tmp_path / "empty"
    cached, computed = (explanations.heldout_clips(run, DataOptions(clips=store[1]), folder).S for folder in folders)
    np.testing.assert_array_equal(computed, cached)


def test_without_audio_there_is_still_a_picture(store, tmp_path):
    argv = command(store, "tuned", audio=False, figures=tmp_path, score="drawn", rows=1)
    assert saliency.main(argv) == 0
    assert (tmp_path / "saliency.png").exists()


@pytest.mark.parametrize(
    ("options", "flags", "message"),
    [
        ({"clip": "nowhere.wav"}, [], "clip=nowhere.wav must be among the"),
        ({"target": "unicorn"}, [], "target='unicorn' must be true, predicted, or a label of the run: "),
        ({"tolerance": 0}, [], "tolerance=0.0 must be between 0 and 1"),
        ({"max-steps": 0}, [], "max_steps=0 must be at least 32: fewer gradients leave large errors in the map"),
        ({"rows": 0}, [], "rows=0 must be at least 1"),
        ({"block": 2}, [], "block=(2,) has no effect on method='ig', but on gradcam, layercam, guided-gradcam only"),
        ({"block": 7}, ["--method", "gradcam"], "block=7 must be from 0 to 4"),
        ({"audio": False}, ["--listen"], "listen needs the audio: "),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(store, tmp_path, options, flags, message, capsys):
    assert saliency.main([*command(store, "tuned", figures=tmp_path / "figures", **options), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "figures").exists()


def test_no_run_at_all(capsys):
    assert saliency.main(["--ckpt"]) == 2
    assert "Error parsing --ckpt: it needs one value or more" in capsys.readouterr().err


def test_the_built_in_set_has_a_known_answer(tmp_path, weights_file):
    run = trained(tmp_path, weights_file, {"tuned": TransferPlan()}, dataset="synth", width=64)["tuned"]
    result = saliency.saliency(run, clips=16, cache=tmp_path / "cache", device="cpu", max_steps=32, score="drawn")
    assert {row.subset for row in result.means} == {"all", "with distractor", "without distractor"}
    by = {(row.network, row.subset, row.score): row.mean for row in result.means}
    for subset in ("with distractor", "without distractor"):
        for name in ("event_share", "points_into_event", "event_share_energy"):
            assert 0 <= by["pretrained", subset, name] <= 1
    # The distractor is louder than the event: energy alone points elsewhere.
    energy = [by["pretrained", f"{kind} distractor", "points_into_event_energy"] for kind in ("with", "without")]
    assert energy[0] < 0.5 < energy[1]
    assert len(load_run(run.path).clip_ids) == 80
