"""The built-in data set ``synth``: what its clips are made of, and their rendering.

A clip is the sum of an event, whose shape on the spectrogram is its class, a background of coloured noise and, in half
of the clips, a louder distractor, whose shape is of no class. A shape is a function of the time since its start [s],
of the clip's `Spec` and of a random generator, and returns a waveform of any scale. Clips are bit-identical on every
machine: `transferlens.synth` says how.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens.data.manifest import manifest
from transferlens.util.errors import ParameterError
from transferlens.util.files import content_hash

# Increase it when the clips change: feature caches of the old ones are then computed again.
RECIPE = 1
GROUPS, TAKES = 4, 2  # groups per class and fold, clips per group
CENTRES = (700.0, 2800.0)  # [Hz], common to all classes
OCTAVES = (0.8, 1.4)
RATES = (4.0, 9.0)  # [Hz]
FADE = 0.015  # [s]
CLICK = 0.006  # time in which a click decays to 1 / e [s]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The parameters of one clip.

    Attributes
    ----------
    centre_hz : int > 0 [Hz]
        Centre frequency of the event, on a logarithmic scale.
    octaves : float > 0
        Distance between the lowest and the highest frequency of the event.
    rate_hz : float > 0 [Hz]
        Repetitions of the event per second, if its shape repeats; clicks come twice as often.
    id, label, fold, group : str
        The clips of a group have similar parameters, which no other group of the class has; all are in one fold.
    distractor : str
        Shape of the distractor, or "none".
    onset, length, distractor_onset, distractor_length : float in [0, 1]
        Start and length of event and distractor, as fractions of the clip; drawn for clips without a distractor too.
    snr_db : float [dB]
        Power of the event while it lasts, relative to that of the background.
    distractor_db : float > 0 [dB]
        Power of the distractor while it lasts, relative to that of the event.
    slope : float >= 0
        The power of the background falls as ``1 / f**slope``.
    peak : float in (0, 1)
        Largest magnitude of the mixture.
    """

    centre_hz: int
    octaves: float
    rate_hz: float
    id: str
    label: str
    fold: str
    group: str
    distractor: str
    onset: float
    length: float
    distractor_onset: float
    distractor_length: float
    snr_db: float
    distractor_db: float
    slope: float
    peak: float

    @property
    def edges(self) -> tuple[int, int]:
        """Lowest and highest frequency [Hz]: whole numbers, so that rounding errors do not add up in a phase."""
        half = 2 ** (self.octaves / 2)
        return round(self.centre_hz / half), round(self.centre_hz * half)

    @property
    def has_distractor(self) -> bool:
        """Whether the clip contains a distractor."""
        return self.distractor != "none"

    @property
    def subset(self) -> str:
        """The kind of clip, whose scores are also averaged alone."""
        return "with distractor" if self.has_distractor else "without distractor"


def tone(cycles: np.ndarray) -> np.ndarray:
    # Whole cycles are removed first, exactly: the sine of a large angle differs between libraries.
    return np.sin(2 * np.pi * (cycles % 1))


def _sweep(t: np.ndarray, start: float, end: float) -> np.ndarray:
    slope = (end - start) / (t[-1] + t[1])
    return tone(start * t + slope / 2 * t**2)


def _band(t: np.ndarray, low: float, high: float, rng: np.random.RandomState) -> np.ndarray:
    """Return noise between two frequencies [Hz]."""
    spectrum = np.fft.rfft(rng.uniform(-1, 1, len(t)))
    hz = np.fft.rfftfreq(len(t), t[1])
    return np.fft.irfft(spectrum * ((hz >= low) & (hz <= high)), len(t))


def _gate(t: np.ndarray, rate: float) -> np.ndarray:
    """Return 1 in the first half of every period and 0 in the second, with soft edges."""
    return np.clip(0.5 + 4 * tone(rate * t), 0, 1)


def _chirp_up(t, spec, rng):
    return _sweep(t, *spec.edges)


def _chirp_down(t, spec, rng):
    return _sweep(t, *reversed(spec.edges))


