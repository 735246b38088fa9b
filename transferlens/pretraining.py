"""Pretrained against random initialisation: what ImageNet brings, and whether longer training makes up for it.

Question 1 of Palanisamy, Singhania and Yao (2020, section 4.1). Three arms on the same folds and seeds: the fine-tuned
ImageNet network; the network from scratch, trained for as many epochs; and from scratch for about six times as many, as
in the paper (450 and 70). The main result is the accuracy after the last epoch. The accuracy at the epoch that is best
on the held-out fold itself is optimistic, and is only shown next to it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import nan
from typing import TYPE_CHECKING, Any, Literal

from transferlens import cli
from transferlens.compare import question, tuning
from transferlens.compare.tuning import TUNED, Tuned, TuneOptions
from transferlens.measures import stats
from transferlens.measures.classes import IF_SEVERAL, IF_UNEVEN
from transferlens.models.plan import TransferPlan
from transferlens.models.weights import named
from transferlens.options import QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import learning_curves, level_lines, points_and_means
from transferlens.store.rows import levels, row_of
from transferlens.store.run import Run
from transferlens.training.sweep import Arm, Study
from transferlens.util.grouping import group_by
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper trains 450 epochs from scratch and 70 from ImageNet weights.
LONGER = 6
ARMS = {"pretrained": "ImageNet-pretrained", "scratch": "from scratch", "scratch_long": "from scratch, longer"}
INITS = {f"{arm}{end}": f"{words}{end}" for arm, words in ARMS.items() for end in ("", TUNED)}


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Train each backbone pretrained and from scratch: accuracies by fold, and learning curves."""

    long: Literal["all", "first", "none"] = "all"
    """Backbones to train from scratch for six times as many epochs, too (preset paper: 450)."""
    tune: TuneOptions = TuneOptions()


@dataclass(frozen=True)
class Row:
    """One run in the CSV; accuracies, or what `score` names (see `store.rows.RunRow`), are fractions.

    `init` is one of `INITS`.

    `weights` is "ImageNet", or the name of a file given as weights; empty where nothing is pretrained.
    """

    dataset: str
    backbone: str
    init: str
    fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seed: int
    epoch_last: int
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)
    accuracy_last: float
    macro_f1: float = field(default=nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=nan, kw_only=True, metadata=IF_UNEVEN)
    lwlrap: float = field(default=nan, kw_only=True, metadata=IF_SEVERAL)
    chance: float = field(default=nan, kw_only=True)
    commonest: float = field(default=nan, kw_only=True)
    epoch_best: int
    accuracy_best: float
    run: str
    weights: str = ""


