"""Question 3: how far does plain mel input go? Windows, fit, normalisation, ImageNet statistics; and time stretching.

EfficientNet-Lite0, preset quick, one seed, all folds: the paper's three windows against one window on three channels,
clips resized to one width against padded, normalisation per channel against none and against ImageNet's statistics.
Draws ``input_form`` (.png, .pdf, .csv) and writes ``input_form_stretch.csv``.

    python analyses/rq3_input.py --clips path/to/esc10/clips.csv

All options of ``python -m transferlens.input_form``.
"""

import sys

from transferlens import input_form

if __name__ == "__main__":
    sys.exit(input_form.main())
