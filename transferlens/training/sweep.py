"""Name the runs that a question needs: a data set, networks, folds and seeds give the points of a transfer plan.

No clip is decoded and no network trained before a run is missing; `schedule` reads, trains and waits.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from transferlens.data.catalogue import DataOptions
from transferlens.data.clips import DataSet
from transferlens.features.cache import FeatureCache
from transferlens.features.logmel import FeatureOptions
from transferlens.models.build import block_table, check
from transferlens.models.device import pick_device
from transferlens.models.plan import TransferPlan
from transferlens.models.weights import Source
from transferlens.store.config import RunConfig, Training
from transferlens.store.run import Run
from transferlens.store.sources import find, normalisation_of
from transferlens.training import forecast, schedule, starts
from transferlens.training.batches import Data
from transferlens.training.presets import TrainingOptions
from transferlens.training.schedule import ExecutionOptions
from transferlens.util.errors import DataError, ParameterError, warn_once
from transferlens.util.fields import Fields, Rule, at_least, between, build, checked, flat, names, signature
from transferlens.util.files import check_folder, check_writable
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, some

Name = TypeVar("Name")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepOptions(Fields):
    """Which runs: networks x held-out folds x seeds."""

    backbone: Annotated[tuple[str, ...], Rule("one or more, such as resnet50", bool)] = ("tf_efficientnet_lite0",)
    """timm's name of the network, one or more: a convolutional network with four stages, a ViT, Swin, MaxViT or
    CoAtNet."""
    weights: str = "auto"
    """ImageNet weights: a .safetensors or .pth file, or auto (an installed weights package, else timm's hub)."""
    source: tuple[str, ...] = ()
    """Instead of --weights: what blocks start from, as NAME=VALUE, one or more. The value is auto, a weights file, a
    finished run (.h5), or a tag of timm's hub such as a1_in1k; figures and tables say the name."""
    folds: tuple[str, ...] = ()
    """Folds to hold out, one run each. Default: all."""
    n_folds: Annotated[int | None, at_least(1)] = None
    """Hold out only this many folds: the first of --folds, or of all."""
    seeds: Annotated[tuple[Annotated[int, between(0, 2**32 - 1)], ...], Rule("one or more, such as 0", bool)] = (0,)
    """Seeds of initialisation and order, one run each."""
    select: Literal["last", "nested"] = "last"
    """last: train on all other folds. nested: keep the fold after the held-out one from training too, to choose the
    epoch there; the accuracy to report is still that after the last epoch."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that are given, or ImageNet; raise ParameterError if they cannot be told apart."""
        if not self.source:
            return (Source.of_file(self.weights),)
        if self.weights != "auto":
            raise ParameterError(f"weights={self.weights!r} and source={self.source[0]!r}: give only source")
        sources = tuple(map(Source.parse, self.source))
        if twice := [name for name, n in Counter(source.name for source in sources).items() if n > 1]:
            raise ParameterError(f"source={twice[0]!r} is given twice: each source needs a name of its own")
        return sources


@dataclass(frozen=True, kw_only=True)
class RunsOptions(Fields):
    """Where runs are kept."""

    runs: Path = Path("runs")
    """Folder of the run store: its runs are not trained again."""


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Fields):
    """Where features are kept."""

    cache: Path = Path("cache")
    """Folder of the feature caches; each data set and setting has one file there."""


@dataclass(frozen=True, kw_only=True)
class StoreOptions(CacheOptions, RunsOptions):
    """Where runs and features are kept."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions(Fields):
    """All options of a study, by group."""

    data: DataOptions = field(default_factory=DataOptions)
    sweep: SweepOptions = field(default_factory=SweepOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs of one plan in one study, which differ only in backbone, fold and seed."""

    study: Study
    points: tuple[RunConfig, ...]


