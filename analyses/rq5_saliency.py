"""Question 5: what do the networks look at? Integrated Gradients on ESC-10, and on the built-in set.

EfficientNet-Lite0 on fold 1, preset quick, one seed: fine-tuned, from scratch, and before training. Draws ``saliency``
and ``saliency_summary`` (.png, .pdf, .csv) and writes ``saliency_cascade.csv``. What is in the run store is not trained
again.

    python -m analyses.rq5_saliency --clips path/to/esc10/clips.csv
    python -m analyses.rq5_saliency --dataset synth --epochs-scratch 72 --figures figures/synth

All options of ``python -m transferlens.train`` but those of the plan.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from analyses import BACKBONES
from transferlens import cli
from transferlens.compare.question import Question
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.saliency import Options as Named
from transferlens.saliency import Result, saliency
from transferlens.store.run import Run
from transferlens.study import Step
from transferlens.training.sweep import Arm, Study, SweepOptions
from transferlens.util.fields import at_least


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Attributions of a fine-tuned network, of one from scratch, and of one before training: one fold and seed."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1], n_folds=1)
    epochs_scratch: Annotated[int | None, at_least(1)] = None
    """Epochs from scratch. Default: as many as for fine-tuning."""


def points(options: Options) -> dict[str, Arm]:
    """Return the fine-tuned runs and those from scratch."""
    study, scratch = Study.of(options), TransferPlan.scratch()
    study.check_one("folds", "seeds")
    training = study.training(scratch)
    if options.epochs_scratch is not None:
        training = replace(training, epochs=options.epochs_scratch)
    return {"pretrained": study.arm(TransferPlan()), "from scratch": study.arm(scratch, training)}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Explain the held-out clips with every network."""
    named = Named(
        ckpt=tuple(run.path for arm in runs.values() for run in arm),
        data=options.data,
        store=options.store,
        execution=options.execution,
    )
    return saliency.answer(named)


question: Question[Options, Any] = Question("analyses.rq5_saliency", Options, analyse, points)
main = cli.Command("analyses.rq5_saliency", Options, question)
STEPS = [Step.of(main), Step.of(main, {"dataset": "synth", "epochs_scratch": 72})]

if __name__ == "__main__":
    sys.exit(main())
