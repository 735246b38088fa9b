"""RESULTS.md: the text of the study, with its numbers filled in from the tables beside the figures.

    python -m analyses.results --figures figures --out RESULTS.md

The text is ``RESULTS.md.jinja`` beside this file. It holds no measured number: each is computed here from a table that
a step of `analyses.all` has written, and words that judge ("more than chance can explain") follow the interval. What
there is to say of how the runs were made stands in ``notes.md`` beside the tables, where there is one.
"""

import csv
import io
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import jinja2

from transferlens import cli
from transferlens.measures import stats
from transferlens.measures.stats import Interval
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.files import check_writable, write_text

# Columns whose values are names, though some look like numbers.
NAMES = {"fold", "inner_fold", "block", "change_from", "pretrained_through", "frozen_through", "truncate_after"}
# The tables that the text reads.
TABLES = (
    *("pretrained_vs_scratch", "freeze", "fuse", "truncate", "probe", "plan_grid", "svcca", "input_form"),
    *("input_form_stretch", "ensemble", "robustness", "selection", "duplicates", "saliency", "saliency_summary"),
    *("synth/saliency_summary", "steps"),
)
MAY_BE_EMPTY = ("duplicates",)
AGAIN = "run python -m analyses.all again"
TEMPLATE = Path(__file__).with_name("RESULTS.md.jinja")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write the text of the study from the tables of its figures."""

    figures: Path = Path("figures")
    """Folder of the figures and tables."""
    out: Path = Path("RESULTS.md")
    """The text."""


class Tables:
    """The tables of a folder, as rows that are asked for by their values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read = cache(self._read)

    def _read(self, name: str) -> list[SimpleNamespace]:
        rows = list(csv.DictReader(io.StringIO(self.page(f"{name}.csv"), newline="")))
        if any(None in row or None in row.values() for row in rows):
            raise DataError(f"{self.folder / name}.csv has a line of more or fewer cells than its header: {AGAIN}")
        if not rows and name not in MAY_BE_EMPTY:
            raise DataError(f"{self.folder / name}.csv has no rows: {AGAIN}")
        return [SimpleNamespace(**{key: _number(key, value) for key, value in row.items()}) for row in rows]

    def page(self, name: str, usual: str | None = None) -> str:
        """The text of a file beside the tables, or what usually stands for it."""
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            if usual is None:
                raise DataError(f"{self.folder / name} is missing: python -m analyses.all makes it") from error
            return usual
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.folder / name} cannot be read ({error}): {AGAIN}") from error

    def rows(self, name: str, **values: Any) -> list[SimpleNamespace]:
        """Rows of a table whose columns have these values."""
        return [row for row in self.read(name) if all(getattr(row, key) == each for key, each in values.items())]

    def row(self, name: str, **values: Any) -> SimpleNamespace:
        """The first of them.

        Raises
        ------
        DataError
            Where there is none.
        """
        if not (found := self.rows(name, **values)):
            raise DataError(f"{self.folder / name}.csv has no row of {values}: {AGAIN}")
        return found[0]

    def ends(self, comparison: str) -> list[SimpleNamespace]:
        """SVCCA at the end of each block."""
        rows = self.rows("svcca", comparison=comparison)
        return [next(row for row in reversed(rows) if row.block == block) for block in map(str, range(5))]

    def beyond(self, ensemble: str) -> list[Interval]:
        """What averaging gains under each corruption beyond what it gains on clean clips."""
        rows = [row for row in self.rows("robustness", ensemble=ensemble) if row.corruption != "clean"]
        each = ((row.more_than_clean, row.more_than_clean_low, row.more_than_clean_high, row.n_clips) for row in rows)
        return [Interval(mean, low, high, int(n)) for mean, low, high, n in each]

    def column(self, name: str, key: str, **values: Any) -> list[Any]:
        """The values of a column, each once."""
        return list(dict.fromkeys(getattr(row, key) for row in self.rows(name, **values)))


def _number(key: str, text: str) -> Any:
    """Folds and blocks are names; what else reads as a number is one."""
    if key in NAMES:
        return text
    try:
        return float(text)
    except ValueError:
        return text


