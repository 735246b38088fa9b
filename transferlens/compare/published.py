"""The paper's values, and the cells of its tables from a store."""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transferlens.compare import ensembles
from transferlens.data.manifest import manifest
from transferlens.models.plan import TransferPlan
from transferlens.store.listing import RunSummary
from transferlens.store.run import Run, load_runs

ARMS = {"pretrained": TransferPlan.finetune(), "from scratch": TransferPlan.scratch()}
COLUMNS = (*ARMS, "ensemble")


@dataclass(frozen=True)
class Published:
    """An accuracy that the paper reports [%], and where."""

    accuracy: float
    std: float | None
    source: str


def published() -> dict[tuple[str, str, str], Published]:
    """The paper's accuracies by data set, backbone (timm's name) and column."""
    text = importlib.resources.files("transferlens").joinpath("paper_results.csv").read_text()
    return {
        (row["dataset"], row["backbone"], row["arm"]): Published(
            float(row["accuracy_percent"]), float(row["std_percent"]) if row["std_percent"] else None, row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    }


@dataclass(frozen=True)
class Cell:
    """One cell in the CSV. Accuracies are per cent; NaN where there are no runs, or one seed has no deviation.

    `setting` tells settings apart where a store has several for one arm, and where they do not, data and weights.
    `missing` says which folds or seeds the store lacks; the numbers are over the seeds that have all folds there are.
    """

    dataset: str
    backbone: str
    column: str
    setting: str
    accuracy: float
    std: float
    n_seeds: int
    n_folds: int
    n_clips: int
    missing: str
    paper: float
    paper_std: float
    paper_source: str

    @property
    def text(self) -> str:
        """In words: "92.2 ± 0.4", or what is missing."""
        if not self.n_seeds:
            return self.missing
        value = _number(self.accuracy, self.std)
        return f"{value} [{self.missing}]" if self.missing else value


def _number(mean: float, std: float, digits: int = 1) -> str:
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if np.isfinite(std) else f"{mean:.{digits}f}"


def _complete_seeds(summaries: Sequence[RunSummary], n_folds: int) -> tuple[list[RunSummary], str]:
    """The runs of those seeds that have every fold of the store, and in words what is missing."""
    folds = sorted({s.config.fold for s in summaries})
    seeds = sorted({s.config.seed for s in summaries})
    there = {(s.config.fold, s.config.seed) for s in summaries}
    lacking = [(fold, seed) for seed in seeds for fold in folds if (fold, seed) not in there]
    words = [f"{len(folds)} of {n_folds} folds"] if len(folds) < n_folds else []
    words += [f"no run of fold {fold}, seed {seed}" for fold, seed in lacking]
    whole = [s for s in summaries if s.config.seed not in {seed for _, seed in lacking}]
    return whole, ", ".join(words)


def _accuracies(runs: Sequence[Run]) -> list[float]:
    """Accuracy over the clips of all folds, of each seed."""
    by_seed: dict[int, list[np.ndarray]] = {}
    for run in runs:
        by_seed.setdefault(run.config.seed, []).append(run.right)
    return [float(np.concatenate(each).mean()) for each in by_seed.values()]


def _filled(dataset: str, backbone: str, column: str, summaries: Sequence[RunSummary], setting: str) -> list[Cell]:
    """The cell of an arm, and for the pretrained one that of its ensemble."""
    known = manifest().get(dataset)
    n_folds = known.folds if known else len({s.config.fold for s in summaries})
    whole, missing = _complete_seeds(summaries, n_folds)
    runs = load_runs([s.path for s in whole], least=0)
    values = _accuracies(runs)
    n_clips = sum(len(run.labels) for run in runs) // max(1, len(values))
    common = {"n_folds": len({s.config.fold for s in summaries}), "n_clips": n_clips}
    std = float(100 * np.std(values, ddof=1)) if len(values) > 1 else np.nan
    mean = float(100 * np.mean(values)) if values else np.nan
    found = [_cell(dataset, backbone, column, setting, mean, std, len(values), missing, **common)]
    if column == "pretrained":
        if len(values) > 1:
            (members,) = ensembles.gather(runs)
            accuracy = 100 * ensembles.row_of(members).accuracy
            found.append(
                _cell(dataset, backbone, "ensemble", setting, accuracy, np.nan, len(values), missing, **common)
            )
        else:
            why = "one seed" if values else missing
            found.append(_cell(dataset, backbone, "ensemble", setting, np.nan, np.nan, 0, why, **common))
    return found


def _cell(
    dataset: str,
    backbone: str,
    column: str,
    setting: str = "",
    accuracy: float = np.nan,
    std: float = np.nan,
    n_seeds: int = 0,
    missing: str = "no runs",
    n_folds: int = 0,
    n_clips: int = 0,
) -> Cell:
    paper = published().get((dataset, backbone, column))
    return Cell(
        dataset=dataset,
        backbone=backbone,
        column=column,
        setting=setting,
        accuracy=accuracy,
        std=std,
        n_seeds=n_seeds,
        n_folds=n_folds,
        n_clips=n_clips,
        missing=missing,
        paper=paper.accuracy if paper else np.nan,
        paper_std=paper.std if paper and paper.std is not None else np.nan,
        paper_source=paper.source if paper else "",
    )


def cells(summaries: Iterable[RunSummary]) -> list[Cell]:
    """The cells of all tables: what the store has, and what the paper reports.

    Parameters
    ----------
    summaries : iterable of RunSummary
        Of a store, as `list_runs` gives them; unfinished runs count as missing.
    """
    by_arm: dict[tuple[str, str, str], dict[tuple, list[RunSummary]]] = {}
    for summary in summaries:
        config = summary.config
        for column, plan in ARMS.items():
            if summary.is_complete and config.plan == plan:
                groups = by_arm.setdefault((config.dataset, config.backbone, column), {})
                groups.setdefault(config.arm_key, []).append(summary)
    found = []
    rows = dict.fromkeys([key[:2] for key in published()] + [key[:2] for key in sorted(by_arm)])
    for dataset, backbone in rows:
        mine: list[Cell] = []
        for column in ARMS:
            arms = list(by_arm.get((dataset, backbone, column), {}).values())
            settings = [group[0].config.setting for group in arms]
            for group, setting in zip(arms, settings, strict=True):
                config = group[0].config
                if settings.count(setting) > 1:  # they differ in what has no words
                    setting += f", data {config.data_key[:8]}"
                    setting += f", weights {config.weights_sha256[:8]}" if config.weights_sha256 else ""
                mine += _filled(dataset, backbone, column, group, setting)
        there = {cell.column for cell in mine}
        mine += [_cell(dataset, backbone, column) for column in COLUMNS if column not in there]
        found += sorted(mine, key=lambda cell: COLUMNS.index(cell.column))
    return found


def lines(found: Sequence[Cell]) -> list[list[str]]:
    """Rows of the table: data set, backbone, settings, and of each column ours and the paper's."""
    table = []
    for dataset, backbone in dict.fromkeys((cell.dataset, cell.backbone) for cell in found):
        mine = {(c.setting, c.column): c for c in found if (c.dataset, c.backbone) == (dataset, backbone)}
        settings = dict.fromkeys(setting for setting, _ in mine if setting)
        for setting in sorted(settings, key=len) or [""]:  # the plainest first
            line = [dataset, backbone, setting]
            for column in COLUMNS:
                cell = mine.get((setting, column)) or _cell(dataset, backbone, column)
                line.append(cell.text)
                line.append(_number(cell.paper, cell.paper_std, digits=2) if np.isfinite(cell.paper) else "")
            table.append(line)
    return table


HEAD = ["data set", "backbone", "settings", *(f"{column}{who}" for column in COLUMNS for who in ("", ", paper"))]
CAPTION = (
    "Accuracy over all held-out clips [%]: mean ± standard deviation over seeds after the last epoch, and the ensemble "
    "of the seeds. The paper's (arXiv:2007.11154) are of the epoch best on the held-out fold."
)
