"""Non-maximum suppression, per class."""

from __future__ import annotations

import numpy as np

from weakray.boxes.geometry import iou
from weakray.detections import Detections


def suppress(found: Detections, iou_above: float, limit: int | None = None) -> Detections:
    """Greedy non-maximum suppression within each class.

    A box is dropped when it overlaps a better box of its class by more than `iou_above` (0…1). The result is
    sorted by falling score over all classes, at most `limit` boxes; equal scores keep their order.
    """
    ranked = found.best_first()
    boxes, class_id = ranked.boxes_xyxy_px, ranked.class_id
    alive = np.ones(len(ranked), dtype=bool)
    kept: list[int] = []
    for i in range(len(ranked)):
        if limit is not None and len(kept) == limit:
            break
        if alive[i]:
            kept.append(i)
            rivals = i + 1 + np.flatnonzero(alive[i + 1 :] & (class_id[i + 1 :] == class_id[i]))
            alive[rivals[iou(boxes[i : i + 1], boxes[rivals])[0] > iou_above]] = False
    return ranked.where(np.array(kept, dtype=np.int64))
