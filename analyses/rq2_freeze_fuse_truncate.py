"""Question 2: which blocks of the network contain what ImageNet brings? Freezing, fusion, truncation, linear probes.

ESC-10 (5 official folds), three networks, preset quick, one seed. Writes ``freeze`` (Blocks 0 to K frozen), ``fuse``
(Blocks 0 to K pretrained, the others randomly initialised), ``truncate`` (cut after Block K) and ``probe`` (a linear
head on the frozen Block K, with ImageNet weights and with random ones), each .png, .pdf and .csv. Finished runs are not
trained again.

    python -m analyses.rq2_freeze_fuse_truncate --clips path/to/esc10/clips.csv

The options are handed on to the four commands: ``--dataset esc50 --root DIR --backbone densenet201``, for example.
"""

import sys
from dataclasses import dataclass

from analyses import BACKBONES
from transferlens.freeze import main as freeze
from transferlens.fuse import main as fuse
from transferlens.options import QuestionOptions
from transferlens.probe import main as probe
from transferlens.study import Step, script
from transferlens.training.sweep import SweepOptions
from transferlens.truncate import main as truncate

STEPS = [Step.of(each, {"backbone": BACKBONES}) for each in (freeze, fuse, truncate, probe)]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare accuracies by block: frozen through it, pretrained through it, cut after it, a linear head on it."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES)


main = script("analyses.rq2_freeze_fuse_truncate", Options, STEPS)

if __name__ == "__main__":
    sys.exit(main())
