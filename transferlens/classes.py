"""Classes: which ones do the networks know, which does pretraining help, and which an ensemble?

Accuracy is a mean over clips. From the held-out logits that finished runs have stored, without audio and without a
network: recall, precision and F1 of each class with their intervals, macro-F1, balanced accuracy, the confusion matrix,
and the surest mistakes. Pretrained networks are compared with those from scratch class by class, paired by clip, and
the ensemble of the seeds with its single networks; p-values are adjusted for the number of classes.

Where clips have several labels: average precision of each class, mAP and lwlrap instead (`compare.by_label`); a
confusion matrix is then not defined.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens import cli
from transferlens.compare import by_class, by_label, question
from transferlens.compare.by_class import (
    ENSEMBLE,
    SINGLE,
    ChangeRow,
    ClassRow,
    ConfusionRow,
    Mistake,
    OverallRow,
    confusions,
    mistakes,
)
from transferlens.compare.by_label import LabelRow, OverallLabelRow, Precisions
from transferlens.compare.ensembles import Members, networks
from transferlens.data.catalogue import DataOptions
from transferlens.measures import stats
from transferlens.measures.scoring import ONE
from transferlens.models.plan import TransferPlan
from transferlens.options import FigureOptions, QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import confusion_map
from transferlens.store.arms import arm_names
from transferlens.store.run import Run, load_runs
from transferlens.training.sweep import Arm, Study
from transferlens.util.fields import at_least, check_alone, names
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, shortened, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARMS = {"pretrained": TransferPlan.finetune(), "scratch": TransferPlan.scratch()}
# Confusions that the text names.
MOST = 3


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Score each class from the stored logits of runs, and find the classes that pretraining and ensembles help.

    Name run files (--ckpt), or the runs to train as for `pretraining`. Finished runs are not trained again.
    """

    ckpt: tuple[Path, ...] = ()
    """Run files of one data set. Default: networks pretrained and from scratch, as the other options name them. The
    clips may be named too: run files of older versions do not have the recordings that intervals are over."""
    mistakes: Annotated[int, at_least(1)] = 50
    """Largest number of mistakes that are listed, per network, the surest first."""


