"""What attributions are worth, as numbers: the paper's claims, faithfulness, and the known answer of the built-in set.

All take the attribution of a clip summed over channels, a value a cell (mel band x frame), positive where the cell
speaks for the target. Chance is what the same attribution has when it is shifted in time against the clip: its own
distribution over mel bands is kept, and only what it has to do with this clip is lost.

References
----------
V. Petsiuk, A. Das, K. Saenko: RISE: randomized input sampling for explanation of black-box models. BMVC 2018, section
4.3 (insertion and deletion).
J. Adebayo et al.: Sanity checks for saliency maps. NeurIPS 2018, section 3.1 (cascading randomisation).
J. Zhang et al.: Top-down neural attention by excitation backprop. ECCV 2016, section 4.1 (pointing game).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from transferlens.util.lazy import scipy, torch

if TYPE_CHECKING:
    from transferlens.models.network import Network

__all__ = [
    "area",
    "cascade",
    "claims",
    "curve",
    "edges",
    "known_answer",
    "mean_product",
    "rank_correlation",
    "shifted",
]

LOUDEST = 0.1
# Shifts in time that chance is the mean of, from a tenth of the clip to nine.
SHIFTS = 20
# Points of a curve, and inputs in one pass.
POINTS, PASS = 11, 8


def shifted(score: Callable[[np.ndarray], float], attribution: np.ndarray) -> float:
    """Mean score over shifts of the attribution in time (circular): its last axis."""
    width = attribution.shape[-1]
    shifts = np.unique(np.linspace(0.1 * width, 0.9 * width, SHIFTS).astype(int))
    return float(np.mean([score(np.roll(attribution, shift, axis=-1)) for shift in shifts]))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks over all cells, standardised, so that the mean of a product is Spearman's correlation; 0 where all tie."""
    found = scipy.stats.rankdata(values).reshape(values.shape)
    return (found - found.mean()) / (found.std() or 1.0)


def mean_product(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over cells of their product; of `ranks`, Spearman's correlation."""
    return float(np.mean(a * b))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation over cells; 0 where one of them is constant."""
    return mean_product(ranks(a), ranks(b))


def edges(energy: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient of a spectrogram [shape=(n_mels, width)]."""
    return np.hypot(*np.gradient(energy))


def _share(values: np.ndarray, inside: np.ndarray) -> float:
    """Share of non-negative values inside; 0 where all are 0."""
    total = values.sum()
    return float(values[inside].sum() / total) if total else 0.0


def _with_chance(name: str, score: Callable[[np.ndarray], float], attribution: np.ndarray) -> dict[str, float]:
    return {name: float(score(attribution)), f"{name}_chance": shifted(score, attribution)}


def claims(attribution: np.ndarray, energy: np.ndarray) -> dict[str, float]:
    """The paper's claims about where attributions lie, each beside its chance level.

    Parameters
    ----------
    attribution, energy : ndarray [shape=(n_mels, width)]
        The energy as log-mel power.

    Returns
    -------
    scores : dict
        energy_correlation and edge_correlation: rank correlation of the attribution's magnitude with the energy, and
        with the magnitude of its gradient. loudest_share: share of the magnitude in the loudest tenth of the cells.
        Each again as "<name>_chance", of the attribution shifted in time.

    References
    ----------
    Palanisamy, Singhania, Yao (2020), section 4.4.
    """
    magnitude = np.abs(attribution)
    loud, standing = energy >= np.quantile(energy, 1 - LOUDEST), ranks(magnitude)
    found = _with_chance("loudest_share", lambda shares: _share(shares, loud), magnitude)
    for name, other in (("energy_correlation", energy), ("edge_correlation", edges(energy))):
        found |= _with_chance(name, functools.partial(mean_product, ranks(other)), standing)
    return found


def known_answer(attribution: np.ndarray, mask: np.ndarray, energy: np.ndarray) -> dict[str, float]:
    """How much of the attribution lies where the event is, beside chance and beside energy taken for attribution.

    Parameters
    ----------
    attribution, mask, energy : ndarray [shape=(channels, n_mels, width)]
        The mask as `synth.event_mask` gives it; the energy as power above silence, not negative.

    Returns
    -------
    scores : dict
        event_share: share of the positive attribution inside the mask. points_into_event: 1 where the strongest cell
        lies inside (pointing game, Zhang et al. 2016), else 0. Both are 0 where no attribution is positive. Each again
        as "<name>_chance" and "<name>_energy".
    """
    found: dict[str, float] = {}
    scores = {
        "event_share": lambda values: _share(values, mask),
        "points_into_event": lambda values: float(values.any() and mask.flat[int(np.argmax(values))]),
    }
    for name, score in scores.items():
        found |= _with_chance(name, score, np.maximum(attribution, 0))
        found[f"{name}_energy"] = score(energy)
    return found


def curve(
    model: Network, x: torch.Tensor, *, baseline: torch.Tensor, target: int, order: np.ndarray, insert: bool
) -> np.ndarray:
    """The target's probability as cells are inserted into the baseline, or deleted, in an order.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; gives logits.
    x, baseline : torch.Tensor [shape=(channels, height, width)]
    target : int
    order : ndarray [shape=(height, width)]
        Cells of larger values go first, all channels at once.
    insert : bool
        Whether cells of `x` replace those of the baseline, or the other way round.

    Returns
    -------
    probabilities : ndarray [shape=(11,)]
        With 0, 10, ... 100 % of the cells. Their mean by the trapezoidal rule is the area under the curve.

    References
    ----------
    Petsiuk et al. 2018, section 4.3.
    """
    turns = np.empty(order.size, int)
    turns[np.argsort(-order, axis=None, kind="stable")] = np.arange(order.size)
    places = torch.from_numpy(turns.reshape(order.shape)).to(x.device)
    start, end = (baseline, x) if insert else (x, baseline)
    counts = np.linspace(0, order.size, POINTS).round().astype(int)
    inputs = torch.stack([torch.where(places < int(count), end, start) for count in counts])
    with torch.no_grad():
        found = torch.cat([model(part).softmax(1)[:, target] for part in inputs.split(PASS)])
    return found.double().cpu().numpy()


def area(probabilities: np.ndarray) -> float:
    """Area under a `curve`, in [0, 1]."""
    return float(scipy.integrate.trapezoid(probabilities, dx=1 / (len(probabilities) - 1)))


def cascade(network: Network, fresh: Network) -> Iterator[tuple[str, Network]]:
    """Networks with more and more of their blocks randomised, from the top.

    Parameters
    ----------
    network, fresh : Network
        The trained one, and one of the same plan with random weights.

    Yields
    ------
    through : str
        "head", then "block 4", ... "block 0": how deep the randomisation has gone.
    network : Network
        In evaluation mode; a copy, randomised so far.

    References
    ----------
    Adebayo et al. 2018, section 3.1.
    """
    state, random = dict(network.state_dict()), fresh.state_dict()
    for part in ("head", *reversed(range(len(network.blocks)))):
        state |= {name: tensor for name, tensor in random.items() if network.block_of(name) == part}
        current = copy.deepcopy(network)
        current.load_state_dict(state)
        yield "head" if part == "head" else f"block {part}", current.eval()
