"""Sound files that no run has seen, whole or in windows: found, cut, and classified or embedded by finished runs."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from transferlens.data import decoding
from transferlens.data.attempts import attempt_each
from transferlens.data.clips import BETWEEN
from transferlens.measures.scoring import ONE, Scoring
from transferlens.models.device import pick_device
from transferlens.store.heldout import classify, precision_of
from transferlens.util import lazy
from transferlens.util.errors import DataError, MachineError, ParameterError
from transferlens.util.lazy import pandas, threadpoolctl, tqdm
from transferlens.util.text import natural, some

if TYPE_CHECKING:
    import torch
    from pandas import DataFrame

    from transferlens.features.logmel import FeatureSettings
    from transferlens.store.run import Run

frontend = lazy.load("transferlens.features.frontend")

log = logging.getLogger(__name__)

AT_ONCE = 64  # windows whose features are in memory
TRAINED = ", the precision that it was trained in"


def sound_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named, and in natural order the sound files of the folders, but not hidden ones.

    Raise ParameterError if a folder has none, or nothing is named.
    """
    files: list[Path] = []
    for path in paths:
        named = [path]
        if path.is_dir():
            named = sorted(decoding.sound_files(path), key=lambda file: natural(str(file)))
        if not named:
            raise ParameterError(f"files={str(path)!r} must be sound files, or folders with some: it has none")
        files += named
    if not files:
        raise ParameterError("files must name sound files, or folders with some")
    return list(dict.fromkeys(files))