class Study:
    """A data set with networks, folds, seeds and settings: names the points of plans, and returns their runs.

    Parameters
    ----------
    clips : Path or str, optional
        Table of clips (csv with path, label, fold). Default: the built-in data set, or `dataset`.
    **options
        All options of ``python -m transferlens.train`` but those of the plan, by their names: ``dataset`` and ``root``,
        ``backbone``, ``weights``, ``folds``, ``seeds``, ``preset``, ``epochs``, ``runs``, ``cache``, ``device`` and so
        on. One value stands for a tuple of one: ``folds=1`` is fold 1, and ``seeds=3`` is the one seed 3, as
        ``--seeds 3`` is; three seeds are ``seeds=range(3)``.

    Raises
    ------
    ParameterError
        If there is no such option, or a value is outside its rule.
    DataError
        If the clips cannot be used as they are.

    Examples
    --------
    >>> import transferlens as tl
    >>> study = tl.Study(backbone="resnet18", folds=[1], seeds=range(2))
    >>> [point.seed for point in study.points(tl.TransferPlan.scratch())]
    [0, 1]
    """

    __signature__ = signature(StudyOptions, positional="clips")

    def __init__(self, clips: Path | str | None = None, **options: Any) -> None:
        self.options = build(StudyOptions, options if clips is None else {"clips": clips, **options})
        for name in ("runs", "cache"):
            check_folder(name, getattr(self.options.store, name))
        self.backbones = tuple(dict.fromkeys(self.options.sweep.backbone))
        for backbone in self.backbones:
            check(backbone)
        self.dataset: DataSet = self.options.data.open()
        self.settings = self.options.features.settings(self.dataset)
        self.sources = self.options.sweep.sources
        self.folds = self._folds()
        self.device = pick_device(self.options.execution.device)
        self._sharers = 1
        self._names: dict[str, str] = {}  # of sources, by the hash of their weights

    @classmethod
    def of(cls, options: StudyOptions, *, sharers: int = 1) -> Study:
        """Return the study of options that are already composed; those of a question may have more groups.

        It is one of several processes that share the free memory, `sharers`, if it is opened in a worker.
        """
        study = cls(**{name: value for name, value in flat(options).items() if name in names(StudyOptions)})
        study._sharers = sharers
        return study

    def __repr__(self) -> str:
        parts = self.backbones, ("folds", *self.folds), ("seeds", *map(str, self.options.sweep.seeds))
        return f"Study({self.dataset.name}: {'; '.join(map(' '.join, parts))})"

    @checked
    def check_one(self, *names: Literal["folds", "backbone", "seeds"]) -> None:
        """Raise if there are several folds, backbones or seeds where only one can be compared."""
        for name in names:
            values = self.folds if name == "folds" else getattr(self.options.sweep, name)
            if len(values) > 1:
                given = " ".join(map(str, values))
                raise ParameterError(f"{name}={given!r} must name one here, as runs of several cannot be compared")

    def _folds(self) -> tuple[str, ...]:
        sweep, known = self.options.sweep, self.dataset.folds
        if unknown := [fold for fold in sweep.folds if fold not in known]:
            among = f"its folds are {', '.join(known)}"
            raise ParameterError(f"folds={' '.join(unknown)!r} not in {self.dataset.name}: {among}")
        folds = tuple(dict.fromkeys(sweep.folds)) or self.dataset.held_out_folds
        if not folds:
            only = some(self.dataset.folds)
            raise DataError(f"{self.dataset.name} has no fold to hold out: name one other than {only}, such as test")
        if (sweep.n_folds or 0) > len(folds):
            raise ParameterError(f"n_folds={sweep.n_folds} must be at most {len(folds)}: {', '.join(folds)}")
        folds = folds[: sweep.n_folds]
        for fold in folds:
            self.dataset.split(fold, self._inner(fold))  # raises if fewer than two classes can be trained on
        return folds

    def _inner(self, fold: str, *, nested: bool = False) -> str:
        """Return the fold that chooses epoch or settings: the next one after the held-out one, cyclically; "": none."""
        if self.options.sweep.select == "last" and not nested:
            return ""
        training_folds = self.dataset.training_folds
        others = [other for other in self.dataset.folds if other not in training_folds]
        if len(others) < (2 if training_folds else 3):
            asked, what = ("tuning", "settings") if nested else ("select='nested'", "the epoch")
            raise ParameterError(
                f"{asked} needs three folds or more and {self.dataset.name} has {len(self.dataset.folds)}: one "
                f"to hold out, one to choose {what}, and one to train on"
            )
        return others[(others.index(fold) + 1) % len(others)]

    @cached_property
    def _misplaced(self) -> str:
        """The classes that are never both trained on and held out, in words; "" if there are none."""
        pairs = [(label, clip.fold) for clip in self.dataset.clips for label in self.dataset.labels_of(clip)]
        folds_of = {label: {pair[1] for pair in of} for label, of in sorted(group_by(pairs, itemgetter(0)).items())}
        trained_on = {fold: set(self.dataset.trained_on(fold, self._inner(fold))) for fold in self.folds}
        alone = [label for label, folds in folds_of.items() if len(folds) == 1]
        untrained = [
            label
            for label, folds in folds_of.items()
            if len(folds) > 1 and any(fold in folds and not folds & others for fold, others in trained_on.items())
        ]
        problems = {
            "in one fold only, and so never both trained on and held out": alone,
            "held out by a run that is not trained on them": untrained,
        }
        return "; ".join(f"{words}: {some(labels)}" for words, labels in problems.items() if labels)

    def _warn_of_absent(self) -> None:
        """Warn, once per process, of classes without held-out clips: the mean over classes is over the others."""
        for fold in self.folds if self.dataset.labels_per_clip == "several" else ():
            held_out = {
                label for clip in self.dataset.clips if clip.fold == fold for label in self.dataset.labels_of(clip)
            }
            if absent := [label for label in self.dataset.label_names if label not in held_out]:
                warn_once(f"fold {fold} has no clip of {some(absent)}: mAP is the mean over the other classes")

    def _warn_of_bands(self) -> None:
        """Warn, once per process, if mel bands are so narrow that they stay empty."""
        settings = self.settings
        if empty := settings.n_empty:
            warn_once(
                f"{empty} of {settings.n_mels} mel bands are empty at sr={settings.sr} and n_fft={settings.n_fft}: "
                f"give longer windows (now at most {max(settings.windows):g} s)"
            )

    @cached_property
    def cache(self) -> FeatureCache:
        """The data set's feature cache; complete once a run has been trained."""
        return FeatureCache(self.dataset, self.settings, self.options.store.cache)

    @cached_property
    def data(self) -> Data:
        """Features and labels, loaded."""
        self.cache.fill()
        memory = self.options.execution.memory
        nbytes = None if memory is None else 1e9 * memory
        return Data(self.dataset, self.cache, self.device, memory=nbytes, sharers=self._sharers)

    @checked
    def training(self, plan: TransferPlan) -> Training:
        """Return the settings that a plan is trained with by default."""
        return self.options.training.training(plan)

    def _points(
        self, backbone: str, plan: TransferPlan, sources: Sequence[Source], training: Training, *, nested: bool
    ) -> list[RunConfig]:
        """Return the runs of a plan and its sources with one backbone; raise if the sources cannot be used."""
        pairs = [(source.name, find(backbone, source.option, normalise=training.normalise)) for source in sources]
        by_hash = group_by(pairs, lambda pair: pair[1].sha256)
        for name, weights in pairs:
            if (other := self._names.setdefault(weights.sha256, name)) != name:
                raise ParameterError(
                    f"source={other!r} and {name!r} are the same weights of {backbone}: give one of them"
                )
        if training.normalise == "source":
            normalisation_of([weights for _, weights in pairs])
        data_key = self.cache.data_key
        points = [
            RunConfig(
                dataset=self.dataset.name,
                data_key=data_key,
                features=self.settings,
                fold=fold,
                backbone=backbone,
                plan=plan,
                weights_sha256=" ".join(by_hash),
                seed=seed,
                training=self._of_all_clips(training, fold, inner_fold),
                inner_fold=inner_fold,
                labels_per_clip=self.dataset.labels_per_clip,
            )
            for fold in self.folds
            for inner_fold in [self._inner(fold, nested=nested)]
            for seed in dict.fromkeys(self.options.sweep.seeds)
        ]
        for point, (name, weights) in itertools.product(points, pairs):
            starts.check_unseen(point, name, weights, self.cache)
        return points

    def _of_all_clips(self, training: Training, fold: str, inner_fold: str) -> Training:
        """Return the settings without a number of clips per class if that is all clips: it is the same run."""
        if training.clips_per_class is None:
            return training
        part, whole = (self.dataset.split(fold, inner_fold, n)[0] for n in (training.clips_per_class, None))
        return training if len(part) < len(whole) else replace(training, clips_per_class=None)

    @checked
    def points(
        self,
        plan: TransferPlan,
        training: Training | None = None,
        *,
        source: str | None = None,
        nested: bool = False,
    ) -> list[RunConfig]:
        """Return the runs of one plan: backbones x folds x seeds.

        The letters of the plan are the first letters of the study's sources, and I is also that of a single one, or of
        the one that is named here. With `nested`, a fold is kept from training as with ``select="nested"``.
        """
        plan.warn()
        plan, sources = starts.resolve(plan, self.sources, source)
        if self._misplaced:
            remedy = "put clips of each class both in folds that are held out and in folds that are trained on"
            warn_once(f"{self.dataset.name} has classes that are {self._misplaced}: {remedy}")
        self._warn_of_absent()
        for backbone in self.backbones:  # raises if the input is too small for one
            size = self.settings.n_mels, self.settings.width
            block_table(backbone, input_size=size, through=plan.truncate_after)
        training = training or self.training(plan)
        points = (self._points(name, plan, sources, training, nested=nested) for name in self.backbones)
        return [*itertools.chain.from_iterable(points)]

    @checked
    def arm(
        self,
        plan: TransferPlan,
        training: Training | None = None,
        *,
        backbones: Sequence[str] | None = None,
        source: str | None = None,
        nested: bool = False,
    ) -> Arm:
        """Return the runs of one plan as an arm of a question: of these backbones or all; others as in `points`."""
        if unknown := [name for name in backbones or () if name not in self.backbones]:
            raise ParameterError(f"backbones={some(unknown)!r} must be of the study: {some(self.backbones)}")
        points = self.points(plan, training, source=source, nested=nested)
        return Arm(self, tuple(point for point in points if backbones is None or point.backbone in backbones))

    def runs(self, plan: TransferPlan, training: Training | None = None) -> list[Run]:
        """Return the runs of one plan, trained if they are missing; errors as in `gather`."""
        return list(self.gather(self.points(plan, training)).values())

    @checked
    def gather(self, points: Iterable[RunConfig]) -> dict[RunConfig, Run]:
        """Return the runs of these points: read from the store, or trained if they are missing.

        Raises
        ------
        SweepError
            If some runs failed: names each with its reason, after the others have been trained.
        TransferLensError
            If the input of a run, or a run file of the store, cannot be used.
        """
        points, store = list(dict.fromkeys(points)), self.options.store.runs
        runs = schedule.read(store, points)
        if missing := [point for point in points if point not in runs]:
            for name in ("runs", "cache"):  # a finished study may be read-only
                check_writable(name, getattr(self.options.store, name))
            self._warn_of_bands()
            self.warn_of_other_name(missing)
            self._tell_of_unfinished(missing)
            schedule.train(self, missing, threads=_threads(points))
            runs |= schedule.read(store, missing)
        return {point: runs[point].within(self.dataset).renamed(self._names) for point in points}

    def _tell_of_unfinished(self, points: Sequence[RunConfig]) -> None:
        """Log which unfinished runs of the store differ from these runs in settings alone: they are not changed."""
        ids = {point.id for point in points}
        words = {name.rpartition("-")[0] for name in ids}
        unfinished = sorted(path.stem for path in (self.options.store.runs / self.dataset.name).glob("*.partial"))
        if kept := [name for name in unfinished if name not in ids and name.rpartition("-")[0] in words]:
            log.info(
                "%s with other settings, kept as %s: %s; the command that started them goes on with them",
                counted(len(kept), "unfinished run"),
                "it is" if len(kept) == 1 else "they are",
                some(kept),
            )

    def warn_of_other_name(self, points: Iterable[RunConfig]) -> None:
        """Warn if the store has one of these runs, of the same clips, under another name of the data set."""
        store = self.options.store.runs
        others = [path.name for path in store.glob("*/") if path.name != self.dataset.name and not path.is_symlink()]
        for point, name in itertools.product(points, sorted(others)):
            if replace(point, dataset=name).path(store).is_file():
                warn_once(
                    f"{store / name} has runs of the same clips, whose folder or table was called {name} then and is "
                    f"{self.dataset.name} now: call it {name} again to use them, else they are trained again"
                )
                return


