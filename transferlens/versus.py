"""Two runs, or two arms of a store, against each other: what differs, and which clips decide it?

The settings that differ, the accuracy of each with the paired interval of the difference, the clips that one has right
and the other wrong, the learning curves, and the classes that changed. All differences are those of the first less the
second. Nothing is trained, and no audio is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from transferlens import cli
from transferlens.compare import by_class, question
from transferlens.compare.by_class import ChangeRow, ClassRow
from transferlens.compare.ensembles import networks
from transferlens.compare.pairs import Flip, Row, Setting, Side, flips, rows_of, settings
from transferlens.measures import classes, stats
from transferlens.options import FigureOptions
from transferlens.plots import style
from transferlens.plots.accuracy import learning_curves, level_lines, points_and_means
from transferlens.store.arms import arm_names
from transferlens.store.listing import list_runs, no_run
from transferlens.store.rows import levels
from transferlens.store.run import Run, check_alike, load_runs
from transferlens.training.sweep import RunsOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule, check_alone, names
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, shortened, some, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Flipped clips that are printed.
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Compare two runs, or two arms: settings, accuracy, clips that flipped, learning curves, classes."""

    ckpt: tuple[Path, ...] = ()
    """Two run files with the same held-out clips, or the run files of two arms. Default: those of --arms."""
    arms: Annotated[tuple[str, ...], Rule("two names", lambda names: len(names) in (0, 2))] = ()
    """Two arms of --runs, such as pretrained "from scratch"; where these are several, with what tells them apart, such
    as "pretrained, resnet18"."""
    store: RunsOptions = RunsOptions()
    output: FigureOptions = FigureOptions()


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run in the CSV."""

    network: str
    run: str
    epoch: int
    train_loss: float
    heldout_loss: float
    heldout_accuracy: float


@dataclass(frozen=True)
class Result(question.Result):
    """Accuracies, settings that differ, clips that flipped, classes, and learning curves."""

    stem = "versus"
    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    flips: tuple[Flip, ...]
    classes: tuple[ClassRow, ...]
    changes: tuple[ChangeRow, ...]
    epochs: tuple[Epoch, ...]
    folds: tuple[stats.Folds, stats.Folds]
    missing: tuple[str, ...] = ()
    title: str = ""

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return all tables that have rows."""
        tables = {"versus": self.rows, "versus_settings": self.settings, "versus_flips": self.flips}
        tables |= {"versus_classes": self.changes, "versus_epochs": self.epochs}
        return {stem: rows for stem, rows in tables.items() if rows}


def sides(runs: Sequence[Run]) -> tuple[Side, Side]:
    """Return the sides of runs: two runs, or the runs of two arms; raise ParameterError if they are something else."""
    check_alike(runs, "dataset", "labels")
    arms = group_by(zip(arm_names(runs), runs, strict=True), key=lambda pair: (pair[1].config.backbone, pair[0]))
    if len(arms) == 1 and len(runs) == 2:
        names = [f"{arm}, seed {run.config.seed}" for (_, arm), pairs in arms.items() for _, run in pairs]
        groups = [[run] for run in runs]
    else:
        same = len({backbone for backbone, _ in arms}) == 1
        names = [arm if same else f"{backbone}, {arm}" for backbone, arm in arms]
        groups = [[run for _, run in pairs] for pairs in arms.values()]
    if len(groups) != 2:
        raise ParameterError(f"ckpt has runs of {counted(len(groups), 'arm')} ({some(names)}): name runs of two")
    pairs = zip(groups, names, strict=True)
    first, second = (Side(group, replace(networks(group)[0], name=name)) for group, name in pairs)
    return first, replace(second, members=second.members.in_order_of(first.members))


def epochs(side: Side) -> list[Epoch]:
    """Return the learning curves of one side."""
    names = ("train_loss", "heldout_loss", "heldout_accuracy")
    return [
        Epoch(side.name, run.config.id, epoch, *values)
        for run in side.runs
        for epoch, values in enumerate(zip(*(run.history[name].tolist() for name in names), strict=True), start=1)
    ]


def compare(first: Side, second: Side) -> Result:
    """Compare two sides, whose clips are in the same order."""
    one, other = first.members, second.members
    rows, folds = rows_of(first, second)
    gains = by_class.right(one) - by_class.right(other)
    return Result(
        rows=tuple(rows),
        settings=tuple(settings(first, second)),
        flips=tuple(flips(one, other)),
        classes=(*by_class.rows_of(one), *by_class.rows_of(other)),
        changes=tuple(by_class.changes(gains, one, (one.name, other.name))),
        epochs=(*epochs(first), *epochs(second)),
        folds=folds,
        missing=tuple(f"{side.name}: {name}" for side in (first, second) for name in side.members.missing),
        title=first.runs[0].config.dataset,
    )


