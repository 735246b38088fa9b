"""How often the interval of SVCCA covers, on features of a trained network.

    python benchmarks/similarity_coverage.py --ckpt RUN.h5 --dataset urbansound8k --root path/to/urbansound8k

Some clips are drawn again and again from many; the network before training is compared with the network after it at the
end of each block. An interval covers if it holds the mean of all estimates, of as many clips each. Writes
benchmarks/similarity_coverage.md.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from claims import markdown

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.features.cache import FeatureCache
from transferlens.measures.layerwise import layers, samples
from transferlens.measures.streaming import Moments
from transferlens.models.forward import hooked
from transferlens.store.run import Run, load_run


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how often intervals of SVCCA cover."""

    ckpt: Path
    """A finished run."""
    data: DataOptions = field(default_factory=DataOptions)
    population: int = 1600
    """Clips that are drawn from."""
    n_clips: int = 80
    """Clips that are drawn each time."""
    repetitions: int = 200
    """How many times."""
    blocks: tuple[int, ...] = (0, 1, 2, 3)
    """Blocks."""


def population(run: Run, options: Options) -> Any:
    """Return the inputs of the clips to draw from."""
    dataset = options.data.open()
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset.clips))[: options.population])
    some = replace(dataset, sr=run.config.features.sr, clips=tuple(dataset.clips[i] for i in chosen))
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(some, run.config.features, Path(folder))
        cache.fill()
        return run.inputs(np.array(cache.load()))


def activations(run: Run, x: Any, blocks: tuple[int, ...]) -> dict[int, list[np.ndarray]]:
    """Return what each block gives for every clip, before and after training [shape=(n_clips, positions, neurons)]."""
    import torch

    found: dict[int, list[np.ndarray]] = {block: [] for block in blocks}
    for network in (run.model(trained=False), run.model()):
        ends = {layer.module: layer.block for layer in layers(network, x[:1]) if layer.is_block}
        batches: dict[int, list[np.ndarray]] = {block: [] for block in blocks}
        wanted = {name: network.get_submodule(name) for name, block in ends.items() if block in blocks}
        for start in range(0, len(x), 16):
            outputs: list[tuple[str, np.ndarray]] = []
            keep = functools.partial(_keep, outputs, start)
            with hooked(wanted, keep), torch.no_grad():
                network.features(x[start : start + 16])
            for name, rows in outputs:
                batches[ends[name]].append(rows)
        for block in blocks:
            found[block].append(np.concatenate(batches[block]))
    return found


def _keep(outputs: list[tuple[str, np.ndarray]], draw: int, name: str, output: Any) -> None:
    rows = samples(output, "64", draw)
    outputs.append((name, rows.reshape(len(output), -1, rows.shape[1])))


def work(options: Options) -> int:
    """Draw, print and write the table."""
    run = load_run(options.ckpt)
    x = population(run, options)
    rows = [["block", "SVCCA, mean", "deviation", "intervals that cover", "half width, mean"]]
    for block, (X, Y) in activations(run, x, options.blocks).items():
        draw, values, bounds = np.random.default_rng(1), [], []
        for _ in range(options.repetitions):
            chosen, moments = draw.permutation(len(X))[: options.n_clips], Moments(groups=10)
            for group, clips in enumerate(np.array_split(chosen, 10)):
                moments.update(*(side[clips].reshape(-1, side.shape[2]) for side in (X, Y)), group=group)
            values.append(moments.svcca().similarity)
            bounds.append(moments.bootstrap()["svcca"])
        mean, (low, high) = np.mean(values), np.array(bounds).T
        covered = np.mean((low <= mean) & (mean <= high))
        rows.append(
            [str(block), f"{mean:.3f}", f"{np.std(values):.4f}", f"{covered:.1%}", f"{np.mean(high - low) / 2:.4f}"]
        )
        print(" | ".join(rows[-1]), flush=True)
    (Path(__file__).parent / "similarity_coverage.md").write_text(markdown(rows) + "\n")
    return cli.DONE


main = cli.Command("benchmarks/similarity_coverage.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
