"""Many runs: the points that an analysis asks for are read from the store where they are, and trained where not."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from transferlens.data.catalogue import DataOptions
from transferlens.data.clips import DataSet
from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FeatureOptions
from transferlens.models.build import check, imagenet_state
from transferlens.models.device import pick_device
from transferlens.models.plan import TransferPlan
from transferlens.store import locks
from transferlens.store.config import RunConfig, Training
from transferlens.store.run import Run, load_run
from transferlens.training import engines, forecast, trainer
from transferlens.training.batches import Data
from transferlens.util import lazy
from transferlens.util.errors import CheckpointError, DataError, DryRun, ParameterError, SweepError, TransferLensError
from transferlens.util.files import check_writable, clear_left, expanded, write_text
from transferlens.util.lazy import psutil, tqdm

precision = lazy.load("transferlens.models.precision")

log = logging.getLogger(__name__)

__all__ = ["PRESETS", "Study", "SweepOptions", "gather"]

# What `Study.attempt` says of a run that another process trains.
HELD = "held"
# Seconds between two looks at runs that are trained elsewhere.
POLL = 1.0

_PAPER = Training(
    epochs=70,
    lr=1e-4,
    weight_decay=1e-3,
    schedule="step",
    milestones=(30, 60),
    normalise="none",
    precision="auto",
    augment="waveform",
)
# Preset name -> (where something is pretrained, where nothing is).
PRESETS = {
    "quick": (Training(), Training()),
    "paper": (_PAPER, dataclasses.replace(_PAPER, epochs=450, milestones=(300, 350))),
}


Arm = TypeVar("Arm")


@dataclass(frozen=True, kw_only=True)
class SweepOptions(FeatureOptions, DataOptions):
    """The options of every command that may train runs."""

    backbone: tuple[str, ...] = ("tf_efficientnet_lite0",)
    """timm's name of the network, one or more: any convolutional one with four spatial stages."""
    weights: str = "auto"
    """ImageNet weights: a .safetensors or .pth file, or auto (an installed weights package, else timm's hub)."""
    folds: tuple[str, ...] = ()
    """Folds to hold out, a run each; all folds by default."""
    n_folds: int | None = None
    """Hold out only the first so many of these folds, or of all."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation and order, a run each."""
    preset: Literal["quick", "paper"] = "quick"
    """quick: 12 epochs, lr 1e-3, cosine, normalised. paper: 70 epochs (450 from scratch), lr 1e-4 in steps, as is."""
    epochs: int | None = None
    """Number of epochs; the preset's by default."""
    batch_size: int | None = None
    """Clips in a batch; the preset's by default."""
    lr: float | None = None
    """Learning rate at the start; the preset's by default."""
    weight_decay: float | None = None
    """Weight decay; the preset's by default."""
    optimizer: Literal["adam", "adamw"] | None = None
    """adam: L2 penalty (the paper). adamw: decoupled weight decay. The preset's by default."""
    schedule: Literal["cosine", "step", "constant"] | None = None
    """cosine: to 0 at the end. step: a tenth at each milestone. constant. The preset's by default."""
    milestones: tuple[int, ...] | None = None
    """Epochs after which the step schedule drops; the preset's by default."""
    normalise: Literal["none", "channel", "imagenet"] | None = None
    """none: log-mel as it is (the paper). channel: mean 0, deviation 1 over the training folds. imagenet: their range
    made 0 to 1, then ImageNet's mean and deviation. Or the preset's."""
    select: Literal["last", "nested"] = "last"
    """last: train on all other folds. nested: keep the fold after the held-out one from training, to choose the epoch
    there; the accuracy after the last epoch stays the headline."""
    precision: Literal["auto", "bf16", "fp32"] | None = None
    """auto: bf16 autocast where the processor or GPU has it. bf16. fp32. Recorded in the run."""
    augment: Literal["none", "spectrum", "waveform", "released"] | None = None
    """Pitch shifts of -2 to 2 semitones and time stretches by 0.9 to 1.2 of training clips, rendered once. spectrum:
    from one Fourier transform a clip. waveform: by librosa, slower (the paper). released: the same, but always 2
    semitones up, as the paper's code was when it appeared. With --fit stretch, stretches leave almost no trace, none in
    spectrum, whose renderings are then five at most."""
    variants: int | None = None
    """Renderings of a clip, of which training draws one an epoch. Default: 8."""
    masks: int | None = None
    """SpecAugment: this many masks along time and along frequency. Default: 0."""
    mixup: float | None = None
    """mixup: parameter of its beta distribution, often 0.2. Default: 0, no mixup."""
    device: str = "auto"
    """auto (cuda, mps, cpu: the first there is), or torch's name of a device. Runs repeat bit by bit on cpu only."""
    memory: float | None = None
    """Most memory [GB] that features, and outputs of frozen blocks, may each take, else files. Half of what is free."""
    runs: Path = Path("runs")
    """Folder of the run store: what is there is not trained again."""
    threads: int | None = None
    """Threads that a run is computed with on a processor, recorded in it, as another number rounds otherwise. Default:
    all cores. To be said with --workers and with ray, and usually 1 there."""
    engine: Literal["local", "ray"] = "local"
    """local: this machine. ray: a Ray cluster, all of whose machines see the clips, --runs and --cache."""
    workers: int = 1
    """local: runs that are trained at once, each in a process with its share of the cores."""
    address: str | None = None
    """ray: address of the cluster's head, or auto. Default: start one on this machine."""
    gpus_per_run: float | None = None
    """ray: share of a GPU that a run takes; 0.25 puts four on one card. Default: none."""
    dry_run: bool = False
    """Say which runs are missing, how long they take and what disk they need, and train nothing."""

    def training(self, plan: TransferPlan) -> Training:
        """The preset's settings for a plan, with the values given here in their place."""
        preset = PRESETS[self.preset][plan.pretrained_through is None]
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(Training)}
        made = dataclasses.replace(preset, **{name: value for name, value in given.items() if value is not None})
        if self.variants is not None and self.variants < 1:
            raise ParameterError(f"variants={self.variants} must be 1 to 1000")
        if self.variants is not None and not made.variants:
            raise ParameterError(f"variants={self.variants} goes with --augment spectrum, waveform or released")
        return made


