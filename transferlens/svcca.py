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
from typing import TYPE_CHECKING

import numpy as np

from transferlens import cli, display
from transferlens.datasets import DataOptions
from transferlens.errors import CheckpointError, ParameterError
from transferlens.features import FeatureCache, read_cached
from transferlens.files import check_writable, write_csv
from transferlens.layerwise import LayerSimilarity, block_matrix, compare, weight_change
from transferlens.runs import Run, load_run
from transferlens.similarity import MEASURES, chance
from transferlens.trainer import keep_freed_memory, pick_device

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from transferlens.network import Network

__all__ = ["Comparison", "Options", "Row", "comparisons", "draw", "draw_matrices", "main"]

STEM = "svcca"
# Samples that a neuron needs for its correlations to mean something.
ENOUGH = 5


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
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
    groups: int = 20
    """Groups of clips for the bootstrap."""
    resamples: int = 1000
    """Resamples of the bootstrap; 0 for no intervals."""
    matrix: bool = False
    """Draw the similarity (CKA of pooled outputs) of every block with every other, too."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""
    figures: Path = Path("figures")
    """Folder for svcca.png, .pdf and .csv, svcca_weights.csv, and svcca_matrix.* with --matrix."""
    device: str = "auto"
    """auto (cuda, mps, cpu: the first there is), or torch's name of a device."""


# ------------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
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


def _arm(run: Run) -> str:
    plan = run.config.plan
    words = {"p4-none-4": "pretrained", "pnone-none-4": "from scratch"}
    return words.get(plan.words, plan.words)


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """Each run before and after training, pairs that differ by the seed alone, and two runs that differ otherwise."""
    found = [Comparison("training", _arm(run), run, run) for run in runs]
    for a, b in itertools.combinations(runs, 2):
        if replace(a.config, seed=b.config.seed) == b.config:
            found.append(Comparison("seeds", _arm(a), a, b))
        elif len(runs) == 2:
            found.append(Comparison("runs", f"{_arm(a)} and {_arm(b)}", a, b))
    return found


def _check_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be compared layer by layer on the same clips."""
    first = runs[0]
    for run in runs[1:]:
        for name, what in (
            (lambda r: r.config.backbone, "backbone"),
            (lambda r: r.config.plan.truncate_after, "truncate_after"),
            (lambda r: r.clip_ids, "held-out clips (fold)"),
            (lambda r: r.provenance["features_key"], "features"),
        ):
            mine, theirs = name(run), name(first)
            if mine != theirs:
                values = f" ({mine} and {theirs})" if isinstance(mine, (str, int)) else ""
                raise ParameterError(
                    f"ckpt={run.path} and {first.path} differ in {what}{values}: compare runs that share it"
                )


def inputs(run: Run, options: Options) -> np.ndarray:
    """Features of a run's held-out clips [shape=(n_clips, channels, n_mels, width)], cached or computed again.

    Raises
    ------
    DataError
        Where they are not cached, and the clips that the options name are not those of the run.
    """
    key = run.provenance["features_key"]
    path = options.cache / f"{run.config.dataset}-{key[:8]}.h5"
    if not path.is_file():
        dataset = options.open()
        made = FeatureCache(dataset, run.config.features, options.cache)
        if made.key != key:
            raise CheckpointError(
                f"{run.path} was trained on other clips than {dataset.name}, and its features are not in {path}: name "
                "its clips (--clips, or --dataset and --root), or the cache that has them (--cache)"
            )
        made.fill()
    return read_cached(path, key, run.clip_ids)


# --------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Row:
    """One layer of one comparison in the CSV.

    `low` and `high` bound SVCCA (95% bootstrap over clips). `svcca_chance` is what independent noise of this shape has.
    `too_few` is true where samples are fewer than five times the neurons: SVCCA and PWCCA are high there by chance.
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


def _rows(comparison: Comparison, found: Sequence[LayerSimilarity], weights: Mapping[str, WeightRow]) -> list[Row]:
    return [_row(comparison, each, weights.get(f"{each.layer.module}.weight")) for each in found]


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


def draw(rows: Sequence[Row]) -> Figure:
    """SVCCA and change of weights against depth; a colour for each arm, the noise floor dashed, chance dotted."""
    fig, axes = display.new_figure(2, 1, width=9.5, height=7.6, sharex=True, height_ratios=[2, 1])
    top, bottom = axes[:, 0]
    arms = list(dict.fromkeys(row.arm for row in rows))
    palette = display.colours(arms)
    for label in dict.fromkeys(row.comparison for row in rows):
        mine = [row for row in rows if row.comparison == label]
        _draw_comparison(mine, palette[mine[0].arm], top, bottom)
    _draw_chance(rows, top)
    for ax in (top, bottom):
        _draw_blocks(rows, ax)
    top.set_ylim(0, 1.02)
    top.set_ylabel("SVCCA")
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel("relative change\nof weights")
    bottom.set_xlabel("depth: convolutions (dots) and ends of blocks (squares), in order of computation")
    n = rows[0].n_samples
    few = sum(row.too_few for row in rows if row.comparison == rows[0].comparison)
    hollow = f"; hollow: fewer than {ENOUGH} samples a neuron ({few} layers)" if few else ""
    top.set_title(f"bands: 95% bootstrap over clips{hollow}", fontsize="small", loc="left")
    handles, labels = top.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    fig.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=min(3, len(unique)), frameon=False)
    fig.suptitle(f"{rows[0].first.split('-')[0]}: how alike layers are, by up to {n} samples", x=0.01, ha="left")
    return fig


