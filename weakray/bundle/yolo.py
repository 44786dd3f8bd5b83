"""A YOLO network's raw output → boxes of the image. Numpy only: training, export and the server decode alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weakray.boxes.nms import suppress
from weakray.detections import Detections, FloatArray
from weakray.errors import DataError
from weakray.imaging import Placement

_MAX_CANDIDATES = 10_000  # an image; a bound on time for an untrained network, far above what a trained one leaves


def decode_yolo(
    raw: FloatArray,
    placements: Sequence[Placement],
    score_above: float = 0.001,
    iou_above: float = 0.6,
    max_boxes: int = 100,
) -> list[Detections]:
    """Boxes in pixels of the stored images, after non-maximum suppression within each class.

    An anchor gives one box for each class that it scores above `score_above`. Boxes are moved to the stored image
    and cut at its border before they are compared; what lies in the letterbox's padding alone is dropped.

    Args:
        raw: `(n, 4 + k, anchors)`; centre x, centre y, width, height in letterbox pixels, then k scores in [0, 1].
        placements: where each of the n images went, as `imaging.prepare` gave it.
        score_above: lowest score that counts, [0, 1).
        iou_above: a box overlapping a better one of its class by more than this is dropped, [0, 1].
        max_boxes: boxes kept of an image, the best over all classes.

    Returns:
        One `Detections` an image, best first.

    Raises:
        DataError: on another shape, or on NaN or infinity.
    """
    if raw.ndim != 3 or raw.shape[1] < 5:
        raise DataError(f"raw: expected shape (n, 4 + classes, anchors) with at least one class, got {raw.shape}")
    if len(raw) != len(placements):
        raise DataError(f"placements: expected {len(raw)}, one an image of raw, got {len(placements)}")
    if not np.isfinite(raw).all():
        raise DataError("raw: expected finite numbers, got NaN or infinity; the network's weights are broken")
    return [
        _decode_one(output, placement, score_above, iou_above, max_boxes)
        for output, placement in zip(raw, placements, strict=True)
    ]


def _decode_one(
    output: FloatArray, placement: Placement, score_above: float, iou_above: float, max_boxes: int
) -> Detections:
    scores = np.ascontiguousarray(output[4:])  # (k, anchors)
    above = np.flatnonzero(scores > score_above)  # in one dimension it takes a tenth of the time
    class_id, anchor = np.divmod(above, scores.shape[1])
    score = scores.ravel()[above]
    if len(score) > _MAX_CANDIDATES:
        best = np.argsort(-score, kind="stable")[:_MAX_CANDIDATES]
        anchor, class_id, score = anchor[best], class_id[best], score[best]
    centre, half = output[:2, anchor].T, output[2:4, anchor].T / 2
    boxes = placement.back(np.concatenate([centre - half, centre + half], axis=1))
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    found = Detections(boxes[visible], class_id[visible], np.clip(score[visible], 0, 1))
    return suppress(found, iou_above, max_boxes)
