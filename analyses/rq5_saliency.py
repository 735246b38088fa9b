"""Question 5: where on the spectrogram do decisions come from? Integrated Gradients on ESC-10 and the built-in clips.

EfficientNet-Lite0 on fold 1, preset quick, one seed: fine-tuned, from scratch, and before training. Writes ``saliency``
and ``saliency_summary`` (.png, .pdf, .csv) and ``saliency_cascade.csv``. Finished runs are not trained again.

    python -m analyses.rq5_saliency --clips path/to/esc10/clips.csv
    python -m analyses.rq5_saliency --dataset synth --epochs-scratch 72 --figures figures/synth

The options are those of ``python -m transferlens.train`` without those of the plan, and ``--figures``.
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
    """Compare attributions of a network fine-tuned, from scratch and before training, on one fold with one seed."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1], n_folds=1)
    epochs_scratch: Annotated[int | None, at_least(1)] = None
    """Number of epochs from scratch. Default: that of fine-tuning."""


def points(options: Options) -> dict[str, Arm]:
    """Return the fine-tuned runs and those from scratch."""
    study, scratch = Study.of(options), TransferPlan.scratch()
    study.check_one("folds", "seeds")
    training = study.training(scratch)
    if options.epochs_scratch is not None:
        training = replace(training, epochs=options.epochs_scratch)
    return {"pretrained": study.arm(TransferPlan()), "from scratch": study.arm(scratch, training)}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compute attributions of the held-out clips, for every network."""
    ckpt = tuple(run.path for runs_of_arm in runs.values() for run in runs_of_arm)
    groups = {name: getattr(options, name) for name in ("data", "store", "execution")}
    return saliency.answer(Named(ckpt=ckpt, **groups))


question: Question[Options, Any] = Question("analyses.rq5_saliency", Options, analyse, points)
main = cli.Command("analyses.rq5_saliency", Options, question)
STEPS = [Step.of(main), Step.of(main, {"dataset": "synth", "epochs_scratch": 72})]

if __name__ == "__main__":
    sys.exit(main())
