"""Statistics: do later blocks need the filters of the source, or only their scale?

As in weight fusion, Blocks 0 (the stem) to K start from the source. Later blocks start from its statistics instead of
from random weights: each tensor is drawn anew from a normal distribution with the mean and standard deviation of the
source's (Raghu et al. 2019, section 5; Matsoukas et al. 2022), or has the source's values in random order, which keeps
their whole distribution. What such a start gains over random weights is scale; what it lacks against the source's
weights is features. Weight fusion itself is the control, with which they are compared place by place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from transferlens import cli
from transferlens.compare.by_block import Analysis, by_block
from transferlens.models.plan import BLOCKS, Statistics, TransferPlan
from transferlens.options import BlockOptions
from transferlens.util.fields import Rule

WORDS = {"normal": "normal values, ImageNet's scale", "permuted": "ImageNet's values, permuted"}


@dataclass(frozen=True, kw_only=True)
class Options(BlockOptions):
    """Start Blocks 0 to K from the source and the others from its statistics: accuracy for each K."""

    statistics: Annotated[tuple[Statistics, ...], Rule("one or more of normal, permuted", bool)] = (
        "normal",
        "permuted",
    )
    """What later blocks start from: normal values, permuted values, or both, next to each other."""


def analysis(statistics: Sequence[Statistics] = ("normal", "permuted")) -> Analysis:
    """Return the plans: for each way of statistics, and for random weights, pretrained through each block."""
    through = (None, *BLOCKS)
    return Analysis(
        name="statistics",
        title="pretrained through a block, behind it random weights or the source's statistics",
        axis="last block that starts pretrained (0 is the stem)",
        plans={"random weights": {k: TransferPlan.fuse(k) for k in through}}
        | {WORDS[how]: {k: TransferPlan.fuse(k, behind=how) for k in through} for how in dict.fromkeys(statistics)},
        control="random weights",
    )


statistics = by_block("statistics", Options, lambda options: analysis(options.statistics))
main = cli.command("statistics", Options, statistics)

if __name__ == "__main__":
    sys.exit(main())
