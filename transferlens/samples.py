"""How many labelled clips does pretraining save?

Networks are trained on subsets of the training folds: 1, 2, 4, 8, 16 and all clips per class. The subsets are balanced,
have whole recordings, lie in each other, and are the same for all arms and seeds (`transferlens.data.subsets`). The
arms are fine-tuning and a linear probe, of ImageNet or each source, and training from scratch.

The result is the horizontal distance of the curves [1]_: how many times the clips training from scratch needs to be as
good (`transferlens.measures.clips_worth`). Small subsets have few mini-batches per epoch, and networks from scratch
need many steps [2]_. With ``--equal steps``, runs on fewer clips have more epochs, so that all have about as many steps
as the run on all clips; with ``--equal epochs`` all have as many epochs, and those on few clips hardly train.

References
----------
.. [1] C. Matsoukas, J. F. Haslum, M. Sorkhei, M. Söderberg, K. Smith: What makes transfer learning work for medical
   images: feature reuse & other factors. CVPR 2022.
.. [2] K. He, R. Girshick, P. Dollár: Rethinking ImageNet pre-training. ICCV 2019.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.measures import classes, clips_worth, stats
from transferlens.measures.classes import IF_UNEVEN
from transferlens.measures.clips_worth import Curve, Worth
from transferlens.measures.scoring import labels_of
from transferlens.models.plan import LAST, TransferPlan
from transferlens.options import QuestionOptions
from transferlens.plots import accuracy, style
from transferlens.plots import samples as plots
from transferlens.store.config import RunConfig, Training
from transferlens.store.rows import levels, row_of
from transferlens.store.run import Run
from transferlens.training.batches import chunks
from transferlens.training.presets import PROBE
from transferlens.training.sweep import Arm, Study
from transferlens.util.errors import ParameterError
from transferlens.util.fields import at_least
from transferlens.util.grouping import group_by
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRATCH, ALL = "from scratch", "all"
LARGEST = 16  # clips per class, by default
# The name of an arm, and its clips per class; None: all.
Place = tuple[str, int | None]


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Train on few and on all clips per class, pretrained and from scratch: how many times the clips scratch needs."""

    per_class: tuple[Annotated[int, at_least(1)], ...] = ()
    """Clips per class, besides all of them. Default: 1, 2, 4, 8, 16, as far as there are so many."""
    equal: Literal["steps", "epochs"] = "steps"
    """What runs on few and on all clips have in common. steps: runs on fewer clips have more epochs. epochs: they have
    fewer steps."""
    probe: bool = True
    """Train linear probes too (100 epochs of all clips at lr 1e-2, unless these are given); --no-probe leaves them
    out."""


@dataclass(frozen=True)
class Row:
    """One run in the CSV; accuracies are fractions.

    `clips_per_class` was asked for, and `fewest`, `clips` (the mean) and `most` clips of a class were trained on, as
    recordings are kept whole. `equal` says whether runs have the same number of steps or of epochs.
    """

    dataset: str
    backbone: str
    arm: str
    clips_per_class: str
    fewest: int
    clips: float
    most: int
    equal: str
    epochs: int
    steps: int
    fold: str
    inner_fold: str
    n_train: float
    n_clips: int
    n_recordings: int
    seed: int
    accuracy_last: float
    macro_f1: float = field(default=nan, kw_only=True, metadata=IF_UNEVEN)
    class_ratio: float = field(default=nan, kw_only=True, metadata=IF_UNEVEN)
    chance: float = field(default=nan, kw_only=True)
    commonest: float = field(default=nan, kw_only=True)
    accuracy_best: float
    weights: str
    run: str


@dataclass(frozen=True)
class WorthRow:
    """How many times the clips of `arm` training from scratch needs, in samples_worth.csv; see `clips_worth.Worth`.

    It is that for the accuracy of the arm with `clips_per_class`, which has the mean `clips`; without, it is the
    geometric mean over all accuracies that both reach.
    """

    backbone: str
    arm: str
    equal: str
    clips_per_class: str
    clips: float
    bound: str
    times: float
    times_low: float
    times_high: float
    times_plain_low: float
    times_plain_high: float
    n_folds: int
    n_bounds: int


