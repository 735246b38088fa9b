"""Freezing: how much of the ImageNet network can stay as it is?

All blocks start pretrained. Blocks 0 (the stem) to K are frozen and the others are trained, for each K (Palanisamy,
Singhania and Yao 2020, section 4.2).

A BatchNorm layer has weights, which the optimiser trains, and running statistics, which every forward pass in training
mode updates, even if the weights are frozen. ``--bn fixed``, the default, freezes both: a frozen block computes what
the ImageNet network computed, during training and after it. ``--bn updating`` freezes only the weights, as
``requires_grad = False`` in the released training loop of the paper does: frozen blocks normalise by each mini-batch in
training, and by updated statistics afterwards. "Frozen" experiments often disagree for this reason; ``--bn fixed
updating`` draws both next to each other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions
from transferlens.util.fields import Rule


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Freeze Blocks 0 to K of the ImageNet network and train the others: accuracy for each K."""

    bn: Annotated[tuple[Literal["fixed", "updating"], ...], Rule("one or more of fixed, updating", bool)] = ("fixed",)
    """BatchNorm statistics of frozen blocks: fixed, updating (as in the paper), or both, next to each other."""


def analysis(bn: Sequence[Literal["fixed", "updating"]] = ("fixed",)) -> Analysis:
    """Return the plans: frozen through each block, for each way of BatchNorm."""
    return Analysis(
        name="freeze",
        title="frozen through a block",
        axis="last block held fixed (0 is the stem)",
        plans={
            f"BatchNorm {how}": {None: TransferPlan.finetune()}
            | {block: TransferPlan.freeze(block, bn=how) for block in BLOCKS}
            for how in dict.fromkeys(bn)
        },
    )


freeze = by_block("freeze", Options, lambda options: analysis(options.bn))
main = cli.command("freeze", Options, freeze)

if __name__ == "__main__":
    sys.exit(main())
