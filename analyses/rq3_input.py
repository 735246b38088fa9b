"""Question 3: how far does plain mel input go? Windows, fit, normalisation, ImageNet statistics; and time stretching.

EfficientNet-Lite0, preset quick, one seed, all folds: the paper's three windows against one window on three channels,
clips resized to one width against padded, normalisation per channel against none and against ImageNet's statistics.
Draws ``input_form`` (.png, .pdf, .csv) and writes ``input_form_stretch.csv``.

What it shows, on ESC-10 (changes paired by fold, 95 % intervals, n = 5):

- No form of the input is told from another: against three windows, stretched and normalised (93.5 %), one window is
  1.3 points better (-1.6 to 4.1), padding 1.0 worse (-2.9 to 0.9), no normalisation 1.0 worse (-5.2 to 3.2), ImageNet's
  statistics 1.2 worse (-4.5 to 2.0).
- Resizing to one width undoes time stretching: features of a clip played at 0.9 to 1.2 of its rate change by 16 to 18 %
  of what clips of one class differ by, with padding by 82 to 106 %. What is left, the smear of the windows and of the
  stretching itself, still changes as many predictions (9 to 10.5 % of 200 clips, with padding 6.5 to 8 %).

    python analyses/rq3_input.py --clips path/to/esc10/clips.csv

All options of ``python -m transferlens.input_form``.
"""

import sys

from transferlens import input_form

if __name__ == "__main__":
    sys.exit(input_form.main())