def _cross(t, spec, rng):
    return _chirp_up(t, spec, rng) + _chirp_down(t, spec, rng)


def _harmonic_tone(t, spec, rng):
    f0 = round(spec.centre_hz / 2)
    return sum(tone(k * f0 * t + rng.uniform()) / k for k in range(1, 6))


def _siren(t, spec, rng):
    low, high = spec.edges
    swing = (high - low) / (4 * np.pi * spec.rate_hz)
    return tone((low + high) / 2 * t + swing * tone(spec.rate_hz * t + rng.uniform()))


def _click_train(t, spec, rng):
    low, high = spec.edges
    since = (2 * spec.rate_hz * t) % 1 / (2 * spec.rate_hz)
    return _band(t, low / 2, high * 2, rng) * np.exp(-since / CLICK)


def _band_noise(t, spec, rng):
    low, high = spec.edges
    return _band(t, low, high, rng)


def _tremolo_noise(t, spec, rng):
    return _band_noise(t, spec, rng) * _gate(t, spec.rate_hz)


def _pulse(t, spec, rng):
    return tone(spec.centre_hz * t) * _gate(t, spec.rate_hz)


def _warble(t, spec, rng):
    low, high = spec.edges
    gate = _gate(t, spec.rate_hz)
    return gate * tone(low * t) + (1 - gate) * tone(high * t)


def whole(rng: np.random.RandomState, low: int, high: int) -> int:
    # Not randint, whose numbers depend on the size of a C long.
    return int(rng.uniform(low, high))


def _bell(t, spec, rng):
    f0 = whole(rng, 400, 1200)
    return sum(np.exp(-t * k / 0.15) * tone(k * f0 * t) / k for k in (1, 1.51, 2.76, 4.07, 5.4))


def _whoosh(t, spec, rng):
    low = whole(rng, 300, 1500)
    bands = [_band(t, low, 2 * low, rng), _band(t, 3 * low, 6 * low, rng)]
    early, late = bands if whole(rng, 0, 2) else bands[::-1]
    x = t / t[-1]
    return x * (1 - x) * ((1 - x) * early + x * late)


def _grains(t, spec, rng):
    y = np.zeros_like(t)
    for start in rng.uniform(0, t[-1] - 0.05, 12):
        x = np.clip((t - start) / 0.04, 0, 1)
        y += x * (1 - x) * tone(whole(rng, 500, 6000) * t)
    return y


def _buzz(t, spec, rng):
    f0 = whole(rng, 90, 140)
    return sum(tone(k * f0 * t + rng.uniform()) for k in range(2, 40)) * (1 - t / t[-1] / 2)


EVENTS = {
    "band_noise": _band_noise,
    "chirp_down": _chirp_down,
    "chirp_up": _chirp_up,
    "click_train": _click_train,
    "cross": _cross,
    "harmonic_tone": _harmonic_tone,
    "pulse": _pulse,
    "siren": _siren,
    "tremolo_noise": _tremolo_noise,
    "warble": _warble,
}

DISTRACTORS = {"bell": _bell, "buzz": _buzz, "grains": _grains, "whoosh": _whoosh}