def draw(result: Result) -> Figure:
    """Draw learning curves, accuracies by fold, and recall by class with its difference."""
    whole, labels = result.rows[0], list(dict.fromkeys(row.label for row in result.classes))
    fig, (top, bottom) = style.new_parts([4, 1.2 + 0.24 * len(labels)], width=11, height=6.4 + 0.24 * len(labels))
    curves, by_fold = style.subplots(top, 1, 2, sharey=True, width_ratios=[1.6, 1])[0]
    by_run = {
        name: group_by(rows, lambda row: row.run).values()
        for name, rows in group_by(result.epochs, lambda row: row.network).items()
    }
    learning_curves(
        {name: [[row.heldout_accuracy for row in run] for run in runs] for name, runs in by_run.items()}, ax=curves
    )
    curves.set_title("after each epoch", fontsize="small", loc="left")
    names = (whole.network, whole.other)
    points_and_means({"last epoch": dict(zip(names, result.folds, strict=True))}, ax=by_fold)
    by_fold.set_title("by fold", fontsize="small", loc="left")
    by_fold.set_ylabel("")
    for ax in (curves, by_fold):
        level_lines(levels(result.rows), named=ax is curves, ax=ax)
    palette = style.colours(names)
    scores, changed = style.subplots(bottom, 1, 2, sharey=True)[0]
    by_class.draw_scores(result.classes, palette, scores)
    by_class.draw_changes(result.changes, labels, {f"{whole.network} - {whole.other}": (0.25, 0.25, 0.25)}, changed)
    over = "recordings" if whole.n_recordings else "clips"
    marks = style.curve_marks() | style.fold_marks(len(result.folds[0]))
    marks[f"by class: 95 % interval over {over}"] = style.mark("o", line="-")
    style.legend_below(fig, dict(zip(palette, style.handles(palette), strict=True)), marks=marks)
    flipped = f"clips that flipped: {whole.gained} for, {whole.lost} against"
    style.title(fig, f"{result.title}: {whole.network} - {whole.other}, {flipped}")
    return fig


def summary(result: Result) -> str:
    """Return one page: settings, accuracies, the difference, the first clips that flipped, and classes."""
    whole = result.rows[0]
    chosen = [(each.setting, shortened(each.network), shortened(each.other)) for each in result.settings]
    lines = [table([("setting", whole.network, whole.other), *chosen]) if chosen else "no setting differs", ""]
    lines += [f"left out, as some folds lack it: {name}" for name in result.missing]
    lines += _accuracies(result)
    lines.append(f"clips that flipped: {_flipped(whole)}" if result.flips else "no clip flipped")
    flipped = [
        (shortened(flip.clip), flip.fold, flip.label, flip.predicted, flip.predicted_other)
        for flip in result.flips[:SHOWN]
    ]
    if flipped:
        lines.append(table([("clip", "fold", "label", whole.network, whole.other), *flipped]))
    return "\n".join([*lines, f"by class: {by_class.changes_text(result.changes)}"])


def _accuracies(result: Result) -> list[str]:
    """Return the accuracies, and macro-F1 where classes are uneven, with the paired differences."""
    row = result.rows[0]
    is_uneven = row.class_ratio > classes.UNEVEN
    macro = f", macro-F1 {100 * row.macro_f1:.1f} % and {100 * row.macro_f1_other:.1f} %" if is_uneven else ""
    values = f"{100 * row.accuracy:.1f} % and {100 * row.accuracy_other:.1f} %{macro}"
    interval = stats.Interval(row.change, row.change_low, row.change_high, row.n_clips)
    lines = [
        f"accuracy {values}, {stats.clips_text(row.n_clips, row.n_recordings)}",
        f"difference, paired by clip: {stats.Difference(interval, row.change_p)}",
    ]
    if len(result.folds[0]) > 1:
        lines.append(f"difference, paired by fold: {stats.paired_difference(*result.folds)}")
    return lines


def _flipped(row: Row) -> str:
    return f"{row.gained} that {row.network} has right more often, {row.lost} that {row.other} has"


def _words(name: str) -> set[str]:
    """Return what an arm's name consists of."""
    return {word.strip() for word in re.split(r"[,()]", name.lower()) if word.strip()}


def runs_of_arms(folder: Path, wanted: Sequence[str]) -> list[Run]:
    """Load the runs of two arms of a store; raise ParameterError, with the names of all arms, if one is not there."""
    finished = {run.id: run for run in list_runs(folder) if run.is_complete}
    if not finished:
        raise no_run(folder)
    summaries = [*finished.values()]
    names = [
        f"{run.config.dataset}, {run.config.backbone}, {arm}"
        for run, arm in zip(summaries, arm_names(summaries), strict=True)
    ]
    arms = group_by(zip(names, summaries, strict=True), key=lambda pair: pair[0])
    if not wanted:
        raise ParameterError(f"arms must name two of {some(map(repr, arms))}; or give two run files as ckpt")
    words = {name: _words(name) | {str(pairs[0][1].config.plan).lower()} for name, pairs in arms.items()}
    chosen = [_match(name, words) for name in wanted]
    if chosen[0] == chosen[1]:
        raise ParameterError(f"arms={some(map(repr, wanted))} are both {chosen[0]!r}: name two")
    return load_runs([run.path for name in chosen for _, run in arms[name]])


def _match(wanted: str, names: Mapping[str, set[str]]) -> str:
    """Return the plainest of the names, each with its words, that have all words of the one that is wanted."""
    fitting = [name for name, words in names.items() if _words(wanted) <= words]
    fewest = min((len(names[name]) for name in fitting), default=0)
    plainest = [name for name in fitting if len(names[name]) == fewest]
    if len(plainest) != 1:
        among = some(map(repr, plainest or names))
        problem = f"can be each of {among}: say more" if plainest else f"must be one of {among}"
        raise ParameterError(f"arms={wanted!r} {problem}")
    return plainest[0]


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare the two runs, or the runs of the two arms, that the options name."""
    if not options.ckpt:
        found = runs_of_arms(options.store.runs, options.arms)
        question.check_labels("versus", {run.config.dataset: run.config.labels_per_clip for run in found})
        return compare(*sides(found))
    check_alone(options, "ckpt", beside=names(FigureOptions))
    found = load_runs(options.ckpt)
    if len(found) < len(options.ckpt):
        raise ParameterError(f"ckpt names a run twice ({some(options.ckpt)}): name two runs, or the runs of two arms")
    return compare(*sides(found))


versus = question.Question("versus", Options, analyse, first="ckpt")
main = cli.command("versus", Options, versus)

if __name__ == "__main__":
    sys.exit(main())
