"""Question 2: which parts of the network hold what ImageNet brings? By blocks: freezing, weight fusion, truncation.

Asked of ESC-10 (5 official folds) with EfficientNet-Lite0, preset quick, one seed. Draws ``freeze``, ``fuse`` and
``truncate`` (.png, .pdf, .csv). What is in the run store is not trained again.

    python analyses/rq2_freeze_fuse_truncate.py --clips path/to/esc10/clips.csv

Options given are handed to the three commands, such as ``--dataset esc50 --root DIR --backbone densenet201 resnet50
inception_v3 --preset paper``.
"""

import sys

from transferlens import freeze, fuse, truncate

if __name__ == "__main__":
    argv = ["--backbone", "tf_efficientnet_lite0", *sys.argv[1:]]
    for command in (freeze, fuse, truncate):
        if code := command.main(argv):
            sys.exit(code)