WORDS = {"training": "before and after training", "seeds": "noise floor: two seeds", "runs": "one against the other"}


def _draw_comparison(rows: Sequence[Row], colour: tuple, top: Axes, bottom: Axes) -> None:
    depth = np.array([row.depth for row in rows])
    value = np.array([row.svcca for row in rows])
    dashed = rows[0].kind == "seeds"
    label = f"{rows[0].arm}: {WORDS[rows[0].kind]}"
    top.plot(depth, value, color=colour, lw=1, ls="--" if dashed else "-", label=label)
    bounds = np.array([(row.low, row.high) for row in rows])
    if np.isfinite(bounds).all():
        top.fill_between(depth, *bounds.T, color=colour, alpha=0.12 if dashed else 0.25, lw=0)
    for marker, block in (("o", False), ("s", True)):
        for few in (False, True):
            at = [i for i, row in enumerate(rows) if row.too_few == few and row.layer.startswith("block ") == block]
            face = "white" if few else colour
            top.plot(depth[at], value[at], marker, color=colour, mfc=face, ms=5 if block else 3.5, mew=1)
    if not dashed:
        change = np.array([row.weight_relative_change for row in rows])
        there = np.isfinite(change)
        bottom.plot(depth[there], change[there], "o-", color=colour, lw=1, ms=3)


def draw_matrices(matrices: Mapping[str, np.ndarray]) -> Figure:
    """A heat map of blocks x blocks for each comparison."""
    fig, axes = display.new_figure(1, len(matrices), width=1 + 3.3 * len(matrices), height=3.6)
    for ax, (label, matrix) in zip(axes[0], matrices.items(), strict=True):
        first, second = ("before", "after") if ", training," in label else ("first run", "second run")
        display.similarity_map(matrix, xlabel=f"block, {second}", ylabel=f"block, {first}", ax=ax)
        ax.set_title(label, fontsize="small", loc="left")
    fig.suptitle("CKA of pooled outputs, block by block", x=0.01, ha="left")
    return fig


def _draw_chance(rows: Sequence[Row], ax: Axes) -> None:
    mine = [row for row in rows if row.comparison == rows[0].comparison]
    level = [row.svcca_chance for row in mine]
    ax.plot([row.depth for row in mine], level, ":", color="0.4", lw=1.2, label="chance: independent noise")


def _draw_blocks(rows: Sequence[Row], ax: Axes) -> None:
    """Shade every other block, and name all."""
    mine = [row for row in rows if row.comparison == rows[0].comparison]
    for block, group in itertools.groupby(mine, key=lambda row: row.block):
        depths = [row.depth for row in group]
        if block % 2:
            ax.axvspan(depths[0] - 0.5, depths[-1] + 0.5, color="0.95", lw=0, zorder=0)
        name = "stem" if block == 0 else f"Block {block}"
        ax.annotate(
            name,
            (np.mean(depths), 0.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize="x-small",
            color="0.35",
        )
    ax.set_xlim(mine[0].depth - 0.5, mine[-1].depth + 0.5)


# ---------------------------------------------------------------------------------------------- command


def _check(options: Options) -> None:
    if not options.ckpt:
        raise ParameterError("ckpt must name at least one run file, as `python -m transferlens.runs` lists them")
    if options.positions not in ("all", "mean") and not (options.positions.isdecimal() and int(options.positions) > 0):
        raise ParameterError(f"positions={options.positions!r} must be all, mean, or a number of at least 1")
    if not 0 < options.variance <= 1:
        raise ParameterError(f"variance={options.variance} must be greater than 0 and at most 1")
    for name, least in (("groups", 1), ("resamples", 0)):
        if getattr(options, name) < least:
            raise ParameterError(f"{name}={getattr(options, name)} must be at least {least}")
    check_writable("figures", options.figures)


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the runs, compare, write, draw."""
    options = cli.parse(Options, argv, prog="svcca")
    _check(options)
    device = pick_device(options.device)
    keep_freed_memory()
    runs = [load_run(path) for path in dict.fromkeys(options.ckpt)]
    _check_alike(runs)
    x = runs[0].inputs(inputs(runs[0], options))
    rows, weights, matrices = [], [], {}
    for comparison in comparisons(runs):
        networks = [comparison.first.model(), comparison.second.model()]
        for network, state in zip(networks, comparison.states(), strict=True):
            network.load_state_dict(state)
            network.to(device).eval()
        changed = _weight_rows(comparison, networks[0])
        found = compare(
            *networks,
            x.to(device),
            positions=options.positions,
            variance=options.variance,
            groups=options.groups,
            resamples=options.resamples,
            progress=True,
        )
        rows += _rows(comparison, found, {row.tensor: row for row in changed})
        weights += changed
        if options.matrix:
            matrices[comparison.label] = block_matrix(*networks, x.to(device))
    write_csv(rows, options.figures / f"{STEM}.csv")
    write_csv(weights, options.figures / f"{STEM}_weights.csv")
    display.save_figure(draw(rows), options.figures / STEM)
    print(f"written: {options.figures / STEM}.png, .pdf, .csv, {options.figures / STEM}_weights.csv")
    if matrices:
        cells = [
            MatrixRow(label, *map(int, at), matrix[at])
            for label, matrix in matrices.items()
            for at in np.ndindex(matrix.shape)
        ]
        write_csv(cells, options.figures / f"{STEM}_matrix.csv")
        display.save_figure(draw_matrices(matrices), options.figures / f"{STEM}_matrix")
        print(f"written: {options.figures / STEM}_matrix.png, .pdf, .csv")
    return cli.DONE


if __name__ == "__main__":
    sys.exit(main())