@dataclass(frozen=True)
class Result(question.Result):
    """The scores of each class, over all classes, differences by class, confusions, and the surest mistakes."""

    stem = "classes"
    rows: tuple[ClassRow, ...] | tuple[LabelRow, ...]
    overall: tuple[OverallRow, ...] | tuple[OverallLabelRow, ...]
    changes: tuple[ChangeRow, ...]
    confusions: tuple[ConfusionRow, ...]
    mistakes: tuple[Mistake, ...]
    title: str = ""

    @property
    def scored(self) -> Sequence[Any]:
        """The rows that have accuracies."""
        return self.overall

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return all tables that have rows."""
        tables: dict[str, Sequence[Any]] = {
            "classes": self.rows,
            "classes_overall": self.overall,
            "classes_changes": self.changes,
            "classes_confusion": self.confusions,
            "classes_mistakes": self.mistakes,
        }
        return {stem: rows for stem, rows in tables.items() if rows}


def changes(compared: Sequence[Members], scratch: set[str]) -> list[ChangeRow]:
    """Return the differences by class: of arms to those from `scratch`, and of ensembles to their single networks."""
    rows: list[ChangeRow] = []
    for others in group_by(compared, key=lambda members: members.backbone).values():
        references = [members for members in others if members.arm in scratch]
        for members, reference in itertools.product([each for each in others if each not in references], references):
            gains = by_class.right(members) - by_class.right(reference.in_order_of(members))
            rows += by_class.changes(gains, members, (members.name, reference.name))
    for members in (members for members in compared if len(members.names) > 1):
        gains = by_class.right(members, ENSEMBLE) - by_class.right(members)
        rows += by_class.changes(gains, members, (f"{members.name}, {ENSEMBLE}", SINGLE))
    return rows


def label_changes(
    compared: Sequence[Members], scratch: set[str], scores: Mapping[tuple[int, str], Precisions]
) -> list[ChangeRow]:
    """Return the same where clips have several labels, from the `scores` of each network by its place and who."""
    rows: list[ChangeRow] = []
    for one, other in itertools.permutations(range(len(compared)), 2):
        members, reference = compared[one], compared[other]
        if members.backbone == reference.backbone and reference.arm in scratch and members.arm not in scratch:
            of_reference = scores[other, SINGLE]
            if members.clips != reference.clips:
                of_reference = by_label.precisions(reference.in_order_of(members))
            names = (members.name, reference.name)
            rows += by_label.changes(scores[one, SINGLE], of_reference, members, names)
    for i, members in enumerate(compared):
        if len(members.names) > 1:
            names = (f"{members.name}, {ENSEMBLE}", SINGLE)
            rows += by_label.changes(scores[i, ENSEMBLE], scores[i, SINGLE], members, names)
    return rows


def _of_labels(compared: Sequence[Members], scratch: set[str], most: int, title: str) -> Result:
    """Score networks by class where clips have several labels."""
    places = [(i, who) for i, members in enumerate(compared) for who in by_class.whos(members)]
    scores = {(i, who): by_label.precisions(compared[i], who) for i, who in places}
    return Result(
        rows=tuple(row for i, who in places for row in by_label.rows_of(compared[i], who, scores[i, who])),
        overall=tuple(by_label.overall(compared[i], who, scores[i, who]) for i, who in places),
        changes=tuple(label_changes(compared, scratch, scores)),
        confusions=(),
        mistakes=tuple(row for members in compared for row in by_label.mistakes(members, most)),
        title=title,
    )


def draw(result: Result) -> Figure:
    """Draw the confusion matrices, and below them recall by class and what pretraining and ensembles change.

    Where clips have several labels: average precision by class, and what changes it.
    """
    labels = list(dict.fromkeys(row.label for row in result.rows))
    singles: list[Any] = [row for row in result.rows if row.who == SINGLE]
    networks_drawn = list(dict.fromkeys(row.network for row in singles))
    pairs = list(dict.fromkeys(f"{row.network} - {row.other}" for row in result.changes))
    palette = style.colours([*networks_drawn, *pairs])
    side, tall = 1.6 + 0.22 * max(8, min(len(labels), 25)), 1.2 + 0.24 * len(labels)
    n, below = len(networks_drawn), 2 if pairs else 1
    if result.confusions:
        fig, (top, bottom) = style.new_parts([side, tall], width=max(9.0, side * n), height=1.2 + side + tall)
        _draw_confusions(result, networks_drawn, labels, style.subplots(top, 1, n)[0])
        draw_scores: Any = by_class.draw_scores
        what, chance = "recall", style.mark("", line="--")
    else:
        fig, (bottom,) = style.new_parts([tall], width=9.0, height=1.2 + tall)
        draw_scores, what, chance = by_label.draw_scores, "average precision", style.mark("|")
    left, *right = style.subplots(bottom, 1, below, sharey=True)[0]
    draw_scores(singles, palette, left)
    for ax in right:
        by_class.draw_changes(result.changes, labels, palette, ax, what=what)
    over = "recordings" if result.overall[0].n_recordings else "clips"
    marks: dict[str, Any] = {f"95 % interval over {over}": style.mark("o", line="-")}
    if pairs:
        marks[f"adjusted p < {by_class.LEVEL}"] = style.mark("s", hollow=True)
    marks["chance"] = chance
    style.legend_below(bottom, dict(zip(palette, style.handles(palette), strict=True)), marks=marks)
    style.title(fig, f"{result.title}: held-out clips by class")
    return fig


def _draw_confusions(result: Result, drawn: Sequence[str], labels: Sequence[str], axes: Sequence[Axes]) -> None:
    """Draw the confusion matrix of each network."""
    cells = group_by(result.confusions, key=lambda row: row.network)
    for network, ax in zip(drawn, axes, strict=True):
        counts = np.zeros((len(labels), len(labels)))
        for row in cells[network]:
            counts[labels.index(row.label), labels.index(row.predicted)] = row.n
        confusion_map(counts, names=[shortened(label, 18) for label in labels], ax=ax)
        ax.set_title(f"{network}\nshare of each class [%]", fontsize="small", loc="left")


def _who(row: Any) -> str:
    return f"mean of {counted(row.n_networks, 'network')}" if row.who == SINGLE else f"ensemble of {row.n_networks}"


def _overall_text(row: OverallRow) -> str:
    interval = span(100 * row.accuracy_low, 100 * row.accuracy_high)
    return (
        f"{row.network}, {_who(row)}: accuracy {100 * row.accuracy:.1f} % (95 % interval {interval}), macro-F1 "
        f"{100 * row.macro_f1:.1f} %, balanced accuracy {100 * row.balanced_accuracy:.1f} %, "
        f"{stats.clips_text(row.n_clips, row.n_recordings)}"
    )


def _details(result: Result, network: str) -> list[str]:
    """Return the weakest classes of a network, and the classes that it takes for others most often."""
    rows: list[Any] = [row for row in result.rows if (row.network, row.who) == (network, SINGLE) and row.n_clips]
    weakest = sorted(rows, key=lambda row: row.recall)[:MOST]
    recalls = [f"{r.label} {100 * r.recall:.1f} % ({span(100 * r.recall_low, 100 * r.recall_high)})" for r in weakest]
    cells = [row for row in result.confusions if row.network == network and row.label != row.predicted]
    most = [f"{r.label} as {r.predicted} ({r.n:g} clips)" for r in sorted(cells, key=lambda row: -row.n)[:MOST]]
    return [f"  lowest recall: {', '.join(recalls)}", *([f"  most often taken: {', '.join(most)}"] if most else [])]


def summary(result: Result) -> str:
    """Return the scores of the networks, their weakest classes, and which classes pretraining and ensembles help."""
    lines = []
    for row in result.overall:
        if isinstance(row, OverallLabelRow):
            own = [each for each in result.rows if (each.network, each.who) == (row.network, row.who)]
            lines += by_label.text(row, own, _who(row))  # type: ignore[arg-type]
        else:
            lines.append(_overall_text(row))
            lines += _details(result, row.network) if row.who == SINGLE else []
        lines += [f"  left out, as some folds lack them: {row.missing}"] if row.missing and row.who == SINGLE else []
    if absent := result.overall[0].absent:
        lines.append(f"no held-out clip is of: {absent}; means over classes are over the others")
    for (network, other), rows in group_by(result.changes, key=lambda row: (row.network, row.other)).items():
        paired = "by recording" if result.score == "mAP" else "by clip"
        lines.append(f"{network} - {other}, paired {paired}: {by_class.changes_text(rows)}")
    return "\n".join(lines)


def points(options: Options) -> dict[str, Arm]:
    """Return the arms to train, fine-tuned and from scratch; none if run files are named."""
    if options.ckpt:
        check_alone(options, "ckpt", beside=["mistakes", *names(FigureOptions), *names(DataOptions)])
        return {}
    study = Study.of(options)
    training = study.training(ARMS["pretrained"])  # both arms are trained alike
    return {name: study.arm(plan, training) for name, plan in ARMS.items()}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Score the runs by class."""
    found = [*itertools.chain.from_iterable(runs.values())] if runs else load_runs(options.ckpt)
    if options.ckpt and options.data != DataOptions():
        dataset = options.data.open()
        found = [run.within(dataset) for run in found]
    compared = networks(found)
    scratch = {arm for arm, run in zip(arm_names(found), found, strict=True) if run.config.plan == ARMS["scratch"]}
    if compared[0].scoring is not ONE:
        return _of_labels(compared, scratch, options.mistakes, found[0].config.dataset)
    return Result(
        rows=tuple(row for each in compared for who in by_class.whos(each) for row in by_class.rows_of(each, who)),
        overall=tuple(by_class.overall(each, who) for each in compared for who in by_class.whos(each)),
        changes=tuple(changes(compared, scratch)),
        confusions=tuple(row for each in compared for row in confusions(each)),
        mistakes=tuple(row for each in compared for row in mistakes(each, options.mistakes)),
        title=found[0].config.dataset,
    )


classes = question.Question("classes", Options, analyse, points, first="ckpt", several=True)
main = cli.command("classes", Options, classes)

if __name__ == "__main__":
    sys.exit(main())
