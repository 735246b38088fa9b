"""Ground-truth masks of the generated clips: where in the features the evidence of the class is."""

from __future__ import annotations

from typing import Literal

import numpy as np

from transferlens.data import known_answers
from transferlens.data.synthetic import waveform
from transferlens.features import logmel
from transferlens.util.lazy import librosa


def event_mask(
    id: str,
    *,
    of: Literal["evidence", "hum"] = "evidence",
    sr: int | None = None,
    width: int | None = None,
    floor_db: float = 40.0,
    **options,
) -> np.ndarray:
    """Compute in which cells of a clip's features the event has more power than all other sounds together.

    Where the evidence is a gap in the event, these are the cells in which what was cut out would have.

    Parameters
    ----------
    id : str
        A clip of a generated data set, such as one of `data.synthetic.clip_ids`.
    of : "evidence" or "hum"
        The event, or the gap in it; or the hum of a clip of ``synth-shortcut`` (no cell, if it has none).
    sr : int > 0 [Hz], optional
        Rate of the features; by default that of the manifest.
    width : int > 0 [frames], optional
        Width of the features; by default that of the manifest.
    floor_db : float > 0 [dB]
        Cells more than this below the sound's strongest cell in the same channel are not in the mask: they hold only
        quantisation noise.
    **options
        Further options of `features.logmel.log_mel`, such as ``n_mels``.

    Returns
    -------
    mask : ndarray [shape=(3, n_mels, width), bool]
        Ideal binary mask with a local criterion of 0 dB [1]_.

    Raises
    ------
    ParameterError
        If no clip has this id, or an option has a value that is not allowed.

    References
    ----------
    .. [1] D. Wang: On ideal binary mask as the computational goal of auditory scene analysis. In Speech Separation by
       Humans and Machines, Kluwer 2005, chapter 12.

    Examples
    --------
    >>> event_mask("siren-f1-g0-0").shape
    (3, 128, 100)
    """
    row, stems = known_answers.row_of(id), known_answers.render(id)
    rate, width = sr or row.sr, width or row.width

    def log_mel(samples: np.ndarray) -> np.ndarray:
        """Return the features [shape=(channels, n_mels, width)] of samples as `render` gives them."""
        y = waveform(samples)
        if rate != row.sr:
            y = librosa.resample(y, orig_sr=row.sr, target_sr=rate, res_type="soxr_hq")
        return logmel.log_mel(y, sr=rate, width=width, **options)

    event, rest = map(log_mel, stems.apart(of))
    floor = event.max(axis=(1, 2), keepdims=True) - floor_db * np.log(10) / 10
    return (event > rest) & (event > floor)
