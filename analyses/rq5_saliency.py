"""Question 5: what do the networks look at? Integrated Gradients on ESC-10, and on the built-in set.

EfficientNet-Lite0 on fold 1, preset quick, one seed: fine-tuned, from scratch, and before training. Draws ``saliency``
and ``saliency_summary`` (.png, .pdf, .csv) and writes ``saliency_cascade.csv``. What is in the run store is not trained
again.

    python -m analyses.rq5_saliency --clips path/to/esc10/clips.csv
    python -m analyses.rq5_saliency --dataset synth --epochs-scratch 72 --figures figures/synth

All options of ``python -m transferlens.train`` but those of the plan.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analyses import BACKBONES, on_runs
from transferlens import cli
from transferlens.models.plan import TransferPlan
from transferlens.study import Step
from transferlens.training.sweep import Study, SweepOptions


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """Attributions of a fine-tuned network, of one from scratch, and of one before training."""

    backbone: tuple[str, ...] = tuple(BACKBONES[:1])
    """Networks: with several each is shown fine-tuned and from scratch."""
    n_folds: int | None = 1
    """One held-out fold, the first of all or of ``--folds``."""
    seeds: tuple[int, ...] = (0,)
    """One seed."""
    epochs_scratch: int | None = None
    """Epochs from scratch. Default: as many as for fine-tuning."""
    figures: Path = Path("figures")
    """Folder for the figures and tables."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then explain."""
    options = cli.parse(Options, argv, prog="analyses.rq5_saliency")
    study = Study(options)
    study.check_one("folds", "seeds")
    scratch = TransferPlan.scratch()
    training = options.training(scratch)
    if options.epochs_scratch is not None:
        training = replace(training, epochs=options.epochs_scratch)
    arms = study.gather_arms(
        {"pretrained": study.points(TransferPlan()), "from scratch": study.points(scratch, training)}
    )
    paths = [str(run.path) for runs in arms.values() for run in runs]
    study.cache.fill()
    return on_runs("saliency", options, ckpt=paths)


STEPS = [
    Step("analyses.rq5_saliency", {"backbone": BACKBONES[:1]}),
    Step("analyses.rq5_saliency", {"backbone": BACKBONES[:1], "dataset": "synth", "epochs_scratch": 72}),
]

if __name__ == "__main__":
    sys.exit(main())
