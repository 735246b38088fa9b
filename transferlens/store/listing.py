"""What is in a run store: summaries, failures, progress."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from transferlens import __version__
from transferlens.features.logmel import FeatureSettings
from transferlens.models.plan import TransferPlan
from transferlens.store import index, locks
from transferlens.store.config import RunConfig, Training
from transferlens.store.run import load_run
from transferlens.store.runfile import SCHEMA, open_runfile, read_config
from transferlens.util import text
from transferlens.util.errors import CheckpointError
from transferlens.util.files import array

__all__ = ["RunSummary", "damaged", "failed", "list_runs", "progress", "scan", "summarise"]


@dataclass(frozen=True)
class RunSummary:
    """What the listing of a store says of one run, finished or under way.

    Attributes
    ----------
    id, file : str
    epochs, epochs_done : int
    accuracy_last, accuracy_best : float
        Fractions; held-out, after the last epoch and at the epoch best on these clips (optimistic).
    seconds : float [s]
    nbytes : int [bytes]
    settings : str
        The configuration, as JSON.
    """

    id: str
    file: str
    epochs: int
    epochs_done: int
    accuracy_last: float
    accuracy_best: float
    seconds: float
    nbytes: int
    settings: str

    @property
    def path(self) -> Path:
        """Of the file."""
        return Path(self.file)

    @functools.cached_property
    def config(self) -> RunConfig:
        """What the run is."""
        return RunConfig.from_flat(json.loads(self.settings))

    @property
    def is_complete(self) -> bool:
        """Whether every epoch is done."""
        return self.epochs_done == self.epochs


def summarise(path: Path) -> RunSummary:
    """Summary of one run file, finished (.h5) or under way (.partial); errors as in `load_run`."""
    with open_runfile(path) as file:
        accuracy, seconds = (array(file["history"][name]) for name in ("heldout_accuracy", "seconds"))
        config = read_config(file)
        return RunSummary(
            id=config.id,
            file=str(path),
            epochs=config.training.epochs,
            epochs_done=len(accuracy),
            accuracy_last=float(accuracy[-1]),
            accuracy_best=float(accuracy.max()),
            seconds=float(seconds.sum()),
            nbytes=Path(path).stat().st_size,
            settings=json.dumps(config.flat()),
        )


def _line(path: Path) -> str:
    """A summary as the index has it."""
    summary = vars(summarise(path))
    return json.dumps({name: value for name, value in summary.items() if name != "file"}, separators=(",", ":"))


def scan(folder: Path) -> tuple[list[RunSummary], list[str]]:
    """All runs below a folder, and what is wrong with the files that are none."""
    if not Path(folder).is_dir():
        raise CheckpointError(f"runs={str(folder)!r} is no folder: name a run store, or train a run first")
    kinds = (RunSummary, RunConfig, Training, FeatureSettings, TransferPlan)
    version = f"{__version__} {SCHEMA} {[field.name for kind in kinds for field in dataclasses.fields(kind)]}"
    found, problems = index.read_through(Path(folder), suffixes=(".h5", ".partial"), read=_line, version=version)
    values = json.loads(f"[{','.join(found.values())}]")
    return [RunSummary(file=path, **each) for path, each in zip(found, values, strict=True)], problems


def damaged(summaries: Iterable[RunSummary]) -> dict[str, str]:
    """Ids of finished runs whose files cannot be used, with the reasons: what a summary does not show."""
    found = {}
    for summary in summaries:
        try:
            load_run(summary.path)
        except CheckpointError as error:
            found[summary.id] = str(error)
    return found


def list_runs(folder: Path | str) -> list[RunSummary]:
    """Summaries of all runs in a store, in the order of their ids.

    Raises
    ------
    CheckpointError
        Naming every file that cannot be read.
    """
    summaries, problems = scan(Path(folder))
    if problems:
        raise CheckpointError("; ".join(problems))
    return summaries


def failed(folder: Path) -> dict[str, str]:
    """Ids of the runs of a store that have failed and were not trained since, with the reasons."""
    found = {}
    for path in sorted(folder.glob("*/*.failed")):
        if not path.with_suffix(".h5").is_file():
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError as error:
                lines = [f"the reason cannot be read: {error.strerror}"]
            found[path.stem] = lines[0] if lines else "no reason given"
    return found


def progress(folder: Path) -> str:
    """What goes on in a store: how many runs are done, which are under way and by whom, which have failed."""
    summaries, problems = scan(folder)
    done = [summary for summary in summaries if summary.is_complete]
    holders = {path.stem: locks.holder(path.with_suffix(".h5")) for path in sorted(folder.glob(f"*/*{locks.SUFFIX}"))}
    finished = {summary.id for summary in done}
    reached = {s.id: f"{s.epochs_done}/{s.epochs} epochs" for s in summaries if s.id not in finished}
    lines = [
        (name, reached.get(name, "first epoch"), holders.get(name) or "nobody") for name in sorted({*reached, *holders})
    ]
    parts = [f"{len(done)} runs done, {len(lines)} under way"]
    if lines:
        parts.append(text.table([("run", "reached", "trained by"), *lines]))
    parts += [f"failed: {name} ({reason})" for name, reason in failed(folder).items()]
    return "\n".join([*parts, *(f"error: {problem}" for problem in problems)])
