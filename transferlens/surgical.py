"""Surgical fine-tuning: which single block must be trained?

All blocks start from the source. Only Block K and the head are trained, for each K [1]_; all other blocks
are frozen, BatchNorm statistics too. The axis begins with the head alone, the linear probe of Block 4, which is the
control.

References
----------
.. [1] Y. Lee, A. S. Chen, F. Tajwar, A. Kumar, H. Yao, P. Liang, C. Finn: Surgical fine-tuning improves adaptation to
   distribution shifts. ICLR 2023.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, LAST, TransferPlan
from transferlens.options import BlockOptions

ANALYSIS = Analysis(
    name="surgical",
    title="one block trained",
    axis="block that is trained besides the head (0 is the stem)",
    plans={
        "one block and the head": {None: TransferPlan.freeze(LAST)}
        | {block: TransferPlan.surgical(block) for block in BLOCKS}
    },
)


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Train only Block K of the pretrained network and the head: accuracy for each K."""


surgical = by_block("surgical", Options, lambda options: ANALYSIS)
main = cli.command("surgical", Options, surgical)

if __name__ == "__main__":
    sys.exit(main())
