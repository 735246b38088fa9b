"""Explanations: trained networks, the clips they held out, and attributions of the one for the other.

What `transferlens.saliency` draws and scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from transferlens.data.catalogue import DataOptions
from transferlens.data.clips import BUILT_IN
from transferlens.features.event_mask import event_mask
from transferlens.measures.attribution import Attribution, attribute, check_options
from transferlens.measures.faithfulness import cascade
from transferlens.measures.predictions import softmax
from transferlens.models.build import skeleton
from transferlens.store.heldout import heldout_features
from transferlens.store.run import Run, arm_names
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network

__all__ = [
    "Clips",
    "Explained",
    "ExplanationOptions",
    "baseline_of",
    "choose",
    "explain",
    "heldout_clips",
    "networks",
    "randomised",
]

BEFORE = "before training"


@dataclass(frozen=True, kw_only=True)
class ExplanationOptions(Fields):
    """How attributions are made."""

    target: str = "true"
    """The class whose logit is explained: true, predicted, or a label."""
    method: Literal["ig", "smoothgrad", "gradcam", "occlusion"] = "ig"
    """Integrated Gradients, SmoothGrad, Grad-CAM or occlusion."""
    block: int | None = None
    """For gradcam: the block that is looked at. Default: the last."""
    baseline: Literal["silence", "zeros", "mean"] = "silence"
    """Where Integrated Gradients start, and what hides cells: a silent clip's features, the network's zero (with
    normalisation the training clips' mean), or the held-out clips' mean."""
    tolerance: float = 0.01
    """Completeness error up to which Integrated Gradients add steps."""
    max_steps: int = 256
    """Gradients of a clip, at least 8, after which they stop all the same; what was reached is in the figure and the
    table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(tolerance=self.tolerance, max_steps=self.max_steps)
        if self.block is not None and self.method != "gradcam":
            raise ParameterError(f"block={self.block} goes with --method gradcam alone")


@dataclass(frozen=True)
class Clips:
    """The held-out clips that are explained.

    Attributes
    ----------
    ids, labels : tuple of str [shape=(n,)]
    S : ndarray [shape=(n, channels, n_mels, width), float32]
        Log-mel features.
    silent, mean : ndarray [shape=(channels, n_mels, width), float32]
        Those of a silent clip, and the mean of all clips that the run held out.
    masks : ndarray of bool [shape as S], or None
        Where the event is, which is known of the built-in set alone.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    S: np.ndarray
    silent: np.ndarray
    mean: np.ndarray
    masks: np.ndarray | None

    @property
    def energy(self) -> np.ndarray:
        """Log-mel power, mean over channels [shape=(n, n_mels, width)]."""
        return self.S.mean(1)

    def pick(self, places: Sequence[int]) -> Clips:
        """Some of them."""
        masks = None if self.masks is None else self.masks[places]
        ids, labels = (tuple(each[i] for i in places) for each in (self.ids, self.labels))
        return replace(self, ids=ids, labels=labels, S=self.S[places], masks=masks)


def heldout_clips(run: Run, options: DataOptions, cache: Path) -> Clips:
    """The clips that a run held out; errors as for `inputs.heldout_features`."""
    settings = run.config.features
    masks = None
    if run.config.dataset == BUILT_IN:
        keep = ("sr", "n_fft", "windows", "hops", "n_mels", "width")
        chosen = {name: getattr(settings, name) for name in keep}
        masks = np.stack([event_mask(clip, **chosen) for clip in run.clip_ids])
    S = heldout_features(run, options, cache)
    return Clips(
        ids=run.clip_ids,
        labels=tuple(run.label_names[label] for label in run.labels),
        S=S,
        mean=S.mean(0),
        silent=settings.compute(np.zeros(1, np.float32)),
        masks=masks,
    )


def baseline_of(run: Run, clips: Clips, name: str = "silence") -> torch.Tensor:
    """What "nothing" is, as the network of a run takes it [shape=(channels, n_mels, width)].

    Parameters
    ----------
    run : Run
    clips : Clips
    name : "silence", "zeros" or "mean"
    """
    if name == "zeros":
        return torch.zeros(clips.silent.shape)
    return run.inputs({"silence": clips.silent, "mean": clips.mean}[name][None])[0]


def choose(run: Run, rows: int) -> list[int]:
    """Clips to draw: up to half wrong ones, the surest first; then right ones of each class in turn,
    those of median surety first.

    Returns
    -------
    places : list of int
        Among the run's held-out clips.
    """
    sure = softmax(run.logits).max(1)
    right = run.right
    wrong = sorted(np.flatnonzero(~right), key=lambda i: -sure[i])[: rows // 2]
    chosen = [int(i) for i in wrong]
    missing = sorted(set(run.labels.tolist()), key=lambda label: label in run.labels[chosen])
    queues = []
    for label in missing:
        of_class = sorted(np.flatnonzero(right & (run.labels == label)), key=lambda i: sure[i])
        from_middle = np.argsort(np.abs(np.arange(len(of_class)) - len(of_class) // 2), kind="stable")
        queues.append([of_class[place] for place in from_middle])
    for turn in itertools.zip_longest(*queues):
        chosen += [int(i) for i in turn if i is not None]
    chosen = chosen[:rows]
    return sorted(chosen, key=lambda i: (bool(right[i]), run.labels[i]))


@dataclass(frozen=True)
class Explained:
    """Attributions of one network.

    Attributes
    ----------
    name : str
    run : Run
        Where it, or its start, comes from.
    network : Network
    clips : Clips
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
        The clips as it takes them.
    baseline : torch.Tensor [shape=(channels, n_mels, width)]
    targets, predicted : list of int [shape=(n,)]
        Classes.
    probabilities : ndarray [shape=(n,)]
        Of the targets.
    attribution : Attribution
    """

    name: str
    run: Run
    network: Network
    clips: Clips
    x: torch.Tensor
    baseline: torch.Tensor
    targets: list[int]
    predicted: list[int]
    probabilities: np.ndarray
    attribution: Attribution

    def pick(self, places: Sequence[int]) -> Explained:
        """The same of some of the clips."""
        found = self.attribution
        return replace(
            self,
            clips=self.clips.pick(places),
            x=self.x[places],
            targets=[self.targets[i] for i in places],
            predicted=[self.predicted[i] for i in places],
            probabilities=self.probabilities[places],
            attribution=Attribution(**{each.name: getattr(found, each.name)[places] for each in fields(found)}),
        )

    @property
    def cells(self) -> np.ndarray:
        """Attributions summed over channels [shape=(n, n_mels, width)]."""
        return self.attribution.values.sum(1)


def networks(runs: Sequence[Run]) -> list[tuple[str, Run, Network]]:
    """The runs' trained networks by name, and the first one before its training."""
    names = arm_names(runs)
    if len(set(names)) < len(names):
        names = [f"{name}, seed {run.config.seed}" for name, run in zip(names, runs, strict=True)]
    found = [(name, run, run.model()) for name, run in zip(names, runs, strict=True)]
    start = runs[0].model()
    start.load_state_dict(runs[0].initial_state())
    return [*found, (f"{names[0]}, {BEFORE}" if len(runs) > 1 else BEFORE, runs[0], start)]


def _attributed(
    network: Network, x: torch.Tensor, targets: list[int], baseline: torch.Tensor, options: ExplanationOptions
) -> Attribution:
    return attribute(
        network,
        x,
        targets=targets,
        baseline=baseline,
        method=options.method,
        tolerance=options.tolerance,
        max_steps=options.max_steps,
        block=options.block,
        progress=True,
    )


def explain(name: str, run: Run, network: Network, clips: Clips, options: ExplanationOptions, device: Any) -> Explained:
    """Attributions of one network for clips."""
    network.to(device).eval()
    x, baseline = run.inputs(clips.S).to(device), baseline_of(run, clips, options.baseline).to(device)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in x.split(8)]).double().cpu()
    predicted = logits.argmax(1).tolist()
    targets = {
        "true": [run.label_names.index(label) for label in clips.labels],
        "predicted": predicted,
    }.get(options.target) or [run.label_names.index(options.target)] * len(x)
    return Explained(
        name=name,
        run=run,
        network=network,
        clips=clips,
        x=x,
        baseline=baseline,
        targets=targets,
        predicted=predicted,
        probabilities=logits.softmax(1)[range(len(x)), targets].numpy(),
        attribution=_attributed(network, x, targets, baseline, options),
    )


def randomised(found: Explained, options: ExplanationOptions) -> Iterator[tuple[str, np.ndarray]]:
    """As more and more of the network is randomised, from the top, attributions of the same clips and classes.

    Yields
    ------
    through : str
        How deep, as `attribution_scores.cascade` says it.
    cells : ndarray [shape=(n, n_mels, width)]
        Summed over channels.

    References
    ----------
    Adebayo et al. 2018, section 3.1.
    """
    config, n_classes = found.run.config, len(found.run.label_names)
    # Another seed than the run's: its own start would be no stranger to it.
    fresh = skeleton(config.backbone, n_classes=n_classes, plan=config.plan, seed=config.seed + 1)
    for through, network in cascade(found.network, fresh.to(found.x.device)):
        yield through, _attributed(network, found.x, found.targets, found.baseline, options).values.sum(1)
