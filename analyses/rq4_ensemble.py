"""Question 4: what do ensembles gain, are they more robust, and which epoch may one report?

Asked of ESC-10 (5 official folds), preset quick: five seeds of the first network, three of each other one, and two of
the first from scratch. Draws ``ensemble`` (their averaged softmax outputs), ``robustness`` (the first network's
ensembles as clips get noise, gain, low-pass, clipping and shifts) and ``selection`` (last, best and nested epoch, the
last for one seed), each .png, .pdf and .csv, and writes ``duplicates.csv`` (near-duplicates across folds). What is in
the run store is not trained again.

    python -m analyses.rq4_ensemble --clips path/to/esc10/clips.csv

All options of ``python -m transferlens.train`` but those of the plan and the seeds; the figures go to ``--figures``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from analyses import BACKBONES, on_runs
from transferlens import cli
from transferlens.models.plan import TransferPlan
from transferlens.study import Step
from transferlens.training.sweep import Study, SweepOptions, gather

SEEDS, OTHER_SEEDS, SCRATCH_SEEDS = (0, 1, 2, 3, 4), (0, 1, 2), (0, 1)


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """Ensembles of one network's seeds and across networks, their robustness, and the epoch that is reported."""

    backbone: tuple[str, ...] = tuple(BACKBONES)
    """Networks: the first with five seeds and from scratch, the others with three."""
    figures: Path = Path("figures")
    """Folder for the figures and tables."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then average, corrupt and compare."""
    options = cli.parse(Options, argv, prog="analyses.rq4_ensemble")

    def study(backbone: Sequence[str], seeds: Sequence[int], select: Literal["nested"] | None = None) -> Study:
        return Study(replace(options, backbone=tuple(backbone), seeds=tuple(seeds), select=select or options.select))

    first = options.backbone[:1]
    wanted = {
        "seeds": (study(first, SEEDS), TransferPlan()),
        "scratch": (study(first, SCRATCH_SEEDS), TransferPlan.scratch()),
    }
    if options.backbone[1:]:
        wanted["others"] = (study(options.backbone[1:], OTHER_SEEDS), TransferPlan())
    if len(wanted["seeds"][0].dataset.folds) > 2:  # one to hold out, one to choose the epoch, and one to train on
        wanted["nested"] = (study(first, SEEDS[:1], select="nested"), TransferPlan())
    found = gather([(each, each.points(plan)) for each, plan in wanted.values()])
    paths = {name: [str(run.path) for run in runs.values()] for name, runs in zip(wanted, found, strict=True)}
    seeds, scratch = paths["seeds"], paths["scratch"]

    return (
        on_runs("ensemble", options, ckpt=[*seeds, *paths.get("others", []), *scratch])
        or on_runs("selection", options, ckpt=[*seeds, *scratch, *paths.get("nested", [])])
        or on_runs("robustness", options, ckpt=[*seeds, *scratch])
        or on_runs("duplicates", options, ckpt=seeds)
    )


STEPS = [Step("analyses.rq4_ensemble", {"backbone": BACKBONES})]

if __name__ == "__main__":
    sys.exit(main())
