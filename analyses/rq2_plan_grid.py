"""Question 2, seen whole: accuracy over what is pretrained x what is cut, and over what is pretrained x what is frozen.

Asked of ESC-10 (folds 1 and 2) with EfficientNet-Lite0, preset quick, one seed. Draws ``plan_grid`` (.png, .pdf, .csv).
What is in the run store, from freezing, fusion and truncation too, is not trained again. The committed figure has the
first map alone:

    python analyses/rq2_plan_grid.py --maps truncate --clips path/to/esc10/clips.csv

What it shows: at every depth what is pretrained decides (down a column), and a fresh block at the end costs more than
it brings: pretrained through Block 2, the network cut after a fresh Block 3 reaches 88.1 %, and with a fresh Block 4
behind it 78.8 %. From scratch, too, the network cut after Block 3 (80.0 %) is no worse than the whole one (76.2 %).

Options given are handed to ``python -m transferlens.plan_grid``; all folds are ``--folds 1 2 3 4 5``.
"""

import sys

from transferlens import plan_grid

if __name__ == "__main__":
    sys.exit(plan_grid.main(["--backbone", "tf_efficientnet_lite0", "--folds", "1", "2", *sys.argv[1:]]))
