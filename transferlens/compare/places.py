"""Places on an axis of blocks: the plan of each, the runs there, and how they differ from those of other places.

* `Analysis`: the plans of one command
* `changes_between`: the differences between pairs of places: of `neighbours`, of places and their controls
  (`controlled`), of tuned places and untuned ones (`untuned`)
* `rows_of`: one row per run, as in the CSV
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np

from transferlens.compare.paired import paired
from transferlens.compare.tuning import TUNED
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan, block_text
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.util.errors import ParameterError
from transferlens.util.grouping import group_by

REFERENCES = {"pretrained": TransferPlan.finetune(), "scratch": TransferPlan.scratch()}
# Variant and block.
Place = tuple[str, int | None]


@dataclass(frozen=True)
class Analysis:
    """The plans of one command, by variant and block in the order of the axis; None is the place of no block.

    `title` and `axis` are the titles of the figure and of its axis. With `shows_cost`, for plans that differ in size,
    accuracy is also drawn against size. `control` is the variant that others are compared with at each place.
    """

    name: str
    title: str
    axis: str
    plans: Mapping[str, Mapping[int | None, TransferPlan]]
    shows_cost: bool = False
    control: str = ""

    def control_of(self, variant: str) -> str:
        """Return the control of a variant: of a tuned one, the tuned control."""
        return f"{self.control}{TUNED}" if variant.endswith(TUNED) else self.control

    def select(self, blocks: Sequence[int], *, references: bool) -> dict[Place, TransferPlan]:
        """Return plans by variant and block: of these blocks or of all, of no block, and those that are a reference."""
        known = {block for plans in self.plans.values() for block in plans if block is not None}
        if wrong := [block for block in blocks if block not in known]:
            raise ParameterError(
                f"block={' '.join(map(str, wrong))} must be among {', '.join(map(str, sorted(known)))} "
                f"for {self.name}: it names the {self.axis}"
            )
        chosen = set(blocks) or known
        return {
            (variant, block): plan
            for variant, plans in self.plans.items()
            for block, plan in plans.items()
            if (references if plan in REFERENCES.values() else block is None) or block in chosen
        }


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV of an analysis.

    `arm` is "block", or "pretrained" or "scratch" for a reference; `block` is empty for a reference that has no place
    on the axis, "none" for the place of no block. A reference has a row for each variant in which it is compared with
    the place before, and names the variant if they are several. `change` is the accuracy of this run minus that of its
    neighbour `change_from` on the same fold and seed; its mean over `change_n` folds and the 95 % interval follow,
    which is conservative, and the plain one (`stats.fold_interval`). `change_p` is the p-value for no change, followed
    by that adjusted for the number of changes in the table (`stats.adjusted`).
    """

    analysis: str
    arm: str
    variant: str = ""
    block: str = ""
    change_from: str = ""
    change: float = np.nan
    change_mean: float = np.nan
    change_low: float = np.nan
    change_high: float = np.nan
    change_plain_low: float = np.nan
    change_plain_high: float = np.nan
    change_n: int = 0
    change_p: float = np.nan
    change_p_adjusted: float = np.nan


@dataclass(frozen=True)
class ControlRow:
    """The mean difference of a variant to its control at one place, with bounds and p-values as in `Row`."""

    backbone: str
    variant: str
    control: str
    block: str
    n: int
    less_control: float
    less_control_low: float
    less_control_high: float
    less_control_plain_low: float
    less_control_plain_high: float
    less_control_p: float
    less_control_p_adjusted: float


@dataclass(frozen=True)
class Change:
    """The difference between two places, paired by fold, and that of each run, by its id.

    The places are neighbours on the axis, or one place of the control and of another variant.
    """

    backbone: str
    variant: str
    before: str
    after: str
    difference: stats.Difference
    gains: Mapping[str, float]

    def columns(self, run: str) -> dict[str, Any]:
        """Return the columns of the row of a run."""
        columns = self.difference.columns("change")
        of_all = columns | {"change_mean": columns["change"], "change_n": self.difference.interval.n}
        return of_all | {"change_from": self.before, "change": self.gains[run]}


def changes_between(
    rows_at: Mapping[Place, Sequence[RunRow]], pairs: Sequence[tuple[Place, Place]]
) -> tuple[Change, ...]:
    """Return the change of each backbone from the first place of each pair to the second.

    P-values are adjusted for the number of changes (`stats.adjusted`).
    """
    changes = [
        Change(backbone, after[0], block_text(before[1]), block_text(after[1]), compared.difference, compared.gains)
        for before, after in pairs
        for backbone, compared in paired(rows_at[after], rows_at[before]).items()
    ]
    adjusted = zip(changes, stats.adjusted([change.difference for change in changes]), strict=True)
    return tuple(replace(change, difference=difference) for change, difference in adjusted)


def neighbours(places: Iterable[Place]) -> list[tuple[Place, Place]]:
    """Return the pairs of places of a variant that follow each other."""
    return [pair for of_variant in group_by(places, itemgetter(0)).values() for pair in itertools.pairwise(of_variant)]


def controlled(analysis: Analysis, rows_at: Mapping[Place, Sequence[RunRow]]) -> list[tuple[Place, Place]]:
    """Return the places of variants, after those of their controls, if these are there and have other runs."""
    ids = {place: [row.run for row in rows] for place, rows in rows_at.items()}
    pairs = [((analysis.control_of(variant), block), (variant, block)) for variant, block in ids]
    return [(control, place) for control, place in pairs if control in ids and ids[control] != ids[place]]


def untuned(places: Iterable[Place]) -> list[tuple[Place, Place]]:
    """Return the places whose settings were chosen, after those with the untuned settings."""
    tuned = [(variant, block) for variant, block in places if variant.endswith(TUNED)]
    return [((variant.removesuffix(TUNED), block), (variant, block)) for variant, block in tuned]


def rows_of(
    analysis: Analysis,
    arms: Mapping[Place, Sequence[Run]],
    references: Mapping[str, Sequence[Run]],
    rows_at: Mapping[Place, Sequence[RunRow]],
    changes: Sequence[Change],
) -> tuple[Row, ...]:
    """Return the table: the runs of each place, then those of references that have no place."""
    columns = {(change.variant, change.after, run): change.columns(run) for change in changes for run in change.gains}
    table: dict[tuple[str, str], Row] = {}  # by run and change: a reference may have a place in several variants
    several = len({variant.removesuffix(TUNED) for variant, _ in arms}) > 1
    for (variant, block), rows in rows_at.items():
        place = block_text(block)
        for row, run in zip(rows, arms[variant, block], strict=True):
            arm = next((arm for arm, plan in REFERENCES.items() if run.config.plan == plan), "block")
            if variant.endswith(TUNED):
                arm = "block"  # a mark of its own, beside the untuned reference
            change = columns.get((variant, place, row.run), {})
            name = variant if arm == "block" or (change and several) else ""
            own: dict[str, Any] = {"arm": arm, "variant": name, "block": place} | change
            table.setdefault((row.run, name), Row(**vars(row), analysis=analysis.name, **own))
    placed = {(run, name.endswith(TUNED)) for run, name in table}
    for arm, runs in references.items():
        is_tuned = arm.endswith(TUNED)
        for row in (row_of(RunRow, run) for run in runs if (run.config.id, is_tuned) not in placed):
            table[row.run, TUNED if is_tuned else ""] = Row(**vars(row), analysis=analysis.name, arm=arm)
    return tuple(table.values())
