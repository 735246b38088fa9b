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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli, display, predictions, stats
from transferlens.errors import ParameterError
from transferlens.files import check_writable, write_csv
from transferlens.plan import PlanOptions
from transferlens.runs import Run, arm_names, check_alike, load_runs
from transferlens.sweep import Study, SweepOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

__all__ = ["Members", "Options", "Row", "average", "draw", "gather", "main", "row_of", "sizes"]

STEM = "ensemble"
FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Options(SweepOptions, PlanOptions):
    """Ensembles of runs that differ by the seed, and across backbones: accuracy, gain, calibration.

    Name runs (--ckpt), or say what to train as for `train`; what the store has is not trained again.
    """

    ckpt: tuple[Path, ...] = ()
    """Run files of one data set, two or more a held-out fold. Default: those of --backbone, --folds and --seeds."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Members."""
    figures: Path = Path("figures")
    """Folder for ensemble.png, .pdf and .csv, ensemble_sizes.csv and ensemble_reliability.csv."""


def average(logits: np.ndarray) -> np.ndarray:
    """The ensemble's probabilities: the mean of the members' softmax outputs.

    Parameters
    ----------
    logits : ndarray [shape=(n_members, n_clips, n_classes)]

    Returns
    -------
    probabilities : ndarray [shape=(n_clips, n_classes)]

    Raises
    ------
    ParameterError
        Where the shape is another, or a logit is not finite.

    References
    ----------
    Palanisamy, Singhania and Yao 2020, section 4.3.

    Examples
    --------
    >>> average(np.log([[[0.9, 0.1]], [[0.5, 0.5]]])).round(3).tolist()
    [[0.7, 0.3]]
    """
    logits = np.asarray(logits)
    if logits.ndim != 3 or 0 in logits.shape:
        raise ParameterError(f"logits of shape {logits.shape} must be (n_members, n_clips, n_classes)")
    return predictions.softmax(logits).mean(0)


# ----------------------------------------------------------------------------------------------- members


@dataclass(frozen=True)
class Members:
    """Networks whose outputs are averaged, over the held-out clips of all folds.

    Attributes
    ----------
    name : str
    names : tuple of str [shape=(n_members,)]
        Backbone and seed of each.
    logits : ndarray [shape=(n_members, n_clips, n_classes)]
    labels : ndarray of int [shape=(n_clips,)]
    folds : ndarray of str [shape=(n_clips,)]
    missing : tuple of str
        Members that some fold lacks, and which are left out.
    arm : str
        What `arm_names` calls the runs.
    """

    name: str
    names: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    missing: tuple[str, ...] = ()
    arm: str = ""

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of every member [shape=(n_members, n_clips, n_classes)]."""
        return predictions.softmax(self.logits)

    @cached_property
    def average(self) -> np.ndarray:
        """The ensemble's [shape=(n_clips, n_classes)]."""
        return average(self.logits)


def _members(arm: str, name: str, runs: Mapping[tuple[str, str], Run]) -> Members:
    """Of runs by (fold, member): those members that every fold has."""
    folds = list(dict.fromkeys(fold for fold, _ in runs))
    everyone = list(dict.fromkeys(member for _, member in runs))
    names = [member for member in everyone if all((fold, member) in runs for fold in folds)]
    if len(names) < FEWEST:
        raise ParameterError(
            f"ckpt has {len(names)} members of {name!r} that every one of its {len(folds)} folds has: "
            f"an ensemble takes at least {FEWEST}"
        )
    for fold in folds:
        check_alike([runs[fold, member] for member in names], "labels", "held-out clips (fold)")
    first = [runs[fold, names[0]] for fold in folds]
    return Members(
        name=name,
        names=tuple(names),
        logits=np.stack([np.concatenate([runs[fold, member].logits for fold in folds]) for member in names]),
        labels=np.concatenate([run.labels for run in first]),
        folds=np.concatenate([np.full(len(run.labels), run.config.fold) for run in first]),
        missing=tuple(member for member in everyone if member not in names),
        arm=arm,
    )


