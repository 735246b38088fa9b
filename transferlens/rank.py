"""Transferability without training: which network, and which block of it, suits these clips?

Each block's output, averaged over time and frequency as `probe` reads it, is scored by LogME and by the accuracy of the
k nearest neighbours (`measures.transferability`), from each source and, as a control, randomly initialised. There are
forward passes only, in float32: one per network, normalised over all clips, where training normalises over the training
folds. For each held-out fold LogME is that of the clips that would be trained on, and neighbours are among them;
clips of the recording of a held-out clip are never its neighbours.

LogME assumes that labels are numbers which depend linearly on fixed features, with Gaussian noise and weights. It is
not an accuracy, and not a forecast of one: it orders features on the same clips, and knows nothing of what fine-tuning
changes. Whether the order is that of accuracies is measured, not assumed: ``--against`` compares the scores with runs
that the store has (Spearman's rank correlation with its n). Deeper blocks often have both higher scores and higher
accuracies: a correlation over blocks need not hold for the networks at one block.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.transfer_scores import Row, Start, check_k, scored
from transferlens.data.catalogue import DataOptions
from transferlens.features.logmel import FeatureOptions
from transferlens.measures.transferability import FEWEST, Correlation, rank_correlation
from transferlens.models.plan import BLOCKS, LAST, TransferPlan
from transferlens.options import FigureOptions
from transferlens.plots import style
from transferlens.plots.accuracy import level_lines
from transferlens.store.config import RunConfig, Training
from transferlens.store.rows import levels
from transferlens.store.run import Run
from transferlens.training import schedule
from transferlens.training.presets import PROBE, TrainingOptions
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import StoreOptions, Study, SweepOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, at_least, between
from transferlens.util.grouping import group_by
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

RANDOM = "random"
# Marks of networks.
MARKERS = "osD^vPX"
GREY = (0.5, 0.5, 0.5)  # of the randomly initialised network
SCORES = {"logme": "LogME [nats per clip]", "knn": "accuracy of nearest neighbours [%]"}
# The plan of the runs that a block's score is compared with: by the block, and the last pretrained one or None.
PLANS: Mapping[str, Callable[[int, int | None], TransferPlan]] = {
    "probe": lambda block, start: TransferPlan(start, block, block),
    "truncate": lambda block, start: TransferPlan(start, truncate_after=block),
    "finetune": lambda block, start: TransferPlan(start),
}
INFINITE = "LogME is infinite, and not drawn, where the labels follow exactly from the output of a block"
CUTS = {"probe": BLOCKS[1:], "truncate": BLOCKS[1:], "finetune": (LAST,)}  # the blocks that they may end with


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Score the output of each block for these clips without training: LogME, and nearest neighbours.

    The options of the runs serve to find those of --against, as they were trained with them.
    """

    block: tuple[Annotated[int, between(0, LAST)], ...] = ()
    """Blocks whose output is scored: 0 (the stem) to 4. Default: all."""
    k: Annotated[int, at_least(1)] = 5
    """Number of nearest neighbours, by cosine similarity."""
    against: Literal["probe", "truncate", "finetune"] | None = None
    """Compare the scores with accuracies of finished runs: linear probes of the block, networks that are cut after it,
    or the entire network (Block 4). None is trained. Default: no comparison."""
    controls: bool = True
    """Score the randomly initialised network too, once per seed; --no-controls leaves that out."""
    data: DataOptions = DataOptions()
    sweep: SweepOptions = SweepOptions()
    training: TrainingOptions = TrainingOptions()
    features: FeatureOptions = FeatureOptions()
    store: StoreOptions = StoreOptions()
    execution: DeviceOptions = DeviceOptions()
    output: FigureOptions = FigureOptions()


@dataclass(frozen=True)
class CorrelationRow:
    """Spearman's correlation of a score with accuracies in rank_correlation.csv: NaN for fewer than four cells.

    A cell is a block of a network, over all folds; `p` is that of a permutation test, too small if cells of one network
    are not independent.
    """

    score: str
    against: str
    cells: str
    n: int
    spearman: float
    p: float


# -------------------------------------------------------------------------------------- points and accuracies


def _points(
    study: Study, plan: Callable[[int | None], TransferPlan], training: Training, *, controls: bool
) -> dict[Start, list[RunConfig]]:
    """Return the runs of a plan by the network that they start from, whatever is trained of it."""
    points: dict[Start, list[RunConfig]] = {}
    for source in study.sources:
        for point in study.points(plan(LAST), training, source=source.name):
            points.setdefault(Start(point.backbone, source.name), []).append(point)
    for point in study.points(plan(None), training) if controls else ():
        points.setdefault(Start(point.backbone, RANDOM, str(point.seed)), []).append(point)
    return dict(sorted(points.items(), key=lambda item: study.backbones.index(item[0].backbone)))


def _training(options: Options) -> Training:
    """Return the settings of the runs that the scores are compared with."""
    given = options.training
    base = PROBE if options.against == "probe" else TrainingOptions()
    return replace(base, preset=given.preset, **given.given).training(TransferPlan.finetune())