@dataclass(frozen=True)
class Result(question.Result):
    """One row per run, how many times the clips scratch needs, by network, arm and number ("": over all)."""

    stem = "samples"
    rows: tuple[Row, ...]
    worth: Mapping[tuple[str, str, str], Worth]

    @property
    def networks(self) -> list[str]:
        """Names of the networks, in the order of the rows."""
        return list(dict.fromkeys(row.backbone for row in self.rows))

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the rows."""
        return list(dict.fromkeys(row.arm for row in self.rows))

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the rows, and how many times the clips training from scratch needs."""
        return super().tables() | {"samples_worth": [self._row(*key) for key in self.worth]}

    def _row(self, network: str, arm: str, size: str) -> WorthRow:
        each = self.worth[network, arm, size]
        times = (each.factor, each.low, each.high, each.plain_low, each.plain_high)
        clips = mean_clips(self.rows, network, size) if size else nan
        own = (network, arm, self.rows[0].equal, size, clips, each.bound)
        return WorthRow(*own, *times, each.n_folds, each.n_bounds)


# ------------------------------------------------------------------------------------------------ runs


def points(options: Options) -> dict[Place, Arm]:
    """Return the arms: each start with each number of clips per class, and with all."""
    if options.training.clips_per_class is not None:
        given = options.training.clips_per_class
        raise ParameterError(f"clips_per_class={given} is one number for all runs: give per_class={given} here")
    study, arms = Study.of(options), {}
    question.check_labels("samples", {study.dataset.name: study.dataset.labels_per_clip})
    rows = _subsets(study, options.per_class)
    for name, (plan, training, source) in _starts(study, options).items():
        for size in rows:
            own = _of_size(training, size, rows) if options.equal == "steps" else training
            try:
                arms[name, size] = study.arm(plan, replace(own, clips_per_class=size), source=source)
            except ParameterError as error:
                if plan.train.strip("F-"):  # more than the head is trained
                    raise
                raise ParameterError(f"{error}; or leave out the linear probes by probe=False (--no-probe)") from error
    return arms


def _starts(study: Study, options: Options) -> dict[str, tuple[TransferPlan, Training, str | None]]:
    """Return plan, training and source of each start, by its name."""
    tuned, probe = TransferPlan.finetune(), TransferPlan.probe(LAST)
    training = study.training(tuned)  # as are networks from scratch, for the same number of steps
    shorter = {name: value for name, value in PROBE.given.items() if name not in options.training.given}
    of_probe = replace(options.training, **shorter).training(probe)
    starts: dict[str, tuple[TransferPlan, Training, str | None]] = {}
    for source in study.sources:
        starts[f"{source.name} fine-tuned"] = (tuned, training, source.name)
        if options.probe:
            starts[f"{source.name} linear probe"] = (probe, of_probe, source.name)
    return starts | {SCRATCH: (TransferPlan.scratch(), training, None)}


def _subsets(study: Study, per_class: Sequence[int]) -> dict[int | None, list[np.ndarray]]:
    """Return the training clips of each fold by the number per class, in order, None for all; no subset twice."""
    points = study.points(TransferPlan.scratch())
    splits = list(dict.fromkeys(point.split[:2] for point in points))
    smallest = {split: study.dataset.smallest_class(*split) for split in splits}
    (fold, _), (label, most) = min(smallest.items(), key=lambda pair: pair[1][1])
    if too_many := [n for n in per_class if n > most]:
        why = f"the clips of {study.dataset.name}'s class {label} that can be trained on if fold {fold} is held out"
        raise ParameterError(f"per_class={too_many[0]} must be at most {most}, {why}")
    sizes = sorted({*per_class}) or [2**i for i in range(LARGEST.bit_length()) if 2**i <= most]
    rows = {size: [study.dataset.split(*split, size)[0] for split in splits] for size in (None, *sizes)}
    different = {tuple(len(each) for each in of_size): size for size, of_size in reversed(rows.items())}
    return {size: rows[size] for size in (*sizes, None) if size in different.values()}


def _of_size(training: Training, size: int | None, rows: Mapping[int | None, Sequence[np.ndarray]]) -> Training:
    """Return settings for a number of clips with about as many steps as for all, the same in all folds."""
    per_epoch = {n: sum(_steps(training, len(each)) for each in rows[n]) for n in (size, None)}
    return training.lasting(max(1, round(training.epochs * per_epoch[None] / per_epoch[size])))


