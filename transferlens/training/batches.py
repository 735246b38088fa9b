"""Mini-batches for training: features of clips, or the outputs of frozen blocks for them.

`Data` holds the features and labels of a data set. The outputs of frozen blocks for a clip do not change in training:
they are computed once (`Data.outputs`) and shared by all runs with the same frozen blocks and inputs.
"""

from __future__ import annotations

import collections
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transferlens.features.augment import Augmentation, VariantCache
from transferlens.features.cache import FeatureCache, opened
from transferlens.measures.scoring import ONE, SCORINGS, Scoring, labels_of
from transferlens.models.forward import PASS_SIZE
from transferlens.util.files import check_space
from transferlens.util.lazy import torch, tqdm
from transferlens.util.processes import free_memory

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet


# Batches that are read from a file in advance.
AHEAD = 3


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Split clips into batches of nearly equal length, about `size`, but at least 2, which BatchNorm needs."""
    return np.array_split(rows, max(1, min(-(-len(rows) // size), len(rows) // 2)))


def balanced(rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator, scoring: Scoring = ONE) -> np.ndarray:
    """Draw from clips so that each class is drawn equally often.

    No clip is drawn again for a class before all clips of the class have been drawn. A clip with several labels is
    drawn for each of them, and brings the others along.

    Parameters
    ----------
    rows : ndarray of int [shape=(n,)]
        Clips.
    labels : ndarray of int
        Labels of each clip of the data set, as `scoring` encodes them.
    rng : np.random.Generator
    scoring : Scoring

    Returns
    -------
    ndarray of int [shape=(n_drawn,)]
        Class by class; `n_drawn` is `n`, rounded up to a multiple of the number of classes.

    References
    ----------
    Y. Gong, Y.-A. Chung, J. Glass: PSLA: Improving audio tagging with pretraining, sampling, labeling, and aggregation.
    IEEE/ACM Transactions on Audio, Speech, and Language Processing 29 (2021).

    Examples
    --------
    >>> drawn = balanced(np.arange(5), np.array([0, 0, 0, 0, 1]), np.random.default_rng(0))
    >>> np.bincount(np.array([0, 0, 0, 0, 1])[drawn])
    array([3, 3])
    """
    classes = [rows[of_class] for of_class in scoring.of_classes(labels[rows])]
    per_class = -(-len(rows) // len(classes))
    draws = [np.concatenate([rng.permutation(own) for _ in range(-(-per_class // len(own)))]) for own in classes]
    return np.concatenate([drawn[:per_class] for drawn in draws])


def _read_ahead(path: Path, rows: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
    """Yield the features of each array of rows from an HDF5 file, read in advance by a thread."""
    with opened(path) as file, ThreadPoolExecutor(1) as pool:
        features = file["features"]

        def read(indices: np.ndarray) -> torch.Tensor:
            """Return the features of these rows [shape=(n, channels, n_mels, width)]."""
            batch = np.empty((len(indices), *features.shape[1:]), features.dtype)
            for i, index in enumerate(indices):
                batch[i] = features[index]  # h5py is many times slower with all indices at once
            return torch.from_numpy(batch)

        waiting: collections.deque[Future[torch.Tensor]] = collections.deque()
        for indices in rows:
            waiting.append(pool.submit(read, indices))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Data:
    """The features and labels of a data set, as mini-batches on a device.

    The cache must be complete. Features, and outputs of frozen blocks, of up to `memory` bytes each (default: half of
    the free memory, shared by this number of processes) are held in memory, or on the device if they fit there; larger
    ones are read from a file.
    """

    def __init__(
        self,
        dataset: DataSet,
        cache: FeatureCache,
        device: torch.device,
        *,
        memory: float | None = None,
        sharers: int = 1,
    ) -> None:
        self.dataset, self.cache, self.device, self.memory, self.sharers = dataset, cache, device, memory, sharers
        self.label_names, self.labels = dataset.label_names, labels_of(dataset)
        self.scoring = SCORINGS[dataset.labels_per_clip]
        self._held: dict[str, torch.Tensor] = {}
        self._hold(cache)
        self._outputs: tuple[str, torch.Tensor] | None = None

    @property
    def held(self) -> torch.Tensor | None:
        """The features if they are held in memory, else None."""
        return self._held.get(self.cache.key)

    def _hold(self, cache: FeatureCache) -> None:
        """Load the features of a cache if there is space for them."""
        if self._fits_in_memory(cache.nbytes):
            held = torch.from_numpy(cache.load())
            self._held[cache.key] = held.to(self.device) if self._fits_on_device(cache.nbytes) else held

    def variants(self, augmentation: Augmentation) -> VariantCache:
        """Return the cache of augmented clips, rendered if necessary; only one is held at a time."""
        cache = VariantCache(self.cache, augmentation)
        if cache.key not in self._held:
            cache.fill()
            self._held = {key: held for key, held in self._held.items() if key == self.cache.key}
            self._hold(cache)
        return cache

    def _fits_in_memory(self, nbytes: int) -> bool:
        return nbytes <= (free_memory() / 2 / self.sharers if self.memory is None else self.memory)

    def _fits_on_device(self, nbytes: int) -> bool:
        return self.device.type == "cuda" and nbytes < torch.cuda.mem_get_info(self.device)[0] / 2

    def batches(self, rows: Iterable[np.ndarray], cache: FeatureCache | None = None) -> Iterator[torch.Tensor]:
        """Yield the features of each array of rows [shape=(n, channels, n_mels, width), float32], on the device.

        Rows are those of the data set, or of a cache that `variants` returned.
        """
        cache = cache or self.cache
        held = self._held.get(cache.key)
        source = _read_ahead(cache.path, rows) if held is None else (held[torch.from_numpy(batch)] for batch in rows)
        return (x.to(self.device, non_blocking=True).float() for x in source)

    def outputs(
        self,
        key: str,
        run: Callable[[torch.Tensor], torch.Tensor],
        rows: Iterable[np.ndarray],
        *,
        batch_size: int = PASS_SIZE,
    ) -> Iterator[torch.Tensor]:
        """Yield the outputs of `run` for each array of rows, on the device and in channels-last order.

        It is called once for every clip, with `batch_size` of them at a time, as long as `key` is the same; `key` must
        change if anything changes that the outputs depend on. `run` takes a batch as `batches` yields it, and returns a
        tensor [shape=(n, channels, height, width)] without gradients, where the output for a clip does not depend on
        the other clips.
        """
        if self._outputs is None or self._outputs[0] != key:
            self.forget_outputs()  # frees its memory for the next
            self._outputs = key, self._computed(run, batch_size)
        held = self._outputs[1]
        return (held[torch.from_numpy(batch)].to(self.device, non_blocking=True).permute(0, 3, 1, 2) for batch in rows)

    def forget_outputs(self) -> None:
        """Free the memory of `outputs`."""
        self._outputs = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # memory that torch keeps would count as taken

    def _computed(self, run: Callable[[torch.Tensor], torch.Tensor], batch_size: int) -> torch.Tensor:
        """Return the outputs of `run` for every clip [shape=(n_clips, height, width, channels)]."""
        parts, held = chunks(np.arange(len(self.labels)), batch_size), None
        bar = tqdm.tqdm(total=len(self.labels), desc="frozen blocks", unit="clip", delay=2, leave=False, disable=None)
        with bar:
            for rows, x in zip(parts, self.batches(parts), strict=True):
                y = run(x).permute(0, 2, 3, 1)
                if held is None:
                    held = self._empty((len(self.labels), *y.shape[1:]), y.dtype)
                held[torch.from_numpy(rows)] = y.to(held.device)
                bar.update(len(rows))
        assert held is not None  # a data set has clips
        return held

    def _empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor on the device, in memory, or in a nameless file that is freed with it."""
        nbytes = math.prod(shape) * dtype.itemsize
        if self._fits_in_memory(nbytes):
            return torch.empty(shape, dtype=dtype, device=self.device if self._fits_on_device(nbytes) else "cpu")
        folder = self.cache.path.parent
        check_space(folder / "the outputs of frozen blocks", nbytes)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a disk that becomes full later would kill the process
            mapped = np.memmap(file, np.uint8, "w+", shape=(nbytes,))
        return torch.from_numpy(mapped).view(dtype).view(shape)
