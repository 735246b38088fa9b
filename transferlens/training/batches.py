"""What a network is fed, batch by batch: features, or what its frozen beginning made of them.

What frozen blocks give for a clip never changes while the rest is trained, so it is computed once (`Data.outputs`)
and shared by all runs whose frozen blocks and inputs are the same. Either lies where there is room: on the device,
in memory, or in a file.
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
from transferlens.models.forward import PASS_SIZE
from transferlens.util.files import check_space
from transferlens.util.lazy import psutil, torch, tqdm

if TYPE_CHECKING:
    from transferlens.data.clips import DataSet

__all__ = ["Data", "chunks"]

# Batches that are read from a file before they are asked for.
AHEAD = 3


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Split into batches of nearly equal length, about `size`, none of a lone clip: BatchNorm needs two."""
    return np.array_split(rows, max(1, min(-(-len(rows) // size), len(rows) // 2)))


def _read_ahead(path: Path, rows: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
    """Feature rows read from HDF5, a tensor for each array of row numbers, in a thread that is some batches ahead."""
    with opened(path) as file, ThreadPoolExecutor(1) as pool:
        features = file["features"]

        def read(places: np.ndarray) -> torch.Tensor:
            batch = np.empty((len(places), *features.shape[1:]), features.dtype)
            for i, place in enumerate(places):
                batch[i] = features[place]  # an index with all places is many times slower
            return torch.from_numpy(batch)

        waiting: collections.deque[Future[torch.Tensor]] = collections.deque()
        for places in rows:
            waiting.append(pool.submit(read, places))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Data:
    """The features and labels of a data set, ready to be trained on.

    Parameters
    ----------
    dataset : DataSet
    cache : FeatureCache
        Complete.
    device : torch.device
    memory : float [bytes], optional
        Features, and outputs of frozen blocks, may each take this much; what takes more is read from a file. Half of
        what is free by default. What may be held lies on the device if it fits there.
    """

    def __init__(
        self, dataset: DataSet, cache: FeatureCache, device: torch.device, *, memory: float | None = None
    ) -> None:
        self.dataset = dataset
        self.label_names = dataset.label_names
        self.labels = np.array([self.label_names.index(clip.label) for clip in dataset.clips])
        self.device, self.cache, self.memory = device, cache, memory
        self._held: dict[str, torch.Tensor] = {}
        self._hold(cache)
        self._outputs: tuple[str, torch.Tensor] | None = None

    @property
    def held(self) -> torch.Tensor | None:
        """The features, where they are in memory."""
        return self._held.get(self.cache.key)

    def _hold(self, cache: FeatureCache) -> None:
        """Load what a cache has, where there is room for it."""
        if self._fits_in_memory(cache.nbytes):
            held = torch.from_numpy(cache.load())
            self._held[cache.key] = held.to(self.device) if self._fits_on_device(cache.nbytes) else held

    def variants(self, augmentation: Augmentation) -> VariantCache:
        """The cache of augmented clips, rendered where that has not been done; one is held at a time."""
        cache = VariantCache(self.cache, augmentation)
        if cache.key not in self._held:
            cache.fill()
            self._held = {key: held for key, held in self._held.items() if key == self.cache.key}
            self._hold(cache)
        return cache

    def _fits_in_memory(self, nbytes: int) -> bool:
        return nbytes <= (psutil.virtual_memory().available / 2 if self.memory is None else self.memory)

    def _fits_on_device(self, nbytes: int) -> bool:
        return self.device.type == "cuda" and nbytes < torch.cuda.mem_get_info(self.device)[0] / 2

    def batches(self, rows: Iterable[np.ndarray], cache: FeatureCache | None = None) -> Iterator[torch.Tensor]:
        """Features [shape=(n, channels, n_mels, width), float32] on the device, for each array of row numbers.

        Of the clips as they are, or of another cache that `variants` gave.
        """
        cache = cache or self.cache
        held = self._held.get(cache.key)
        source = _read_ahead(cache.path, rows) if held is None else (held[torch.from_numpy(each)] for each in rows)
        return (x.to(self.device, non_blocking=True).float() for x in source)

    def outputs(
        self, key: str, run: Callable[[torch.Tensor], torch.Tensor], rows: Iterable[np.ndarray]
    ) -> Iterator[torch.Tensor]:
        """Batches of what `run` gives for features; it is run once for every clip while `key` stays the same.

        Parameters
        ----------
        key : str
            Tells apart all that `run` depends on.
        run : callable
            Takes features as `batches` gives them, returns a tensor [shape=(n, channels, height, width)] without a
            graph; a clip's output must not depend on the clips beside it.
        rows : iterable of ndarray of int

        Returns
        -------
        iterator of torch.Tensor [shape=(n, channels, height, width)]
            On the device, in channels-last order, in the type that `run` gave.
        """
        if self._outputs is None or self._outputs[0] != key:
            self.forget_outputs()  # its memory is free for the next
            self._outputs = key, self._computed(run)
        held = self._outputs[1]
        return (held[torch.from_numpy(each)].to(self.device, non_blocking=True).permute(0, 3, 1, 2) for each in rows)

    def forget_outputs(self) -> None:
        """Free what `outputs` holds."""
        self._outputs = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # else what torch keeps of it counts as taken

    def _computed(self, run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """What `run` gives for every clip: [shape=(n_clips, height, width, channels)]."""
        parts, held = chunks(np.arange(len(self.labels)), PASS_SIZE), None
        bar = tqdm.tqdm(total=len(self.labels), desc="frozen blocks", unit="clip", delay=2, leave=False, disable=None)
        with bar:
            for rows, x in zip(parts, self.batches(parts), strict=True):
                y = run(x).permute(0, 2, 3, 1)
                if held is None:
                    held = self._room((len(self.labels), *y.shape[1:]), y.dtype)
                held[torch.from_numpy(rows)] = y.to(held.device)
                bar.update(len(rows))
        assert held is not None  # a data set has clips
        return held

    def _room(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor on the device, in memory, or in a file without a name, gone with the tensor."""
        nbytes = math.prod(shape) * dtype.itemsize
        if self._fits_in_memory(nbytes):
            return torch.empty(shape, dtype=dtype, device=self.device if self._fits_on_device(nbytes) else "cpu")
        folder = self.cache.path.parent
        check_space(folder / "the outputs of frozen blocks", nbytes)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a disk that fills up later would kill the process
            mapped = np.memmap(file, np.uint8, "w+", shape=(nbytes,))
        return torch.from_numpy(mapped).view(dtype).view(shape)
