"""Ensembles: the mean of the softmax outputs of several networks, what it gains, and why.

Question 4 of Palanisamy, Singhania and Yao (2020, section 4.3): five networks that differ by the seed alone. Everything
comes from the logits that the runs have stored; no network is run again. Members are grouped by held-out fold, and the
clips of all folds are scored together. Headline is the accuracy after the last epoch.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.ensembles import Members, Row, gather, row_of
from transferlens.measures import predictions
from transferlens.options import PlanOptions, QuestionOptions
from transferlens.plots import style
from transferlens.plots.accuracy import against_size, points_and_means, reliability_diagram, stacked_bars
from transferlens.store.run import Run, load_runs
from transferlens.training.sweep import Arm, Study, SweepOptions
from transferlens.util.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options(QuestionOptions):
    """Ensembles of runs that differ by the seed, and across backbones: accuracy, gain, calibration.

    Name runs (--ckpt), or say what to train as for `train`; what the store has is not trained again.
    """

    ckpt: tuple[Path, ...] = ()
    """Run files of one data set, two or more per held-out fold. Default: those of --backbone, --folds and --seeds."""
    plan: PlanOptions = PlanOptions()
    sweep: SweepOptions = SweepOptions(seeds=(0, 1, 2, 3, 4))


@dataclass(frozen=True)
class SizeRow:
    """Accuracy of the ensembles of one size in ensemble_sizes.csv, over `n_subsets` subsets of the members."""

    ensemble: str
    size: int
    n_subsets: int
    mean: float
    lowest: float
    highest: float


def sizes(members: Members) -> list[SizeRow]:
    """Accuracy against the number of members, over all subsets (or 1000 drawn ones where there are more)."""
    each = members.probabilities
    found = []
    for size in range(1, len(each) + 1):
        chosen = predictions.subsets(len(each), size)
        values = [predictions.accuracy(each[list(some)].mean(0), members.labels).mean() for some in chosen]
        summary = (float(np.mean(values)), float(min(values)), float(max(values)))
        found.append(SizeRow(members.name, size, len(values), *summary))
    return found


@dataclass(frozen=True)
class ReliabilityRow:
    """One bin of confidence in ensemble_reliability.csv; `who` is "single" (all members' predictions) or "ensemble"."""

    ensemble: str
    who: str
    confidence: float
    accuracy: float
    n: int


def reliability_rows(members: Members) -> list[ReliabilityRow]:
    """Confidence and accuracy by bin, of single networks and of the ensemble."""
    each, labels = members.probabilities, members.labels
    sides = {
        "single": (each.reshape(-1, each.shape[-1]), np.tile(labels, len(each))),
        "ensemble": (members.average, labels),
    }
    return [
        ReliabilityRow(members.name, who, float(confidence), float(right), int(n))
        for who, (probabilities, truth) in sides.items()
        for confidence, right, n in zip(*predictions.reliability(probabilities, truth), strict=True)
    ]


def draw(result: Result) -> Figure:
    """Draw accuracy by fold, accuracy against size, where the gain comes from, and calibration."""
    rows = result.rows
    whole = [row for row in rows if not row.fold]
    fig, axes = style.new_figure(2, 2, width=max(11.5, 3 * len(whole)), height=8.6)
    palette = style.colours([row.ensemble for row in whole])
    folds = {row.ensemble: [r for r in rows if r.ensemble == row.ensemble and r.fold] or [row] for row in whole}
    points = {
        name: {"single (mean)": [row.single for row in mine], "ensemble": [row.accuracy for row in mine]}
        for name, mine in folds.items()
    }
    greys = {"single (mean)": (0.6, 0.6, 0.6), "ensemble": (0.15, 0.15, 0.15)}
    ax = points_and_means(points, palette=greys, ax=axes[0, 0])
    ax.set_ylim(max(0, 100 * min(row.single for mine in folds.values() for row in mine) - 8), 101)
    ax.set_title("diamonds: mean over folds and 95 % interval; dots: folds", fontsize="small", loc="left")
    ax.legend(loc="lower right", frameon=False, fontsize="small")
    curves = {
        name: [(r.size, r.mean, r.lowest, r.highest) for r in result.sizes if r.ensemble == name] for name in palette
    }
    against_size(curves, palette=palette, ax=axes[0, 1])
    axes[0, 1].set_title("mean over subsets of the members; bands: lowest and highest", fontsize="small", loc="left")
    parts = {
        "ensemble": [row.brier for row in whole],
        "ambiguity: what averaging takes away": [row.ambiguity for row in whole],
    }
    stacked_bars(list(palette), parts, ylabel="squared error of a single network", ax=axes[1, 0])
    axes[1, 0].set_title("single network = ensemble + ambiguity (Krogh and Vedelsby)", fontsize="small", loc="left")
    diagram = {
        (name, who): [(b.confidence, b.accuracy, b.n) for b in result.reliability if (b.ensemble, b.who) == (name, who)]
        for name in palette
        for who in ("single", "ensemble")
    }
    reliability_diagram(diagram, palette=palette, ax=axes[1, 1])
    axes[1, 1].set_title(
        "dashed: single networks; bins of 5 clips or more, areas follow them", fontsize="small", loc="left"
    )
    for ax in (axes[0, 0], axes[1, 0]):
        ax.set_xticks(range(len(palette)), [name.replace(", ", "\n") for name in palette], fontsize="x-small")
    labels = dict(zip(palette, _results(whole), strict=True))
    fig.legend(
        style.handles({labels[name]: colour for name, colour in palette.items()}),
        labels.values(),
        loc="outside lower center",
        frameon=False,
    )
    words = "single networks and ensembles"
    fig.suptitle(f"{result.title}: {words}", x=0.01, ha="left")
    return fig


def _results(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row.ensemble}: single {100 * row.single:.1f} ± {100 * row.single_std:.1f} %, ensemble of {row.n_members}: "
        f"{100 * row.accuracy:.1f} %, n = {row.n_clips} clips"
        for row in rows
    ]


