"""Score cut-offs for pseudo-boxes, one a finding, chosen on tune: where F1 against the true boxes is highest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from weakray.boxes.geometry import iou
from weakray.coco import BoxTruth, Predictions
from weakray.detections import BoolArray, Detections, FloatArray, IntArray

IOU_AT_LEAST = 0.3  # a pseudo-box this near a true one still teaches where to look; at 0.5 most findings have no hits


def choose_cutoffs(predictions: Predictions, truth: BoxTruth, classes: int, least_f1: float = 0.0) -> list[float]:
    """The lowest score to keep for each class: that of highest F1 = 2 TP / (boxes kept + true boxes).

    A box is a true positive when it overlaps a true box of its class, not yet taken by a better box, by at least
    `IOU_AT_LEAST`. Only annotated (image, class) pairs count. A class without a single true positive on these images
    takes the cut-off of all classes pooled.

    Args:
        predictions: image_id → scored boxes of the annotated images.
        truth: their true boxes.
        classes: number of classes.
        least_f1: a class whose best F1 is lower keeps no box at all.

    Returns:
        A score for each class, [0, 1]; a box scored exactly that is kept. 0 where not even the pooled boxes hit once;
        infinity for a class that keeps none.
    """
    rows = [_scores_and_hits(predictions, truth, class_id) for class_id in range(classes)]
    wanted = [_true_boxes(truth, class_id) for class_id in range(classes)]
    pooled, _ = _best_cutoff(
        np.concatenate([scores for scores, _ in rows]), np.concatenate([hits for _, hits in rows]), sum(wanted)
    )
    cutoffs = []
    for (scores, hits), count in zip(rows, wanted, strict=True):
        cutoff, f1 = _best_cutoff(scores, hits, count)
        cutoffs.append(math.inf if f1 < least_f1 else pooled if f1 == 0 else cutoff)
    return cutoffs


def matching_counts(predictions: Predictions, images: IntArray, truth: BoxTruth) -> list[float]:
    """The scores that keep as many boxes an image with the finding as annotators drew.

    What a detector says of images whose boxes it was taught cannot tell which of its scores to trust elsewhere; how
    many boxes a finding has does not depend on it.

    Args:
        predictions: image_id → scored boxes, of findings that may be there.
        images: `(k,)`, in how many images of these each finding may be present.
        truth: of the annotated images.

    Returns:
        A score for each class, [0, 1]; 0 where all boxes are wanted. A class without a true box takes the mean number
        of boxes of all classes; where no class has one, a box an image.
    """
    drawn = np.zeros(len(images), np.int64)
    holding = np.zeros(len(images), np.int64)  # images with a true box of the class
    for found in truth.boxes.values():
        counts = np.bincount(found.class_id, minlength=len(images))
        drawn += counts
        holding += counts > 0
    pooled = drawn.sum() / holding.sum() if holding.any() else 1.0
    mean = np.divide(drawn, holding, out=np.full(len(images), pooled), where=holding > 0)
    cutoffs = []
    for class_id, wanted in enumerate(np.rint(mean * images).astype(np.int64).tolist()):
        scores = np.sort(np.concatenate([[], *(found.of_class(class_id).score for found in predictions.values())]))[
            ::-1
        ]
        cutoffs.append(0.0 if wanted >= len(scores) else float(scores[wanted - 1]) if wanted else 1.0)
    return cutoffs


def matches(found: Detections, true: Detections, iou_at_least: float) -> BoolArray:
    """Which boxes of one image and class are true positives, `(n,)`; each true box is taken once, best score first."""
    hits = np.zeros(len(found), dtype=bool)
    overlap = iou(found.boxes_xyxy_px, true.boxes_xyxy_px)
    free = np.ones(len(true), dtype=bool)
    for i in np.argsort(-found.score, kind="stable"):
        candidates = np.where(free, overlap[i], -1.0)
        if len(true) and candidates.max() >= iou_at_least:
            hits[i] = True
            free[candidates.argmax()] = False
    return hits


def _scores_and_hits(predictions: Predictions, truth: BoxTruth, class_id: int) -> tuple[FloatArray, BoolArray]:
    scores, hits = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    for image_id in sorted(image_id for image_id, annotated in truth.annotated if annotated == class_id):
        found = predictions.get(image_id, Detections.empty()).of_class(class_id)
        true = truth.boxes.get(image_id, Detections.empty()).of_class(class_id)
        scores.append(found.score)
        hits.append(matches(found, true, IOU_AT_LEAST))
    return np.concatenate(scores), np.concatenate(hits)


def _true_boxes(truth: BoxTruth, class_id: int) -> int:
    annotated = {image_id for image_id, annotated in truth.annotated if annotated == class_id}
    return sum(len(boxes.of_class(class_id)) for image_id, boxes in truth.boxes.items() if image_id in annotated)


def _best_cutoff(scores: FloatArray, hits: BoolArray, true_boxes: int) -> tuple[float, float]:
    """Half way between the last score kept at the highest F1 and the next, and that F1; 0 and 0 without a hit."""
    if not hits.any():
        return 0.0, 0.0
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + true_boxes)
    last_of_score = np.append(scores[1:] < scores[:-1], True)  # equal scores are kept or dropped together
    best = int(np.where(last_of_score, f1, -1.0).argmax())
    cutoff = 0.0 if best + 1 == len(scores) else float((float(scores[best]) + float(scores[best + 1])) / 2)
    return cutoff, float(f1[best])


def keep_above(found: Detections, cutoffs: Sequence[float]) -> Detections:
    """The boxes scored at least their class's cut-off."""
    return found.where(found.score >= np.asarray(cutoffs, np.float64)[found.class_id])
