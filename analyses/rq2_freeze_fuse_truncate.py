"""Question 2: which parts of the network hold what ImageNet brings? By blocks: freezing, weight fusion, truncation.

Asked of ESC-10 (5 official folds) with EfficientNet-Lite0, preset quick, one seed. Draws ``freeze``, ``fuse`` and
``truncate`` (.png, .pdf, .csv). What is in the run store is not trained again.

What they show:

- freeze: through Block 3 nothing is lost by holding blocks fixed (93.3 % against 91.7 % fine-tuned). With Block 4 fixed
  too, so that only the head is trained, it is 86.8 %, 6.5 points (2.3 to 10.7) less than through Block 3.
- fuse: pretrained through Block 3 the network is as good as wholly pretrained (92.8 % and 91.7 %); through Block 2 it
  is no better than from scratch (78.8 % and 77.2 %). With less it is worse than from scratch in these 12 epochs.
- truncate: cut after Block 3 the network is as good as whole (92.8 % and 91.7 %) with a fifth of the parameters. Blocks
  2 and 3 are worth 10.5 (1.0 to 20.0) and 11.0 (1.8 to 20.2) points, Block 4 none.

So "Block 3 is crucial" holds here: nothing after it is needed, and without its pretraining 14 points are lost, two
thirds of them to the fresh Block 4 behind it (see the plan grid).

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
