"""How similar are two networks of one architecture, layer by layer? By their activations and by their weights.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2); `transferlens.svcca` asks it of runs.

The layers are every convolution and the end of every block. A sample is a position of a clip's map, or a clip; a neuron
is a channel.

- `compare` computes all measures of `similarity` for every layer, in one pass of the clips through both networks.
- `block_matrix` computes debiased CKA of every block of one network with every block of the other.
- `weight_change` computes how much a tensor has changed.
- `layers` lists the layers; `samples` takes activations (n_samples, n_neurons) from a layer's output.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.measures.cca import Similarity
from transferlens.measures.similarity import cka
from transferlens.measures.streaming import Moments
from transferlens.models.forward import forward, hooked
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import threadpoolctl, torch, tqdm
from transferlens.util.processes import cores

if TYPE_CHECKING:
    from transferlens.models.network import Network


# Clips per batch: the samples of all layers of one network are held at once.
BATCH = 4
# Samples per neuron below which the similarity is high whatever the networks are.
ENOUGH = 5


@dataclass(frozen=True)
class Layer:
    """A layer of a network: its depth counts in the order of computation, its module is named in the whole network.

    Its name is timm's of the convolution, or "block 3" for the end of a block.
    """

    name: str
    block: int
    depth: int
    module: str

    @property
    def is_block(self) -> bool:
        """Whether it is the end of a block, not a convolution."""
        return self.name == f"block {self.block}"


def _observed(
    network: Network, names: Iterable[str], hook: Callable[[str, Any], object]
) -> AbstractContextManager[None]:
    """Call ``hook(name, output)`` whenever a module has run; the output of one that ends a block is the block's map."""
    ends = _block_ends(network)
    modules = {name: network.blocks[ends[name]] if name in ends else network.get_submodule(name) for name in names}
    return hooked(modules, lambda name, output: hook(name, network.map(output) if name in ends else output))


def _block_ends(network: Network) -> dict[str, int]:
    """Return the last module of every block, by name, with the block's number."""
    names = {module: name for name, module in network.named_modules()}
    return {names[block[-1]]: number for number, block in enumerate(network.blocks)}


def layers(network: Network, x: torch.Tensor) -> list[Layer]:
    """Return every convolution and the end of every block, in the order of computation for any input `x`."""
    names = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d)]
    convolutions = {name: int(network.block_of(name)) for name in names}
    ends = _block_ends(network)
    order: list[str] = []
    with _observed(network, convolutions | ends, lambda name, output: order.append(name)), torch.no_grad():
        network.features(x)
    places = []
    for name in dict.fromkeys(order):
        if name in convolutions:
            places.append((name.removeprefix("backbone."), convolutions[name], name))
        if name in ends:
            places.append((f"block {ends[name]}", ends[name], name))
    return [Layer(name, block, depth, module) for depth, (name, block, module) in enumerate(places)]


def check_positions(positions: str) -> None:
    """Raise if `positions` is not what `samples` takes."""
    if positions not in ("all", "mean") and not re.fullmatch(r"0*[1-9][0-9]{0,8}", str(positions)):
        raise ParameterError(f"positions={positions!r} must be all, mean, or a number of at least 1")


@functools.lru_cache(maxsize=4096)
def _drawn(draw: int, n: int, size: int) -> torch.Tensor:
    """Draw `n` of the `size` positions of a map: one of every `size / n` neighbours, to spread them."""
    places = np.arange(n) + np.random.default_rng([draw, size]).random(n)
    return torch.from_numpy((places * size / n).astype(np.int64))


def samples(out: torch.Tensor, positions: str, draw: int = 0) -> np.ndarray:
    """Return activations [shape=(n_samples, channels)] of an output [shape=(n, channels, height, width)], clip by clip.

    Every position of a clip is a sample ("all"), or their mean is ("mean"), or a number of them, spread over the map
    and drawn by the seed `draw`, the same ones in every clip.
    """
    flat = out.float().flatten(2)
    if positions == "mean":
        return flat.mean(2).numpy(force=True)
    if positions != "all" and flat.shape[2] > int(positions):
        flat = flat[:, :, _drawn(draw, int(positions), flat.shape[2]).to(flat.device)]
    # A copy: the network may change its maps in place.
    return flat.transpose(1, 2).reshape(-1, flat.shape[1]).numpy(force=True).copy()


@dataclass(frozen=True)
class LayerSimilarity:
    """How similar one layer of two networks is: all measures by name, and the 95 % intervals of some (low, high).

    `null` are the measures for clips that are compared with other clips; it is empty if there is only one clip.
    Where samples are too few for the number of neurons, there are no intervals: they would be for the number of clips
    more than for the networks.
    """

    layer: Layer
    n_neurons: int
    n_samples: int
    measures: Mapping[str, Similarity]
    null: Mapping[str, Similarity]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def too_few(self) -> bool:
        """Whether the samples are fewer than five times the neurons."""
        return self.n_samples < ENOUGH * self.n_neurons


