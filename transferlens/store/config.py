"""The configuration of a run, one point in the space of all experiments, and the id that names its file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from transferlens.features.augment import Augmentation, Kind
from transferlens.features.logmel import HOPS, WINDOWS, FeatureSettings
from transferlens.measures.scoring import ONE, SCORINGS, Scoring
from transferlens.models import build
from transferlens.models.plan import NUMBERS, SOURCES, TransferPlan
from transferlens.util.errors import ParameterError
from transferlens.util.fields import NAME, Fields, Rule, above, at_least, between, shown
from transferlens.util.files import content_hash
from transferlens.util.text import CONTROL, counted

MOST_EPOCHS = 2**20


@dataclass(frozen=True, kw_only=True)
class Training(Fields):
    """How a network is trained. The only place where these settings, their defaults and rules are declared."""

    SUCH_AS: ClassVar[str] = ", as study.training(plan) returns it"
    epochs: Annotated[int, between(1, MOST_EPOCHS)] = 12
    """Number of epochs."""
    batch_size: Annotated[int, between(2, 2**20, ": BatchNorm needs more than one clip")] = 32
    """Clips per mini-batch."""
    lr: Annotated[float, above(0)] = 1e-3
    """Learning rate at the start."""
    weight_decay: Annotated[float, at_least(0)] = 1e-3
    """Weight decay."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """adam: L2 penalty (the paper). adamw: decoupled weight decay."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """cosine: to 0 at the end. step: divided by 10 at each milestone. constant."""
    milestones: tuple[Annotated[int, at_least(1)], ...] = ()
    """Epochs after which the step schedule divides the learning rate by 10."""
    normalise: Literal["none", "channel", "imagenet", "source"] = "channel"
    """none: log-mel as it is (the paper). channel: mean 0, standard deviation 1 over the training folds. imagenet: the
    range of the training folds scaled to 0 to 1, then ImageNet's mean and standard deviation. source: as in the run
    that is the source."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast where the processor or GPU computes in it. bf16. fp32. Recorded in the run."""
    augment: Literal["none", Kind] = "none"
    """Pitch shifts by -2 to 2 semitones and time stretches by 0.9 to 1.2 of training clips, rendered once. spectrum:
    from one Fourier transform per clip. waveform: by librosa, slower (the paper). released: the same, but always 2
    semitones up, as in the paper's code when it was released, and with --draws 2. With --fit stretch, time stretches
    leave almost no trace, none in spectrum, which then has at most five different renderings."""
    variants: Annotated[int, between(0, 1000)] = 0
    """Renderings per clip, of which training draws one per epoch. 0 stands for 8 with augmentation."""
    draws: Annotated[int, between(1, 2)] = 1
    """Draws of each clip in an epoch, with augmentation. 1: one of its renderings, the clip as it is among them. 2: the
    clip as it is, and one that is augmented; an epoch then has twice the steps (the paper's code)."""
    masks: Annotated[int, between(0, 100)] = 0
    """SpecAugment: this many masks along time and along frequency."""
    mixup: Annotated[float, Rule("0, or 0.01 to 100", lambda value: value == 0 or 0.01 <= value <= 100)] = 0.0
    """mixup: parameter of its beta distribution, often 0.2. 0: no mixup."""
    label_smoothing: Annotated[float, Rule("0 or more and less than 1", lambda value: 0 <= value < 1)] = 0.0
    """Label smoothing: this share of each target is spread evenly over all classes, often 0.1."""
    sampling: Literal["clips", "classes"] = "clips"
    """clips: an epoch has each training clip once. classes: as many clips, and each class equally often."""
    warmup_epochs: Annotated[int, at_least(0)] = 0
    """Epochs in which the learning rate rises from 0 to --lr, before its schedule begins."""
    layer_decay: Annotated[float, between(0, 1)] = 1.0
    """Layer-wise decay: the learning rate of a block is that of the next one times this factor, and that of the head is
    --lr. 1: all are equal. 0: only the head is trained."""
    head_epochs: Annotated[int, at_least(0)] = 0
    """LP-FT: the first epochs train the head alone, at --head-lr; then --schedule begins, and all is trained."""
    head_lr: Annotated[float, above(0)] = 1e-2
    """Learning rate of --head-epochs."""
    l2_sp: Annotated[float, at_least(0)] = 0.0
    """L2-SP: how strongly weights of pretrained blocks are pulled to their start, in place of --weight-decay, which
    pulls to 0. Often 0.1 to 10."""
    average_epochs: Annotated[int, at_least(1)] = 1
    """Mean of the weights after each of so many last epochs, with BatchNorm statistics estimated anew. 1: no mean."""
    test_shifts: Annotated[int, between(0, 100)] = 0
    """Clips that are not trained on are classified as they are and shifted in time (circularly) this many times; their
    logits are averaged."""
    network: Literal["plain", "torchvision"] = "plain"
    """plain: the blocks and a linear head. torchvision: what torchvision's networks do besides (the paper's code):
    inception_v3 has dropout before its head and, pretrained, scales its input; resnets from scratch start otherwise."""
    clips_per_class: Annotated[int | None, between(1, 2**20)] = None
    """Train on so many clips of each class only, as far as whole recordings allow: the same for all networks and seeds,
    and smaller subsets lie in larger ones. Default: all."""
    threads: Annotated[int | None, between(1, 4096)] = None
    """Threads that a run is computed with on a processor, as sums of another number of threads round differently.
    Default: one where several runs are asked for, all cores for a single run; the number is recorded in the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "variants", 0 if self.augment == "none" else self.variants or Augmentation.variants)
        object.__setattr__(self, "draws", 1 if self.augment == "none" else self.draws)
        if self.draws == 2 and self.augmentation is not None and not self.augmentation.augmented:
            raise ParameterError("variants=1 must be 2 or more with draws=2: one of them is the clip as it is")
        object.__setattr__(self, "head_lr", self.head_lr if self.head_epochs else Training.head_lr)
        self._check_recipes()

    def _check_recipes(self) -> None:
        """Raise if settings exclude each other."""
        if 0 < self.head_epochs + self.warmup_epochs >= self.epochs:
            names = [name for name in ("head_epochs", "warmup_epochs") if getattr(self, name)]
            words = " and ".join(f"{name}={getattr(self, name)}" for name in names)
            raise ParameterError(
                f"{words} must be less than epochs={self.epochs}{' together' * (len(names) > 1)}: at least one epoch "
                "must be left; give more epochs, or fewer of these"
            )
        if self.average_epochs > (most := self.epochs - self.head_epochs):
            raise ParameterError(
                f"average_epochs={self.average_epochs} must be at most {most}, the epochs in which all is trained: "
                "give more epochs, or average fewer"
            )
        for name in ("head_epochs", "l2_sp"):
            if self.layer_decay == 0 and getattr(self, name):
                words = f"{name}={getattr(self, name):g} has no effect with layer_decay=0"
                raise ParameterError(f"{words}, which trains only the head: leave one of them out")

    def lasting(self, epochs: int) -> Training:
        """Return the same settings for another number of epochs: what is counted in epochs keeps its share of them."""
        if epochs > MOST_EPOCHS:
            words = (
                f"epochs={self.epochs} is too many here, where some runs have {epochs / self.epochs:.3g} times as many"
            )
            raise ParameterError(f"{words}, at most {MOST_EPOCHS}: give fewer epochs")
        share = epochs / self.epochs
        values = {name: round(getattr(self, name) * share) for name in ("head_epochs", "warmup_epochs")}
        if self.average_epochs > 1:  # 1: the weights of the last epoch, whatever their number
            values["average_epochs"] = max(1, round(self.average_epochs * share))
        milestones = tuple(max(1, round(epoch * share)) for epoch in self.milestones)
        return dataclasses.replace(self, epochs=epochs, milestones=milestones, **values)

    @property
    def augmentation(self) -> Augmentation | None:
        """How training clips are augmented; None if they are not."""
        return None if self.augment == "none" else Augmentation(self.augment, self.variants)

    def lr_at(self, progress: float) -> float:
        """Learning rate of the head after `progress` epochs (a fraction within one)."""
        if progress < self.head_epochs:
            return self.head_lr
        warm = progress - self.head_epochs
        if warm < self.warmup_epochs:
            return self.lr * warm / self.warmup_epochs
        if self.schedule == "cosine":
            before = self.head_epochs + self.warmup_epochs
            return self.lr * 0.5 * (1 + np.cos(np.pi * (progress - before) / (self.epochs - before))).item()
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(int(progress) >= milestone for milestone in self.milestones)
        return self.lr


# Settings that older runs do not have: these values are left out, so that run ids stay the same, whatever the defaults.
_LATER = {
    "augment": "none",
    "variants": 0,
    "masks": 0,
    "mixup": 0.0,
    "threads": None,
    "draws": 1,
    "network": "plain",
    "clips_per_class": None,
    "label_smoothing": 0.0,
    "sampling": "clips",
    "warmup_epochs": 0,
    "layer_decay": 1.0,
    "head_epochs": 0,
    "head_lr": 1e-2,
    "l2_sp": 0.0,
    "average_epochs": 1,
    "test_shifts": 0,
}
_PARTS = {"features": FeatureSettings, "training": Training}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and not CONTROL.search(value) and 0 < len(value.encode()) <= NAME


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _are_sha256(value: Any) -> bool:
    return value == "" or (isinstance(value, str) and all(map(_is_sha256, value.split(" "))))


NAMED = Rule(f"a name of at most {NAME} bytes without control characters", _is_name)
SHA256 = Rule("a sha256 in 64 hexadecimal digits", _is_sha256)
# The rules of a run's texts: they may come from a file that someone else has made.
_TEXTS = {
    # It is the name of a folder.
    "dataset": Rule(
        f"a name without slashes and control characters, of at most {NAME} bytes and not only of dots",
        lambda value: _is_name(value) and not re.search(r"[/\\]", value) and value.strip(". ") != "",
    ),
    "data_key": SHA256,
    "fold": NAMED,
    "backbone": NAMED,
    "weights_sha256": Rule(f"{SHA256.text}, one per source of the plan, or empty", _are_sha256),
    "inner_fold": Rule(f"{NAMED.text}, or empty", lambda value: value == "" or _is_name(value)),
    "labels_per_clip": Rule("one or several", lambda value: isinstance(value, str) and value in SCORINGS),
}


@dataclass(frozen=True)
class RunConfig:
    """One point: all settings that determine a run's numbers, except for the machine.

    Attributes
    ----------
    dataset : str
    data_key : str
        Sha256 over the features' key, the clips' ids, labels and folds.
    features : FeatureSettings
    fold : str
        The held-out fold; all others are trained on.
    backbone : str
        timm's name.
    plan : TransferPlan
    weights_sha256 : str
        Hash of the tensors of the source; of several, in the order in which the plan names them, with spaces between;
        empty if all blocks are randomly initialised.
    seed : int >= 0
    training : Training
    inner_fold : str
        A fold that is kept from training too, to choose the epoch without using the held-out fold; empty: none.
    labels_per_clip : {"one", "several"}
        Whether each clip is of one class, or has several labels (`measures.scoring`).
    """

    SUCH_AS: ClassVar[str] = ", as study.points(plan) returns them"
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
    labels_per_clip: str = "one"

    def __post_init__(self) -> None:
        for name, rule in _TEXTS.items():
            if not rule.holds(value := getattr(self, name)):
                raise ParameterError(f"{name}={shown(value)} must be {rule.text}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ParameterError(f"seed={self.seed!r} must be a whole number of 0 or more")
        if self.plan.letters != (letters := (*SOURCES[: len(self.plan.letters)],)):
            raise ParameterError(f"plan={str(self.plan)!r} must name its sources {', '.join(letters)}, in this order")
        self._check_recipes()

    def _check_recipes(self) -> None:
        """Raise if a setting has no effect under the plan."""
        plan, training = self.plan, self.training
        given = [name for name in ("layer_decay", "head_epochs", "l2_sp") if getattr(training, name) != _LATER[name]]
        trained = [block for block in plan.blocks if not plan.is_frozen(block)]
        if given and not trained:
            words = f"{given[0]}={getattr(training, given[0]):g} has no effect, as the plan {plan} trains only the head"
            raise ParameterError(f"{words}: leave out the setting or the plan")
        if training.l2_sp and not any(map(plan.is_pretrained, trained)):
            words = f"l2_sp={training.l2_sp:g} needs a block that is trained from pretrained weights"
            raise ParameterError(f"{words}, and the plan {plan} has none: leave out the setting or the plan")

    @property
    def id(self) -> str:
        """The run id: the point in words, then a short hash over all of it."""
        short = self.backbone.removeprefix("tf_").removeprefix("efficientnet_")
        inner = f"-n{self.inner_fold}" if self.inner_fold else ""
        words = f"{self.dataset}-f{self.fold}-{short}-{self.plan}-s{self.seed}{inner}"
        content = dataclasses.asdict(self) | {"plan": self.plan.flat()}
        if not self.inner_fold:
            del content["inner_fold"]
        if self.scoring is ONE:
            del content["labels_per_clip"]
        content["training"] = dict(item for item in content["training"].items() if item not in _LATER.items())
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', words)[:150]}-{content_hash(content)[:8]}"

    @property
    def setting(self) -> str:
        """Epochs, lr, width and what differs from the defaults, in words; not the data set, backbone and plan."""
        training, features = self.training, self.features
        words = [counted(training.epochs, "epoch"), f"lr {training.lr:g}", f"width {features.width}"]
        for field in dataclasses.fields(Training):
            value = getattr(training, field.name)
            if field.name not in ("epochs", "lr") and value != field.default:
                words.append(f"{field.name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
        for name, value, usual in (("windows", features.windows, WINDOWS), ("hops", features.hops, HOPS)):
            if value != usual:
                words.append(f"{name} {' '.join(f'{length:g}' for length in value)}")
        if features.seconds is not None:
            words.append(f"padded to {features.seconds:g} s")
        if self.inner_fold:
            words.append("an inner fold kept from training")
        return ", ".join(words)

    @property
    def arm_key(self) -> tuple:
        """What is the same for all folds and seeds of one arm."""
        data = self.data_key, self.backbone, self.weights_sha256
        return *data, self.plan, self.features, self.training, bool(self.inner_fold), self.labels_per_clip

    @property
    def scoring(self) -> Scoring:
        """How the run is trained and scored."""
        return SCORINGS[self.labels_per_clip]

    @property
    def split(self) -> tuple[str, str, int | None]:
        """Which clips it is trained on, and which are held out: the arguments of `DataSet.split`."""
        return self.fold, self.inner_fold, self.training.clips_per_class

    @property
    def start(self) -> int:
        """The first block computed in every epoch: outputs of those before it do not change and are computed once."""
        plan, training = self.plan, self.training
        changes = plan.bn != "fixed" or training.augment != "none" or training.masks > 0 or training.mixup > 0
        changes = changes or training.test_shifts > 0
        return 0 if changes else plan.n_frozen

    @property
    def changes_input(self) -> bool:
        """Whether the features are scaled as torchvision's pretrained Inception-v3 scales its input."""
        is_inception = self.backbone.partition(".")[0] == "inception_v3"
        return is_inception and self.training.network == "torchvision" and bool(self.plan.letters)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input [mel bands, frames]."""
        return self.features.n_mels, self.features.width

    @property
    def computed(self) -> dict[str, Any]:
        """Which network is computed on which size of input: the keyword arguments of `precision.choose`."""
        return {"backbone": self.backbone, "input_size": self.input_size, "through": self.plan.truncate_after}

    def cost(self, n_classes: int) -> build.Cost:
        """Return the cost of the network for this number of classes."""
        return build.cost(self.backbone, n_classes=n_classes, plan=self.plan, input_size=self.input_size)

    def path(self, folder: Path) -> Path:
        """Where this run is, or will be, in the store `folder`."""
        return folder / self.dataset / f"{self.id}.h5"

    def flat(self) -> dict[str, Any]:
        """All settings in one dict without groups, as they are stored in the run file."""
        flat = dataclasses.asdict(self)
        for name in _PARTS:
            flat |= flat.pop(name)
        del flat["plan"]
        if self.scoring is ONE:  # as in older files
            del flat["labels_per_clip"]
        return flat | self.plan.flat()

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> RunConfig:
        """The inverse of `flat`."""
        flat = dict(flat)
        letters = ("start", "train", "statistics", "bn")
        flat["plan"] = TransferPlan(
            **{key: flat.pop(key) for key in (letters if "start" in flat else (*NUMBERS, "bn"))}
        )
        for name, part in _PARTS.items():
            keys = [field.name for field in dataclasses.fields(part)]
            flat[name] = part(**{key: flat.pop(key) for key in keys if key in flat or key not in _LATER})
        return cls(**flat)