def rng_of(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def _cell(span: tuple[float, float], slot: int, slots: int, rng: np.random.RandomState) -> float:
    """Draw a value in the inner part of one of the equal slots of a span."""
    low, high = span
    return low + (high - low) * (slot + rng.uniform(0.3, 0.7)) / slots


def parameters(label: str, fold: int, group: int, groups: int = GROUPS) -> dict[str, float]:
    """Draw what the clips of a group share, each number from a slot that no other group of the class has."""
    folds = manifest()["synth"].folds
    slots, slot = folds * groups, folds * group + fold - 1
    shuffles = rng_of(label)
    rng = rng_of(f"{label}-{fold}-{group}")
    # Folds alternate along the slots, so that each covers all registers; shuffles make register and rate independent.
    octave = _cell((0, np.log2(CENTRES[1] / CENTRES[0])), slot, slots, rng)
    return {
        "centre_hz": CENTRES[0] * 2**octave,
        "octaves": round(_cell(OCTAVES, shuffles.permutation(slots)[slot], slots, rng), 4),
        "rate_hz": round(_cell(RATES, shuffles.permutation(slots)[slot], slots, rng), 2),
    }


def places(rng: np.random.RandomState) -> dict[str, float]:
    """Draw the places of event and distractor: apart from each other, in either order."""
    lengths = {"": rng.uniform(0.25, 0.45), "distractor_": rng.uniform(0.2, 0.3)}
    rest = 0.97 - sum(lengths.values())
    before, after = np.sort(rng.uniform(0, rest, 2))
    first, second = list(lengths) if rng.uniform() < 0.5 else list(lengths)[::-1]
    onsets = {first: before, second: after + lengths[first] + 0.03}
    places = {f"{name}onset": onsets[name] for name in lengths}
    places |= {f"{name}length": length for name, length in lengths.items()}
    return {name: round(value, 4) for name, value in places.items()}


def _spec(label: str, fold: int, group: int, take: int) -> Spec:
    name = f"{label}-f{fold}-g{group}"
    turn = list(EVENTS).index(label) + fold + group
    # In rotation, so that every class and fold has each shape equally often.
    distractor = in_turn(DISTRACTORS, turn) if turn % TAKES == take else "none"
    values = drawn(rng_of(f"{name}-{take}"), parameters(label, fold, group))
    return Spec(id=f"{name}-{take}", label=label, fold=str(fold), group=name, distractor=distractor, **values)


def in_turn(names: Collection[str], turn: int) -> str:
    """Return one of the names, in rotation."""
    return list(names)[turn % len(names)]


def drawn(rng: np.random.RandomState, shared: Mapping[str, float]) -> dict[str, Any]:
    """Draw the numbers of a clip, given what it shares with its group."""
    return {
        "centre_hz": round(shared["centre_hz"] * rng.uniform(0.99, 1.01)),
        "octaves": shared["octaves"],
        "rate_hz": shared["rate_hz"],
        **places(rng),
        "snr_db": round(rng.uniform(3, 15), 2),
        "distractor_db": round(rng.uniform(5, 10), 2),
        "slope": round(rng.uniform(0, 1.5), 3),
        "peak": round(rng.uniform(0.2, 0.9), 3),
    }


@functools.cache
def specs() -> tuple[Spec, ...]:
    """Return the parameters of all clips, sorted by id.

    Examples
    --------
    >>> len(specs()), specs()[0].label
    (400, 'band_noise')
    """
    folds = range(1, manifest()["synth"].folds + 1)
    return tuple(itertools.starmap(_spec, itertools.product(sorted(EVENTS), folds, range(GROUPS), range(TAKES))))


def clip_ids() -> tuple[str, ...]:
    """Return the ids of all clips, sorted."""
    return tuple(_by_id())


@functools.cache
def _by_id() -> dict[str, Spec]:
    return {spec.id: spec for spec in specs()}


def spec(id: str) -> Spec:
    """Return the parameters of one clip; raise ParameterError if no clip has this id."""
    if id not in _by_id():
        raise ParameterError(f"id={id!r} is not a clip of the synth data set: clip_ids() lists them")
    return _by_id()[id]


@dataclass(frozen=True)
class Stems:
    """The parts of a clip, whose sum it is.

    Attributes
    ----------
    event, background, distractor : ndarray [shape=(n_samples,), int16]
        The distractor is all zeros if the clip has none.
    hum : ndarray [shape=(n_samples,), int16] or None
        A sound that goes with a class in the training folds only, in data sets of `transferlens.data.known_answers`.
    removed : ndarray [shape=(n_samples,), int16] or None
        What was cut out of the event, where a gap is the evidence. It is not in the mixture.
    """

    event: np.ndarray
    background: np.ndarray
    distractor: np.ndarray
    hum: np.ndarray | None = None
    removed: np.ndarray | None = None

    @property
    def mixture(self) -> np.ndarray:
        """Sum of the stems, exactly [shape=(n_samples,), int16]."""
        sounds = self.event + self.background + self.distractor
        return sounds if self.hum is None else sounds + self.hum

    def apart(self, of: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the "evidence" or the "hum", and all other sounds of the clip [shape=(n_samples,), int16]."""
        if of == "hum":
            hum = np.zeros_like(self.event) if self.hum is None else self.hum
            return hum, self.mixture - hum
        return (self.event, self.mixture - self.event) if self.removed is None else (self.removed, self.mixture)

    @property
    def y(self) -> np.ndarray:
        """The mixture as a waveform [shape=(n_samples,), float32 in (-1, 1)]."""
        return waveform(self.mixture)


def waveform(samples: np.ndarray) -> np.ndarray:
    """Convert 16-bit samples to a waveform [shape=(n_samples,), float32 in [-1, 1)]."""
    return samples.astype(np.float32) / np.float32(32768)


def _unit(y: np.ndarray) -> np.ndarray:
    return y / np.sqrt(np.mean(y**2))


def placed(shape, spec: Spec, rng: np.random.RandomState, place: tuple[float, float], n: int, sr: int) -> np.ndarray:
    """Return a clip of n samples with one shape in it, of unit power while it lasts, faded in and out."""
    start, length = (round(fraction * n) for fraction in place)
    t = np.arange(length) / sr
    fade = np.clip(np.minimum(t, t[::-1]) / FADE, 0, 1)
    y = np.zeros(n)
    y[start : start + length] = _unit(shape(t, spec, rng) * fade)
    return y


def background_of(spec: Spec, rng: np.random.RandomState, n: int, sr: int) -> np.ndarray:
    """Return noise of unit power with the spectral slope of a clip."""
    hz = np.maximum(np.fft.rfftfreq(n, 1 / sr), 50)
    # Uniform noise is exact on every machine; normal noise needs a logarithm, which is not.
    return _unit(np.fft.irfft(np.fft.rfft(rng.uniform(-1, 1, n)) * hz ** (-spec.slope / 2), n))


@functools.lru_cache(maxsize=16)
def render(id: str) -> Stems:
    """Render one clip: read-only arrays, of the sample rate and length that the manifest gives for ``synth``.

    Raise ParameterError if no clip has this id.

    Examples
    --------
    >>> render("siren-f1-g0-0").y.shape
    (44100,)
    """
    clip, row = spec(id), manifest()["synth"]
    n, sr = round(row.sr * row.seconds), row.sr
    rng = rng_of(f"{id} sound")
    event = placed(EVENTS[clip.label], clip, rng, (clip.onset, clip.length), n, sr)
    background = background_of(clip, rng, n, sr) * 10 ** (-clip.snr_db / 20)
    distractor = np.zeros(n)
    if clip.has_distractor:
        place = (clip.distractor_onset, clip.distractor_length)
        distractor = placed(DISTRACTORS[clip.distractor], clip, rng, place, n, sr) * 10 ** (clip.distractor_db / 20)
    return quantised(clip.peak, event, background, distractor)


def quantised(
    peak: float, event: np.ndarray, background: np.ndarray, distractor: np.ndarray, **others: np.ndarray | None
) -> Stems:
    """Return the stems as read-only 16-bit samples, with this largest magnitude of their sum."""
    sounds = event + background + distractor
    hum = others.get("hum")
    gain = 32768 * peak / np.abs(sounds if hum is None else sounds + hum).max()
    named = {"event": event, "background": background, "distractor": distractor, **others}
    stems = {name: np.rint(gain * stem).astype(np.int16) for name, stem in named.items() if stem is not None}
    for stem in stems.values():
        stem.setflags(write=False)
    return Stems(**stems)


@functools.cache
def digest(id: str) -> str:
    """Return the sha256, in hexadecimal, of what determines a clip; errors as in `spec`."""
    row = manifest()["synth"]
    return content_hash([RECIPE, row.sr, row.seconds, row.folds, spec(id).id])
