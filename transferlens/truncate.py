"""Truncation: how deep must the ImageNet network be?

The pretrained network is cut after Block K and trained, for each K (Palanisamy, Singhania and Yao 2020, section 4.2).
In every architecture, only global average pooling and a linear head follow Block K. The blocks that are cut are neither
computed nor stored.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions

ANALYSIS = Analysis(
    name="truncate",
    title="cut after a block",
    axis="last block kept",
    plans={"truncation": {block: TransferPlan.truncate(block) for block in BLOCKS[1:]}},
    shows_cost=True,
)


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Cut the ImageNet network after Block K and train the rest: accuracy, parameters and multiply-adds for each K."""


truncate = by_block("truncate", Options, lambda options: ANALYSIS)
main = cli.command("truncate", Options, truncate)

if __name__ == "__main__":
    sys.exit(main())
