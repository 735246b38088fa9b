"""Training settings by name: the values of a preset for a plan, and those that options replace.

``quick`` is this package's default. ``paper`` is that of Palanisamy, Singhania and Yao (2020) and their released code:
Adam at 1e-4 in steps, 70 epochs for pretrained networks and 450 from scratch, each clip in each epoch once as it is and
once augmented; ``docs/reference/paper_code.md`` lists what differs.

``strong`` is for the best network of your own sounds, in at most four times the time of ``quick``: masks, mixup and a
mean of weights, as PSLA [1]_ fine-tunes ImageNet's EfficientNet on sounds; label smoothing; and held-out clips shifted
in time. It is chosen from the literature; its numbers on ESC-10 and UrbanSound8K are not measured yet.

References
----------
.. [1] Y. Gong, Y.-A. Chung, J. Glass: PSLA: Improving audio tagging with pretraining, sampling, labeling, and
   aggregation. IEEE/ACM Transactions on Audio, Speech, and Language Processing 29 (2021).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from transferlens.models.plan import TransferPlan
from transferlens.store.config import Training
from transferlens.util.errors import ParameterError, warn_once
from transferlens.util.fields import optional
from transferlens.util.text import counted

_PAPER = Training(
    epochs=70,
    lr=1e-4,
    weight_decay=1e-3,
    schedule="step",
    milestones=(30, 60),
    normalise="none",
    precision="fp32",
    augment="waveform",
    draws=2,
    network="torchvision",
)
_STRONG = Training(
    epochs=30,
    weight_decay=1e-2,
    optimizer="adamw",
    augment="spectrum",
    masks=1,
    mixup=0.2,
    label_smoothing=0.1,
    warmup_epochs=2,
    average_epochs=5,
    test_shifts=2,
)
# Settings by preset: those of plans with pretrained blocks, and those of training from scratch.
PRESETS = {
    "quick": (Training(), Training()),
    "strong": (_STRONG, _STRONG),
    "paper": (_PAPER, dataclasses.replace(_PAPER, epochs=450, milestones=(300, 350))),
}


if TYPE_CHECKING:
    Settings = Training
else:
    Settings = optional(Training, words="Default: that of the preset.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(Settings):
    """How networks are trained: a preset, and values that replace its own."""

    preset: Literal["quick", "strong", "paper"] = "quick"
    """quick: 12 epochs, lr 1e-3, cosine, normalised. strong: 30 epochs, augmented, AdamW, label smoothing, warm-up,
    averages of weights and over shifts in time; warm-up and averages are shortened if --epochs leaves no room for them.
    paper: 70 epochs (450 from scratch), lr 1e-4 in steps, not normalised, augmented, fp32."""

    @property
    def given(self) -> dict[str, Any]:
        """The settings that replace those of the preset."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Training)}
        return {name: value for name, value in values.items() if value is not None}

    def _fitting(self, preset: Training) -> Training:
        """Return a preset; if it counts more epochs than are given, all that it counts is shortened in proportion."""
        epochs = self.given.get("epochs", preset.epochs)
        left = epochs - self.given.get("head_epochs", preset.head_epochs)
        if preset.warmup_epochs < left and preset.average_epochs <= left:
            return preset
        shorter = preset.lasting(epochs)
        names = [name for name in ("warmup_epochs", "average_epochs") if name not in self.given]
        if changed := [f"{name}={getattr(shorter, name)}" for name in names if getattr(preset, name) > 1]:
            words = f"the preset {self.preset} is made for {counted(preset.epochs, 'epoch')}"
            warn_once(f"{words}, and {epochs} are asked for: it is shortened to {' and '.join(changed)}")
        return shorter

    def training(self, plan: TransferPlan) -> Training:
        """Return the settings for one plan; raise ParameterError if one that is given would have no effect."""
        # An epoch of the released code holds every clip as it is, too.
        implied = {"draws": 2} if self.given.get("augment") == "released" else {}
        training = dataclasses.replace(self._fitting(PRESETS[self.preset][not plan.letters]), **(implied | self.given))
        variants = self.given.get("variants")
        if variants == 0:
            raise ParameterError("variants=0 must be 1 to 1000")
        if variants and not training.variants:
            raise ParameterError(f"variants={variants} goes with augment='spectrum', 'waveform' or 'released'")
        if self.given.get("draws") == 2 and training.draws == 1:
            raise ParameterError("draws=2 goes with augment='spectrum', 'waveform' or 'released'")
        if "head_lr" in self.given and not training.head_epochs:
            raise ParameterError(f"head_lr={self.given['head_lr']:g} goes with head_epochs=1 or more")
        drops = self.given.get("milestones", ())
        if drops and training.schedule != "step":
            raise ParameterError(f"milestones={drops} goes with schedule='step', not {training.schedule!r}")
        if [*drops] != sorted({*drops}) or max(drops, default=0) >= training.epochs:
            raise ParameterError(f"milestones={drops} must increase and be less than epochs={training.epochs}")
        return training


# A linear head alone learns slowly and costs little: by default it is trained for longer, whatever the preset.
PROBE = TrainingOptions(epochs=100, lr=1e-2)
