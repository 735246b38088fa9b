"""The run store: the one HDF5 file that holds all that is known of a run, and the runs of a folder.

A run is a point: data set x held-out fold x backbone x transfer plan x seed x training settings. Its file is
``<runs>/<dataset>/<run id>.h5``, complete or absent; while it trains, ``<run id>.partial`` beside it holds the last
epoch and what resuming needs. ``python -m transferlens.runs`` lists a store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens import __version__, backbones, claims, cli, index
from transferlens.config import RunConfig, Training
from transferlens.errors import CheckpointError, ParameterError
from transferlens.features import FeatureSettings
from transferlens.files import UNREADABLE, array, check_space, complete_or_absent
from transferlens.lazy import h5py, torch
from transferlens.plan import TransferPlan

if TYPE_CHECKING:
    from transferlens.network import Network

__all__ = [
    "Run",
    "RunConfig",
    "RunSummary",
    "Training",
    "arm_names",
    "check_alike",
    "list_runs",
    "load_run",
    "load_runs",
    "scan",
    "seal",
]

SCHEMA = 1
# What follows the HDF5 file, before its sha256: HDF5 does not look there, and goes astray in damaged files.
SEAL = b"transferlens sha256\n"
# Seconds between two looks of a watch, at most.
LONGEST = 86400
SEALED = -len(SEAL) - hashlib.sha256().digest_size  # where what is sealed ends
HISTORY = ("train_loss", "heldout_loss", "heldout_accuracy", "lr", "seconds")


def history_names(config: RunConfig) -> tuple[str, ...]:
    """What the history of a run holds an epoch: with an inner fold, the accuracy there too."""
    return (*HISTORY, "inner_accuracy") if config.inner_fold else HISTORY


@dataclass(frozen=True)
class RunState:
    """All that a run file holds; what a run has reached after some epoch.

    Attributes
    ----------
    history : dict of str to list of float
        An entry an epoch: train_loss, heldout_loss, heldout_accuracy, lr, seconds, and with an inner fold
        inner_accuracy.
    clip_ids, labels : list of str, ndarray of int [shape=(n_clips,)]
        The held-out clips, in the order of the logits' rows.
    logits_last, logits_best : ndarray [shape=(n_clips, n_classes), float32]
    weights : dict of str to ndarray
        The network's state at this epoch.
    fresh : dict of str to ndarray
        Those initial tensors that are not ImageNet's; the others can be had again from the weights.
    optimizer : dict of str to ndarray
        "<parameter>/<moment>" to tensor; empty once the run is complete.
    """

    config: RunConfig
    provenance: dict[str, Any]
    label_names: list[str]
    clip_ids: list[str]
    labels: np.ndarray
    normalisation: np.ndarray
    history: dict[str, list[float]]
    logits_last: np.ndarray
    logits_best: np.ndarray
    weights: dict[str, np.ndarray]
    fresh: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]


_ARRAYS = ("clip_ids", "labels", "label_names", "normalisation", "logits_last", "logits_best")
_TENSORS = ("weights", "fresh", "optimizer")


def write_state(path: Path, state: RunState) -> None:
    """Write a run file, complete or absent."""
    check_space(path, sum(array.nbytes for name in _TENSORS for array in getattr(state, name).values()))
    with complete_or_absent(path) as beside:
        # In memory first: where a disk or quota ends, HDF5 crashes, and a plain write says so.
        with h5py.File(beside.name, "w", driver="core", backing_store=False) as file:
            _fill(file, state)
            file.flush()
            image = file.id.get_file_image()
        beside.write_bytes(_sealed(image))


def _sealed(image: bytes) -> bytes:
    return image + SEAL + hashlib.sha256(image).digest()


def seal(path: Path) -> None:
    """Seal a run file that was altered on purpose: without a seal that fits, none is opened."""
    content = path.read_bytes()
    if content[SEALED:][: len(SEAL)] == SEAL:
        content = content[:SEALED]
    with complete_or_absent(path) as beside:
        beside.write_bytes(_sealed(content))


def _fill(file: Any, state: RunState) -> None:
    file.attrs["schema"] = SCHEMA
    for name, attributes in (("config", state.config.flat()), ("provenance", state.provenance)):
        group = file.create_group(name)
        group.attrs.update({key: _to_attribute(value) for key, value in attributes.items()})
    for name in _ARRAYS:
        values = np.asarray(getattr(state, name))
        if values.dtype.kind in "fiu":
            file.create_dataset(name, data=values, fletcher32=True)
        else:
            file[name] = getattr(state, name)
    for name in ("history", *_TENSORS):
        group = file.create_group(name)
        for key, values in getattr(state, name).items():
            group.create_dataset(key, data=values, fletcher32=np.ndim(values) > 0 or None)


def read_state(path: Path) -> RunState:
    """Read a whole run file; see `load_run` for its errors."""
    with _open(path) as file:
        parts: dict[str, Any] = {name: array(file[name]) for name in _ARRAYS}
        for name in ("clip_ids", "label_names"):
            parts[name] = [text.decode() for text in parts[name]]
        parts |= {name: _read_tensors(file[name]) for name in _TENSORS}
        history = {key: array(file["history"][key]).tolist() for key in file["history"]}
        return RunState(config=_config(file), provenance=_attributes(file["provenance"]), history=history, **parts)


def _to_attribute(value: Any) -> Any:
    if value is None:
        return h5py.Empty("f4")
    return value


def _from_attribute(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def _attributes(group: Any) -> dict[str, Any]:
    return {key: _from_attribute(value) for key, value in group.attrs.items()}


def _config(file: Any) -> RunConfig:
    try:
        return RunConfig.from_flat(_attributes(file["config"]))
    except (KeyError, TypeError, ParameterError) as error:
        raise CheckpointError(f"{file.filename} was written by another version of transferlens: {error}") from error


def _tensors(group: Any) -> dict[str, Any]:
    """Every HDF5 data set below a group, by its path in it."""
    found: dict[str, Any] = {}
    group.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def _read_tensors(group: Any) -> dict[str, np.ndarray]:
    found = _tensors(group)
    if not all(isinstance(name, str) for name in found):
        raise ValueError("a tensor's name is no text")
    return {name: array(item) for name, item in found.items()}


def _to_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def _is_whole(path: Path) -> bool:
    """Whether a file is what was written."""
    content = memoryview(path.read_bytes())
    return content[SEALED:] == SEAL + hashlib.sha256(content[:SEALED]).digest()


@contextlib.contextmanager
def _open(path: Path | str) -> Iterator[Any]:
    """Open a run file for reading; whatever is wrong with it becomes one CheckpointError.

    The whole file is compared with its sha256 first: HDF5 may read a damaged one for ever.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {found}: name a run file, as `python -m transferlens.runs` lists them")
    try:
        if not _is_whole(path):
            raise ValueError("it is not what was written")
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise CheckpointError(f"{path} is an HDF5 file but no run of this version of transferlens")
            yield file
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: permission denied") from error
    except UNREADABLE as error:
        if isinstance(error, ParameterError):
            raise
        raise CheckpointError(
            f"{path} is no readable run file: damaged, cut short or of another kind; "
            "if it was a run, delete it and ask for it again"
        ) from error


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
        with _open(self.path) as file:
            state = _to_torch(_read_tensors(file["fresh"]))
            names = list(_tensors(file["weights"]))
        if len(state) < len(names):
            option, sha256 = self.provenance["weights_option"], self.config.weights_sha256
            pretrained = backbones.imagenet_state(self.config.backbone, option, sha256=sha256).state
            state = {f"backbone.{name}": tensor for name, tensor in pretrained.items()} | state
        if missing := sorted(set(names) - set(state)):
            raise CheckpointError(f"{self.path} is damaged: its start lacks {', '.join(missing[:3])}")
        return {name: state[name] for name in names}

    def final_state(self) -> dict[str, torch.Tensor]:
        """State dict of the network after the last epoch."""
        with _open(self.path) as file:
            return _to_torch(_read_tensors(file["weights"]))

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
        network = backbones.skeleton(self.config.backbone, n_classes=len(self.label_names), plan=self.config.plan)
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
    with _open(path) as file:
        config, done = _config(file), len(file["history"]["heldout_accuracy"])
        if expected is not None and config != expected:
            raise CheckpointError(f"{path} holds another run than its name says: delete it, and it is trained again")
        for name in _TENSORS:  # read later, when they are asked for
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
            provenance=_attributes(file["provenance"]),
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