def gather(runs: Sequence[Run]) -> list[Members]:
    """Ensembles of runs: of each arm and backbone over its seeds, and of each arm over all backbones.

    Raises
    ------
    ParameterError
        Where runs of one fold have other clips or labels, data sets differ, or an ensemble has one member only.
    """
    check_alike(runs, "dataset", "labels")
    arms: dict[str, dict[str, dict[tuple[str, str], Run]]] = {}
    names = arm_names(runs)
    for arm, run in zip(names, runs, strict=True):
        config = run.config
        member = f"{config.backbone} seed {config.seed}"
        arms.setdefault(arm, {}).setdefault(config.backbone, {})[config.fold, member] = run
    found = []
    for arm, backbones in arms.items():
        suffix = "" if len(arms) == 1 else f", {arm}"
        alone = {name: mine for name, mine in backbones.items() if len({member for _, member in mine}) >= FEWEST}
        found += [_members(arm, f"{name}{suffix}", mine) for name, mine in alone.items()]
        if len(backbones) > 1:
            together = {key: run for mine in backbones.values() for key, run in mine.items()}
            members = _members(arm, f"all {len(backbones)} backbones{suffix}", together)
            # Where folds lack those of a backbone, another one may be all that is left.
            if all(any(name.startswith(f"{each} ") for name in members.names) for each in backbones):
                found.append(members)
    if not found:
        raise ParameterError(f"ckpt names one member of each ensemble: an ensemble takes at least {FEWEST}, by seed")
    used = {(members.arm, name) for members in found for name in members.names}
    others = {
        f"{run.config.backbone} seed {run.config.seed}, {arm}"
        for arm, run in zip(names, runs, strict=True)
        if (arm, f"{run.config.backbone} seed {run.config.seed}") not in used
    }
    if others:
        log.warning("left out, as no other is like them: %s", "; ".join(sorted(others)))
    return found


# --------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Row:
    """One ensemble in the CSV: of the clips of one fold, or where `fold` is empty of all. Accuracies are fractions.

    `single` is the members' mean, `single_std` the standard deviation over members, as the paper reports it; `gain` is
    the ensemble less `single`, with a 95 % bootstrap interval over clips. Squared errors (Brier): `brier_single` is
    `brier` + `ambiguity`. `nll` is the negative log-likelihood [nat], `ece` the expected calibration error.
    """

    ensemble: str
    fold: str
    n_clips: int
    n_members: int
    single: float
    single_std: float
    accuracy: float
    gain: float
    gain_low: float
    gain_high: float
    disagreement: float
    brier_single: float
    brier: float
    ambiguity: float
    nll_single: float
    nll: float
    ece_single: float
    ece: float
    missing: str


def row_of(members: Members, fold: str = "") -> Row:
    """Scores of one ensemble, over all clips or those of one fold."""
    mine = members.folds == fold if fold else slice(None)
    each, mean, labels = members.probabilities[:, mine], members.average[mine], members.labels[mine]
    right, right_mean = predictions.accuracy(each, labels), predictions.accuracy(mean, labels)
    gain = stats.bootstrap_interval(right_mean - right.mean(0), bounds=(-1.0, 1.0))
    return Row(
        ensemble=members.name,
        fold=fold,
        n_clips=len(labels),
        n_members=len(each),
        single=float(right.mean()),
        single_std=float(right.mean(1).std(ddof=1)),
        accuracy=float(right_mean.mean()),
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        disagreement=predictions.disagreement(each),
        brier_single=float(predictions.brier(each, labels).mean()),
        brier=float(predictions.brier(mean, labels).mean()),
        ambiguity=float(predictions.ambiguity(each).mean()),
        nll_single=float(predictions.nll(each, labels).mean()),
        nll=float(predictions.nll(mean, labels).mean()),
        ece_single=float(np.mean([predictions.calibration_error(one, labels) for one in each])),
        ece=predictions.calibration_error(mean, labels),
        missing="; ".join(members.missing),
    )


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
        for found in [predictions.reliability(probabilities, truth)]
        for confidence, right, n in zip(found.confidence, found.accuracy, found.counts, strict=True)
    ]


# ----------------------------------------------------------------------------------------------- figure


