"""Reverse fusion: are later blocks of use without the earlier ones that they were trained with?

Only Blocks K to 4 start from the source; the blocks before them are randomly initialised, normalisation layers too. All
blocks are trained, for each K. The axis begins with the fully pretrained network, and ends with training from scratch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions

ANALYSIS = Analysis(
    name="reverse",
    title="pretrained from a block on, randomly initialised before it",
    axis="first block that starts pretrained (0 is the stem)",
    plans={"reverse fusion": {block: TransferPlan.reverse(block) for block in (*BLOCKS, None)}},
)


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Start only Blocks K to 4 from the source and those before from random weights: accuracy for each K."""


reverse = by_block("reverse", Options, lambda options: ANALYSIS)
main = cli.command("reverse", Options, reverse)

if __name__ == "__main__":
    sys.exit(main())