@dataclass(frozen=True)
class RunSummary:
    """What the listing of a store says of one run, finished or under way.

    Attributes
    ----------
    id, file : str
    epochs, epochs_done : int
    accuracy_last, accuracy_best : float
        Fractions; held-out, after the last epoch and at the epoch best on these clips (optimistic).
    seconds : float [s]
    nbytes : int [bytes]
    settings : str
        The configuration, as JSON.
    """

    id: str
    file: str
    epochs: int
    epochs_done: int
    accuracy_last: float
    accuracy_best: float
    seconds: float
    nbytes: int
    settings: str

    @property
    def path(self) -> Path:
        """Of the file."""
        return Path(self.file)

    @functools.cached_property
    def config(self) -> RunConfig:
        """What the run is."""
        return RunConfig.from_flat(json.loads(self.settings))

    @property
    def is_complete(self) -> bool:
        """Whether every epoch is done."""
        return self.epochs_done == self.epochs


def summarise(path: Path) -> RunSummary:
    """Summary of one run file, finished (.h5) or under way (.partial); errors as in `load_run`."""
    with _open(path) as file:
        accuracy, seconds = (array(file["history"][name]) for name in ("heldout_accuracy", "seconds"))
        config = _config(file)
        return RunSummary(
            id=config.id,
            file=str(path),
            epochs=config.training.epochs,
            epochs_done=len(accuracy),
            accuracy_last=float(accuracy[-1]),
            accuracy_best=float(accuracy.max()),
            seconds=float(seconds.sum()),
            nbytes=Path(path).stat().st_size,
            settings=json.dumps(config.flat()),
        )


