"""Question 1: what is ImageNet pretraining worth for sound, and does longer training from scratch make up for it?

Asked of ESC-10 (5 official folds) with three networks, preset quick, one seed: fine-tuned from ImageNet, from scratch
for as many epochs (12), and the first network from scratch for six times as many (72). Draws
``pretrained_vs_scratch`` (.png, .pdf, .csv). What is in the run store is not trained again.

    python -m analyses.rq1_pretrained_vs_scratch --clips path/to/esc10/clips.csv

Options given are handed to ``python -m transferlens.pretraining``, so that other data, backbones and presets are a
matter of the command line: ``--dataset esc50 --root DIR --backbone densenet201 resnet50 inception_v3 --preset paper``
is the paper's own table.
"""

import sys

from analyses import BACKBONES
from transferlens import cli
from transferlens.pretraining import Options, pretraining
from transferlens.pretraining import main as command
from transferlens.study import Step
from transferlens.training.sweep import SweepOptions

DEFAULT = Options(sweep=SweepOptions(backbone=BACKBONES), long="first")

main = cli.Command("analyses.rq1_pretrained_vs_scratch", Options, pretraining, DEFAULT)
STEPS = [Step(command, DEFAULT)]

if __name__ == "__main__":
    sys.exit(main())