def gather(arms: Mapping[Name, Arm]) -> dict[Name, list[Run]]:
    """Return the runs of each arm, of one or several studies; errors as in `Study.gather`."""
    runs = {study: study.gather(points) for study, points in _by_study(arms).items()}
    return {name: [runs[arm.study][point] for point in arm.points] for name, arm in arms.items()}


def planned(arms: Mapping[Any, Arm]) -> list[forecast.Planned]:
    """Return the estimate for each run of the arms; none is trained."""
    sweeps = []
    for study, points in _by_study(arms).items():
        store, threads = study.options.store.runs, study.options.training.threads or _threads(points)
        at_once = schedule.workers(study, len(points), threads or 1)
        study.warn_of_other_name(point for point in points if not point.path(store).is_file())
        sweeps.append(forecast.Sweep(points, store, study.dataset, study.device, threads, at_once))
    return forecast.rows(sweeps)


def _threads(points: Sequence[RunConfig]) -> int | None:
    """Return the number of threads per run where settings name none; None is one per core.

    It depends on the runs that are asked for, not on those that are missing, so that neither do their bits.
    """
    return 1 if len(points) > 1 else None


def _by_study(arms: Mapping[Any, Arm]) -> dict[Study, list[RunConfig]]:
    """Return the points of each study."""
    groups = group_by(arms.values(), attrgetter("study"))
    return {study: [point for arm in group for point in arm.points] for study, group in groups.items()}
