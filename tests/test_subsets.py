"""Balanced subsets of the training clips: nested, with whole recordings, the same for all arms and seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from transferlens.data import subsets
from transferlens.data.catalogue import open_dataset
from transferlens.data.clips import Clip
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 23, 32, 50)


def random_clips(seed, *, mixed=False):
    """Clips of three classes in recordings of one to seven, of one class each, or of two if they are mixed."""
    rng, clips = np.random.default_rng(seed), []
    for label in "abc":
        for recording in range(30):
            for take in range(rng.integers(1, 8)):
                own = rng.choice(["a", label]) if mixed else label
                group = f"{label}{recording}"
                clips.append(Clip(f"{group}-{take}", str(own), "1", None, group))
    return clips


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_they_lie_in_each_other_and_have_whole_recordings(seed, mixed):
    clips, before = random_clips(seed, mixed=mixed), set()
    sizes = Counter(clip.group for clip in clips)
    for n in NUMBERS:
        rows = subsets.chosen(clips, n, key=["d", "1"])
        assert before <= {*rows}
        before = {*rows}
        taken = Counter(clips[i].group for i in rows)
        assert all(sizes[group] == count for group, count in taken.items())
        assert {clips[i].label for i in rows} == {*"abc"}


@pytest.mark.parametrize("n", NUMBERS)
def test_they_are_balanced_as_far_as_whole_recordings_allow(n):
    """No class has more clips than asked for, as each has a recording of one clip, and none lacks a recording of them.

    At 1, 2, 4, ... clips, no recording that is left would fit.
    """
    for seed in range(20):
        clips = random_clips(seed)
        sizes = Counter(clip.group for clip in clips)
        rows = subsets.chosen(clips, n, key=["d", "1"])
        counts, taken = Counter(clips[i].label for i in rows), {clips[i].group for i in rows}
        for label in "abc":
            left = [size for group, size in sizes.items() if group[0] == label and group not in taken]
            smallest = min(size for group, size in sizes.items() if group[0] == label)
            assert smallest > n or counts[label] <= n
            assert n not in (1, 2, 4, 8, 16, 32) or counts[label] + min(left) > n


def test_a_recording_that_is_too_large_is_taken_only_if_its_class_has_no_smaller_one():
    large = [Clip(f"L{i}", "a", "1", None, "large") for i in range(5)]
    small = [Clip(f"S{i}", "a", "1", None, "small") for i in range(3)]
    other = [Clip(f"O{i}", "b", "1", None, None) for i in range(8)]
    one = subsets.chosen([*large, *small, *other], 1, key=["d", "1"])
    assert [[*large, *small, *other][i].id for i in one][:3] == ["S0", "S1", "S2"]
    assert len(one) == 4
    assert len(subsets.chosen([*large, *other], 1, key=["d", "1"])) == 5 + 1


def test_they_follow_from_the_data_set_and_the_fold():
    clips = [Clip(str(i), "ab"[i % 2], "1", None) for i in range(200)]
    drawn = {key: tuple(subsets.chosen(clips, 4, key=key)) for key in (("d", "1"), ("d", "2"), ("e", "1"))}
    assert len({*drawn.values()}) == 3
    order = np.random.default_rng(0).permutation(200)
    shuffled = subsets.chosen([clips[i] for i in order], 4, key=("d", "1"))
    assert sorted(order[i] for i in shuffled) == [*drawn["d", "1"]]


def test_of_a_data_set():
    dataset = open_dataset()
    whole, held_out = dataset.split("1")
    rows, others = dataset.split("1", "", 4)
    assert {*rows} < {*whole}
    assert set(Counter(dataset.clips[i].label for i in rows).values()) == {4}
    np.testing.assert_array_equal(others, held_out)
    np.testing.assert_array_equal(dataset.split("1", "", 32)[0], whole)
    assert not {dataset.clips[i].fold for i in dataset.split("1", "2", 4)[0]} & {"1", "2"}


@pytest.mark.parametrize("n", [0, 33])
def test_more_clips_than_a_class_has(n):
    with pytest.raises(
        ParameterError, match=rf"clips_per_class={n} must be 1 to 32, the clips of synth's class band_n"
    ):
        open_dataset().split("1", "", n)


# ------------------------------------------------------------------------------------------------- runs


def test_all_arms_and_seeds_are_trained_on_the_same(study):
    made = study(clips_per_class=2, seeds=range(3))
    points = [*made.points(TransferPlan()), *made.points(TransferPlan.scratch())]
    for fold in made.folds:
        rows = {tuple(made.dataset.split(*point.split)[0]) for point in points if point.fold == fold}
        assert len(rows) == 1


def test_all_clips_are_the_run_of_today(study):
    today = study().points(TransferPlan())
    assert study(clips_per_class=8).points(TransferPlan()) == today
    fewer = study(clips_per_class=7).points(TransferPlan())
    assert not {point.id for point in fewer} & {point.id for point in today}
    assert "clips_per_class 7" in fewer[0].setting
    with pytest.raises(
        ParameterError, match=r"clips_per_class=9 must be 1 to 8, the clips of tones\d+'s class high that ca"
    ):
        study(clips_per_class=9).points(TransferPlan())


def test_a_run_is_trained_and_normalised_on_its_subset_alone(study):
    made = study(clips_per_class=2, folds=("2",), epochs=1)
    (run,) = made.runs(TransferPlan())
    rows = made.dataset.split("2", "", 2)[0]
    assert run.n_train == len(rows) == 4
    x = made.cache.load()[rows].astype(np.float64)
    np.testing.assert_allclose(run.normalisation, [x.mean((0, 2, 3)), x.std((0, 2, 3))], rtol=1e-6)
    assert made.points(TransferPlan()) == [run.config]
    assert len(run.recordings) == 4  # those that it has heard, by the content of their files
