"""The paper's tables from a run store: pretrained, from scratch and ensemble, beside what the paper reports.

For each data set and backbone, the accuracy over all held-out clips after the last epoch: mean and standard deviation
over seeds as in Palanisamy, Singhania and Yao (2020), and the ensemble of the seeds. Cells without runs say so, and
those that lack a fold or a seed say which. The published values are in ``paper_results.csv``; they are accuracies of
the epoch best on the held-out fold, as the paper's training code selects it, and so somewhat optimistic.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferlens import cli
from transferlens.compare.published import CAPTION, HEAD, Cell, cells, lines
from transferlens.store.listing import damaged, scan
from transferlens.util.errors import CheckpointError
from transferlens.util.files import check_writable, write_csv, write_text

__all__ = ["Options", "latex", "main", "markdown"]

STEM = "tables"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The paper's tables from a run store, as Markdown, CSV and LaTeX."""

    runs: Path = Path("runs")
    """Folder of the run store."""
    figures: Path = Path("figures")
    """Folder for tables.md, .csv and .tex."""


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


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the store, write, print."""
    options = cli.parse(Options, argv, prog="tables")
    check_writable("figures", options.figures)
    summaries, problems = scan(options.runs)
    if problems := [*problems, *damaged(s for s in summaries if s.is_complete).values()]:
        raise CheckpointError("; ".join(problems))
    found = cells(summaries)
    if not any(cell.n_folds for cell in found):
        raise CheckpointError(f"runs={str(options.runs)!r} has no finished run of a whole network: train some first")
    stem = options.figures / STEM
    write_csv(found, stem.with_suffix(".csv"))
    write_text(markdown(found), stem.with_suffix(".md"))
    write_text(latex(found), stem.with_suffix(".tex"))
    print(markdown(found))
    print(f"written: {stem}.md, .csv, .tex")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
