"""Differences between the runs of two plans, paired by network, fold and seed.

* `paired`: the mean difference per network, over folds, and that of each run
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from transferlens.measures import stats
from transferlens.store.rows import RunRow
from transferlens.util.grouping import group_by

R = TypeVar("R", bound=RunRow)


@dataclass(frozen=True)
class Paired:
    """The difference of the runs of one network to others.

    Attributes
    ----------
    difference : Difference
        The mean over folds, of the means over seeds.
    gains : mapping of str to float
        The difference of each run, by its id.
    """

    difference: stats.Difference
    gains: Mapping[str, float]


def paired(
    rows: Sequence[R], others: Sequence[R], value: Callable[[R], float] = attrgetter("accuracy_last")
) -> dict[str, Paired]:
    """Compare runs with others of the same networks, folds and seeds.

    Parameters
    ----------
    rows, others : sequence of RunRow
        For each of `rows`, one of `others` has the same `pair`.
    value : callable
        Returns the number of a row that is compared. Default: the accuracy after the last epoch.

    Returns
    -------
    dict of str to Paired
        By network, in the order of `rows`; p-values are not adjusted (`stats.adjusted`).
    """
    known = {row.pair: value(row) for row in others}
    results = {}
    for network, own in group_by(rows, key=attrgetter("backbone")).items():
        gains = [value(row) - known[row.pair] for row in own]
        difference = stats.fold_difference(stats.fold_means(gains, own))
        results[network] = Paired(difference, dict(zip([row.run for row in own], gains, strict=True)))
    return results
