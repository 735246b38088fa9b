"""What networks use of each class: the mean map of its clips, aligned in time, and its profile over frequency.

Every clip counts the same: its map is divided by its sum of magnitudes. Clips are aligned by where the first network's
evidence is, for all networks alike; the mean at a time is over the clips that reach it. Profiles are of what speaks for
the target, summed over time, and need no alignment.

- `class_maps` returns the means to draw, `profiles` the rows of a table; `changes` says how far two networks' profiles
  are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transferlens.explain.explanations import Explained
from transferlens.measures import stats
from transferlens.util.grouping import group_by


@dataclass(frozen=True)
class ProfileRow:
    """Share of a network's evidence for a class in one mel band: mean over clips, 95 % interval over recordings.

    `hz` is the centre of the band. The shares of a network and class sum to 1.
    """

    network: str
    label: str
    hz: float
    share: float
    low: float
    high: float
    n: int
    n_recordings: int


@dataclass(frozen=True)
class ChangeRow:
    """How far the profiles of two networks are apart, 0 (the same) to 1 (no band in common): the mean over clips.

    It is half the sum of the differences of all bands, paired by clip, with its 95 % interval over recordings.
    """

    network: str
    other: str
    label: str
    distance: float
    low: float
    high: float
    n: int
    n_recordings: int


@dataclass(frozen=True, eq=False)
class ClassMap:
    """Mean features and mean map of the aligned clips of one class [shape=(n_mels, width) each], by one network.

    Times that fewer than half of the clips reach are NaN.
    """

    network: str
    label: str
    S: np.ndarray
    cells: np.ndarray
    n: int


def shares(cells: np.ndarray) -> np.ndarray:
    """Return each map [shape=(..., n_mels, width)] divided by its sum of magnitudes; 0 if all of it is 0."""
    total = np.abs(cells).sum((-2, -1), keepdims=True)
    return np.divide(cells, total, out=np.zeros(cells.shape), where=total > 0)


def centres(cells: np.ndarray) -> np.ndarray:
    """Return the column around which each map's evidence lies, its median in time [shape=(n,), int].

    The middle of the clip, if nothing speaks for the target.

    Examples
    --------
    >>> centres(np.array([[[0.0, 0.0, 1.0, -5.0]], [[0.0, 0.0, 0.0, 0.0]]]))
    array([2, 2])
    """
    columns = np.maximum(cells, 0).sum(-2)
    total, width = columns.sum(-1, keepdims=True), cells.shape[-1]
    middles = (np.cumsum(columns, -1) >= total / 2).argmax(-1)
    return np.where(total[:, 0] > 0, middles, width // 2)


def aligned(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the mean over clips [shape=(n, n_mels, width)], each shifted so that its column is in the middle.

    Times that fewer than half of the clips reach are NaN.

    Examples
    --------
    >>> aligned(np.array([[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]]), np.array([0, 2]))
    array([[0., 1., 0.]])
    """
    n, _, width = values.shape
    total, count = np.zeros(values.shape[1:]), np.zeros(width)
    for clip, column in zip(values, columns.tolist(), strict=True):
        shift = width // 2 - column
        to, of = slice(max(0, shift), width + min(0, shift)), slice(max(0, -shift), width - max(0, shift))
        total[:, to] += clip[:, of]
        count[to] += 1
    return np.where(count >= n / 2, total / np.maximum(count, 1), np.nan)


def class_maps(explained: Sequence[Explained], labels: Sequence[str]) -> list[ClassMap]:
    """Return the mean features and maps of each class and network, aligned by the evidence of the first network."""
    clips, columns, means = explained[0].clips, centres(explained[0].maps), []
    places = group_by(range(len(clips.ids)), clips.labels.__getitem__)
    for of_network in explained:
        cells = shares(of_network.maps)
        for label in labels:
            of_class = places[label]
            S, mean = (aligned(each[of_class], columns[of_class]) for each in (clips.energy, cells))
            means.append(ClassMap(of_network.name, label, S, mean, len(of_class)))
    return means


def _profiles(explained: Explained) -> np.ndarray:
    """Return the share of each clip's evidence by mel band [shape=(n, n_mels)]."""
    return shares(np.maximum(explained.maps, 0)).sum(-1)


def _of_class(explained: Explained, label: str) -> tuple[list[int], list[str]]:
    """Return the indices of the clips of a class, and their recordings, none if they are not known."""
    clips = explained.clips
    places = [i for i, name in enumerate(clips.labels) if name == label]
    return places, [clips.groups[i] for i in places] if clips.groups[places[0]] else []


def profiles(explained: Explained) -> list[ProfileRow]:
    """Return the mean share of the evidence for each class in each mel band, by one network."""
    by_clip, hz = _profiles(explained), explained.run.config.features.mel_frequencies
    rows = []
    for label in sorted(set(explained.clips.labels)):
        places, groups = _of_class(explained, label)
        for band, centre in enumerate(hz.tolist()):
            it = stats.mean_interval(by_clip[places, band].tolist(), groups=groups)
            name = (explained.name, label, round(centre, 1))
            rows.append(ProfileRow(*name, it.mean, it.low, it.high, it.n, len(set(groups))))
    return rows


def changes(explained: Sequence[Explained]) -> list[ChangeRow]:
    """Return how far the profiles of the first network are from those of each other one, by class."""
    first, rows = _profiles(explained[0]), []
    for other in explained[1:]:
        distance = np.abs(first - _profiles(other)).sum(1) / 2
        for label in sorted(set(other.clips.labels)):
            places, groups = _of_class(other, label)
            it = stats.mean_interval(distance[places].tolist(), groups=groups)
            name = (explained[0].name, other.name, label)
            rows.append(ChangeRow(*name, it.mean, it.low, it.high, it.n, len(set(groups))))
    return rows
