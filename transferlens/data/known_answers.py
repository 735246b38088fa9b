"""Data sets made of the shapes of ``synth``, whose evidence is known and harder to find.

=====================  =================================================================================================
``synth-two``          a second event, as loud, in all clips: a siren, which is the same for all classes
``synth-quiet``        the event is 12 to 18 dB below another sound, in all clips
``synth-duration``     the class is how long the event lasts, whatever its shape
``synth-gap``          the class is how long the event pauses: its evidence is where nothing sounds
``synth-low-snr``      the event is below the background noise, in power over all frequencies
``synth-shortcut``     a hum goes with one class in the training clips, and with no class in the held-out ones
``synth-texture``      each class is another texture, of lines or of noise: it is seen in a few cells
``synth-order``        the class is which of two sounds comes first: they are far apart, and each is in all clips
=====================  =================================================================================================

In ``synth-order`` the two sounds are `APART` seconds from each other and from both ends of the clip. A network cut
after a block whose units see less than that cannot tell the classes, whatever it has learned: the mean over all
positions, from which its head decides, is the same for both. For EfficientNet-Lite0 that is so after Block 2 and not
after Block 3; in ``synth-texture`` Block 1 sees enough.

In ``synth-shortcut`` a network that has learned the hum instead of the event says the class `HUMMED` of held-out clips
that hum: an attribution of that class should then be on the hum. Clips are bit-identical on every machine, as those of
``synth`` are; `specs`, `spec`, `render` and `digest` take the clips of all generated data sets, ``synth`` too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from transferlens.data import synthetic
from transferlens.data.manifest import ManifestRow, manifest
from transferlens.data.synthetic import (
    DISTRACTORS,
    EVENTS,
    FADE,
    TAKES,
    Spec,
    Stems,
    background_of,
    drawn,
    in_turn,
    parameters,
    placed,
    quantised,
    rng_of,
    tone,
    whole,
)
from transferlens.util.files import content_hash

# Increase it when the clips change: feature caches of the old ones are then computed again.
RECIPE = 1
SECONDS = 2.0  # of all clips but those of synth-order, as of synth
SHAPES = EVENTS | DISTRACTORS
STEADY = ("band_noise", "harmonic_tone", "siren")  # shapes without pauses of their own
COMMON = "siren"  # the second event of synth-two
DURATIONS = {"long": 0.96, "medium": 0.54, "short": 0.3}  # [s]
GAPS = {"long": 0.4, "medium": 0.2, "short": 0.1}  # [s]
TEXTURES = ("band_noise", "click_train", "harmonic_tone")
ORDERS = {"noise_first": ("band_noise", "harmonic_tone"), "tone_first": ("harmonic_tone", "band_noise")}
APART, SOUND, ROOM = 1.5, 0.3, 0.45  # of the two sounds of synth-order: distance, length, and what is drawn [s]
HUMMED = "tremolo_noise"  # the class of the hum in training clips
HELD_OUT = 5  # the fold of synth that takes the place of the held-out clips of synth-shortcut


@dataclass(frozen=True, kw_only=True)
class KnownSpec(Spec):
    """The parameters of one clip; see `synthetic.Spec` for those of all.

    Attributes
    ----------
    dataset : str
        Its data set.
    shape : str
        Shape of the event.
    kind : str
        The kind of clip, whose scores are also averaged alone; "all" if there is only one.
    gap, hum : tuple of 2 float in [0, 1]
        Start and length of the pause of the event and of the hum, as fractions of the clip; of length 0 if there is
        none.
    """

    dataset: str
    shape: str
    kind: str = "all"
    gap: tuple[float, float] = (0.0, 0.0)
    hum: tuple[float, float] = (0.0, 0.0)

    @property
    def subset(self) -> str:
        """The kind of clip, whose scores are also averaged alone."""
        return self.kind

    @property
    def events(self) -> tuple[tuple[str, float, float], ...]:
        """Shape, start and length of each sound that is evidence, in fractions of the clip."""
        return ((self.shape, self.onset, self.length),)


@dataclass(frozen=True, kw_only=True)
class OrderSpec(KnownSpec):
    """The parameters of one clip of ``synth-order``; the sounds are as long as each other.

    Attributes
    ----------
    second : str
        Shape of the second sound.
    second_onset : float in [0, 1]
        Its start, as a fraction of the clip.
    """

    second: str
    second_onset: float

    @property
    def events(self) -> tuple[tuple[str, float, float], ...]:
        """Shape, start and length of each sound that is evidence, in fractions of the clip."""
        return (*super().events, (self.second, self.second_onset, self.length))


@dataclass(frozen=True)
class Turn:
    """What a recipe may depend on: the clip's class, its numbers, and its turn in the rotation of shapes."""

    label: str
    fold: int
    turn: int
    take: int
    values: Mapping[str, Any]
    rng: np.random.RandomState

    def uniform(self, low: float, high: float) -> float:
        """Draw a number of 4 digits."""
        return round(self.rng.uniform(low, high), 4)


