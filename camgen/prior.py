"""Where a finding lies: a location prior, smoothed from the true boxes on *tune*.

Classifiers take hints from elsewhere (a big heart makes an effusion likely), so a map may point at the hint.
Multiplying it by how often radiologists boxed each place, to a power that the search chooses, brings it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.ndimage import gaussian_filter, map_coordinates

from weakray.config import StrictModel
from weakray.imaging import Placement

Array = npt.NDArray[np.float64]
GRID = 16
_BLUR = 0.06  # standard deviation, of the image's sides
_FLOOR = 0.02  # no place is ruled out


class Prior(StrictModel):
    """A prior and the power it is raised to."""

    exponent: float = Field(..., gt=0, description="power of the prior that a map is multiplied by")
    grid: tuple[tuple[float, ...], ...] = Field(
        ..., description="rows of the image, top to bottom: how often a place was boxed, the most often boxed being 1"
    )

    def weight(self, placement: Placement, size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
        """What a map `(h, w)` over the letterboxed square is multiplied by, in (0, 1]."""
        return weight(np.array(self.grid), self.exponent, placement, size_hw)


def fit_prior(boxes_rel: Array) -> Array:
    """`(GRID, GRID)` in [0, 1] from true boxes `(m, 4)` xyxy relative to their images; ones without a box.

    Each box covers its part of each cell; the sum is blurred and scaled to a largest value of 1.
    """
    if len(boxes_rel) == 0:
        return np.ones((GRID, GRID))
    low, high = np.arange(GRID) / GRID, (np.arange(GRID) + 1) / GRID
    across, down = (
        np.clip(np.minimum(high, boxes_rel[:, axis + 2, None]) - np.maximum(low, boxes_rel[:, axis, None]), 0, None)
        for axis in (0, 1)
    )
    covered = np.einsum("my,mx->yx", down, across)
    blurred = gaussian_filter(covered, _BLUR * GRID, mode="nearest")
    top = blurred.max()
    return np.asarray(np.round(blurred / top, 3)) if top > 0 else np.ones((GRID, GRID))


def weight(grid: Array, exponent: float, placement: Placement, size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A prior at the cells of a map `(h, w)` over the letterboxed square; beyond the image as at its border."""
    rows, columns = placement.inner()
    side = max(rows.stop - rows.start, columns.stop - columns.start)
    at: list[Any] = []
    for cells, inner in zip(size_hw, (rows, columns), strict=True):
        centre = (np.arange(cells) + 0.5) * side / cells
        at.append((centre - inner.start) / (inner.stop - inner.start) * GRID - 0.5)
    sampled = map_coordinates(grid, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    return np.asarray(np.maximum(sampled, _FLOOR) ** exponent, np.float32)
