"""Which cases a gallery shows: best, typical and worst of each finding, by a fixed rule and never by taste."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.content import KINDS, Kind
from weakray.boxes.geometry import iou
from weakray.coco import BoxTruth, Predictions
from weakray.detections import Detections


def top_iou(found: Detections, true: Detections) -> float:
    """IoU [0, 1] of the best-scored box (the first among equals) with the true box it fits best; 0 without a box."""
    if not len(found) or not len(true):
        return 0.0
    return float(iou(found.best_first(1).boxes_xyxy_px, true.boxes_xyxy_px).max())


def choose_cases(
    truth: BoxTruth, predictions: Predictions, names: Sequence[str], per_kind: int
) -> list[tuple[str, int, Kind]]:
    """Ranks the images that have a finding by `top_iou` and takes both ends and the middle.

    Only pairs that were annotated and have a true box count. Equal overlaps rank by score, the most confident
    miss last, then by image id, so the choice never depends on the order of a dict. An image stands at most once
    a finding; where there are few, best and worst come before typical.

    Args:
        truth: true boxes and annotated pairs of one split.
        predictions: the detector's boxes (or another source's).
        names: the findings, in class-id order.
        per_kind: how many of each kind a finding, ≥ 0.

    Returns:
        `(image_id, class_id, kind)`: by finding, then best (best first), typical, worst (worst first).
    """
    chosen: list[tuple[str, int, Kind]] = []
    for class_id in range(len(names)):
        ranked = _ranked(truth, predictions, class_id)
        n_worst = min(per_kind, len(ranked) // 2)
        n_best = min(per_kind, len(ranked) - n_worst)
        rest = ranked[n_best : len(ranked) - n_worst]
        skip = max(0, (len(rest) - per_kind) // 2)
        taken: dict[Kind, list[str]] = {
            "best": ranked[:n_best],
            "typical": rest[skip : skip + per_kind],
            "worst": ranked[len(ranked) - n_worst :][::-1],
        }
        chosen += [(image_id, class_id, kind) for kind in KINDS for image_id in taken[kind]]
    return chosen


def _ranked(truth: BoxTruth, predictions: Predictions, class_id: int) -> list[str]:
    """Ids of the finding's positive images, best overlap first."""
    keyed: list[tuple[float, float, str]] = []
    for image_id, boxes in truth.boxes.items():
        true = boxes.of_class(class_id)
        if len(true) and (image_id, class_id) in truth.annotated:
            found = predictions.get(image_id, Detections.empty()).of_class(class_id)
            score = float(found.score.max()) if len(found) else 0.0
            keyed.append((-top_iou(found, true), score, image_id))
    return [image_id for _, _, image_id in sorted(keyed)]