def compare(
    before: Network,
    after: Network,
    x: torch.Tensor,
    *,
    positions: str = "64",
    variance: float = 0.99,
    pwcca_variance: float | None = None,
    groups: int = 10,
    recordings: Sequence[str] = (),
    resamples: int = 1000,
    progress: bool = False,
) -> list[LayerSimilarity]:
    """Compare two networks of one architecture at every layer, in one pass of the clips through both.

    Parameters
    ----------
    before, after : Network
        In evaluation mode.
    x : torch.Tensor [shape=(n_clips, channels, height, width)]
    positions : str
        "all", "mean", or how many positions of each clip are samples, spread over the map.
    variance : float in (0, 1]
        Share of the variance of each side that SVCCA keeps.
    pwcca_variance : float in (0, 1], optional
        Share that PWCCA keeps. Default: `variance`.
    groups : int > 0
        Groups of clips that the bootstrap draws from.
    recordings : sequence of str
        The recording of each clip: its clips are in one group. Empty if they are not known; then neighbours are.
    resamples : int >= 0
        Resamples of the bootstrap; 0 for no intervals.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    ParameterError
        If the networks differ in their layers, an option is outside its range, or there are fewer than 2 samples.
    """
    check_positions(positions)
    common = layers(before, x[:1])
    if common != layers(after, x[:1]):
        raise ParameterError("before and after must be networks of one backbone, cut after the same block")
    n, groups = len(x), min(groups, len(x))
    new = functools.partial(Moments, variance=variance, pwcca_variance=pwcca_variance, groups=groups)
    moments = {layer.module: new() for layer in common}
    # Clips of one recording, which often are neighbours, are in one group. In a batch, clips are compared with other
    # clips: they are far apart.
    sizes = collections.Counter(recordings or range(n))
    place = dict(zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False))
    group = np.array([place[each] for each in recordings or range(n)]) * groups // n
    n_batches = -(-n // BATCH)
    bar = functools.partial(tqdm.tqdm, disable=None if progress else True, delay=2, leave=False)
    for batch in bar(range(n_batches), unit="batch"):
        clips = np.arange(batch, n, n_batches)
        sample = functools.partial(samples, positions=positions, draw=batch)
        _add_activations(moments, (before, after), x[clips], sample, group[clips])
    # One module can be both a convolution and the end of a block.
    distinct = {layer.module: layer for layer in common}.values()

    def measure(layer: Layer) -> LayerSimilarity:
        """Return the measures of a layer, and drop its sums."""
        sums = moments.pop(layer.module)  # frees its memory
        assert sums.n_neurons is not None  # every layer has run
        if sums.n_samples < 2:
            raise ParameterError(f"x is one clip, of which {layer.name} has one sample: compare at least 2 clips")
        null = sums.null() if n > 1 else {}
        similarity = LayerSimilarity(layer, sums.n_neurons[0], sums.n_samples, sums.measure(), null, {})
        if similarity.too_few or not resamples:
            return similarity
        return dataclasses.replace(similarity, intervals=sums.bootstrap(resamples=resamples))

    # One thread per layer: decompositions gain little from several.
    with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
        measured = list(bar(pool.map(measure, distinct), total=len(distinct), unit="layer"))
    results = {each.layer.module: each for each in measured}
    return [dataclasses.replace(results[layer.module], layer=layer) for layer in common]


def _add_activations(
    moments: Mapping[str, Moments],
    networks: tuple[Network, Network],
    x: torch.Tensor,
    sample: Callable[[torch.Tensor], np.ndarray],
    groups: np.ndarray,
) -> None:
    """Add the activations of both networks for a batch of clips to the moments of every module."""
    activations: dict[str, np.ndarray] = {}

    def keep(name: str, output: torch.Tensor) -> None:
        activations[name] = sample(output)

    def add(name: str, output: torch.Tensor) -> None:
        """Add a module's output, and what was kept of the first network, to its moments."""
        X, Y = activations.pop(name), sample(output)
        each = len(Y) // len(groups)
        other_clips = np.roll(Y, each, axis=0) if len(groups) > 1 else None
        moments[name].update(X, Y, group=np.repeat(groups, each), shuffled=other_clips)

    for network, hook in zip(networks, (keep, add), strict=True):
        with _observed(network, moments, hook), torch.no_grad():
            network.features(x)


def block_matrix(before: Network, after: Network, x: torch.Tensor) -> np.ndarray:
    """Compute debiased linear CKA of every block's pooled output in one network with every block's in the other.

    At least 4 clips are needed, and networks in evaluation mode [shape=(n_blocks_before, n_blocks_after)].
    """
    rows, columns = (_pooled(network, x) for network in (before, after))
    return np.array([[cka(a, b, debiased=True).similarity for b in columns] for a in rows])


def _pooled(network: Network, x: torch.Tensor) -> list[np.ndarray]:
    """Return every block's output averaged over positions [shape=(n_clips, channels)]."""
    ends = _block_ends(network)
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in ends}
    with _observed(network, ends, lambda name, output: pooled[name].append(samples(output, "mean"))):
        forward(network, x)
    return [np.concatenate(batches) for batches in pooled.values()]


def weight_change(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """Compute the relative L2 distance of `b` from `a`, and the cosine between them.

    They are 0 and 1 if both tensors are zero, infinite and 0 if only `a` is, and 1 and 0 if only `b` is.
    Raise ParameterError if the shapes differ.
    """
    if a.shape != b.shape:
        raise ParameterError(f"a of shape {tuple(a.shape)} and b of shape {tuple(b.shape)} must be of one shape")
    a, b = a.double().flatten(), b.double().flatten()
    if largest := max(a.abs().max().item(), b.abs().max().item()):
        a, b = a / largest, b / largest
    size, distance = a.norm().item(), (b - a).norm().item()
    if not size or not b.norm():
        return (0.0, 1.0) if distance == 0 else (float("inf") if not size else 1.0, 0.0)
    return distance / size, torch.dot(a / size, b / b.norm()).item()
