"""Attributions of held-out clips: which cells of a clip's spectrogram speak for a class, for each of several networks.

`transferlens.saliency` draws and scores them.

- `ExplanationOptions` say how attributions are computed, and how a map is made of them.
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
from transferlens.data.clips import BETWEEN
from transferlens.data.known_answers import is_generated
from transferlens.features.event_mask import event_mask
from transferlens.features.logmel import FeatureSettings
from transferlens.measures.attribution import (
    FEWEST,
    MAP_TOLERANCE,
    PATCH,
    STEPS,
    TOLERANCE,
    Attribution,
    attribute,
)
from transferlens.measures.faithfulness import cascade
from transferlens.measures.integrated import PER_REFERENCE
from transferlens.measures.maps import SMOOTH, MapSettings, Sign
from transferlens.measures.methods import DEFAULT, TABLE, MethodName, check_takes
from transferlens.measures.scoring import ONE
from transferlens.models.build import skeleton
from transferlens.store.arms import arm_names
from transferlens.store.heldout import classify, heldout_features, of_run, training_features
from transferlens.store.run import Run
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule, at_least, between
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet
    from transferlens.models.network import Network

SIZE = Rule("two numbers greater than 0, seconds and mel bands", lambda pair: min(pair) > 0)
WIDTHS = Rule("two numbers of at least 0, seconds and mel bands", lambda pair: min(pair) >= 0)


@dataclass(frozen=True, kw_only=True)
class ExplanationOptions(Fields):
    """How attributions are computed."""

    target: str = "true"
    """The class whose logit is explained: true, predicted, or a label. Where clips have several labels, true is each
    of their labels in turn, and predicted the class that the network is surest of."""
    method: MethodName = DEFAULT
    """ig and expected: Integrated and Expected Gradients; deeplift, deepliftshap, gradientshap; smoothgrad, and times
    the input; gradcam, layercam, guided-gradcam; occlusion, rise, lime, kernelshap, mask (by optimisation); lrp."""
    block: tuple[int, ...] = ()
    """For gradcam, layercam and guided-gradcam: the blocks whose outputs are explained. Default: the last, or for
    layercam the last three."""
    baseline: Literal["silence", "zeros", "mean"] = "silence"
    """Where Integrated Gradients and deeplift start, and what replaces hidden cells: the features of a silent clip,
    zeros (with normalisation the training clips' mean), or the held-out clips' mean."""
    references: Annotated[int, between(1, 1000)] = 6
    """For expected, deepliftshap and gradientshap: number of training clips, of other classes than the target where
    labels are known, that a clip is compared with."""
    samples: Annotated[int | None, at_least(1)] = None
    """For methods with random samples and mask: gradients or outputs per clip. Default: that of the method."""
    patch: Annotated[tuple[float, float] | None, SIZE] = None
    """For occlusion, rise, lime, kernelshap and mask: length [s] and mel bands of a patch. Default: 16 frames and 16
    bands, which is 0.32 s of a clip of 5 s."""
    smooth: Annotated[tuple[float, float] | None, WIDTHS] = None
    """Standard deviation [s] and [mel bands] of the Gaussian that smooths maps, as they are drawn, scored and heard;
    0 0: none. Default: 4 frames and 4 bands, which is 0.08 s of a clip of 5 s."""
    sign: Sign = "signed"
    """What maps show of each cell: its value, only what speaks for the class, or its magnitude."""
    tolerance: Annotated[float, TOLERANCE] = 0.01
    """Integrated and Expected Gradients add steps until the completeness error is at most this,"""
    map_tolerance: Annotated[float, MAP_TOLERANCE] = 0.1
    """and until the map moves by at most this share of its L1 norm when the parts of the path are halved."""
    max_steps: Annotated[int, STEPS] = 256
    """Largest number of gradients per clip, at least 32; what was reached is in the figure and the table."""
    seed: Annotated[int, between(0, 2**32 - 1)] = 0
    """Of the choice of references, of noise and of random patches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_takes(self.method, block=self.block, samples=self.samples, patch=self.patch)
        if self.max_steps < self.least_steps:
            raise ParameterError(
                f"max_steps={self.max_steps} must be at least {self.least_steps} for references={self.references}: "
                f"{PER_REFERENCE} gradients each"
            )

    @property
    def least_steps(self) -> int:
        """The smallest `max_steps` that the method can do with."""
        return max(FEWEST, PER_REFERENCE * self.references if self.method == "expected" else 0)

    @property
    def title(self) -> str:
        """The method, and what it compares with, in words."""
        how = TABLE[self.method]
        since = {"references": f" from {self.references} training clips", "baseline": f" from {self.baseline}"}
        return how.title + next((words for name, words in since.items() if name in how.takes), "")

    def shown(self, clips: Clips) -> MapSettings:
        """Return how maps of clips are made; raise ParameterError if that is in seconds, and they are not known."""
        smooth = SMOOTH if self.smooth is None else (self.smooth[1], clips.frames(self.smooth[0], "smooth"))
        return MapSettings(smooth=smooth, sign=self.sign)

    def patch_cells(self, clips: Clips) -> tuple[int, int]:
        """Return height and width of a patch [cells]; errors are those of `shown`."""
        if self.patch is None:
            return PATCH
        seconds, bands = self.patch
        return max(1, round(bands)), max(1, round(clips.frames(seconds, "patch")))


@dataclass(frozen=True)
class References:
    """Training clips that held-out clips are compared with.

    Attributes
    ----------
    ids : tuple of str
    labels : tuple of str
        "" where they are not known.
    S : ndarray [shape=(k, channels, n_mels, width)]
        Their features.
    per_clip : int
        How many each held-out clip is compared with.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    S: np.ndarray
    per_clip: int

    def of(self, label: str) -> list[int]:
        """Return the indices of the references for a target: of other classes, as long as there are any."""
        own = [label in (labels, *labels.split(BETWEEN)) for labels in self.labels]
        others = sorted(range(len(self.ids)), key=own.__getitem__)
        return others[: self.per_clip]


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
    is_generated : bool
        Whether they are clips of a data set that is generated by code, so that their evidence is known.
    seconds : float > 0 [s] or None
        Nominal length of a clip; None if it is not known.
    references : References or None
        If the method needs them.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    S: np.ndarray
    silent: np.ndarray
    mean: np.ndarray
    features: FeatureSettings
    is_generated: bool
    seconds: float | None = None
    references: References | None = None

    @functools.cached_property
    def masks(self) -> np.ndarray | None:
        """Where the evidence is [shape=(n, n_mels, width), bool]: in most channels. None if it is not known."""
        return self._masks("evidence") if self.is_generated else None

    @functools.cached_property
    def hums(self) -> np.ndarray | None:
        """Where a planted hum is, as `masks`; no cell of clips without one."""
        return self._masks("hum") if self.is_generated else None

    def _masks(self, of: Literal["evidence", "hum"]) -> np.ndarray:
        names = ("sr", "n_fft", "windows", "hops", "n_mels", "width")
        settings = {name: getattr(self.features, name) for name in names}
        return np.stack([event_mask(clip, of=of, **settings).mean(0) > 0.5 for clip in self.ids])

    @property
    def energy(self) -> np.ndarray:
        """Mean log-mel power over channels [shape=(n, n_mels, width)]."""
        return self.S.mean(1)

    def frames(self, seconds: float, option: str) -> float:
        """Return a duration in frames; raise ParameterError, which names an option, if their length is not known."""
        if self.seconds is None and seconds:
            raise ParameterError(
                f"{option} is in seconds, and the length of the clips is not known: name them (clips, or dataset and "
                "root)"
            )
        return seconds * self.features.width / self.seconds if self.seconds else 0.0

    def pick(self, indices: Sequence[int]) -> Clips:
        """Return some of the clips; `mean` remains that of all."""
        ids, labels, groups = (tuple(names[i] for i in indices) for names in (self.ids, self.labels, self.groups))
        return replace(self, ids=ids, labels=labels, groups=groups, S=self.S[indices])


def names_of(run: Run) -> tuple[str, ...]:
    """Return the class of each held-out clip, or where clips have several labels, all of them with ``;`` between."""
    if run.scoring is ONE:
        return tuple(run.label_names[label] for label in run.labels)
    return tuple(BETWEEN.join(itertools.compress(run.label_names, own)) for own in run.labels)


def heldout_clips(run: Run, options: DataOptions, cache: Path, how: ExplanationOptions | None = None) -> Clips:
    """Return the clips that a run held out, with the references that a method needs.

    Errors are those of `heldout.heldout_features`.
    """
    settings = run.config.features
    S = heldout_features(run, options, cache)
    options = of_run(run, options)
    is_open = options != DataOptions()
    dataset = options.open() if is_open else None
    if not run.groups and dataset:
        run = run.within(dataset)
    return Clips(
        ids=run.clip_ids,
        groups=run.groups or ("",) * len(S),
        labels=names_of(run),
        S=S,
        mean=S.mean(0),
        silent=settings.compute(np.zeros(1, np.float32), settings.sr),
        features=settings,
        is_generated=is_generated(run.config.dataset),
        seconds=settings.seconds or (dataset.seconds if dataset else None),
        references=_references(run, options, cache, how, dataset)
        if how and TABLE[how.method].needs_references
        else None,
    )


def by_label(run: Run, clips: Clips, places: Sequence[int]) -> tuple[Clips, list[int]]:
    """Return clips that have several labels once per label, and the indices of those that were at some places.

    What stems from one clip is of one recording: its own, if that is not known.
    """
    if run.scoring is ONE:
        return clips, list(places)
    pairs = [(i, label) for i, labels in enumerate(clips.labels) for label in labels.split(BETWEEN)]
    once = clips.pick([i for i, _ in pairs])
    groups = tuple(group or clip for group, clip in zip(once.groups, once.ids, strict=True))
    once = replace(once, labels=tuple(label for _, label in pairs), groups=groups)
    return once, [k for place in places for k, (i, _) in enumerate(pairs) if i == place]


def _references(
    run: Run, options: DataOptions, cache: Path, how: ExplanationOptions, dataset: DataSet | None
) -> References:
    """Choose training clips in random order, but of the classes in turn, as many as any target needs."""
    label_of = {clip.id: clip.label for clip in dataset.clips} if dataset else {}

    def choose(ids: Sequence[str]) -> list[str]:
        """Return clips of the classes in turn."""
        order = [ids[i] for i in np.random.default_rng(how.seed).permutation(len(ids))]
        classes = group_by(order, lambda id: label_of.get(id, ""))
        in_turn = [id for id in itertools.chain(*itertools.zip_longest(*classes.values())) if id is not None]
        # Each of as many classes more than a target's own.
        return in_turn[: how.references + -(-how.references // max(1, len(classes) - 1))]

    ids, S = training_features(run, options, cache, choose)
    return References(ids, tuple(label_of.get(id, "") for id in ids), S, how.references)


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
    confidence, right, names = run.scoring.probabilities(run.logits).max(1), run.right, np.array(names_of(run))
    wrong = sorted(np.flatnonzero(~right).tolist(), key=lambda i: -confidence[i])[: rows // 2]
    absent_first = sorted(sorted(set(names.tolist())), key=lambda name: name in names[wrong])
    queues = []
    for name in absent_first:
        of_class = sorted(np.flatnonzero(right & (names == name)).tolist(), key=lambda i: confidence[i])
        outwards = np.argsort(np.abs(np.arange(len(of_class)) - len(of_class) // 2), kind="stable")
        queues.append([of_class[position] for position in outwards])
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    chosen = [*wrong, *(i for i in in_turn if i is not None)][:rows]
    return sorted(chosen, key=lambda i: (bool(right[i]), names[i]))


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
    shown : MapSettings
        How `maps` are made.
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
    shown: MapSettings = MapSettings()

    def pick(self, indices: Sequence[int]) -> Explained:
        """Return the attributions of some of the clips."""
        names = ("x", "targets", "predicted", "probabilities")
        picked = {name: getattr(self, name)[indices] for name in names}
        attribution = Attribution(*(getattr(self.attribution, field.name)[indices] for field in fields(Attribution)))
        return replace(self, clips=self.clips.pick(indices), attribution=attribution, **picked)

    @functools.cached_property
    def maps(self) -> np.ndarray:
        """The maps that are drawn, scored and listened to [shape=(n, n_mels, width)]."""
        return self.shown(self.attribution.values)

    def is_right(self, i: int) -> bool:
        """Return whether the class that the network is surest of for clip `i` is a label of it."""
        own = self.run.labels[self.run.clip_ids.index(self.clips.ids[i])]
        return bool(own == self.predicted[i] if self.run.scoring is ONE else own[self.predicted[i]])

    def references_of(self, i: int) -> tuple[str, ...]:
        """Return the ids of the training clips that clip `i` is compared with; empty if the method has none."""
        pool = self.clips.references
        return tuple(pool.ids[k] for k in pool.of(self.run.label_names[self.targets[i]])) if pool else ()


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
    probabilities = run.scoring.probabilities(classify(run, network, clips.S))
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
        attribution=_attributed(run, network, x, targets, baseline, clips, options),
        shown=options.shown(clips),
    )


def _attributed(
    run: Run,
    network: Network,
    x: torch.Tensor,
    targets: np.ndarray,
    baseline: torch.Tensor,
    clips: Clips,
    options: ExplanationOptions,
) -> Attribution:
    names = ("method", "tolerance", "map_tolerance", "max_steps", "samples", "block", "seed")
    chosen = {name: getattr(options, name) for name in names}
    if pool := clips.references:
        S = run.inputs(pool.S).to(x.device)
        chosen["references"] = {target: S[pool.of(run.label_names[target])] for target in set(targets.tolist())}
    return attribute(
        network,
        x,
        targets=targets.tolist(),
        baseline=baseline,
        patch=options.patch_cells(clips),
        shown=options.shown(clips),
        progress=True,
        **chosen,
    )


def randomised(explained: Explained, options: ExplanationOptions) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the stages of `faithfulness.cascade`, each with the `maps` of the same clips and classes."""
    config, n_classes = explained.run.config, len(explained.run.label_names)
    # Another seed than the run's, which may have started from the same random weights.
    random = skeleton(
        config.backbone, n_classes=n_classes, plan=config.plan, seed=config.seed + 1, input_size=config.input_size
    )
    for through, network in cascade(explained.network, random.to(explained.x.device)):
        attribution = _attributed(
            explained.run, network, explained.x, explained.targets, explained.baseline, explained.clips, options
        )
        yield through, explained.shown(attribution.values)
