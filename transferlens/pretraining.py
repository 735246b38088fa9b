"""Pretrained against random initialisation: what ImageNet brings, and whether longer training makes up for it.

Question 1 of Palanisamy, Singhania and Yao (2020, section 4.1). Three arms on the same folds and seeds: fine-tuning
the ImageNet network, training it from scratch for as many epochs, and from scratch for about six times as many (the
paper's 450 to 70), so that nobody can say that it was cut short. Headline is the accuracy after the last epoch; that of
the epoch best on the held-out fold itself is optimistic, and only shown beside it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import learning_curves, points_and_means
from transferlens.store.rows import row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper trains 450 epochs from scratch and 70 from ImageNet weights.
LONGER = 6
ARMS = ("pretrained", "scratch", "scratch_long")


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Pretrained against random initialisation, for each backbone: accuracies by fold and learning curves."""

    long: Literal["all", "first", "none"] = "all"
    """Networks to train from scratch a second time, for six times as many epochs (the paper's: 450): all, the first."""


@dataclass(frozen=True)
class Row:
    """One run in the CSV. `init` is one of pretrained, scratch, scratch_long; accuracies are fractions."""

    dataset: str
    backbone: str
    init: str
    fold: str
    seed: int
    epoch_last: int
    accuracy_last: float
    epoch_best: int
    accuracy_best: float
    run: str


@dataclass(frozen=True)
class Result(question.Result):
    """The rows, and the held-out accuracy by epoch of each run in the order of the rows."""

    stem = "pretrained_vs_scratch"
    rows: tuple[Row, ...]
    curves: tuple[tuple[float, ...], ...]

    def select(self, **values: object) -> list[int]:
        """Indices of the rows whose fields have these values."""
        return [i for i, row in enumerate(self.rows) if all(getattr(row, k) == v for k, v in values.items())]

    def by_fold(self, field: str, **values: object) -> list[float]:
        """The field's mean over seeds in each fold, of the rows with these values."""
        return stats.by_fold(self.rows, field, **values)


def points(options: Options) -> dict[str, Arm]:
    """Return the arms: fine-tuned, from scratch, and from scratch for longer, the last of the networks of `long`."""
    study, (tuned, scratch) = Study.of(options), (TransferPlan.finetune(), TransferPlan.scratch())
    training, longer = study.training(tuned), study.training(scratch)
    if longer.epochs <= training.epochs or "epochs" in options.training.given:
        milestones = tuple(LONGER * epoch for epoch in training.milestones)
        longer = dataclasses.replace(training, epochs=LONGER * training.epochs, milestones=milestones)
    twice = {"all": study.backbones, "first": study.backbones[:1], "none": ()}[options.long]
    arms = {
        "pretrained": study.arm(tuned, training),
        "scratch": study.arm(scratch, training),
        "scratch_long": study.arm(scratch, longer, backbones=twice),
    }
    return {name: arm for name, arm in arms.items() if arm.points}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options | None = None) -> Result:
    """Put the runs of each arm side by side."""
    pairs = [(arm, run) for arm, arm_runs in runs.items() for run in arm_runs]
    return Result(
        rows=tuple(row_of(Row, run, init=arm) for arm, run in pairs),
        curves=tuple(tuple(run.history["heldout_accuracy"].tolist()) for _, run in pairs),
    )


def _arms(result: Result) -> dict[str, str]:
    """Arm to its name in the figure, with its number of epochs."""
    epochs = {row.init: row.epoch_last for row in result.rows}
    words = {
        "pretrained": "ImageNet-pretrained",
        "scratch": "from scratch",
        "scratch_long": "from scratch, longer",
    }
    return {arm: f"{words[arm]} ({epochs[arm]} epochs)" for arm in ARMS if arm in epochs}


def draw(result: Result) -> Figure:
    """Accuracies by fold with means and intervals, and the learning curves of each backbone."""
    backbones = list(dict.fromkeys(row.backbone for row in result.rows))
    names = _arms(result)
    fig, axes = style.new_figure(
        1,
        1 + len(backbones),
        width=5.2 + 4.2 * len(backbones),
        height=4.8,
        sharey=True,
        width_ratios=[1 + 0.35 * (len(backbones) - 1), *[1] * len(backbones)],
    )
    table = {
        field: {b: {names[a]: v for a in names if (v := result.by_fold(field, backbone=b, init=a))} for b in backbones}
        for field in ("accuracy_last", "accuracy_best")
    }
    points_and_means(table["accuracy_last"], beside=table["accuracy_best"], ax=axes[0, 0])
    n = len(result.by_fold("accuracy_last", backbone=backbones[0], init=ARMS[0]))
    axes[0, 0].set_title(_caption(n), fontsize="small", loc="left")
    for ax, backbone in zip(axes[0, 1:], backbones, strict=True):
        curves = {names[a]: [result.curves[i] for i in result.select(backbone=backbone, init=a)] for a in names}
        curves = {name: runs for name, runs in curves.items() if runs}
        learning_curves(curves, ax=ax)
        ax.set_title(f"{backbone}: each run, and the mean", fontsize="small", loc="left")
        ax.set_ylabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    fig.suptitle(f"{result.rows[0].dataset}: pretrained against random initialisation", x=0.01, ha="left")
    return fig


def _caption(n: int) -> str:
    interval = " and 95 % interval" if n > 1 else ""
    return (
        f"diamond: mean{interval}, n = {stats.folds_text(n)}; dots: folds, last epoch\nhollow: best epoch (optimistic)"
    )


def summary(result: Result) -> str:
    """Return the headline in words: each arm's accuracy, and what pretraining gains on the same folds."""
    lines = []
    for backbone in dict.fromkeys(row.backbone for row in result.rows):
        last = {arm: result.by_fold("accuracy_last", backbone=backbone, init=arm) for arm in _arms(result)}
        best = {arm: result.by_fold("accuracy_best", backbone=backbone, init=arm) for arm in last}
        for arm, name in _arms(result).items():
            if not last[arm]:
                continue
            optimistic = stats.fold_interval(best[arm]).mean
            lines.append(f"{backbone}  {name}: {stats.fold_interval(last[arm])}; best epoch {optimistic:.1%}")
        for arm in [arm for arm in list(last)[1:] if last[arm]]:
            gains = [a - b for a, b in zip(last["pretrained"], last[arm], strict=True)]
            gain = stats.fold_interval(gains, bounds=(-1, 1)).text("points")
            lines.append(f"{backbone}  pretrained - {arm}, paired by fold: {gain}")
    return "\n".join(lines)


pretraining = question.Question("pretraining", Options, analyse, points)
main = cli.command("pretraining", Options, pretraining)

if __name__ == "__main__":
    sys.exit(main())
