"""Shapes of sound on a spectrogram: ten classes of events for the built-in data set, and four of no class.

A shape is a function of the time [s] since its start, of its `Form` and of a random stream, and returns a
waveform of any scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["DISTRACTORS", "EVENTS", "Form", "Shape"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """Where on the spectrogram a shape lies, and how fast it repeats; one without repeats ignores the rate.

    Attributes
    ----------
    centre_hz : int > 0 [Hz]
        Middle of the frequencies, on a logarithmic scale.
    octaves : float > 0
        Distance of the lowest from the highest frequency.
    rate_hz : float > 0 [Hz]
        Repetitions a second; clicks come twice as often.
    """

    centre_hz: int
    octaves: float
    rate_hz: float

    @property
    def edges(self) -> tuple[int, int]:
        """Lowest and highest frequency [Hz]: whole, so that no last digit of a root adds up in a phase."""
        half = 2 ** (self.octaves / 2)
        return round(self.centre_hz / half), round(self.centre_hz * half)


CLICK = 0.006  # [s], time in which a click decays to 1 / e

Shape = Callable[[np.ndarray, Form, np.random.RandomState], np.ndarray]


def _tone(cycles: np.ndarray) -> np.ndarray:
    # Whole cycles go first, exactly: the sine of a large angle differs between libraries.
    return np.sin(2 * np.pi * (cycles % 1))


def _sweep(t: np.ndarray, start: float, end: float) -> np.ndarray:
    slope = (end - start) / (t[-1] + t[1])
    return _tone(start * t + slope / 2 * t**2)


def _band(t: np.ndarray, low: float, high: float, rng: np.random.RandomState) -> np.ndarray:
    """Noise between two frequencies [Hz]."""
    spectrum = np.fft.rfft(rng.uniform(-1, 1, len(t)))
    hz = np.fft.rfftfreq(len(t), t[1])
    return np.fft.irfft(spectrum * ((hz >= low) & (hz <= high)), len(t))


def _gate(t: np.ndarray, rate: float) -> np.ndarray:
    """Open for the first half of every period, closed for the second, with soft edges."""
    return np.clip(0.5 + 4 * _tone(rate * t), 0, 1)


def _chirp_up(t, form, rng):
    low, high = form.edges
    return _sweep(t, low, high)


def _chirp_down(t, form, rng):
    low, high = form.edges
    return _sweep(t, high, low)


def _cross(t, form, rng):
    return _chirp_up(t, form, rng) + _chirp_down(t, form, rng)


def _harmonic_tone(t, form, rng):
    f0 = round(form.centre_hz / 2)
    return sum(_tone(k * f0 * t + rng.uniform()) / k for k in range(1, 6))


def _siren(t, form, rng):
    low, high = form.edges
    swing = (high - low) / (4 * np.pi * form.rate_hz)
    return _tone((low + high) / 2 * t + swing * _tone(form.rate_hz * t + rng.uniform()))


def _click_train(t, form, rng):
    low, high = form.edges
    since = (2 * form.rate_hz * t) % 1 / (2 * form.rate_hz)
    return _band(t, low / 2, high * 2, rng) * np.exp(-since / CLICK)


def _band_noise(t, form, rng):
    low, high = form.edges
    return _band(t, low, high, rng)


def _tremolo_noise(t, form, rng):
    return _band_noise(t, form, rng) * _gate(t, form.rate_hz)


def _pulse(t, form, rng):
    return _tone(form.centre_hz * t) * _gate(t, form.rate_hz)


def _warble(t, form, rng):
    low, high = form.edges
    gate = _gate(t, form.rate_hz)
    return gate * _tone(low * t) + (1 - gate) * _tone(high * t)


def _whole(rng: np.random.RandomState, low: int, high: int) -> int:
    # Not randint, whose stream depends on the size of a C long.
    return int(rng.uniform(low, high))


def _bell(t, form, rng):
    f0 = _whole(rng, 400, 1200)
    return sum(np.exp(-t * k / 0.15) * _tone(k * f0 * t) / k for k in (1, 1.51, 2.76, 4.07, 5.4))


def _whoosh(t, form, rng):
    low = _whole(rng, 300, 1500)
    bands = [_band(t, low, 2 * low, rng), _band(t, 3 * low, 6 * low, rng)]
    early, late = bands if _whole(rng, 0, 2) else bands[::-1]
    x = t / t[-1]
    return x * (1 - x) * ((1 - x) * early + x * late)


def _grains(t, form, rng):
    y = np.zeros_like(t)
    for start in rng.uniform(0, t[-1] - 0.05, 12):
        x = np.clip((t - start) / 0.04, 0, 1)
        y += x * (1 - x) * _tone(_whole(rng, 500, 6000) * t)
    return y


def _buzz(t, form, rng):
    f0 = _whole(rng, 90, 140)
    return sum(_tone(k * f0 * t + rng.uniform()) for k in range(2, 40)) * (1 - t / t[-1] / 2)


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
