"""Question 3: how far does plain mel input go? Windows, fit, normalisation, ImageNet statistics; and time stretching.

Asked of ESC-10 (5 official folds) with one network, preset quick, one seed: the paper's three windows against one
window on three channels, clips resized to one width against padded, normalisation per channel against none and against
ImageNet's statistics. Draws ``input_form`` (.png, .pdf, .csv) and writes ``input_form_stretch.csv``.

    python -m analyses.rq3_input --clips path/to/esc10/clips.csv

Options given are handed to ``python -m transferlens.input_form``.
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
