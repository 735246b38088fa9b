"""Question 4: what do ensembles gain, are they more robust, and which epoch may be reported?

ESC-10 (5 official folds), preset quick: five seeds of the first network, three of each other network, and two of the
first from scratch. Writes ``ensemble`` (averaged softmax outputs, and averaged weights), ``robustness`` (ensembles of
the first network on clips with noise, gain, low-pass, clipping and shifts) and ``selection`` (last, best and nested
epoch, the nested one for one seed), each .png, .pdf and .csv, and ``duplicates.csv`` (near-duplicates across folds).
Finished runs are not trained again.

    python -m analyses.rq4_ensemble --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.train`` without those of the plan and the seeds, and ``--figures``.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any

from analyses import BACKBONES
from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.duplicates import main as duplicates
from transferlens.ensemble import main as ensemble
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.robustness import main as robustness
from transferlens.selection import main as selection
from transferlens.study import Step, handed_on, perform
from transferlens.training import forecast
from transferlens.training.sweep import Arm, Study, SweepOptions, gather, planned
from transferlens.util.fields import names
from transferlens.util.terminal import say

SEEDS, OTHER_SEEDS, SCRATCH_SEEDS = (0, 1, 2, 3, 4), (0, 1, 2), (0, 1)


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare ensembles of seeds and across networks, their robustness, and the choices of the reported epoch."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES)


def points(options: Options) -> dict[str, Arm]:
    """Return the runs by arm: the first network (also from scratch, also with an inner fold), and the others."""
    first, others = options.sweep.backbone[:1], options.sweep.backbone[1:]

    def arm(plan: TransferPlan, **changes: Any) -> Arm:
        return Study.of(replace(options, sweep=replace(options.sweep, **changes))).arm(plan)

    arms = {
        "seeds": arm(TransferPlan(), backbone=first, seeds=SEEDS),
        "scratch": arm(TransferPlan.scratch(), backbone=first, seeds=SCRATCH_SEEDS),
    }
    if others:
        arms["others"] = arm(TransferPlan(), backbone=others, seeds=OTHER_SEEDS)
    if len(arms["seeds"].study.dataset.folds) > 2:  # to hold out, to choose the epoch, and to train
        arms["nested"] = arm(TransferPlan(), backbone=first, seeds=SEEDS[:1], select="nested")
    return arms


def work(options: Options) -> int:
    """Train missing runs, and do the four commands with the run files."""
    arms = points(options)
    if options.output.dry_run:
        say(forecast.text(planned(arms)))
        return cli.DONE
    paths = {name: [run.path for run in runs] for name, runs in gather(arms).items()}
    seeds, scratch = paths["seeds"], paths["scratch"]
    given = handed_on(options, "seeds", "runs")
    runs_of = {
        ensemble: [*seeds, *paths.get("others", []), *scratch],
        selection: [*seeds, *scratch, *paths.get("nested", [])],
        robustness: [*seeds, *scratch],
        duplicates: seeds,
    }
    # Beside run files, `ensemble` takes no option of the training.
    taken = {"figures", "cache", "device", *names(DataOptions)}
    own = {ensemble: {name: value for name, value in given.items() if name in taken} | {"soup": True}}
    return perform([Step.of(each, {"ckpt": ckpt}).given(own.get(each, given)) for each, ckpt in runs_of.items()])


main = cli.Command("analyses.rq4_ensemble", Options, work, arms=points)
STEPS = [Step.of(main)]

if __name__ == "__main__":
    sys.exit(main())
