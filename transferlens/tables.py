"""The paper's tables from a run store: pretrained, from scratch and ensemble, beside what the paper reports.

For each data set and backbone, the accuracy over all held-out clips after the last epoch: mean and standard deviation
over seeds as in Palanisamy, Singhania and Yao (2020), and the ensemble of the seeds. Cells without runs say so, and
those that lack a fold or a seed say which. The published values are in ``paper_results.csv``; they are accuracies of
the epoch best on the held-out fold, as the paper's training code selects it, and so somewhat optimistic.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.published import CAPTION, HEAD, Cell, cells, lines
from transferlens.options import OutputOptions
from transferlens.store.listing import damaged, scan
from transferlens.store.run import Run
from transferlens.training.sweep import RunsOptions
from transferlens.util.errors import CheckpointError
from transferlens.util.fields import Fields


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """The paper's tables from a run store, as Markdown, CSV and LaTeX."""

    store: RunsOptions = RunsOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """The cells of the tables."""

    stem = "tables"
    rows: tuple[Cell, ...]

    def texts(self) -> dict[str, str]:
        """Return the tables as Markdown and LaTeX."""
        return {"tables.md": markdown(self.rows), "tables.tex": latex(self.rows)}

    def summary(self) -> str:
        """Return the tables as Markdown."""
        return markdown(self.rows)


def markdown(found: Sequence[Cell]) -> str:
    """The table as Markdown."""
    rows = [HEAD, ["---"] * 3 + ["---:"] * (len(HEAD) - 3), *lines(found)]
    text = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([*text, "", CAPTION, ""])


_WORDS = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}
_ESCAPES = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | _WORDS)


def latex(found: Sequence[Cell]) -> str:
    """The table as LaTeX, for the package booktabs."""
    text = [r"% \usepackage{booktabs}", r"\begin{tabular}{lll" + "r" * (len(HEAD) - 3) + "}", r"\toprule"]
    text += [" & ".join(name.translate(_ESCAPES) for name in HEAD) + r" \\", r"\midrule"]
    before = None
    for line in lines(found):
        if before not in (None, line[0]):
            text.append(r"\midrule")
        before = line[0]
        text.append(" & ".join(cell.translate(_ESCAPES) for cell in line) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", f"% {CAPTION}", ""])


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Fill the cells from all finished runs of a store."""
    folder = options.store.runs
    summaries, problems = scan(folder)
    if problems := [*problems, *damaged(s for s in summaries if s.is_complete).values()]:
        raise CheckpointError("; ".join(problems))
    found = cells(summaries)
    if not any(cell.n_folds for cell in found):
        raise CheckpointError(f"runs={str(folder)!r} has no finished run of a whole network: train some first")
    return Result(tuple(found))


tables = question.Question("tables", Options, analyse, first="runs")
main = cli.command("tables", Options, tables)

if __name__ == "__main__":
    sys.exit(main())
