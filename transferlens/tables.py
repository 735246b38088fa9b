"""The paper's tables of a run store: pretrained, from scratch and ensemble, next to the published values.

For each data set and backbone: the accuracy over all held-out clips after the last epoch, with mean and standard
deviation over seeds, and the ensemble of the seeds. If a cell has no runs, or lacks a fold or a seed, it says so. The
values of Palanisamy, Singhania and Yao (2020), in ``paper_results.csv``, are of the epoch that is best on the held-out
fold, as their code selects it, and therefore somewhat optimistic.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.published import Cell, caption, cells, head, lines
from transferlens.options import OutputOptions
from transferlens.store.listing import no_run, usable
from transferlens.store.run import Run
from transferlens.training.sweep import RunsOptions
from transferlens.util import text
from transferlens.util.fields import Fields


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Write the paper's tables, filled from a run store, as Markdown, CSV and LaTeX."""

    store: RunsOptions = RunsOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """One row per cell of the tables, our accuracy and that of the paper; and why files of the store cannot be used."""

    stem = "tables"
    rows: tuple[Cell, ...]
    problems: tuple[str, ...] = ()

    def texts(self) -> dict[str, str]:
        """Return the tables as Markdown and LaTeX."""
        return {"tables.md": markdown(self.rows), "tables.tex": latex(self.rows)}

    def summary(self) -> str:
        """Return the tables as Markdown."""
        return markdown(self.rows)


def markdown(table: Sequence[Cell]) -> str:
    """Return the table as Markdown."""
    cells = [[text.markdown(cell) for cell in row] for row in lines(table)]
    names = head(table)
    rows = [names, ["---"] * 3 + ["---:"] * (len(names) - 3), *cells]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", caption(table), ""])


_WORDS = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}
_ESCAPES = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | _WORDS)


def _latex_row(row: Sequence[str]) -> str:
    cells = [text.printable(cell).translate(_ESCAPES) for cell in row]
    # After the end of the row before, [ and * would be its options.
    return f"{'{}' if cells[0].startswith(('[', '*')) else ''}{' & '.join(cells)} \\\\"


def latex(table: Sequence[Cell]) -> str:
    """Return the table as LaTeX, for the package booktabs; a rule separates data sets."""
    out = [r"% \usepackage{booktabs}", r"\begin{tabular}{lll" + "r" * (len(head(table)) - 3) + "}", r"\toprule"]
    for _, rows in itertools.groupby([head(table), *lines(table)], key=lambda row: row[0]):
        out += [*map(_latex_row, rows), r"\midrule"]
    return "\n".join([*out[:-1], r"\bottomrule", r"\end{tabular}", f"% {caption(table)}", ""])


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Return the cells, from all finished runs of a store."""
    folder = options.store.runs
    summaries, problems = usable(folder)
    table = cells(summaries)
    if not any(cell.n_folds for cell in table):
        raise no_run(folder, problems, "finished run of a whole network")
    return Result(tuple(table), tuple(problems))


tables = question.Question("tables", Options, analyse, first="runs", several=True)
main = cli.command("tables", Options, tables)

if __name__ == "__main__":
    sys.exit(main())
