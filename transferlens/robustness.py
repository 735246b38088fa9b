"""Are ensembles more robust? Accuracy of single networks and ensembles as the held-out clips are corrupted.

The abstract of Palanisamy, Singhania and Yao (2020) says that ensembles are; they report clean clips only. Here every
run classifies its held-out clips again after noise, gain, low-pass, clipping and a shift in time of known strengths
(`transferlens.corruptions`); arms (say, from scratch against pretrained) stand beside each other. Networks are not
trained on corrupted clips.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli, display, ensemble, lazy, predictions, stats
from transferlens.corruptions import CORRUPTIONS
from transferlens.datasets import DataOptions
from transferlens.errors import ParameterError
from transferlens.files import check_writable, write_csv
from transferlens.inputs import PASS_SIZE, heldout_audio
from transferlens.memory import keep_freed_memory
from transferlens.runs import Run, load_runs
from transferlens.trainer import pick_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

torch = lazy.load("torch")
tqdm = lazy.load("tqdm")

__all__ = ["Options", "Row", "corrupted", "draw", "main", "rows_of"]

STEM = "robustness"
CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """Accuracy of single networks and their ensembles as the held-out clips are corrupted."""

    ckpt: tuple[Path, ...]
    """Run files of one data set, two or more a held-out fold; their audio must be at hand."""
    corruption: tuple[str, ...] = tuple(CORRUPTIONS)
    """Which: noise, gain, low-pass, clipping, shift."""
    figures: Path = Path("figures")
    """Folder for robustness.png, .pdf and .csv."""
    device: str = "auto"
    """auto (cuda, mps, cpu: the first there is), or torch's name of a device."""


@dataclass(frozen=True)
class Row:
    """One ensemble under one corruption in the CSV: accuracies are fractions over the clips of all folds.

    `low` and `high` bound the ensemble's, `single_low` and `single_high` the members' mean: 95 % bootstrap over clips.
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


def corrupted(
    runs: Sequence[Run], options: DataOptions, kinds: Sequence[str], device: torch.device
) -> Iterator[tuple[str, float, list[Run]]]:
    """The runs as if they had held out corrupted clips, first clean ones.

    Yields
    ------
    kind : str
    strength : float
    runs : list of Run
        With the logits of the corrupted clips in place of their own.
    """
    conditions = [(CLEAN, 0.0), *((kind, strength) for kind in kinds for strength in CORRUPTIONS[kind].strengths)]
    audio = {run.config.fold: heldout_audio(run, options) for run in runs}
    networks = [run.model().to(device) for run in runs]
    bar = tqdm.tqdm(total=len(conditions) * len(runs), unit="run", delay=2, leave=False, disable=None)
    for kind, strength in conditions:
        features = {fold: _features(_first(runs, fold), clips, kind, strength) for fold, clips in audio.items()}
        found = []
        for run, network in zip(runs, networks, strict=True):
            found.append(replace(run, logits=_logits(run, network, features[run.config.fold], device)))
            bar.update()
        yield kind, strength, found
    bar.close()


def _first(runs: Sequence[Run], fold: str) -> Run:
    return next(run for run in runs if run.config.fold == fold)


def _features(run: Run, clips: Sequence[np.ndarray], kind: str, strength: float) -> np.ndarray:
    """Log-mel features of corrupted clips; the noise of a clip is its own, and the same in every run."""
    settings = run.config.features
    if kind != CLEAN:
        clips = [CORRUPTIONS[kind](y, strength, sr=settings.sr, seed=i) for i, y in enumerate(clips)]
    return np.stack([settings.compute(y) for y in clips])


def _logits(run: Run, network: torch.nn.Module, S: np.ndarray, device: torch.device) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([network(part.to(device)).cpu() for part in run.inputs(S).split(PASS_SIZE)]).numpy()


def rows_of(kind: str, strength: float, runs: Sequence[Run]) -> list[Row]:
    """A row for each ensemble of these runs."""
    rows = []
    for members in ensemble.gather(runs):
        each, labels = members.probabilities, members.labels
        right, right_mean = predictions.accuracy(each, labels), predictions.accuracy(each.mean(0), labels)
        single, whole = stats.bootstrap_interval(right.mean(0)), stats.bootstrap_interval(right_mean)
        gain = stats.bootstrap_interval(right_mean - right.mean(0), bounds=(-1.0, 1.0))
        bounds = [value for interval in (single, whole, gain) for value in (interval.mean, interval.low, interval.high)]
        rows.append(Row(members.name, kind, strength, len(each), len(labels), *bounds))
    return rows


def draw(rows: Sequence[Row], title: str = "") -> Figure:
    """A panel for each corruption: accuracy against its strength, clean clips at the left."""
    kinds = [kind for kind in dict.fromkeys(row.corruption for row in rows) if kind != CLEAN]
    fig, axes = display.new_figure(1, len(kinds), width=1 + 2.9 * len(kinds), height=4.6, sharey=True)
    palette = display.colours(list(dict.fromkeys(row.ensemble for row in rows)))
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
    members = {row.ensemble: row.n_members for row in rows}
    names = {f"{name} ({members[name]} networks)": colour for name, colour in palette.items()}
    fig.legend(display.handles(names), names, loc="outside lower center", ncols=min(3, len(names)), frameon=False)
    words = f"full: ensemble, dashed: single networks; bands: 95 % bootstrap over {rows[0].n_clips} clips"
    fig.suptitle(f"{title}: corrupted clips ({words})", x=0.01, ha="left")
    return fig


def text(rows: Sequence[Row]) -> str:
    """Single, ensemble and gain under each corruption, as a table."""
    head = ("ensemble", "corruption", "strength", "single [%]", "ensemble [%]", "gain [points]", "95 % interval")
    lines = [
        (
            row.ensemble,
            row.corruption,
            f"{row.strength:g}",
            f"{100 * row.single:.1f}",
            f"{100 * row.accuracy:.1f}",
            f"{100 * row.gain:.1f}",
            f"{100 * row.gain_low:.1f} to {100 * row.gain_high:.1f}",
        )
        for row in rows
    ]
    return cli.table([head, *lines])


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the runs, corrupt and classify, write numbers, draw."""
    options = cli.parse(Options, argv, prog="robustness")
    unknown = [kind for kind in options.corruption if kind not in CORRUPTIONS]
    if unknown or not options.corruption:
        raise ParameterError(f"corruption={' '.join(unknown)!r} must be among {', '.join(CORRUPTIONS)}")
    check_writable("figures", options.figures)
    device = pick_device(options.device)
    keep_freed_memory()
    runs = load_runs(options.ckpt, "dataset", "feature settings")
    ensemble.gather(runs)  # refuses what cannot be averaged before anything is computed
    kinds = list(dict.fromkeys(options.corruption))
    rows = [row for found in corrupted(runs, options, kinds, device) for row in rows_of(*found)]
    write_csv(rows, options.figures / f"{STEM}.csv")
    display.save_figure(draw(rows, runs[0].config.dataset), options.figures / STEM)
    print(text(rows))
    print(f"written: {options.figures / STEM}.png, .pdf, .csv")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
