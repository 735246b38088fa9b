"""Question 2, by representation: how far does each layer move when an ImageNet network is fine-tuned on ESC-10?

EfficientNet-Lite0 on fold 1, preset quick, fine-tuned and from scratch, two seeds each: every run against its own
start, and the two seeds against each other (the noise floor). Draws ``svcca`` and ``svcca_matrix`` (.png, .pdf, .csv)
and writes ``svcca_weights.csv``. What is in the run store is not trained again.

    python -m analyses.rq2_svcca --clips path/to/esc10/clips.csv

All options of ``python -m transferlens.train`` but those of the plan; the figures go to ``--figures``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyses import BACKBONES, on_runs
from transferlens import cli
from transferlens.models.plan import TransferPlan
from transferlens.study import Step
from transferlens.training.sweep import Study, SweepOptions


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """Weight change of fine-tuned networks and of networks from scratch, with the noise floor."""

    backbone: tuple[str, ...] = tuple(BACKBONES[:1])
    """One network."""
    n_folds: int | None = 1
    """One held-out fold, the first of all or of ``--folds``."""
    seeds: tuple[int, ...] = (0, 1)
    """Two or more, for the noise floor."""
    figures: Path = Path("figures")
    """Folder for the figures and tables."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then compare."""
    options = cli.parse(Options, argv, prog="analyses.rq2_svcca")
    study = Study(options)
    study.check_one("backbone", "folds")
    plans = {"pretrained": TransferPlan(), "from scratch": TransferPlan.scratch()}
    arms = study.gather_arms({name: study.points(plan) for name, plan in plans.items()})
    paths = [str(run.path) for runs in arms.values() for run in runs]
    study.cache.fill()
    return on_runs("svcca", options, matrix=True, ckpt=paths)


STEPS = [Step("analyses.rq2_svcca", {"backbone": BACKBONES[:1]})]

if __name__ == "__main__":
    sys.exit(main())
