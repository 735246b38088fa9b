"""What networks use of each class: aligned means and profiles of maps whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from transferlens.explain import class_maps

HZ = np.array([100.0, 200.0, 400.0, 800.0])


def explained(maps, labels, name="trained"):
    n = len(maps)
    clips = SimpleNamespace(ids=[str(i) for i in range(n)], labels=labels, groups=[""] * n, energy=np.abs(maps))
    features = SimpleNamespace(mel_frequencies=HZ)
    run = SimpleNamespace(config=SimpleNamespace(features=features))
    return SimpleNamespace(name=name, clips=clips, maps=maps, run=run)


def spots(*places):
    maps = np.zeros((len(places), 4, 21))
    for values, (band, column) in zip(maps, places, strict=True):
        values[band, column - 1 : column + 2] = 2.0
    return maps


def test_events_at_different_times_are_one_event_when_aligned():
    maps = spots((1, 4), (1, 9), (1, 14))
    (mean,) = class_maps.class_maps([explained(maps, ["a"] * 3)], ["a"])
    np.testing.assert_allclose(mean.cells[1, 9:12], 1 / 3)
    assert np.nansum(mean.cells) == pytest.approx(1)
    assert mean.n == 3


def test_all_networks_are_aligned_by_the_first():
    first, other = explained(spots((1, 4), (1, 14)), ["a"] * 2), explained(spots((2, 6), (2, 16)), ["a"] * 2, "other")
    _, mean = class_maps.class_maps([first, other], ["a"])
    assert np.nanargmax(np.nansum(mean.cells, 0)) in (11, 12, 13)  # two columns later in every clip


def test_times_that_few_clips_reach_are_not_known():
    mean = class_maps.aligned(np.ones((3, 2, 10)), np.array([0, 9, 9]))
    assert np.isnan(mean).any()
    np.testing.assert_allclose(mean[np.isfinite(mean)], 1)


def test_profiles_sum_to_one_and_every_clip_counts_the_same():
    maps = spots((0, 5), (3, 5))
    maps[0] *= 100
    maps[1, 2] = -7  # what speaks against does not count
    rows = class_maps.profiles(explained(maps, ["a", "a"]))
    assert [row.hz for row in rows] == HZ.tolist()
    assert [row.share for row in rows] == pytest.approx([0.5, 0, 0, 0.5])


def test_changes_are_zero_between_the_same_and_one_between_different_bands():
    same, moved = explained(spots((0, 5), (1, 5)), ["a", "b"]), explained(spots((0, 9), (2, 5)), ["a", "b"], "other")
    distances = {row.label: row.distance for row in class_maps.changes([same, moved])}
    assert distances == {"a": pytest.approx(0), "b": pytest.approx(1)}
