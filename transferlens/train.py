"""Train networks under a transfer plan, a run for each backbone, held-out fold and seed.

``python -m transferlens.train --clips clips.csv --pretrained-through 4``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from transferlens import cli
from transferlens.measures import stats
from transferlens.models.plan import PlanOptions
from transferlens.store.run import Run
from transferlens.training.sweep import Study, SweepOptions
from transferlens.util.text import table


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions, PlanOptions):
    """Train a network under a transfer plan, a run for each backbone, held-out fold and seed.

    Without --clips or --dataset it trains on synth, the built-in data set. Finished runs are not trained again;
    interrupted ones go on from their last epoch.
    """


def _table(runs: Sequence[Run]) -> str:
    rows = [(r.config.id, r.config.fold, f"{100 * r.accuracy_last:.1f}", f"{100 * r.accuracy_best:.1f}") for r in runs]
    return table([("run", "fold", "last [%]", "best [%]"), *rows])


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print the accuracies."""
    options = cli.parse(Options, argv, prog="train")
    study = Study(options)
    runs = list(study.gather(study.points(options.plan())).values())
    print(_table(runs))
    for backbone in dict.fromkeys(options.backbone):
        mine = [run for run in runs if run.config.backbone == backbone]
        folds = stats.fold_means([run.accuracy_last for run in mine], [run.config.fold for run in mine])
        print(f"{backbone}: held-out accuracy after the last epoch {stats.fold_interval(folds)}")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
