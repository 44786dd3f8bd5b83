"""Areas, overlaps and conversions between the box formats. Every format is named in the function's name."""

from __future__ import annotations

import numpy as np

from weakray.detections import FloatArray


def area(boxes_xyxy: FloatArray) -> FloatArray:
    """Areas `(n,)` of boxes `(n, 4)`; 0 for an inverted box."""
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    return np.asarray(sides[:, 0] * sides[:, 1])


def intersection(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Pairwise intersection areas `(n, m)`."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Pairwise intersection over union `(n, m)`, [0, 1], computed in float64."""
    a, b = np.asarray(a_xyxy, np.float64), np.asarray(b_xyxy, np.float64)
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def xywh_to_xyxy(boxes_xywh: FloatArray) -> FloatArray:
    """Left, top, width, height → left, top, right, bottom."""
    boxes = np.asarray(boxes_xywh).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes_xyxy: FloatArray) -> FloatArray:
    """Left, top, right, bottom → left, top, width, height."""
    boxes = np.asarray(boxes_xyxy).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def xyxy_to_cxcywh_rel(boxes_xyxy_px: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Pixels → centre, width and height relative to the image, [0, 1] (the YOLO label format)."""
    height, width = size_hw
    boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4) / [width, height, width, height]
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def clip_to_image(boxes_xyxy_px: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Boxes cut at the image's border; a box wholly outside comes back with no area."""
    height, width = size_hw
    return np.asarray(np.clip(boxes_xyxy_px, 0, [width, height, width, height]), dtype=np.float32)
