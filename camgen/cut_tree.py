"""The components of maps at many cuts, each with its area, extent, peak and moments, from one pass over the maps.

What lies above a higher cut lies inside what lies above a lower one, so the components form a tree (the component tree
of Salembier et al., "Antiextensive connected operators", 1998, at chosen levels alone). Each sample is counted once, at
the highest cut that it exceeds; what a component holds is then passed on to the one around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class CutTree:
    """Components by label; label 0 is what lies below, of area 0.

    Attributes:
        labels: `(n, cuts, rows, columns)`, the component of each sample at each cut.
        image: `(m,)`, which map a component belongs to.
        level: `(m,)`, and which cut.
        area: `(m,)`, samples.
        peak: `(m,)`, largest value.
        low: `(2, m)`, first row and first column.
        high: `(2, m)`, past the last row and column.
        total: `(m,)`, sum of the values.
        moment: `(2, m)`, sum of value x position, rows first; positions in samples from the middle of the grid.
        square: `(2, m)`, sum of value x squared position.
    """

    labels: npt.NDArray[np.int32]
    image: IntArray
    level: IntArray
    area: Array
    peak: Array
    low: IntArray
    high: IntArray
    total: Array
    moment: Array
    square: Array


def grow(values: npt.NDArray[np.float32], cuts: Array, bridge: int = 0) -> CutTree:
    """Labels maps at all their cuts and adds up the components.

    Args:
        values: `(n, rows, columns)`; 0 where a map has no sample.
        cuts: `(n, c)`, each map's, >= 0, never falling; a component is 8-connected and lies above its cut.
        bridge: what lies above a cut and at most twice as many samples apart, along rows and columns, is one component.
    """
    (n, rows, columns), levels, below = values.shape, cuts.shape[1], 1 + 2 * bridge
    # Empty rows below each plane keep its components from touching the next one's.
    canvas = np.zeros((n, levels, rows + below, columns), np.uint8)
    np.greater(values[:, None], cuts.astype(np.float32)[..., None, None], out=canvas[:, :, :rows].view(bool))
    above = canvas.reshape(-1, columns)
    # Grown by `bridge`, neighbours touch; the labels are then taken back to what is really above.
    grown = cv2.dilate(above, np.ones((below, below), np.uint8)) if bridge else above
    count, flat = cv2.connectedComponents(grown, connectivity=8)
    if bridge:
        flat *= above
    labels = flat.reshape(canvas.shape)
    depth = canvas[:, :, :rows].sum(axis=1, dtype=np.uint8 if levels < 256 else np.intp)
    deepest = np.maximum(depth, 1) - 1
    nodes = labels[:, 0, :rows]
    if levels > 1:
        nodes = np.take_along_axis(labels[:, :, :rows], deepest[:, None], axis=1)[:, 0]

    # Stretches of a row that lie in one node are added up first: there are far fewer of them than samples.
    starts = np.ones(nodes.shape, bool)
    np.not_equal(nodes[..., 1:], nodes[..., :-1], out=starts[..., 1:])
    first = np.flatnonzero(starts)
    length = np.diff(first, append=nodes.size)
    across = np.arange(columns) + (0.5 - columns / 2)
    weighted = values * across  # float64
    adding = [np.add.reduceat(values.ravel(), first, dtype=np.float64), np.add.reduceat(weighted.ravel(), first)]
    weighted *= across
    adding.append(np.add.reduceat(weighted.ravel(), first))
    peak = np.maximum.reduceat(values.ravel(), first)
    own = np.flatnonzero(nodes.ravel()[first])
    first, length, peak, total, *sideways = (one[own] for one in (first, length, peak, *adding))
    node = nodes.ravel()[first].astype(np.intp)  # counting by any other integer casts it each time
    line, left = np.divmod(first, columns)
    of_map, down = np.divmod(line, rows)
    from_middle = down + (0.5 - rows / 2)
    weights = (length, total, total * from_middle, total * from_middle**2, *sideways)
    sums: Array = np.stack([np.bincount(node, weight, count).astype(np.float64) for weight in weights])
    ends = np.full((5, count), -np.inf)
    for end, held in zip(ends, (peak, down, -down, left + length - 1, -left), strict=True):
        np.maximum.at(end, node, held.astype(np.float64))
    deepest, plane = deepest.ravel()[first].astype(np.intp), (rows + below) * columns
    place = (of_map * levels * (rows + below) + down) * columns + left  # of a stretch on its map's lowest plane

    level, sample, image = (np.zeros(count, np.intp) for _ in range(3))
    level[node], sample[node], image[node] = deepest, place, of_map
    for higher in range(levels - 1, 0, -1):
        inner = np.flatnonzero(level == higher)
        around = flat.ravel()[sample[inner] + (higher - 1) * plane]
        level[around], sample[around], image[around] = higher - 1, sample[inner], image[inner]
        for added, held in zip(sums, sums[:, inner], strict=True):
            np.add.at(added, around, held)
        for end, held in zip(ends, ends[:, inner], strict=True):
            np.maximum.at(end, around, held)
    ends[:, 0] = 0
    low, high = (-ends[2::2]).astype(np.intp), (ends[1::2] + 1).astype(np.intp)
    return CutTree(labels[:, :, :rows], image, level, sums[0], ends[0], low, high, sums[1], sums[2::2], sums[3::2])
