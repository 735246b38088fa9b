"""Are ensembles more robust? Accuracy of single networks and ensembles as the held-out clips are corrupted.

The abstract of Palanisamy, Singhania and Yao (2020) says that ensembles are; they report clean clips only. Here every
run classifies its held-out clips again after noise, gain, low-pass, clipping and a shift in time of known strengths
(`transferlens.corruptions`); arms (say, from scratch against pretrained) stand beside each other. Networks are not
trained on corrupted clips.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.ensembles import gather
from transferlens.data.catalogue import DataOptions
from transferlens.features.corruptions import CORRUPTIONS
from transferlens.measures import predictions, stats
from transferlens.models.device import pick_device
from transferlens.options import OutputOptions
from transferlens.plots import style
from transferlens.store.heldout import classify, heldout_audio
from transferlens.store.run import Run, check_alike, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import table

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Accuracy of single networks and their ensembles as the held-out clips are corrupted."""

    ckpt: tuple[Path, ...]
    """Run files of one data set, two or more a held-out fold; their audio must be at hand."""
    corruption: tuple[str, ...] = tuple(CORRUPTIONS)
    """Which: noise, gain, low-pass, clipping, shift."""
    data: DataOptions = DataOptions()
    execution: DeviceOptions = DeviceOptions()
    output: OutputOptions = OutputOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [kind for kind in self.corruption if kind not in CORRUPTIONS]
        if unknown or not self.corruption:
            raise ParameterError(f"corruption={' '.join(unknown)!r} must be among {', '.join(CORRUPTIONS)}")


@dataclass(frozen=True)
class Row:
    """One ensemble under one corruption in the CSV: accuracies are fractions over the clips of all folds.

    `single` is the members' mean, `gain` what the ensemble has more than it, `more_than_clean` what it gains more than
    on clean clips: above 0 says that it is the more robust. 95 % intervals over clips: Wilson's of the ensemble's
    accuracy, bootstrap of the others.
    """

    ensemble: str
    corruption: str
    strength: float
    n_members: int
    n_clips: int
    single: float
    single_low: float
    single_high: float
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    more_than_clean: float
    more_than_clean_low: float
    more_than_clean_high: float


def corrupted(
    runs: Sequence[Run], options: DataOptions, kinds: Sequence[str], device: torch.device
) -> dict[tuple[str, float], list[Run]]:
    """The runs as if they had held out corrupted clips.

    Returns
    -------
    found : dict of (kind, strength) to list of Run
        With the logits of the corrupted clips in place of their own; clean ones first.
    """
    conditions = [(CLEAN, 0.0), *((kind, strength) for kind in kinds for strength in CORRUPTIONS[kind].strengths)]
    found: dict[tuple[str, float], list[Run]] = {condition: [] for condition in conditions}
    with tqdm.tqdm(total=len(conditions) * len(runs), unit="run", delay=2, leave=False, disable=None) as bar:
        for fold in dict.fromkeys(run.config.fold for run in runs):
            mine = [run for run in runs if run.config.fold == fold]
            networks = [run.model().to(device) for run in mine]
            clips = heldout_audio(mine[0], options)
            for condition in conditions:
                S = _features(mine[0], clips, *condition)
                for run, network in zip(mine, networks, strict=True):
                    found[condition].append(replace(run, logits=classify(run, network, S)))
                    bar.update()
    return found


def _features(run: Run, clips: Sequence[np.ndarray], kind: str, strength: float) -> np.ndarray:
    """Log-mel features of corrupted clips; the noise of a clip is its own, and the same in every run."""
    settings = run.config.features
    if kind != CLEAN:
        seeds = [zlib.crc32(clip.encode()) for clip in run.clip_ids]
        corruption = CORRUPTIONS[kind]
        clips = [corruption(y, strength, sr=settings.sr, seed=seed) for y, seed in zip(clips, seeds, strict=True)]
    return np.stack([settings.compute(y) for y in clips])


