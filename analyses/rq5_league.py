"""Question 5: which method of attribution can be believed? A league on ESC-10 and on the built-in sounds.

EfficientNet-Lite0 on all folds, preset quick, one seed, fine-tuned. Writes ``league`` (.png, .pdf, .csv) and its
further tables. Settings of a method are chosen on other folds than those it is scored on. Finished runs are not trained
again.

    python -m analyses.rq5_league --clips path/to/esc10/clips.csv
    python -m analyses.rq5_league --dataset synth --figures figures/synth

The options are those of ``python -m transferlens.train`` without those of the plan, and ``--figures``.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyses import BACKBONES
from transferlens import cli
from transferlens.compare.question import Question
from transferlens.league import Options as Named
from transferlens.league import league
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.store.run import Run
from transferlens.study import Step
from transferlens.training.sweep import Arm, Study, SweepOptions


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare methods of attribution on the held-out clips of all folds."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1])


def points(options: Options) -> dict[str, Arm]:
    """Return the fine-tuned runs."""
    return {"pretrained": Study.of(options).arm(TransferPlan())}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Any:
    """Compare the methods."""
    ckpt = tuple(run.path for run in runs["pretrained"])
    return league.answer(Named(ckpt=ckpt, data=options.data, store=options.store, execution=options.execution))


question: Question[Options, Any] = Question("analyses.rq5_league", Options, analyse, points)
main = cli.Command("analyses.rq5_league", Options, question)
STEPS = [Step.of(main), Step.of(main, {"dataset": "synth"})]

if __name__ == "__main__":
    sys.exit(main())
