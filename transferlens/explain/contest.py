"""One network's clips explained by every method and setting, and the scores of each map.

- `Setting`: a method, the blocks that it explains and the width of its smoothing; `settings` lists those to try.
- `spread`: which held-out clips are explained.
- `Asked`: the clips of one network, the class that is explained for each, and where its evidence is.
- `maps_of`: the unsmoothed maps of one method, and what they cost; `Setting.shown` makes a map of them.
- `Keeper`: keeps maps and scores of one run in the cache, as they take long to compute.
- `quality`: the score by which settings are chosen; `choose` does so, on other folds; `Entered` keeps what it needs.
- `scores`: all scores of a map.
- `checks`: how far a map follows noise on the input, and random weights.

Two rows are of no method, to compare with: mere energy, and random patches.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens.data import known_answers
from transferlens.explain import listen
from transferlens.explain.explanations import Clips, ExplanationOptions, baseline_of, explain
from transferlens.explain.scores import subset_of
from transferlens.measures.faithfulness import (
    areas,
    average_precision,
    known_answer,
    mean_product,
    medians,
    patches,
    ranks,
    sdr,
    sensitivity,
)
from transferlens.measures.maps import MapSettings
from transferlens.measures.methods import TABLE
from transferlens.models.build import skeleton
from transferlens.store.kept import digest, kept
from transferlens.store.run import Run
from transferlens.util.grouping import group_by
from transferlens.util.lazy import torch

if TYPE_CHECKING:
    from transferlens.measures.maps import Sign
    from transferlens.models.network import Network

ENERGY, PATCHES = "energy", "random patches"
CONTROLS = (ENERGY, PATCHES)
MAIN = "average_precision"
QUIETEST = -60.0  # signal-to-distortion ratio of what has nothing of the event, or is silent [dB]


@dataclass(frozen=True)
class Setting:
    """A method, the blocks that it explains (none: its default), and the smoothing [cells] and sign of its maps."""

    method: str
    block: tuple[int, ...] = ()
    smooth: float = 0.0
    sign: Sign = "signed"

    @property
    def raw(self) -> Setting:
        """The setting of the attributions that its maps are made of."""
        return replace(self, smooth=0.0, sign="signed")

    def __str__(self) -> str:
        blocks = "+".join(map(str, self.block))
        return ", ".join([*([f"block {blocks}"] if blocks else []), f"smoothed over {self.smooth:g} cells", self.sign])

    def shown(self, cells: np.ndarray) -> np.ndarray:
        """Return the maps [shape=(..., n_mels, width)] of attributions that are summed over channels."""
        return MapSettings(smooth=(self.smooth, self.smooth), sign=self.sign).of_cells(cells)


def settings(
    method: str, widths: Sequence[float], signs: Sequence[Sign], n_blocks: int, *, default: float
) -> list[Setting]:
    """Return the settings of a method to choose from, that with its default blocks and smoothing first.

    Blocks are its default ones, or one of the last three alone.
    """
    blocks: list[tuple[int, ...]] = [()]
    if method in TABLE and "block" in TABLE[method].takes:
        usual = tuple(n_blocks + block for block in TABLE[method].blocks)
        blocks += [(block,) for block in range(max(0, n_blocks - 3), n_blocks) if (block,) != usual]
    ordered = sorted(dict.fromkeys(widths), key=lambda width: width != default)
    chosen = itertools.product(blocks, ordered, dict.fromkeys(signs))
    return [Setting(method, block, width, sign) for block, width, sign in chosen]


def spread(run: Run, most: int) -> list[int]:
    """Return the indices of so many held-out clips at most, of each kind and class in turn."""
    kinds = [subset_of(clip, run) for clip in run.clip_ids]
    places = range(len(kinds))
    queues = [
        list(itertools.chain.from_iterable(itertools.zip_longest(*group_by(group, lambda i: run.labels[i]).values())))
        for group in group_by(places, kinds.__getitem__).values()
    ]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return list(itertools.islice((i for i in in_turn if i is not None), most))


@dataclass(frozen=True, eq=False)
class Asked:
    """The clips of one network, and what is asked of them.

    Attributes
    ----------
    targets : tuple of str
        The class that is explained for each clip. Of a clip with a planted hum it is the class of the hum in training.
    masks : ndarray [shape=(n, n_mels, width), bool] or None
        Where the evidence of the target is: the hum, where the target is the class of a planted hum.
    events : tuple of ndarray [shape=(n_samples,)]
        The sound that is the evidence; empty if it is not known or, as of a gap, is not in the clip.
    waveforms : tuple of ndarray [shape=(n_samples,)]
        The sounds of the clips, where those of the events are known, at the sample rate of the features.
    """

    run: Run
    network: Network
    clips: Clips
    targets: tuple[str, ...]
    masks: np.ndarray | None
    events: tuple[np.ndarray, ...]
    waveforms: tuple[np.ndarray, ...]

    def pick(self, n: int) -> Asked:
        """Return the same of the first clips."""
        some: dict[str, Any] = {name: getattr(self, name)[:n] for name in ("targets", "events", "waveforms")}
        masks = None if self.masks is None else self.masks[:n]
        return replace(self, clips=self.clips.pick(list(range(min(n, len(self.targets))))), masks=masks, **some)

    @functools.cached_property
    def power(self) -> np.ndarray:
        """Log-mel power above silence, the mean over channels [shape=(n, n_mels, width)]."""
        return np.maximum(self.clips.S - self.clips.silent, 0).mean(1)

    def fills(self, i: int, names: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
        """Return what hidden cells of a clip are replaced by, normalised as the network expects it."""
        median = self.run.inputs(medians(self.clips.S[i])[None])[0]
        named = {name: median if name == "median" else baseline_of(self.run, self.clips, name) for name in names}
        return {name: fill.to(device) for name, fill in named.items()}


def asked(run: Run, clips: Clips, device: torch.device, target: str = "true") -> Asked:
    """Return the trained network of a run, with what is asked of clips that it held out."""
    predicted = dict(zip(run.clip_ids, (run.label_names[i] for i in run.logits.argmax(1)), strict=True))
    words = {"true": clips.labels, "predicted": [predicted[clip] for clip in clips.ids]}
    targets, masks = list(words.get(target, [target] * len(clips.ids))), clips.masks
    events: list[np.ndarray] = []
    waveforms: list[np.ndarray] = []
    if masks is not None and clips.hums is not None:
        hums = np.array([hum.any() for hum in clips.hums])
        if target == "true":
            targets = [known_answers.HUMMED if hum else name for hum, name in zip(hums, targets, strict=True)]
        hums &= np.array(targets) == known_answers.HUMMED
        masks = np.where(hums[:, None, None], clips.hums, masks)
        stems = [known_answers.render(clip) for clip in clips.ids]
        if run.config.features.sr == known_answers.rate() and all(stem.removed is None for stem in stems):
            sounds = [stem.apart("hum" if hum else "evidence")[0] for stem, hum in zip(stems, hums, strict=True)]
            events = [sound.astype(float) for sound in sounds]
            waveforms = [stem.y for stem in stems]
    network = run.model().to(device).eval()
    return Asked(run, network, clips, tuple(targets), masks, tuple(events), tuple(waveforms))


@dataclass(frozen=True)
class Keeper:
    """Keeps what is computed for the clips of one run, by the setting of the method; see `kept`."""

    asked: Asked
    cache: Path
    device: torch.device

    def __call__(self, what: Any, setting: Setting, compute: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return the arrays by name; `what` says, besides the setting, what they depend on."""
        asked = self.asked
        clips = [digest(asked.run.path), asked.clips.ids, asked.targets, str(self.device)]
        return kept(self.cache, ["league", clips, what, asdict(setting)], compute)

    def maps(self, setting: Setting, how: ExplanationOptions) -> Maps:
        """Return `maps_of` of the clips."""
        found = self("maps", setting, lambda: vars(maps_of(self.asked, setting, how, self.device)))
        return Maps(found["cells"], found["steps"], float(found["seconds"]))

    def rows(
        self, what: Any, setting: Setting, compute: Callable[[], list[dict[str, float]]]
    ) -> list[dict[str, float]]:
        """Return scores by name, one dict per clip; all have the same names."""

        def columns() -> dict[str, Any]:
            rows = compute()
            return {name: [row[name] for row in rows] for name in rows[0]}

        found = self(what, setting, columns)
        return [dict(zip(found, row, strict=True)) for row in zip(*(found.values()), strict=True)]