def _two(clip: Turn) -> dict[str, Any]:
    return {"distractor": COMMON, "distractor_db": 0.0}


def _quiet(clip: Turn) -> dict[str, Any]:
    return {"distractor": in_turn(DISTRACTORS, clip.turn), "distractor_db": clip.uniform(12, 18)}


def _low_snr(clip: Turn) -> dict[str, Any]:
    with_distractor = clip.turn % TAKES == clip.take
    distractor = in_turn(DISTRACTORS, clip.turn) if with_distractor else "none"
    kind = "with distractor" if with_distractor else "without distractor"
    return {"distractor": distractor, "kind": kind, "snr_db": clip.uniform(-6, -1)}


def _duration(clip: Turn) -> dict[str, Any]:
    length = DURATIONS[clip.label] / SECONDS * clip.rng.uniform(0.9, 1.1)
    place = {"onset": clip.uniform(0.02, 0.97 - length), "length": round(length, 4)}
    return {"shape": in_turn(STEADY, clip.turn), **place}


def _gap(clip: Turn) -> dict[str, Any]:
    gap = GAPS[clip.label] / SECONDS * clip.rng.uniform(0.9, 1.1)
    length = clip.uniform(0.5, 0.7)  # with the gap, which it does not tell
    onset = clip.uniform(0.02, 0.97 - length)
    start = onset + clip.uniform(0.12, length - gap - 0.12)
    place = {"onset": onset, "length": length, "gap": (round(start, 4), round(gap, 4))}
    return {"shape": in_turn(STEADY, clip.turn), **place}


def _shortcut(clip: Turn) -> dict[str, Any]:
    is_training = clip.fold != HELD_OUT
    hums = clip.label == HUMMED if is_training else clip.turn % TAKES == clip.take
    length = clip.uniform(0.4, 0.6)
    hum = (clip.uniform(0.02, 0.97 - length), length) if hums else (0.0, 0.0)
    return {"fold": "train" if is_training else "test", "hum": hum, "kind": f"with{'' if hums else 'out'} hum"}


def _order(clip: Turn) -> dict[str, Any]:
    (first, second), seconds = ORDERS[clip.label], manifest()["synth-order"].seconds
    onset = APART + clip.rng.uniform(0, ROOM)
    second_onset = onset + SOUND + APART + clip.rng.uniform(0, ROOM)
    starts = {"onset": round(onset / seconds, 4), "second_onset": round(second_onset / seconds, 4)}
    return {"shape": first, "second": second, "length": SOUND / seconds, **starts}


@dataclass(frozen=True)
class Recipe:
    """How the clips of a data set differ from those of ``synth``: classes, groups per class and fold, and values."""

    labels: tuple[str, ...]
    groups: int
    values: Callable[[Turn], dict[str, Any]]
    spec: type[KnownSpec] = KnownSpec


CLASSES = tuple(sorted(EVENTS))
RECIPES = {
    "synth-two": Recipe(tuple(label for label in CLASSES if label != COMMON), synthetic.GROUPS, _two),
    "synth-quiet": Recipe(CLASSES, synthetic.GROUPS, _quiet),
    "synth-duration": Recipe(tuple(sorted(DURATIONS)), 3 * synthetic.GROUPS, _duration),
    "synth-gap": Recipe(tuple(sorted(GAPS)), 3 * synthetic.GROUPS, _gap),
    "synth-low-snr": Recipe(CLASSES, synthetic.GROUPS, _low_snr),
    "synth-shortcut": Recipe(CLASSES, synthetic.GROUPS, _shortcut),
    "synth-texture": Recipe(TEXTURES, 3 * synthetic.GROUPS, lambda clip: {}),
    "synth-order": Recipe(tuple(ORDERS), 5 * synthetic.GROUPS, _order, OrderSpec),
}


