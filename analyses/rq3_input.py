"""Question 3: how should the log-mel input be made? Windows, fit, normalisation, ImageNet statistics; time stretching.

ESC-10 (5 official folds), one network, preset quick, one seed: the paper's three windows against one window for all
channels, clips resized to one width against padded clips, normalisation per channel against none and against ImageNet
statistics. Writes ``input_form`` (.png, .pdf, .csv) and ``input_form_stretch.csv``. Finished runs are not trained
again.

    python -m analyses.rq3_input --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.input_form``.
"""

import sys

from analyses import BACKBONES
from transferlens import cli
from transferlens.input_form import Options, input_form
from transferlens.input_form import main as command
from transferlens.study import Step
from transferlens.training.sweep import SweepOptions

DEFAULT = Options(sweep=SweepOptions(backbone=BACKBONES[:1]))

main = cli.Command("analyses.rq3_input", Options, input_form, DEFAULT)
STEPS = [Step(command, DEFAULT)]

if __name__ == "__main__":
    sys.exit(main())