def windows(blocks: Iterator[np.ndarray], size: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a waveform, given in blocks, into windows of `size` samples that start every `hop`; yield start and samples.

    All samples are in a window: a last one ends where the waveform ends. A shorter waveform is one window.
    """
    left, start, following, end = np.empty(0, np.float32), 0, 0, 0  # `left` begins at sample `start`
    for block in blocks:
        left = np.concatenate([left, block])
        while following + size <= start + len(left):
            yield following, left[following - start : following - start + size]
            following, end = following + hop, following + size
        keep = max(0, min(following, start + len(left) - size) - start)
        left, start = left[keep:], start + keep
    n_samples = start + len(left)
    if end < n_samples:
        first = max(0, n_samples - size)
        yield first, left[first - start :]


@dataclass(frozen=True)
class _Part:
    """A file, or a window of it from sample `start` on, or why its samples are not available.

    A whole file is decoded when its features are computed.
    """

    path: Path
    sr: int
    longest: float
    start: int = 0
    y: np.ndarray | DataError | None = None

    def features(self, settings: Sequence[FeatureSettings]) -> tuple[int, list[np.ndarray]]:
        """Return the number of samples, and the features of each of the settings; raise DataError."""
        if isinstance(self.y, DataError):
            raise self.y
        with decoding.naming_memory(self.path):
            y = decoding.load(self.path, sr=self.sr, longest=self.longest) if self.y is None else self.y
            return len(y), [each.compute(y, self.sr) for each in settings]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What runs predict for files, or windows of them.

    Attributes
    ----------
    label_names : tuple of str
        The order of the logits' columns.
    paths : tuple of Path
        The file of each window.
    times : ndarray [shape=(n_windows, 2)]
        Start and end of each window [s].
    logits : ndarray [shape=(n_runs, n_windows, n_classes), float32]
    problems : tuple of str
        Why files could not be read.
    precisions : tuple of str
        What each run was computed in, "fp32" or "bf16": as it was trained, where the processor can.
    scoring : Scoring
        Whether each file is of one class, or has several labels.
    """

    label_names: tuple[str, ...]
    paths: tuple[Path, ...]
    times: np.ndarray
    logits: np.ndarray
    problems: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    scoring: Scoring = ONE

    @property
    def probabilities(self) -> np.ndarray:
        """Mean over the runs of the softmax of the logits, or of the sigmoid [shape=(n_windows, n_classes)]."""
        return self.scoring.probabilities(self.logits).mean(0)

    def rows(self, top: int = 1, threshold: float | None = None) -> list[dict[str, Any]]:
        """Return a row per window: file, start and end [s], the most likely class and its probability, and the next.

        With a threshold: all classes whose probability is at least this, and their probabilities, with ``;`` between.
        """
        if threshold is not None:
            return self._above(threshold)
        rows = []
        for row, shares in zip(_places(self.paths, self.times), self.probabilities, strict=True):
            for rank, i in enumerate(np.argsort(-shares, kind="stable")[:top], start=1):
                ending = "" if rank == 1 else f"_{rank}"
                row |= {f"label{ending}": self.label_names[i], f"probability{ending}": round(float(shares[i]), 6)}
            rows.append(row)
        return rows

    def _above(self, threshold: float) -> list[dict[str, Any]]:
        rows = []
        for row, shares in zip(_places(self.paths, self.times), self.probabilities, strict=True):
            chosen = [i for i in np.argsort(-shares, kind="stable") if shares[i] >= threshold]
            names = BETWEEN.join(self.label_names[i] for i in chosen)
            rows.append(row | {"label": names, "probability": BETWEEN.join(f"{shares[i]:.6g}" for i in chosen)})
        return rows

    def table(self, top: int = 1, threshold: float | None = None) -> DataFrame:
        """Return the rows as a DataFrame."""
        return pandas.DataFrame(self.rows(top, threshold))


def _places(paths: Sequence[Path], times: np.ndarray) -> list[dict[str, Any]]:
    """Return the first cells of the row of each window: file, start and end [s]."""
    return [
        {"path": str(path), "start": round(start, 6), "end": round(end, 6)}
        for path, (start, end) in zip(paths, times.tolist(), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The pooled output of a block for files, or windows of them.

    Attributes
    ----------
    block : int in 0..4
    paths : tuple of Path
        The file of each window.
    times : ndarray [shape=(n_windows, 2)]
        Start and end of each window [s].
    vectors : ndarray [shape=(n_windows, channels of the block), float32]
    problems : tuple of str
        Why files could not be read.
    precision : {"fp32", "bf16"}
        What they were computed in.
    """

    block: int
    paths: tuple[Path, ...]
    times: np.ndarray
    vectors: np.ndarray
    problems: tuple[str, ...] = ()
    precision: str = "fp32"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per window: file, start and end [s], and the numbers e0, e1, ..., in nine digits."""
        return [
            place | {f"e{i}": float(f"{value:.9g}") for i, value in enumerate(vector.tolist())}
            for place, vector in zip(_places(self.paths, self.times), self.vectors, strict=True)
        ]

    def table(self) -> DataFrame:
        """Return the rows as a DataFrame."""
        return pandas.DataFrame(self.rows())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what files of arrays hold: embeddings, start, end, path and block."""
        start, end = self.times.T
        paths = np.array([str(path) for path in self.paths])
        return {"embeddings": self.vectors, "start": start, "end": end, "path": paths, "block": np.array(self.block)}


def _parts(files: Sequence[Path], sr: int, longest: float, cut: tuple[int, int] | None) -> Iterator[_Part]:
    """Yield the files or, with size and hop [samples], their windows; an error ends those of a file."""
    for path in files:
        whole = _Part(path, sr, longest)
        if cut is None:
            yield whole
            continue
        try:
            for start, y in windows(decoding.stream(path, sr=sr, longest=longest), *cut):
                yield replace(whole, start=start, y=y)
        except MachineError:
            raise
        except DataError as error:
            yield replace(whole, y=error)


def _cut(window: float | None, hop: float | None, sr: int) -> tuple[int, int] | None:
    """Return the size and the hop of windows [samples]; None for whole files."""
    if window is None:
        if hop is not None:
            raise ParameterError(f"hop={hop:g} has no effect without window: give both, or leave it out")
        return None
    for name, value in (("window", window), ("hop", hop)):
        if value is not None and round(value * sr) < 1:
            raise ParameterError(f"{name}={value:g} must be at least one sample, {1 / sr:.2g} s at the rate of {sr} Hz")
    size, step = round(window * sr), round((window if hop is None else hop) * sr)
    if step > size:
        raise ParameterError(f"hop={hop:g} must be at most window={window:g}, so that no sound is left out")
    return size, step


def _rate(runs: Sequence[Run]) -> int:
    """Return the rate of runs [Hz]; raise ParameterError if they differ in it."""
    first = runs[0].config.features.sr
    for run in runs:
        if (sr := run.config.features.sr) != first:
            rates = f"rate ({sr} and {first} Hz)"
            raise ParameterError(f"ckpt={run.path} and {runs[0].path} differ in {rates}: average runs of the same")
    return first


class _Outputs(NamedTuple):
    """What networks return for files, or windows of them: `outputs` of each run, and why files could not be read."""

    paths: tuple[Path, ...]
    times: np.ndarray
    outputs: list[np.ndarray]
    problems: tuple[str, ...]


def _computed(
    runs: Sequence[Run],
    networks: Sequence[torch.nn.Module],
    files: Sequence[Path],
    cut: tuple[int, int] | None,
    longest: float,
) -> _Outputs:
    """Compute the outputs of a network of each run for files, or their windows; errors as in `predict`."""
    settings = [run.config.features for run in runs]
    sr, different = settings[0].sr, list(dict.fromkeys(settings))
    parts = _parts(files, sr, longest, cut)
    where: list[tuple[Path, int, int]] = []  # file, first sample and the one after the last
    outputs: list[list[np.ndarray]] = [[] for _ in runs]
    problems: list[str] = []
    order = {path: number for number, path in enumerate(files, start=1)}
    with tqdm.tqdm(total=len(files), desc="computing", unit="file", delay=2, disable=None) as bar:
        while batch := list(itertools.islice(parts, AT_ONCE)):
            with threadpoolctl.threadpool_limits(1):  # threads compute side by side
                results = attempt_each(lambda part: part.features(different), batch)
            problems += [str(result) for result in results if isinstance(result, DataError)]
            read = [(part, *each) for part, each in zip(batch, results, strict=True) if not isinstance(each, DataError)]
            where += [(part.path, part.start, part.start + n_samples) for part, n_samples, _ in read]
            for run, own, network, of_run in zip(runs, settings, networks, outputs, strict=True):
                if read:
                    S = np.stack([features[different.index(own)] for *_, features in read])
                    of_run.append(classify(run, network, S))
            bar.update(order[batch[-1].path] - bar.n)
    if not where:
        raise DataError(f"no file can be read: {some(problems)}")
    named, *times = zip(*where, strict=True)
    return _Outputs(named, np.transpose(times) / sr, [*map(np.concatenate, outputs)], tuple(problems))


def _precisions(runs: Sequence[Run], device: torch.device) -> tuple[str, ...]:
    """Return the precision that each run is computed in, and log it."""
    chosen = tuple(precision_of(run, device) for run in runs)
    for run, name in zip(runs, chosen, strict=True):
        log.info("%s is computed in %s%s", run.config.id, name, TRAINED if name == run.provenance["precision"] else "")
    return chosen


def predict(
    runs: Sequence[Run],
    paths: Sequence[Path],
    *,
    window: float | None = None,
    hop: float | None = None,
    device: str = "auto",
    longest: float = decoding.LONGEST,
) -> Predictions:
    """Classify sound files by one run, or by several as an ensemble, each in the precision that it was trained in.

    Parameters
    ----------
    runs : sequence of Run
        Runs of the same classes, as `load_runs` checks, and of the same rate.
    paths : sequence of path
        Files, and folders of files; files of other rates are resampled to that of the runs.
    window, hop : float > 0 [s], optional
        Classify windows of this length that start every `hop` (default: `window`) instead of whole files.
    device : str
        "auto", or torch's name of a device.
    longest : float > 0 [s]
        Longest file that is decoded.

    Returns
    -------
    Predictions
        Why files cannot be read is in its problems.

    Raises
    ------
    ParameterError
        If the runs differ in their rate, or no file is found.
    DataError
        If no file can be read.
    """
    sr, files = _rate(runs), sound_files(paths)
    where = pick_device(device)
    precisions = _precisions(runs, where)
    networks = [run.model().to(where) for run in runs]
    named, times, logits, problems = _computed(runs, networks, files, _cut(window, hop, sr), longest)
    return Predictions(runs[0].label_names, named, times, np.stack(logits), problems, precisions, runs[0].scoring)


def embed(
    run: Run,
    paths: Sequence[Path],
    *,
    block: int | None = None,
    window: float | None = None,
    hop: float | None = None,
    device: str = "auto",
    longest: float = decoding.LONGEST,
) -> Embeddings:
    """Compute the pooled output of a block for sound files, in the precision that the run was trained in.

    Parameters
    ----------
    run : Run
    paths : sequence of path
        Files, and folders of files; files of other rates are resampled to that of the run.
    block : int in 0..4, optional
        Default: the last that the network has, whose embedding the head gets.
    window, hop, device, longest
        As for `predict`.

    Returns
    -------
    Embeddings

    Raises
    ------
    ParameterError, DataError
        As `predict`, and if the network does not have the block.
    """
    files, where = sound_files(paths), pick_device(device)
    (precision,) = _precisions([run], where)
    pooled = frontend.Pooled(run.model().to(where), block).eval()
    cut = _cut(window, hop, run.config.features.sr)
    named, times, (vectors,), problems = _computed([run], [pooled], files, cut, longest)
    return Embeddings(pooled.block, named, times, vectors, problems, precision)
