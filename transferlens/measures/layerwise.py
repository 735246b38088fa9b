"""Two networks of one architecture against each other, layer by layer: representations and weights.

Question 2 of Palanisamy, Singhania and Yao (2020, section 4.2), by representation: at every convolution and at the end
of every block, in one pass over the clips through both networks. `transferlens.svcca` asks it of runs.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.measures.cca import Similarity
from transferlens.measures.similarity import cka
from transferlens.measures.streaming import Moments
from transferlens.util.errors import ParameterError
from transferlens.util.lazy import torch, tqdm

if TYPE_CHECKING:
    from transferlens.models.network import Network

__all__ = ["Layer", "LayerSimilarity", "block_matrix", "compare", "layers", "samples", "weight_change"]

# Clips that go through a network at once.
BATCH = 4


@dataclass(frozen=True)
class Layer:
    """A place in a network whose output is looked at.

    Attributes
    ----------
    name : str
        timm's name of the convolution, or "block 3" for the end of a block.
    block : int in 0..4
    depth : int
        Its place in the order of computation, among all layers.
    module : str
        Name of the module whose output it is, in the whole network.
    """

    name: str
    block: int
    depth: int
    module: str

    @property
    def is_block(self) -> bool:
        """Whether it is the end of a block, and no convolution."""
        return self.name == f"block {self.block}"


@contextlib.contextmanager
def _hooked(network: Network, names: Iterable[str], hook: Callable[[str, Any], None]) -> Iterator[None]:
    """Call ``hook(name, output)`` whenever one of these modules has run; all hooks are removed at the end."""

    def make(name: str) -> Callable:
        return lambda module, args, out: hook(name, out)

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.callback(network.get_submodule(name).register_forward_hook(make(name)).remove)
        yield


def layers(network: Network, x: torch.Tensor) -> list[Layer]:
    """Every convolution and the end of every block, in the order in which they run.

    Parameters
    ----------
    network : Network
    x : torch.Tensor [shape=(n, channels, height, width)]
        Any input.
    """
    names = {module: name for name, module in network.named_modules()}
    ends = {names[block[-1]]: number for number, block in enumerate(network.blocks)}
    convolutions = {
        names[module]: number
        for number, block in enumerate(network.blocks)
        for module in block.modules()
        if isinstance(module, torch.nn.Conv2d)
    }
    order: list[str] = []
    with _hooked(network, convolutions.keys() | ends.keys(), lambda name, out: order.append(name)), torch.no_grad():
        network.features(x)
    found = []
    for name in dict.fromkeys(order):
        if name in convolutions:
            found.append((name.removeprefix("backbone."), convolutions[name], name))
        if name in ends:
            found.append((f"block {ends[name]}", ends[name], name))
    return [Layer(name, block, depth, module) for depth, (name, block, module) in enumerate(found)]


def check_positions(positions: str) -> None:
    """Refuse what `samples` does not know."""
    if positions not in ("all", "mean") and not re.fullmatch(r"0*[1-9][0-9]{0,8}", str(positions)):
        raise ParameterError(f"positions={positions!r} must be all, mean, or a number of at least 1")


@functools.lru_cache(maxsize=4096)
def _drawn(clip: int, n: int, size: int) -> np.ndarray:
    """`n` of a map's positions: of one clip the same ones in every map of this size."""
    return np.random.default_rng([clip, size]).choice(size, n, replace=False)


def samples(out: torch.Tensor, positions: str, clips: Iterable[int]) -> np.ndarray:
    """Activations of a layer's output, every position a sample and every channel a neuron.

    Parameters
    ----------
    out : torch.Tensor [shape=(n, channels, height, width)]
    positions : str
        "all", "mean" over positions, or how many of each clip.
    clips : iterable of int [shape=(n,)]
        Their numbers, which decide the positions that are drawn.

    Returns
    -------
    activations : ndarray [shape=(n_samples, channels)]
    """
    flat = out.float().flatten(2)
    if positions == "mean":
        return flat.mean(2).numpy(force=True)
    if positions != "all" and flat.shape[2] > int(positions):
        chosen = torch.from_numpy(np.stack([_drawn(clip, int(positions), flat.shape[2]) for clip in clips]))
        flat = flat.gather(2, chosen.to(flat.device)[:, None].expand(-1, flat.shape[1], -1))
    # A copy: the network may go on in place.
    return flat.transpose(1, 2).reshape(-1, flat.shape[1]).numpy(force=True).copy()


