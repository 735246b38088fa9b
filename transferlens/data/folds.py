"""Folds for clips that have none, and the table that keeps them."""

from __future__ import annotations

import csv
import logging
import re
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transferlens.data.clips import Clip
from transferlens.util.errors import DataError, ParameterError, warn_once
from transferlens.util.files import check_new, complete_or_absent
from transferlens.util.grouping import group_by
from transferlens.util.lazy import model_selection, scipy
from transferlens.util.text import CONTROL, counted, some

log = logging.getLogger(__name__)

N_FOLDS = 5
SEED = 0


def grouped(clips: Sequence[Clip], pattern: str) -> tuple[Clip, ...]:
    """Return the clips with recordings by a regular expression: what its first group, or all of it, finds in their ids.

    Clips that it does not match are recordings of their own. Raise ParameterError if it is not a regular expression, or
    matches no clip.
    """
    try:
        found = [re.search(pattern, clip.id) for clip in clips]
    except re.error as error:
        raise ParameterError(f"group_by={pattern!r} must be a regular expression: {error}") from error
    names = [match and match[min(1, match.re.groups)] for match in found]
    if not any(names):
        raise ParameterError(f"group_by={pattern!r} matches no path, such as {clips[0].id!r}: correct it")
    if n_others := sum(not name for name in names):
        warn_once(f"group_by does not match {counted(n_others, 'clip')}, each taken for a recording of its own")
    return tuple(replace(clip, group=name or None) for clip, name in zip(clips, names, strict=True))


def joined(clips: Sequence[Clip], pairs: Sequence[tuple[int, int]]) -> tuple[Clip, ...]:
    """Return the clips with one recording for all that pairs of their indices join, through others too.

    Recordings that a pair joins are one. Its name is that of its first clip's recording, or its id.
    """
    first: dict[str, int] = {}
    of_recordings = [(first.setdefault(clip.recording, i), i) for i, clip in enumerate(clips)]
    rows, columns = zip(*of_recordings, *pairs, strict=True)
    graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(clips), len(clips)))
    _, numbers = scipy.sparse.csgraph.connected_components(graph, directed=False)
    members = group_by(zip(clips, numbers.tolist(), strict=True), lambda numbered: numbered[1])
    names = {number: same[0][0].recording if len(same) > 1 else None for number, same in members.items()}
    return tuple(
        replace(clip, group=names[number] or clip.group) for clip, number in zip(clips, numbers.tolist(), strict=True)
    )


def check_classes(labels: Collection[str]) -> None:
    """Raise DataError if the labels of all clips are one."""
    if len(labels) < 2:
        raise DataError(
            f"all clips are of one class, {min(labels)}: two or more are needed; name the folder that holds one folder "
            "per class"
        )


def made(clips: Sequence[Clip], n_folds: int = N_FOLDS, strata: Sequence[str] | None = None) -> tuple[Clip, ...]:
    """Return the clips with folds, named 1 to `n_folds`, that have as many clips of each class as can be.

    They are drawn with a fixed seed. Clips of one recording are in one fold. If no clip has a recording, the numbers of
    clips of a class differ by at most one between folds. With `strata`, one name per clip, these are taken for the
    classes: where clips have several labels, the rarest of each.

    Raises
    ------
    DataError
        If every class has fewer recordings than there are folds.
    """
    labels = [clip.label for clip in clips] if strata is None else list(strata)
    homes = [clip.recording for clip in clips]
    recordings = Counter(label for label, _ in {*zip(labels, homes, strict=True)})
    largest = min(recordings, key=lambda label: (-recordings[label], label))
    if (most := recordings[largest]) < n_folds:
        of_clips = f"{counted(labels.count(largest), 'clip')} of {counted(most, 'recording')}"
        remedy = f"give n_folds_made={most}, or add recordings" if most > 1 else "add recordings"
        raise DataError(f"no class has recordings for {n_folds} folds, {largest!r} the most ({of_clips}): {remedy}")
    few = sorted(label for label, n in recordings.items() if n < n_folds)
    if few and strata is None:  # clips have other labels, too
        warn_once(f"there are fewer recordings than folds of {some(few)}: some folds have none")
    has_groups = any(clip.group for clip in clips)
    kind = model_selection.StratifiedGroupKFold if has_groups else model_selection.StratifiedKFold
    folds = np.empty(len(clips), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of small classes, said above
        splits = kind(n_folds, shuffle=True, random_state=SEED).split(labels, labels, homes)
        for number, (_, held_out) in enumerate(splits, start=1):
            folds[held_out] = number
    by = "" if strata is None else ", by the rarest label of each clip"
    kept = "recordings are kept whole" if has_groups else "each clip is taken for a recording of its own"
    log.info("%d folds are made, with seed %d%s: %s; `datasets --make-folds` writes them down", n_folds, SEED, by, kept)
    return tuple(replace(clip, fold=str(fold)) for clip, fold in zip(clips, folds.tolist(), strict=True))


def permuted(clips: Sequence[Clip], seed: int) -> tuple[Clip, ...]:
    """Return the clips with the labels of other ones: each fold's labels, permuted among its recordings.

    The clips of a recording have one label afterwards, if they had one before.
    """
    labels: dict[tuple[str, str, str], str] = {}
    rng = np.random.RandomState(seed)  # its numbers are the same in all versions
    for fold in sorted({clip.fold for clip in clips}):
        recordings = sorted({(clip.fold, clip.recording, clip.label) for clip in clips if clip.fold == fold})
        others = [recordings[i][2] for i in rng.permutation(len(recordings))]
        labels |= dict(zip(recordings, others, strict=True))
    return tuple(replace(clip, label=labels[clip.fold, clip.recording, clip.label]) for clip in clips)


def check_table(name: str, path: Path, clips: Sequence[Clip]) -> None:
    """Raise ParameterError, naming an option, if a table of clips cannot be written to a file."""
    check_new(name, path, ".csv")
    if any(clip.path is None for clip in clips):
        raise ParameterError(f"{name} needs sound files: these clips are generated by code, see `synth`")
    folder = path.parent.resolve()
    if odd := [file for clip in clips if CONTROL.search(file := _written(clip, folder))]:
        raise ParameterError(
            f"{name}={str(path)!r} would hold the path {odd[0]!r}, which is not plain text: name a file in the folder "
            "of the clips"
        )


def write_table(clips: Sequence[Clip], path: Path) -> None:
    """Write a table of clips; paths below its folder are relative, so that beside their old table ids stay the same."""
    folder = path.parent.resolve()
    with complete_or_absent(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "fold", "group"])
        table.writerows([_written(clip, folder), clip.label, clip.fold, clip.group or ""] for clip in clips)


def _written(clip: Clip, folder: Path) -> str:
    """Return the path of a clip for a table in a folder: relative if the clip is below it, else absolute."""
    assert clip.path is not None
    file = clip.path.parent.resolve() / clip.path.name
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
