"""What a run is: one point of the space that all experiments lie in, and the id that its file is called by."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transferlens.features.augment import KINDS, Augmentation
from transferlens.features.logmel import HOPS, WINDOWS, FeatureSettings
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError
from transferlens.util.files import content_hash

__all__ = ["RunConfig", "Training"]


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes
    ----------
    epochs : int > 0
    batch_size : int > 1 [clips]
    lr : float > 0, at the start
    weight_decay : float >= 0
    optimizer : "adam" (L2 penalty, the paper's) or "adamw" (decoupled)
    schedule : "cosine" (to 0, a step at a time), "step" (lr / 10 at each milestone) or "constant"
    milestones : tuple of int [epochs], for "step"
    normalise : "none" (the paper), "channel" (zero mean, unit deviation of each channel over the training folds) or
        "imagenet" (the training folds' range made 0 to 1, then ImageNet's mean and deviation of each colour)
    precision : "auto" (bf16 autocast where the processor or GPU has it), "bf16" or "fp32"
    augment : "none", "spectrum", "waveform" or "released": how training clips are pitch shifted and stretched; see
        `transferlens.augment`
    variants : int >= 0, renderings of a clip, of which training draws one an epoch. 0 stands for 8, and is all there
        is without augmentation
    masks : int >= 0, of SpecAugment along either axis
    mixup : float >= 0, parameter of its beta distribution; 0: no mixup
    threads : int > 0 that a processor computes with, as sums of another number of threads round otherwise; None: as
        many as there are
    """

    epochs: int = 12
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-3
    optimizer: Literal["adam", "adamw"] = "adam"
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()
    normalise: Literal["none", "channel", "imagenet"] = "channel"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    augment: Literal["none", "spectrum", "waveform", "released"] = "none"
    variants: int = 0
    masks: int = 0
    mixup: float = 0.0
    threads: int | None = None

    def __post_init__(self) -> None:
        # 1 and 1.0 are one setting, and have one id.
        for name, kind in (("lr", float), ("weight_decay", float), ("milestones", tuple), ("mixup", float)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        object.__setattr__(self, "variants", 0 if self.augment == "none" else self.variants or Augmentation.variants)
        rules = {
            "epochs": (1 <= self.epochs <= 2**20, "at least 1"),
            "batch_size": (2 <= self.batch_size <= 2**20, "2 to 1048576: BatchNorm needs more than one clip"),
            "lr": (0 < self.lr < float("inf"), "greater than 0"),
            "milestones": (all(epoch >= 1 for epoch in self.milestones), "epochs of at least 1"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or more"),
            "variants": (self.augment == "none" or 1 <= self.variants <= 1000, "1 to 1000"),
            "masks": (0 <= self.masks <= 100, "0 to 100"),
            "mixup": (self.mixup == 0 or 0.01 <= self.mixup <= 100, "0, or 0.01 to 100"),
            "threads": (self.threads is None or 1 <= self.threads <= 4096, "1 to 4096"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ParameterError(f"{name}={getattr(self, name)!r} must be {rule}")
        for field in dataclasses.fields(self):
            allowed = _CHOICES.get(field.name)
            if allowed and getattr(self, field.name) not in allowed:
                raise ParameterError(f"{field.name}={getattr(self, field.name)!r} must be one of {', '.join(allowed)}")

    @property
    def augmentation(self) -> Augmentation | None:
        """How training clips are rendered; None as they are."""
        return None if self.augment == "none" else Augmentation(self.augment, self.variants)

    @property
    def changes_inputs(self) -> bool:
        """Whether a clip is fed to the network otherwise from epoch to epoch."""
        return self.augment != "none" or self.masks > 0 or self.mixup > 0

    def lr_at(self, progress: float) -> float:
        """Learning rate after `progress` epochs (a fraction within one)."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + np.cos(np.pi * progress / self.epochs)).item()
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(int(progress) >= milestone for milestone in self.milestones)
        return self.lr


_CHOICES = {
    "optimizer": ("adam", "adamw"),
    "schedule": ("cosine", "step", "constant"),
    "normalise": ("none", "channel", "imagenet"),
    "precision": ("auto", "bf16", "fp32"),
    "augment": KINDS,
}
# Settings that older runs do not have: at these values they are as if not there, and the ids stay.
_LATER = {"augment": "none", "variants": 0, "masks": 0, "mixup": 0.0, "threads": None}


_PARTS = {"features": FeatureSettings, "plan": TransferPlan, "training": Training}


@dataclass(frozen=True)
class RunConfig:
    """One point: all that decides a run's numbers, but for the machine.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    data_key : str
        Sha256 over the features' key, the clips' ids, labels and folds.
    features : FeatureSettings
    fold : str
        The held-out fold; all others are trained on.
    backbone : str
        timm's name.
    plan : TransferPlan
    weights_sha256 : str
        Hash of the ImageNet tensors; empty where nothing is pretrained.
    seed : int >= 0
    training : Training
    inner_fold : str
        A fold that is kept from training too, to choose the epoch without a look at the held-out fold; empty: none.
    """

    dataset: str
    data_key: str
    features: FeatureSettings
    fold: str
    backbone: str
    plan: TransferPlan
    weights_sha256: str
    seed: int
    training: Training
    inner_fold: str = ""

    def __post_init__(self) -> None:
        # It is the name of a folder, and may come from a file that someone else has made.
        if not re.fullmatch(r"[^/\\\0]+", self.dataset) or self.dataset.strip(". ") == "":
            raise ParameterError(f"dataset={self.dataset!r} must be a name without slashes, not only of dots")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ParameterError(f"seed={self.seed!r} must be a whole number of 0 or more")

    @property
    def id(self) -> str:
        """The run id: the point in words, then a short hash over all of it."""
        short = self.backbone.removeprefix("tf_").removeprefix("efficientnet_")
        inner = f"-n{self.inner_fold}" if self.inner_fold else ""
        words = f"{self.dataset}-f{self.fold}-{short}-{self.plan}-s{self.seed}{inner}"
        content = dataclasses.asdict(self)
        if not self.inner_fold:
            del content["inner_fold"]
        for name, value in _LATER.items():
            if content["training"][name] == value:
                del content["training"][name]
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', words)[:150]}-{content_hash(content)[:8]}"

    @property
    def setting(self) -> str:
        """In words, what is the same for all folds and seeds: what is always said, and what differs from the defaults.

        The data set, backbone and plan are left out.
        """
        training, features = self.training, self.features
        epochs = f"{training.epochs} epoch{'s' * (training.epochs != 1)}"
        words = [epochs, f"lr {training.lr:g}", f"width {features.width}"]
        for field in dataclasses.fields(Training):
            value = getattr(training, field.name)
            if field.name not in ("epochs", "lr") and value != getattr(Training(), field.name):
                words.append(f"{field.name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
        for name, value, usual in (("windows", features.windows, WINDOWS), ("hops", features.hops, HOPS)):
            if value != usual:
                words.append(f"{name} {' '.join(f'{each:g}' for each in value)}")
        if features.seconds is not None:
            words.append(f"padded to {features.seconds:g} s")
        if self.inner_fold:
            words.append("an inner fold kept from training")
        return ", ".join(words)

    @property
    def arm_key(self) -> tuple:
        """What is the same for all folds and seeds of one arm."""
        data = self.data_key, self.backbone, self.weights_sha256
        return *data, self.plan, self.features, self.training, bool(self.inner_fold)

    @property
    def start(self) -> int:
        """The block that batches are fed to: behind those whose output is the same in every epoch, so computed once."""
        plan, changes = self.plan, self.training.changes_inputs
        return 0 if plan.frozen_through is None or plan.bn != "fixed" or changes else plan.frozen_through + 1

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of what the network is given [mel bands, frames]."""
        return self.features.n_mels, self.features.width

    @property
    def computed(self) -> dict[str, Any]:
        """Which network is computed on which size of input: the keyword arguments of `precision.choose`."""
        return {"backbone": self.backbone, "input_size": self.input_size, "through": self.plan.truncate_after}

    def path(self, folder: Path) -> Path:
        """Where this run is, or will be, in the store `folder`."""
        return folder / self.dataset / f"{self.id}.h5"

    def flat(self) -> dict[str, Any]:
        """All settings under one level of names, as they stand in the run file."""
        flat = dataclasses.asdict(self)
        for name in _PARTS:
            flat |= flat.pop(name)
        return flat

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> RunConfig:
        """The inverse of `flat`."""
        flat = dict(flat)
        for name, part in _PARTS.items():
            names = [field.name for field in dataclasses.fields(part)]
            flat[name] = part(**{each: flat.pop(each) for each in names if each in flat or each not in _LATER})
        return cls(**flat)
