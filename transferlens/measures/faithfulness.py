"""Scores of attributions: where they lie, whether they follow the network, and whether they find a known event.

An attribution is that of one clip, summed over channels (n_mels, width), positive where a cell speaks for the target.
Every score has a chance level: that of the same attribution shifted in time. A shift keeps the distribution over mel
bands and loses only the relation to the clip.

- `claims` scores what the paper says: attributions follow energy and edges.
- `curve` and `area` give insertion and deletion [1]_; `cascade` randomises a network block by block [2]_.
- `known_answer` scores clips whose event is known, among others by the pointing game [3]_.
- `shifted`, `ranks`, `mean_product`, `rank_correlation` and `edges` are their parts.

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
    """Return standardised ranks over all cells, whose mean product is Spearman's correlation; 0 if all are tied."""
    ranked = scipy.stats.rankdata(values).reshape(values.shape)
    return (ranked - ranked.mean()) / (ranked.std() or 1.0)


def mean_product(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the mean product over cells; for `ranks` this is Spearman's correlation."""
    return float(np.mean(a * b))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Spearman's rank correlation over cells; 0 if one side is constant."""
    return mean_product(ranks(a), ranks(b))


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
    """Score the paper's claims about where attributions lie, each with its chance level.

    Parameters
    ----------
    attribution, energy : ndarray [shape=(n_mels, width)]
        The energy as log-mel power.

    Returns
    -------
    scores : dict of str to float
        energy_correlation and edge_correlation: rank correlation of the attribution's magnitude with the energy, and
        with the magnitude of the energy's gradient. loudest_share: share of the magnitude in the loudest tenth of the
        cells. Each also as "<name>_chance", for the attribution shifted in time.

    References
    ----------
    Palanisamy, Singhania, Yao (2020), section 4.4.
    """
    magnitude = np.abs(attribution)
    loud, ranked = energy >= np.quantile(energy, 1 - LOUDEST), ranks(magnitude)
    scores = _with_chance("loudest_share", lambda values: _share(values, loud), magnitude)
    for name, other in (("energy_correlation", energy), ("edge_correlation", edges(energy))):
        scores |= _with_chance(name, functools.partial(mean_product, ranks(other)), ranked)
    return scores


def known_answer(attribution: np.ndarray, mask: np.ndarray, energy: np.ndarray) -> dict[str, float]:
    """Score how much of the attribution lies in the event, compared with chance and with the energy as attribution.

    Parameters
    ----------
    attribution, mask, energy : ndarray [shape=(channels, n_mels, width)]
        The mask as of `transferlens.features.event_mask`; the energy as power above silence, not negative.

    Returns
    -------
    scores : dict of str to float
        event_share: share of the positive attribution inside the mask. points_into_event: 1 if the strongest cell lies
        inside (pointing game, Zhang et al. 2016), else 0. Both are 0 if no attribution is positive. Each also as
        "<name>_chance" and "<name>_energy".
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
    """Compute the target's probability as cells are inserted into the baseline, or deleted, in an order.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; gives logits.
    x, baseline : torch.Tensor [shape=(channels, height, width)]
    target : int
    order : ndarray [shape=(height, width)]
        Cells with larger values come first, all channels at once.
    insert : bool
        True: cells of `x` replace those of the baseline. False: the reverse.

    Returns
    -------
    probabilities : ndarray [shape=(11,)]
        With 0, 10, ... 100 % of the cells replaced.

    References
    ----------
    Petsiuk et al. 2018, section 4.3.
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
    """Yield copies of a network with more and more blocks randomised, from the head down.

    Parameters
    ----------
    network, random : Network
        The trained network, and a randomly initialised one of the same plan.

    Yields
    ------
    through : str
        The last part that is randomised: "head", then "block 4", ... "block 0".
    network : Network
        In evaluation mode.

    References
    ----------
    Adebayo et al. 2018, section 3.1.
    """
    state, random_state = dict(network.state_dict()), random.state_dict()
    for part in ("head", *reversed(range(len(network.blocks)))):
        state |= {name: tensor for name, tensor in random_state.items() if network.block_of(name) == part}
        current = copy.deepcopy(network)
        current.load_state_dict(state)
        yield "head" if part == "head" else f"block {part}", current.eval()
