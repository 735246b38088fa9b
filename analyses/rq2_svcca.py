"""Question 2, by representation: how far does each layer move when an ImageNet network is fine-tuned on ESC-10?

EfficientNet-Lite0 on fold 1, preset quick, fine-tuned and from scratch, two seeds each. Compares every run with its own
start, and the two seeds with each other (the noise floor). Writes ``svcca`` and ``svcca_matrix`` (.png, .pdf, .csv) and
``svcca_weights.csv``. Finished runs are not trained again.

    python -m analyses.rq2_svcca --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.train`` without those of the plan, and ``--figures``.
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
    """Compare the layers of one network before and after training, fine-tuned and from scratch, on one fold."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1], n_folds=1, seeds=(0, 1))


def points(options: Options) -> dict[str, Arm]:
    """Return the fine-tuned runs and those from scratch."""
    study = Study.of(options)
    study.check_one("backbone", "folds")
    return {"pretrained": study.arm(TransferPlan()), "from scratch": study.arm(TransferPlan.scratch())}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare every run with its start, and runs of two seeds."""
    ckpt = tuple(run.path for runs_of_arm in runs.values() for run in runs_of_arm)
    groups = {name: getattr(options, name) for name in ("data", "store", "execution")}
    return svcca.answer(Named(ckpt=ckpt, matrix=True, **groups))


question: Question[Options, Any] = Question("analyses.rq2_svcca", Options, analyse, points)
main = cli.Command("analyses.rq2_svcca", Options, question)
STEPS = [Step.of(main)]

if __name__ == "__main__":
    sys.exit(main())
