"""Spectrograms and attributions, on Axes and as images for a web page.

Loud cells are dark. On Axes, `evidence` encloses the smallest regions that hold half, and 80 %, of what speaks for the
class, `outline` encloses a mask, and `band_profile` shows shares by mel band. In images, an attribution is red where it
speaks for the class and blue where it speaks against it, the more opaque the stronger.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from transferlens.plots.style import axes_or_new
from transferlens.util.lazy import images, matplotlib, scipy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEL_TICKS = (500, 1000, 2000, 4000, 8000, 16000)  # on the mel axis [Hz]
SHADES = (0.02, 0.998)  # quantiles of a spectrogram that are drawn white and black
ROBUST = 0.995  # share of an attribution's cells whose colours do not saturate
MASSES, OPACITIES = (0.8, 0.5), (0.25, 0.5)  # shares of the positive attribution that regions hold, and their colour
FOR, AGAINST, KNOWN = "#d1480a", "#1f5fbf", "#0a8f3c"  # colours of evidence, of what speaks against, of a mask
CLOSED = 3  # width of the gaps that an outline closes [cells]


def _extent(S: np.ndarray, seconds: float | None) -> tuple[float, float, float, float]:
    return 0.0, 1.0 if seconds is None else seconds, -0.5, S.shape[0] - 0.5


def spectrogram(
    S: np.ndarray, *, seconds: float | None, hz: np.ndarray, opacity: float = 1.0, ax: Axes | None = None
) -> Axes:
    """Draw a log-mel spectrogram in grey.

    Parameters
    ----------
    S : ndarray [shape=(n_mels, width)]
    seconds : float > 0 [s] or None
        Length of the clip. None, where it is not known, gives an axis from 0 to 1.
    hz : ndarray [shape=(n_mels,)]
        Centre frequencies of the mel bands.
    opacity : float in [0, 1]
        Lower for a spectrogram that is drawn over.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = axes_or_new(ax)
    low, high = np.nanquantile(S, SHADES)
    image = {"cmap": "Greys", "vmin": low, "vmax": high, "alpha": opacity}
    ax.imshow(S, origin="lower", aspect="auto", extent=_extent(S, seconds), **image)
    ticks = [tick for tick in MEL_TICKS if hz[0] <= tick <= hz[-1]]
    ax.set_yticks(np.interp(ticks, hz, np.arange(len(hz))), [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize="x-small")
    ax.grid(False)
    return ax


def mass_level(values: np.ndarray, share: float) -> float:
    """Return the level above which cells hold this share of the sum of all; values are not negative.

    Examples
    --------
    >>> mass_level(np.array([1.0, 2.0, 3.0, 4.0]), 0.5)
    3.0
    """
    ordered = np.sort(values, axis=None)[::-1]
    total = np.cumsum(ordered)
    return float(ordered[np.searchsorted(total, share * total[-1])])


def _centres(values: np.ndarray, seconds: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of cells along both axes, as `spectrogram` places them."""
    n_mels, width = values.shape
    return (np.arange(width) + 0.5) * (seconds or 1.0) / width, np.arange(n_mels)


def evidence(values: np.ndarray, *, seconds: float | None, ax: Axes | None = None) -> Axes:
    """Draw where attributions speak for the class, over a spectrogram: half of it dark, 80 % light.

    A blue line encloses what speaks against it as strongly as the light region does for it.

    Parameters
    ----------
    values : ndarray [shape=(n_mels, width)]
        A smoothed map; of one that is not, regions are specks.
    seconds, ax
        As for `spectrogram`.
    """
    ax = axes_or_new(ax)
    positive = np.maximum(values, 0)
    if not positive.any():
        return ax
    x, y = _centres(values, seconds)
    levels = [mass_level(positive, share) for share in MASSES]
    for level, opacity in zip(levels, OPACITIES, strict=True):
        region = (positive >= level).astype(float)
        ax.contourf(x, y, region, levels=[0.5, 1.5], colors=[FOR], alpha=opacity)
        ax.contour(x, y, region, levels=[0.5], colors=[FOR], linewidths=0.8)
    against = (-values >= levels[0]).astype(float)
    if against.any():
        ax.contour(x, y, against, levels=[0.5], colors=[AGAINST], linewidths=0.8)
    return ax


class Share(Protocol):
    """A share with its interval, which is NaN if there is none."""

    @property
    def share(self) -> float:
        """The share."""

    @property
    def low(self) -> float:
        """Lower bound."""

    @property
    def high(self) -> float:
        """Upper bound."""


def band_profile(rows: Sequence[Share], *, colour: Any, ax: Axes | None = None) -> Axes:
    """Draw shares by mel band, from the lowest, on the frequency axis of a `spectrogram`, with their intervals."""
    ax, bands = axes_or_new(ax), np.arange(len(rows))
    low, high = (100 * np.array([getattr(row, bound) for row in rows]) for bound in ("low", "high"))
    ax.fill_betweenx(bands, low, high, color=colour, alpha=0.2, lw=0)
    ax.plot([100 * row.share for row in rows], bands, color=colour, lw=1.4)
    largest = 105 * max(row.share for row in rows) or 1.0
    ax.set_xlim(0, max(largest, ax.get_xlim()[1] if len(ax.lines) > 1 else 0))
    ax.tick_params(labelsize="x-small")
    return ax


def outline(mask: np.ndarray, *, seconds: float | None, ax: Axes | None = None) -> Axes:
    """Enclose the cells of a mask [shape=(n_mels, width), bool] by a line; small holes are closed."""
    ax = axes_or_new(ax)
    closed = scipy.ndimage.binary_closing(np.pad(mask, CLOSED), iterations=CLOSED)[CLOSED:-CLOSED, CLOSED:-CLOSED]
    if closed.any():
        x, y = _centres(mask, seconds)
        ax.contour(x, y, closed.astype(float), levels=[0.5], colors=[KNOWN], linewidths=1.3)
    return ax


def _attribution_colours(values: np.ndarray) -> np.ndarray:
    """Return red, green, blue and opacity [shape=(n_mels, width, 4)]."""
    limit = np.quantile(np.abs(values), ROBUST) or 1.0
    share = np.clip(values / limit, -1, 1)
    image = matplotlib.colormaps["bwr"](0.5 + share / 2)
    image[..., 3] = np.abs(share) ** 0.6
    return image


def attribution_image(values: np.ndarray) -> str:
    """Return attributions, in red and blue, as the data URI of a PNG of one pixel per cell.

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