@dataclass(frozen=True)
class Maps:
    """Unsmoothed maps of one method [shape=(n, n_mels, width)].

    `steps` are the gradients or outputs that each took [shape=(n,)], `seconds` is the mean time per clip [s].
    """

    cells: np.ndarray
    steps: np.ndarray
    seconds: float


def maps_of(asked: Asked, setting: Setting, how: ExplanationOptions, device: torch.device) -> Maps:
    """Explain the clips by one method, all with the class that is asked for."""
    started, n = time.perf_counter(), len(asked.targets)
    if setting.method in CONTROLS:
        shape = asked.power.shape[1:]
        cells = asked.power if setting.method == ENERGY else np.stack([patches(shape, [0, i]) for i in range(n)])
        return Maps(cells.astype(np.float32), np.zeros(n, int), (time.perf_counter() - started) / n)
    cells = np.empty(asked.power.shape, np.float32)
    steps = np.zeros(n, int)
    for target, places in group_by(range(n), asked.targets.__getitem__).items():
        own: dict[str, Any] = {"method": setting.method, "block": setting.block, "target": target}
        chosen = replace(how, **own)
        found = explain(setting.method, asked.run, asked.network, asked.clips.pick(places), chosen, device).attribution
        cells[places], steps[places] = found.values.sum(1), found.steps
    return Maps(cells, steps, (time.perf_counter() - started) / n)


