"""Balanced subsets of the training clips: some clips per class, recordings whole, smaller subsets in larger ones.

Recordings are ordered by a hash of the data set, the held-out fold and their names: not by the seed of a run, so that
all arms and seeds are trained on the same clips. `chosen` takes them in an order that fills every class up to 1, 2, 4,
8, ... clips in turn, and stops each class before it has more than asked for.

A recording with more clips than that is passed over for smaller ones of its class; if the class has none, its first
recording is taken whole, and the class has more clips than asked for. Where no recording fits what is missing, a class
has fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from transferlens.util.files import content_hash
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from transferlens.data.clips import Clip


def chosen(clips: Sequence[Clip], per_class: int, *, key: Sequence[str]) -> list[int]:
    """Return the indices of a balanced subset of clips, in order.

    Parameters
    ----------
    clips : sequence of Clip
    per_class : int > 0
        Clips of each class, as far as whole recordings allow. The subset for a larger number contains this one.
    key : sequence of str
        What the order of recordings follows from, besides their names.

    Examples
    --------
    >>> from transferlens.data.catalogue import open_dataset
    >>> clips = open_dataset().clips  # two clips per recording, ten classes
    >>> [len(chosen(clips, n, key=["synth", "1"])) for n in (1, 2, 3, 4)]
    [20, 20, 20, 40]
    """
    by_recording = group_by(range(len(clips)), lambda i: clips[i].group or clips[i].id)
    sizes = {name: Counter(clips[i].label for i in rows) for name, rows in by_recording.items()}
    order = _order(sizes, key)
    taken = _within(order, sizes, per_class)
    for label in sorted({clip.label for clip in clips} - {label for name in taken for label in sizes[name]}):
        if not any(label in sizes[name] for name in taken):  # another class may have brought it
            taken.append(next(name for name in order if label in sizes[name]))
    return sorted(i for name in taken for i in by_recording[name])


def _order(sizes: Mapping[str, Counter[str]], key: Sequence[str]) -> list[str]:
    """Return recordings in the order in which they fill each class up to 1, 2, 4, 8, ... clips."""
    left = sorted(sizes, key=lambda name: content_hash([*key, name]))
    order: list[str] = []
    counts: Counter[str] = Counter()
    level = 1
    while left:
        for name in left:
            if all(counts[label] + n <= level for label, n in sizes[name].items()):
                order.append(name)
                counts.update(sizes[name])
        added = set(order)
        left = [name for name in left if name not in added]
        level *= 2
    return order


def _within(order: Sequence[str], sizes: Mapping[str, Counter[str]], per_class: int) -> list[str]:
    """Return the recordings up to, in each class, the first that would give it more clips than asked for."""
    taken: list[str] = []
    counts: Counter[str] = Counter()
    full: set[str] = set()
    for name in order:
        if full.isdisjoint(sizes[name]) and all(counts[label] + n <= per_class for label, n in sizes[name].items()):
            taken.append(name)
            counts.update(sizes[name])
        else:
            full.update(sizes[name])
    return taken
