"""Boxes of several sources as one: what a detector finds in a film and in its mirror image, or it and the recipe.

Boxes that mean the same thing become one (weighted box fusion, Solovyev 2021), and one that a source did not find
counts less. Scores of a detector and of a recipe mean different things: a probability that a network grew used to, and
a peak of maps times a calibrated probability. What can be compared is a box's rank among those of its finding. The r-th
box from the top (from 0) of a finding that n images may hold scores n / (n + r): the first 1, the one with as many
before it as there are such images 1/2, whatever the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weakray.boxes.fusion import fuse_boxes
from weakray.coco import Predictions
from weakray.detections import BoolArray, Detections, FloatArray, IntArray


def fuse_sources(
    first: Predictions, second: Predictions, may_hold: Mapping[str, BoolArray], iou_above: float
) -> tuple[Predictions, int]:
    """The boxes of both, and how many are made of boxes of both.

    Args:
        first: image_id → scored boxes.
        second: the same of the other source.
        may_hold: image_id → `(k,)`, which findings the image's labels allow. Ranks are taken among boxes they allow;
            the others are ranked with them, fused, and left for the veto.
        iou_above: overlap above which boxes of a finding in an image become one.

    Returns:
        image_id → boxes with scores in (0, 1], for every image of `may_hold`.
    """
    images = np.asarray(np.sum(list(may_hold.values()), axis=0, dtype=np.int64))
    ranked = [_by_rank(source, may_hold, images) for source in (first, second)]
    fused: Predictions = {}
    of_both = 0
    for image_id in may_hold:
        fused[image_id], shared = fuse_views([source[image_id] for source in ranked], iou_above)
        of_both += shared
    return fused, of_both


def fuse_views(views: Sequence[Detections], iou_above: float) -> tuple[Detections, int]:
    """Boxes of one image that several found, and how many all of them found.

    Args:
        views: what each found, with scores above 0 that can be compared.
        iou_above: overlap above which boxes of a finding become one; its score is the mean over the views of the best
            that went into it, 0 of a view that had none.
    """
    together, view = Detections.concat(views), np.repeat(np.arange(len(views)), [len(found) for found in views])
    made: list[Detections] = []
    of_all = 0
    for class_id in np.unique(together.class_id).tolist():
        mine = np.flatnonzero(together.class_id == class_id)
        scores, boxes = together.score[mine], together.boxes_xyxy_px[mine]
        for one in fuse_boxes(boxes, scores, iou_above):
            members = np.array(one.members)
            best = [scores[members[view[mine[members]] == v]].max(initial=0) for v in range(len(views))]
            of_all += min(best) > 0
            made.append(Detections(one.box_xyxy[None], np.array([class_id]), np.array([np.mean(best)])))
    return Detections.concat(made), int(of_all)


def _by_rank(found: Predictions, may_hold: Mapping[str, BoolArray], images: IntArray) -> Predictions:
    """The same boxes of the images of `may_hold`, scored by their rank."""
    own = {image_id: found.get(image_id, Detections.empty()) for image_id in may_hold}
    allowed = Detections.concat(boxes.where(may_hold[image_id][boxes.class_id]) for image_id, boxes in own.items())
    rising = [np.sort(allowed.of_class(class_id).score) for class_id in range(len(images))]
    return {
        image_id: Detections(boxes.boxes_xyxy_px, boxes.class_id, _scores(boxes, rising, images))
        for image_id, boxes in own.items()
    }


def _scores(boxes: Detections, rising: list[FloatArray], images: IntArray) -> FloatArray:
    better = [
        len(rising[class_id]) - int(np.searchsorted(rising[class_id], score, "right"))
        for class_id, score in zip(boxes.class_id.tolist(), boxes.score, strict=True)
    ]
    count = np.maximum(images[boxes.class_id], 1)
    return np.asarray(count / (count + np.array(better, np.float64)), np.float32)
