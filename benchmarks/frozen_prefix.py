"""Frozen blocks run once against frozen blocks run in every epoch: the time a frozen run takes, and the ratio.

    python benchmarks/frozen_prefix.py --clips path/to/esc10/clips.csv

Both sides train the same run of one fold as the trainer does, with a snapshot an epoch; the time to run the frozen
blocks once is in ours. Networks whose ImageNet weights are not installed are frozen at random ones: the work is the
same.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from claims import Claim, report

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.models.plan import TransferPlan
from transferlens.store.config import RunConfig
from transferlens.store.runfile import write_state
from transferlens.training.sweep import Study
from transferlens.training.trainer import Trainer
from transferlens.util.errors import CheckpointError

# Block, and the gain that is aimed at.
GOALS = {3: 2, 4: 5}


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Time frozen runs with the frozen blocks run once, and in every epoch."""

    backbone: tuple[str, ...] = ("tf_efficientnet_lite0", "resnet50")
    """timm's names of the networks."""
    block: tuple[int, ...] = (1, 2, 3, 4)
    """Last frozen blocks."""
    folds: tuple[str, ...] = ()
    """Folds: the first is held out."""
    epochs: int = 12
    """Epochs of a run."""
    plain_epochs: int = 12
    """Epochs that the plain side trains; their time is scaled to those of a run, as they take equal time."""
    cache: Path = Path("cache")
    """Folder of the feature cache."""


def seconds(study: Study, point: RunConfig, epochs: int, *, run_frozen_once: bool) -> tuple[float, float]:
    """Time to set up, and of so many epochs with their snapshots."""
    study.data.forget_outputs()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(point, study.data, study.sources, run_frozen_once=run_frozen_once)
        ready = time.perf_counter()
        for _ in range(epochs):
            trainer.epoch()
            write_state(Path(folder) / "run.h5", trainer.state())
    return ready - start, time.perf_counter() - ready


def frozen(study: Study, block: int) -> RunConfig:
    """One run with the blocks 0 to `block` frozen."""
    try:
        return study.points(TransferPlan.freeze(block))[0]
    except CheckpointError:
        return study.points(TransferPlan(pretrained_through=None, frozen_through=block))[0]


def work(options: Options) -> int:
    """Print a line for each network and block."""
    logging.getLogger("transferlens").setLevel(logging.ERROR)
    data = {field.name: getattr(options, field.name) for field in dataclasses.fields(DataOptions)}
    for backbone in options.backbone:
        study = Study(**data, backbone=(backbone,), epochs=options.epochs, folds=options.folds, cache=options.cache)
        for block in options.block:
            point = frozen(study, block)
            seconds(study, point, 1, run_frozen_once=False)  # what is slow the first time
            set_up, epochs = seconds(study, point, options.plain_epochs, run_frozen_once=False)
            plain = set_up + epochs * options.epochs / options.plain_epochs
            once = sum(seconds(study, point, options.epochs, run_frozen_once=True))
            work = f"run of {options.epochs} epochs, {backbone}, frozen through Block {block}"
            report(Claim(work, "frozen blocks run in every epoch", once, plain, "s", GOALS.get(block, 1)))
    return cli.DONE


main = cli.Command("benchmarks/frozen_prefix.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
