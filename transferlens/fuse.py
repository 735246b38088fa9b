"""Weight fusion: how many blocks must start from ImageNet weights?

Blocks 0 (the stem) to K start from ImageNet weights; later blocks are randomly initialised, normalisation layers too.
All blocks are trained, for each K (Palanisamy, Singhania and Yao 2020, section 4.2). The axis begins with training from
scratch, and ends with the fully pretrained network.
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
    """Start Blocks 0 to K from ImageNet weights and the others from random weights: accuracy for each K."""


fuse = by_block("fuse", Options, lambda options: ANALYSIS)
main = cli.command("fuse", Options, fuse)

if __name__ == "__main__":
    sys.exit(main())
