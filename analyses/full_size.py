"""What the paper's own networks take: DenseNet-201 and ResNet-50 at full size, on real sound.

ESC-10, one fold, three epochs from random weights (the accuracies are those of hardly trained networks): for whoever
has the ImageNet weights and wants to know what to expect. Writes ``full_size`` (.png, .pdf, .csv): losses by epoch,
time of an epoch, and the most memory that the process had taken. Finished runs are not trained again.

    python -m analyses.full_size --clips path/to/esc10/clips.csv

The study with these networks is ``analyses/paper.toml``; ``python -m transferlens.study --config analyses/paper.toml
--dry-run`` says how long it takes. The options are those of ``python -m transferlens.train`` without those of the plan,
and ``--figures``.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.study import Step
from transferlens.training.presets import TrainingOptions
from transferlens.training.sweep import Arm, Study, SweepOptions
from transferlens.util import text
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS = ("densenet201", "resnet50")
EPOCHS = 3
LOSSES = {"train_loss": "-", "heldout_loss": "--"}


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Train the paper's networks from random weights for a few epochs: losses, time and memory."""

    sweep: SweepOptions = SweepOptions(backbone=NETWORKS, n_folds=1)
    training: TrainingOptions = TrainingOptions(epochs=EPOCHS)


@dataclass(frozen=True)
class Row(RunRow):
    """One run in the CSV, with its time per epoch, its memory and what computed it.

    `memory_bytes` is the most that the process had taken by the end of the run, 0 if that is not known; `processor`,
    `threads` and `precision` are those of the run.
    """

    seconds_per_epoch: float
    memory_bytes: int
    processor: str
    threads: int
    precision: str


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run, and its losses by epoch."""

    stem = "full_size"
    rows: tuple[Row, ...]
    losses: tuple[Mapping[str, np.ndarray], ...]


def points(options: Options) -> dict[str, Arm]:
    """Return the runs, all from random weights."""
    return {"from scratch": Study.of(options).arm(TransferPlan.scratch())}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options | None = None) -> Result:
    """Return time, memory and losses of the runs."""
    found = [run for runs_of_arm in runs.values() for run in runs_of_arm]
    return Result(tuple(map(_row, found)), tuple({name: run.history[name] for name in LOSSES} for run in found))


def _row(run: Run) -> Row:
    took = run.provenance
    return row_of(
        Row,
        run,
        seconds_per_epoch=float(np.mean(run.history["seconds"])),
        memory_bytes=int(took.get("most_memory_bytes", 0)),
        **{name: took[name] for name in ("processor", "threads", "precision")},
    )


def draw(result: Result) -> "Figure":
    """Draw the losses of each network by epoch, and beside them its time and its memory."""
    fig, axes = style.new_figure(1, 3, width=11, height=3.8, width_ratios=[2, 1, 1])
    palette = style.colours(row.backbone for row in result.rows)
    for row, losses in zip(result.rows, result.losses, strict=True):
        for name, line in LOSSES.items():
            epochs = np.arange(1, len(losses[name]) + 1)
            axes[0, 0].plot(epochs, losses[name], color=palette[row.backbone], ls=line, marker="o", ms=4)
        for ax, value in zip(axes[0, 1:], (row.seconds_per_epoch, row.memory_bytes / 1e9), strict=True):
            ax.bar(row.backbone, value, color=palette[row.backbone], width=0.6)
            ax.annotate(f"{value:.3g}", (row.backbone, value), ha="center", va="bottom", fontsize="small")
    axes[0, 0].set(xlabel="epoch", ylabel="loss", yscale="log")
    axes[0, 0].locator_params(axis="x", integer=True)
    for ax, words in zip(axes[0, 1:], ("time of an epoch [s]", "memory [GB]"), strict=True):
        ax.set_ylabel(words)
        ax.margins(y=0.12)
    lines = {"training clips": style.mark("", line="-"), "held-out clips": style.mark("", line="--")}
    networks = dict(zip(palette, style.lines(palette.items()), strict=True))
    style.legend_below(fig, marks=networks | lines)
    first = result.rows[0]
    style.title(fig, f"{first.dataset}, fold {first.fold}: the paper's networks from random weights")
    return fig


def summary(result: Result) -> str:
    """Return size, time and memory of each network, and its accuracy."""
    lines = []
    for backbone, rows in group_by(result.rows, lambda row: row.backbone).items():
        row, accuracy = rows[0], 100 * np.mean([row.accuracy_last for row in rows])
        lines.append(
            f"{backbone}: {row.parameters / 1e6:.1f} million parameters, {row.multiply_adds / 1e9:.2f} x 10^9 "
            f"multiply-adds; {row.seconds_per_epoch:.0f} s per epoch of {row.n_train:.0f} clips "
            f"({row.precision}, threads: {row.threads}), {row.memory_bytes / 1e9:.1f} GB; "
            f"held-out accuracy after {text.counted(row.epochs, 'epoch')} {accuracy:.1f} %"
        )
    return "\n".join(lines)


full_size = question.Question("full_size", Options, analyse, points)
main = cli.command("analyses.full_size", Options, full_size)
STEPS = [Step.of(main)]

if __name__ == "__main__":
    sys.exit(main())
