"""How much has training changed each layer? SVCCA between the network before and after training, layer by layer.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2), by representation. Each run is compared with its own
initial weights, over its held-out clips, at every convolution and at the end of every block. Two levels help to judge
the similarity: the noise floor, that of trained networks which differ only by the seed; and the null, that of the same
activations when each clip is paired with another one. Few samples raise both the similarity and the null: their
difference, the excess, tells what the networks share about a clip. Where the samples are fewer than five times the
neurons nothing should be concluded; these layers are flagged and have no interval.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.compare.layers import NAN, MatrixRow, Row, WeightRow, row_of
from transferlens.compare.network_pairs import comparisons
from transferlens.data.catalogue import DataOptions
from transferlens.measures import similarity as measures
from transferlens.measures.layerwise import (
    ENOUGH,
    block_matrix,
    check_positions,
    compare,
    weight_change,
)
from transferlens.measures.streaming import FEWEST_GROUPS, VARIANCE
from transferlens.models.device import pick_device
from transferlens.options import FigureOptions
from transferlens.plots import style
from transferlens.plots.accuracy import similarity_map
from transferlens.store.heldout import heldout_features
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, Rule, at_least
from transferlens.util.grouping import group_by
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.models.network import Network

# Smallest number of resamples for percentiles.
FEWEST = 100
# Smallest number of clips for debiased CKA.
FEWEST_CLIPS = 4


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Compare each layer of trained networks before and after training: SVCCA, PWCCA, CKA, Procrustes by depth.

    Runs that differ only by the seed are also compared with each other (the noise floor), and so are two other runs.
    """

    ckpt: tuple[Path, ...]
    """Run files, one or more, of the same backbone, cut after the same block, with the same held-out clips."""
    positions: str = "64"
    """Samples of a convolution: all positions of each clip (all), their mean (mean), or this many, spread out."""
    on: Annotated[tuple[Literal["held-out", "training"], ...], Rule("one or both", bool)] = ("held-out",)
    """Clips that the networks see: those held out, those they were trained on, or both, apart. Training clips are more,
    and more samples make small differences visible in the last blocks."""
    variance: Annotated[float, VARIANCE] = 0.99
    """Share of the variance of each network's activations that SVCCA keeps."""
    pwcca_variance: Annotated[float | None, VARIANCE] = None
    """Share that PWCCA keeps. Its definition keeps all, 1, which takes longer. Default: as variance."""
    groups: Annotated[int, at_least(FEWEST_GROUPS, ": intervals from fewer are too narrow")] = 10
    """Number of groups of clips for the bootstrap, at least 10."""
    resamples: int = 1000
    """Resamples of the bootstrap. 0, or fewer than 10 held-out clips: no intervals."""
    matrix: bool = False
    """Also draw the similarity (debiased CKA of pooled outputs) of each block with every other block; needs 4 clips."""
    data: DataOptions = DataOptions()
    store: CacheOptions = CacheOptions()
    execution: DeviceOptions = DeviceOptions()
    output: FigureOptions = FigureOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positions(self.positions)
        if self.resamples and self.resamples < FEWEST:
            raise ParameterError(f"resamples={self.resamples} must be 0 (no intervals) or at least {FEWEST}")


# ----------------------------------------------------------------------------------------------- figure


WORDS = {"training": "before and after training", "seeds": "noise floor, two seeds", "runs": "one against the other"}


def draw(result: Result) -> Figure:
    """Draw SVCCA, its excess over the null, and the change of weights against depth.

    Each arm has its colour: lines are runs before and after training, the hatched band is the noise floor (from the
    lowest to the highest bound of all pairs of seeds). Dashed and dotted grey lines are null and chance, the highest of
    all comparisons.
    """
    rows = result.rows
    fig, axes = style.new_figure(3, 1, width=9.5, height=9.6, sharex=True, height_ratios=[2.2, 1.6, 1])
    top, middle, bottom = axes[:, 0]
    lines = group_by(group_by(rows, key=lambda row: row.comparison).values(), key=_line)
    named = {key: f"{key[0]}, {key[2]} clips" for key in lines}
    palette = style.colours(named.values())
    first = next(iter(lines.values()))[0]
    for (arm, kind, clips), group in lines.items():
        colour, label = palette[named[arm, kind, clips]], f"{arm}: {WORDS[kind]}"
        if len({row.clips for row in rows}) > 1:
            label += f", {clips} clips"
        for ax, column in ((top, "svcca"), (middle, "svcca_excess")):
            if kind == "seeds":
                _draw_floor(group, column, colour, label, ax)
                continue
            for layers in group:
                _draw_comparison(layers, column, colour, label, ax)
        if kind == "training":
            for layers in group:
                _draw_weights(layers, colour, bottom)
    _draw_levels(rows, top)
    middle.axhline(0, color="0.4", lw=0.8)
    for ax in (top, middle, bottom):
        _draw_blocks(first, ax, names=ax is top)
    top.set(ylim=(0, 1.02), ylabel="SVCCA")
    middle.set_ylabel("excess over the null")
    bottom.set(ylabel="relative change\nof weights")
    bottom.set_ylim(bottom=0)
    bottom.locator_params(axis="x", integer=True)
    bottom.set_xlabel("depth: layers in the order of computation")
    top.set_title(_caption(rows, first), fontsize="small", loc="left")
    style.legend_below(fig, top, marks=_marks(first))
    style.title(fig, f"{result.title}: how alike layers are")
    return fig


