"""Weight fusion: how much of the ImageNet network must there be?

Palanisamy, Singhania and Yao (2020, section 4.2). The stem and the blocks through K start from ImageNet weights, those
behind them from random ones, normalisation layers too; everything is trained, for each K. Before the first block stands
training from scratch, behind the last the fully pretrained network.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions

ANALYSIS = Analysis(
    name="fuse",
    title="pretrained through a block, randomly initialised behind it",
    axis="last block that starts pretrained (0 is the stem)",
    plans={"weight fusion": {None: TransferPlan.scratch()} | {block: TransferPlan.fuse(block) for block in BLOCKS}},
)


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Start the blocks 0 to K from ImageNet weights and the rest from random ones: accuracy for each K."""


fuse = by_block("fuse", Options, lambda options: ANALYSIS)
main = cli.command("fuse", Options, fuse)

if __name__ == "__main__":
    sys.exit(main())
