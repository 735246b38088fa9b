"""List the data sets known by name; or describe, check or download one.

``--audit`` finds faults that make results invalid: clips that cannot be read, recordings that are in two folds, and
properties of the files that tell a class, such as their sample rate.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transferlens import cli
from transferlens.data import downloads

# What users import from here lives in folders.
from transferlens.data.audit import Audit, audit, unreadable
from transferlens.data.catalogue import DataOptions, open_dataset
from transferlens.data.clips import Clip, DataSet, load_audio
from transferlens.data.folds import check_table, write_table
from transferlens.data.manifest import ManifestRow, manifest
from transferlens.features import near_duplicates
from transferlens.features.logmel import FeatureOptions
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import DataError, ParameterError, TransferLensError
from transferlens.util.files import check_new, check_writable
from transferlens.util.terminal import say
from transferlens.util.text import counted, some, table

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


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """List the data sets known by name, without options; or describe, check or download one."""

    download: str | None = None
    """Data set to download and unpack: esc50, esc10, urbansound8k, gtzan or speechcommands."""
    to: Path = Path("data")
    """Folder for the download."""
    audit: bool = False
    """Check the clips: exit code 1 if one cannot be read, a recording is in two folds, there is only one fold or one
    class, or a class can be told by a property of its files alone."""
    make_folds: Path | None = None
    """File for a table (.csv) of the clips with their folds, to read, correct and keep: name it by --clips then."""
    group_duplicates: bool = False
    """With --make-folds: clips that sound alike, as `duplicates` finds them, are taken for one recording, so that they
    are in one fold."""
    store: CacheOptions = CacheOptions()


def _known() -> str:
    names = ["name", "title", "classes", "folds", "sr", "seconds", "licence", "homepage"]
    rows = [[getattr(row, name) for name in names] for row in manifest().values()]
    return table([["dataset", *names[1:4], "Hz", "s", *names[6:]], *rows])


def _summary(dataset: DataSet) -> str:
    """Return the size of a data set, and its numbers of clips by class and fold."""
    counts = dataset.counts()
    clips, classes = counted(len(dataset.clips), "clip"), counted(len(dataset.label_names), "class")
    head = (
        f"{dataset.name}: {clips}, {classes}, {counted(len(dataset.folds), 'fold')}; "
        f"{dataset.sr} Hz, {dataset.seconds:.3g} s, {dataset.width} frames"
    )
    if dataset.labels_per_clip == "several":
        head += (
            f"; {counts.to_numpy().sum() / len(dataset.clips):.2g} labels per clip: one counts for each of its classes"
        )
    rows = [[label, *row, sum(row)] for label, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)]
    return f"{head}\n\n{table([['class', *(f'fold {fold}' for fold in dataset.folds), 'clips'], *rows])}"


def _report(result: Audit) -> str:
    """Return the findings of an audit, one per line."""
    head = f"{result.dataset}: {counted(result.n_clips, 'clip')}"
    if not result.findings:
        return f"{head}, nothing found"
    rows = [
        [f"{'! ' * finding.serious}{finding.kind}", ", ".join(finding.folds), some(finding.clips), finding.message]
        for finding in result.findings
    ]
    return f"{head}\n\n{table([['finding', 'folds', 'clips', 'why'], *rows])}"


def _download(name: str, folder: Path) -> str:
    """Download a data set, and return how to use it."""
    known = {name: row for name, row in manifest().items() if row.archive}
    if name not in known:
        row = manifest().get(name)
        by_hand = f": get it from {row.homepage}" if row and row.homepage else ""
        raise ParameterError(f"download={name!r} must be one of {', '.join(known)}{by_hand}")
    check_writable("to", folder)
    target = downloads.fetch(known[name], folder)
    # An archive contains the folder of the data set, or its content.
    roots = [target, *sorted(path for path in target.iterdir() if path.is_dir())]
    problems = []
    for root in roots:
        try:
            dataset = open_dataset(name, root=root)
        except TransferLensError as error:
            problems.append(str(error))
        else:
            return f"{counted(len(dataset.clips), 'clip')}: use them with --dataset {name} --root {root}"
    raise DataError(f"{target} is not a complete {name}: delete it and try again ({problems[0]})")


def _recordings(options: Options, dataset: DataSet) -> tuple[Clip, ...]:
    """Return the clips with near-duplicates as one recording; features are kept where training finds them."""
    return near_duplicates.recordings(dataset, FeatureOptions().settings(dataset), options.store.cache)


def _table(options: Options, path: Path) -> str:
    """Write the table of the clips, and return the numbers of clips by class and fold."""
    check_new("make_folds", path, ".csv")
    grouped = options.group_duplicates
    dataset = options.open_with_made_folds(partial(_recordings, options)) if grouped else options.open()
    check_table("make_folds", path, dataset.clips)
    write_table(dataset.clips, path)
    return f"{_summary(dataset)}\n\nwritten: {path}"


def work(options: Options) -> int:
    """List the known data sets, or describe, check or download one."""
    asked = [name for name in ("download", "make_folds", "audit") if getattr(options, name) not in (None, False)]
    if len(asked) > 1:
        raise ParameterError(f"{asked[1]} cannot be given with {asked[0]}: leave out one of them")
    if options.download is not None:
        say(_download(options.download, options.to))
        return cli.DONE
    if options.group_duplicates and options.make_folds is None:
        raise ParameterError("group_duplicates goes with make_folds, the table that the recordings are written to")
    if options.make_folds is not None:
        say(_table(options, options.make_folds))
        return cli.DONE
    if options.audit:
        result = audit(options.open())
        say(_report(result))
        return cli.FOUND if result.serious else cli.DONE
    say(_known() if options == Options() else _summary(options.open()))
    return cli.DONE


main = cli.command("datasets", Options, work)

if __name__ == "__main__":
    sys.exit(main())
