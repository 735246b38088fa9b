"""What can happen to a recording on its way to the network, at known strengths: waveform in, waveform out.

References
----------
D. Hendrycks, T. Dietterich: Benchmarking neural network robustness to common corruptions. ICLR 2019 (the idea).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import scipy

__all__ = ["CORRUPTIONS", "Corruption", "clip_share", "gain", "low_pass", "noise", "shift"]

# Order of the Butterworth low-pass, run forth and back.
ORDER = 4


def noise(y: np.ndarray, snr: float, *, sr: int, seed: int) -> np.ndarray:
    """Add white Gaussian noise at a signal-to-noise ratio `snr` [dB] over the whole clip; silence stays silent."""
    white = np.random.default_rng(seed).normal(size=len(y))
    level = np.sqrt(np.mean(np.square(y, dtype=float)) / 10 ** (snr / 10))
    return (y + level * white / np.sqrt(np.mean(white**2))).astype(np.float32)


def gain(y: np.ndarray, db: float, *, sr: int, seed: int) -> np.ndarray:
    """Make louder or softer by `db` [dB], without clipping."""
    return (y * 10 ** (db / 20)).astype(np.float32)


def low_pass(y: np.ndarray, cutoff: float, *, sr: int, seed: int) -> np.ndarray:
    """Take away what lies above `cutoff` [Hz] (Butterworth, without delay); nothing where `sr` has no more anyway."""
    if cutoff >= sr / 2:
        return y
    sections = scipy.signal.butter(ORDER, cutoff, fs=sr, output="sos")
    return scipy.signal.sosfiltfilt(sections, y, padlen=min(3 * 2 * ORDER, len(y) - 1)).astype(np.float32)


def clip_share(y: np.ndarray, percent: float, *, sr: int, seed: int) -> np.ndarray:
    """Clip at the level that the loudest `percent` of the samples exceed."""
    limit = np.quantile(np.abs(y), 1 - percent / 100)
    return np.clip(y, -limit, limit).astype(np.float32)


def shift(y: np.ndarray, percent: float, *, sr: int, seed: int) -> np.ndarray:
    """Begin later by `percent` of the clip; its end comes round to the start."""
    return np.roll(y, round(len(y) * percent / 100))


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes
    ----------
    title : str
        With the unit of its strength, for an axis.
    apply : callable
        ``apply(y, strength, sr=, seed=)`` gives a waveform of the same length.
    strengths : tuple of float
        From weak to strong.
    """

    title: str
    apply: Callable[..., np.ndarray]
    strengths: tuple[float, ...]

    def __call__(self, y: np.ndarray, strength: float, *, sr: int, seed: int = 0) -> np.ndarray:
        """The waveform after it.

        Parameters
        ----------
        y : ndarray [shape=(n,)]
        strength : float
            In the unit of `title`.
        sr : int > 0 [Hz]
        seed : int >= 0

        Raises
        ------
        ParameterError
            Where `y` is no waveform, or `strength` is not finite.
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
