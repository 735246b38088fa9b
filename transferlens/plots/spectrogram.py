"""Spectrograms and attributions on Axes and as images."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from transferlens.plots.style import axes_or_new
from transferlens.util.lazy import images, matplotlib, scipy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["attribution_image", "attribution_map", "spectrogram", "spectrogram_image"]

# Marks on the mel axis [Hz].
MEL_TICKS = (500, 1000, 2000, 4000, 8000, 16000)
# Share of an attribution's cells that its colours do not saturate.
ROBUST = 0.995
# Deviation of the kernel that attributions are smoothed with [cells].
SMOOTH = 1.5


def _extent(S: np.ndarray, seconds: float | None) -> tuple[float, float, float, float]:
    return 0.0, 1.0 if seconds is None else seconds, -0.5, S.shape[0] - 0.5


def spectrogram(S: np.ndarray, *, seconds: float | None, hz: np.ndarray, ax: Axes | None = None) -> Axes:
    """A log-mel spectrogram in grey, loud cells dark.

    Parameters
    ----------
    S : ndarray [shape=(n_mels, width)]
    seconds : float > 0 [s] or None
        Length of the clip; where it is not known, time is a share of the clip.
    hz : ndarray [shape=(n_mels,)]
        Centres of the mel bands.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    low, high = np.quantile(S, (0.02, 0.998))
    ax.imshow(S, origin="lower", aspect="auto", cmap="Greys", vmin=low, vmax=high, extent=_extent(S, seconds))
    ticks = [tick for tick in MEL_TICKS if hz[0] <= tick <= hz[-1]]
    ax.set_yticks(np.interp(ticks, hz, np.arange(len(hz))), [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize="x-small")
    ax.grid(False)
    return ax


def attribution_map(values: np.ndarray, *, seconds: float | None, ax: Axes | None = None) -> Axes:
    """Attributions over a spectrogram: red for, blue against, the more opaque the stronger; smoothed to be seen.

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
    """Red, green, blue and opacity [shape=(n_mels, width, 4)]."""
    values = scipy.ndimage.gaussian_filter(values, SMOOTH)
    limit = np.quantile(np.abs(values), ROBUST) or 1.0
    share = np.clip(values / limit, -1, 1)
    image = matplotlib.colormaps["bwr"](0.5 + share / 2)
    image[..., 3] = np.abs(share) ** 0.6
    return image


def attribution_image(values: np.ndarray) -> str:
    """The same as `attribution_map`, a cell a pixel, as a data URI to be laid over that of `spectrogram_image`."""
    return _data_uri(_attribution_colours(values))


def spectrogram_image(S: np.ndarray) -> str:
    """The same as `spectrogram`, a cell a pixel, without axes, as a data URI."""
    low, high = np.quantile(S, (0.02, 0.998))
    shade = np.clip((S - low) / max(high - low, 1e-9), 0, 1)
    return _data_uri(matplotlib.colormaps["Greys"](shade))


def _data_uri(image: np.ndarray) -> str:
    file = io.BytesIO()
    images.imsave(file, image[::-1], format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