def summary(result: Result) -> str:
    """The headline in words."""
    lines = []
    for row in (row for row in result.rows if not row.fold):
        lines.append(
            f"{row.ensemble}: single {100 * row.single:.1f} ± {100 * row.single_std:.1f} % (standard deviation over "
            f"{row.n_members} members), ensemble {100 * row.accuracy:.1f} %, gain {100 * row.gain:.1f} points (95 % "
            f"interval over {row.n_clips} clips {100 * row.gain_low:.1f} to {100 * row.gain_high:.1f}); "
            f"nll {row.nll_single:.3f} to {row.nll:.3f}, calibration error {row.ece_single:.3f} to {row.ece:.3f}"
        )
        if row.missing:
            lines.append(f"  left out, as some folds lack them: {row.missing}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Result(question.Result):
    """Scores of every ensemble over all clips and by fold, by size, and by confidence."""

    stem = "ensemble"
    rows: tuple[Row, ...]
    sizes: tuple[SizeRow, ...]
    reliability: tuple[ReliabilityRow, ...]
    title: str = ""

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the scores, those by size, and the bins of confidence."""
        return {"ensemble": self.rows, "ensemble_sizes": self.sizes, "ensemble_reliability": self.reliability}


def points(options: Options) -> dict[str, Arm]:
    """Return the members to train; none where run files are named."""
    if not options.ckpt:
        return {"members": Study.of(options).arm(options.plan.plan())}
    if options.output.dry_run:
        raise ParameterError("dry_run goes with runs to train, not with ckpt")
    return {}


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Average the networks of each ensemble, and score them."""
    members = runs["members"] if runs else load_runs(options.ckpt)
    found = gather(members)
    folds = {each.name: ["", *dict.fromkeys(each.folds.tolist())] for each in found}
    return Result(
        rows=tuple(row_of(each, fold) for each in found for fold in folds[each.name]),
        sizes=tuple(row for each in found for row in sizes(each)),
        reliability=tuple(row for each in found for row in reliability_rows(each)),
        title=members[0].config.dataset,
    )


ensemble = question.Question("ensemble", Options, analyse, points, first="ckpt")
main = cli.command("ensemble", Options, ensemble)

if __name__ == "__main__":
    sys.exit(main())
