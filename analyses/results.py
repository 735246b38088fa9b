"""RESULTS.md: the text of the study, with numbers from the tables of its figures.

    python -m analyses.results --figures figures --out RESULTS.md

The text is in ``text/``, next to this file, a template per section. It contains no measured number: all are computed by
`analyses.numbers` from tables that `analyses.all` has written, and words that judge, such as "more than chance can
explain", depend on the interval. Remarks on how the runs were made are in ``notes.md`` next to the tables, if there is
one.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import jinja2

from analyses import numbers
from analyses.answers import answers
from analyses.controls import KNOWN, SEED
from analyses.numbers import AGAIN, FIRST, Tables
from transferlens import cli
from transferlens.data.catalogue import permuted_name
from transferlens.measures import stats
from transferlens.rewind import Options as Rewind
from transferlens.util.errors import DataError, ParameterError
from transferlens.util.files import check_writable, write_text
from transferlens.util.terminal import say

SETTINGS = {"tolerance": Rewind().tolerance, "estimated_on": Rewind().estimate}  # of the study
TEMPLATES = Path(__file__).with_name("text")
OPTIONS = ("--clips", "--dataset", "--root")
HELPERS = (
    *(numbers.mean, numbers.gain, numbers.per_clip, numbers.change, numbers.stored, numbers.hundred, numbers.plain),
    *(numbers.referred, numbers.changes, numbers.losses, numbers.listed, stats.clips_text),
    *(numbers.judge, numbers.count, numbers.blocks_where, numbers.at, numbers.short, numbers.duration),
)


@dataclass(frozen=True)
class Section:
    """A section of the text: its template, its title, and the tables that it needs.

    It is of every data set that has the first of them or, with `of`, of these generated ones alone; if it is a
    `control`, of every data set with permuted labels.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    of: tuple[str, ...] = ()
    control: bool = False


