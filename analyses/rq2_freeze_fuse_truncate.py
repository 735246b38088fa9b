"""Question 2: which parts of the network hold what ImageNet brings? By blocks: freezing, fusion, truncation, probes.

Asked of ESC-10 (5 official folds) with three networks, preset quick, one seed. Draws ``freeze`` (blocks 0 to K held
fixed), ``fuse`` (blocks 0 to K pretrained, the rest fresh), ``truncate`` (cut after Block K) and ``probe`` (a linear
head on Block K held fixed, with ImageNet's weights and with random ones), each .png, .pdf and .csv. What is in the run
store is not trained again.

    python -m analyses.rq2_freeze_fuse_truncate --clips path/to/esc10/clips.csv

Options given are handed to the four commands, such as ``--dataset esc50 --root DIR --backbone densenet201 resnet50
inception_v3``.
"""

import sys
from dataclasses import dataclass

from analyses import BACKBONES
from transferlens import cli
from transferlens.freeze import main as freeze
from transferlens.fuse import main as fuse
from transferlens.options import QuestionOptions
from transferlens.probe import main as probe
from transferlens.study import Step, handed_on, perform
from transferlens.training.sweep import SweepOptions
from transferlens.truncate import main as truncate

STEPS = [Step.of(each, {"backbone": BACKBONES}) for each in (freeze, fuse, truncate, probe)]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Accuracy by block: frozen through it, pretrained through it, cut after it, and of a linear head on it."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES)


def work(options: Options) -> int:
    """Ask the four questions."""
    given = handed_on(options)
    return perform([step.given(given) for step in STEPS], dry_run=options.output.dry_run)


main = cli.Command("analyses.rq2_freeze_fuse_truncate", Options, work)

if __name__ == "__main__":
    sys.exit(main())
