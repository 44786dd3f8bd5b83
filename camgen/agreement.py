"""How far the members of an ensemble agree on a box: a feature of the box that calibration may look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from camgen.components import SHAPE_NAMES, Components, FineMap

Array = npt.NDArray[np.float64]
_COLUMN = SHAPE_NAMES.index("agreement")


class Mass(NamedTuple):
    """How much of each of n maps lies above and left of each grid corner, and where their grids lie.

    Attributes:
        sums: `(n, rows + 1, columns + 1)`.
        size_yx: `(n, 2)`, samples along each side.
        whole_yx: `(n, 2)`, the image's height and width in grid cells.
        first_yx: `(n, 2)`, where the first sample's cell begins, in grid cells from the image's corner.
    """

    sums: Array
    size_yx: npt.NDArray[np.intp]
    whole_yx: Array
    first_yx: Array


def mass_of(maps: Sequence[FineMap]) -> Mass:
    """One member's maps of n images, summed up once for all boxes."""
    size = np.array([fine.values.shape for fine in maps], np.intp).reshape(-1, 2)
    sums = np.zeros((len(maps), *(size.max(axis=0, initial=0) + 1)))
    for held, fine in zip(sums, maps, strict=True):
        rows, columns = fine.values.shape
        held[1 : rows + 1, 1 : columns + 1] = fine.values.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    whole, first = (np.array([getattr(fine, name) for fine in maps]).reshape(-1, 2) for name in ("size_yx", "first_yx"))
    return Mass(sums, size, whole, first)


def with_agreement(found: Components, members: Sequence[Mass]) -> Components:
    """`found` with the agreement of its boxes filled in.

    A member's share is how much of its map lies in the box, of all that lies in the image. The agreement is the
    smallest share over the largest: 1 where all members have as much there, or where there is one; 0 where one of them
    has nothing there.

    Args:
        found: boxes of n images, with options or without.
        members: of each member's n maps.
    """
    if len(members) < 2:
        return found
    shares = np.stack([_share(found.boxes_rel, own) for own in members])
    least, most = shares.min(axis=0), shares.max(axis=0)
    shape = found.shape.copy()
    shape[..., _COLUMN] = np.divide(least, most, out=np.zeros_like(most), where=most > 0)
    return dataclasses.replace(found, shape=shape)


def _share(boxes_rel: Array, mass: Mass) -> Array:
    """The part `(..., n, p)` of each map that lies in its image's boxes: of the samples with their centre inside."""
    ends: list[npt.NDArray[np.intp]] = []
    for edge in range(4):  # x0, y0, x1, y1
        axis = 1 - edge % 2
        at = boxes_rel[..., edge] * mass.whole_yx[:, axis, None] - mass.first_yx[:, axis, None] - 0.5
        ends.append(np.clip(np.ceil(at), 0, mass.size_yx[:, axis, None]).astype(np.intp))
    image, sums = np.arange(len(mass.sums))[:, None], mass.sums
    x0, y0, x1, y1 = ends
    inside = sums[image, y1, x1] - sums[image, y0, x1] - sums[image, y1, x0] + sums[image, y0, x0]
    total = sums[image, mass.size_yx[:, :1], mass.size_yx[:, 1:]]
    return np.divide(inside, total, out=np.zeros_like(inside), where=np.broadcast_to(total > 0, inside.shape))
