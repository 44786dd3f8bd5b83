"""Average precision of one finding's boxes, on padded arrays: the inner loop of the recipe search.

The figures are those of `eval.average_precision` (a test holds them together); this one scores a candidate in well
under a millisecond, for all images at once.
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
    """Overlaps `(n, p, t)` of boxes `(n, p, 4)` and `(n, t, 4)` of the same image; 0 for boxes without area.

    IoU does not change when both axes are scaled, so relative boxes give the IoU in pixels.
    """
    low = np.maximum(a_xyxy[:, :, None, :2], b_xyxy[:, None, :, :2])
    high = np.minimum(a_xyxy[:, :, None, 2:], b_xyxy[:, None, :, 2:])
    sides = np.clip(high - low, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    area_a, area_b = (np.prod(np.clip(x[..., 2:] - x[..., :2], 0, None), axis=-1) for x in (a_xyxy, b_xyxy))
    union = area_a[:, :, None] + area_b[:, None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def average_precisions(overlap: Array, valid: Mask, score: Array, truth_valid: Mask, ious: Sequence[float]) -> Array:
    """Average precision `(len(ious),)` of one finding, COCO's 101-point rule; NaN without a true box.

    Args:
        overlap: `(n, p, t)` IoU of boxes and true boxes.
        valid: `(n, p)`, which boxes count.
        score: `(n, p)`, falling within each image.
        truth_valid: `(n, t)`, which true boxes exist.
        ious: thresholds.
    """
    n, places = overlap.shape[:2]
    positives = int(truth_valid.sum())
    if positives == 0:
        return np.full(len(ious), np.nan)
    at = np.asarray(ious)[:, None]
    free = np.repeat(truth_valid[None], len(ious), axis=0)  # (q, n, t)
    hit = np.zeros((len(ious), n, places), bool)
    images = np.arange(n)
    for j in range(places):
        usable = np.where(free, overlap[None, :, j], -1.0)
        best = usable.argmax(axis=2)
        taken = valid[:, j] & (usable.max(axis=2) >= at)
        hit[:, :, j] = taken
        free[np.arange(len(ious))[:, None], images, best] &= ~taken
    order = np.argsort(-score[valid], kind="stable")
    hits = hit[:, valid][:, order]
    ranks = np.arange(1, hits.shape[1] + 1)
    result = np.zeros(len(ious))
    for q, found in enumerate(hits):
        true_at = np.flatnonzero(found)
        if len(true_at) == 0:
            continue
        so_far = np.arange(1, len(true_at) + 1)
        envelope = np.maximum.accumulate((so_far / ranks[true_at])[::-1])[::-1]
        # Each recall point takes the precision at the first hit that reaches it.
        reached = np.searchsorted(so_far / positives, _RECALLS, side="left")
        result[q] = envelope[reached[reached < len(envelope)]].sum() / len(_RECALLS)
    return result


def mean_best_iou(overlap: Array, valid: Mask, truth_valid: Mask) -> float:
    """Mean over true boxes of the best overlap any box of the image has with it; 0 where there is none."""
    if overlap.shape[1] == 0 or not truth_valid.any():
        return 0.0
    best = np.where(valid[:, :, None], overlap, 0.0).max(axis=1)
    return float(best[truth_valid].mean())


def without_duplicates(boxes_rel: Array, valid: Mask, iou_above: float) -> Mask:
    """`valid` without boxes that overlap an earlier (better) kept box of their image by more than `iou_above`."""
    keep = valid.copy()
    if boxes_rel.shape[1] < 2:
        return keep
    clash = padded_iou(boxes_rel, boxes_rel) > iou_above
    for i in range(boxes_rel.shape[1] - 1):
        keep[:, i + 1 :] &= ~(clash[:, i, i + 1 :] & keep[:, i, None])
    return keep