def draw(rows: Sequence[Row], by_size: Sequence[SizeRow], bins: Sequence[ReliabilityRow], title: str = "") -> Figure:
    """Accuracy by fold, accuracy against size, where the gain comes from, and calibration."""
    whole = [row for row in rows if not row.fold]
    fig, axes = display.new_figure(2, 2, width=max(11.5, 3 * len(whole)), height=8.6)
    palette = display.colours([row.ensemble for row in whole])
    folds = {row.ensemble: [r for r in rows if r.ensemble == row.ensemble and r.fold] or [row] for row in whole}
    points = {
        name: {"single (mean)": [row.single for row in mine], "ensemble": [row.accuracy for row in mine]}
        for name, mine in folds.items()
    }
    greys = {"single (mean)": (0.6, 0.6, 0.6), "ensemble": (0.15, 0.15, 0.15)}
    ax = display.points_and_means(points, palette=greys, ax=axes[0, 0])
    ax.set_ylim(max(0, 100 * min(row.single for mine in folds.values() for row in mine) - 8), 101)
    ax.set_title("diamonds: mean over folds and 95 % interval; dots: folds", fontsize="small", loc="left")
    ax.legend(loc="lower right", frameon=False, fontsize="small")
    curves = {name: [(r.size, r.mean, r.lowest, r.highest) for r in by_size if r.ensemble == name] for name in palette}
    display.against_size(curves, palette=palette, ax=axes[0, 1])
    axes[0, 1].set_title("mean over subsets of the members; bands: lowest and highest", fontsize="small", loc="left")
    parts = {
        "ensemble": [row.brier for row in whole],
        "ambiguity: what averaging takes away": [row.ambiguity for row in whole],
    }
    display.stacked_bars(list(palette), parts, ylabel="squared error of a single network", ax=axes[1, 0])
    axes[1, 0].set_title("single network = ensemble + ambiguity (Krogh and Vedelsby)", fontsize="small", loc="left")
    diagram = {
        (name, who): [(b.confidence, b.accuracy, b.n) for b in bins if (b.ensemble, b.who) == (name, who)]
        for name in palette
        for who in ("single", "ensemble")
    }
    display.reliability_diagram(diagram, palette=palette, ax=axes[1, 1])
    axes[1, 1].set_title(
        "dashed: single networks; bins of 5 clips or more, areas follow them", fontsize="small", loc="left"
    )
    for ax in (axes[0, 0], axes[1, 0]):
        ax.set_xticks(range(len(palette)), [name.replace(", ", "\n") for name in palette], fontsize="x-small")
    labels = dict(zip(palette, _results(whole), strict=True))
    fig.legend(
        display.handles({labels[name]: colour for name, colour in palette.items()}),
        labels.values(),
        loc="outside lower center",
        frameon=False,
    )
    words = "single networks and ensembles"
    fig.suptitle(f"{title}: {words}" if title else words, x=0.01, ha="left")
    return fig


def _results(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row.ensemble}: single {100 * row.single:.1f} ± {100 * row.single_std:.1f} %, ensemble of {row.n_members}: "
        f"{100 * row.accuracy:.1f} %, n = {row.n_clips} clips"
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------- command


def text(rows: Sequence[Row]) -> str:
    """The headline in words."""
    lines = []
    for row in (row for row in rows if not row.fold):
        lines.append(
            f"{row.ensemble}: single {100 * row.single:.1f} ± {100 * row.single_std:.1f} % (standard deviation over "
            f"{row.n_members} members), ensemble {100 * row.accuracy:.1f} %, gain {100 * row.gain:.1f} points (95 % "
            f"interval over {row.n_clips} clips {100 * row.gain_low:.1f} to {100 * row.gain_high:.1f}); "
            f"nll {row.nll_single:.3f} to {row.nll:.3f}, calibration error {row.ece_single:.3f} to {row.ece:.3f}"
        )
        if row.missing:
            lines.append(f"  left out, as some folds lack them: {row.missing}")
    return "\n".join(lines)


def _runs(options: Options) -> list[Run]:
    if not options.ckpt:
        study = Study(options)
        return list(study.gather(study.points(options.plan())).values())
    check_writable("figures", options.figures)
    if options.dry_run:
        raise ParameterError("dry_run goes with runs to train, not with ckpt")
    return load_runs(options.ckpt)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, gather runs, compute, write numbers, draw."""
    options = cli.parse(Options, argv, prog="ensemble")
    runs = _runs(options)
    found = gather(runs)
    rows = [row_of(each, fold) for each in found for fold in ["", *dict.fromkeys(each.folds.tolist())]]
    by_size = [row for each in found for row in sizes(each)]
    bins = [row for each in found for row in reliability_rows(each)]
    stem = options.figures / STEM
    write_csv(rows, stem.with_suffix(".csv"))
    write_csv(by_size, options.figures / f"{STEM}_sizes.csv")
    write_csv(bins, options.figures / f"{STEM}_reliability.csv")
    display.save_figure(draw(rows, by_size, bins, runs[0].config.dataset), stem)
    print(text(rows))
    print(f"written: {stem}.png, .pdf, .csv, {stem}_sizes.csv, {stem}_reliability.csv")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
