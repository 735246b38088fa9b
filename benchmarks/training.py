"""Training steps, and an augmented epoch, against the loop one writes first: fp32, contiguous, augmented by workers.

    python benchmarks/training.py --clips path/to/esc10/clips.csv

Steps: features are in memory either way; ours is the trainer's step, with its precision and memory order. Epoch: the
other side's loader workers shift, stretch and transform waveforms by librosa, as the paper's released code does; ours
draws from what was rendered before, whose time, once for all runs, is printed beside. Networks start at random weights:
the work is the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import timm
import torch
from claims import Claim, apart, report

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.models.device import pick_device
from transferlens.models.plan import TransferPlan
from transferlens.training import objective
from transferlens.training.sweep import Study
from transferlens.training.trainer import Trainer

# Network and the gain that is aimed at on a CPU and on a GPU, in a step.
GOALS = {"tf_efficientnet_lite0": (1.8, 2), "densenet201": (2.5, 2), "resnet50": (3, 2)}
EPOCH_GOAL = 4


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Steps and an augmented epoch, both ways."""

    backbone: tuple[str, ...] = tuple(GOALS)
    """timm's names of the networks whose steps are timed."""
    epoch: str = "resnet50"
    """The network whose augmented epoch is timed."""
    batch_size: int = 32
    """Clips in a batch."""
    steps: int = 3
    """Steps that are timed, after one that is not."""
    n_clips: int = 64
    """Clips of the augmented epoch."""
    device: str = "auto"
    """auto, cpu or cuda."""


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Loop:
    """The loop one writes first; in a process of its own, which ours would else have tuned."""

    def __init__(self, name: str, n_classes: int, device: torch.device) -> None:
        self.network, self.device = timm.create_model(name, num_classes=n_classes).to(device).train(), device
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.network(x.to(self.device)), y.to(self.device))
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Waveforms(torch.utils.data.Dataset):
    """Clips that are augmented as they are asked for."""

    def __init__(self, clips: list[np.ndarray], labels: np.ndarray, settings: object) -> None:
        self.clips, self.labels, self.settings = clips, labels, settings

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng()
        y = librosa.effects.pitch_shift(self.clips[i], sr=self.settings.sr, n_steps=int(rng.integers(-2, 3)))
        y = librosa.effects.time_stretch(y, rate=rng.uniform(0.9, 1.2))
        return torch.from_numpy(self.settings.compute(y, self.settings.sr)), int(self.labels[i])


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time of some work [s], after once that is not timed."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def plain_steps(name: str, device: torch.device, x: np.ndarray, y: np.ndarray, n_classes: int, steps: int) -> float:
    """Seconds of a plain step."""
    loop = Loop(name, n_classes, device)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    return timed(lambda: loop.step(x, y), device, steps)


def plain_epoch(
    name: str, device: torch.device, clips: list[np.ndarray], labels: np.ndarray, settings: object, batch_size: int
) -> float:
    """Seconds of a plain epoch, its loader's workers started before."""
    loader = torch.utils.data.DataLoader(
        Waveforms(clips, labels, settings),
        batch_size=batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    loop = Loop(name, int(labels.max()) + 1, device)
    return timed(lambda: [loop.step(*batch) for batch in loader], device, 1)


def step_claim(study: Study, name: str, options: Options) -> Claim:
    """The median of some steps."""
    (point,) = study.points(TransferPlan.scratch())
    trainer, data = Trainer(point, study.data), study.data
    rows = trainer.rows[: options.batch_size]
    x, y = data.cache.load()[rows], data.labels[rows]
    other = apart(plain_steps, name, data.device, x, y, len(data.label_names), options.steps)

    def step() -> None:
        (batch,) = trainer._batches([rows])
        loss = objective.loss(trainer._forward, batch, torch.from_numpy(y).to(batch.device), point.training)
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimizer.step()

    trainer.network.train()
    own = timed(step, data.device, options.steps)
    goal = GOALS.get(name, (1, 1))[data.device.type == "cuda"]
    rate = f"{options.batch_size / own:.0f} clips a second in {trainer.provenance['precision']}"
    return Claim(f"training step, {name}, batch {options.batch_size}", "plain fp32", own, other, "s", goal, rate)


def epoch_claim(study: Study, rendered: float, options: Options) -> Claim:
    """One epoch over some clips."""
    data, name = study.data, options.epoch
    (point,) = study.points(TransferPlan.scratch())
    trainer = Trainer(point, data)
    trainer.rows = trainer.rows[: options.n_clips]
    waveforms = [data.dataset.load(data.dataset.clips[i]) for i in trainer.rows]
    labels = data.labels[trainer.rows]
    theirs = apart(plain_epoch, name, data.device, waveforms, labels, study.settings, options.batch_size)
    ours = timed(lambda: trainer._train(1), data.device, 1)
    beside = f"rendering 8 variants of {len(data.dataset.clips)} clips, once for all runs: {rendered:.0f} s"
    work = f"training epoch, augmented, {name}, {options.n_clips} clips"
    return Claim(work, "plain fp32, librosa in 2 loader workers", ours, theirs, "s", EPOCH_GOAL, beside)


def work(options: Options) -> int:
    """Time steps, then the epoch."""
    data = {name: getattr(options, name) for name in DataOptions.__dataclass_fields__}
    pick_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        common = {**data, "cache": Path(folder), "device": options.device, "batch_size": options.batch_size}
        for name in options.backbone:
            made = Study(backbone=(name,), folds=made_fold(common), **common)
            report(step_claim(made, name, options))
        made = Study(backbone=(options.epoch,), folds=made_fold(common), augment="spectrum", **common)
        made.data.cache.fill()
        start = time.perf_counter()
        made.data.variants(made.training(TransferPlan.scratch()).augmentation)
        report(epoch_claim(made, time.perf_counter() - start, options))
    return cli.DONE


def made_fold(common: dict) -> tuple[str, ...]:
    """The first fold."""
    return (Study(**common).folds[0],)


main = cli.Command("benchmarks/training.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
