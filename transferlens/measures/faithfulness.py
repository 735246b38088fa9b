"""Scores of attributions: where they lie, whether they follow the network, and whether they find a known event.

An attribution is that of one clip, summed over channels (n_mels, width), positive where a cell speaks for the target.
Every score has a chance level: that of the same attribution shifted in time. A shift keeps the distribution over mel
bands and loses only the relation to the clip.

- `claims` scores what the paper says: attributions follow energy and edges.
- `curve` and `area` give insertion and deletion [1]_, and `areas` those of an attribution and of it shifted in time;
  `medians` and `patches` are what cells are replaced by, and an order to compare with.
- `cascade` randomises a network block by block [2]_; `sensitivity` is how far noise on the input moves an attribution
  [4]_; `agreement` is how alike attributions are.
- `known_answer` scores clips whose event is known: by average precision, by the pointing game [3]_, and by the share
  inside; `sdr` scores the sound that an attribution lets through [5]_.
- `shifted`, `ranks`, `mean_product` and `edges` are their parts.

References
----------
.. [1] V. Petsiuk, A. Das, K. Saenko: RISE: randomized input sampling for explanation of black-box models. BMVC 2018,
   section 4.3.
.. [2] J. Adebayo et al.: Sanity checks for saliency maps. NeurIPS 2018, section 3.1.
.. [3] J. Zhang et al.: Top-down neural attention by excitation backprop. ECCV 2016, section 4.1.
.. [4] C.-K. Yeh et al.: On the (in)fidelity and sensitivity of explanations. NeurIPS 2019, section 4.
.. [5] J. Le Roux et al.: SDR: half-baked or well done? ICASSP 2019, equation 5.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.models.forward import forward, seeded
from transferlens.util.lazy import captum, metrics, scipy, torch

if TYPE_CHECKING:
    from transferlens.models.network import Network


# Share of the cells that count as loud.
LOUDEST = 0.1
# The chance level is the mean over this many shifts in time, by one to nine tenths of the clip.
SHIFTS = 20
# Points of a curve.
POINTS = 11
# Shifts in time of the control of a curve, as shares of the clip.
CONTROLS = (1 / 3, 2 / 3)
# Height and width of random patches [cells].
PATCH = (16, 16)
# Noise of `sensitivity`: largest change of a cell, relative to the standard deviation of the input.
RADIUS = 0.02


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

    average_precision is the area under the precision-recall curve of cells, ordered by their attribution, as a search
    for those in the mask; by chance it is the share of cells in the mask. event_share is the share of the positive
    attribution inside the mask; points_into_event is 1 if the strongest cell lies inside, else 0; both are 0 if no
    attribution is positive. Each also as "<name>_chance", and as "<name>_energy" for the energy (power above silence,
    not negative) as attribution. All are NaN if no cell is in the mask.
    """
    scores: dict[str, float] = {}
    functions = {
        "average_precision": lambda values: average_precision(values, mask),
        "event_share": lambda values: _share(values, mask),
        "points_into_event": lambda values: float(values.any() and mask.flat[int(np.argmax(values))]),
    }
    for name, score in functions.items():
        values = attribution if name == "average_precision" else np.maximum(attribution, 0)
        scores |= _with_chance(name, score, values)
        scores[f"{name}_energy"] = score(energy)
    return scores if mask.any() else dict.fromkeys(scores, float("nan"))


def average_precision(attribution: np.ndarray, mask: np.ndarray) -> float:
    """Compute the average precision of cells in the order of their attribution, as a search for those in a mask.

    Attributions [any shape] and mask [same shape, bool]. NaN if no cell is in the mask.

    Examples
    --------
    >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.8333333333333333
    """
    return float(metrics.average_precision_score(mask.ravel(), attribution.ravel())) if mask.any() else float("nan")


