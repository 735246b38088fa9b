"""The accuracies that the paper reports, and the cells of its tables filled from a run store."""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transferlens.compare import ensembles
from transferlens.data.manifest import manifest
from transferlens.measures import classes
from transferlens.measures.classes import IF_SEVERAL, IF_UNEVEN, UNEVEN
from transferlens.measures.scoring import ONE
from transferlens.models.plan import TransferPlan
from transferlens.models.weights import IMAGENET
from transferlens.store.listing import RunSummary
from transferlens.store.run import Run, load_runs
from transferlens.util.grouping import group_by

ARMS = {"pretrained": TransferPlan.finetune(), "from scratch": TransferPlan.scratch()}
COLUMNS = (*ARMS, "ensemble")


@dataclass(frozen=True)
class Published:
    """An accuracy that the paper reports [%], its standard deviation (NaN if it gives none), and where."""

    accuracy: float
    std: float
    source: str


@functools.cache
def published() -> dict[tuple[str, str, str], Published]:
    """Return the paper's accuracies by data set, backbone (timm's name) and column."""
    text = importlib.resources.files("transferlens").joinpath("paper_results.csv").read_text()
    return {
        (row["dataset"], row["backbone"], row["arm"]): Published(
            float(row["accuracy_percent"]), float(row["std_percent"] or "nan"), row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    }


@dataclass(frozen=True)
class Cell:
    """One cell in the CSV. Accuracies are per cent: NaN without runs, and the deviation is NaN for one seed.

    `setting` distinguishes the settings of one arm, and if they are equal, its data and weights. `missing` names the
    folds or seeds without runs; the numbers are over the seeds that have all folds of the store. Where clips have
    several labels, `score` is "mAP", and accuracies are means over folds of it.
    """

    dataset: str
    backbone: str
    column: str
    setting: str = ""
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)
    accuracy: float = np.nan
    std: float = np.nan
    macro_f1: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=np.nan, kw_only=True, metadata=IF_UNEVEN)
    n_seeds: int = 0
    n_folds: int = 0
    n_clips: int = 0
    missing: str = "no runs"
    paper: float = np.nan
    paper_std: float = np.nan
    paper_source: str = ""

    @property
    def text(self) -> str:
        """In words: "92.2 ± 0.4", "92.2 ± 0.4, F1 91.0" where classes are uneven, or what is missing."""
        if not self.n_seeds:
            return self.missing
        name = "" if self.score == "accuracy" else f"{self.score} "
        value = (
            name + _number(self.accuracy, self.std) + (f", F1 {self.macro_f1:.1f}" if self.class_ratio > UNEVEN else "")
        )
        return f"{value} [{self.missing}]" if self.missing else value


def _number(mean: float, std: float, digits: int = 1) -> str:
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if np.isfinite(std) else f"{mean:.{digits}f}"


def _cell(place: tuple[str, str], column: str, **values: Any) -> Cell:
    """Return a cell with the paper's value next to those of the store; a place is a data set and a backbone."""
    paper = published().get((*place, column), Published(np.nan, np.nan, ""))
    values |= {"paper": paper.accuracy, "paper_std": paper.std, "paper_source": paper.source}
    return Cell(place[0], place[1], column, **values)


def _complete_seeds(summaries: Sequence[RunSummary], n_folds: int) -> tuple[list[RunSummary], str]:
    """Return the runs of the seeds that have every fold of the store, and what is missing, in words."""
    folds = sorted({s.config.fold for s in summaries})
    seeds = sorted({s.config.seed for s in summaries})
    existing = {(s.config.fold, s.config.seed) for s in summaries}
    lacking = [(fold, seed) for seed in seeds for fold in folds if (fold, seed) not in existing]
    words = [f"{len(folds)} of {n_folds} folds"] if len(folds) < n_folds else []
    words += [f"no run of fold {fold}, seed {seed}" for fold, seed in lacking]
    complete = [s for s in summaries if s.config.seed not in {seed for _, seed in lacking}]
    return complete, ", ".join(words)


def _cells_of_arm(place: tuple[str, str], column: str, summaries: Sequence[RunSummary], setting: str) -> list[Cell]:
    """Return the cell of an arm, and if it is the pretrained one, that of its ensemble."""
    known, n_folds = manifest().get(place[0]), len({s.config.fold for s in summaries})
    complete, missing = _complete_seeds(summaries, known.folds if known else n_folds)
    runs = load_runs([s.path for s in complete], least=0)
    by_seed = group_by(runs, key=lambda run: run.config.seed).values()
    values = [_score(runs_of_seed) for runs_of_seed in by_seed]
    macro = _macro_f1([*by_seed])
    n_seeds = len(values)
    n_clips = sum(len(run.labels) for run in runs) // max(1, n_seeds)
    common: dict[str, Any] = {"score": summaries[0].score, "setting": setting, "n_folds": n_folds, "n_clips": n_clips}
    std = float(100 * np.std(values, ddof=1)) if n_seeds > 1 else np.nan
    mean = float(100 * np.mean(values)) if values else np.nan
    cells_of_arm = [_cell(place, column, accuracy=mean, std=std, n_seeds=n_seeds, missing=missing, **common, **macro)]
    if column == "pretrained" and n_seeds > 1:
        (members,) = ensembles.gather(runs)
        row = ensembles.row_of(members)
        macro |= {"macro_f1": 100 * row.macro_f1} if macro else {}
        common |= {"accuracy": 100 * row.accuracy, "n_seeds": n_seeds, "missing": missing}
        cells_of_arm.append(_cell(place, "ensemble", **common, **macro))
    elif column == "pretrained":
        cells_of_arm.append(_cell(place, "ensemble", missing="one seed" if values else missing, **common))
    return cells_of_arm


