"""Scores of attributions: where they lie, whether they follow the network, and whether they find a known event.

An attribution is that of one clip, summed over channels (n_mels, width), positive where a cell speaks for the target.
Every score has a chance level: that of the same attribution shifted in time. A shift keeps the distribution over mel
bands and loses only the relation to the clip.

- `claims` scores what the paper says: attributions follow energy and edges.
- `curve` and `area` give insertion and deletion [1]_; `cascade` randomises a network block by block [2]_.
- `known_answer` scores clips whose event is known, among others by the pointing game [3]_.
- `shifted`, `ranks`, `mean_product` and `edges` are their parts.

References
----------
.. [1] V. Petsiuk, A. Das, K. Saenko: RISE: randomized input sampling for explanation of black-box models. BMVC 2018,
   section 4.3.
.. [2] J. Adebayo et al.: Sanity checks for saliency maps. NeurIPS 2018, section 3.1.
.. [3] J. Zhang et al.: Top-down neural attention by excitation backprop. ECCV 2016, section 4.1.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from transferlens.models.forward import forward
from transferlens.util.lazy import scipy, torch

if TYPE_CHECKING:
    from transferlens.models.network import Network


# Share of the cells that count as loud.
LOUDEST = 0.1
# The chance level is the mean over this many shifts in time, by one to nine tenths of the clip.
SHIFTS = 20
# Points of a curve.
POINTS = 11


def shifted(score: Callable[[np.ndarray], float], attribution: np.ndarray) -> float:
    """Compute the mean score over circular shifts of the attribution in time, its last axis."""
    width = attribution.shape[-1]
    shifts = np.unique(np.linspace(0.1 * width, 0.9 * width, SHIFTS).astype(int))
    return float(np.mean([score(np.roll(attribution, shift, axis=-1)) for shift in shifts]))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return standardised ranks over all cells; 0 if all are tied."""
    ranked = scipy.stats.rankdata(values).reshape(values.shape)
    return (ranked - ranked.mean()) / (ranked.std() or 1.0)


def mean_product(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the mean product over cells; of `ranks` this is Spearman's correlation."""
    return float(np.mean(a * b))


def edges(energy: np.ndarray) -> np.ndarray:
    """Compute the magnitude of the gradient of a spectrogram [shape=(n_mels, width)]."""
    return np.hypot(*np.gradient(energy))


def _share(values: np.ndarray, inside: np.ndarray) -> float:
    """Compute the share of non-negative values that lies inside a mask; 0 if all are 0."""
    total = values.sum()
    return float(values[inside].sum() / total) if total else 0.0


def _with_chance(name: str, score: Callable[[np.ndarray], float], attribution: np.ndarray) -> dict[str, float]:
    return {name: float(score(attribution)), f"{name}_chance": shifted(score, attribution)}


def claims(attribution: np.ndarray, energy: np.ndarray) -> dict[str, float]:
    """Score the paper's claims about where attributions lie [shape=(n_mels, width), the energy as log-mel power].

    energy_correlation and edge_correlation are rank correlations of the attribution's magnitude with the energy, and
    with the magnitude of the energy's gradient. loudest_share is the share of the magnitude in the loudest tenth of the
    cells. Each also as "<name>_chance".
    """
    magnitude = np.abs(attribution)
    loud, ranked = energy >= np.quantile(energy, 1 - LOUDEST), ranks(magnitude)
    scores = _with_chance("loudest_share", lambda values: _share(values, loud), magnitude)
    for name, other in (("energy_correlation", energy), ("edge_correlation", edges(energy))):
        scores |= _with_chance(name, functools.partial(mean_product, ranks(other)), ranked)
    return scores


def known_answer(attribution: np.ndarray, mask: np.ndarray, energy: np.ndarray) -> dict[str, float]:
    """Score how much of the attribution lies in the event [shape=(channels, n_mels, width)].

    event_share is the share of the positive attribution inside the mask; points_into_event is 1 if the strongest cell
    lies inside, else 0; both are 0 if no attribution is positive. Each also as "<name>_chance", and as "<name>_energy"
    for the energy (power above silence, not negative) as attribution.
    """
    scores: dict[str, float] = {}
    functions = {
        "event_share": lambda values: _share(values, mask),
        "points_into_event": lambda values: float(values.any() and mask.flat[int(np.argmax(values))]),
    }
    for name, score in functions.items():
        scores |= _with_chance(name, score, np.maximum(attribution, 0))
        scores[f"{name}_energy"] = score(energy)
    return scores


def curve(
    model: Network, x: torch.Tensor, *, baseline: torch.Tensor, target: int, order: np.ndarray, insert: bool
) -> np.ndarray:
    """Compute the target's probability as 0, 10, ... 100 % of the cells of an input are replaced [shape=(11,)].

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; returns logits.
    x, baseline : torch.Tensor [shape=(channels, height, width)]
    target : int
    order : ndarray [shape=(height, width)]
        Cells with larger values are replaced first, all channels at once.
    insert : bool
        True: cells of `x` replace those of the baseline (insertion). False: the reverse (deletion).
    """
    positions = np.empty(order.size, int)
    positions[np.argsort(-order, axis=None, kind="stable")] = np.arange(order.size)
    position = torch.from_numpy(positions.reshape(order.shape)).to(x.device)
    start, end = (baseline, x) if insert else (x, baseline)
    counts = np.linspace(0, order.size, POINTS).round().astype(int)
    inputs = torch.stack([torch.where(position < int(count), end, start) for count in counts])
    return forward(model, inputs).softmax(1)[:, target].double().numpy()


def area(probabilities: np.ndarray) -> float:
    """Compute the area under a `curve`, in [0, 1], by the trapezoidal rule."""
    return float(scipy.integrate.trapezoid(probabilities, dx=1 / (len(probabilities) - 1)))


def cascade(network: Network, random: Network) -> Iterator[tuple[str, Network]]:
    """Yield a trained network with more and more blocks of a random one of its plan, from the head down.

    Each comes in evaluation mode, after the name of the last part that is randomised: "head", "block 4", ... "block 0".
    """
    state, random_state = dict(network.state_dict()), random.state_dict()
    for part in ("head", *reversed(range(len(network.blocks)))):
        state |= {name: tensor for name, tensor in random_state.items() if network.block_of(name) == part}
        current = copy.deepcopy(network)
        current.load_state_dict(state)
        yield "head" if part == "head" else f"block {part}", current.eval()
