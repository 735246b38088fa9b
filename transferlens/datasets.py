"""Data sets: clips with labels and folds, from the built-in set, an official folder or a user's own table.

``python -m transferlens.datasets`` lists the data sets known by name, describes one, and with ``--audit``
looks for what would spoil an experiment: clips that cannot be read, and recordings that stand in two folds.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transferlens import cli
from transferlens.data import downloads
from transferlens.data.audit import Audit, audit, unreadable
from transferlens.data.catalogue import DataOptions, open_dataset
from transferlens.data.clips import Clip, DataSet, load_audio
from transferlens.data.manifest import ManifestRow, manifest
from transferlens.util.errors import DataError, ParameterError, TransferLensError
from transferlens.util.files import check_writable
from transferlens.util.text import some, table

__all__ = [
    "Audit",
    "Clip",
    "DataOptions",
    "DataSet",
    "ManifestRow",
    "audit",
    "load_audio",
    "manifest",
    "open_dataset",
    "unreadable",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """List the data sets known by name; or describe one; or audit it for what would spoil an experiment; or get one."""

    download: str | None = None
    """Data set known by name to download and unpack: esc50, esc10, urbansound8k or gtzan."""
    to: Path = Path("data")
    """Folder that it goes to."""
    audit: bool = False
    """Decode every clip; exit code 1 where one cannot be read or a recording is in two folds."""


def _known() -> str:
    names = ["name", "title", "classes", "folds", "sr", "seconds", "licence", "homepage"]
    rows = [[getattr(row, name) for name in names] for row in manifest().values()]
    return table([["dataset", *names[1:4], "Hz", "s", *names[6:]], *rows])


def _summary(dataset: DataSet) -> str:
    """Size of a data set, and a table of the clips of each class in each fold."""
    counts = Counter((clip.label, clip.fold) for clip in dataset.clips)
    head = (
        f"{dataset.name}: {len(dataset.clips)} clips, {len(dataset.label_names)} classes, "
        f"{len(dataset.folds)} folds; {dataset.sr} Hz, {dataset.seconds:.3g} s, {dataset.width} frames"
    )
    rows: list[list[object]] = [["class", *(f"fold {fold}" for fold in dataset.folds), "clips"]]
    for label in dataset.label_names:
        row = [counts[label, fold] for fold in dataset.folds]
        rows.append([label, *row, sum(row)])
    return f"{head}\n\n{table(rows)}"


def _report(found: Audit) -> str:
    """What an audit found, a line a finding."""
    if not found.findings:
        return f"{found.dataset}: {found.n_clips} clips, nothing found"
    rows = [
        [
            f"{'! ' * finding.serious}{finding.kind}",
            ", ".join(finding.folds),
            some(finding.clips),
            finding.message,
        ]
        for finding in found.findings
    ]
    return f"{found.dataset}: {found.n_clips} clips\n\n{table([['finding', 'folds', 'clips', 'why'], *rows])}"


def _download(name: str, folder: Path) -> str:
    """Get a data set; say how it is used."""
    known = {name: row for name, row in manifest().items() if row.archive}
    if name not in known:
        raise ParameterError(f"download={name!r} must be one of {', '.join(known)}")
    check_writable("to", folder)
    target = downloads.fetch(known[name], folder)
    # Archives hold the data set's folder, or what is in it.
    roots = [target, *sorted(path for path in target.iterdir() if path.is_dir())]
    problems = []
    for root in roots:
        try:
            dataset = open_dataset(name, root=root)
        except TransferLensError as error:
            problems.append(str(error))
        else:
            return f"{len(dataset.clips)} clips: use them with --dataset {name} --root {root}"
    raise DataError(f"{target} is no complete {name}, delete it and try again: {problems[0]}")


def work(options: Options) -> int:
    """List the known data sets, describe one, audit it, or get it."""
    if options.download is not None:
        print(_download(options.download, options.to))
        return cli.DONE
    if options.audit:
        found = audit(options.open())
        print(_report(found))
        return cli.FOUND if found.serious else cli.DONE
    print(_known() if options == Options() else _summary(options.open()))
    return cli.DONE


main = cli.command("datasets", Options, work)

if __name__ == "__main__":
    sys.exit(main())
