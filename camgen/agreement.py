"""How far the members of an ensemble agree on a box: a feature of the box that calibration may look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camgen.components import SHAPE_NAMES, Components, FineMap

Array = npt.NDArray[np.float64]
_COLUMN = SHAPE_NAMES.index("agreement")


def with_agreement(found: Components, members: Sequence[Sequence[FineMap]]) -> Components:
    """`found` with the agreement of its boxes filled in.

    A member's share is how much of its map lies in the box, of all that lies in the image. The agreement is the
    smallest share over the largest: 1 where all members have as much there, or where there is one; 0 where one of them
    has nothing there.

    Args:
        found: boxes of n images, with options or without.
        members: the n maps of each member.
    """
    if len(members) < 2:
        return found
    shares = np.stack([_share(found.boxes_rel, own) for own in members])
    least, most = shares.min(axis=0), shares.max(axis=0)
    shape = found.shape.copy()
    shape[..., _COLUMN] = np.divide(least, most, out=np.zeros_like(most), where=most > 0)
    return dataclasses.replace(found, shape=shape)


def _share(boxes_rel: Array, maps: Sequence[FineMap]) -> Array:
    """The part `(..., n, p)` of each map that lies in its image's boxes: of the samples with their centre inside."""
    size = np.array([fine.values.shape for fine in maps]).reshape(-1, 2)
    whole = np.array([fine.size_yx for fine in maps]).reshape(-1, 2)
    first = np.array([fine.first_yx for fine in maps]).reshape(-1, 2)
    sums = np.zeros((len(maps), *(size.max(axis=0, initial=0) + 1)))
    for held, fine in zip(sums, maps, strict=True):
        rows, columns = fine.values.shape
        held[1 : rows + 1, 1 : columns + 1] = fine.values.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    ends: list[npt.NDArray[np.intp]] = []
    for edge in range(4):  # x0, y0, x1, y1
        axis = 1 - edge % 2
        at = boxes_rel[..., edge] * whole[:, axis, None] - first[:, axis, None] - 0.5
        ends.append(np.clip(np.ceil(at), 0, size[:, axis, None]).astype(np.intp))
    image = np.arange(len(maps))[:, None]
    x0, y0, x1, y1 = ends
    inside = sums[image, y1, x1] - sums[image, y0, x1] - sums[image, y1, x0] + sums[image, y0, x0]
    total = sums[np.arange(len(maps)), size[:, 0], size[:, 1]][:, None]
    return np.divide(inside, total, out=np.zeros_like(inside), where=np.broadcast_to(total > 0, inside.shape))
