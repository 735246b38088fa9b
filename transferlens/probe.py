"""Linear probes: what of the classes can be read, linearly, off the features of each block?

A head is trained on the pooled output of Block K while everything before it stands still (Alain and Bengio 2016):
once with ImageNet's weights, and once with random ones, without which no probe says what pretraining brought.
Fine-tuning may use what no linear head can read; how far it goes with the same blocks is what `truncate` asks.

A head alone learns slowly and costs little, as the blocks before it run once: by default it has 100 epochs from a rate
of 1e-2, whatever the preset. After the 12 at 1e-3 that fine-tuning is given it is far from done.

References
----------
G. Alain, Y. Bengio: Understanding intermediate layers using linear classifier probes. arXiv 1610.01644, 2016.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions
from transferlens.training.presets import TrainingOptions

ANALYSIS = Analysis(
    name="probe",
    title="a linear head on a frozen block",
    axis="block that is read",
    plans={
        "probe of ImageNet features": {k: TransferPlan.probe(k) for k in BLOCKS[1:]},
        "probe of random features": {k: TransferPlan(None, k, k) for k in BLOCKS[1:]},
    },
)


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Train a linear head on each block of the ImageNet network, and of a random one, held fixed."""

    references: bool = False
    """Train the fully pretrained network and the one from scratch beside them, as long."""
    training: TrainingOptions = TrainingOptions(epochs=100, lr=1e-2)


probe = by_block("probe", Options, lambda options: ANALYSIS)
main = cli.command("probe", Options, probe)

if __name__ == "__main__":
    sys.exit(main())