def _steps(training: Training, n_train: int) -> int:
    """Return the number of steps in an epoch."""
    return len(chunks(np.arange(n_train * training.draws), training.batch_size))


# ------------------------------------------------------------------------------------------------ answer


def analyse(runs: Mapping[Place, Sequence[Run]], options: Options) -> Result:
    """Return the accuracies of the runs, and how many times the clips training from scratch needs."""
    dataset, rows = Study.of(options).dataset, []
    labels = [clip.label for clip in dataset.clips]
    counts: dict[tuple, Counter[str]] = {}
    for (arm, size), runs_of_arm in runs.items():
        for run in runs_of_arm:
            split = run.config.split
            if split not in counts:
                counts[split] = Counter(labels[i] for i in dataset.split(*split)[0])
            own = _numbers(run.config, counts[split])
            whole = labels_of(dataset)[dataset.split(*split[:2])[0]]
            own["commonest"] = classes.commonest_share(whole, run.labels)
            size_text = ALL if size is None else str(size)
            rows.append(row_of(Row, run, arm=arm, clips_per_class=size_text, equal=options.equal, **own))
    return Result(tuple(rows), worth(rows))


def _numbers(config: RunConfig, counts: Counter[str]) -> dict[str, Any]:
    """Return the numbers of clips per class and of steps of a run."""
    n, training = sum(counts.values()), config.training
    clips = {"fewest": min(counts.values()), "clips": n / len(counts), "most": max(counts.values())}
    return clips | {"steps": training.epochs * _steps(training, n)}


def mean_clips(rows: Sequence[Row], network: str, size: str) -> float:
    """Return the mean number of clips per class over the runs of a network with a number that was asked for."""
    return float(np.mean([row.clips for row in rows if (row.backbone, row.clips_per_class) == (network, size)]))


def accuracies(rows: Sequence[Row], network: str, arm: str, size: str) -> stats.Folds:
    """Return the accuracy of each fold, which knows how all clips are split.

    Subsets share fewer clips between folds than all training clips do: the interval for all is wide enough for them.
    """
    own = {"backbone": network, "arm": arm}
    values = stats.by_fold(rows, "accuracy_last", **own, clips_per_class=size)
    whole = stats.by_fold(rows, "accuracy_last", **own, clips_per_class=ALL)
    values.test_to_train = whole.test_to_train
    return values


def worth(rows: Sequence[Row]) -> dict[tuple[str, str, str], Worth]:
    """Return how many times the clips training from scratch needs, by network, arm and number of clips; "": over all.

    The curves of each fold are compared, and the factors averaged.
    """
    table = {}
    for network, of_network in group_by(rows, lambda row: row.backbone).items():
        by_arm = {arm: _curves(group) for arm, group in group_by(of_network, lambda row: row.arm).items()}
        for arm in [arm for arm in by_arm if arm != SCRATCH]:
            folds, scratch = accuracies(of_network, network, arm, ALL), [*by_arm[SCRATCH].values()]
            factors = map(clips_worth.times, by_arm[arm].values(), scratch)
            table[network, arm, ""] = clips_worth.over_folds([*factors], folds)
            for size in dict.fromkeys(row.clips_per_class for row in of_network):
                reached = accuracies(of_network, network, arm, size)
                clips = stats.by_fold(of_network, "clips", arm=arm, clips_per_class=size)
                factors = map(clips_worth.times_at, reached, clips, scratch)
                table[network, arm, size] = clips_worth.over_folds([*factors], folds)
    return table


def _curves(rows: Sequence[Row]) -> dict[str, Curve]:
    """Return the curve of each fold: the mean accuracy over seeds for each number of clips."""
    curves = {}
    for fold, of_fold in group_by(rows, lambda row: row.fold).items():
        by_clips = group_by(of_fold, lambda row: row.clips)
        means = {clips: float(np.mean([row.accuracy_last for row in by_clips[clips]])) for clips in sorted(by_clips)}
        curves[fold] = Curve([*means], [*means.values()])
    return curves


# ------------------------------------------------------------------------------------------------ figure and text


def _sizes(result: Result) -> list[str]:
    return list(dict.fromkeys(row.clips_per_class for row in result.rows))