def _draw_levels(rows: Sequence[Row], ax: Axes) -> None:
    """Draw the null and chance, the highest of all comparisons."""
    by_depth = group_by(rows, key=lambda row: row.depth)
    for column, dashes, label in (
        ("svcca_null", "--", "null: clips paired with others, at most"),
        ("svcca_chance", ":", "chance: independent noise, at most"),
    ):
        highest = [np.fmax.reduce([getattr(row, column) for row in layers]) for layers in by_depth.values()]
        ax.plot([*by_depth], highest, dashes, color="0.4", lw=1.2, label=label)


def _caption(rows: Sequence[Row], layers: Sequence[Row]) -> str:
    """Return what is drawn, in words; `layers` are the rows of one comparison."""
    text = f"up to {max(row.n_samples for row in layers)} samples per layer"
    if np.isfinite([row.low for row in rows]).any():
        text += "; bands: 95 % intervals over clips"
    return text


def _marks(layers: Sequence[Row]) -> dict[str, Any]:
    """Return the legend entries of the marks of a comparison."""
    marks = {"a convolution": style.mark("o"), "the end of a block": style.mark("s")}
    if few := sum(row.too_few for row in layers):
        marks[f"hollow: fewer than {ENOUGH} samples per neuron ({counted(few, 'layer')})"] = style.mark(
            "o", hollow=True
        )
    return marks


def _line(layers: Sequence[Row]) -> tuple[str, str, str]:
    """Return what the rows of one comparison are drawn by."""
    return layers[0].arm, layers[0].kind, layers[0].clips


def _bounds(rows: Sequence[Row], column: str) -> np.ndarray:
    """Return the intervals of SVCCA or of its excess, or twice the value if it has none [shape=(n_layers, 2)]."""
    bounds = np.array([(row.low, row.high) for row in rows]) - np.array([row.svcca for row in rows])[:, None]
    return np.array([getattr(row, column) for row in rows])[:, None] + np.nan_to_num(bounds)


def _draw_floor(pairs: Sequence[Sequence[Row]], column: str, colour: tuple, label: str, ax: Axes) -> None:
    depth = [row.depth for row in pairs[0]]
    bounds = np.array([_bounds(rows, column) for rows in pairs])
    ax.fill_between(depth, bounds[..., 0].min(0), bounds[..., 1].max(0), fc="none", ec=colour, hatch="/////", lw=0)
    mean = np.mean([[getattr(row, column) for row in rows] for rows in pairs], axis=0)
    ax.plot(depth, mean, "--", color=colour, lw=1.2, label=label)


def _draw_comparison(rows: Sequence[Row], column: str, colour: tuple, label: str, ax: Axes) -> None:
    depth, value = (np.array([getattr(row, name) for row in rows]) for name in ("depth", column))
    ax.fill_between(depth, *_bounds(rows, column).T, color=colour, alpha=0.25, lw=0)
    ax.plot(depth, value, color=colour, lw=1, label=label)
    for marker, block in (("o", False), ("s", True)):
        for few in (False, True):
            at = [i for i, row in enumerate(rows) if row.too_few == few and row.is_block == block]
            face = "white" if few else colour
            ax.plot(depth[at], value[at], marker, color=colour, mfc=face, ms=5 if block else 3.5, mew=1)


def _draw_weights(rows: Sequence[Row], colour: tuple, ax: Axes) -> None:
    depth, change = (np.array([getattr(row, name) for row in rows]) for name in ("depth", "weight_relative_change"))
    finite = np.isfinite(change)
    ax.plot(depth[finite], change[finite], "o-", color=colour, lw=1, ms=3)


