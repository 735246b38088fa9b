"""Normalisation layers: how much can they change alone?

In Blocks 0 (the stem) to K only the normalisation layers are trained, for each K; behind them all is trained. At K = 4
they and the head are all that is trained. The same with random weights shows what normalisation layers alone can do
with random filters [1]_, and is the control.

References
----------
.. [1] J. Frankle, D. J. Schwab, A. S. Morcos: Training BatchNorm and only BatchNorm: on the expressive power of random
   features in CNNs. ICLR 2021.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions

ANALYSIS = Analysis(
    name="norm",
    title="only normalisation layers trained through a block",
    axis="last block of which only normalisation is trained (0 is the stem)",
    plans={
        words: {block: TransferPlan.norm(block, pretrained=pretrained) for block in (None, *BLOCKS)}
        for words, pretrained in (("from ImageNet", True), ("from random weights", False))
    },
    control="from random weights",
)


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Train only the normalisation layers of Blocks 0 to K, pretrained and random: accuracy for each K."""


norm = by_block("norm", Options, lambda options: ANALYSIS)
main = cli.command("norm", Options, norm)

if __name__ == "__main__":
    sys.exit(main())
