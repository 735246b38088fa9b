"""Spectrograms and attributions, on Axes and as images for a web page.

Loud cells are dark. An attribution is red where it speaks for the class and blue where it speaks against it, the more
opaque the stronger.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from transferlens.plots.style import axes_or_new
from transferlens.util.lazy import images, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEL_TICKS = (500, 1000, 2000, 4000, 8000, 16000)  # on the mel axis [Hz]
SHADES = (0.02, 0.998)  # quantiles of a spectrogram that are drawn white and black
ROBUST = 0.995  # share of an attribution's cells whose colours do not saturate


def _extent(S: np.ndarray, seconds: float | None) -> tuple[float, float, float, float]:
    return 0.0, 1.0 if seconds is None else seconds, -0.5, S.shape[0] - 0.5


def spectrogram(S: np.ndarray, *, seconds: float | None, hz: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw a log-mel spectrogram in grey.

    Parameters
    ----------
    S : ndarray [shape=(n_mels, width)]
    seconds : float > 0 [s] or None
        Length of the clip. None, where it is not known, gives an axis from 0 to 1.
    hz : ndarray [shape=(n_mels,)]
        Centre frequencies of the mel bands.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    low, high = np.quantile(S, SHADES)
    ax.imshow(S, origin="lower", aspect="auto", cmap="Greys", vmin=low, vmax=high, extent=_extent(S, seconds))
    ticks = [tick for tick in MEL_TICKS if hz[0] <= tick <= hz[-1]]
    ax.set_yticks(np.interp(ticks, hz, np.arange(len(hz))), [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize="x-small")
    ax.grid(False)
    return ax


def attribution_map(values: np.ndarray, *, seconds: float | None, ax: Axes | None = None) -> Axes:
    """Draw attributions, usually over a spectrogram.

    Parameters
    ----------
    values : ndarray [shape=(n_mels, width)]
    seconds, ax
        As for `spectrogram`.
    """
    ax = axes_or_new(ax)
    image = _attribution_colours(values)
    ax.imshow(image, origin="lower", aspect="auto", extent=_extent(values, seconds), interpolation="nearest")
    return ax


def _attribution_colours(values: np.ndarray) -> np.ndarray:
    """Return red, green, blue and opacity [shape=(n_mels, width, 4)]."""
    limit = np.quantile(np.abs(values), ROBUST) or 1.0
    share = np.clip(values / limit, -1, 1)
    image = matplotlib.colormaps["bwr"](0.5 + share / 2)
    image[..., 3] = np.abs(share) ** 0.6
    return image


def attribution_image(values: np.ndarray) -> str:
    """Return attributions, drawn as by `attribution_map`, as the data URI of a PNG of one pixel per cell.

    It fits over the image of the clip's `spectrogram_image`.
    """
    return _data_uri(_attribution_colours(values))


def spectrogram_image(S: np.ndarray) -> str:
    """Return a spectrogram, drawn as by `spectrogram` without axes, as the data URI of a PNG of one pixel per cell."""
    low, high = np.quantile(S, SHADES)
    shade = np.clip((S - low) / max(high - low, 1e-9), 0, 1)
    return _data_uri(matplotlib.colormaps["Greys"](shade))


def _data_uri(image: np.ndarray) -> str:
    file = io.BytesIO()
    images.imsave(file, image[::-1], format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