def quality(asked: Asked, i: int, map: np.ndarray, fill: str, device: torch.device) -> float:
    """Return the score by which settings are chosen: average precision, or insertion above that of the shifted map."""
    if asked.masks is not None:
        return average_precision(map, asked.masks[i])
    found = _areas(asked, i, map, [fill], device, ["insertion"])
    return found[f"insertion_{fill}"] - found[f"insertion_{fill}_shifted"]


def qualities(asked: Asked, shown: np.ndarray, fill: str, device: torch.device) -> dict[str, list[float]]:
    """Return the `quality` of the maps of all clips."""
    return {"quality": [quality(asked, i, map, fill, device) for i, map in enumerate(shown)]}


def _areas(
    asked: Asked, i: int, map: np.ndarray, fills: Sequence[str], device: torch.device, ways: Sequence[str]
) -> dict[str, float]:
    x = asked.run.inputs(asked.clips.S[i][None])[0].to(device)
    target = asked.run.label_names.index(asked.targets[i])
    return areas(asked.network, x, fills=asked.fills(i, fills, device), target=target, order=map, ways=ways)


@dataclass(frozen=True, eq=False)
class Entered:
    """One run in the league: what is asked, the unsmoothed maps by setting, and the quality of settings by clip."""

    asked: Asked
    maps: dict[Setting, Maps]
    qualities: dict[Setting, np.ndarray]

    @property
    def fold(self) -> str:
        """The held-out fold."""
        return self.asked.run.config.fold

    def shown(self, setting: Setting) -> np.ndarray:
        """Return the maps of a setting [shape=(n, n_mels, width)]."""
        return setting.shown(self.maps[setting.raw].cells)


def choose(entered: Sequence[Entered], settings: Sequence[Setting], fold: str) -> tuple[Setting, float]:
    """Return the setting with the best mean quality on the clips of other folds, and that mean."""
    others = [entry.qualities for entry in entered if entry.fold != fold]
    means = [float(np.nanmean(np.concatenate([of_run[setting] for of_run in others]))) for setting in settings]
    best = int(np.argmax(means))
    return settings[best], means[best]


