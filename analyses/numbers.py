"""The tables beside the figures of the study, read for RESULTS.md, and what its sentences say of their numbers."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transferlens.data.manifest import manifest
from transferlens.measures import stats
from transferlens.measures.stats import Interval
from transferlens.util.errors import DataError
from transferlens.util.files import plain_cell
from transferlens.util.text import markdown

# Columns whose values are names, though some look like numbers.
NAMES = {
    *("recording", "fold", "inner_fold", "block", "change_from"),
    *("pretrained_through", "frozen_through", "truncate_after", "clips_per_class", "call"),
}
PLAIN = ("folder", "data")  # columns that are no text for Markdown
MAY_BE_EMPTY = ("duplicates",)
AGAIN = "run python -m analyses.all again"
FIRST = "pretrained_vs_scratch"  # the table that every data set has


class Tables:
    """The tables of a folder, one per data set; rows are selected by their values.

    `link` is the folder in the text's links, and `asks` are the options that name the data set.
    """

    def __init__(self, folder: Path, link: str = "", asks: str = "") -> None:
        self.folder, self.link, self.name = folder, link, folder.name
        self.asks = asks or f"--clips path/to/{self.name}/clips.csv"
        self.read = cache(self._read)

    def has(self, name: str) -> bool:
        """Return whether there is a table of this name."""
        return (self.folder / f"{name}.csv").exists()

    @cached_property
    def title(self) -> str:
        """The data set's name as it is written in a text, with the folds that were used, if there are more."""
        if (row := manifest().get(self.name)) is None or row.layout == "generated":
            return self.name
        part = f", folds {', '.join(self.column(FIRST, 'fold'))} of {row.folds}" if self.is_part else ""
        return f"{row.title.partition(':')[0]}{part}"

    @property
    def is_part(self) -> bool:
        """Whether the data set is known by name and has more folds."""
        row = manifest().get(self.name)
        return row is not None and self.has(FIRST) and self.folds < row.folds

    @cached_property
    def first(self) -> str:
        """The network that questions about one network use."""
        return str(self.column(FIRST, "backbone")[0])

    @cached_property
    def folds(self) -> int:
        """Number of folds."""
        return len(self.column(FIRST, "fold"))

    @cached_property
    def weights(self) -> str:
        """What the pretrained networks start from."""
        return " and ".join(filter(None, self.column(FIRST, "weights")))

    def _read(self, name: str) -> list[SimpleNamespace]:
        rows = list(csv.DictReader(io.StringIO(self.page(f"{name}.csv"), newline="")))
        if any(None in row or None in row.values() for row in rows):
            raise DataError(f"{self.folder / name}.csv has a line with more or fewer cells than its header: {AGAIN}")
        if not rows and name not in MAY_BE_EMPTY:
            raise DataError(f"{self.folder / name}.csv has no rows: {AGAIN}")
        return [SimpleNamespace(**{key: _number(key, value) for key, value in row.items()}) for row in rows]

    def page(self, name: str, usual: str | None = None) -> str:
        """Return the text of a file next to the tables, or `usual` if there is no such file."""
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            if usual is None:
                raise DataError(f"{self.folder / name} is missing: python -m analyses.all writes it") from error
            return usual
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.folder / name} cannot be read ({error}): {AGAIN}") from error

    def rows(self, name: str, **values: Any) -> list[SimpleNamespace]:
        """Return the rows of a table whose columns have these values."""
        return [row for row in self.read(name) if all(getattr(row, key) == each for key, each in values.items())]

    def row(self, name: str, **values: Any) -> SimpleNamespace:
        """Return the first of these rows; raise a DataError if there is none."""
        if not (rows := self.rows(name, **values)):
            raise DataError(f"{self.folder / name}.csv has no row with {values}: {AGAIN}")
        return rows[0]

    def ends(self, comparison: str) -> list[SimpleNamespace]:
        """Return the rows of SVCCA at the end of each block."""
        rows = self.rows("svcca", comparison=comparison)
        return [next(row for row in reversed(rows) if row.block == block) for block in map(str, range(5))]

    def beyond(self, ensemble: str) -> list[Interval]:
        """Return the gain under each corruption less the gain on clean clips."""
        rows = self.rows("robustness", ensemble=ensemble)
        return [stored(row, "more_than_clean") for row in rows if row.corruption != "clean"]

    def column(self, name: str, key: str, **values: Any) -> list[Any]:
        """Return the different values of a column."""
        return list(dict.fromkeys(getattr(row, key) for row in self.rows(name, **values)))


def _number(key: str, text: str) -> Any:
    """Convert a cell to a number if it is one; names, such as folds and blocks, become text for Markdown."""
    with contextlib.suppress(ValueError):
        if key not in NAMES:
            return float(text)
    return plain_cell(text) if key in PLAIN else markdown(plain_cell(text))


