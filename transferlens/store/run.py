"""Finished runs: what their files hold, their networks, how they are opened, and whether they can be compared."""

from __future__ import annotations

import html
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens.data.manifest import manifest
from transferlens.measures import classes
from transferlens.measures.scoring import ONE, labels_of
from transferlens.models import build, torchvision
from transferlens.models.weights import Source
from transferlens.store import runfile, schema
from transferlens.store.config import RunConfig
from transferlens.store.scored import Scored
from transferlens.store.sources import find, sources_of
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.fields import Rule, at_least, checked
from transferlens.util.lazy import torch
from transferlens.util.text import counted

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet
    from transferlens.models.network import Network
    from transferlens.store.recordings import Embeddings, Predictions


@dataclass(frozen=True, eq=False)
class Run(Scored):
    """A finished run, as `load_run` opens it.

    The weights are read from the file when they are needed. Two runs are equal only if they are the same object. A run
    can be used wherever the path of its file can.

    Attributes
    ----------
    path : Path
    config : RunConfig
    provenance : dict
        Versions, source of the weights, feature key, device, threads, precision, times.
    history : dict of str to ndarray [shape=(n_epochs,)]
        train_loss, heldout_loss, heldout_accuracy (a fraction), lr, seconds; inner_accuracy with an inner fold. Where
        clips have several labels, heldout_mAP and inner_mAP.
    label_names : tuple of str
        Sorted; the order of the logits' columns.
    clip_ids : tuple of str
        The held-out clips.
    labels : ndarray of int [shape=(n_clips,) or (n_clips, n_classes)]
        Index into `label_names` of each held-out clip; where clips have several labels, 1 for those, else 0.
    logits, logits_best : ndarray [shape=(n_clips, n_classes), float32]
        Held-out logits after the last epoch, and after the epoch best on these same clips (optimistic).
    normalisation : ndarray [shape=(2, channels)]
        Mean and standard deviation that the features were normalised with.
    groups : tuple of str
        The recording of each held-out clip; empty if the data set names none, or the file is of an older version.
    recordings : tuple of str
        The recordings that the run, and runs that it started from, were trained on, by their names, and the clips by
        the sha256 of their files; empty if the file is of an older version.
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
    groups: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        score = f"{self.scoring.name} {100 * self.score_last:.1f} % on fold {self.config.fold}"
        return f"Run {self.config.id!r}: {score}, {self.path}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self), quote=False)}</p>"

    @property
    def cost(self) -> build.Cost:
        """The cost of the network, as of `build.cost`."""
        return self.config.cost(len(self.label_names))

    @property
    def n_recordings(self) -> int:
        """Number of recordings that the held-out clips were cut from; 0 if it is not known."""
        return len(set(self.groups))

    @property
    def n_train(self) -> float:
        """Number of clips that the network was trained on.

        Older files do not have it: then it follows from the number of folds of a data set known by name, all as large
        as the held-out one; NaN for others.
        """
        if "n_train" in self.provenance:
            return self.provenance["n_train"]
        known = manifest().get(self.config.dataset)
        return len(self.labels) * (known.folds - 1 - bool(self.config.inner_fold)) if known else float("nan")

    @property
    def weights(self) -> str:
        """The names of the sources that blocks start from, such as "ImageNet", with + between them; "" without any."""
        return " + ".join(source.name for source in self.sources)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that blocks start from, in the order in which the plan names them."""
        return sources_of(self.provenance, self.config.plan)

    def within(self, dataset: DataSet) -> Run:
        """Return the run with what files of older versions lack, from the data set that it was trained on.

        Raise CheckpointError if it was trained on other clips, or with another number of labels per clip.
        """
        places = {clip.id: i for i, clip in enumerate(dataset.clips)}
        if not places.keys() >= set(self.clip_ids) or self.config.fold not in dataset.folds:
            raise CheckpointError(f"{self.path} was trained on other clips than {dataset.name}: name its clips")
        if self.config.labels_per_clip != dataset.labels_per_clip:
            raise CheckpointError(
                f"{self.path} was trained with labels_per_clip={self.config.labels_per_clip}, and {dataset.name} has "
                f"labels_per_clip={dataset.labels_per_clip}: name the table that it was trained on"
            )
        train = dataset.split(*self.config.split)[0]
        own: dict[str, Any] = {"n_train": len(train)}
        if self.scoring is ONE:
            own["commonest"] = classes.commonest_share(labels_of(dataset)[train], self.labels)
        recordings = dataset.recordings
        groups = [recordings[places[id]] for id in self.clip_ids] if recordings else []
        return replace(self, groups=self.groups or tuple(groups), provenance=own | self.provenance)

    def renamed(self, names: Mapping[str, str]) -> Run:
        """Return the run with other names of its sources, by the sha256 of their weights."""
        hashes = self.config.weights_sha256.split()
        ends = zip(schema.source_endings(len(hashes)), hashes, strict=True)
        named = {f"weights_name{end}": names[sha256] for end, sha256 in ends if sha256 in names}
        return replace(self, provenance=self.provenance | named)

    def initial_state(self) -> dict[str, torch.Tensor]:
        """Return the state dict of the network before training.

        Raises
        ------
        CheckpointError
            If the weights that the run started from are not available here.
        """
        with runfile.open_runfile(self.path) as file:
            state = runfile.to_torch(runfile.read_tensors(file["fresh"]))
            names = list(file["weights"].datasets())
        if len(state) < len(names):
            state = self._pretrained_state() | state
        if missing := sorted(set(names) - set(state)):
            raise CheckpointError(f"{self.path} is damaged: initial values of {', '.join(missing[:3])} are missing")
        return {name: state[name] for name in names}

    def _pretrained_state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the blocks that started from the weights of a source."""
        config = self.config
        sources = zip(config.plan.letters, self.sources, config.weights_sha256.split(), strict=True)
        states = {
            letter: find(config.backbone, source.option, normalise=config.training.normalise, sha256=sha256).state
            for letter, source, sha256 in sources
        }
        network = self._skeleton()
        network.load_pretrained(states)
        tensors = network.state_dict()
        return {name: tensors[name] for name in tensors if config.plan.is_pretrained(network.block_of(name))}

    def _skeleton(self, seed: int = 0) -> Network:
        """Return the network of the run, randomly initialised."""
        config, n_classes = self.config, len(self.label_names)
        return build.skeleton(
            config.backbone, n_classes=n_classes, plan=config.plan, seed=seed, input_size=config.input_size
        )

    def random_state(self) -> dict[str, torch.Tensor]:
        """Return the state dict of the network entirely randomly initialised, as a run from scratch starts."""
        network = self._skeleton(self.config.seed)
        if self.config.training.network == "torchvision":
            torchvision.adapt(network, self.config.backbone)
        return network.state_dict()

    def final_state(self) -> dict[str, torch.Tensor]:
        """Return the state dict of the network after the last epoch."""
        with runfile.open_runfile(self.path) as file:
            return runfile.to_torch(runfile.read_tensors(file["weights"]))

    def model(self, *, trained: bool = True) -> Network:
        """Return the trained network, or that before training, in evaluation mode; `inputs` prepares features for it.

        It computes in float32. The stored logits were computed in ``provenance["precision"]``: if that is bf16, those
        of the network differ by its rounding, and so may the classes of clips that are near the border of two.
        `predict`, `embed` and `store.heldout.classify` compute in the precision of the run.

        Raises
        ------
        CheckpointError
            If the weights are damaged or, for the network before training, are not available here.
        """
        if not isinstance(trained, bool):
            raise ParameterError(f"trained={trained!r} must be true or false")
        network = self._skeleton()
        state = self.final_state() if trained else self.initial_state()
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise CheckpointError(f"{self.path} is damaged: some of its weights are NaN or infinite")
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"{self.path} is damaged: its weights do not fit its backbone and plan") from error
        return network.eval()

    def predict(
        self, files: Sequence[Path | str] | Path | str, *, window: float | None = None, hop: float | None = None
    ) -> Predictions:
        """Classify sound files in the precision that the run was trained in; see `transferlens.store.recordings`.

        Parameters
        ----------
        files : path or sequence of path
            Files, and folders of files, of any rate.
        window, hop : float > 0 [s], optional
            Classify windows of this length that start every `hop` instead of whole files.

        Returns
        -------
        Predictions
            With ``.logits``, ``.probabilities``, ``.table()``, and ``.problems``: why files could not be read;
            ``.precisions`` says what it was computed in, as one line on the log does.

        Raises
        ------
        ParameterError
            If no file is found, or `hop` exceeds `window`.
        DataError
            If no file can be read.
        """
        from transferlens.store import recordings  # which computes features

        return recordings.predict([self], _paths(files), window=window, hop=hop)

    def embed(
        self,
        files: Sequence[Path | str] | Path | str,
        *,
        block: int | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> Embeddings:
        """Compute the pooled output of a block for sound files, in the precision of the run; files as for `predict`.

        Parameters
        ----------
        block : int in 0..4, optional
            Default: the last block of the network, whose embedding the head gets.

        Returns
        -------
        Embeddings
            With ``.vectors`` [shape=(n_windows, channels of the block)], ``.table()``, and ``.problems``.
        """
        from transferlens.store import recordings

        return recordings.embed(self, _paths(files), block=block, window=window, hop=hop)

    def inputs(self, S: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return log-mel features, normalised as the network was trained on them.

        Input and output have the shape [shape=(n_clips, channels, n_mels, width)]; the output is a float32 tensor.
        Raise ParameterError if they are not features as of this run.
        """
        shape = tuple(getattr(S, "shape", ()))
        if len(shape) != 4 or shape[1:] != self.config.features.shape:
            allowed = ", ".join(map(str, ("n_clips", *self.config.features.shape)))
            raise ParameterError(f"S of shape {shape} must be an array of shape ({allowed}): S[None] is one clip")
        is_real = re.search("float|int|bool", str(S.dtype))
        if not is_real or not (x := torch.as_tensor(S, dtype=torch.float32)).isfinite().all():
            raise ParameterError(f"S of type {S.dtype} must hold finite real numbers")
        return normalised(x, self.normalisation)