def draw(result: Result) -> Figure:
    """Draw accuracy against clips per class for each network, and below it how many times the clips scratch needs."""
    networks, palette = result.networks, style.colours(result.arms)
    width, look = max(7.4, 0.8 + 5.4 * len(networks)), {"sharex": "col", "sharey": "row", "height_ratios": [2, 1]}
    fig, axes = style.new_figure(2, len(networks), width=width, height=7.2, **look)
    for network, (above, below) in zip(networks, axes.T, strict=True):
        clips = {size: mean_clips(result.rows, network, size) for size in _sizes(result)}
        curves = {
            arm: [(clips[size], accuracies(result.rows, network, arm, size)) for size in clips] for arm in result.arms
        }
        plots.against_clips(curves, palette=palette, ax=above)
        accuracy.level_lines(levels(result.rows), ax=above)
        above.set_title(network, fontsize="small", loc="left")
        others = [arm for arm in result.arms if arm != SCRATCH]
        plots.multiples(
            {arm: [(clips[size], result.worth[network, arm, size]) for size in clips] for arm in others},
            palette=palette,
            ax=below,
        )
        below.set(xlabel="clips per class (the last: all)", ylabel="times the clips\nthat scratch needs")
        texts = [f"{arm}: {_short(result.worth[network, arm, ''])}" for arm in others]
        below.set_title("over all accuracies that both reach\n" + "\n".join(texts), fontsize="x-small", loc="left")
    for ax in axes.flat:
        ax.label_outer()
    marks = style.fold_marks(len({row.fold for row in result.rows}))
    if any(each.bound for (_, _, size), each in result.worth.items() if size):
        marks["a bound, as some fold does not reach the accuracy"] = style.mark("^", hollow=True)
    style.legend_below(fig, axes[0, 0], order=result.arms, marks=marks)
    style.title(
        fig, f"{result.rows[0].dataset}: clips per class, at equal numbers of {result.rows[0].equal}, last epoch"
    )
    return fig


def _short(each: Worth) -> str:
    """Return a factor and its interval in words."""
    if each.bound == "not known":
        return "not known"
    interval = "" if np.isnan(each.low) else f" ({' to '.join(map(clips_worth.digits, (each.low, each.high)))})"
    return f"{each.bound} {clips_worth.digits(each.factor)} times{interval}".strip()


def summary(result: Result) -> str:
    """Return the accuracy of each arm and number of clips, and how many times the clips training from scratch needs."""
    of_all = [row for row in result.rows if row.clips_per_class == ALL]
    steps = " to ".join(map(str, sorted({min(row.steps for row in of_all), max(row.steps for row in of_all)})))
    more = (
        "runs on fewer clips have more epochs" if of_all[0].equal == "steps" else "runs on fewer clips have fewer steps"
    )
    lines = [f"equal numbers of {of_all[0].equal}: {steps} steps on all clips; {more}"]
    for network in result.networks:
        for arm in result.arms:
            for size in _sizes(result):
                wanted = (network, arm, size)
                rows = [row for row in result.rows if (row.backbone, row.arm, row.clips_per_class) == wanted]
                interval = stats.fold_interval(accuracies(result.rows, *wanted))
                lines.append(f"{network}  {arm}, {_clips_text(rows)}, {counted(rows[0].epochs, 'epoch')}: {interval}")
        for (name, arm, size), each in result.worth.items():
            if name == network:
                at = f" with {size} per class" if size else ", over all accuracies that both reach"
                lines.append(f"{network}  {SCRATCH} needs, to be as good as {arm}{at}: {each}")
    return "\n".join(lines)


def _clips_text(rows: Sequence[Row]) -> str:
    """Return the clips per class of runs in words, with what whole recordings make of it."""
    asked, mean = rows[0].clips_per_class, np.mean([row.clips for row in rows])
    fewest, most = min(row.fewest for row in rows), max(row.most for row in rows)
    taken = f" ({mean:.1f}: {fewest} to {most})" if fewest != most or str(most) != asked else ""
    return f"{asked} per class{taken}"


samples = question.Question("samples", Options, analyse, points)
main = cli.command("samples", Options, samples)

if __name__ == "__main__":
    sys.exit(main())