def _check_engine(options: SweepOptions) -> None:
    if not 1 <= options.workers <= 1024:
        raise ParameterError(f"workers={options.workers} must be 1 to 1024")
    on_ray = options.engine == "ray"
    if on_ray and options.workers > 1:
        raise ParameterError(
            f"workers={options.workers} goes with --engine local: Ray runs as many as there is room for"
        )
    for name in ("address", "gpus_per_run"):
        if not on_ray and getattr(options, name) is not None:
            raise ParameterError(f"{name}={getattr(options, name)!r} goes with --engine ray")
    gpus = options.gpus_per_run or 0
    if not 0 <= gpus <= 64 or gpus > 1 and gpus % 1:
        raise ParameterError(f"gpus_per_run={gpus} must be 0 to 1, or a whole number to 64")
    if (on_ray or options.workers > 1) and options.threads is None:
        what = "engine='ray'" if on_ray else f"workers={options.workers}"
        raise ParameterError(
            f"{what} needs --threads, most often 1: another number of threads gives a run other bits, so it must not "
            "follow from the number of workers"
        )


class Study:
    """A data set and its options, from which points are named and runs are gathered.

    Naming points takes the content of clips and weights, by their hashes; nothing is decoded or trained before a run
    is missing.
    """

    def __init__(self, options: SweepOptions) -> None:
        self.options = options
        for name, such in (("backbone", "resnet50"), ("seeds", "0")):
            if not getattr(options, name):
                raise ParameterError(f"{name} must name at least one, such as --{name} {such}")
        if wrong := [seed for seed in options.seeds if not 0 <= seed < 2**32]:
            raise ParameterError(f"seeds={wrong[0]} must be from 0 to {2**32 - 1}")
        if options.memory is not None and not options.memory >= 0:
            raise ParameterError(f"memory={options.memory} must be 0 GB or more")
        _check_engine(options)
        for name in ("runs", "cache", "figures"):
            if hasattr(options, name):
                check_writable(name, getattr(options, name))
        for backbone in options.backbone:
            check(backbone)
        self.dataset: DataSet = options.open()
        self.settings = options.settings(self.dataset)
        self.folds = self._folds()
        self.device = pick_device(options.device)

    def check_one(self, *names: str) -> None:
        """Refuse several folds, backbones or seeds where only one can be compared, before any is trained."""
        for name in names:
            values = self.folds if name == "folds" else getattr(self.options, name)
            if len(values) > 1:
                given = " ".join(map(str, values))
                raise ParameterError(f"{name}={given!r} must name one here, as runs of several cannot be compared")

    def _folds(self) -> tuple[str, ...]:
        unknown = [fold for fold in self.options.folds if fold not in self.dataset.folds]
        if unknown:
            raise ParameterError(
                f"folds={' '.join(unknown)!r} not in {self.dataset.name}: its folds are {', '.join(self.dataset.folds)}"
            )
        n_folds = self.options.n_folds
        if n_folds is not None and n_folds < 1:
            raise ParameterError(f"n_folds={n_folds} must be at least 1")
        folds = (tuple(dict.fromkeys(self.options.folds)) or self.dataset.held_out_folds)[:n_folds]
        if not folds:
            raise DataError(f"{self.dataset.name} has no fold to hold out: its only one is named train")
        for fold in folds:
            self.dataset.split(fold, self._inner(fold))  # refuses a fold that leaves nothing to learn from
        return folds

    def _inner(self, fold: str) -> str:
        """The fold that chooses the epoch: the next one, in a ring."""
        if self.options.select == "last":
            return ""
        others = [other for other in self.dataset.folds if other != "train"]
        if len(others) < (2 if "train" in self.dataset.folds else 3):
            raise ParameterError(
                f"select='nested' needs three folds or more and {self.dataset.name} has {len(self.dataset.folds)}: one "
                "to hold out, one to choose the epoch, and one to train on"
            )
        return others[(others.index(fold) + 1) % len(others)]

    @cached_property
    def cache(self) -> FeatureCache:
        """The data set's feature cache; complete once a run has been trained."""
        return FeatureCache(self.dataset, self.settings, self.options.cache)

    @cached_property
    def data_key(self) -> str:
        """Sha256 over features, labels and folds."""
        return self.cache.data_key

    @cached_property
    def data(self) -> Data:
        """Features and labels, loaded."""
        self.cache.fill()
        memory = None if self.options.memory is None else 1e9 * self.options.memory
        return Data(self.dataset, self.cache, self.device, memory=memory)

    def points(self, plan: TransferPlan, training: Training | None = None) -> list[RunConfig]:
        """The runs of one plan: backbones x folds x seeds."""
        plan, weights = plan.canonical(), self.options.weights
        return [
            RunConfig(
                dataset=self.dataset.name,
                data_key=self.data_key,
                features=self.settings,
                fold=fold,
                backbone=backbone,
                plan=plan,
                weights_sha256="" if plan.pretrained_through is None else imagenet_state(backbone, weights).sha256,
                seed=seed,
                training=training or self.options.training(plan),
                inner_fold=self._inner(fold),
            )
            for backbone in dict.fromkeys(self.options.backbone)
            for fold in self.folds
            for seed in dict.fromkeys(self.options.seeds)
        ]

    def gather_arms(self, arms: Mapping[Arm, Sequence[RunConfig]]) -> dict[Arm, list[Run]]:
        """The runs of each arm; errors as in `gather`."""
        runs = self.gather(point for points in arms.values() for point in points)
        return {arm: [runs[point] for point in points] for arm, points in arms.items()}

    def gather(self, points: Iterable[RunConfig]) -> dict[RunConfig, Run]:
        """The runs of these points: read where the store has them, trained where not.

        Raises
        ------
        DryRun
            Instead of all that, where the options ask for it.
        SweepError
            Where some runs failed, naming each with its reason, after the others have been trained.
        TransferLensError
            Where the input of a run, or a run file that is there, cannot be used.
        """
        (runs,) = gather([(self, points)])
        return runs

    def _gather(self, points: Sequence[RunConfig]) -> dict[RunConfig, Run]:
        runs = self._read(points)
        missing = [point for point in points if point not in runs]
        for point in missing:
            precision.choose(point.training.precision, self.device, **point.computed)  # refuses what would fail
        if missing:
            self._train(missing)
            runs |= self._read(missing)
        return {point: runs[point] for point in points}

    def _read(self, points: Sequence[RunConfig]) -> dict[RunConfig, Run]:
        """The runs that the store has; all that are damaged are named at once."""
        runs, problems = {}, []
        for point in points:
            path = point.path(self.options.runs)
            if path.is_file():
                try:
                    runs[point] = load_run(path, expected=point)
                except CheckpointError as error:
                    problems.append(str(error))
                    continue
                # Left where a run was killed between its last two steps.
                path.with_suffix(".partial").unlink(missing_ok=True)
                path.with_suffix(".failed").unlink(missing_ok=True)
        if problems:
            raise CheckpointError("; ".join(problems))
        return runs

    def _train(self, points: Sequence[RunConfig]) -> None:
        """Train runs by the engine of the options; one that fails stops no other, and those held elsewhere are awaited.

        Raises
        ------
        SweepError
            Naming all that failed.
        """
        missing, held, failures = list(points), [], []
        with tqdm.tqdm(total=sum(point.training.epochs for point in points), unit="epoch", delay=1) as bar:
            while missing:
                for point, failure in self._outcomes(missing, bar):
                    if failure == HELD:
                        held.append(point)
                    elif failure:
                        failures.append(f"{point.id} ({failure})")
                missing, held = self._await(held, bar)
        if failures:
            raise SweepError(
                f"{len(failures)} of {len(points)} runs failed: {'; '.join(failures)}. "
                "The same command tries just these again"
            )

    def _outcomes(self, points: Sequence[RunConfig], bar: tqdm.tqdm) -> Iterator[tuple[RunConfig, str]]:
        """Each run as it is done, with what `attempt` says of it."""
        options = self.options
        if options.engine == "local" and options.workers == 1:
            for point in points:
                yield point, self.attempt(point, bar)
            return
        self.cache.fill()  # once, not by every worker
        task = _Task(self._for_workers())
        if options.engine == "ray":
            cpus, gpus = options.threads or 1, options.gpus_per_run or 0
            outcomes = engines.on_ray(task, points, address=options.address, cpus=cpus, gpus=gpus)
        else:
            outcomes = engines.in_processes(
                task, points, workers=options.workers, cores_each=options.threads or 1, reached=self._reached
            )
        for point, failure in outcomes:
            if isinstance(failure, engines.Died):
                failure = self._record(point, str(failure))
            if failure != HELD:
                bar.set_postfix_str(point.id, refresh=False)
                bar.update(point.training.epochs)
            yield point, failure

    def _for_workers(self) -> SweepOptions:
        """The options as another process takes them, wherever it was started."""
        given = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(SweepOptions)}
        for name, value in given.items():
            if isinstance(value, Path):
                given[name] = value.absolute()
        given["splits"] = tuple(path.absolute() for path in self.options.splits)
        if self.options.weights != "auto":
            given["weights"] = str(expanded(self.options.weights).absolute())
        if self.options.engine == "local" and self.options.memory is None:
            given["memory"] = psutil.virtual_memory().available / 2e9 / self.options.workers
        return SweepOptions(**given | {"engine": "local", "workers": 1, "address": None, "gpus_per_run": None})

    def _reached(self, point: RunConfig) -> float | None:
        """When the last epoch of a run was saved [ns]."""
        try:
            return point.path(self.options.runs).with_suffix(".partial").stat().st_mtime_ns
        except OSError:
            return None

    def _await(self, points: Sequence[RunConfig], bar: tqdm.tqdm) -> tuple[list[RunConfig], list[RunConfig]]:
        """Wait for runs that other processes train, until some are given up or all are done.

        Returns those given up, and those still held.
        """
        held, said = list(points), False
        while held:
            done = [point for point in held if point.path(self.options.runs).is_file()]
            bar.update(sum(point.training.epochs for point in done))
            holders = {point: locks.holder(point.path(self.options.runs)) for point in held if point not in done}
            held = [point for point, holder in holders.items() if holder]
            if len(held) < len(holders):
                return [point for point in holders if point not in held], held
            if held and not said:
                last = held[-1]
                log.info("waiting for runs trained elsewhere: %d, %s by %s", len(held), last.id, holders[last])
                said = True
            time.sleep(POLL if held else 0)
        return [], []

    def attempt(self, point: RunConfig, bar: tqdm.tqdm | None = None) -> str:
        """Train one run, if nobody else does.

        Parameters
        ----------
        point : RunConfig
        bar : tqdm, optional
            Moved on by one an epoch.

        Returns
        -------
        failure : str
            Empty where the run is there now, `HELD` where another process trains it, else why it failed, which is
            also in its .failed file.

        Raises
        ------
        TransferLensError, OSError
            What would stop other runs too: clips, weights or the store cannot be used.
        """
        options, path = self.options, point.path(self.options.runs)
        if point.data_key != self.data_key:
            raise DataError(f"the clips of {self.dataset.name} have changed since {point.id} was asked for")
        with locks.lock(path) as is_held:
            if not is_held:
                return HELD
            try:
                trainer.train(point, self.data, folder=options.runs, weights=options.weights, progress=bar)
            except (TransferLensError, OSError):
                raise
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                reason = f"{type(error).__name__}: {error}, at {Path(where.filename).name}:{where.lineno}"
                return self._record(point, reason, traceback.format_exc())
            path.with_suffix(".failed").unlink(missing_ok=True)
            clear_left(path)
        return ""

    def _record(self, point: RunConfig, reason: str, details: str = "") -> str:
        """Keep why a run failed beside it."""
        reason = " ".join(reason.split())
        write_text(f"{reason}\n{details}", point.path(self.options.runs).with_suffix(".failed"))
        return reason


@dataclass(frozen=True)
class _Task:
    """What a worker does with a point."""

    options: SweepOptions

    def __call__(self, point: RunConfig) -> str:
        return _study(self.options).attempt(point)


@functools.lru_cache(maxsize=1)
def _study(options: SweepOptions) -> Study:
    return Study(options)


def gather(wanted: Sequence[tuple[Study, Iterable[RunConfig]]]) -> list[dict[RunConfig, Run]]:
    """The runs of several studies of one command; errors as in `Study.gather`."""
    asked = [(study, list(dict.fromkeys(points))) for study, points in wanted]
    if any(study.options.dry_run for study, _ in asked):

        def rows() -> list[forecast.Planned]:
            return [
                row
                for study, points in asked
                for row in forecast.rows(points, store=study.options.runs, dataset=study.dataset, device=study.device)
            ]

        raise DryRun([point.id for _, points in asked for point in points], rows, forecast.text)
    return [study._gather(points) for study, points in asked]
