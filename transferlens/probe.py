"""Linear probes: how well can a linear classifier tell the classes apart from the features of each block?

A linear head is trained on the pooled output of Block K, and all blocks are frozen [1]_: once with ImageNet weights,
and once with random weights, which show what the architecture gives without pretraining. Fine-tuning may use features
that no linear head can use; `truncate` fine-tunes the same blocks.

A head learns slowly and costs little, as the frozen blocks are computed once. By default it is trained for 100 epochs
at a learning rate of 1e-2, whatever the preset; the 12 epochs at 1e-3 of fine-tuning are by far not enough.

References
----------
.. [1] G. Alain, Y. Bengio: Understanding intermediate layers using linear classifier probes. arXiv 1610.01644, 2016.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions
from transferlens.training.presets import PROBE, TrainingOptions

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
    """Train a linear head on each frozen block, of the ImageNet network and of a random one: accuracy by block."""

    references: bool = False
    """Train two references for as many epochs: the fully pretrained network, and the network from scratch."""
    training: TrainingOptions = PROBE


probe = by_block("probe", Options, lambda options: ANALYSIS)
main = cli.command("probe", Options, probe)

if __name__ == "__main__":
    sys.exit(main())
