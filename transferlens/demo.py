"""A first look on the built-in clips: networks pretrained and from scratch, with figures."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlens import cli
from transferlens.options import FigureOptions
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import StoreOptions
from transferlens.util.fields import Fields, build, flat


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Train EfficientNet-Lite0 on the built-in clips, pretrained and from scratch, and draw what pretraining brings.

    Two folds and two epochs: about a minute on two cores. The command `pretraining` uses all folds and more epochs.
    """

    store: StoreOptions = StoreOptions()
    execution: DeviceOptions = DeviceOptions()
    output: FigureOptions = FigureOptions(figures=Path("figures/demo"))


def _composed(options: Options) -> Any:
    """Return the options of the command `pretraining` with the settings of the demo."""
    settings = {"folds": ("1", "2"), "epochs": 2, "long": "none"} | flat(options)
    return build(cli.load("pretraining").options, settings)


main = cli.Command(
    "demo",
    Options,
    lambda options: cli.load("pretraining").run(_composed(options)),
    arms=lambda options: cli.load("pretraining").points(_composed(options)),
)

if __name__ == "__main__":
    sys.exit(main())
