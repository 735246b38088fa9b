"""Corruptions of recordings, at known strengths: a waveform in, a waveform of the same length out.

`CORRUPTIONS` holds every kind by name; the functions are what they apply. The idea is that of [1]_, for images.

References
----------
.. [1] D. Hendrycks, T. Dietterich: Benchmarking neural network robustness to common corruptions and perturbations.
   ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

ORDER = 4  # of the Butterworth low-pass, which is applied forwards and backwards


def noise(y: np.ndarray, snr: float, *, sr: int, seed: int) -> np.ndarray:
    """Add white Gaussian noise at a signal-to-noise ratio of `snr` [dB] over the whole clip; silence stays silent."""
    white = np.random.default_rng(seed).normal(size=len(y))
    level = np.sqrt(np.mean(np.square(y, dtype=float)) / 10 ** (snr / 10))
    return (y + level * white / np.sqrt(np.mean(white**2))).astype(np.float32)


def gain(y: np.ndarray, db: float, *, sr: int, seed: int) -> np.ndarray:
    """Change the level by `db` [dB], without clipping."""
    return (y * 10 ** (db / 20)).astype(np.float32)


def low_pass(y: np.ndarray, cutoff: float, *, sr: int, seed: int) -> np.ndarray:
    """Remove frequencies above `cutoff` [Hz] by a Butterworth filter without delay."""
    if cutoff >= sr / 2:
        return y
    sections = scipy.signal.butter(ORDER, cutoff, fs=sr, output="sos")
    return scipy.signal.sosfiltfilt(sections, y, padlen=min(3 * 2 * ORDER, len(y) - 1)).astype(np.float32)


def clip_share(y: np.ndarray, percent: float, *, sr: int, seed: int) -> np.ndarray:
    """Clip the waveform at the magnitude that `percent` of its samples exceed."""
    limit = np.quantile(np.abs(y), 1 - percent / 100)
    return np.clip(y, -limit, limit).astype(np.float32)


def shift(y: np.ndarray, percent: float, *, sr: int, seed: int) -> np.ndarray:
    """Shift circularly by `percent` of the clip's length: samples pushed out at the end are put at the start."""
    return np.roll(y, round(len(y) * percent / 100))


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes
    ----------
    title : str
        Label of an axis, with the unit of the strength.
    apply : callable
        ``apply(y, strength, sr=, seed=)`` returns a waveform of the same length.
    strengths : tuple of float
        From weak to strong.

    Examples
    --------
    >>> y = np.full(8000, 0.5, np.float32)
    >>> CORRUPTIONS["gain"](y, -20, sr=8000)[:2]
    array([0.05, 0.05], dtype=float32)
    """

    title: str
    apply: Callable[..., np.ndarray]
    strengths: tuple[float, ...]

    def __call__(self, y: np.ndarray, strength: float, *, sr: int, seed: int = 0) -> np.ndarray:
        """Return the corrupted waveform [shape=(n,)]; `strength` is in the unit of `title`, `seed` that of noise.

        Raise ParameterError if `y` is not a waveform of finite samples, or `strength` is not finite.
        """
        y = np.asarray(y)
        if y.ndim != 1 or y.size == 0 or not np.isfinite(y).all():
            raise ParameterError(f"y of shape {y.shape} must be a waveform of finite samples, at least one")
        if not np.isfinite(strength):
            raise ParameterError(f"strength={strength!r} must be finite")
        return self.apply(y, strength, sr=sr, seed=seed)


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption("white noise, signal-to-noise ratio [dB]", noise, (30, 20, 10, 0)),
    "gain": Corruption("gain [dB]", gain, (-6, -12, -24)),
    "low-pass": Corruption("low-pass, cutoff [Hz]", low_pass, (8000, 4000, 2000, 1000)),
    "clipping": Corruption("clipping, share of the samples [%]", clip_share, (1, 5, 20)),
    "shift": Corruption("shift in time, share of the clip [%]", shift, (10, 25, 50)),
}
