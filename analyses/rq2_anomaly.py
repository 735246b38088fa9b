"""Question 2: why is a pretrained stem before random blocks worse than random weights everywhere?

Fusion at 0, on ESC-10: the stem starts from ImageNet and all other blocks from random weights. The arms ask what does
it: the filters of the stem or their scale (the stem from ImageNet's statistics), that they are trained (normalisation
layers only), the learning rate (the one that is best on an inner fold; ``--tune-lr``), or too few epochs. Each arm is
compared with its reference, the same with a random stem, paired by fold. Writes ``anomaly``, .png, .pdf and .csv,
``anomaly_losses.csv`` and ``anomaly_tuning.csv``. Finished runs are not trained again.

    python -m analyses.rq2_anomaly --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.train`` without those of the plan, and ``--figures``.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses import BACKBONES
from transferlens import cli
from transferlens.compare import arms, question, tuning
from transferlens.compare.tuning import TUNED, Tuned, TuneOptions
from transferlens.models.plan import TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.store.run import Run
from transferlens.study import Step
from transferlens.training.sweep import Arm, Study
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGER = 2
LONG = f", {LONGER} times the epochs"
SCRATCH, STEM = "random stem", "pretrained stem"
PLANS = {
    SCRATCH: TransferPlan.scratch(),
    STEM: TransferPlan.fuse(0),
    "its mean and deviation": TransferPlan(start="iRRRR"),
    "its values, permuted": TransferPlan(start="iRRRR", statistics="permuted"),
    "its filters fixed": TransferPlan(start="IRRRR", train="NAAAA"),
    "random filters fixed": TransferPlan(start="RRRRR", train="NAAAA"),
}
REFERENCES = {"its filters fixed": "random filters fixed"}  # of the others: a random stem
LOSSES = {"train_loss": "training loss", "heldout_loss": "held-out loss"}


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare ways to start and to train the stem before random blocks."""

    tune: TuneOptions = field(default_factory=lambda: TuneOptions(tune_lr=(3e-4, 1e-3, 3e-3)))


@dataclass(frozen=True)
class LossRow:
    """One epoch of one run: its mean loss over training clips, and over held-out clips."""

    arm: str
    fold: str
    seed: int
    epoch: int
    train_loss: float
    heldout_loss: float


def points(options: Options) -> dict[Any, Arm]:
    """Return the arms by name, and where there is an inner fold the trials that tune the two in question."""
    study = Study.of(options)
    study.check_one("backbone")  # losses are drawn for one network
    training = study.training(TransferPlan.finetune())  # all arms are trained alike
    asked: dict[Any, Arm] = {name: study.arm(plan, training) for name, plan in PLANS.items()}
    grid = options.tune.grid(training) if len(study.dataset.folds) > 2 else []
    for name in (SCRATCH, STEM):
        asked |= tuning.trials(name, partial(study.arm, PLANS[name]), grid)
        asked[f"{name}{LONG}"] = study.arm(PLANS[name], training.lasting(LONGER * training.epochs))
    return asked


@dataclass(frozen=True)
class Result(question.Result):
    """The arms compared, the losses of the two arms in question by epoch, and the rates that were tried."""

    stem = "anomaly"
    comparison: arms.Comparison
    losses: tuple[LossRow, ...]
    trials: tuple[tuning.TrialRow, ...]

    @property
    def rows(self) -> tuple[arms.Row, ...]:  # type: ignore[override]
        """One row per run."""
        return self.comparison.rows

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the tables by name."""
        tables: dict[str, Sequence[Any]] = {"anomaly": self.rows, "anomaly_losses": self.losses}
        return tables | ({"anomaly_tuning": self.trials} if self.trials else {})


def analyse(runs: Mapping[Any, Sequence[Run]], options: Options | None = None) -> Result:
    """Compare each arm with its reference, the two in question also with the learning rates that are chosen."""
    named = {name: [*runs_of_arm] for name, runs_of_arm in runs.items() if isinstance(name, str)}
    named |= {f"{name}{TUNED}": [*runs[Tuned(name)]] for name in (SCRATCH, STEM) if Tuned(name) in runs}
    references = {arm: REFERENCES.get(arm, SCRATCH) for arm in PLANS if arm not in (SCRATCH, *REFERENCES.values())}
    references |= {f"{STEM}{end}": f"{SCRATCH}{end}" for end in (LONG, TUNED) if f"{STEM}{end}" in named}
    losses = [row for arm in (SCRATCH, STEM) for run in named[arm] for row in _losses(arm, run)]
    trials = tuning.trial_rows(runs, {name: name for name in (SCRATCH, STEM)})
    return Result(arms.compare(named, references), tuple(losses), tuple(trials))


def _losses(arm: str, run: Run) -> list[LossRow]:
    pairs = zip(run.history["train_loss"].tolist(), run.history["heldout_loss"].tolist(), strict=True)
    return [LossRow(arm, run.config.fold, run.config.seed, i, *pair) for i, pair in enumerate(pairs, start=1)]


def draw(result: Result) -> "Figure":
    """Draw the accuracies and differences of all arms, and beside them the losses by epoch."""
    comparison, n = result.comparison, len(result.comparison.arms)
    ratios = {"width_ratios": [1.25 * n, 4.5], "height_ratios": [3, 2]}
    fig, axes = style.new_figure(2, 2, width=5.5 + 1.25 * n, height=6.8, **ratios)
    arms.draw(comparison, comparison.networks[0], *axes[:, 0])
    for (loss, words), ax in zip(LOSSES.items(), axes[:, 1], strict=True):
        _draw_losses(result.losses, loss, ax)
        ax.set_ylabel(words)
    axes[0, 0].tick_params(labelbottom=False)
    axes[0, 1].legend(frameon=False, fontsize="small")
    axes[1, 1].set_xlabel("epoch")
    style.legend_below(fig, marks=comparison.marks | style.curve_marks())
    style.title(fig, f"{result.rows[0].dataset}: a pretrained stem before random blocks, last epoch")
    return fig


def _draw_losses(rows: Sequence[LossRow], field: str, ax: "Axes") -> None:
    colours = style.colours([SCRATCH, STEM])
    for arm, rows_of_arm in group_by(rows, key=lambda row: row.arm).items():
        runs = group_by(rows_of_arm, key=lambda row: (row.fold, row.seed)).values()
        values = np.array([[getattr(row, field) for row in run] for run in runs])
        epochs = np.arange(1, values.shape[1] + 1)
        ax.plot(epochs, values.T, color=colours[arm], lw=0.6, alpha=0.5)
        ax.plot(epochs, values.mean(0), color=colours[arm], lw=2, label=arm)
    ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)


def summary(result: Result) -> str:
    """Return the accuracy of each arm, its difference to its reference, and the losses after the last epoch."""
    last = max(row.epoch for row in result.losses)
    lines = [arms.summary(result.comparison)]
    for arm in (SCRATCH, STEM):
        rows = [row for row in result.losses if row.arm == arm and row.epoch == last]
        means = [np.mean([getattr(row, field) for row in rows]) for field in LOSSES]
        lines.append(f"{arm}: training loss {means[0]:.3f}, held-out loss {means[1]:.3f} after epoch {last}")
    return "\n".join([*lines, *tuning.choices(result.trials, result.rows[0].backbone)])


anomaly = question.Question("anomaly", Options, analyse, points)
main = cli.command("analyses.rq2_anomaly", Options, anomaly)
STEPS = [Step.of(main, {"backbone": BACKBONES[:1]})]

if __name__ == "__main__":
    sys.exit(main())
