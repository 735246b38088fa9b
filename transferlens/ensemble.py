"""Ensembles: what does averaging the softmax outputs of several networks gain, and why?

Question 4 of Palanisamy, Singhania and Yao (2020, section 4.3): there, five networks that differ only by the seed. All
numbers come from the logits after the last epoch that the runs have stored; no network is run again, except for the
average of the members' weights (``--soup``), which is one network at the cost of one. Members of each
held-out fold are averaged, and the clips of all folds are scored together.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens import cli
from transferlens.compare import finished, question
from transferlens.compare.ensembles import FEWEST, Members, Row, gather, row_of
from transferlens.data.catalogue import DataOptions
from transferlens.measures import predictions, stats
from transferlens.measures.classes import IF_SEVERAL
from transferlens.measures.scoring import ONE
from transferlens.models.device import pick_device
from transferlens.options import FigureOptions, PlanOptions, QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import against_size, level_lines, points_and_means, reliability_diagram, stacked_bars
from transferlens.store.rows import levels
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import ExecutionOptions
from transferlens.training.sweep import Arm, Study, SweepOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import check_alone, names
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Average the outputs of runs that differ by the seed, and across backbones: accuracy, gain and calibration.

    Name run files (--ckpt), or the runs to train as for `train`. Finished runs are not trained again.
    """

    ckpt: tuple[Path, ...] = ()
    """Run files of one data set, two or more per held-out fold. Default: the runs that the sweep options name. The
    clips may be named too: run files of older versions do not have the recordings that intervals are over."""
    soup: bool = False
    """Also the average of the weights of the members of one backbone: one network, with BatchNorm statistics estimated
    anew on training clips. It needs the features of the clips, and runs networks again."""
    plan: PlanOptions = PlanOptions()
    sweep: SweepOptions = SweepOptions(seeds=(0, 1, 2, 3, 4))


@dataclass(frozen=True)
class SizeRow:
    """The accuracy of ensembles of one size, over `n_subsets` subsets of the members, in ensemble_sizes.csv."""

    ensemble: str
    size: int
    n_subsets: int
    mean: float
    lowest: float
    highest: float


def sizes(members: Members) -> list[SizeRow]:
    """Compute the accuracy against the number of members, over all subsets, or 1000 random ones if there are more."""
    probabilities, rows = members.probabilities, []
    for size in range(1, len(probabilities) + 1):
        averages = (probabilities[list(each)].mean(0) for each in predictions.subsets(len(probabilities), size))
        values = [members.scoring.over_folds(average, members.labels, members.folds) for average in averages]
        scores = (float(np.mean(values)), float(min(values)), float(max(values)))
        rows.append(SizeRow(members.name, size, len(values), *scores))
    return rows


@dataclass(frozen=True)
class ReliabilityRow:
    """One bin of confidence in ensemble_reliability.csv; `who` is "single" (all members) or "ensemble".

    Where clips have several labels, a bin is of pairs of a clip and a class, and holds the share of them that belong
    together.
    """

    ensemble: str
    who: str
    confidence: float
    accuracy: float
    n: int
    score: str = field(default="accuracy", kw_only=True, metadata=IF_SEVERAL)


def reliability_rows(members: Members) -> list[ReliabilityRow]:
    """Return confidence and accuracy by bin, of single networks and of the ensemble."""
    score = "accuracy" if members.scoring is ONE else "share_of_labels"
    single, labels, reliability = members.probabilities, members.labels, members.scoring.reliability
    bins = {
        "single": reliability(single.reshape(-1, single.shape[-1]), np.concatenate([labels] * len(single))),
        "ensemble": reliability(members.average, labels),
    }
    return [
        ReliabilityRow(members.name, who, float(confidence), float(right), int(n), score=score)
        for who, each in bins.items()
        for confidence, right, n in zip(*each, strict=True)
    ]


SCORES = {"single": "single (mean)", "accuracy": "ensemble", "soup": "average of weights"}


def _draw_accuracies(folds: Sequence[Row], ax: Axes) -> None:
    """Draw the accuracy of single networks, ensembles and soups by fold."""
    points = {
        name: {
            words: stats.by_fold(rows, score)
            for score, words in SCORES.items()
            if np.isfinite([getattr(row, score) for row in rows]).all()
        }
        for name, rows in group_by(folds, key=lambda row: row.ensemble).items()
    }
    shades = dict(zip(SCORES.values(), [(0.6, 0.6, 0.6), (0.15, 0.15, 0.15), (0.8, 0.4, 0.0)], strict=True))
    points_and_means(points, palette=shades, ax=ax)
    level_lines(levels(folds), ax=ax)
    ax.set_title("by fold", fontsize="small", loc="left")