def _paths(files: Sequence[Path | str] | Path | str) -> list[Path]:
    return [Path(path) for path in ([files] if isinstance(files, (str, os.PathLike)) else files)]


def normalised(x: torch.Tensor, normalisation: np.ndarray) -> torch.Tensor:
    """Normalise features [shape=(n_clips, channels, n_mels, width)] by the mean and deviation of each channel."""
    mean, deviation = (torch.as_tensor(part, dtype=x.dtype, device=x.device)[:, None, None] for part in normalisation)
    return (x - mean) / deviation


def load_config(path: Path) -> RunConfig:
    """Return the configuration that a run file holds; raise CheckpointError if it cannot be opened."""
    with runfile.open_runfile(path) as file:
        return schema.read_config(file)


@checked
def load_run(path: Path | str | os.PathLike[str], *, expected: RunConfig | None = None) -> Run:
    """Open a finished run.

    Parameters
    ----------
    path : path
        A run file.
    expected : RunConfig, optional
        The run that the file must hold.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, cut short, not a run, inconsistent (naming the fields), another run, or a run
        that has not finished.
    """
    path = Path(path)
    with runfile.open_runfile(path) as file:
        fields = schema.read(file)
    config = fields["config"]
    if expected is not None and config != expected:
        raise CheckpointError(f"{path} holds the run {config.id}, not {expected.id}: move it to another folder")
    if (done := len(fields["history"]["lr"])) < config.training.epochs:
        raise CheckpointError(
            f"{path} has finished {done} of {config.training.epochs} epochs: train the run again to finish it"
        )
    fields |= {name: tuple(fields[name]) for name in ("label_names", "clip_ids", "groups", "recordings")}
    return Run(path=path, logits=fields.pop("logits_last"), **fields)


