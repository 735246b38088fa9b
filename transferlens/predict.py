"""Classify sound files by a finished run, or by several as an ensemble.

    python -m transferlens.predict sounds/new --ckpt runs/mine/RUN.h5 > predictions.csv

Whole files or, of long recordings, windows: a row each, with the most likely classes. The outputs of several runs are
averaged after the softmax (Palanisamy, Singhania and Yao 2020, section 4.3), or after the sigmoid where clips have
several labels; then every class has a probability of its own, and ``--threshold`` chooses those that are named. Files
that cannot be read are named on stderr and left out, with exit code 2 at the end.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from transferlens import cli
from transferlens.compare import question
from transferlens.data import decoding
from transferlens.data.clips import BETWEEN
from transferlens.measures.scoring import ONE
from transferlens.store import recordings
from transferlens.store.recordings import Predictions
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, above, at_least, between, check_alone, names
from transferlens.util.text import counted


@dataclass(frozen=True, kw_only=True)
class TableOptions(Fields):
    """What is written."""

    out: Path | None = None
    """File for the table (.csv). Default: it is printed."""


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Classify sound files, whole or in windows."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Sound files, and folders of sound files."""
    ckpt: tuple[Path, ...]
    """Run files; the outputs of several are averaged."""
    window: Annotated[float | None, above(0)] = None
    """Length of the windows that long recordings are cut into [s], best that of the clips of training. Default: each
    file is one clip."""
    hop: Annotated[float | None, above(0)] = None
    """Time from the start of a window to that of the next [s]. Default: --window."""
    top: Annotated[int, at_least(1)] = 1
    """Number of classes in a row, the most likely first."""
    threshold: Annotated[float | None, between(0, 1)] = None
    """For runs whose clips have several labels, in place of --top: name all classes whose probability is at least
    this, with a semicolon between them; none if there are none."""
    longest: Annotated[float, above(0)] = decoding.LONGEST
    """Longest file that is decoded [s]: a longer file is left out, as a small one can decode to many hours."""
    execution: DeviceOptions = DeviceOptions()
    output: TableOptions = TableOptions()


@dataclass(frozen=True)
class Result(question.Result):
    """One row per file or window, and the predictions with all logits."""

    stem = "predictions"
    predictions: Predictions
    top: int
    threshold: float | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """File, start and end [s], the most likely class and its probability, and the next ones with a number."""
        return self.predictions.rows(self.top, self.threshold)

    @property
    def problems(self) -> tuple[str, ...]:  # type: ignore[override]
        """Why files could not be read."""
        return self.predictions.problems

    def summary(self) -> str:
        """Return how many files, or windows of them, are of each class."""
        counts = Counter(label for row in self.rows for label in filter(None, self._named(row["label"])))
        words = counted(len({*self.predictions.paths}), "file")
        return f"{words}: {', '.join(f'{number} {label}' for label, number in counts.most_common())}"

    def _named(self, label: str) -> list[str]:
        return [label] if self.threshold is None else label.split(BETWEEN)


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Open the runs, and classify the files."""
    how = {name: getattr(options, name) for name in ("window", "hop", "longest")}
    if options.threshold is not None:
        check_alone(options, "threshold", beside=[name for name in names(Options) if name != "top"])
    trained = load_runs(options.ckpt, "labels")
    if options.threshold is not None and trained[0].scoring is ONE:
        raise ParameterError(
            f"threshold={options.threshold:g} is for runs with several labels per clip, and {trained[0].path} has one: "
            "give top instead"
        )
    found = recordings.predict(trained, options.files, device=options.execution.device, **how)
    return Result(found, options.top, options.threshold)


predict = question.Question("predict", Options, analyse, first="ckpt", several=True)
main = cli.command("predict", Options, predict)

if __name__ == "__main__":
    sys.exit(main())
