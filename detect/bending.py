"""A smooth bend of the square: chests differ in more than place, size and turn.

Knots of a coarse grid are shifted at random, and what lies between them follows along cubic curves. (Simard et al.,
Best Practices for Convolutional Neural Networks, ICDAR 2003, bend digits so; a coarse grid keeps organs whole.)
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from weakray.detections import FloatArray
from weakray.imaging import Image

KNOTS = 5  # a side
_OUTLINE = 32  # points of a box's ellipse that are followed
_STEPS = 8  # of finding where a point went

Shifts = npt.NDArray[np.float32]  # (size, size, 2): where each pixel comes from, less where it lies, px


def draw_shifts(size_px: int, bend: float, rng: np.random.Generator) -> Shifts:
    """A random bend.

    Args:
        size_px: side of the square.
        bend: the knots' shifts have a standard deviation of up to this share of the side.
        rng: all chance comes from it.
    """
    knots = np.clip(rng.standard_normal((KNOTS, KNOTS, 2)), -2, 2) * (rng.random() * bend * size_px)
    return np.asarray(cv2.resize(knots.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC))


def bend_image(image: Image, matrix: npt.NDArray[np.float64], shifts: Shifts) -> Image:
    """An image under an affine map and then a bend, read once; black where it comes from outside.

    Args:
        image: `(size, size, c)`.
        matrix: `(2, 3)`, pixels to pixels, counted from their centres.
        shifts: the bend.
    """
    comes_from = cv2.transform(_pixels(shifts.shape[0]) + shifts, cv2.invertAffineTransform(matrix))
    bent = cv2.remap(image, comes_from, None, cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(bent.reshape(image.shape), np.uint8)


def bend_boxes(boxes_cxcywh_rel: FloatArray, shifts: Shifts) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Boxes under a bend, cut at the border: each is that of the ellipse inside it, bent.

    Args:
        boxes_cxcywh_rel: `(n, 4)`, [0, 1].
        shifts: the bend.

    Returns:
        Boxes `(n, 4)`, [0, 1], and a mask `(n,)`: both sides still 2 px or more.
    """
    size = shifts.shape[0]
    angles = np.linspace(0, 2 * np.pi, _OUTLINE, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    boxes = np.asarray(boxes_cxcywh_rel, np.float64)[:, None] * size
    came_from = boxes[..., :2] + circle * boxes[..., 2:] / 2  # (n, points, 2)
    lies = came_from
    for _ in range(_STEPS):  # lies + shifts(lies) = came_from
        lies = came_from - _at(lies, shifts)
    lies = np.clip(lies, 0, size)
    low, high = lies.min(axis=1), lies.max(axis=1)
    bent = np.concatenate([(low + high) / 2, high - low], axis=1) / size
    return bent.astype(np.float32), (high - low >= 2).all(axis=1)


@cache
def _pixels(size_px: int) -> Shifts:
    """Where each pixel of a square lies, `(size, size, 2)`: column, row."""
    along = np.arange(size_px, dtype=np.float32)
    return np.stack(np.meshgrid(along, along), axis=2)


def _at(points_px: FloatArray, shifts: Shifts) -> FloatArray:
    """The shifts at points `(n, p, 2)`, those at the border for points outside."""
    centres = np.clip(points_px - 0.5, 0, shifts.shape[0] - 1).astype(np.float32)
    return np.asarray(cv2.remap(shifts, centres, None, cv2.INTER_LINEAR), np.float64) if len(centres) else points_px