LEAGUE = ("league", "league_differences", "league_clips")
SECTIONS = (
    Section("pretraining", "1. Pretrained against random initialisation", (FIRST,)),
    Section("samples", "1.1 How many clips pretraining is worth", ("samples", "samples_worth")),
    Section("recipes", "1.2 Ways of fine-tuning", ("recipes",)),
    Section("sources", "1.3 Other starts, and a control", ("sources",)),
    Section(
        "blocks",
        "2. Which blocks carry what pretraining brings: freezing, fusion, truncation, probes",
        ("freeze", "fuse", "truncate", "probe", "plan_grid"),
    ),
    Section("anomaly", "2.1 Why a pretrained stem alone differs from none", ("anomaly", "anomaly_losses")),
    Section(
        "plans",
        "2.2 Scale or features, later blocks, one block, normalisation layers",
        ("statistics", "reverse", "surgical", "norm"),
    ),
    Section("svcca", "2.3 How far the features move", ("svcca",)),
    Section("rank", "2.4 What the blocks offer without training", ("rank",)),
    Section("rewind", "2.5 What each block needed of its training", ("rewind_blocks", "freeze")),
    Section("paths", "2.6 Straight lines between networks", ("paths_barriers", "paths_soups")),
    Section("classes", "2.7 Which classes pretraining helps", ("classes_overall", "classes_changes")),
    Section("input_form", "3. Are plain log-mel features a good input?", ("input_form", "input_form_stretch")),
    Section("ensemble", "4. Ensembles", ("ensemble", "robustness", "selection")),
    Section("saliency", "5. What the networks look at", ("saliency", "saliency_summary")),
    Section("saliency_known", "5.1 Where the event is known", ("saliency_summary",), of=("synth",)),
    Section("league", "5.2 Which method of attribution can be believed", LEAGUE),
    Section("league", "5.3 The same where the event is known", LEAGUE, of=("synth",)),
    Section("controls", "6. Controls: permuted labels", (FIRST, "fuse", "truncate"), control=True),
    Section("known_blocks", "6.1 Controls: sounds whose needed block is known", ("truncate",), of=KNOWN),
    Section("full_size", "7. What the paper's own networks take", ("full_size",)),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write the text of the study from the tables of its figures."""

    figures: Path = Path("figures")
    """Folder of the figures and their tables."""
    out: Path = Path("RESULTS.md")
    """File for the text."""


class Study:
    """The folders of the tables of a study: one per data set, and one for what concerns all, at the top."""

    def __init__(self, figures: Path, link: str) -> None:
        self.figures, self.link = figures, link
        self.top = Tables(figures, quote(link))
        names = [name for name in self.top.column("steps", "folder") if (figures / name / f"{FIRST}.csv").is_file()]
        self.sets = [self.of(name) for name in names if not any(name == permuted_name(each, SEED) for each in names)]
        if not self.sets:
            raise DataError(f"{figures} has no folder of its steps.csv with {FIRST}.csv: {AGAIN}")

    def of(self, name: str) -> Tables:
        """Return the tables of the data set of this name."""
        asks = [row.data for row in self.steps_of(name) if row.data]
        return Tables(self.figures / name, quote(f"{self.link}/{name}"), asks[0] if asks else "")

    def control_of(self, tables: Tables) -> Tables:
        """Return the tables of a data set with permuted labels; its title and options are those of the data set."""
        control = self.of(permuted_name(tables.name, SEED))
        control.title, control.asks = tables.title, tables.asks
        return control

    @property
    def asks(self) -> str:
        """The options that name all data sets."""
        words = [each.asks.split() for each in self.sets]
        named = {option: [w[w.index(option) + 1] for w in words if option in w] for option in OPTIONS}
        return " ".join(" ".join([option, *values]) for option, values in named.items() if values)

    def steps_of(self, name: str, step: str | None = None) -> list[SimpleNamespace]:
        """Return the rows of steps.csv of a data set, of all steps or of one."""
        return [row for row in self.top.rows("steps", folder=name) if step in (None, row.step)]

    def parts(self, section: Section) -> list[SimpleNamespace]:
        """Return the texts of a section, with the title of the data set where several could have one."""
        tables = [self.of(name) for name in section.of] or [
            self.control_of(each) if section.control else each for each in self.sets
        ]
        return [
            SimpleNamespace(title=each.title if len(tables) > 1 else "", text=self.filled(section, each))
            for each in tables
            if each.has(section.tables[0])
        ]

    def filled(self, section: Section, tables: Tables) -> str:
        """Return the text of a section; raise DataError if a table is missing."""
        if missing := [f"{name}.csv" for name in section.tables if not tables.has(name)]:
            raise DataError(f"{tables.folder} lacks {', '.join(missing)}: python -m analyses.all writes them")
        values = {name: getattr(tables, name) for name in ("rows", "row", "column", "has", "ends", "beyond", "asks")}
        if tables.has(FIRST):
            values |= {name: getattr(tables, name) for name in ("first", "folds", "weights")}
        values |= {"data": tables.name, "figures": tables.link, "tables": tables, "study": self.asks}
        values["steps_of"] = lambda step: self.steps_of(tables.name, step)
        values["other"] = next((each for each in self.sets if each.name != tables.name), None)
        return _filled(f"{section.name}.md.jinja", **values)


def _filled(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {helper.__name__: helper for helper in HELPERS} | SETTINGS | values
    return environment.get_template(template).render().strip("\n")


def text(figures: Path, link: str) -> str:
    """Return the text of RESULTS.md, with links to figures in the folder `link`."""
    try:
        return _text(Study(figures, link))
    except DataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        raise DataError(f"a table in {figures} was not written by analyses.all ({error}): {AGAIN}") from error


def _text(study: Study) -> str:
    controls = [study.control_of(each) for each in study.sets]
    sections = [SimpleNamespace(title=each.title, parts=parts) for each in SECTIONS if (parts := study.parts(each))]
    values = {
        "study": study,
        "sets": study.sets,
        "answers": answers(study.sets, [each if each.has(FIRST) else None for each in controls]),
        "sections": sections,
        "controls": _anchor("controls") if any(each.has(FIRST) for each in controls) else None,
        "notes": study.top.page("notes.md", ""),
        "tables": study.top.page("tables.md"),
        "training_seconds": sum(row.training_seconds for row in study.top.rows("steps")),
    }
    return _filled("RESULTS.md.jinja", **values) + "\n"


def _anchor(name: str) -> str:
    """Return the anchor of the title of a section, as Markdown makes it."""
    title = next(each.title for each in SECTIONS if each.name == name)
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def check(out: Path) -> None:
    """Raise a ParameterError if the text cannot be written to a file."""
    check_writable("the folder of the text", out.parent)
    if out.is_dir():
        raise ParameterError(f"the text cannot be written to {out}: it is a folder")


def work(options: Options) -> int:
    """Fill in the text, and write it."""
    check(options.out)
    out, figures = options.out.absolute().parent, options.figures.absolute()
    link = figures.relative_to(out) if figures.is_relative_to(out) else figures
    write_text(text(options.figures, link.as_posix()), options.out)
    say(f"written: {options.out}")
    return cli.DONE


main = cli.Command("analyses.results", Options, work)

if __name__ == "__main__":
    sys.exit(main())