def accuracies(study: Study, options: Options, blocks: Collection[int]) -> dict[tuple[Start, int, str], list[float]]:
    """Return the accuracies of the runs that the store has, by network, block and fold; none is trained."""
    if options.against is None:
        return {}
    if not (store := options.store.runs).is_dir():
        raise ParameterError(
            f"runs={str(store)!r} is not a folder: against={options.against!r} needs the store of its runs"
        )
    places: dict[RunConfig, tuple[Start, int, str]] = {}
    for block in [block for block in CUTS[options.against] if block in blocks]:
        plan = partial(PLANS[options.against], block)
        points = _points(study, plan, _training(options), controls=options.controls)
        places |= {point: (start, block, point.fold) for start, group in points.items() for point in group}
    runs = schedule.read(store, [*places])
    by_place = group_by(runs, lambda point: places[point])
    return {place: [runs[point].accuracy_last for point in group] for place, group in by_place.items()}


def with_accuracies(
    rows: Sequence[Row], known: Mapping[tuple[Start, int, str], Sequence[float]], against: str
) -> list[Row]:
    """Return rows with the accuracies of `accuracies`: their mean by fold, and over folds if each has one."""
    folds, table = dict.fromkeys(row.fold for row in rows if row.fold), []
    for row in rows:
        values = [known.get((row.start, row.block, fold), ()) for fold in ([row.fold] if row.fold else folds)]
        accuracy = float(np.mean([np.mean(each) for each in values])) if all(values) else np.nan
        table.append(replace(row, against=against, accuracy=accuracy, n_runs=sum(map(len, values))))
    return table


def correlations(rows: Sequence[Row]) -> dict[tuple[str, str], Correlation]:
    """Return the correlation of each score with the accuracy, by score and cells: the rows over all folds.

    Cells are those of sources alone, of sources and random networks, and, where there are four or more, of one block.
    """
    known = [row for row in rows if not row.fold and np.isfinite(row.accuracy)]
    sources = [row for row in known if row.source != RANDOM]
    cells = {"all blocks": sources}
    if len(sources) < len(known):
        cells["all blocks, with random"] = known
    blocks = group_by(sources, lambda row: row.block)
    cells |= {f"Block {block}": group for block, group in sorted(blocks.items()) if FEWEST <= len(group) < len(sources)}
    return {
        (score, name): rank_correlation([getattr(row, score) for row in group], [row.accuracy for row in group])
        for name, group in cells.items()
        for score in SCORES
    }


# ----------------------------------------------------------------------------------------------- result