def _score(runs: Sequence[Run]) -> float:
    """Return the score of the runs of one seed over the clips of all folds."""
    folds = np.concatenate([np.full(len(run.labels), run.config.fold) for run in runs])
    outputs, labels = (np.concatenate([getattr(run, name) for run in runs]) for name in ("logits", "labels"))
    return runs[0].scoring.over_folds(outputs, labels, folds)


def _macro_f1(by_seed: Sequence[Sequence[Run]]) -> dict[str, float]:
    """Return the columns of macro-F1 over the clips of all folds [%], mean over seeds; none without runs, or of mAP."""
    if any(run.scoring is not ONE for runs in by_seed for run in runs):
        return {}
    each = [
        (np.concatenate([run.labels for run in runs]), np.concatenate([run.logits.argmax(1) for run in runs]))
        for runs in by_seed
    ]
    if not each:
        return {}
    ratio = classes.unevenness(each[0][0], n_classes=len(by_seed[0][0].label_names))
    return {"macro_f1": 100 * float(np.mean([classes.macro_f1(*pair) for pair in each])), "class_ratio": ratio}


def _cells_of_row(place: tuple[str, str], summaries: Sequence[RunSummary]) -> list[Cell]:
    """Return the cells of one data set and backbone, in the order of the columns."""
    row = []
    for column, plan in ARMS.items():
        arms = group_by([s for s in summaries if s.config.plan == plan], key=lambda s: s.config.arm_key).values()
        settings = [runs[0].config.setting for runs in arms]
        for runs, setting in zip(arms, settings, strict=True):
            config = runs[0].config
            if settings.count(setting) > 1:  # they differ in data or weights
                setting += f", data {config.data_key[:8]}"
                setting += f", weights {config.weights_sha256[:8]}" if config.weights_sha256 else ""
            if runs[0].weights not in ("", IMAGENET):
                setting += f", from {runs[0].weights}"
            row += _cells_of_arm(place, column, runs, setting)
    columns = {cell.column for cell in row}
    row += [_cell(place, column) for column in COLUMNS if column not in columns]
    return sorted(row, key=lambda cell: COLUMNS.index(cell.column))


def cells(summaries: Iterable[RunSummary]) -> list[Cell]:
    """Return the cells of the finished runs of a store, and last those of the paper on the same data sets alone."""
    complete = [s for s in summaries if s.is_complete and s.config.plan in ARMS.values()]
    by_place = group_by(complete, key=lambda s: (s.config.dataset, s.config.backbone))
    datasets = {dataset for dataset, _ in by_place}
    places = dict.fromkeys([*sorted(by_place), *(key[:2] for key in published() if key[0] in datasets)])
    return [cell for place in places for cell in _cells_of_row(place, by_place.get(place, []))]


def lines(filled: Sequence[Cell]) -> list[list[str]]:
    """Return the rows of the table: data set, backbone, settings, and for each column ours and the paper's, if any."""
    table, with_paper = [], has_paper(filled)
    for place, cells_of_row in group_by(filled, key=lambda cell: (cell.dataset, cell.backbone)).items():
        by_setting = {(cell.setting, cell.column): cell for cell in cells_of_row}
        settings = dict.fromkeys(cell.setting for cell in cells_of_row if cell.setting)
        for setting in sorted(settings, key=len) or [""]:  # the shortest first
            line = [*place, setting]
            for column in COLUMNS:
                cell = by_setting.get((setting, column)) or _cell(place, column)
                paper = _number(cell.paper, cell.paper_std, digits=2) if np.isfinite(cell.paper) else ""
                line += [cell.text, paper] if with_paper else [cell.text]
            table.append(line)
    return table


def head(filled: Sequence[Cell]) -> list[str]:
    """Return the names of the columns of `lines`."""
    whose = ("", ", paper") if has_paper(filled) else ("",)
    return ["data set", "backbone", "settings", *(f"{column}{who}" for column in COLUMNS for who in whose)]


def has_paper(filled: Sequence[Cell]) -> bool:
    """Return whether the paper has a value of these."""
    return any(np.isfinite(cell.paper) for cell in filled)


_CAPTION = (
    "Accuracy over all held-out clips [%]: mean ± standard deviation over seeds after the last epoch, and the ensemble "
    "of the seeds."
)
_PAPER = " The paper's (arXiv:2007.11154) are of the epoch best on the held-out fold."


_MAP = ", as clips have several labels: mean average precision, the mean over classes and folds"


def caption(filled: Sequence[Cell]) -> str:
    """Return what the numbers of the tables are."""
    uneven = any(cell.class_ratio > UNEVEN for cell in filled)
    text = _CAPTION + (_PAPER if has_paper(filled) else "")
    if scores := {cell.score for cell in filled if cell.n_seeds} - {ONE.name}:
        is_only = all(cell.score in scores for cell in filled if cell.n_seeds)
        text = text.replace("Accuracy", "mAP", 1).removesuffix(".") + f"{_MAP}." if is_only else f"{text} mAP{_MAP}."
    return f"{text} F1: macro-F1 [%], the mean over classes, where these are uneven." if uneven else text
