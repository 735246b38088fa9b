"""From attributions to the map that people see: summed over channels, of one sign, smoothed.

The same map is drawn, scored, listened to and reported; Integrated Gradients go on until it stands still.

- `MapSettings` says how the map is made, and makes it.
- `distance` compares two maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from transferlens.util.errors import ParameterError
from transferlens.util.fields import Fields, at_least
from transferlens.util.lazy import scipy

# Standard deviation of the kernel that smooths a map, by default [mel bands and frames].
SMOOTH = (4.0, 4.0)
Sign = Literal["signed", "positive", "absolute"]


@dataclass(frozen=True, kw_only=True)
class MapSettings(Fields):
    """How a map is made from the attributions of one input.

    Attributes
    ----------
    smooth : tuple of float >= 0 [mel bands, frames]
        Standard deviation of a Gaussian along both axes; 0: not smoothed.
    sign : {"signed", "positive", "absolute"}
        Of each cell, before it is smoothed: its value, only what speaks for the class, or its magnitude.
    """

    smooth: tuple[Annotated[float, at_least(0)], Annotated[float, at_least(0)]] = SMOOTH
    sign: Sign = "signed"

    @property
    def words(self) -> str:
        """The settings in words, such as "signed, smoothed over 4 bands x 4 frames"."""
        bands, frames = self.smooth
        return f"{self.sign}, smoothed over {bands:g} bands x {frames:g} frames" if any(self.smooth) else self.sign

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the map [shape=(..., height, width)] of attributions [shape=(..., channels, height, width)].

        Examples
        --------
        >>> import numpy as np
        >>> values = np.array([[[1.0, -2.0]], [[1.0, -1.0]]])
        >>> MapSettings(smooth=(0, 0), sign="positive")(values)
        array([[2., 0.]])
        """
        if values.ndim < 3:
            raise ParameterError(f"values of shape {values.shape} must be (..., channels, height, width)")
        return self.of_cells(values.sum(-3))

    def of_cells(self, cells: np.ndarray) -> np.ndarray:
        """Return the map of attributions that are already summed over channels [shape=(..., height, width)]."""
        if self.sign == "positive":
            cells = np.maximum(cells, 0)
        elif self.sign == "absolute":
            cells = np.abs(cells)
        return self.smoothed(cells)

    def smoothed(self, cells: np.ndarray) -> np.ndarray:
        """Return cells smoothed along their last two axes."""
        if not any(self.smooth):
            return cells
        return scipy.ndimage.gaussian_filter(cells, (0,) * (cells.ndim - 2) + self.smooth)


def distance(new: np.ndarray, old: np.ndarray) -> float:
    """Return the L1 distance of two maps, relative to the L1 norm of the new one; 0 if both are 0.

    Examples
    --------
    >>> distance(np.array([[1.0, 1.0]]), np.array([[1.0, 0.5]]))
    0.25
    """
    moved, norm = float(np.abs(new - old).sum()), float(np.abs(new).sum())
    return moved / norm if norm else float("inf") if moved else 0.0