def draw_matrices(matrices: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draw one heat map of blocks x blocks per comparison."""
    n_columns = min(3, len(matrices))
    n_rows = -(-len(matrices) // n_columns)
    fig, axes = style.new_figure(n_rows, n_columns, width=1 + 3.0 * n_columns, height=0.6 + 3.1 * n_rows)
    for ax in axes.flat[len(matrices) :]:
        ax.set_visible(False)
    for ax, (comparison, matrix) in zip(axes.flat, matrices.items(), strict=False):
        first, second = ("before", "after") if ", training, " in comparison else ("first run", "second run")
        similarity_map(matrix, xlabel=f"block, {second}", ylabel=f"block, {first}", ax=ax)
        ax.set_title(comparison, fontsize="small", loc="left")
    style.title(fig, f"{title}: debiased CKA of the blocks' pooled outputs")
    return fig


def _draw_blocks(rows: Sequence[Row], ax: Axes, *, names: bool) -> None:
    """Shade every second block, and name the blocks."""
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
    """One row per layer of every comparison, one per tensor, and debiased CKA between blocks if it was asked for."""

    stem = "svcca"
    rows: tuple[Row, ...]
    weights: tuple[WeightRow, ...]
    matrices: Mapping[str, np.ndarray]
    title: str = ""

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the layers, the tensors and, if they were asked for, the cells of the matrices."""
        cells = [
            MatrixRow(comparison, first, second, similarity)
            for comparison, matrix in self.matrices.items()
            for (first, second), similarity in np.ndenumerate(matrix)
        ]
        return {"svcca": self.rows, "svcca_weights": self.weights} | ({"svcca_matrix": cells} if cells else {})

    def figures(self) -> dict[str, Figure]:
        """Return the similarity by depth and, if they were asked for, the matrices."""
        matrices = {"svcca_matrix": draw_matrices(self.matrices, self.title)} if self.matrices else {}
        return {"svcca": self.plot()} | matrices


def summary(result: Result) -> str:
    """Return SVCCA, and its excess over the null, at the end of each block, one line per comparison."""
    lines = []
    for comparison, layers in group_by(result.rows, lambda row: row.comparison).items():
        values = [
            f"block {row.block} {row.svcca:.2f} ({'few samples' if row.too_few else f'{row.svcca_excess:+.2f}'})"
            for row in layers
            if row.is_block
        ]
        lines.append(f"{comparison}: SVCCA (excess over the null) {', '.join(values)}")
    return "\n".join(lines)


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compare the networks of the runs that the options name, layer by layer."""
    device = pick_device(options.execution.device)
    keep_freed_memory()
    trained = load_runs(options.ckpt, "backbone", "truncate_after", "held-out clips (fold)", "features")
    names = ("positions", "variance", "pwcca_variance", "groups", "resamples")
    how = {name: getattr(options, name) for name in names}
    rows, weights, matrices, numbers = [], [], {}, []
    for on in dict.fromkeys(options.on):
        S = heldout_features(trained[0], options.data, options.store.cache, training=on == "training")
        numbers.append(counted(len(S), f"{on} clip"))
        if options.matrix and len(S) < FEWEST_CLIPS:
            have = f"ckpt={trained[0].path} has {numbers[-1]}"
            raise ParameterError(f"{have}: matrix=True needs at least {FEWEST_CLIPS}, leave it out")
        for pair in comparisons(trained):
            x, (first, second) = pair.first.inputs(S).to(device), pair.states()
            before, after = _network(pair.first, first, device), _network(pair.second, second, device)
            changes = {
                name: weight_change(tensor, second[name])
                for name, tensor in first.items()
                if tensor.is_floating_point() and tensor.shape == second[name].shape
            }
            label = pair.label + (f", {on} clips" if on != "held-out" else "")
            recordings = trained[0].groups if on == "held-out" else ()
            for similarity in compare(before, after, x, **how, recordings=recordings, progress=True):
                tensor = "" if similarity.layer.is_block else f"{similarity.layer.module}.weight"
                rows.append(row_of(pair, label, on, similarity, changes.get(tensor, (NAN, NAN))))
            if on == options.on[0]:
                weights += [WeightRow(label, name, str(before.block_of(name)), *changes[name]) for name in changes]
            if options.matrix:
                matrices[label] = block_matrix(before, after, x)
    config = trained[0].config
    title = f"{config.backbone}, {config.dataset}, fold {config.fold} ({', '.join(numbers)})"
    return Result(tuple(rows), tuple(weights), matrices, title)


def _network(run: Run, state: dict[str, torch.Tensor], device: torch.device) -> Network:
    """Return the network of a run with other weights, in evaluation mode."""
    network = run.model()
    network.load_state_dict(state)
    return network.to(device).eval()


class _Svcca(question.Question[Options, Result]):
    """With run files the question; with two arrays `measures.similarity.svcca`."""

    def __call__(self, *first: Any, **options: Any) -> Any:
        if all(np.asarray(each).dtype.kind in "OU" for each in first):  # paths and runs, not numbers
            return super().__call__(*first, **options)
        if len(first) != 2:
            raise ParameterError("svcca takes two arrays of activations, X and Y, or run files")
        if wrong := [name for name in options if name != "variance"]:
            raise ParameterError(f"{wrong[0]} goes with run files: of two arrays, svcca takes variance alone")
        return measures.svcca(*first, **options)


svcca = _Svcca("svcca", Options, analyse, first="ckpt", several=True)
main = cli.command("svcca", Options, svcca)

if __name__ == "__main__":
    sys.exit(main())
