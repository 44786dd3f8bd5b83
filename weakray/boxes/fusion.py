"""Weighted box fusion (Solovyev 2021): boxes of one finding that mean the same thing become one box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weakray.boxes.geometry import iou
from weakray.detections import FloatArray


@dataclass(frozen=True)
class Fused:
    """One box made of several.

    Attributes:
        box_xyxy: `(4,)`, the mean of its members, weighted.
        members: rows of the boxes that it is made of.
    """

    box_xyxy: FloatArray
    members: tuple[int, ...]


def fuse_boxes(boxes_xyxy: FloatArray, weight: FloatArray, iou_above: float) -> list[Fused]:
    """Groups boxes of one finding and averages each group.

    The heaviest box first, each box joins the group whose mean it overlaps most, by more than `iou_above`, or starts
    one; the mean is then taken anew: Σ w·box / Σ w. Boxes of equal weight go by their corners, so the order of the rows
    does not matter.

    Args:
        boxes_xyxy: `(n, 4)`.
        weight: `(n,)`, above 0: scores, or 1 for each reader's box.
        iou_above: 0…1.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    order = np.lexsort((*boxes.T[::-1], -np.asarray(weight, np.float64)))
    groups: list[list[int]] = []
    means = np.zeros((0, 4))
    for row in order.tolist():
        overlap = iou(boxes[row : row + 1], means)[0] if groups else np.zeros(0)
        best = int(overlap.argmax()) if len(overlap) else -1
        if best < 0 or overlap[best] <= iou_above:
            groups.append([row])
            means = np.concatenate([means, boxes[row : row + 1]])
        else:
            groups[best].append(row)
            means[best] = np.average(boxes[groups[best]], axis=0, weights=weight[groups[best]])
    return [Fused(mean, tuple(sorted(group))) for mean, group in zip(means, groups, strict=True)]
