"""Attributions of held-out clips: which cells of a clip's spectrogram speak for a class, for each of several networks.

`transferlens.saliency` draws and scores them.

- `heldout_clips` reads the clips that a run held out, `choose` selects some of them to draw.
- `networks` returns the networks of runs, and the first one before its training as the control.
- `explain` computes the attributions of one network; `randomised` those of the network with random blocks.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens.data.catalogue import DataOptions
from transferlens.data.clips import BUILT_IN
from transferlens.features.event_mask import event_mask
from transferlens.features.logmel import FeatureSettings
from transferlens.measures.attribution import STEPS, TOLERANCE, Attribution, attribute
from transferlens.measures.faithfulness import cascade
from transferlens.measures.predictions import softmax
from transferlens.models.build import skeleton
from transferlens.store.heldout import classify, heldout_features
from transferlens.store.run import Run, arm_names
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network


@dataclass(frozen=True, kw_only=True)
class ExplanationOptions(Fields):
    """How attributions are computed."""

    target: str = "true"
    """The class whose logit is explained: true, predicted, or a label."""
    method: Literal["ig", "smoothgrad", "gradcam", "occlusion"] = "ig"
    """Integrated Gradients, SmoothGrad, Grad-CAM or occlusion."""
    block: int | None = None
    """For gradcam: the block whose output is explained. Default: the last."""
    baseline: Literal["silence", "zeros", "mean"] = "silence"
    """Where Integrated Gradients start, and what replaces hidden cells: the features of a silent clip, zeros (with
    normalisation the training clips' mean), or the held-out clips' mean."""
    tolerance: Annotated[float, TOLERANCE] = 0.01
    """Integrated Gradients add steps until the completeness error is at most this."""
    max_steps: Annotated[int, STEPS] = 256
    """Largest number of gradients per clip, at least 8; the error that was reached is in the figure and the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block is not None and self.method != "gradcam":
            raise ParameterError(f"block={self.block} goes with method='gradcam' alone")


@dataclass(frozen=True)
class Clips:
    """The held-out clips that are explained, with their log-mel features `S` [shape=(n, channels, n_mels, width)].

    Attributes
    ----------
    groups : tuple of str
        The recording of each clip; "" if they are not known.
    silent, mean : ndarray [shape=(channels, n_mels, width), float32]
        Features of a silent clip, and mean features of all held-out clips.
    features : FeatureSettings
    is_built_in : bool
        Whether they are clips of the built-in data set.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    S: np.ndarray
    silent: np.ndarray
    mean: np.ndarray
    features: FeatureSettings
    is_built_in: bool

    @functools.cached_property
    def masks(self) -> np.ndarray | None:
        """Ground-truth masks of the event [shape of `S`, bool], which only the built-in data set has."""
        if not self.is_built_in:
            return None
        names = ("sr", "n_fft", "windows", "hops", "n_mels", "width")
        settings = {name: getattr(self.features, name) for name in names}
        return np.stack([event_mask(clip, **settings) for clip in self.ids])

    @property
    def energy(self) -> np.ndarray:
        """Mean log-mel power over channels [shape=(n, n_mels, width)]."""
        return self.S.mean(1)

    def pick(self, indices: Sequence[int]) -> Clips:
        """Return some of the clips; `mean` remains that of all."""
        ids, labels, groups = (tuple(names[i] for i in indices) for names in (self.ids, self.labels, self.groups))
        return replace(self, ids=ids, labels=labels, groups=groups, S=self.S[indices])


def heldout_clips(run: Run, options: DataOptions, cache: Path) -> Clips:
    """Return the clips that a run held out; errors are those of `heldout.heldout_features`."""
    settings = run.config.features
    S = heldout_features(run, options, cache)
    if not run.groups and (options != DataOptions() or run.config.dataset == BUILT_IN):
        run = run.within(options.open())
    return Clips(
        ids=run.clip_ids,
        groups=run.groups or ("",) * len(S),
        labels=tuple(run.label_names[label] for label in run.labels),
        S=S,
        mean=S.mean(0),
        silent=settings.compute(np.zeros(1, np.float32)),
        features=settings,
        is_built_in=run.config.dataset == BUILT_IN,
    )


def baseline_of(run: Run, clips: Clips, name: str = "silence") -> torch.Tensor:
    """Return a baseline of `ExplanationOptions`, normalised as the network of a run expects it."""
    if name == "zeros":
        return torch.zeros(clips.silent.shape)
    return run.inputs({"silence": clips.silent, "mean": clips.mean}[name][None])[0]


def choose(run: Run, rows: int) -> list[int]:
    """Return indices of held-out clips to draw: some that the network gets wrong, and correct ones of several classes.

    Up to half are wrong ones, the most confident first. The others are taken from the classes in turn, in each class
    those nearest to its median confidence first.
    """
    confidence, right = softmax(run.logits).max(1), run.right
    wrong = sorted(np.flatnonzero(~right).tolist(), key=lambda i: -confidence[i])[: rows // 2]
    absent_first = sorted(set(run.labels.tolist()), key=lambda label: label in run.labels[wrong])
    queues = []
    for label in absent_first:
        of_class = sorted(np.flatnonzero(right & (run.labels == label)).tolist(), key=lambda i: confidence[i])
        outwards = np.argsort(np.abs(np.arange(len(of_class)) - len(of_class) // 2), kind="stable")
        queues.append([of_class[position] for position in outwards])
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    chosen = [*wrong, *(i for i in in_turn if i is not None)][:rows]
    return sorted(chosen, key=lambda i: (bool(right[i]), run.labels[i]))


@dataclass(frozen=True)
class Explained:
    """Attributions of one network: of a run, or of its initial state.

    Attributes
    ----------
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
        The clips as input of the network: normalised, on its device.
    baseline : torch.Tensor [shape=(channels, n_mels, width)]
    targets, predicted : ndarray of int [shape=(n,)]
        Classes.
    probabilities : ndarray [shape=(n,)]
        Of the targets.
    """

    name: str
    run: Run
    network: Network
    clips: Clips
    x: torch.Tensor
    baseline: torch.Tensor
    targets: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    attribution: Attribution

    def pick(self, indices: Sequence[int]) -> Explained:
        """Return the attributions of some of the clips."""
        names = ("x", "targets", "predicted", "probabilities")
        picked = {name: getattr(self, name)[indices] for name in names}
        attribution = Attribution(*(getattr(self.attribution, field.name)[indices] for field in fields(Attribution)))
        return replace(self, clips=self.clips.pick(indices), attribution=attribution, **picked)

    @property
    def cells(self) -> np.ndarray:
        """Attributions summed over channels [shape=(n, n_mels, width)]."""
        return self.attribution.values.sum(1)


def networks(runs: Sequence[Run]) -> list[tuple[str, Run, Network]]:
    """Return the trained networks of runs by name, and last the network of the first run before its training."""
    names = arm_names(runs)
    if len(set(names)) < len(names):
        names = [f"{name}, seed {run.config.seed}" for name, run in zip(names, runs, strict=True)]
    trained = [(name, run, run.model()) for name, run in zip(names, runs, strict=True)]
    before = "before training" if len(runs) == 1 else f"{names[0]}, before training"
    return [*trained, (before, runs[0], runs[0].model(trained=False))]


def explain(name: str, run: Run, network: Network, clips: Clips, options: ExplanationOptions, device: Any) -> Explained:
    """Compute the attributions of one network for clips."""
    network.to(device).eval()
    x, baseline = run.inputs(clips.S).to(device), baseline_of(run, clips, options.baseline).to(device)
    probabilities = softmax(classify(run, network, clips.S))
    targets = predicted = probabilities.argmax(1)
    if options.target != "predicted":
        labels = clips.labels if options.target == "true" else [options.target] * len(x)
        targets = np.array([run.label_names.index(label) for label in labels])
    return Explained(
        name=name,
        run=run,
        network=network,
        clips=clips,
        x=x,
        baseline=baseline,
        targets=targets,
        predicted=predicted,
        probabilities=probabilities[range(len(x)), targets],
        attribution=_attributed(network, x, targets, baseline, options),
    )


def _attributed(
    network: Network, x: torch.Tensor, targets: np.ndarray, baseline: torch.Tensor, options: ExplanationOptions
) -> Attribution:
    chosen = {name: getattr(options, name) for name in ("method", "tolerance", "max_steps", "block")}
    return attribute(network, x, targets=targets.tolist(), baseline=baseline, progress=True, **chosen)


def randomised(explained: Explained, options: ExplanationOptions) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the stages of `faithfulness.cascade`, each with the `cells` of the same clips and classes."""
    config, n_classes = explained.run.config, len(explained.run.label_names)
    # Another seed than the run's, which may have started from the same random weights.
    random = skeleton(
        config.backbone, n_classes=n_classes, plan=config.plan, seed=config.seed + 1, input_size=config.input_size
    )
    for through, network in cascade(explained.network, random.to(explained.x.device)):
        attribution = _attributed(network, explained.x, explained.targets, explained.baseline, options)
        yield through, attribution.values.sum(1)
