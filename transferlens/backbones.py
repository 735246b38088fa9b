"""Show the five blocks of backbones: ``python -m transferlens.backbones densenet201 resnet50``.

Every convolutional model of timm with four spatial stages is a backbone, and so are ViT, DeiT, Swin, MaxViT and
CoAtNet; `transferlens.models.network` finds their stem and their four blocks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tyro

from transferlens import cli

# What users import from here lives in folders.
from transferlens.models.build import BlockRow, Cost, block_table, build, check, cost, imagenet_state, skeleton
from transferlens.util.errors import ParameterError
from transferlens.util.terminal import say

__all__ = ["BlockRow", "Cost", "block_table", "build", "check", "cost", "imagenet_state", "skeleton"]


@dataclass(frozen=True)
class Options:
    """Print the five blocks of each backbone: channels, stride, parameters, multiply-adds and modules."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """Names of timm, such as densenet201 resnet50."""

    input: tuple[int, int] = (128, 250)
    """Height and width of the input for which multiply-adds are counted [pixels]: those of convolutions, linear layers
    and attention."""


def _lines(rows: Sequence[BlockRow]) -> Iterator[str]:
    yield "block channels stride   parameters mult-adds  share  modules"
    for row in rows:
        yield (
            f"{row.block:>5} {row.channels:>8} {row.stride:>6} {row.parameters:>12,} "
            f"{row.multiply_adds / 1e6:>8.1f}M {row.share:>6.1%}  {' '.join(row.modules)}"
        )
    parameters, multiply_adds = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    yield f"{'all':>5} {'':>8} {'':>6} {parameters:>12,} {multiply_adds / 1e6:>8.1f}M {1:>6.1%}"


def work(options: Options) -> int:
    """Print one table per backbone."""
    if not options.names:
        raise ParameterError("names must hold at least one backbone, such as densenet201")
    for name in options.names:
        rows = block_table(name, input_size=options.input)
        say(f"{name}, input {options.input[0]}x{options.input[1]}", *_lines(rows))
    return cli.DONE


main = cli.command("backbones", Options, work)

if __name__ == "__main__":
    sys.exit(main())