def rows_of(found: Mapping[tuple[str, float], Sequence[Run]]) -> list[Row]:
    """A row for each ensemble under each corruption, of what `corrupted` gives."""
    rows = []
    clean: dict[str, np.ndarray] = {}
    for (kind, strength), runs in found.items():
        for members in gather(runs):
            right = predictions.accuracy(members.probabilities, members.labels).mean(0)
            right_mean = predictions.accuracy(members.average, members.labels)
            n, gains = len(right), right_mean - right
            more = gains - clean.setdefault(members.name, gains)
            intervals = (
                stats.bootstrap_interval(right),
                stats.wilson_interval(int(right_mean.sum()), n),
                stats.bootstrap_interval(gains, bounds=(-1.0, 1.0)),
                stats.bootstrap_interval(more, bounds=(-2.0, 2.0)),
            )
            bounds = [value for interval in intervals for value in (interval.mean, interval.low, interval.high)]
            rows.append(Row(members.name, kind, strength, len(members.names), n, *bounds))
    return rows


def draw(result: Result) -> Figure:
    """A panel for each corruption: accuracy against its strength, clean clips at the left."""
    rows = result.rows
    kinds = [kind for kind in dict.fromkeys(row.corruption for row in rows) if kind != CLEAN]
    fig, axes = style.new_figure(1, len(kinds), width=1 + 2.9 * len(kinds), height=4.6, sharey=True)
    palette = style.colours(list(dict.fromkeys(row.ensemble for row in rows)))
    for ax, kind in zip(axes[0], kinds, strict=True):
        for name, colour in palette.items():
            mine = [row for row in rows if row.ensemble == name and row.corruption in (CLEAN, kind)]
            for line, value, low, high in (
                ("--", "single", "single_low", "single_high"),
                ("-", "accuracy", "low", "high"),
            ):
                mean, lower, upper = ([100 * getattr(row, field) for row in mine] for field in (value, low, high))
                ax.fill_between(range(len(mine)), lower, upper, color=colour, alpha=0.1, lw=0)
                ax.plot(range(len(mine)), mean, line, color=colour, marker="o", ms=3.5, lw=1.3)
        ax.set_xticks(range(len(mine)), [CLEAN, *(f"{row.strength:g}" for row in mine[1:])], fontsize="small")
        ax.set_xlabel(CORRUPTIONS[kind].title.replace(", ", "\n"))
    axes[0, 0].set_ylim(0, 102)
    axes[0, 0].set_ylabel("held-out accuracy [%]")
    first = {row.ensemble: row for row in rows}
    names = {f"{n} ({first[n].n_members} networks, {first[n].n_clips} clips)": each for n, each in palette.items()}
    fig.legend(style.handles(names), names, loc="outside lower center", ncols=min(3, len(names)), frameon=False)
    words = "full: ensemble, dashed: single networks; bands: 95 % intervals over clips"
    fig.suptitle(f"{result.title}: corrupted clips ({words})", x=0.01, ha="left")
    return fig


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def summary(result: Result) -> str:
    """Return single, ensemble and gain under each corruption, as a table."""
    head = ("ensemble", "corruption", "strength", "single [%]", "ensemble [%]", "gain [points]", "more than clean")
    lines = [
        (
            row.ensemble,
            row.corruption,
            f"{row.strength:g}",
            f"{100 * row.single:.1f}",
            f"{100 * row.accuracy:.1f}",
            _points(row.gain, row.gain_low, row.gain_high),
            _points(row.more_than_clean, row.more_than_clean_low, row.more_than_clean_high),
        )
        for row in result.rows
    ]
    return table([head, *lines])


@dataclass(frozen=True)
class Result(question.Result):
    """One row per ensemble under each corruption."""

    stem = "robustness"
    rows: tuple[Row, ...]
    title: str = ""


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Classify corrupted held-out clips with the networks that the options name."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    members = load_runs(options.ckpt, "dataset", "feature settings")
    gather(members)  # raises what cannot be averaged before anything is computed
    for fold in dict.fromkeys(run.config.fold for run in members):
        check_alike([run for run in members if run.config.fold == fold], "held-out clips (fold)", "features")
    logits = corrupted(members, options.data, list(dict.fromkeys(options.corruption)), device)
    return Result(tuple(rows_of(logits)), members[0].config.dataset)


robustness = question.Question("robustness", Options, analyse, first="ckpt")
main = cli.command("robustness", Options, robustness)

if __name__ == "__main__":
    sys.exit(main())
