"""Augmentation of one prepared image and its boxes: affine, flip, bend, brightness, contrast.

All chance comes from `rng`.

Findings pasted from annotated images (`detect.pasting`) are in the image before.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from detect.bending import bend_boxes, bend_image, draw_shifts
from detect.pasting import PasteConfig
from detect.yolo_folder import Example
from weakray.config import StrictModel
from weakray.detections import FloatArray
from weakray.imaging import Image

VISIBLE_AT_LEAST = 0.3  # share of a box's area that must stay inside the square, or the box goes


class AugmentConfig(StrictModel):
    """How training images vary. 0 turns a kind off."""

    scale: float = Field(0.3, ge=0, lt=1, description="zoom, drawn from 1 - scale … 1 + scale")
    translate: float = Field(0.1, ge=0, le=1, description="shift, ± this share of the side")
    rotate_deg: float = Field(5.0, ge=0, le=45, description="rotation, ± degrees")
    flip: float = Field(0.0, ge=0, le=1, description="probability of a mirror image; off, for sides matter in a chest")
    bend: float = Field(
        0.0,
        ge=0,
        le=0.03,
        description="smooth bend, up to this share of the side (standard deviation); more would fold",
    )
    brightness: float = Field(0.1, ge=0, le=1, description="± this share of the grey range")
    contrast: float = Field(0.2, ge=0, lt=1, description="factor about mid-grey, 1 - contrast … 1 + contrast")
    paste: PasteConfig = PasteConfig()


def augment(example: Example, config: AugmentConfig, rng: np.random.Generator) -> Example:
    """A varied copy of a training example; padding stays black, boxes that leave the square are dropped."""
    size = example.image.shape[0]
    image = _retone(example.image, config, rng)
    matrix = _affine(size, config, rng)
    in_pixel_centres = matrix.copy()  # cv2 counts from the centres of pixels, boxes from their corners
    in_pixel_centres[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    boxes, visible = move_boxes(example.boxes_cxcywh_rel, matrix, size)
    if config.bend:
        shifts = draw_shifts(size, config.bend, rng)  # last of all draws, so that it moves no other
        warped = bend_image(image, in_pixel_centres, shifts)
        boxes, still = bend_boxes(boxes, shifts)
        visible &= still
    else:
        warped = cv2.warpAffine(image, in_pixel_centres, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)
    return replace(
        example,
        image=warped.reshape(example.image.shape),
        class_id=example.class_id[visible],
        boxes_cxcywh_rel=boxes[visible],
        weights=example.weights[visible],
    )


def move_boxes(
    boxes_cxcywh_rel: FloatArray, matrix: npt.NDArray[Any], size_px: int
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Boxes under an affine map of the square, cut at its border, and which of them are still worth learning.

    A box is taken for the ellipse inside it, whose bounding box under a rotation has half width √((m₀₀a)² + (m₀₁b)²):
    the corners' bounding box would grow with every degree, though findings are round.

    Args:
        boxes_cxcywh_rel: `(n, 4)`, [0, 1].
        matrix: `(2, 3)`, pixels to pixels.
        size_px: side of the square.

    Returns:
        Boxes `(n, 4)`, [0, 1], and a mask `(n,)`: at least `VISIBLE_AT_LEAST` of the area inside, sides ≥ 2 px.
    """
    boxes = np.asarray(boxes_cxcywh_rel, np.float64) * size_px
    centre = boxes[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt((boxes[:, 2:] / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    low, high = np.clip(centre - half, 0, size_px), np.clip(centre + half, 0, size_px)
    sides = high - low
    visible = (sides.prod(axis=1) >= VISIBLE_AT_LEAST * (2 * half).prod(axis=1)) & (sides >= 2).all(axis=1)
    moved = np.concatenate([(low + high) / 2, sides], axis=1) / size_px
    return moved.astype(np.float32), visible


def _affine(size_px: int, config: AugmentConfig, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A map about the square's centre; every draw is made whatever the settings, so one setting moves no other."""
    zoom, turn, right, down, mirror = rng.random(5)
    factor = 1 + config.scale * (2 * zoom - 1)
    angle = math.radians(config.rotate_deg) * (2 * turn - 1)
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    sign = -1.0 if mirror < config.flip else 1.0
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([sign, 1.0])
    middle = np.full(2, size_px / 2)
    shift = size_px * config.translate * (2 * np.array([right, down]) - 1)
    return np.concatenate([linear, (middle - linear @ middle + shift)[:, None]], axis=1)


def _retone(image: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    brighter, stronger = 2 * rng.random(2) - 1
    grey = np.arange(256) - 127.5
    table = grey * (1 + config.contrast * stronger) + 127.5 + 255 * config.brightness * brighter
    return np.asarray(np.clip(np.rint(table), 0, 255).astype(np.uint8)[image])
