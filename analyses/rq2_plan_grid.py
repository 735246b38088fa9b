"""Question 2, the whole plan space: accuracy over pretrained blocks x kept blocks.

ESC-10 (the first two folds), one network, preset quick, one seed. Writes ``plan_grid`` (.png, .pdf, .csv). A column
shows what more pretrained blocks gain, a row what more blocks gain: this separates what fusion loses without
pretraining from what it loses by its randomly initialised blocks. Finished runs, those of the other scripts too, are
not trained again.

    python -m analyses.rq2_plan_grid --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.plan_grid``: ``--n-folds 5`` uses all folds, and ``--maps truncate
freeze`` adds pretrained x frozen blocks.
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