@dataclass(frozen=True)
class Result(question.Result):
    """The scores of each block of each network, and their correlation with accuracies, if they were asked for."""

    stem = "rank"
    rows: tuple[Row, ...]
    correlations: Mapping[tuple[str, str], Correlation]
    against: str = ""

    @property
    def cells(self) -> list[Row]:
        """The rows over all folds."""
        return [row for row in self.rows if not row.fold]

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the scores and, if accuracies were asked for, the correlations."""
        rows = [
            CorrelationRow(score, self.against, cells, each.n, each.rho, each.p_value)
            for (score, cells), each in self.correlations.items()
        ]
        return {"rank": self.rows} | ({"rank_correlation": rows} if rows else {})


def draw(result: Result) -> Figure:
    """Draw both scores by block, one column per network, and below them against the accuracy where it is known."""
    networks = list(dict.fromkeys(row.backbone for row in result.rows))
    known = [row for row in result.cells if np.isfinite(row.accuracy)]
    heights = [4.4, 3.2] if known else [4.4]
    width = max(7.0, 3.2 * len(networks))
    fig, (above, *below) = style.new_parts(heights, width=width, height=1.0 + sum(heights))
    palette = style.colours(row.source for row in result.rows if row.source != RANDOM) | {RANDOM: GREY}
    axes = style.subplots(above, len(SCORES), len(networks), sharex=True, sharey="row")
    for network, column in zip(networks, axes.T, strict=True):
        for score, ax in zip(SCORES, column, strict=True):
            _draw_blocks([row for row in result.rows if row.backbone == network], score, palette, ax)
        column[0].set_title(network, fontsize="small", loc="left")
        level_lines(levels(result.rows), named=network == networks[0], ax=column[[*SCORES].index("knn")])
        column[-1].set_xlabel("block whose output is scored")
    for ax in axes.flat:
        ax.label_outer()
    for part in below:
        _draw_against(result, known, dict(zip(networks, itertools.cycle(MARKERS), strict=False)), palette, part)
    row, n_folds = result.rows[0], len({row.fold for row in result.rows if row.fold})
    marks: dict[str, Any] = {f"mean; bars: 95 % interval over held-out clips, k = {row.k}": style.mark("D", line="-")}
    marks |= {counted(n_folds, "fold"): style.dot()} if n_folds > 1 else {}
    if known:
        shapes = dict(zip(networks, itertools.cycle(MARKERS), strict=False)) if len(networks) > 1 else {"accuracy": "o"}
        marks |= {f"{name}, by block": style.mark(marker) for name, marker in shapes.items()}
        marks["random: not in the correlation"] = style.mark("o", hollow=True)
    if np.isinf([each.logme for each in result.rows]).any():
        marks[INFINITE] = style.mark("")
    style.legend_below(fig, axes[0, 0], marks=marks)
    style.title(fig, f"{row.dataset}: scores without training")
    return fig


def _draw_blocks(rows: Sequence[Row], score: str, palette: Mapping[str, tuple], ax: Axes) -> None:
    scale = 100 if score == "knn" else 1
    for start, group in group_by(rows, lambda row: row.start).items():
        means, folds = ([row for row in group if bool(row.fold) == by_fold] for by_fold in (False, True))
        colour, values = palette[start.source], np.array([scale * getattr(row, score) for row in means])
        blocks = [row.block for row in means]
        ax.plot(blocks, values, "-D", color=colour, ms=5, lw=1.2, label=start.source)
        ax.plot([r.block for r in folds], [scale * getattr(r, score) for r in folds], "o", c=colour, ms=3, alpha=0.4)
        if score == "knn":
            ax.vlines(blocks, *(100 * np.array([(row.knn_low, row.knn_high) for row in means]).T), color=colour, lw=1)
    ax.set_xticks(sorted({row.block for row in rows}))
    ax.set_ylabel(SCORES[score].replace(" of ", " of\n"))


def _draw_against(
    result: Result, known: Sequence[Row], markers: Mapping[str, str], palette: Mapping[str, tuple], part: SubFigure
) -> None:
    """Draw the accuracy of the cells against each score: a mark per network, hollow ones for random weights."""
    for score, ax in zip(SCORES, style.subplots(part, 1, len(SCORES), sharey=True).flat, strict=True):
        scale = 100 if score == "knn" else 1
        for row in known:
            x, y, colour = scale * getattr(row, score), 100 * row.accuracy, palette[row.source]
            face = "white" if row.source == RANDOM else colour
            ax.plot(x, y, markers[row.backbone], color=colour, mfc=face)
            ax.annotate(f"{row.block}", (x, y), xytext=(4, 3), textcoords="offset points", fontsize="x-small")
        ax.set_title(f"{result.correlations[score, 'all blocks']}", fontsize="small", loc="left")
        ax.set(xlabel=SCORES[score], ylabel=f"held-out accuracy, {result.against} [%]", ylim=(0, 103))
        level_lines(levels(result.rows), named=score == next(iter(SCORES)), ax=ax)
        ax.label_outer()


def summary(result: Result) -> str:
    """Return the scores over all folds as a table, and the correlations with the accuracies that are known."""
    head = ["backbone", "source", "seed", "block", "LogME", f"{counted(result.rows[0].k, 'neighbour')} [%]"]
    lines = []
    for row in result.cells:
        own = [row.backbone, row.source, row.seed, row.block, f"{row.logme:.3f}", f"{100 * row.knn:.1f}"]
        accuracy = f"{100 * row.accuracy:.1f}" if np.isfinite(row.accuracy) else f"({counted(row.n_runs, 'run')})"
        lines.append([*own, accuracy] if result.against else own)
    texts = [table([[*head, f"{result.against} [%]"] if result.against else head, *lines])]
    if np.isinf([row.logme for row in result.rows]).any():
        texts.append(f"{INFINITE}: are clips silent, or there twice?")
    if result.against and not any(row.n_runs for row in result.rows):
        texts.append(f"the store has no finished {result.against} run of these settings: give those of its runs")
    for (score, cells), correlation in result.correlations.items():
        texts.append(f"{SCORES[score].split(' [')[0]} and {result.against}, {cells}: {correlation}")
    blocks = {row.block for row in result.cells if np.isfinite(row.accuracy)}
    if len(blocks) > 1 and not any(cells.startswith("Block") for _, cells in result.correlations):
        texts.append(f"over the networks at one block: none, as at least {FEWEST} are needed")
    return "\n".join(texts)


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Score the networks that the options name; nothing is trained."""
    keep_freed_memory()
    study, blocks = Study.of(options), sorted(set(options.block) or BLOCKS)  # type: ignore[arg-type]
    question.check_labels("rank", {study.dataset.name: study.dataset.labels_per_clip})
    if options.against and not set(blocks) & {*CUTS[options.against]}:
        ends = ", ".join(map(str, CUTS[options.against]))
        raise ParameterError(f"against={options.against!r} needs one of block={ends}: no run ends with the others")
    plan = partial(PLANS["truncate"], max(1, *blocks))
    points = _points(study, plan, _training(options), controls=options.controls)
    first = next(iter(points.values()))
    splits = {point.fold: study.dataset.split(*point.split) for point in first}
    check_k(study, splits, options.k)
    known = accuracies(study, options, blocks)  # raises before anything is computed
    rows = scored(study, {start: group[0] for start, group in points.items()}, blocks, splits, options.k)
    if options.against is None:
        return Result(tuple(rows), {})
    rows = with_accuracies(rows, known, options.against)
    return Result(tuple(rows), correlations(rows), options.against)


rank = question.Question("rank", Options, analyse)
main = cli.command("rank", Options, rank)

if __name__ == "__main__":
    sys.exit(main())