@dataclass(frozen=True)
class LayerSimilarity:
    """One layer of two networks."""

    layer: Layer
    n_neurons: int
    measures: Mapping[str, Similarity]
    intervals: Mapping[str, tuple[float, float]]


def compare(
    before: Network,
    after: Network,
    x: torch.Tensor,
    *,
    positions: str = "64",
    variance: float = 0.99,
    groups: int = 20,
    resamples: int = 1000,
    progress: bool = False,
) -> list[LayerSimilarity]:
    """Compare two networks of one architecture at every layer, in one pass over the clips.

    Parameters
    ----------
    before, after : Network
        In evaluation mode.
    x : torch.Tensor [shape=(n_clips, channels, height, width)]
        Their input.
    positions : str
        As for `samples`.
    variance : float in (0, 1]
    groups : int > 0
        Groups of clips that the bootstrap draws from.
    resamples : int >= 0
    progress : bool
        Whether to show a bar.

    Returns
    -------
    list of LayerSimilarity
        In the order of depth.

    Raises
    ------
    ParameterError
        Where the networks have other layers, an option is outside its rule, or the samples are fewer than 2.
    """
    check_positions(positions)
    found = layers(before, x[:1])
    if found != layers(after, x[:1]):
        raise ParameterError("before and after must be networks of one backbone, cut after the same block")
    moments = {layer.module: Moments(variance=variance, groups=max(1, min(groups, len(x)))) for layer in found}
    # Neighbours, which are often cut from one recording, in one group.
    groups_of_clips = np.array_split(np.arange(len(x)), min(groups, len(x)))
    batches = [(rows[i : i + BATCH], g) for g, rows in enumerate(groups_of_clips) for i in range(0, len(rows), BATCH)]
    bar = functools.partial(tqdm.tqdm, disable=None if progress else True, delay=2, leave=False)
    for rows, group in bar(batches, unit="batch"):
        first: dict[str, np.ndarray] = {}

        def keep(name: str, out: torch.Tensor, first: dict = first, rows: np.ndarray = rows) -> None:
            first[name] = samples(out, positions, rows)

        def add(name: str, out: torch.Tensor, first: dict = first, rows: np.ndarray = rows, group: int = group) -> None:
            moments[name].update(first.pop(name), samples(out, positions, rows), group=group)

        for network, hook in ((before, keep), (after, add)):
            with _hooked(network, moments, hook), torch.inference_mode():
                network.features(x[rows])
    # One module can be a convolution and the end of a block.
    solved = {}
    for name in bar(list(moments), unit="layer"):
        each = moments.pop(name)
        assert each.n_neurons is not None  # every layer has run
        solved[name] = each.n_neurons[0], each.measure(), each.bootstrap(resamples=resamples) if resamples else {}
    return [LayerSimilarity(layer, *solved[layer.module]) for layer in found]


def block_matrix(before: Network, after: Network, x: torch.Tensor) -> np.ndarray:
    """Linear CKA of every block's pooled output in one network with every block's in the other.

    Parameters
    ----------
    before, after : Network
        In evaluation mode.
    x : torch.Tensor [shape=(n_clips, channels, height, width)]

    Returns
    -------
    similarity : ndarray [shape=(n_blocks_before, n_blocks_after)]

    Raises
    ------
    ParameterError
        Where there are fewer than 2 clips.
    """
    sides = []
    for network in (before, after):
        pooled: list[list[np.ndarray]] = [[] for _ in network.blocks]
        with torch.inference_mode():
            for part in x.split(32):
                for number in range(len(network.blocks)):
                    part = network.features(part, start=number, through=number)
                    pooled[number].append(samples(part, "mean", ()))
        sides.append([np.concatenate(each) for each in pooled])
    return np.array([[cka(a, b).similarity for b in sides[1]] for a in sides[0]])


def weight_change(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """Relative L2 distance of `b` from `a`, and the cosine between them.

    0 and 1 where both are zero; infinite and 0 where only `a` is, 1 and 0 where only `b` is.

    Raises
    ------
    ParameterError
        Where the shapes differ.
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
