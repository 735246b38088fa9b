"""Controls of the whole pipeline: permuted labels, and sounds whose needed block is known.

Negative: the labels of each fold are permuted among its recordings, and the questions that the study's main claims rest
on are asked again (pretraining, fusion, truncation; one network). Accuracies must be at chance, and no difference above
0: a claim that survives is not of the sounds. Positive: in ``synth-order`` a network that is cut after Block 2 cannot
tell the classes, whatever it learns, and one cut after Block 3 can; in ``synth-texture`` Block 3 is not needed. Writes
the figures and tables of these commands, in one folder for each data set.

    python -m analyses.controls --clips path/to/esc10/clips.csv

The options are handed on to the commands.
"""

import sys
from dataclasses import dataclass
from typing import Any

from analyses import BACKBONES, placed
from transferlens import cli
from transferlens.fuse import main as fuse
from transferlens.options import QuestionOptions
from transferlens.pretraining import main as pretraining
from transferlens.study import Step, handed_on, perform
from transferlens.training.sweep import SweepOptions
from transferlens.truncate import main as truncate

SEED = 0  # of the permutation
KNOWN = ("synth-order", "synth-texture")
BLOCKS = {"block": (2, 3)}


def _of(command: Any, **values: Any) -> Step:
    return Step.of(command, {"backbone": BACKBONES[:1], **values})


STEPS = [
    _of(pretraining, long="none", permute_labels=SEED),
    _of(fuse, **BLOCKS, permute_labels=SEED),
    _of(truncate, **BLOCKS, permute_labels=SEED),
    *(_of(truncate, dataset=name, **BLOCKS) for name in KNOWN),
]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Ask with permuted labels, and of sounds whose needed block is known."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1])


def work(options: Options) -> int:
    """Do all steps."""
    given = handed_on(options, *vars(options.data))
    data = {name: value for name, value in vars(options.data).items() if name != "permute_labels"}
    steps = [placed(step.given(given), options.data.open().name, data, options.output.figures) for step in STEPS]
    return perform(steps, dry_run=options.output.dry_run)


main = cli.Command("analyses.controls", Options, work)

if __name__ == "__main__":
    sys.exit(main())
