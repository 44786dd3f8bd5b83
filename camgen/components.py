"""Boxes from maps: upsample, cut, connected components, edges between the samples.

A box is the bounding box of the points where the bilinear map exceeds the cut. Components are found on a grid that
is a few times finer than the map; each edge is then moved to where the value, linear between two grid samples,
crosses the cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from weakray.imaging import Placement

Array = npt.NDArray[np.float64]
SHAPE_NAMES = ("peak", "mean", "centroid_dx", "centroid_dy", "log_spread_x", "log_spread_y", "fill", "log_count")


@dataclass(frozen=True)
class FineMap:
    """One map, upsampled and cut to the part that the image covers.

    Attributes:
        values: `(rows, columns)` float32, >= 0.
        first_yx: grid position of `values[0, 0]` relative to the image's top left corner, in grid cells (a cell's
            centre lies half a cell further).
        size_yx: the image's height and width in grid cells.
        low: smallest value.
        high: largest value.
    """

    values: npt.NDArray[np.float32]
    first_yx: tuple[float, float]
    size_yx: tuple[float, float]
    low: float
    high: float

    @property
    def empty(self) -> bool:
        """Points nowhere: no value > 0, or flat."""
        return self.high <= 0 or self.high == self.low


@dataclass(frozen=True)
class Components:
    """Boxes of one finding in n images, p places an image, best peak first.

    Attributes:
        boxes_rel: `(n, p, 4)` xyxy relative to the image, [0, 1].
        valid: `(n, p)`, which places hold a box.
        peak: `(n, p)` in [0, 1]: the component's largest value; as a fraction of the map's largest where the map
            has no scale of its own.
        shape: `(n, p, 8)`, what the map looks like inside the box (`SHAPE_NAMES`).
        empty: `(n,)`, maps that point nowhere.
    """

    boxes_rel: Array
    valid: npt.NDArray[np.bool_]
    peak: Array
    shape: Array
    empty: npt.NDArray[np.bool_]

    def first(self, places: int) -> Components:
        """At most `places` boxes an image."""
        return Components(
            self.boxes_rel[:, :places],
            self.valid[:, :places],
            self.peak[:, :places],
            self.shape[:, :places],
            self.empty,
        )

    def rows(self, index: npt.NDArray[Any]) -> Components:
        """Some of the images, by mask or index."""
        return Components(
            self.boxes_rel[index], self.valid[index], self.peak[index], self.shape[index], self.empty[index]
        )


def fine_map(map_hw: npt.NDArray[np.float32], placement: Placement, resolution: int) -> FineMap:
    """Upsamples a map that covers the letterboxed square, and leaves out what lies over the padding.

    Args:
        map_hw: `(h, w)`; values below 0 count as 0.
        placement: where the image lies in the square.
        resolution: at least so many grid samples along each side of the square; whole numbers of them a map cell.
    """
    upsample = max(1, math.ceil(resolution / min(map_hw.shape)))
    height, width = map_hw.shape[0] * upsample, map_hw.shape[1] * upsample
    grid = np.maximum(map_hw, 0).astype(np.float32)
    if upsample > 1:
        grid = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = placement.inner()
    side = max(rows.stop - rows.start, columns.stop - columns.start)  # letterbox: the longer side fills the square
    top, bottom = rows.start * height / side, rows.stop * height / side
    left, right = columns.start * width / side, columns.stop * width / side
    row0, column0 = math.ceil(top - 0.5), math.ceil(left - 0.5)  # the first cell whose centre is inside
    inside = grid[row0 : max(math.ceil(bottom - 0.5), row0 + 1), column0 : max(math.ceil(right - 0.5), column0 + 1)]
    inside = np.ascontiguousarray(inside)
    return FineMap(
        inside, (row0 - top, column0 - left), (bottom - top, right - left), float(inside.min()), float(inside.max())
    )


def find_components(
    maps: Sequence[FineMap], *, value: float, relative: bool, unit_range: bool, min_area: float, places: int
) -> Components:
    """Cuts maps and boxes what is above.

    Args:
        maps: one map an image.
        value: the cut, [0, 1].
        relative: the cut is a fraction of the map's range in this image; else it is a value of the map.
        unit_range: map values lie in [0, 1] and are peaks as they stand; else peaks are fractions of the map's largest.
        min_area: smallest component, as a fraction of the image's area.
        places: at most so many boxes an image, best peak first.
    """
    n = len(maps)
    found = Components(
        np.zeros((n, places, 4)),
        np.zeros((n, places), bool),
        np.zeros((n, places)),
        np.zeros((n, places, len(SHAPE_NAMES))),
        np.array([fine.empty for fine in maps], bool),
    )
    for i, fine in enumerate(maps):
        if fine.empty:
            continue
        cut = fine.low + value * (fine.high - fine.low) if relative else value
        if fine.high <= cut:
            continue
        unit = 1.0 if unit_range else fine.high
        rows, count = _boxes(fine, cut, min_area, unit, places)
        for j, row in enumerate(rows):
            found.boxes_rel[i, j] = row[:4]
            found.valid[i, j] = True
            found.peak[i, j] = row[4]
            found.shape[i, j] = (*row[4:], math.log(count))
    return found


def _boxes(fine: FineMap, cut: float, min_area: float, unit: float, places: int) -> tuple[list[tuple[float, ...]], int]:
    """The components of highest peak, and how many there are.

    A component is (x0, y0, x1, y1, peak, mean, centroid dx, dy, log spread x, y, fill), relative to the image.
    """
    values = fine.values
    rows, columns = values.shape
    height, width = fine.size_yx
    above = values > cut
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.view(np.uint8), connectivity=8)
    big = 1 + np.flatnonzero(stats[1:count, cv2.CC_STAT_AREA] >= min_area * height * width)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, labels[above], values[above])
    first = np.lexsort((stats[big, cv2.CC_STAT_TOP], stats[big, cv2.CC_STAT_LEFT], -peaks[big]))[:places]
    boxes: list[tuple[float, ...]] = []
    for label in big[first].tolist():
        c0, r0, w, h, cells = (int(v) for v in stats[label])
        part = labels[r0 : r0 + h, c0 : c0 + w] == label
        inside = values[r0 : r0 + h, c0 : c0 + w]
        top = 0.0 if r0 == 0 else r0 + 0.5 - _reach(inside[0], values[r0 - 1, c0 : c0 + w], part[0], cut)
        left = 0.0 if c0 == 0 else c0 + 0.5 - _reach(inside[:, 0], values[r0 : r0 + h, c0 - 1], part[:, 0], cut)
        r1, c1 = r0 + h, c0 + w
        # At the image's border there is no sample beyond: the box ends at the border.
        bottom = r1 - 0.5 + _reach(inside[-1], values[r1, c0:c1], part[-1], cut) if r1 < rows else math.inf
        right = c1 - 0.5 + _reach(inside[:, -1], values[r0:r1, c1], part[:, -1], cut) if c1 < columns else math.inf
        y0 = 0.0 if r0 == 0 else max(0.0, top + fine.first_yx[0]) / height
        x0 = 0.0 if c0 == 0 else max(0.0, left + fine.first_yx[1]) / width
        y1, x1 = min(1.0, (bottom + fine.first_yx[0]) / height), min(1.0, (right + fine.first_yx[1]) / width)
        weight = np.where(part, inside, 0).astype(np.float64)
        total, peak = float(weight.sum()), float(weight.max())
        across, down = weight.sum(axis=0) / total, weight.sum(axis=1) / total
        at_x, at_y = np.arange(w) + (c0 + 0.5 + fine.first_yx[1]), np.arange(h) + (r0 + 0.5 + fine.first_yx[0])
        mean_x, mean_y = float(across @ at_x), float(down @ at_y)
        # A twelfth of a cell squared is the variance of one cell itself: a single column has a spread too.
        spread_x = math.sqrt(max(float(across @ (at_x - mean_x) ** 2), 0.0) + 1 / 12) / width
        spread_y = math.sqrt(max(float(down @ (at_y - mean_y) ** 2), 0.0) + 1 / 12) / height
        boxes.append(
            (
                *(x0, y0, x1, y1),
                min(1.0, peak / unit),
                min(1.0, total / cells / unit),
                mean_x / width - (x0 + x1) / 2,
                mean_y / height - (y0 + y1) / 2,
                math.log(spread_x),
                math.log(spread_y),
                cells / (w * h),
            )
        )
    return boxes, len(big)


def _reach(edge: Any, beyond: Any, part: Any, cut: float) -> float:
    """How far past its outermost samples a component goes, in cells, (0, 1): the furthest crossing of the cut."""
    inner, outer = edge[part].astype(np.float64), beyond[part].astype(np.float64)
    return float(((inner - cut) / (inner - outer)).max())
