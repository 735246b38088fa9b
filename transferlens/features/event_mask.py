"""Ideal binary masks of the built-in clips' events, in the cells of the features."""

from __future__ import annotations

import numpy as np

from transferlens.data.manifest import manifest
from transferlens.data.synthetic import render, waveform
from transferlens.features import logmel
from transferlens.util.lazy import librosa

__all__ = ["event_mask"]


def event_mask(
    id: str, *, sr: int | None = None, width: int | None = None, floor_db: float = 40.0, **options
) -> np.ndarray:
    """The cells of a clip's features in which the event has more power than all else together.

    Parameters
    ----------
    id : str
        One of `clip_ids`.
    sr : int > 0 [Hz], optional
        Rate of the features; by default that of the manifest.
    width : int > 0 [frames], optional
        Width of the features; by default that of the manifest.
    floor_db : float > 0 [dB]
        Cells that much below the event's strongest of the same channel are no event: there quantisation noise
        would be compared with itself.
    **options
        Further options of `features.log_mel`, as ``n_mels``.

    Returns
    -------
    mask : ndarray [shape=(3, n_mels, width), bool]
        Ideal binary mask, local criterion 0 dB.

    Raises
    ------
    ParameterError
        Where no clip has this id, or an option is outside its rule.

    References
    ----------
    Wang (2005), see the module's docstring.

    Examples
    --------
    >>> event_mask("siren-f1-g0-0").shape
    (3, 128, 100)
    """
    row, stems = manifest()["synth"], render(id)
    rate, width = sr or row.sr, width or row.width

    def log_mel(samples: np.ndarray) -> np.ndarray:
        y = waveform(samples)
        if rate != row.sr:
            y = librosa.resample(y, orig_sr=row.sr, target_sr=rate, res_type="soxr_hq")
        return logmel.log_mel(y, sr=rate, width=width, **options)

    event, rest = log_mel(stems.event), log_mel(stems.background + stems.distractor)
    floor = event.max(axis=(1, 2), keepdims=True) - floor_db * np.log(10) / 10
    return (event > rest) & (event > floor)
