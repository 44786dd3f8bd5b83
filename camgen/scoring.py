"""Average precision of one finding's boxes, on padded arrays: the inner loop of the recipe search.

The figures are those of `eval.average_precision` (a test holds them together); this one scores many candidates at
once: `...` stands for their axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakray.detections import Detections

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
DUPLICATE_IOU = 0.5  # a box that overlaps a better one of its finding by more goes
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class PaddedTruth:
    """True boxes of one finding in n images, t places an image.

    Attributes:
        boxes_rel: `(n, t, 4)` xyxy relative to the image.
        valid: `(n, t)`, which places hold a box.
    """

    boxes_rel: Array
    valid: Mask

    @classmethod
    def of(cls, found: Sequence[Detections], sizes_hw: Sequence[tuple[int, int]]) -> PaddedTruth:
        """The boxes of `found`, which are of one class, in images of these sizes."""
        places = max([len(boxes) for boxes in found], default=0)
        rel, valid = np.zeros((len(found), places, 4)), np.zeros((len(found), places), bool)
        for i, (boxes, (height, width)) in enumerate(zip(found, sizes_hw, strict=True)):
            rel[i, : len(boxes)] = boxes.boxes_xyxy_px / np.array([width, height, width, height], np.float64)
            valid[i, : len(boxes)] = True
        return cls(rel, valid)

    @property
    def count(self) -> int:
        """Number of true boxes."""
        return int(self.valid.sum())


def padded_iou(a_xyxy: Array, b_xyxy: Array) -> Array:
    """Overlaps `(..., p, t)` of boxes `(..., p, 4)` and `(..., t, 4)` of the same image; 0 for boxes without area.

    IoU does not change when both axes are scaled, so relative boxes give the IoU in pixels.
    """
    return pair_iou(a_xyxy[..., :, None, :], b_xyxy[..., None, :, :])


def pair_iou(a_xyxy: Array, b_xyxy: Array) -> Array:
    """Overlaps `(...)` of boxes `(..., 4)`, one with one; 0 for boxes without area."""
    ax0, ay0, ax1, ay1 = (a_xyxy[..., i] for i in range(4))
    bx0, by0, bx1, by1 = (b_xyxy[..., i] for i in range(4))
    shared = np.maximum(np.minimum(ax1, bx1) - np.maximum(ax0, bx0), 0)
    shared = shared * np.maximum(np.minimum(ay1, by1) - np.maximum(ay0, by0), 0)
    area_a = np.maximum(ax1 - ax0, 0) * np.maximum(ay1 - ay0, 0)
    area_b = np.maximum(bx1 - bx0, 0) * np.maximum(by1 - by0, 0)
    union = area_a + area_b - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def average_precisions(
    overlap: Array,
    valid: Mask,
    score: Array,
    truth_valid: Mask,
    ious: Sequence[float],
    rows: npt.NDArray[np.intp] | None = None,
) -> Array:
    """Average precision `(..., len(ious))` of one finding, COCO's 101-point rule; NaN without a true box.

    Args:
        overlap: `(..., r, p, t)` IoU of boxes and true boxes.
        valid: `(..., n, p)`, which boxes count.
        score: `(..., n, p)`, falling within each image; its leading axes may be 1 where candidates share scores.
        truth_valid: `(r, t)`, which true boxes exist.
        ious: thresholds.
        rows: `(r,)`, the images of `overlap` and `truth_valid`, rising; all others have no true box. None: all.
    """
    lead, (n, places) = overlap.shape[:-3], valid.shape[-2:]
    positives = int(truth_valid.sum())
    if positives == 0:
        return np.full((*lead, len(ious)), np.nan)
    rows = np.arange(n) if rows is None else rows
    hit = _hits(overlap, valid[..., rows, :], truth_valid, ious)
    flat = (*valid.shape[:-2], n * places)
    order = np.argsort(-score.reshape(*score.shape[:-2], n * places), axis=-1, kind="stable")
    ranked = np.cumsum(np.take_along_axis(valid.reshape(flat), order, axis=-1), axis=-1)
    rank = np.empty(flat, ranked.dtype)
    np.put_along_axis(rank, np.broadcast_to(order, flat), ranked, axis=-1)
    rank = rank.reshape(valid.shape)[..., rows, :].reshape(*lead, 1, -1)
    near = score[..., rows, :]
    order = np.argsort(-near.reshape(*near.shape[:-2], -1), axis=-1, kind="stable")[..., None, :]
    found = np.take_along_axis(hit.reshape(*hit.shape[:-2], -1), order, axis=-1)  # (..., q, r * p)
    so_far = np.cumsum(found, axis=-1)
    precision = np.where(found, so_far / np.maximum(np.take_along_axis(rank, order, axis=-1), 1), 0.0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # Each recall point takes the precision at the first hit that reaches it: so many points belong to each hit.
    reached = np.searchsorted(_RECALLS, np.arange(1, positives + 1) / positives, side="right")
    points = np.concatenate([[0], np.diff(reached, prepend=0)])
    return np.asarray((np.where(found, points[so_far], 0) * envelope).sum(axis=-1) / len(_RECALLS))


def _hits(overlap: Array, valid: Mask, truth_valid: Mask, ious: Sequence[float]) -> Mask:
    """Which boxes take a true box `(..., q, r, p)`: best score first, the free one of highest overlap."""
    at = np.asarray(ious)[:, None]
    lead, (r, places, true) = overlap.shape[:-3], overlap.shape[-3:]
    hit = np.zeros((*lead, len(ious), r, places), bool)
    free = [np.broadcast_to(truth_valid[:, c], (*lead, len(ious), r)).copy() for c in range(true)]
    for j in range(places):
        best, which = (
            np.full((*lead, len(ious), r), -1.0),
            np.zeros((*lead, len(ious), r), np.int8 if true < 128 else int),
        )
        for c in range(true):
            usable = np.where(free[c], overlap[..., None, :, j, c], -1.0)
            better = usable > best
            best, which = np.where(better, usable, best), np.where(better, c, which)
        taken = valid[..., None, :, j] & (best >= at)
        hit[..., j] = taken
        for c in range(true):
            free[c] &= ~(taken & (which == c))
    return hit


def mean_best_iou(overlap: Array, valid: Mask, truth_valid: Mask) -> Array:
    """Mean `(...)` over true boxes of the best overlap any box of the image has with it; 0 where there is none."""
    if overlap.shape[-2] == 0 or not truth_valid.any():
        return np.zeros(overlap.shape[:-3])
    return np.asarray(best_iou(overlap, valid, truth_valid).mean(axis=-1))


def best_iou(overlap: Array, valid: Mask, truth_valid: Mask) -> Array:
    """The best overlap `(..., true boxes)` that any box of the image has with each true box.

    Args:
        overlap: `(..., n, p, t)`.
        valid: `(..., n, p)`.
        truth_valid: `(n, t)`.
    """
    return np.asarray(np.where(valid[..., None], overlap, 0.0).max(axis=-2)[..., truth_valid])


def without_duplicates(boxes_rel: Array, valid: Mask, iou_above: float) -> Mask:
    """`valid` `(..., n, p)` without boxes that overlap an earlier (better) kept box of their image by more."""
    keep = np.array(np.broadcast_to(valid, boxes_rel.shape[:-1]))
    for i in range(boxes_rel.shape[-2] - 1):
        for j in range(i + 1, boxes_rel.shape[-2]):
            keep[..., j] &= ~((pair_iou(boxes_rel[..., i, :], boxes_rel[..., j, :]) > iou_above) & keep[..., i])
    return keep
