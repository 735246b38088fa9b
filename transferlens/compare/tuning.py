"""Each arm at its best: learning rate and number of epochs, chosen per arm and fold on clips that are not held out.

Every setting of a small grid is trained with a further fold, the inner one, kept from training, as ``--select nested``
does. The setting whose last epoch is best on the inner fold (mean over seeds; of equal ones the untuned one, else the
first of the grid) is then trained on all training folds, as the untuned arm is. The held-out fold takes no part in the
choice [1]_.

* `TuneOptions.grid`: the settings
* `Trial`, `Tuned`: names of the arms of one setting, and of the choice
* `trials`: the arms of all settings
* `tuned`: the arms that follow from the runs of trials; `expected`: the same, before there are any
* `trial_rows`, `choices`: what was tried and chosen, as a table and in words

References
----------
.. [1] S. Kornblith, J. Shlens, Q. V. Le: Do better ImageNet models transfer better? CVPR 2019, section 3 and appendix
   A.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np

from transferlens.measures.classes import IF_SEVERAL
from transferlens.store.config import RunConfig, Training
from transferlens.store.rows import row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, gather
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, above, between
from transferlens.util.grouping import group_by
from transferlens.util.text import counted

TUNED = ", tuned"  # ends the name of an arm whose settings are chosen
# A backbone and a fold: settings are chosen for each.
Split = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class TuneOptions(Fields):
    """Settings to choose from, per arm and fold, on a fold that is kept from training; not on held-out clips."""

    tune_lr: tuple[Annotated[float, above(0)], ...] = ()
    """Learning rates to choose from, such as 3e-4 1e-3 3e-3. Tuned arms then stand beside the untuned ones."""
    tune_epochs: tuple[Annotated[int, between(1, 2**20)], ...] = ()
    """Numbers of epochs to choose from, such as 12 24."""

    def grid(self, training: Training, *, times: float = 1) -> list[Training]:
        """Return the settings to choose from, empty if only one is possible; untuned ones, `training`, come first.

        Numbers of epochs are multiplied by `times`. Raise ParameterError if there is one setting, and not `training`.
        """
        lengths = [max(1, round(times * epochs)) for epochs in self.tune_epochs] or [training.epochs]
        pairs = [(lr, epochs) for lr in self.tune_lr or (training.lr,) for epochs in lengths]
        settings = list(dict.fromkeys(_changed(training, lr, epochs) for lr, epochs in pairs))
        if len(settings) > 1:
            return sorted(settings, key=lambda setting: setting != training)
        for name, value in (("lr", settings[0].lr), ("epochs", settings[0].epochs)):
            if value != getattr(training, name):
                raise ParameterError(f"tune_{name}={value:g} is not a choice: give several values, or {name}={value:g}")
        return []


def _changed(training: Training, lr: float, epochs: int) -> Training:
    return replace(training.lasting(epochs), lr=lr)


@dataclass(frozen=True)
class Trial:
    """Name of the runs of an arm with one setting of the grid, by its number, and an inner fold."""

    arm: Hashable
    number: int


@dataclass(frozen=True)
class Tuned:
    """Name of the runs of an arm with the settings that are chosen."""

    arm: Hashable


@dataclass(frozen=True)
class TrialRow:
    """One run of a setting that was tried; `inner_accuracy` is that of its last epoch, and `chosen` the settings."""

    dataset: str
    backbone: str
    arm: str
    fold: str
    inner_fold: str
    seed: int
    lr: float
    epochs: int
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)
    inner_accuracy: float
    chosen: bool
    run: str


def trials(name: Hashable, arm: Callable[..., Arm], grid: Sequence[Training]) -> dict[Any, Arm]:
    """Return the arms that try each setting of a grid for the arm of this name, which `arm` makes of a setting."""
    return {Trial(name, number): arm(setting, nested=True) for number, setting in enumerate(grid)}


def _trials(arms: Mapping[Any, Any]) -> dict[Any, list[Trial]]:
    """Return the trials of each arm, in the order of the grid."""
    return group_by((name for name in arms if isinstance(name, Trial)), lambda trial: trial.arm)


def _inner_score(run: Run) -> float:
    return float(run.inner_scores[-1])


def _choice(runs: Mapping[Any, Sequence[Run]], of_arm: Sequence[Trial]) -> dict[Split, Trial]:
    """Return the trial of an arm that is best on the inner fold, for each backbone and fold."""
    scores: dict[Split, dict[Trial, float]] = {}
    for trial in of_arm:
        for split, group in group_by(runs[trial], lambda run: (run.config.backbone, run.config.fold)).items():
            scores.setdefault(split, {})[trial] = float(np.mean([_inner_score(run) for run in group]))
    return {split: max(of_split, key=lambda trial: of_split[trial]) for split, of_split in scores.items()}


def tuned(arms: Mapping[Any, Arm], runs: Mapping[Any, Sequence[Run]]) -> dict[Tuned, Arm]:
    """Return an arm for each that has trials: its runs, with the settings that are chosen by the runs of the trials."""
    return {
        Tuned(name): _retrained(arms[name], {split: runs[t][0].config for split, t in _choice(runs, of_arm).items()})
        for name, of_arm in _trials(arms).items()
    }


def _retrained(arm: Arm, chosen: Mapping[Split, RunConfig]) -> Arm:
    points = []
    for point in arm.points:
        setting = chosen[point.backbone, point.fold].training
        points.append(replace(point, training=_changed(point.training, setting.lr, setting.epochs)))
    return Arm(arm.study, tuple(points))


def expected(arms: Mapping[Any, Arm]) -> dict[Tuned, Arm]:
    """Return what `tuned` will return; if trials are missing, the longest of their settings stands for the choice."""
    tried = {name: arms[name] for names in _trials(arms).values() for name in names}
    if all(point.path(arm.study.options.store.runs).is_file() for arm in tried.values() for point in arm.points):
        return tuned(arms, gather(tried))
    stand_ins = {}
    for name, of_arm in _trials(arms).items():
        longest = max((arms[trial].points[0] for trial in reversed(of_arm)), key=lambda point: point.training.epochs)
        stand_ins[Tuned(name)] = _retrained(arms[name], {(p.backbone, p.fold): longest for p in arms[name].points})
    return stand_ins


def trial_rows(runs: Mapping[Any, Sequence[Run]], names: Mapping[Any, str]) -> list[TrialRow]:
    """Return a row per run of a trial, of the arms that `names` has in words."""
    rows = []
    for arm, of_arm in _trials(runs).items():
        choice = _choice(runs, of_arm)
        for trial in of_arm if arm in names else ():
            for run in runs[trial]:
                config = run.config
                own = {
                    "arm": names[arm],
                    "lr": config.training.lr,
                    "score": run.scoring.name,
                    "inner_accuracy": _inner_score(run),
                }
                rows.append(row_of(TrialRow, run, **own, chosen=choice[config.backbone, config.fold] == trial))
    return rows


def choices(rows: Sequence[TrialRow], backbone: str) -> list[str]:
    """Return what was chosen for each arm of a network, in words, with the number of folds."""
    lines = []
    for arm, of_arm in group_by([row for row in rows if row.backbone == backbone], lambda row: row.arm).items():
        settings = {row.fold: f"lr {row.lr:g}, {counted(row.epochs, 'epoch')}" for row in of_arm if row.chosen}
        words = (f"{setting} ({counted(n, 'fold')})" for setting, n in Counter(settings.values()).most_common())
        lines.append(f"{backbone}  {arm}{TUNED}, chosen on inner folds: {'; '.join(words)}")
    return lines