def mean(rows: Sequence[Any], field: str = "accuracy_last", kept: int = 0) -> Interval:
    """Over folds, of the seeds' mean in each; `kept` as for `stats.fold_interval`."""
    return stats.fold_interval(stats.by_fold(rows, field), kept=kept)


def gain(rows: Sequence[Any], others: Sequence[Any], field: str = "accuracy_last") -> Interval:
    """Of the first over the second, paired by network, fold and seed."""
    of = {(row.backbone, row.fold, row.seed): getattr(row, field) for row in others}
    pairs = [row for row in rows if (row.backbone, row.fold, row.seed) in of]
    gains = [getattr(row, field) - of[row.backbone, row.fold, row.seed] for row in pairs]
    return stats.fold_interval(stats.fold_means(gains, [row.fold for row in pairs]), bounds=(-1, 1))


def per_clip(rows: Sequence[Any], score: str, others: Sequence[Any], other: str) -> Interval:
    """Of a score less another one, clip by clip."""
    of = {row.clip: getattr(row, other) for row in others}
    return stats.mean_interval([getattr(row, score) - of[row.clip] for row in rows], bounds=(-2, 2))


def change(row: Any) -> Interval:
    """From one block to the next, as an analysis by blocks wrote it."""
    return Interval(row.change_mean, row.change_low, row.change_high, int(row.change_n))


def hundred(interval: Interval) -> str:
    """A mean with its interval, times 100: of accuracies in %, of differences in points."""
    text = f"{100 * interval.mean:.1f}"
    return text if interval.n == 1 else f"{text} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def plain(value: float, low: float, high: float) -> str:
    """A value with its interval, where there is one."""
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def judge(interval: Interval, more: str, less: str, neither: str) -> str:
    """The word that an interval allows."""
    return more if interval.low > 0 else less if interval.high < 0 else neither


def count(intervals: Iterable[Interval]) -> str:
    """How many intervals lie above 0, and how many below."""
    intervals = list(intervals)
    above, below = sum(each.low > 0 for each in intervals), sum(each.high < 0 for each in intervals)
    return f"{above} of {len(intervals)}" + (f" (below 0 on {below})" if below else "")


def blocks_where(lower: Sequence[Any], higher: Sequence[Any]) -> str:
    """The blocks in which the interval of the first lies below that of the second, in words."""
    found = [row.block for row, other in zip(lower, higher, strict=True) if row.high < other.low]
    return f"Block{'s' * (len(found) != 1)} {', '.join(found)}" if found else "no block"


def short(backbone: str) -> str:
    """A network's name as in the ids of runs."""
    return backbone.removeprefix("tf_").removeprefix("efficientnet_")


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def text(figures: Path, link: str) -> str:
    """RESULTS.md, with links to figures at `link`."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    tables = Tables(figures)
    helpers = (mean, gain, per_clip, change, hundred, plain, judge, count, blocks_where, short, duration)
    asked = (tables.rows, tables.row, tables.column, tables.page, tables.ends, tables.beyond)
    names = {helper.__name__: helper for helper in (*helpers, *asked)}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    if missing := [f"{name}.csv" for name in TABLES if not (figures / f"{name}.csv").exists()]:
        raise DataError(f"{figures} lacks {', '.join(missing)}: python -m analyses.all makes them")
    try:
        return template.render(**names, figures=quote(link))
    except (ArithmeticError, AttributeError, LookupError, ParameterError, TypeError, jinja2.TemplateError) as error:
        raise DataError(f"a table of {figures} holds what no step writes ({error}): {AGAIN}") from error


def check(out: Path) -> None:
    """Refuse a file that cannot be written.

    Raises
    ------
    ParameterError
        Naming it.
    """
    check_writable("the folder of the text", out.parent)
    if out.is_dir():
        raise ParameterError(f"the text cannot be written to {out}: it is a folder")


def work(options: Options) -> int:
    """Parse, fill in, write."""
    check(options.out)
    out, figures = options.out.absolute().parent, options.figures.absolute()
    link = figures.relative_to(out) if figures.is_relative_to(out) else figures
    write_text(text(options.figures, link.as_posix()), options.out)
    print(f"written: {options.out}")
    return cli.DONE


main = cli.Command("analyses.results", Options, work)

if __name__ == "__main__":
    sys.exit(main())