def mean(rows: Sequence[Any], field: str = "accuracy_last") -> Interval:
    """Compute the mean over folds of the mean over seeds."""
    return stats.fold_interval(stats.by_fold(rows, field))


def gain(rows: Sequence[Any], others: Sequence[Any], field: str = "accuracy_last") -> Interval:
    """Compute the mean of `rows` less `others`, paired by network, fold and seed."""
    of = {(row.backbone, row.fold, row.seed): getattr(row, field) for row in others}
    pairs = [row for row in rows if (row.backbone, row.fold, row.seed) in of]
    gains = [getattr(row, field) - of[row.backbone, row.fold, row.seed] for row in pairs]
    return stats.fold_interval(stats.fold_means(gains, pairs), bounds=(-1, 1))


def per_clip(rows: Sequence[Any], score: str, others: Sequence[Any], other: str) -> Interval:
    """Compute the mean of a score of `rows` less another score of `others`, clip by clip."""
    of = {row.clip: getattr(row, other) for row in others}
    groups = [group for row in rows if (group := getattr(row, "recording", ""))]
    return stats.mean_interval([getattr(row, score) - of[row.clip] for row in rows], bounds=(-2, 2), groups=groups)


def change(row: Any) -> Interval:
    """Return the change from one block to the next, which the analysis by blocks has computed."""
    return Interval(row.change_mean, row.change_low, row.change_high, int(row.change_n))


def stored(row: Any, name: str) -> Interval:
    """Return a value of a table with the interval in the columns beside it."""
    n = int(getattr(row, "n_folds", 0) or getattr(row, "n_clips", 0))
    return Interval(getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high"), n)


def referred(row: Any, rows: Sequence[Any]) -> Interval:
    """Return the difference of an arm to its reference, which the analysis has computed from these rows."""
    folds = len({each.fold for each in rows})
    return Interval(row.less_reference, row.less_reference_low, row.less_reference_high, folds)


def changes(tables: Tables, name: str, before: str, after: str) -> dict[str, Interval]:
    """Return the changes from one block to the next in a table, by network."""
    networks = tables.column(name, "backbone")
    return {net: change(tables.row(name, backbone=net, block=after, change_from=before)) for net in networks}


def losses(tables: Tables, name: str, block: str, arm: str, **values: str) -> dict[str, Interval]:
    """Return the differences of a block's runs to those of an arm in a table, by network."""
    of = {net: tables.rows(name, backbone=net, block=block, **values) for net in tables.column(name, "backbone")}
    return {net: gain(rows, tables.rows(name, backbone=net, arm=arm)) for net, rows in of.items()}


def listed(intervals: Mapping[str, Interval]) -> str:
    """Return the intervals of networks as text."""
    return ", ".join(f"{short(net)} {hundred(each)}" for net, each in intervals.items())


def hundred(interval: Interval) -> str:
    """Return a mean with its interval as text, times 100: accuracies in %, differences in points."""
    text = f"{100 * interval.mean:.1f}"
    return f"{text} ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval.is_bounded else text


def plain(value: float, low: float, high: float) -> str:
    """Return a value as text, with its interval if it has one."""
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def judge(interval: Interval, more: str, less: str, neither: str) -> str:
    """Return `more` if the interval is above 0, `less` if it is below 0, else `neither`."""
    return more if interval.low > 0 else less if interval.high < 0 else neither


def count(intervals: Iterable[Interval]) -> str:
    """Return how many intervals are above 0, and how many below, in words."""
    intervals = list(intervals)
    above, below = sum(each.low > 0 for each in intervals), sum(each.high < 0 for each in intervals)
    return f"{above} of {len(intervals)}" + (f" (below 0 on {below})" if below else "")


def blocks_where(lower: Sequence[Any], higher: Sequence[Any]) -> str:
    """Return the blocks in which the first interval is below the second, in words; not those of few samples."""
    pairs = [(row, other) for row, other in zip(lower, higher, strict=True) if row.too_few != "True"]
    blocks = [row.block for row, other in pairs if row.high < other.low]
    return f"Block{'s' * (len(blocks) != 1)} {', '.join(blocks)}" if blocks else "no block"


def at(blocks: Sequence[str]) -> str:
    """Return for which K a statement holds, in words."""
    return f"at K = {', '.join(blocks)}" if blocks else "at no K"


def short(backbone: str) -> str:
    """Return the name of a network as in run ids."""
    return backbone.removeprefix("tf_").removeprefix("efficientnet_")


def duration(seconds: float) -> str:
    """Return a time as text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
