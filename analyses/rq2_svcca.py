"""Question 2, by representation: how far does each layer move when an ImageNet network is fine-tuned on ESC-10?

EfficientNet-Lite0 on fold 1, preset quick, fine-tuned and from scratch, two seeds each: every run against its own
start, and the two seeds against each other (the noise floor). Draws ``svcca`` and ``svcca_matrix`` (.png, .pdf, .csv)
and writes ``svcca_weights.csv``. What is in the run store is not trained again.

    python -m analyses.rq2_svcca --clips path/to/esc10/clips.csv

All options of ``python -m transferlens.train`` but those of the plan; the figures go to ``--figures``.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyses import BACKBONES
from transferlens import cli
from transferlens.compare.question import Question
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.store.run import Run
from transferlens.study import Step
from transferlens.svcca import Options as Named
from transferlens.svcca import Result, svcca
from transferlens.training.sweep import Arm, Study, SweepOptions


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Weight change of fine-tuned networks and of networks from scratch, with the noise floor: one network and fold."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1], n_folds=1, seeds=(0, 1))


def points(options: Options) -> dict[str, Arm]:
    """Return the fine-tuned runs and those from scratch."""
    study = Study.of(options)
    study.check_one("backbone", "folds")
    return {"pretrained": study.arm(TransferPlan()), "from scratch": study.arm(TransferPlan.scratch())}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare every run with its start, and runs of two seeds."""
    named = Named(
        ckpt=tuple(run.path for arm in runs.values() for run in arm),
        matrix=True,
        data=options.data,
        store=options.store,
        execution=options.execution,
    )
    return svcca.answer(named)


question: Question[Options, Any] = Question("analyses.rq2_svcca", Options, analyse, points)
main = cli.Command("analyses.rq2_svcca", Options, question)
STEPS = [Step.of(main)]

if __name__ == "__main__":
    sys.exit(main())