def draw(result: Result) -> Figure:
    """Draw accuracy by fold, accuracy against size, where the gain comes from, and calibration."""
    whole, folds = ([row for row in result.rows if bool(row.fold) == by_fold] for by_fold in (False, True))
    fig, axes = style.new_figure(2, 2, width=max(11.5, 3 * len(whole)), height=8.6)
    palette = style.colours([row.ensemble for row in whole])
    _draw_accuracies(folds, axes[0, 0])
    curves = {
        name: [(row.size, row.mean, row.lowest, row.highest) for row in rows]
        for name, rows in group_by(result.sizes, key=lambda row: row.ensemble).items()
    }
    against_size(curves, palette=palette, ax=axes[0, 1])
    axes[0, 1].set_title("subsets of the members", fontsize="small", loc="left")
    parts = {
        "error of the ensemble": [row.brier for row in whole],
        "ambiguity, which averaging takes away": [row.ambiguity for row in whole],
    }
    stacked_bars(list(palette), parts, ylabel="squared error of a single network", ax=axes[1, 0])
    axes[1, 0].set_title("single network = ensemble + ambiguity (Krogh and Vedelsby)", fontsize="small", loc="left")
    things = "clips" if result.score == ONE.name else "pairs"
    diagram = {
        key: [(row.confidence, row.accuracy, row.n) for row in rows]
        for key, rows in group_by(result.reliability, key=lambda row: (row.ensemble, row.who)).items()
    }
    reliability_diagram(diagram, palette=palette, ax=axes[1, 1])
    axes[1, 1].set_title(
        f"calibration: bins of 5 {things} or more, larger dots for more {things}", fontsize="small", loc="left"
    )
    for ax in (axes[0, 0], axes[1, 0]):
        ax.set_xticks(range(len(palette)), [name.replace(", ", "\n") for name in palette], fontsize="x-small")
    labels = [f"{row.ensemble}, {row.n_members} networks" for row in whole]
    entries = dict(zip(labels, style.handles(palette), strict=True))
    style.legend_below(fig, entries, marks=_marks([*axes[:, 0]], len({row.fold for row in folds})))
    style.title(fig, f"{result.title}: single networks and ensembles, n = {counted(whole[0].n_clips, 'clip')}")
    return fig


def _marks(left: Sequence[Axes], n_folds: int) -> dict[str, Any]:
    """Return the legend entries of the marks: shades of accuracies, bands of sizes, lines of calibration."""
    by_fold, errors = map(style.entries_of, left)
    bands = {"lowest to highest subset": style.band_mark()}
    lines = {"calibration of the ensemble": style.mark("o", line="-")}
    lines["calibration of single networks"] = style.mark("o", line="--", hollow=True)
    return by_fold | style.fold_marks(n_folds) | bands | errors | lines


def summary(result: Result) -> str:
    """Return the accuracy, the gain and the calibration of each ensemble in words."""
    lines = []
    for row in (row for row in result.rows if not row.fold):
        over = stats.clips_text(row.n_clips, row.n_recordings)
        lines.append(
            f"{row.ensemble}: single {100 * row.single:.1f} ± {100 * row.single_std:.1f} % (standard deviation over "
            f"{row.n_members} members), ensemble {100 * row.accuracy:.1f} %, gain {100 * row.gain:.1f} points (95 % "
            f"interval over {over}: {span(100 * row.gain_low, 100 * row.gain_high)}); "
            f"nll {row.nll_single:.3f} to {row.nll:.3f}, calibration error {row.ece_single:.3f} to {row.ece:.3f}"
        )
        if np.isfinite(row.soup):
            gain = f"{100 * row.soup_gain:.1f} points ({span(100 * row.soup_gain_low, 100 * row.soup_gain_high)})"
            lines.append(f"  average of their weights, one network: {100 * row.soup:.1f} %, less the ensemble {gain}")
        if row.missing:
            lines.append(f"  left out, as some folds lack them: {row.missing}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Result(question.Result):
    """The scores of each ensemble over all clips and by fold, by size, and by confidence."""

    stem = "ensemble"
    rows: tuple[Row, ...]
    sizes: tuple[SizeRow, ...]
    reliability: tuple[ReliabilityRow, ...]
    title: str = ""

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the scores, the accuracies by size, and the bins of confidence."""
        return {"ensemble": self.rows, "ensemble_sizes": self.sizes, "ensemble_reliability": self.reliability}


def points(options: Options) -> dict[str, Arm]:
    """Return the members to train, none if run files are named."""
    if not options.ckpt:
        study = Study.of(options)
        if len(study.backbones) * len(set(options.sweep.seeds)) < FEWEST:
            raise ParameterError(f"seeds={options.sweep.seeds} gives one network: an ensemble needs at least {FEWEST}")
        return {"members": study.arm(options.plan.plan(options.sweep))}
    check_alone(
        options, "ckpt", beside=["soup", *names(FigureOptions), "cache", *names(DataOptions), *names(ExecutionOptions)]
    )
    pick_device(options.execution.device)
    return {}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Average the networks of each ensemble, and score them."""
    members = runs["members"] if runs else load_runs(options.ckpt)
    if options.ckpt and options.data != DataOptions():
        dataset = options.data.open()
        members = [run.within(dataset) for run in members]
    ensembles = gather(members)
    if options.soup:
        ensembles = finished.with_soups(ensembles, options, pick_device(options.execution.device))
    return Result(
        rows=tuple(row_of(each, fold) for each in ensembles for fold in ["", *dict.fromkeys(each.folds.tolist())]),
        sizes=tuple(row for each in ensembles for row in sizes(each)),
        reliability=tuple(row for each in ensembles for row in reliability_rows(each)),
        title=members[0].config.dataset,
    )


ensemble = question.Question("ensemble", Options, analyse, points, first="ckpt", several=True)
main = cli.command("ensemble", Options, ensemble)

if __name__ == "__main__":
    sys.exit(main())