def curve(
    model: Network,
    x: torch.Tensor,
    *,
    baseline: torch.Tensor,
    target: int,
    order: np.ndarray,
    insert: bool,
    ends: tuple[float, float] | None = None,
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
    ends : tuple of 2 float, optional
        The probabilities of the baseline and of `x`, if they are known: they are not computed again.
    """
    positions = np.empty(order.size, int)
    positions[np.argsort(-order, axis=None, kind="stable")] = np.arange(order.size)
    position = torch.from_numpy(positions.reshape(order.shape)).to(x.device)
    start, end = (baseline, x) if insert else (x, baseline)
    counts = np.linspace(0, order.size, POINTS).round().astype(int)[slice(1, -1) if ends else slice(None)]
    inputs = torch.stack([torch.where(position < int(count), end, start) for count in counts])
    found = _probabilities(model, inputs, target)
    if ends:
        first, last = ends if insert else ends[::-1]
        found = np.array([first, *found, last])
    return found


def _probabilities(model: Network, inputs: torch.Tensor, target: int) -> np.ndarray:
    return forward(model, inputs).softmax(1)[:, target].double().numpy()


def area(probabilities: np.ndarray) -> float:
    """Compute the area under a `curve`, in [0, 1], by the trapezoidal rule."""
    return float(scipy.integrate.trapezoid(probabilities, dx=1 / (len(probabilities) - 1)))


def areas(
    model: Network,
    x: torch.Tensor,
    *,
    fills: Mapping[str, torch.Tensor],
    target: int,
    order: np.ndarray,
    ways: Sequence[str] = ("insertion", "deletion"),
    shifts: Sequence[float] = CONTROLS,
) -> dict[str, float]:
    """Compute insertion and deletion of an attribution, and of the same one shifted in time.

    A shift keeps what any map of this kind gives, such as its smoothness, and loses its relation to the clip: what an
    attribution has more is due to where it lies.

    Parameters
    ----------
    model, x, target, order
        As for `curve`.
    fills : mapping of str to torch.Tensor [shape=(channels, height, width)]
        What hidden cells are replaced by.
    ways : sequence of str
        Of "insertion" and "deletion", those to compute.
    shifts : sequence of float
        Shifts in time, as shares of the clip. Default: by a third and by two thirds.

    Returns
    -------
    dict of str to float
        "insertion_<fill>", "deletion_<fill>" ("insertion", "deletion" for a fill named ""), and, if there are shifts,
        each with "_shifted": the mean over them.
    """
    width, values = order.shape[-1], {}
    found = _probabilities(model, torch.stack([*fills.values(), x]), target)
    ends = {fill: (before, found[-1]) for fill, before in zip(fills, found, strict=False)}
    for (fill, filling), way in itertools.product(fills.items(), ways):
        fixed: dict[str, Any] = {"baseline": filling, "target": target, "insert": way == "insertion"}
        fixed["ends"] = ends[fill]
        name = f"{way}_{fill}" if fill else way
        values[name] = area(curve(model, x, order=order, **fixed))
        others = [np.roll(order, round(share * width), axis=-1) for share in shifts]
        if others:
            values[f"{name}_shifted"] = float(np.mean([area(curve(model, x, order=o, **fixed)) for o in others]))
    return values


def medians(S: np.ndarray) -> np.ndarray:
    """Return features whose bands have their median over time everywhere [shape of `S`, (..., n_mels, width)].

    A replacement that is as loud as the clip's own background, unlike silence.
    """
    return np.broadcast_to(np.median(S, axis=-1, keepdims=True), S.shape).astype(S.dtype)


def patches(shape: tuple[int, int], seed: int | Sequence[int]) -> np.ndarray:
    """Return an attribution of random patches, 16 by 16 cells [shape=(n_mels, width)]."""
    n = [-(-length // size) for length, size in zip(shape, PATCH, strict=True)]
    return np.kron(np.random.default_rng(seed).uniform(size=n), np.ones(PATCH))[: shape[0], : shape[1]]


def sensitivity(
    explain: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, samples: int = 3, seed: int = 0
) -> np.ndarray:
    """Compute how far noise on each input moves its attribution, relative to its norm, at most [shape=(n,)].

    Parameters
    ----------
    explain : callable
        Returns the attributions of inputs, of any shape (n, ...).
    x : torch.Tensor [shape=(n, channels, height, width)]
    samples : int > 0
        Number of noisy copies of each input; noise is uniform, up to 0.02 standard deviations of the inputs.
    seed : int >= 0
    """

    def explained(inputs: torch.Tensor | tuple[torch.Tensor]) -> torch.Tensor | tuple[torch.Tensor]:
        # Captum gives a tuple first and takes it for granted that one comes back.
        return (explain(inputs[0]),) if isinstance(inputs, tuple) else explain(inputs)

    radius = RADIUS * x.std().item()
    with seeded(seed, x.device):
        moved = captum.metrics.sensitivity_max(
            explained, x, perturb_radius=radius, n_perturb_samples=samples, max_examples_per_batch=len(x)
        )
    return moved.double().cpu().numpy()


def agreement(attributions: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float]:
    """Compute Spearman's correlation of the attributions of any two methods, its mean over clips.

    Attributions by name [shape=(n, n_mels, width) each], of the same clips.
    """
    ranked = {name: np.stack([ranks(values) for values in clips]) for name, clips in attributions.items()}
    return {(a, b): mean_product(ranked[a], ranked[b]) for a, b in itertools.product(ranked, repeat=2)}


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Compute the scale-invariant signal-to-distortion ratio of a sound [dB].

    The estimate is divided into its projection onto the reference and the distortion that remains.

    Parameters
    ----------
    estimate, reference : ndarray [shape=(n_samples,)]
        -inf for an estimate that has nothing of the reference; NaN if either is silent.

    Examples
    --------
    >>> signal, noise = np.array([1.0, 0.0]), np.array([0.0, 0.1])
    >>> round(sdr(signal + noise, 3 * signal), 6)
    20.0
    """
    estimate, reference = (np.asarray(y, float) for y in (estimate, reference))
    if not estimate.any() or not reference.any():
        return float("nan")
    target = (estimate @ reference) / (reference @ reference) * reference
    distortion = estimate - target
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.divide(target @ target, distortion @ distortion)))


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
