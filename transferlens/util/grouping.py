"""Items in groups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Group items by a key; groups come in the order of their first items.

    Examples
    --------
    >>> group_by(["ant", "bee", "asp"], key=lambda word: word[0])
    {'a': ['ant', 'asp'], 'b': ['bee']}
    """
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
