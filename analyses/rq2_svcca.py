"""Question 2, by representation: how far does each layer move when an ImageNet network is fine-tuned on ESC-10?

EfficientNet-Lite0 on fold 1, preset quick, fine-tuned and from scratch, two seeds each: every run against its own
start, and the two seeds against each other (the noise floor). Draws ``svcca`` and ``svcca_matrix`` (.png, .pdf, .csv)
and writes ``svcca_weights.csv``. What is in the run store is not trained again.

What it shows (80 clips, SVCCA at the end of Blocks 0 to 4; 95 % bootstrap over clips within 0.03 of each):

- Fine-tuned networks keep their early features and change more with every block: seed 0 0.94, 0.90, 0.79, 0.54, 0.67,
  seed 1 0.94, 0.90, 0.79, 0.55, 0.66. (Block 4 has too few samples a neuron, and is flagged.)
- They change together: two seeds are more alike than either is to its start (0.99, 0.95, 0.90, 0.68, 0.70), so that
  what training changes is no noise. The way to this floor is longest at the ends of Blocks 2 and 3 (0.12, 0.14).
- From scratch the same number of epochs turns everything over: 0.82, 0.48, 0.32, 0.27, 0.53 (seed 1: 0.88, 0.45, 0.28,
  0.26, 0.50), and two seeds are less alike still (0.47, 0.28, 0.20, 0.21, 0.51), though weights move by as much.

    python analyses/rq2_svcca.py --clips path/to/esc10/clips.csv

All options of ``python -m transferlens.train`` but those of the plan; the figures go to ``--figures``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferlens import cli, svcca
from transferlens.plan import TransferPlan
from transferlens.sweep import Study, SweepOptions


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions):
    """Weight change of fine-tuned networks and of networks from scratch, with the noise floor."""

    backbone: tuple[str, ...] = ("tf_efficientnet_lite0",)
    """One network."""
    folds: tuple[str, ...] = ("1",)
    """The held-out fold."""
    seeds: tuple[int, ...] = (0, 1)
    """Two or more, for the noise floor."""
    figures: Path = Path("figures")
    """Folder for the figures and tables."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then compare."""
    options = cli.parse(Options, argv, prog="analyses/rq2_svcca.py")
    study = Study(options)
    study.check_one("backbone", "folds")
    plans = {"pretrained": TransferPlan(), "from scratch": TransferPlan.scratch()}
    arms = study.gather_arms({name: study.points(plan) for name, plan in plans.items()})
    paths = [str(run.path) for runs in arms.values() for run in runs]
    study.cache.fill()
    places = ["--cache", str(options.cache), "--figures", str(options.figures), "--device", options.device]
    return svcca.main(["--matrix", *places, "--ckpt", *paths])


if __name__ == "__main__":
    sys.exit(main())