def _line(path: Path) -> str:
    """A summary as the index has it."""
    summary = vars(summarise(path))
    return json.dumps({name: value for name, value in summary.items() if name != "file"}, separators=(",", ":"))


def scan(folder: Path) -> tuple[list[RunSummary], list[str]]:
    """All runs below a folder, and what is wrong with the files that are none."""
    if not Path(folder).is_dir():
        raise CheckpointError(f"runs={str(folder)!r} is no folder: name a run store, or train a run first")
    kinds = (RunSummary, RunConfig, Training, FeatureSettings, TransferPlan)
    version = f"{__version__} {SCHEMA} {[field.name for kind in kinds for field in dataclasses.fields(kind)]}"
    found, problems = index.read_through(Path(folder), suffixes=(".h5", ".partial"), read=_line, version=version)
    values = json.loads(f"[{','.join(found.values())}]")
    return [RunSummary(file=path, **each) for path, each in zip(found, values, strict=True)], problems


def damaged(summaries: Iterable[RunSummary]) -> dict[str, str]:
    """Ids of finished runs whose files cannot be used, with the reasons: what a summary does not show."""
    found = {}
    for summary in summaries:
        try:
            load_run(summary.path)
        except CheckpointError as error:
            found[summary.id] = str(error)
    return found


def list_runs(folder: Path | str) -> list[RunSummary]:
    """Summaries of all runs in a store, in the order of their ids.

    Raises
    ------
    CheckpointError
        Naming every file that cannot be read.
    """
    summaries, problems = scan(Path(folder))
    if problems:
        raise CheckpointError("; ".join(problems))
    return summaries


