"""SVCCA, its null and the excess over it at the end of each block, against the number of clips.

    python benchmarks/similarity_size.py --ckpt RUN.h5 --cache CACHE

The clips are the run's own, held-out and training clips together, in random order. Draws
docs/explanation/similarity_size.png and writes the numbers beside it.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from similarity_coverage import activations

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.measures.streaming import Moments
from transferlens.plots import style
from transferlens.store.heldout import heldout_features
from transferlens.store.run import load_run

HERE = Path(__file__).parents[1] / "docs" / "explanation"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw similarity against the number of clips."""

    ckpt: Path
    """A finished run."""
    cache: Path
    """Folder with the features of its clips."""
    sizes: tuple[int, ...] = (80, 160, 240, 320, 400)
    """Numbers of clips."""
    blocks: tuple[int, ...] = (2, 3, 4)
    """Blocks."""


def work(options: Options) -> int:
    """Measure and draw."""
    run = load_run(options.ckpt)
    parts = [heldout_features(run, DataOptions(), options.cache, training=each) for each in (False, True)]
    x = run.inputs(np.concatenate(parts))
    order, rows = np.random.default_rng(0).permutation(len(x)), []
    for block, (X, Y) in activations(run, x, options.blocks).items():
        for size in options.sizes:
            moments, each = Moments(groups=10), X.shape[1]
            for batch in range(-(-size // 4)):
                clips = np.arange(batch, size, -(-size // 4))
                a, b = (side[order[clips]].reshape(-1, side.shape[2]) for side in (X, Y))
                groups = np.repeat(clips * 10 // size, each)
                moments.update(a, b, group=groups, shuffled=np.roll(b, each, axis=0))
            svcca, null = moments.svcca().similarity, moments.null()["svcca"].similarity
            low, high = moments.bootstrap()["svcca"]
            rows.append((block, size, X.shape[2], size * each, svcca, low, high, null, svcca - null))
            print(*rows[-1], flush=True)
    head = ("block", "n_clips", "n_neurons", "n_samples", "svcca", "low", "high", "svcca_null", "excess")
    with (HERE / "similarity_size.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    draw(options, np.array(rows)).savefig(HERE / "similarity_size.png", dpi=150)
    return cli.DONE


def draw(options: Options, table: np.ndarray) -> style.Figure:
    """Draw one panel per block."""
    fig, axes = style.new_figure(1, len(options.blocks), width=9, height=3.4, sharey=True)
    for ax, block in zip(axes[0], options.blocks, strict=True):
        _, size, _, _, svcca, low, high, null, excess = table[table[:, 0] == block].T
        for values, style_, label in ((svcca, "o-", "SVCCA"), (null, "s--", "null"), (excess, "^-", "excess")):
            (line,) = ax.plot(size, values, style_, label=label, ms=4)
            if label != "null":
                ax.fill_between(size, values - svcca + low, values - svcca + high, color=line.get_color(), alpha=0.2)
        ax.set_title(f"Block {block}", fontsize="small", loc="left")
        ax.set_xlabel("clips")
        ax.set_ylim(0, 1)
    axes[0, 0].set_ylabel("similarity")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return fig


main = cli.Command("benchmarks/similarity_size.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
