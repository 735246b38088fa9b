"""A finished run, and runs that are compared with each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.models import build
from transferlens.store.config import RunConfig
from transferlens.store.runfile import (
    TENSORS,
    history_names,
    open_runfile,
    read_attributes,
    read_config,
    read_tensors,
    tensor_items,
    to_torch,
)
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.files import array
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.models.network import Network

__all__ = ["Run", "arm_names", "check_alike", "load_run", "load_runs", "normalised"]


@dataclass(frozen=True)
class Run:
    """A finished run. The weights stay in the file until they are asked for.

    Attributes
    ----------
    path : Path
    config : RunConfig
    provenance : dict
        Versions, weights' source, feature key, device, threads, precision, times.
    history : dict of str to ndarray [shape=(n_epochs,)]
        train_loss, heldout_loss, heldout_accuracy (a fraction), lr, seconds; inner_accuracy with an inner fold.
    label_names : tuple of str
        Sorted; the order of the logits' columns.
    clip_ids : tuple of str
    labels : ndarray of int [shape=(n_clips,)]
        Index into `label_names` of each held-out clip.
    logits, logits_best : ndarray [shape=(n_clips, n_classes), float32]
        Held-out logits after the last epoch, and after the epoch best on these same clips (optimistic).
    normalisation : ndarray [shape=(2, channels)]
        Mean and deviation that the features were normalised with.
    """

    path: Path
    config: RunConfig
    provenance: dict[str, Any]
    history: dict[str, np.ndarray]
    label_names: tuple[str, ...]
    clip_ids: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    logits_best: np.ndarray
    normalisation: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each held-out clip was classified rightly after the last epoch [shape=(n_clips,), bool]."""
        return self.logits.argmax(1) == self.labels

    @property
    def accuracy_last(self) -> float:
        """Held-out accuracy after the last epoch, a fraction."""
        return float(self.history["heldout_accuracy"][-1])

    @property
    def accuracy_best(self) -> float:
        """Held-out accuracy of the best epoch on the held-out fold itself: optimistic."""
        return float(self.history["heldout_accuracy"].max())

    @property
    def accuracy_nested(self) -> float | None:
        """Held-out accuracy at the epoch that is best on the inner fold, the first of several; None without one."""
        if not self.config.inner_fold:
            return None
        return float(self.history["heldout_accuracy"][self.history["inner_accuracy"].argmax()])

    def initial_state(self) -> dict[str, torch.Tensor]:
        """State dict of the network before training.

        Raises
        ------
        CheckpointError
            Where the ImageNet weights that the run started from are not to be had here.
        """
        with open_runfile(self.path) as file:
            state = to_torch(read_tensors(file["fresh"]))
            names = list(tensor_items(file["weights"]))
        if len(state) < len(names):
            option, sha256 = self.provenance["weights_option"], self.config.weights_sha256
            pretrained = build.imagenet_state(self.config.backbone, option, sha256=sha256).state
            state = {f"backbone.{name}": tensor for name, tensor in pretrained.items()} | state
        if missing := sorted(set(names) - set(state)):
            raise CheckpointError(f"{self.path} is damaged: its start lacks {', '.join(missing[:3])}")
        return {name: state[name] for name in names}

    def final_state(self) -> dict[str, torch.Tensor]:
        """State dict of the network after the last epoch."""
        with open_runfile(self.path) as file:
            return to_torch(read_tensors(file["weights"]))

    def model(self, *, trained: bool = True) -> Network:
        """The trained network in evaluation mode, in float32; `inputs` makes what it takes.

        The stored logits were computed in the precision that the provenance names, and differ in its rounding.

        Parameters
        ----------
        trained : bool
            False: as it was before training.

        Raises
        ------
        CheckpointError
            Where the weights are damaged, or, for those before training, cannot be made again here.
        """
        network = build.skeleton(self.config.backbone, n_classes=len(self.label_names), plan=self.config.plan)
        state = self.final_state() if trained else self.initial_state()
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise CheckpointError(f"{self.path} is damaged: some of its weights are NaN or infinite")
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"{self.path} is damaged: its weights do not fit its backbone and plan") from error
        return network.eval()

    def inputs(self, S: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Features as the network takes them.

        Parameters
        ----------
        S : ndarray or torch.Tensor [shape=(n_clips, channels, n_mels, width)]
            As `features.log_mel` or a feature cache gives them.

        Returns
        -------
        x : torch.Tensor [shape as S, float32]
        """
        return normalised(torch.as_tensor(S, dtype=torch.float32), self.normalisation)


def arm_names(runs: Sequence[Run]) -> list[str]:
    """What runs are called in figures: by their plans, "pretrained" and "from scratch" for the plainest.

    Fold, seed and backbone tell no arms apart. Where runs of one plan differ in settings, what differs follows; where
    in weights or data, the beginning of their hash.
    """
    names = [run.config.plan.title for run in runs]
    configs = [run.config for run in runs]
    # What may differ, and among which runs a difference counts.
    kinds: list[tuple[list[tuple[str, ...]], list[tuple]]] = [
        (
            [tuple(c.setting.split(", ")) for c in configs],
            [(name, c.dataset) for name, c in zip(names, configs, strict=True)],
        ),
        (
            [(f"weights {c.weights_sha256[:8]}",) for c in configs],
            [(name, c.backbone) for name, c in zip(names, configs, strict=True)],
        ),
        (
            [(f"data {c.data_key[:8]}",) for c in configs],
            [(name, c.dataset, c.setting) for name, c in zip(names, configs, strict=True)],
        ),
    ]
    suffixes: list[list[str]] = [[] for _ in runs]
    for described, group in kinds:
        for i, mine in enumerate(described):
            others = [each for each, where in zip(described, group, strict=True) if where == group[i]]
            suffixes[i] += [word for word in mine if not all(word in other for other in others)]
    return [f"{name} ({', '.join(extra)})" if extra else name for name, extra in zip(names, suffixes, strict=True)]


_COMPARED: dict[str, Callable[[Run], Any]] = {
    "backbone": lambda run: run.config.backbone,
    "dataset": lambda run: run.config.dataset,
    "truncate_after": lambda run: run.config.plan.truncate_after,
    "labels": lambda run: run.label_names,
    "held-out clips (fold)": lambda run: (run.clip_ids, run.labels.tolist()),
    "feature settings": lambda run: run.config.features,
    "features": lambda run: run.provenance["features_key"],
    "normalisation": lambda run: (run.config.training.normalise, run.config.inner_fold),
}


def check_alike(runs: Sequence[Run], *what: str) -> None:
    """Refuse runs that differ in what an analysis needs them to share.

    Raises
    ------
    ParameterError
        Naming two of the runs, and what they differ in.
    """
    for run, name in itertools.product(runs[1:], what):
        first = runs[0]
        mine, theirs = (_COMPARED[name](each) for each in (run, first))
        if mine != theirs:
            values = f" ({mine} and {theirs})" if isinstance(mine, (str, int)) and name != "features" else ""
            raise ParameterError(
                f"ckpt={run.path} and {first.path} differ in {name}{values}: compare runs that share it"
            )


def normalised(x: torch.Tensor, normalisation: np.ndarray) -> torch.Tensor:
    """Subtract the mean and divide by the deviation of each channel: `normalisation` [shape=(2, channels)]."""
    mean, deviation = (torch.as_tensor(each, dtype=x.dtype, device=x.device)[:, None, None] for each in normalisation)
    return (x - mean) / deviation


def load_run(path: Path | str, *, expected: RunConfig | None = None) -> Run:
    """Open a finished run.

    Parameters
    ----------
    path : Path or str
    expected : RunConfig, optional
        Which run the file must hold.

    Raises
    ------
    CheckpointError
        Where the file is missing, damaged, cut short, holds no run, another one, or one that has not finished.
    """
    path = Path(path)
    with open_runfile(path) as file:
        config, done = read_config(file), len(file["history"]["heldout_accuracy"])
        if expected is not None and config != expected:
            raise CheckpointError(f"{path} holds another run than its name says: delete it, and it is trained again")
        for name in TENSORS:  # read later, when they are asked for
            file[name]  # noqa: B018
        if done < config.training.epochs:
            raise CheckpointError(
                f"{path} has finished {done} of {config.training.epochs} epochs: ask for the run again to finish it"
            )
        history = {key: array(file["history"][key]) for key in history_names(config)}
        if any(values.shape != (done,) or not np.isfinite(values).all() for values in history.values()):
            raise CheckpointError(f"{path} has a damaged history: delete it, and the run is trained again")
        n_clips, n_classes = len(file["clip_ids"]), len(file["label_names"])
        shapes = {"labels": (n_clips,), "logits_last": (n_clips, n_classes), "logits_best": (n_clips, n_classes)}
        if any(file[name].shape != shape for name, shape in shapes.items()) or file["normalisation"].shape[0] != 2:
            raise CheckpointError(f"{path} is damaged: its arrays do not fit each other")
        run = Run(
            path=path,
            config=config,
            provenance=read_attributes(file["provenance"]),
            history=history,
            label_names=tuple(text.decode() for text in array(file["label_names"])),
            clip_ids=tuple(text.decode() for text in array(file["clip_ids"])),
            labels=array(file["labels"]),
            logits=array(file["logits_last"]),
            logits_best=array(file["logits_best"]),
            normalisation=array(file["normalisation"]),
        )
    rules = {
        "clips": 0 < len(set(run.clip_ids)) == n_clips,
        "labels": run.labels.dtype.kind in "iu" and bool(((run.labels >= 0) & (run.labels < n_classes)).all()),
        "logits": bool(np.isfinite(run.logits).all() and np.isfinite(run.logits_best).all()),
        "normalisation": run.normalisation.ndim == 2
        and bool(np.isfinite(run.normalisation).all() and (run.normalisation[1] > 0).all()),
        "accuracies": 0 <= history["heldout_accuracy"].min() <= history["heldout_accuracy"].max() <= 1,
    }
    if wrong := [name for name, holds in rules.items() if not holds]:
        raise CheckpointError(f"{path} is damaged: its {' and '.join(wrong)} cannot be; delete it, and train it again")
    return run


def load_runs(paths: Sequence[Path | str], *alike: str, least: int = 1) -> list[Run]:
    """Open finished runs that an analysis compares.

    Parameters
    ----------
    paths : sequence of Path or str
        One run under two paths is still one.
    *alike : str
        What they must share, as for `check_alike`.
    least : int > 0
        How many there must be.

    Raises
    ------
    CheckpointError
        As for `load_run`; all such files are named at once.
    ParameterError
        Where they are too few, or differ.
    """
    found: dict[str, Run] = {}
    problems = []
    for path in paths:
        try:
            run = load_run(path)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            found.setdefault(run.config.id, run)
    if problems:
        raise CheckpointError("; ".join(dict.fromkeys(problems)))
    if len(found) < least:
        raise ParameterError(
            f"ckpt must name at least {least} run{'s' * (least > 1)}, not {len(found)}: "
            "`python -m transferlens.runs` lists them"
        )
    runs = list(found.values())
    check_alike(runs, *alike)
    return runs