@dataclass(frozen=True, kw_only=True)
class Options:
    """List the runs of a store: id, accuracy after the last and the best epoch [%], epochs, time and size.

    best: at the epoch best on the held-out clips themselves, which is optimistic.
    """

    runs: Path = Path("runs")
    """Folder of the run store."""
    ckpt: tuple[Path, ...] = ()
    """Show all settings, provenance and history of these run files instead."""
    watch: bool = False
    """Show what is being trained, by whom, and what has failed, again and again until Ctrl-C."""
    every: float = 5.0
    """Seconds between two looks of --watch."""


def _table(summaries: Sequence[RunSummary]) -> str:
    rows = [
        (
            s.id,
            f"{100 * s.accuracy_last:.1f}",
            f"{100 * s.accuracy_best:.1f}",
            f"{s.epochs_done}/{s.epochs}",
            f"{s.seconds:.0f}",
            f"{s.nbytes / 1e6:.1f}",
        )
        for s in summaries
    ]
    return cli.table([("run", "last [%]", "best [%]", "epochs", "time [s]", "size [MB]"), *rows])


def _details(run: Run) -> str:
    lines = [run.config.id]
    for title, values in (("config", run.config.flat()), ("provenance", run.provenance)):
        lines += [
            title,
            *(f"  {key:<18} {'none' if value is None else value}" for key, value in values.items()),
        ]
    lines += ["history", "  epoch  " + "  ".join(f"{name:>16}" for name in run.history)]
    for epoch, row in enumerate(zip(*run.history.values(), strict=True), start=1):
        lines.append(f"  {epoch:>5}  " + "  ".join(f"{value:16.5g}" for value in row))
    return "\n".join(lines)


def failed(folder: Path) -> dict[str, str]:
    """Ids of the runs of a store that have failed and were not trained since, with the reasons."""
    found = {}
    for path in sorted(folder.glob("*/*.failed")):
        if not path.with_suffix(".h5").is_file():
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError as error:
                lines = [f"the reason cannot be read: {error.strerror}"]
            found[path.stem] = lines[0] if lines else "no reason given"
    return found


def progress(folder: Path) -> str:
    """What goes on in a store: how many runs are done, which are under way and by whom, which have failed."""
    summaries, problems = scan(folder)
    done = [summary for summary in summaries if summary.is_complete]
    holders = {path.stem: claims.holder(path.with_suffix(".h5")) for path in sorted(folder.glob("*/*.claim"))}
    finished = {summary.id for summary in done}
    reached = {s.id: f"{s.epochs_done}/{s.epochs} epochs" for s in summaries if s.id not in finished}
    lines = [
        (name, reached.get(name, "first epoch"), holders.get(name) or "nobody") for name in sorted({*reached, *holders})
    ]
    parts = [f"{len(done)} runs done, {len(lines)} under way"]
    if lines:
        parts.append(cli.table([("run", "reached", "trained by"), *lines]))
    parts += [f"failed: {name} ({reason})" for name, reason in failed(folder).items()]
    return "\n".join([*parts, *(f"error: {problem}" for problem in problems)])


def _watch(folder: Path, every: float) -> None:
    clear = "\033[2J\033[H" if sys.stdout.isatty() else ""
    with contextlib.suppress(KeyboardInterrupt):  # how a watch ends
        while True:
            print(f"{clear}{time.strftime('%H:%M:%S')}  {progress(folder)}", flush=True)
            time.sleep(every)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """List a store, show single runs, or watch what is trained."""
    options = cli.parse(Options, argv, prog="runs")
    if options.ckpt:
        print("\n\n".join([_details(load_run(path)) for path in options.ckpt]))
        return cli.DONE
    if not 0 < options.every <= LONGEST:
        raise ParameterError(f"every={options.every} must be greater than 0 and at most {LONGEST} s")
    if options.watch:
        _watch(options.runs, options.every)
        return cli.DONE
    summaries, problems = scan(options.runs)
    print(_table(summaries) if summaries else f"no runs in {options.runs}")
    for name, reason in failed(options.runs).items():
        print(f"failed: {name} ({reason})")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return cli.BAD_INPUT if problems else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
