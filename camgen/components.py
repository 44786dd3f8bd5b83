"""Boxes from maps: upsample, cut, connected components, edges between the samples.

A box is the bounding box of the points where the bilinear map exceeds the cut. Components are found on a grid that
is a few times finer than the map; each edge is then moved to where the value, linear between two grid samples,
crosses the cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from camgen.cut_tree import CutTree, grow
from weakray.imaging import Placement

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
SHAPE_NAMES = (
    *("peak", "mean", "centroid_dx", "centroid_dy", "log_spread_x", "log_spread_y", "fill", "log_count"),
    *("contrast", "agreement"),
)
_SAMPLES = 4_000_000  # of all cuts of the maps that are cut together: about 40 MB of labels and sums


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


class Cut(NamedTuple):
    """Where a map is cut: at a fraction of its range in its image, or at a value."""

    relative: bool
    value: float


@dataclass(frozen=True)
class Components:
    """Boxes of one finding in n images, p places an image, best peak first; under several options, an axis more.

    With options every array but `empty` has their axis `o` in front.

    Attributes:
        boxes_rel: `(n, p, 4)` xyxy relative to the image, [0, 1].
        valid: `(n, p)`, which places hold a box.
        peak: `(n, p)` in [0, 1]: the component's largest value; as a fraction of the map's largest where the map
            has no scale of its own.
        shape: `(n, p, 10)`, what the map looks like inside the box (`SHAPE_NAMES`). Contrast is the component's mean
            less the mean of the rest of the map, in parts of the map's range, [-1, 1]; agreement is 1 until
            `camgen.agreement` has looked at several members.
        empty: `(n,)`, maps that point nowhere.
    """

    boxes_rel: Array
    valid: npt.NDArray[np.bool_]
    peak: Array
    shape: Array
    empty: npt.NDArray[np.bool_]

    @property
    def with_options(self) -> Components:
        """The same under one option: an axis of length 1 in front."""
        return Components(self.boxes_rel[None], self.valid[None], self.peak[None], self.shape[None], self.empty)

    def option(self, index: int) -> Components:
        """The boxes under one of the options."""
        return Components(self.boxes_rel[index], self.valid[index], self.peak[index], self.shape[index], self.empty)

    def options(self, index: npt.NDArray[Any]) -> Components:
        """The boxes under some of the options, by mask or index."""
        return Components(self.boxes_rel[index], self.valid[index], self.peak[index], self.shape[index], self.empty)

    def first(self, places: int) -> Components:
        """At most `places` boxes an image."""
        return Components(
            self.boxes_rel[..., :places, :],
            self.valid[..., :places],
            self.peak[..., :places],
            self.shape[..., :places, :],
            self.empty,
        )

    def rows(self, index: npt.NDArray[Any]) -> Components:
        """Some of the images, by mask or index; of boxes without options."""
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
    maps: Sequence[FineMap],
    *,
    value: float,
    relative: bool,
    unit_range: bool,
    min_area: float,
    places: int,
    merge_gap: float = 0.0,
) -> Components:
    """Cuts maps and boxes what is above.

    Args:
        maps: one map an image.
        value: the cut, [0, 1].
        relative: the cut is a fraction of the map's range in this image; else it is a value of the map.
        unit_range: map values lie in [0, 1] and are peaks as they stand; else peaks are fractions of the map's largest.
        min_area: smallest component, as a fraction of the image's area.
        places: at most so many boxes an image, best peak first.
        merge_gap: components nearer than this, along both axes, are one; as a fraction of the image's longer side, to
            the even number of grid samples that is nearest.
    """
    cut = Cut(relative, value)
    return components_at(
        maps, [cut], unit_range=unit_range, min_area=min_area, places=places, merge_gap=merge_gap
    ).option(0)


def components_at(
    maps: Sequence[FineMap],
    cuts: Sequence[Cut],
    *,
    unit_range: bool,
    min_area: float,
    places: int,
    merge_gap: float = 0.0,
) -> Components:
    """`find_components` at many cuts: every array has an axis of `cuts` in front, `empty` alone has none.

    What a component holds is added up once for all cuts of a map, along the tree of components inside components.
    """
    n = len(maps)
    found = Components(
        np.zeros((len(cuts), n, places, 4)),
        np.zeros((len(cuts), n, places), bool),
        np.zeros((len(cuts), n, places)),
        np.zeros((len(cuts), n, places, len(SHAPE_NAMES))),
        np.array([fine.empty for fine in maps], bool),
    )
    relative, value = np.array([cut.relative for cut in cuts], bool), np.array([cut.value for cut in cuts], np.float64)
    at_once = max(1, _SAMPLES // max([fine.values.size * len(cuts) for fine in maps], default=1))
    for start in range(0, n, at_once):
        part = maps[start : start + at_once]
        at = np.stack([np.where(relative, fine.low + value * (fine.high - fine.low), value) for fine in part])
        at[found.empty[start : start + at_once]] = np.inf
        order = np.argsort(at, axis=1)
        unit = np.array([1.0 if unit_range else fine.high for fine in part])
        image, level, place, boxes, shapes = _boxes(part, np.sort(at, axis=1), min_area, unit, places, merge_gap)
        index = (order[image, level], start + image, place)
        found.boxes_rel[index] = boxes
        found.valid[index] = True
        found.peak[index] = shapes[:, 0]
        found.shape[index] = shapes
    return found


def _boxes(
    maps: Sequence[FineMap], cuts: Array, min_area: float, unit: Array, places: int, merge_gap: float
) -> tuple[IntArray, IntArray, IntArray, Array, Array]:
    """The components of highest peak of each map at each of its cuts `(n, c)`, which rise.

    Returns:
        of m components: which map, which cut, which place; box `(m, 4)` relative to the image, shape `(m, 10)`.
    """
    size = np.array([fine.values.shape for fine in maps])
    whole = np.array([fine.size_yx for fine in maps])
    first = np.array([fine.first_yx for fine in maps])
    values = np.zeros((len(maps), *size.max(axis=0)), np.float32)
    for held, fine in zip(values, maps, strict=True):
        held[: fine.values.shape[0], : fine.values.shape[1]] = fine.values
    tree = grow(values, cuts, round(merge_gap * float(whole.max()) / 2))
    own = np.flatnonzero(tree.area >= np.maximum(min_area * whole.prod(axis=1), 1)[tree.image])
    group = tree.image * cuts.shape[1] + tree.level  # a map at a cut
    own = own[np.lexsort((tree.low[0, own], tree.low[1, own], -tree.peak[own], group[own]))]
    many = np.bincount(group[own], minlength=cuts.size)
    place = np.arange(len(own)) - (np.cumsum(many) - many)[group[own]]
    own, place = own[place < places], place[place < places]
    image, level, total = tree.image[own], tree.level[own], tree.total[own]
    shapes = np.zeros((len(own), len(SHAPE_NAMES)))
    boxes = np.zeros((len(own), 4))
    for axis in (0, 1):
        extent, offset = whole[image, axis], first[image, axis]
        edges = _edges(values, tree, own, axis, cuts[image, level], size[image, axis])
        for end, (edge, border) in enumerate(edges):
            inside = np.clip((edge + offset) / extent, 0.0, 1.0)
            boxes[:, 2 * end + 1 - axis] = np.where(border, float(end), inside)
        mean = tree.moment[axis, own] / total
        # A twelfth of a cell squared is the variance of one cell itself: a single column has a spread too.
        variance = np.maximum(tree.square[axis, own] / total - mean**2, 0) + 1 / 12
        centre = (mean + values.shape[1 + axis] / 2 + offset) / extent
        shapes[:, 3 - axis] = centre - (boxes[:, 1 - axis] + boxes[:, 3 - axis]) / 2
        shapes[:, 5 - axis] = np.log(np.sqrt(variance) / extent)
    shapes[:, 0] = np.minimum(1.0, tree.peak[own] / unit[image])
    shapes[:, 1] = np.minimum(1.0, total / tree.area[own] / unit[image])
    shapes[:, 6] = tree.area[own] / (tree.high[:, own] - tree.low[:, own]).prod(axis=0)
    shapes[:, 7] = np.log(many[group[own]])
    around = size.prod(axis=1)[image] - tree.area[own]  # samples outside: none where all of the map is above
    beyond = (values.sum(axis=(1, 2), dtype=np.float64)[image] - total) / np.maximum(around, 1)
    span = np.array([fine.high - fine.low for fine in maps])
    shapes[:, 8] = np.where(around > 0, (total / tree.area[own] - beyond) / span[image], 0)
    shapes[:, 9] = 1
    return image, level, place, boxes, shapes


def _edges(
    values: npt.NDArray[np.float32], tree: CutTree, own: IntArray, axis: int, cuts: Array, cells: IntArray
) -> list[tuple[Array, npt.NDArray[np.bool_]]]:
    """Low and high edge `(m,)` of components along an axis, in cells, and where they lie at the image's border.

    Each goes past its outermost samples to the furthest crossing of the cut. At the border there is no sample beyond:
    the box ends at the border.
    """
    field = values if axis == 0 else values.transpose(0, 2, 1)
    labels = tree.labels if axis == 0 else tree.labels.transpose(0, 1, 3, 2)
    image, level = tree.image[own], tree.level[own]
    edges = []
    for line, outward in ((tree.low[axis, own], -1), (tree.high[axis, own] - 1, 1)):
        beyond = line + outward
        border = (beyond < 0) | (beyond >= cells)
        inner = field[image, line].astype(np.float64)
        outer = field[image, np.where(border, line, beyond)].astype(np.float64)
        part = (labels[image, level, line] == own[:, None]) & ~border[:, None]
        crossing = np.zeros_like(inner)
        np.divide(inner - cuts[:, None], inner - outer, out=crossing, where=part)
        edges.append((line + 0.5 + outward * crossing.max(axis=1, initial=0), border))
    return edges
