"""Embeddings of sound files: the pooled output of any block of a finished run.

    python -m transferlens.embed sounds/new --ckpt runs/mine/RUN.h5 --block 3 --out embeddings.npz

Whole files or, of long recordings, windows: a row each. An embedding is the mean over the map that the block returns,
as the head gets it from the last block. `transferlens.store.hear` gives the same to the HEAR benchmark.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from transferlens import cli
from transferlens.compare import question
from transferlens.data import decoding
from transferlens.models.plan import BLOCKS
from transferlens.store import recordings
from transferlens.store.recordings import Embeddings
from transferlens.store.run import Run, load_run
from transferlens.training.schedule import DeviceOptions
from transferlens.util.fields import Fields, above, between
from transferlens.util.files import complete_or_absent
from transferlens.util.lazy import h5py
from transferlens.util.text import counted


@dataclass(frozen=True, kw_only=True)
class TableOptions(Fields):
    """What is written."""

    out: Path | None = None
    """File for the embeddings: .csv, .npz (numpy) or .h5. Default: they are printed as csv."""


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Compute the output of a block for sound files, whole or in windows."""

    ENDINGS: ClassVar[tuple[str, ...]] = (".csv", ".npz", ".h5")
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Sound files, and folders of sound files."""
    ckpt: Path
    """The run file."""
    block: Annotated[int | None, between(0, BLOCKS[-1])] = None
    """The block, 0 (the stem) to 4. Default: the last one of the network."""
    window: Annotated[float | None, above(0)] = None
    """Length of the windows that long recordings are cut into [s], best that of the clips of training. Default: each
    file is one clip."""
    hop: Annotated[float | None, above(0)] = None
    """Time from the start of a window to that of the next [s]. Default: --window."""
    longest: Annotated[float, above(0)] = decoding.LONGEST
    """Longest file that is decoded [s]: a longer file is left out, as a small one can decode to many hours."""
    execution: DeviceOptions = DeviceOptions()
    output: TableOptions = TableOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """One row per file or window, and the embeddings as arrays."""

    stem = "embeddings"
    embeddings: Embeddings

    @property
    def rows(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """File, start and end [s], and the numbers of the embedding."""
        return self.embeddings.rows()

    @property
    def problems(self) -> tuple[str, ...]:  # type: ignore[override]
        """Why files could not be read."""
        return self.embeddings.problems

    def summary(self) -> str:
        """Return how many embeddings there are, of which block and size."""
        n, size = self.embeddings.vectors.shape
        files = counted(len({*self.embeddings.paths}), "file")
        return f"{files}: {counted(n, 'embedding')} of Block {self.embeddings.block}, {size} numbers each"

    def save(self, path: Path | None) -> None:
        """Write the embeddings to a file by its ending (.csv, .npz or .h5), or as csv to stdout."""
        ending = "" if path is None else path.suffix.lower()
        if path is None or ending == ".csv":
            super().save(path)
            return
        arrays = self.embeddings.arrays()
        with complete_or_absent(path) as beside:
            if ending == ".npz":
                with beside.open("wb") as file:  # numpy adds an ending to a name
                    np.savez(file, **arrays)  # type: ignore[arg-type]
                return
            with h5py.File(beside, "w") as file:
                for name, array in arrays.items():
                    file[name] = array.astype(object) if array.dtype.kind == "U" else array


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Open the run, and compute the embeddings."""
    how = {name: getattr(options, name) for name in ("block", "window", "hop", "longest")}
    return Result(recordings.embed(load_run(options.ckpt), options.files, device=options.execution.device, **how))


embed = question.Question("embed", Options, analyse, first="ckpt", several=True)
main = cli.command("embed", Options, embed)

if __name__ == "__main__":
    sys.exit(main())
