"""Question 2, the anomaly of fusion: why is a pretrained stem with random blocks behind it worse than all random?

ESC-10 (5 official folds), one network, preset quick, one seed. The plan IRRRR against RRRRR, and what tells causes
apart (see `transferlens.models.plan` for the letters):

* the filters or their scale: a stem that starts from the statistics of the pretrained one (iRRRR, normal or permuted)
* the filters or their normalisation: only the normalisation of the stem is trained (NAAAA), or nothing of it (FAAAA)
* the learning rate: several, of which an inner fold chooses one for each held-out fold
* too short a training: three times as many epochs

Each arm is compared with random weights that were trained alike, paired by fold and seed. Writes ``anomaly`` (.png,
.pdf, .csv), ``anomaly_rates.csv`` (every learning rate, chosen or not) and ``anomaly_losses.csv``, the losses by epoch
of IRRRR and RRRRR: one that memorises has a low training loss and a high held-out loss. Finished runs, those of fusion
too, are not trained again.

    python -m analyses.rq2_anomaly --clips path/to/esc10/clips.csv

The options are those of ``python -m transferlens.train`` without those of the plan and of the selection, and
``--figures``.
"""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from analyses import BACKBONES
from transferlens import cli
from transferlens.compare import question
from transferlens.measures import stats
from transferlens.models.plan import TransferPlan
from transferlens.models.weights import source_note
from transferlens.options import QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.store.rows import RunRow, row_of
from transferlens.store.run import Run
from transferlens.study import Step
from transferlens.training.sweep import Arm, Study, SweepOptions
from transferlens.util.fields import Rule, above, at_least
from transferlens.util.grouping import group_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANDOM, STEM = "RRRRR", "IRRRR"
PLANS = {
    RANDOM: TransferPlan.scratch(),
    STEM: TransferPlan.fuse(0),
    "iRRRR normal": TransferPlan(start="iRRRR"),
    "iRRRR permuted": TransferPlan(start="iRRRR", statistics="permuted"),
    "IRRRR NAAAA": TransferPlan(start=STEM, train="NAAAA"),
    "IRRRR FAAAA": TransferPlan(start=STEM, train="FAAAA"),
}
PAIR = {name: PLANS[name] for name in (RANDOM, STEM)}
LONGER, CHOSEN = "longer", "rate chosen"  # ways of training, after the plan in the name of an arm; "" is the usual one
LOSSES = {"train_loss": "training loss", "heldout_loss": "held-out loss"}


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Compare a pretrained stem and random blocks behind it with all random, and with what tells causes apart."""

    sweep: SweepOptions = SweepOptions(backbone=BACKBONES[:1])
    rates: Annotated[tuple[Annotated[float, above(0)], ...], Rule("one or more, such as 1e-3", bool)] = (
        *(1e-3, 3e-4, 3e-3),
    )
    """Learning rates to choose from, by the accuracy on an inner fold after the last epoch; of equal ones the first."""
    longer: Annotated[int, at_least(2)] = 3
    """How many times as many epochs the longer arms are trained."""


@dataclass(frozen=True, kw_only=True)
class Row(RunRow):
    """One run in anomaly.csv, with its learning rate and its losses after the last epoch.

    `arm` is a plan, and how it is trained. `less_reference` is the mean difference of the arm to the arm `reference`,
    random weights that were trained alike, paired by fold and seed, with its interval and p-values, as in `sources`.
    """

    arm: str
    reference: str
    lr: float
    inner_accuracy: float
    train_loss: float
    heldout_loss: float
    less_reference: float = np.nan
    less_reference_low: float = np.nan
    less_reference_high: float = np.nan
    less_reference_plain_low: float = np.nan
    less_reference_plain_high: float = np.nan
    less_reference_p: float = np.nan
    less_reference_p_adjusted: float = np.nan


@dataclass(frozen=True)
class Loss:
    """The losses of one run after one epoch in anomaly_losses.csv."""

    arm: str
    fold: str
    seed: int
    epoch: int
    train_loss: float
    heldout_loss: float
    run: str


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run that is compared; the runs of all learning rates, losses by epoch, and differences by arm."""

    stem = "anomaly"
    rows: tuple[Row, ...]
    rates: tuple[Row, ...]
    losses: tuple[Loss, ...]
    differences: Mapping[str, stats.Difference]

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the tables by the stem of their files."""
        return {"anomaly": self.rows, "anomaly_rates": self.rates, "anomaly_losses": self.losses}


def points(options: Options) -> dict[tuple[str, str, float | None], Arm]:
    """Return the arms by plan, way of training, and learning rate (None: that of the preset)."""
    study = Study.of(replace(options, sweep=replace(options.sweep, select="last")))
    nested = Study.of(replace(options, sweep=replace(options.sweep, select="nested")))
    study.check_one("backbone")
    training = study.training(TransferPlan.finetune())  # all arms are trained alike
    milestones = tuple(options.longer * epoch for epoch in training.milestones)
    longer = replace(training, epochs=options.longer * training.epochs, milestones=milestones)
    arms: dict[tuple[str, str, float | None], Arm] = {
        (name, "", None): study.arm(plan, training) for name, plan in PLANS.items()
    }
    arms |= {(name, LONGER, None): study.arm(plan, longer) for name, plan in PAIR.items()}
    return arms | {
        (name, CHOSEN, rate): nested.arm(plan, replace(training, lr=rate))
        for name, plan in PAIR.items()
        for rate in dict.fromkeys(options.rates)
    }


def _row(name: str, way: str, run: Run) -> Row:
    arm, reference = (f"{plan}, {way}" if way else plan for plan in (name, RANDOM))
    inner = float(run.history["inner_accuracy"][-1]) if run.config.inner_fold else np.nan
    losses = {loss: float(run.history[loss][-1]) for loss in LOSSES}
    own = {"arm": arm, "reference": reference, "lr": run.config.training.lr, "inner_accuracy": inner} | losses
    return Row(**vars(row_of(RunRow, run)), **own)


def analyse(runs: Mapping[tuple[str, str, float | None], Sequence[Run]], options: Options | None = None) -> Result:
    """Choose learning rates, and compare each arm with random weights that were trained alike."""
    table = {key: [_row(*key[:2], run) for run in runs_of_arm] for key, runs_of_arm in runs.items()}
    rates = [row for (_, way, _), rows in table.items() if way == CHOSEN for row in rows]
    by_place = group_by(rates, key=lambda row: (row.arm, row.pair)).values()
    chosen = [max(candidates, key=attrgetter("inner_accuracy")) for candidates in by_place]
    rows = [row for (_, way, _), rows in table.items() if way != CHOSEN for row in rows] + chosen
    differences = _differences(rows)
    columns = {
        arm: {"less_reference": difference.interval.mean} | difference.columns("less_reference")
        for arm, difference in differences.items()
    }
    losses = [loss for (name, way, _), each in runs.items() if name in PAIR and not way for loss in _losses(name, each)]
    return Result(
        tuple(replace(row, **columns.get(row.arm, {})) for row in rows), tuple(rates), tuple(losses), differences
    )


def _differences(rows: Sequence[Row]) -> dict[str, stats.Difference]:
    """Return the difference of each arm to its reference, paired by fold and seed."""
    by_arm = group_by(rows, key=attrgetter("arm"))
    of = {(row.arm, row.pair): row.accuracy_last for row in rows}
    gains = {
        arm: [row.accuracy_last - of[row.reference, row.pair] for row in own]
        for arm, own in by_arm.items()
        if arm != own[0].reference
    }
    differences = [stats.fold_difference(stats.fold_means(each, by_arm[arm])) for arm, each in gains.items()]
    return dict(zip(gains, stats.adjusted(differences), strict=True))


def _losses(arm: str, runs: Sequence[Run]) -> list[Loss]:
    return [
        Loss(arm, run.config.fold, run.config.seed, epoch, float(train), float(heldout), run.config.id)
        for run in runs
        for epoch, (train, heldout) in enumerate(zip(*(run.history[loss] for loss in LOSSES), strict=True), start=1)
    ]


def draw(result: Result) -> "Figure":
    """Draw left the accuracies of each arm and their differences to random weights, right the losses by epoch."""
    arms = list(dict.fromkeys(row.arm for row in result.rows))
    fig, axes = style.new_figure(2, 2, width=3.4 + 0.95 * len(arms), height=6.6, width_ratios=[2.6, 1], sharex="col")
    plans = {arm: arm.partition(",")[0] for arm in arms}
    colours = style.colours(plans.values())
    palette = {arm: colours[plan] for arm, plan in plans.items()}
    (above, right), (below, right_below) = axes
    values = {arm: {arm: stats.by_fold(result.rows, "accuracy_last", arm=arm)} for arm in arms}
    accuracy.points_and_means(values, palette=palette, ax=above)
    above.set_ylim(max(0, 10 * np.floor(above.dataLim.y0 / 10) - 2), 103)
    for arm, difference in result.differences.items():
        accuracy.changes({arm: [(arms.index(arm), difference.interval)]}, palette=palette, ax=below)
    below.set_ylabel("less RRRRR\ntrained alike [points]")
    below.set_xticks(range(len(arms)), [textwrap.fill(arm, 8) for arm in arms], fontsize="small")
    for ax, (loss, words) in zip((right, right_below), LOSSES.items(), strict=True):
        _draw_losses(result, loss, palette, ax)
        ax.set_ylabel(words)
    right.legend(frameon=False, fontsize="small")
    right_below.set_xlabel("epoch")
    n = style.means_caption(len({row.fold for row in result.rows}))
    title = f"{result.rows[0].dataset}, {result.rows[0].backbone}: a pretrained stem and random blocks behind it"
    note = "below: paired by fold, full mark: interval excludes 0; right: each run, and the mean"
    title += source_note(row.weights for row in result.rows)
    fig.suptitle(f"{title}\nlast epoch, {n}\n{note}", x=0.01, ha="left", fontsize="medium")
    return fig


def _draw_losses(result: Result, loss: str, palette: Mapping[str, tuple], ax: "Axes") -> None:
    for arm, rows in group_by(result.losses, key=attrgetter("arm")).items():
        curves = [[getattr(row, loss) for row in run] for run in group_by(rows, key=attrgetter("run")).values()]
        epochs = np.arange(1, len(curves[0]) + 1)
        ax.plot(epochs, np.transpose(curves), color=palette[arm], alpha=0.3, lw=0.8)
        ax.plot(epochs, np.mean(curves, axis=0), color=palette[arm], lw=2, label=arm)
    if loss == "train_loss":
        ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)


def summary(result: Result) -> str:
    """Return accuracy, losses and difference of each arm, and which learning rates were chosen."""
    lines = []
    for arm, rows in group_by(result.rows, key=attrgetter("arm")).items():
        train, heldout = (np.mean(stats.by_fold(rows, loss)) for loss in LOSSES)
        line = f"{arm}: {stats.fold_interval(stats.by_fold(rows, 'accuracy_last'))}"
        lines.append(f"{line}; training loss {train:.3g}, held-out loss {heldout:.3g}")
        if arm.endswith(CHOSEN):
            chosen = ", ".join(f"{row.lr:g} (fold {row.fold}, seed {row.seed})" for row in rows)
            lines.append(f"{arm}: chosen on the inner fold: {chosen}")
    for arm, difference in result.differences.items():
        reference = next(row.reference for row in result.rows if row.arm == arm)
        lines.append(f"{arm} - {reference}, paired by fold: {difference}")
    return "\n".join(lines)


anomaly: question.Question[Options, Any] = question.Question("analyses.rq2_anomaly", Options, analyse, points)
main = cli.Command("analyses.rq2_anomaly", Options, anomaly)
STEPS = [Step.of(main)]

if __name__ == "__main__":
    sys.exit(main())
