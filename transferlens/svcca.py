"""How far each layer has moved: SVCCA between a network before and after training, layer by layer.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2), by representation. Each run is compared with its
**own** initial weights, over the clips it held out, at every convolution and at the end of every block. What "changed
little" means is told by two levels: the noise floor, how alike trained networks are that differ by the seed alone, and
chance, how alike independent noise of the same shape is. Where samples are fewer than five times the neurons,
correlations are high whatever the networks do: such layers are flagged.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.data.catalogue import DataOptions
from transferlens.measures import similarity as measures
from transferlens.measures.cca import MEASURES
from transferlens.measures.layerwise import LayerSimilarity, block_matrix, check_positions, compare, weight_change
from transferlens.measures.similarity import chance
from transferlens.measures.streaming import FEWEST_GROUPS, check_variance
from transferlens.models.device import pick_device
from transferlens.options import OutputOptions
from transferlens.plots import style
from transferlens.plots.accuracy import similarity_map
from transferlens.store.heldout import heldout_features
from transferlens.store.run import Run, arm_names, check_alike, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule
from transferlens.util.grouping import group_by
from transferlens.util.processes import keep_freed_memory

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.models.network import Network

# Samples that a neuron needs for its correlations to mean something.
ENOUGH = 5
# Resamples that percentiles need.
FEWEST = 100


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """How far each layer of trained networks has moved from where it started: SVCCA, PWCCA and CKA by depth.

    With several runs, networks that differ by the seed alone are compared with each other too (the noise floor), and
    two runs that differ otherwise with each other.
    """

    ckpt: tuple[Path, ...]
    """Run files, one or more, of one backbone, cut alike, with the same held-out clips."""
    positions: str = "64"
    """Samples of a convolution: all positions of every clip, the mean over them, or this many of each clip."""
    variance: float = 0.99
    """Share of the variance of each side that is kept."""
    groups: Annotated[
        int, Rule(f"at least {FEWEST_GROUPS}: intervals from fewer are too narrow", FEWEST_GROUPS.__le__)
    ] = 20
    """Groups of clips for the bootstrap, at least 10."""
    resamples: int = 1000
    """Resamples of the bootstrap; 0 for no intervals. Fewer than 10 held-out clips have none."""
    matrix: bool = False
    """Draw the similarity (CKA of pooled outputs) of every block with every other, too."""
    data: DataOptions = DataOptions()
    store: CacheOptions = CacheOptions()
    execution: DeviceOptions = DeviceOptions()
    output: OutputOptions = OutputOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positions(self.positions)
        check_variance(self.variance)
        if self.resamples and self.resamples < FEWEST:
            raise ParameterError(f"resamples={self.resamples} must be 0, for no intervals, or at least {FEWEST}")


# ------------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two networks of runs.

    Attributes
    ----------
    kind : "training" (a run before and after), "seeds" (two that differ by the seed alone) or "runs"
    arm : str
        What the runs have in common, in words.
    first, second : Run
        The same one for "training".
    """

    kind: str
    arm: str
    first: Run
    second: Run

    @property
    def label(self) -> str:
        """In words, for tables."""
        seeds = dict.fromkeys(str(run.config.seed) for run in (self.first, self.second))
        return f"{self.arm}, {self.kind}, seed {' and '.join(seeds)}"

    def states(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """State dicts of both sides."""
        first = self.first.initial_state() if self.kind == "training" else self.first.final_state()
        return first, self.second.final_state()


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Each run before and after training, pairs that differ by the seed alone, and two runs that differ otherwise."""
    named = list(zip(arm_names(runs), runs, strict=True))
    found = [Comparison("training", arm, run, run) for arm, run in named]
    for (arm, a), (other, b) in itertools.combinations(named, 2):
        if replace(a.config, seed=b.config.seed) == b.config:
            found.append(Comparison("seeds", arm, a, b))
        elif len(runs) == 2:
            check_alike(runs, "normalisation")
            found.append(Comparison("runs", f"{arm} and {other}", a, b))
    return found


# --------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Row:
    """One layer of one comparison in the CSV.

    `low` and `high` bound SVCCA (95 %, bootstrap of clips' jackknife changes). `svcca_chance` is what independent noise
    of this shape has. `too_few` is true where samples are fewer than five times the neurons: SVCCA and PWCCA are high
    there by chance.
    """

    comparison: str
    kind: str
    arm: str
    first: str
    second: str
    layer: str
    block: int
    depth: int
    n_neurons: int
    n_samples: int
    dims_before: int
    dims_after: int
    svcca: float
    low: float
    high: float
    svcca_chance: float
    pwcca: float
    pwcca_low: float
    pwcca_high: float
    cka: float
    cka_low: float
    cka_high: float
    too_few: bool
    weight_relative_change: float
    weight_cosine: float

    @property
    def is_block(self) -> bool:
        """Whether it is the end of a block, and no convolution."""
        return self.layer == f"block {self.block}"


@dataclass(frozen=True)
class WeightRow:
    """One tensor of one comparison in svcca_weights.csv: parameters and BatchNorm statistics alike."""

    comparison: str
    tensor: str
    block: str
    relative_change: float
    cosine: float


@dataclass(frozen=True)
class MatrixRow:
    """One cell of svcca_matrix.csv: linear CKA of pooled outputs of two blocks."""

    comparison: str
    block_first: int
    block_second: int
    cka: float


def _row(comparison: Comparison, found: LayerSimilarity, weight: WeightRow | None) -> Row:
    layer, nan = found.layer, float("nan")
    svcca, bounds = found.measures["svcca"], dict.fromkeys(MEASURES, (nan, nan)) | dict(found.intervals)
    weight = None if layer.is_block else weight
    return Row(
        comparison=comparison.label,
        kind=comparison.kind,
        arm=comparison.arm,
        first=comparison.first.config.id,
        second=comparison.second.config.id,
        layer=layer.name,
        block=layer.block,
        depth=layer.depth,
        n_neurons=found.n_neurons,
        n_samples=svcca.n_samples,
        dims_before=svcca.dims[0],
        dims_after=svcca.dims[1],
        svcca=svcca.similarity,
        low=bounds["svcca"][0],
        high=bounds["svcca"][1],
        svcca_chance=chance(svcca.dims, svcca.n_samples) if min(svcca.dims) else nan,
        pwcca=found.measures["pwcca"].similarity,
        pwcca_low=bounds["pwcca"][0],
        pwcca_high=bounds["pwcca"][1],
        cka=found.measures["cka"].similarity,
        cka_low=bounds["cka"][0],
        cka_high=bounds["cka"][1],
        too_few=svcca.n_samples < ENOUGH * found.n_neurons,
        weight_relative_change=weight.relative_change if weight else nan,
        weight_cosine=weight.cosine if weight else nan,
    )


def _weight_rows(comparison: Comparison, network: Network) -> list[WeightRow]:
    first, second = comparison.states()
    return [
        WeightRow(comparison.label, name, str(network.block_of(name)), *weight_change(tensor, second[name]))
        for name, tensor in first.items()
        if tensor.is_floating_point() and tensor.shape == second[name].shape
    ]


# ----------------------------------------------------------------------------------------------- figure


WORDS = {"training": "before and after training", "seeds": "noise floor, two seeds", "runs": "one against the other"}


def draw(result: Result) -> Figure:
    """SVCCA and change of weights against depth.

    A colour for each arm: its runs before and after training as lines, its noise floor as a hatched band (from the
    lowest to the highest bound over all pairs of seeds); chance, the highest of all comparisons, dotted.
    """
    rows = result.rows
    fig, axes = style.new_figure(2, 1, width=9.5, height=7.6, sharex=True, height_ratios=[2.2, 1])
    top, bottom = axes[:, 0]
    palette = style.colours(list(dict.fromkeys(row.arm for row in rows)))
    by_line: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        by_line.setdefault((row.arm, row.kind), {}).setdefault(row.comparison, []).append(row)
    for (arm, kind), group in by_line.items():
        label = f"{arm}: {WORDS[kind]}"
        if kind == "seeds":
            _draw_floor(list(group.values()), palette[arm], label, top)
            continue
        for mine in group.values():
            _draw_comparison(mine, palette[arm], label, top)
            if kind == "training":
                _draw_weights(mine, palette[arm], bottom)
    first = [row for row in rows if row.comparison == rows[0].comparison]
    depth = [row.depth for row in first]
    chances = [np.fmax.reduce([row.svcca_chance for row in rows if row.depth == at]) for at in depth]
    top.plot(depth, chances, ":", color="0.4", lw=1.2, label="chance: independent noise, at least")
    for ax in (top, bottom):
        _draw_blocks(first, ax, names=ax is top)
    top.set_ylim(0, 1.02)
    top.set_ylabel("SVCCA")
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel("relative change\nof weights")
    bottom.set_xlabel("depth: convolutions (dots) and ends of blocks (squares), in order of computation")
    few = sum(row.too_few for row in first)
    top.set_title(
        f"up to {max(row.n_samples for row in first)} samples a layer; bands: 95 % bootstrap over clips"
        + (f"; hollow: fewer than {ENOUGH} samples a neuron ({few} layers)" if few else ""),
        fontsize="small",
        loc="left",
    )
    handles, labels = top.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    fig.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=min(3, len(unique)), frameon=False)
    fig.suptitle(f"{result.title}: how alike layers are", x=0.01, ha="left")
    return fig


def _bounds(rows: Sequence[Row]) -> np.ndarray:
    """Intervals, or the values alone where there are none [shape=(n_layers, 2)]."""
    bounds = np.array([(row.low, row.high) for row in rows])
    return np.where(np.isfinite(bounds), bounds, np.array([row.svcca for row in rows])[:, None])


def _draw_floor(pairs: Sequence[Sequence[Row]], colour: tuple, label: str, ax: Axes) -> None:
    depth = [row.depth for row in pairs[0]]
    bounds = np.array([_bounds(rows) for rows in pairs])
    ax.fill_between(depth, bounds[..., 0].min(0), bounds[..., 1].max(0), fc="none", ec=colour, hatch="/////", lw=0)
    mean = np.mean([[row.svcca for row in rows] for rows in pairs], axis=0)
    ax.plot(depth, mean, "--", color=colour, lw=1.2, label=label)


def _draw_comparison(rows: Sequence[Row], colour: tuple, label: str, ax: Axes) -> None:
    depth, value = (np.array([getattr(row, name) for row in rows]) for name in ("depth", "svcca"))
    ax.fill_between(depth, *_bounds(rows).T, color=colour, alpha=0.25, lw=0)
    ax.plot(depth, value, color=colour, lw=1, label=label)
    for marker, block in (("o", False), ("s", True)):
        for few in (False, True):
            at = [i for i, row in enumerate(rows) if row.too_few == few and row.is_block == block]
            face = "white" if few else colour
            ax.plot(depth[at], value[at], marker, color=colour, mfc=face, ms=5 if block else 3.5, mew=1)


def _draw_weights(rows: Sequence[Row], colour: tuple, ax: Axes) -> None:
    depth, change = (np.array([getattr(row, name) for row in rows]) for name in ("depth", "weight_relative_change"))
    there = np.isfinite(change)
    ax.plot(depth[there], change[there], "o-", color=colour, lw=1, ms=3)


def draw_matrices(matrices: Mapping[Comparison, np.ndarray], title: str = "") -> Figure:
    """A heat map of blocks x blocks for each comparison."""
    n_columns = min(3, len(matrices))
    n_rows = -(-len(matrices) // n_columns)
    fig, axes = style.new_figure(n_rows, n_columns, width=1 + 3.0 * n_columns, height=0.6 + 3.1 * n_rows)
    for ax in axes.flat[len(matrices) :]:
        ax.set_visible(False)
    for ax, (comparison, matrix) in zip(axes.flat, matrices.items(), strict=False):
        first, second = ("before", "after") if comparison.kind == "training" else ("first run", "second run")
        similarity_map(matrix, xlabel=f"block, {second}", ylabel=f"block, {first}", ax=ax)
        ax.set_title(comparison.label, fontsize="small", loc="left")
    fig.suptitle(f"{title}: CKA of the blocks' pooled outputs", x=0.01, ha="left")
    return fig


def _draw_blocks(rows: Sequence[Row], ax: Axes, *, names: bool) -> None:
    """Shade every other block, and name all."""
    for block, group in itertools.groupby(rows, key=lambda row: row.block):
        depths = [row.depth for row in group]
        if block % 2:
            ax.axvspan(depths[0] - 0.5, depths[-1] + 0.5, color="0.95", lw=0, zorder=0)
        if names and len(depths) > 0.02 * len(rows):
            name = "stem" if block == 0 else f"Block {block}"
            place = (float(np.mean(depths)), 0.02)
            ax.annotate(name, place, xycoords=("data", "axes fraction"), ha="center", fontsize="x-small", color="0.35")
    ax.set_xlim(rows[0].depth - 0.5, rows[-1].depth + 0.5)


# ---------------------------------------------------------------------------------------------- question


@dataclass(frozen=True)
class Result(question.Result):
    """One row per layer of every comparison, one per tensor, and the matrices between blocks."""

    stem = "svcca"
    rows: tuple[Row, ...]
    weights: tuple[WeightRow, ...]
    matrices: Mapping[Comparison, np.ndarray]
    title: str = ""

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return layers, tensors and, where they were asked for, the cells of the matrices."""
        cells = [
            MatrixRow(comparison.label, first, second, similarity)
            for comparison, matrix in self.matrices.items()
            for (first, second), similarity in np.ndenumerate(matrix)
        ]
        return {"svcca": self.rows, "svcca_weights": self.weights} | ({"svcca_matrix": cells} if cells else {})

    def figures(self) -> dict[str, Figure]:
        """Return similarity by depth and, where they were asked for, the matrices."""
        matrices = {"svcca_matrix": draw_matrices(self.matrices, self.title)} if self.matrices else {}
        return {"svcca": self.plot()} | matrices


def summary(result: Result) -> str:
    """Return SVCCA at the end of each block, one line per comparison."""
    lines = []
    for comparison, layers in group_by(result.rows, lambda row: row.comparison).items():
        values = [
            f"block {row.block} {row.svcca:.2f}{' (few samples)' if row.too_few else ''}"
            for row in layers
            if row.is_block
        ]
        lines.append(f"{comparison}: SVCCA {', '.join(values)}")
    return "\n".join(lines)


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare the networks of the runs that the options name, layer by layer."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    trained = load_runs(options.ckpt, "backbone", "truncate_after", "held-out clips (fold)", "features")
    S = heldout_features(trained[0], options.data, options.store.cache)
    rows, weights, matrices = [], [], {}
    for comparison in comparisons(trained):
        before, after = _networks(comparison, device)
        x = comparison.first.inputs(S).to(device)
        weight_rows = _weight_rows(comparison, before)
        layers = compare(
            before,
            after,
            x,
            positions=options.positions,
            variance=options.variance,
            groups=options.groups,
            resamples=options.resamples,
            progress=True,
        )
        by_tensor = {row.tensor: row for row in weight_rows}
        rows += [_row(comparison, layer, by_tensor.get(f"{layer.layer.module}.weight")) for layer in layers]
        weights += weight_rows
        if options.matrix:
            matrices[comparison] = block_matrix(before, after, x)
    config = trained[0].config
    title = f"{config.backbone}, {config.dataset}, fold {config.fold} ({len(S)} clips)"
    return Result(tuple(rows), tuple(weights), matrices, title)


def _networks(comparison: Comparison, device: torch.device) -> tuple[Network, Network]:
    """Both sides of a comparison, in evaluation mode on the device."""
    networks = comparison.first.model(), comparison.second.model()
    for network, state in zip(networks, comparison.states(), strict=True):
        network.load_state_dict(state)
        network.to(device).eval()
    return networks


class _Svcca(question.Question[Options, Result]):
    """Of run files the question, of two arrays the similarity itself."""

    def __call__(self, *first: Any, **options: Any) -> Any:
        return measures.svcca(*first, **options) if len(first) == 2 else super().__call__(*first, **options)


svcca = _Svcca("svcca", Options, analyse, first="ckpt")
main = cli.command("svcca", Options, svcca)

if __name__ == "__main__":
    sys.exit(main())
