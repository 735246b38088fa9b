"""List the runs of a store; only new and changed files are opened, thanks to `transferlens.store.index`."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferlens import __version__
from transferlens.features.logmel import FeatureSettings
from transferlens.measures import classes, multilabel
from transferlens.measures.scoring import ONE
from transferlens.models.plan import TransferPlan
from transferlens.store import index, locks, schema
from transferlens.store.config import RunConfig, Training
from transferlens.store.run import load_run
from transferlens.store.runfile import SCHEMA, open_runfile
from transferlens.store.scored import recorded_commonest
from transferlens.store.sources import sources_of
from transferlens.util import text
from transferlens.util.errors import CheckpointError
from transferlens.util.fields import checked
from transferlens.util.lazy import pandas

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class RunSummary:
    """A run in the listing of a store, finished or not.

    Attributes
    ----------
    id : str
    file : str
        Path of the run file.
    epochs, epochs_done : int
    accuracy_last, accuracy_best : float
        Held-out accuracies, fractions: after the last epoch, and at the epoch best on these clips (optimistic). Where
        clips have several labels, mAP; tables name these columns so.
    macro_f1, class_ratio : float
        As of `Run`, after the last epoch that is done.
    chance, commonest : float
        As of `Run`: the accuracies of guessing, and of always naming the commonest class.
    seconds : float [s]
        Time of training.
    nbytes : int [bytes]
        Size of the file.
    weights : str
        What the pretrained blocks start from, as `Run.weights`.
    settings : str
        The configuration, as JSON.
    score : str
        "accuracy", or "mAP" where clips have several labels.
    lwlrap : float
        As of `Run`.
    call : str
        The id of the study that it was begun for, "" if none.
    """

    id: str
    file: str
    epochs: int
    epochs_done: int
    accuracy_last: float
    accuracy_best: float
    macro_f1: float
    class_ratio: float
    chance: float
    commonest: float
    seconds: float
    nbytes: int
    weights: str
    settings: str
    score: str = ONE.name
    lwlrap: float = nan
    call: str = ""

    def __fspath__(self) -> str:
        return self.file

    def __repr__(self) -> str:
        state = (
            f"{'' if self.is_complete else 'not '}finished, {self.epochs_done} of {text.counted(self.epochs, 'epoch')}"
        )
        return f"RunSummary {self.id!r}: {state}, {self.score} {100 * self.accuracy_last:.1f} %, {self.file}"

    @property
    def path(self) -> Path:
        """Path of the run file."""
        return Path(self.file)

    @functools.cached_property
    def config(self) -> RunConfig:
        """The configuration."""
        try:
            return RunConfig.from_flat(json.loads(self.settings))
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.file} is listed with other settings than a run has: {_AGAIN}") from error

    @property
    def is_complete(self) -> bool:
        """Whether all epochs are done."""
        return self.epochs_done == self.epochs


def summarise(path: str | os.PathLike[str]) -> RunSummary:
    """Summarise one run file, finished (.h5) or not (.partial); errors as in `load_run`."""
    path = Path(path)
    with open_runfile(path) as file:
        config, provenance = schema.read_head(file)
        scoring = config.scoring
        names = (f"history/{scoring.held_out}", "history/seconds", "labels", "logits_last")
        score, seconds, labels, logits = schema.read_fields(file, config, names).values()
        is_one = scoring is ONE
        return RunSummary(
            id=config.id,
            file=str(path),
            epochs=config.training.epochs,
            epochs_done=len(score),
            accuracy_last=float(score[-1]),
            accuracy_best=float(score.max()),
            macro_f1=classes.macro_f1(labels, logits.argmax(1)) if is_one else nan,
            class_ratio=classes.unevenness(labels, n_classes=logits.shape[1]) if is_one else nan,
            seconds=float(seconds.sum()),
            nbytes=path.stat().st_size,
            chance=scoring.chance(labels, logits.shape[1]),
            commonest=recorded_commonest(provenance, labels, logits.shape[1], scoring),
            weights=" + ".join(source.name for source in sources_of(provenance, config.plan)),
            settings=json.dumps(config.flat()),
            score=scoring.name,
            lwlrap=nan if is_one else multilabel.lwlrap(labels, logits),
            call=provenance.get("call", ""),
        )


_AGAIN = f"delete {index.NAME} of its store, which is written again"
_KINDS = (RunSummary, RunConfig, Training, FeatureSettings, TransferPlan)
# An index of another version is not used.
VERSION = f"{__version__} {SCHEMA} {[field.name for kind in _KINDS for field in dataclasses.fields(kind)]}"


def _line(path: Path) -> str:
    """Summarise one run file as a line of the index."""
    summary = dataclasses.asdict(summarise(path))
    del summary["file"]
    return json.dumps(summary, separators=(",", ":"))


def scan(folder: Path | str) -> tuple[list[RunSummary], list[str]]:
    """Summarise all runs below a folder; return them, and one message for each file that cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{str(folder)!r} is not a folder: name a run store, or train a run first")
    lines, problems = index.read_through(folder, suffixes=(".h5", ".partial"), read=_line, version=VERSION)
    try:
        values = json.loads(f"[{','.join(lines.values())}]")
        summaries = [RunSummary(file=path, **fields) for path, fields in zip(lines, values, strict=True)]
    except (RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} has an index of something else than runs: {_AGAIN}") from error
    if wrong := [summary.file for summary in summaries if not all(_has_type(summary, field) for field in _FIELDS)]:
        raise CheckpointError(f"{wrong[0]} is listed with other values than a run has: {_AGAIN}")
    return summaries, problems