def scores(asked: Asked, i: int, map: np.ndarray, fills: Sequence[str], device: torch.device) -> dict[str, float]:
    """Return the scores of the map of one clip [shape=(n_mels, width)].

    Insertion and deletion by fill, each also of the map shifted in time and ("gain") how much better than that it is;
    where the evidence is known, those of `known_answer`; where its sound is, the signal-to-distortion ratio of what the
    map lets through [dB], that of the clip, and the difference.
    """
    values = _areas(asked, i, map, fills, device, ["insertion", "deletion"])
    for (way, sign), fill in itertools.product({"insertion": 1, "deletion": -1}.items(), fills):
        name = f"{way}_{fill}"
        values[f"{name}_gain"] = sign * (values[name] - values[f"{name}_shifted"])
    if asked.masks is not None:
        known = known_answer(map, asked.masks[i], asked.power[i])
        values = {name: value for name, value in known.items() if not name.endswith("_energy")} | values
    if asked.events:
        used, _ = listen.split(asked.waveforms[i], listen.mask(map), asked.run.config.features)
        ratios = (sdr(y, asked.events[i]) for y in (asked.waveforms[i], used))
        before, after = (max(QUIETEST, ratio) if np.isfinite(ratio) else QUIETEST for ratio in ratios)
        values |= {"sdr": after, "sdr_clip": before, "sdr_gain": after - before}
    return values


def all_scores(asked: Asked, shown: np.ndarray, fills: Sequence[str], device: torch.device) -> list[dict[str, float]]:
    """Return the `scores` of the maps of all clips."""
    return [scores(asked, i, map, fills, device) for i, map in enumerate(shown)]


def checks(asked: Asked, setting: Setting, how: ExplanationOptions, device: torch.device) -> list[dict[str, float]]:
    """Return for each clip how its map depends on the input and on the weights; empty for rows that are not methods.

    "max_sensitivity" is the largest change of the map by noise on the input, relative to its norm, and "randomised" is
    the rank correlation of the map's magnitude with that of the network with random weights.
    """
    if setting.method in CONTROLS:
        return [{} for _ in asked.targets]

    def shown(network: Network, S: torch.Tensor) -> torch.Tensor:
        clips = replace(asked.clips, S=S.float().numpy())
        maps = maps_of(replace(asked, network=network, clips=clips), setting.raw, how, device)
        return torch.from_numpy(setting.shown(maps.cells))

    S = torch.from_numpy(np.ascontiguousarray(asked.clips.S))
    moved = sensitivity(functools.partial(shown, asked.network), S)
    trained, random = (shown(network, S).abs().numpy() for network in (asked.network, randomised(asked.run, device)))
    alike = [mean_product(ranks(a), ranks(b)) for a, b in zip(trained, random, strict=True)]
    return [{"max_sensitivity": float(a), "randomised": b} for a, b in zip(moved, alike, strict=True)]


def randomised(run: Run, device: torch.device) -> Network:
    """Return the network of a run with random weights, of another seed than the run's own."""
    config = run.config
    network = skeleton(
        config.backbone,
        n_classes=len(run.label_names),
        plan=config.plan,
        seed=config.seed + 1,
        input_size=config.input_size,
    )
    return network.to(device).eval()


def fooled(run: Run) -> tuple[int, int]:
    """Return how many held-out clips of other classes the network takes for that of their planted hum, and of how many.

    (0, 0) if the data set has no hum.
    """
    if not known_answers.is_generated(run.config.dataset):
        return 0, 0
    specs: Mapping[str, Any] = {clip: known_answers.spec(clip) for clip in run.clip_ids}
    says = [run.label_names[i] == known_answers.HUMMED for i in run.logits.argmax(1)]
    others = [
        said
        for clip, said in zip(run.clip_ids, says, strict=True)
        if getattr(specs[clip], "hum", (0, 0))[1] and specs[clip].label != known_answers.HUMMED
    ]
    return sum(others), len(others)
