"""What a network used of a clip, and what it ignored, as sounds.

The positive part of the attribution becomes a mask from 0 to 1 over mel bands and frames (`mask`). Mapped from mel
bands to the bins of a short-time Fourier transform, the mask weights the clip: the result is what was used, the rest of
the clip is what was ignored (`split`). `write` writes both as wav files, at one `gain`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transferlens.features.logmel import FeatureSettings, mel_filters
from transferlens.util.errors import ParameterError
from transferlens.util.files import complete_or_absent
from transferlens.util.lazy import librosa, soundfile

# Window of the transform [s]: the middle one of the paper's three.
WINDOW = 0.05
# Positive cells at or above this quantile of the positive cells count as fully used.
FULL = 0.95
# Largest absolute sample value in a file.
LOUDEST = 0.999


def mask(attribution: np.ndarray) -> np.ndarray:
    """Compute how much of each cell was used, 0 to 1, from its attribution [shape=(n_mels, width)].

    It is 0 where the attribution is not positive, and 1 from the 95th percentile of the positive ones on.
    """
    positive = np.maximum(attribution, 0)
    if not positive.any():
        return positive
    return np.minimum(positive / np.quantile(positive[positive > 0], FULL), 1)


def split(y: np.ndarray, used: np.ndarray, settings: FeatureSettings) -> tuple[np.ndarray, np.ndarray]:
    """Split a clip into what a mask over its features lets through, and the rest.

    Parameters
    ----------
    y : ndarray [shape=(n_samples,), float]
        At the rate of the features.
    used : ndarray [shape=(n_mels, width), in [0, 1]]
        The mask.
    settings : FeatureSettings
        Of the features: they tell the time of a frame, and the frequency of a band.

    Returns
    -------
    used, ignored : ndarray [shape=(n_samples,)]
        They sum to the clip. Parts of the clip that the features do not cover count as ignored.
    """
    if used.shape != settings.shape[1:]:
        raise ParameterError(f"used of shape {used.shape} must be a mask over features of shape {settings.shape[1:]}")
    n_fft = 2 * round(WINDOW * settings.sr / 2)
    hop_length = n_fft // 4
    padded = librosa.util.fix_length(y, size=max(len(y), n_fft))
    D = librosa.stft(padded, n_fft=n_fft, hop_length=hop_length)
    weights = _bins(settings, n_fft) @ _frames(used, settings, len(y), n_fft, D.shape[1], hop_length)
    part = librosa.istft(weights * D, n_fft=n_fft, hop_length=hop_length, length=len(padded))[: len(y)]
    return part, y - part


def gain(*signals: np.ndarray) -> float:
    """Return a common factor, at most 1, that keeps all signals from being clipped."""
    loudest = max(np.abs(y).max(initial=0.0) for y in signals)
    return LOUDEST / loudest if loudest > LOUDEST else 1.0


def _bins(settings: FeatureSettings, n_fft: int) -> np.ndarray:
    """Return the weights that make each bin the weighted mean of its mel bands [shape=(n_bins, n_mels)]."""
    filters = mel_filters(settings.sr, n_fft, settings.n_mels).T.toarray().astype(float)
    total = filters.sum(1, keepdims=True)
    # Bins outside of all bands take the weights of the nearest bin inside.
    reached = np.flatnonzero(total[:, 0])
    nearest = reached[np.abs(np.arange(len(filters))[:, None] - reached).argmin(1)]
    return (filters / np.where(total, total, 1))[nearest]


def _frames(
    used: np.ndarray, settings: FeatureSettings, n_samples: int, n_fft: int, n_frames: int, hop_length: int
) -> np.ndarray:
    """Return the mask at the times of the transform's frames [shape=(n_mels, n_frames)]."""
    seconds = n_samples / settings.sr if settings.seconds is None else settings.seconds
    columns = (np.arange(settings.width) + 0.5) * seconds / settings.width
    times = np.arange(n_frames) * hop_length / settings.sr
    inside = times <= seconds
    return np.stack([np.interp(times, columns, band) * inside for band in used])


def write(folder: Path, stem: str, y: np.ndarray, used: np.ndarray, settings: FeatureSettings) -> list[Path]:
    """Write ``<stem>_clip.wav``, ``<stem>_used.wav`` and ``<stem>_ignored.wav``, as of `split`.

    All three have one gain: none is clipped, and the last two sum to the first.
    """
    part, rest = split(y, used, settings)
    level = gain(y, part, rest)
    paths = []
    for name, signal in (("clip", y), ("used", part), ("ignored", rest)):
        path = folder / f"{stem}_{name}.wav"
        with complete_or_absent(path) as beside:
            soundfile.write(beside, level * signal, settings.sr, subtype="PCM_16", format="WAV")
        paths.append(path)
    return paths
