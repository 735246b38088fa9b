"""Question 2, seen whole: accuracy over what is pretrained x where the network is cut.

Asked of ESC-10 (the first two folds) with one network, preset quick, one seed. Draws ``plan_grid`` (.png, .pdf, .csv).
Down a column is what more pretrained blocks are worth, along a row what more blocks are worth: it tells what fusion
loses for want of pretraining from what it loses to the fresh blocks behind. What is in the run store, from freezing,
fusion and truncation too, is not trained again.

    python -m analyses.rq2_plan_grid --clips path/to/esc10/clips.csv

Options given are handed to ``python -m transferlens.plan_grid``; all five folds are ``--n-folds 5``, and ``--maps
truncate freeze`` adds what is pretrained x what is frozen.
"""

import sys

from analyses import BACKBONES
from transferlens import cli
from transferlens.plan_grid import Options, plan_grid
from transferlens.plan_grid import main as command
from transferlens.study import Step
from transferlens.training.sweep import SweepOptions

DEFAULT = Options(sweep=SweepOptions(backbone=BACKBONES[:1], n_folds=2), maps=("truncate",))

main = cli.Command("analyses.rq2_plan_grid", Options, plan_grid, DEFAULT)
STEPS = [Step(command, DEFAULT)]

if __name__ == "__main__":
    sys.exit(main())