@dataclass(frozen=True)
class Result(question.Result):
    """One row and one curve per run: its held-out accuracy after each epoch."""

    stem = "pretrained_vs_scratch"
    rows: tuple[Row, ...]
    curves: tuple[tuple[float, ...], ...]
    trials: tuple[tuning.TrialRow, ...] = ()

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the rows, and the settings that were tried for tuned arms."""
        return super().tables() | ({f"{self.stem}_tuning": self.trials} if self.trials else {})


def points(options: Options) -> dict[Any, Arm]:
    """Return the arms: fine-tuned, from scratch, and from scratch for longer (the backbones that `long` names).

    With settings to choose from, each has its trials; those of the longer arm are longer by the same factor.
    """
    study, (tuned, scratch) = Study.of(options), (TransferPlan.finetune(), TransferPlan.scratch())
    training, longer = study.training(tuned), study.training(scratch)
    if longer.epochs <= training.epochs or "epochs" in options.training.given:
        longer = training.lasting(LONGER * training.epochs)
    twice = {"all": study.backbones, "first": study.backbones[:1], "none": ()}[options.long]
    settings = {
        "pretrained": (tuned, training, study.backbones),
        "scratch": (scratch, training, study.backbones),
        "scratch_long": (scratch, longer, twice),
    }
    arms: dict[Any, Arm] = {}
    for name, (plan, own, backbones) in settings.items():
        if backbones:
            arm = partial(study.arm, plan, backbones=backbones)
            arms[name] = arm(own)
            arms |= tuning.trials(name, arm, options.tune.grid(own, times=own.epochs / training.epochs))
    return arms


def analyse(runs: Mapping[Any, Sequence[Run]], options: Options | None = None) -> Result:
    """Return the accuracies and learning curves of the runs, of each arm and then of those that are tuned."""
    inits = {arm: arm for arm in ARMS} | {Tuned(arm): f"{arm}{TUNED}" for arm in ARMS}
    pairs = [(run, init) for arm, init in inits.items() for run in runs.get(arm, ())]
    rows = tuple(row_of(Row, run, init=init) for run, init in pairs)
    curves = tuple(tuple(run.scores.tolist()) for run, _ in pairs)
    words = {arm: named(text, (row.weights for row in rows)) for arm, text in ARMS.items()}
    return Result(rows, curves, tuple(tuning.trial_rows(runs, words)))


def _names(result: Result) -> dict[str, str]:
    """Return the names of the arms, with their numbers of epochs."""
    rows = group_by(result.rows, lambda row: row.init)
    epochs = {init: sorted({row.epoch_last for row in of_init}) for init, of_init in rows.items()}
    arms = {arm: named(words, (row.weights for row in result.rows)) for arm, words in INITS.items() if arm in epochs}
    fewer = {arm: f"{n[0]} to " if len(n) > 1 else "" for arm, n in epochs.items()}
    return {arm: f"{words} ({fewer[arm]}{counted(epochs[arm][-1], 'epoch')})" for arm, words in arms.items()}


def _by_fold(result: Result, field: str, backbone: str) -> dict[str, list[float]]:
    """Return a field of each arm that the backbone has: its mean over seeds, per fold."""
    arms = {arm: stats.by_fold(result.rows, field, backbone=backbone, init=arm) for arm in INITS}
    return {arm: values for arm, values in arms.items() if values}


def draw(result: Result) -> Figure:
    """Draw accuracies by fold with means and intervals, and the learning curves of each backbone."""
    names = _names(result)
    pairs = group_by(zip(result.rows, result.curves, strict=True), key=lambda pair: pair[0].backbone)
    n = len(pairs)
    ratios = [1 + 0.35 * (n - 1), *[1] * n]
    fig, axes = style.new_figure(1, 1 + n, width=5.2 + 4.2 * n, height=4.8, sharey=True, width_ratios=ratios)
    last, best = (
        {backbone: {names[arm]: v for arm, v in _by_fold(result, field, backbone).items()} for backbone in pairs}
        for field in ("accuracy_last", "accuracy_best")
    )
    palette = style.colours(names.values())
    points_and_means(last, beside=best, palette=palette, ax=axes[0, 0])
    axes[0, 0].set_title("after the last epoch", fontsize="small", loc="left")
    for ax, (backbone, pairs_of_backbone) in zip(axes[0, 1:], pairs.items(), strict=True):
        untuned = [pair for pair in pairs_of_backbone if pair[0].init in ARMS]  # others are of several lengths
        by_arm = group_by(untuned, key=lambda pair: names[pair[0].init])
        curves = {name: [curve for _, curve in group] for name, group in by_arm.items()}
        learning_curves(curves, palette=palette, ax=ax)
        ax.set_title(
            backbone if len(untuned) == len(pairs_of_backbone) else f"{backbone}, not tuned",
            fontsize="small",
            loc="left",
        )
        ax.set_ylabel("")
    for ax in axes.flat:
        level_lines(levels(result.rows), named=ax is axes[0, 0], ax=ax)
    marks = style.fold_marks(len({row.fold for row in result.rows}))
    marks |= {"best epoch on the held-out fold (optimistic)": style.mark("o", hollow=True)}
    style.legend_below(fig, axes[0, 0], marks=marks | style.curve_marks())
    style.title(fig, f"{result.rows[0].dataset}: pretrained against random initialisation")
    return fig


def summary(result: Result) -> str:
    """Return the accuracy of each arm, and what pretraining gains on the same folds."""
    lines, names = [], _names(result)
    for backbone in dict.fromkeys(row.backbone for row in result.rows):
        last, best = (_by_fold(result, field, backbone) for field in ("accuracy_last", "accuracy_best"))
        for arm, values in last.items():
            optimistic = stats.fold_interval(best[arm]).mean
            lines.append(f"{backbone}  {names[arm]}: {stats.fold_interval(values)}; best epoch {optimistic:.1%}")
        for one, other in _pairs(last):
            gain = stats.paired_difference(last[one], last[other]).interval.text("points")
            lines.append(f"{backbone}  {one} - {other}, paired by fold: {gain}")
        lines += tuning.choices(result.trials, backbone)
    return "\n".join(lines)


def _pairs(arms: Collection[str]) -> list[tuple[str, str]]:
    """Return which arms are compared: the pretrained one with others, tuned ones likewise, and tuned with untuned."""
    pairs = []
    for end in ("", TUNED):
        first = f"pretrained{end}"
        pairs += [(first, arm) for arm in arms if arm != first and arm.endswith(TUNED) == bool(end)]
    return pairs + [(arm, arm.removesuffix(TUNED)) for arm in arms if arm.endswith(TUNED)]


pretraining = question.Question("pretraining", Options, analyse, points, several=True)
main = cli.command("pretraining", Options, pretraining)

if __name__ == "__main__":
    sys.exit(main())
