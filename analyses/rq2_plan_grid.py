"""Question 2, seen whole: accuracy over what is pretrained x what is cut, and over what is pretrained x what is frozen.

Asked of ESC-10 (folds 1 and 2) with EfficientNet-Lite0, preset quick, one seed. Draws ``plan_grid`` (.png, .pdf, .csv).
What is in the run store, from freezing, fusion and truncation too, is not trained again.

    python analyses/rq2_plan_grid.py --clips path/to/esc10/clips.csv

Options given are handed to ``python -m transferlens.plan_grid``; all folds are ``--folds 1 2 3 4 5``.
"""

import sys

from transferlens import plan_grid

if __name__ == "__main__":
    sys.exit(plan_grid.main(["--backbone", "tf_efficientnet_lite0", "--folds", "1", "2", *sys.argv[1:]]))
