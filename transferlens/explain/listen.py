"""What a network used of a clip, and what it ignored, to listen to.

The attribution's positive part, as a mask from 0 to 1 over mel bands and frames, is mapped back through the mel bands
to the bins of a short-time Fourier transform; the clip weighted by it is what was used, the rest what was ignored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transferlens.features.logmel import FeatureSettings, mel_filters
from transferlens.util.errors import ParameterError
from transferlens.util.files import complete_or_absent
from transferlens.util.lazy import librosa, soundfile

__all__ = ["gain", "mask", "split", "write"]

# Window of the transform [s]: the middle one of the paper's three.
WINDOW = 0.05
# Share of the positive cells' strength from which on a cell counts as fully used.
FULL = 0.95
LOUDEST = 0.999


def mask(attribution: np.ndarray) -> np.ndarray:
    """How much of each cell was used: 0 where the attribution is not positive, 1 at its 95th percentile and above.

    Parameters
    ----------
    attribution : ndarray [shape=(n_mels, width)]

    Returns
    -------
    mask : ndarray [shape=(n_mels, width), in [0, 1]]
        All zeros where nothing is positive.
    """
    positive = np.maximum(attribution, 0)
    if not positive.any():
        return positive
    return np.minimum(positive / np.quantile(positive[positive > 0], FULL), 1)


def split(y: np.ndarray, used: np.ndarray, settings: FeatureSettings) -> tuple[np.ndarray, np.ndarray]:
    """The clip weighted by a mask over its features, and by the mask's complement.

    Parameters
    ----------
    y : ndarray [shape=(n_samples,), float]
        At the rate of the features.
    used : ndarray [shape=(n_mels, width), in [0, 1]]
    settings : FeatureSettings
        How the features were made: where a frame lies in time, and a band in frequency.

    Returns
    -------
    used, ignored : ndarray [shape=(n_samples,)]
        They sum to the clip. What features that were cropped did not see was ignored.

    Raises
    ------
    ParameterError
        Where the mask has another shape than the features.
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
    """What to multiply signals with, all alike, so that none is clipped: at most 1."""
    loudest = max(np.abs(y).max(initial=0.0) for y in signals)
    return LOUDEST / loudest if loudest > LOUDEST else 1.0


def _bins(settings: FeatureSettings, n_fft: int) -> np.ndarray:
    """From mel bands to bins, each the weighted mean of its bands [shape=(n_bins, n_mels)]."""
    filters = mel_filters(settings.sr, n_fft, settings.n_mels).T.toarray().astype(float)
    total = filters.sum(1, keepdims=True)
    # Bins that no band reaches take the nearest one's.
    reached = np.flatnonzero(total[:, 0])
    nearest = reached[np.abs(np.arange(len(filters))[:, None] - reached).argmin(1)]
    return (filters / np.where(total, total, 1))[nearest]


def _frames(
    used: np.ndarray, settings: FeatureSettings, n_samples: int, n_fft: int, n_frames: int, hop_length: int
) -> np.ndarray:
    """The mask at the times of the transform's frames [shape=(n_mels, n_frames)]."""
    seconds = n_samples / settings.sr if settings.seconds is None else settings.seconds
    columns = (np.arange(settings.width) + 0.5) * seconds / settings.width
    times = np.arange(n_frames) * hop_length / settings.sr
    inside = times <= seconds
    return np.stack([np.interp(times, columns, band) * inside for band in used])


def write(folder: Path, stem: str, y: np.ndarray, used: np.ndarray, settings: FeatureSettings) -> list[Path]:
    """Write ``<stem>_clip.wav``, ``<stem>_used.wav`` and ``<stem>_ignored.wav``, each complete or absent.

    All three at one gain, so that none is clipped and the last two sum to the first.

    Parameters
    ----------
    folder : Path
    stem : str
    y, used, settings
        As for `split`.
    """
    part, rest = split(y, used, settings)
    level = gain(y, part, rest)
    paths = []
    for name, each in (("clip", y), ("used", part), ("ignored", rest)):
        path = folder / f"{stem}_{name}.wav"
        with complete_or_absent(path) as beside:
            soundfile.write(beside, level * each, settings.sr, subtype="PCM_16", format="WAV")
        paths.append(path)
    return paths