_FIELDS = dataclasses.fields(RunSummary)


def _has_type(summary: RunSummary, field: dataclasses.Field) -> bool:
    return type(getattr(summary, field.name)).__name__ == field.type


def usable(folder: Path) -> tuple[list[RunSummary], list[str]]:
    """Summarise the runs of a store, each once, whose files open; with them, one message for each damaged file."""
    summaries, problems = scan(folder)
    runs: dict[str, RunSummary] = {}
    for summary in summaries:
        try:
            if summary.is_complete:
                load_run(summary.path)  # summaries do not show all damage
            runs.setdefault(summary.id, summary)  # a copy is not another run
        except CheckpointError as error:
            problems.append(str(error))
    return list(runs.values()), problems


def no_run(folder: Path, problems: Sequence[str] = (), kind: str = "finished run") -> CheckpointError:
    """Return the error of a store without a run that can be used; it names its damaged files."""
    return CheckpointError("; ".join([f"runs={str(folder)!r} has no {kind}: train some first", *problems]))


class Listing(list[RunSummary]):
    """The runs of a store."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per run: what its summary has, and all settings; None where a plan is named otherwise."""
        never = ("settings", "call")  # settings are columns
        hidden = never if any(summary.score != ONE.name for summary in self) else (*never, "score", "lwlrap")
        rows = [classes.named(dataclasses.asdict(summary)) | summary.config.flat() for summary in self]
        rows = [{name: value for name, value in row.items() if name not in hidden} for row in rows]
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def table(self) -> DataFrame:
        """Return the rows as a DataFrame."""
        return pandas.DataFrame(self.rows(), columns=None if self else [field.name for field in _FIELDS[:-2]])


@checked
def list_runs(folder: Path | str = Path("runs")) -> Listing:
    """Summarise all runs of a store, in the order of their paths; ``.table()`` of the list is a DataFrame.

    Raises
    ------
    CheckpointError
        If the folder does not exist or, naming all of them, files cannot be read.
    """
    summaries, problems = scan(folder)
    if problems:
        raise CheckpointError("; ".join(problems))
    return Listing(summaries)


def failed(folder: Path) -> dict[str, str]:
    """Return the reasons why runs of a store failed, by run id; runs that were trained since are left out."""
    reasons = {}
    for path in sorted(folder.glob("*/*.failed")):
        if not path.with_suffix(".h5").is_file():
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError as error:
                lines = [f"the reason cannot be read: {error.strerror}"]
            reasons[path.stem] = lines[0] if lines else "no reason given"
    return reasons


def progress(folder: Path) -> str:
    """Describe a store: how many runs are done, which are being trained and by whom, and which have failed."""
    summaries, problems = scan(folder)
    done = [summary for summary in summaries if summary.is_complete]
    finished = {summary.id for summary in done}
    epochs = {s.id: f"{s.epochs_done}/{s.epochs} epochs" for s in summaries if s.id not in finished}
    holders = {path.stem: locks.holder(path.with_suffix(".h5")) for path in sorted(folder.glob(f"*/*{locks.SUFFIX}"))}
    unfinished = sorted({*epochs, *holders})
    rows = [(name, epochs.get(name, "first epoch"), holders.get(name) or "nobody") for name in unfinished]
    parts = [f"{text.counted(len(done), 'run')} done, {len(rows)} under way"]
    if rows:
        parts.append(text.table([("run", "reached", "trained by"), *rows]))
    parts += [f"failed: {name} ({reason})" for name, reason in failed(folder).items()]
    return "\n".join([*parts, *(f"error: {problem}" for problem in problems)])
