"""The main job on the built-in data set, small enough for a first look: pretrained against scratch, with figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transferlens import cli, pretraining


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train EfficientNet-Lite0 on the built-in clips, pretrained and from scratch, and draw what pretraining brings.

    Two folds and two epochs: about a minute on two cores. The whole question, with all folds, six times the epochs, and
    longer training from scratch beside it, is ``python -m transferlens.pretraining``.
    """

    figures: Path = Path("figures/demo")
    """Folder for pretrained_vs_scratch.png, .pdf and .csv."""
    runs: Path = Path("runs")
    """Folder of the run store: what is there is not trained again."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""
    device: str = "auto"
    """auto (cuda, mps, cpu: the first there is), or torch's name of a device."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Run `transferlens.pretraining` with the demo's settings."""
    options = cli.parse(Options, argv, prog="demo")
    folders = [f"--{name}={getattr(options, name)}" for name in ("figures", "runs", "cache", "device")]
    return pretraining.main(["--folds", "1", "2", "--epochs", "2", "--long", "none", *folders])


if __name__ == "__main__":
    sys.exit(main())
