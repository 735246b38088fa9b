"""Question 2: which parts of the network hold what ImageNet brings? By blocks: freezing, fusion, truncation, probes.

Asked of ESC-10 (5 official folds) with three networks, preset quick, one seed. Draws ``freeze`` (blocks 0 to K held
fixed), ``fuse`` (blocks 0 to K pretrained, the rest fresh), ``truncate`` (cut after Block K) and ``probe`` (a linear
head on Block K held fixed, with ImageNet's weights and with random ones), each .png, .pdf and .csv. What is in the run
store is not trained again.

    python -m analyses.rq2_freeze_fuse_truncate --clips path/to/esc10/clips.csv

Options given are handed to the four commands, such as ``--dataset esc50 --root DIR --backbone densenet201 resnet50
inception_v3``.
"""

import sys

from analyses import BACKBONES
from transferlens.study import Step, script

STEPS = [Step(command, {"backbone": BACKBONES}) for command in ("freeze", "fuse", "truncate", "probe")]

main = script(STEPS)

if __name__ == "__main__":
    sys.exit(main())
