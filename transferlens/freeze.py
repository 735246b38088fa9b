"""Freezing: how much of the ImageNet network can stay as it is?

Palanisamy, Singhania and Yao (2020, section 4.2). Everything starts pretrained; the stem and the blocks through K are
held fixed while the rest is trained, for each K.

A BatchNorm layer has two kinds of numbers: weights, which the optimiser trains, and running statistics, which every
forward pass in training mode overwrites whether or not its weights are frozen. ``--bn fixed``, the default, holds both,
so that a frozen block computes in training, in evaluation and after training what the ImageNet network computed; ``--bn
updating`` holds the weights alone, as ``requires_grad = False`` does and as the paper's released training did, so that
frozen blocks normalise by each batch in training and by new statistics afterwards. It is the difference that most often
makes two "frozen" experiments disagree: ``--bn fixed updating`` draws both beside each other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, TransferPlan
from transferlens.options import BlockOptions
from transferlens.util.errors import ParameterError


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Hold the blocks 0 to K of the ImageNet network fixed and train the rest: accuracy for each K."""

    bn: tuple[Literal["fixed", "updating"], ...] = ("fixed",)
    """BatchNorm statistics of frozen blocks: fixed, updating (the paper's), or both beside each other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bn:
            raise ParameterError("bn must name at least one of fixed, updating")


def analysis(bn: Sequence[Literal["fixed", "updating"]] = ("fixed",)) -> Analysis:
    """Return the plans: frozen through each block."""
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