def is_generated(name: str) -> bool:
    """Return whether a data set is generated by code."""
    return name == "synth" or name in RECIPES


def rate() -> int:
    """Return the sample rate of generated clips [Hz]."""
    return manifest()["synth"].sr


@functools.cache
def _known_specs(name: str) -> tuple[KnownSpec, ...]:
    return tuple(sorted(_drawn(name, RECIPES[name]), key=lambda spec: spec.id))


def _drawn(name: str, recipe: Recipe) -> Iterator[KnownSpec]:
    folds, short = range(1, manifest()["synth"].folds + 1), name.removeprefix("synth-")
    for label, fold, group, take in itertools.product(recipe.labels, folds, range(recipe.groups), range(TAKES)):
        group_id = f"{short}-{label}-f{fold}-g{group}"
        rng = rng_of(f"{group_id}-{take}")
        values = drawn(rng, parameters(f"{short}-{label}", fold, group, recipe.groups))
        turn = Turn(label, fold, recipe.labels.index(label) + fold + group, take, values, rng)
        common = {"fold": str(fold), "distractor": "none", "shape": label}
        own = values | common | recipe.values(turn)
        yield recipe.spec(id=f"{group_id}-{take}", label=label, group=group_id, dataset=name, **own)


def specs(name: str = "synth") -> tuple[Spec, ...]:
    """Return the parameters of all clips of a generated data set, sorted by id.

    Examples
    --------
    >>> len(specs("synth-quiet")), specs("synth-gap")[0].label
    (400, 'long')
    """
    return synthetic.specs() if name == "synth" else _known_specs(name)


@functools.cache
def _by_id() -> dict[str, KnownSpec]:
    return {spec.id: spec for name in RECIPES for spec in _known_specs(name)}


def spec(id: str) -> Spec:
    """Return the parameters of one clip; raise ParameterError if no generated data set has this id."""
    return _by_id()[id] if id in _by_id() else synthetic.spec(id)


def row_of(id: str) -> ManifestRow:
    """Return the row of the manifest with the rate, length and width of a clip; errors as in `spec`."""
    return manifest()[getattr(spec(id), "dataset", "synth")]


def _gate(n: int, sr: int, start: float, length: float) -> np.ndarray:
    """Return 1 inside an interval, given in fractions of n samples, and 0 outside, with soft edges inside."""
    t = np.arange(n) / n
    return np.clip(np.minimum(t - start, start + length - t) * n / sr / FADE, 0, 1)


def _hum(t, spec, rng):
    f0 = whole(rng, 48, 62)
    return sum(tone(k * f0 * t + rng.uniform()) for k in range(2, 6))


@functools.lru_cache(maxsize=16)
def _render(id: str) -> Stems:
    clip, row = _by_id()[id], row_of(id)
    n, sr, rng = round(row.sr * row.seconds), row.sr, rng_of(f"{id} sound")
    event = np.zeros(n)
    for shape, onset, length in clip.events:
        event = event + placed(SHAPES[shape], clip, rng, (onset, length), n, sr)
    background = background_of(clip, rng, n, sr) * 10 ** (-clip.snr_db / 20)
    distractor, removed, hum = np.zeros(n), None, None
    if clip.has_distractor:
        place = (clip.distractor_onset, clip.distractor_length)
        distractor = placed(SHAPES[clip.distractor], clip, rng, place, n, sr) * 10 ** (clip.distractor_db / 20)
    if clip.gap[1]:
        removed = event * _gate(n, sr, *clip.gap)
        event = event - removed
    if clip.hum[1]:
        hum = placed(_hum, clip, rng, clip.hum, n, sr)
    return quantised(clip.peak, event, background, distractor, hum=hum, removed=removed)


def render(id: str) -> Stems:
    """Render one clip, as `synthetic.render` does; raise ParameterError if no generated data set has this id."""
    return _render(id) if id in _by_id() else synthetic.render(id)


@functools.cache
def _digest(id: str) -> str:
    row = row_of(id)
    return content_hash([RECIPE, row.sr, row.seconds, asdict(_by_id()[id])])


def digest(id: str) -> str:
    """Return the sha256, in hexadecimal, of what determines a clip; errors as in `spec`."""
    return _digest(id) if id in _by_id() else synthetic.digest(id)
