"""Question 1: what does ImageNet pretraining gain for sound, and does longer training from scratch make up for it?

ESC-10 (5 official folds), three networks, preset quick, one seed: fine-tuned from ImageNet, from scratch for as many
epochs (12), and the first network from scratch for six times as many (72). Writes ``pretrained_vs_scratch`` (.png,
.pdf, .csv). Finished runs are not trained again.

    python -m analyses.rq1_pretrained_vs_scratch --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.pretraining``: ``--dataset esc50 --root DIR --backbone densenet201
resnet50 inception_v3 --preset paper`` makes the paper's table.
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