def _scaling(run: Run) -> tuple[Any, ...]:
    """Return what the scale of the input follows from: the settings, or the values of the source."""
    config, how = run.config, run.config.training.normalise
    return how, config.changes_input, config.split[1:], run.normalisation.tolist() if how == "source" else None


_COMPARED: dict[str, Callable[[Run], Any]] = {
    "backbone": lambda run: run.config.backbone,
    "dataset": lambda run: run.config.dataset,
    "truncate_after": lambda run: run.config.plan.truncate_after,
    "labels per clip": lambda run: run.config.labels_per_clip,
    "labels": lambda run: run.label_names,
    "held-out clips (fold)": lambda run: (run.clip_ids, run.labels.tolist()),
    "feature settings": lambda run: run.config.features,
    "features": lambda run: run.provenance["features_key"],
    "normalisation": _scaling,
}
SHARED = Rule(f"one of {', '.join(_COMPARED)}", _COMPARED.__contains__)


@checked
def check_alike(runs: Sequence[Run], *what: Annotated[str, SHARED]) -> None:
    """Raise ParameterError, naming two runs, if they differ in what an analysis needs them to share.

    That is "backbone", "dataset", "truncate_after", "labels" (and "labels per clip"), "held-out clips (fold)", "feature
    settings", "features" or "normalisation".
    """
    asked = [each for name in what for each in (("labels per clip", name) if name == "labels" else (name,))]
    for run, name in itertools.product(runs[1:], asked):
        value, first = _COMPARED[name](run), _COMPARED[name](runs[0])
        if value != first:
            values = f" ({value} and {first})" if isinstance(value, (str, int)) and name != "features" else ""
            raise ParameterError(
                f"ckpt={run.path} and {runs[0].path} differ in {name}{values}: compare runs of the same {name}"
            )


@checked
def load_runs(
    paths: Sequence[Path | str | os.PathLike[str]] | Path | str | os.PathLike[str],
    *alike: Annotated[str, SHARED],
    least: Annotated[int, at_least(0)] = 1,
) -> list[Run]:
    """Open the finished runs that an analysis compares.

    Parameters
    ----------
    paths : sequence of paths
        Run files; a run that is named twice is opened once.
    *alike : str
        What the runs must share: see `check_alike`.
    least : int >= 0
        Smallest number of runs.

    Raises
    ------
    CheckpointError
        As `load_run`, naming all files that cannot be opened.
    ParameterError
        If there are too few runs, or if they differ.
    """
    runs: dict[str, Run] = {}
    problems: dict[str, None] = {}
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        try:
            run = load_run(path)
            runs.setdefault(run.config.id, run)
        except CheckpointError as error:
            problems[str(error)] = None
    if problems:
        raise CheckpointError("; ".join(problems))
    if len(runs) < least:
        raise ParameterError(
            f"ckpt must name at least {counted(least, 'run')}, not {len(runs)}: "
            "`python -m transferlens.runs` lists them"
        )
    check_alike(list(runs.values()), *alike)
    return list(runs.values())
