"""How nearly an exported detector agrees with torch: box by box before any is dropped, and in average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from detect.detector import BoxModel
from eval.average_precision import match
from weakray.bundle.parity import BATCH, check_finite
from weakray.bundle.yolo import decode_yolo
from weakray.coco import BoxTruth, Predictions
from weakray.config import StrictModel
from weakray.detections import BoolArray, FloatArray
from weakray.imaging import Image, Placement


class ToleranceConfig(StrictModel):
    """How near the exported detector must stay to torch."""

    score_above: float = Field(0.05, ge=0, lt=1, description="boxes scored above this, by either, are compared")
    iou_at_least: float = Field(0.95, gt=0, le=1, description="overlap of a box with the same one of torch")
    score_within: float = Field(0.01, gt=0, description="difference of a score from torch's")
    matched_fraction: float = Field(0.99, gt=0, le=1, description="fraction of boxes that must be as near as that")
    ap50_loss: float = Field(
        0.01, ge=0, description="AP50 on tune that an export of lower precision (bf16, fp16, int8) may lose"
    )


class DetectorParity(StrictModel):
    """How an exported detector compares with torch.

    A box is one finding's score at one anchor, before suppression: that both sides see the same boxes there leaves
    nothing for the shared decoding to change, and two nearly equal boxes cannot swap places. Queries, which have no
    order, are brought into torch's first.
    """

    images: int
    boxes: int  # scored above the tolerance's floor by torch or by the export
    matched_fraction: float  # of those, how many agree in place and score; 1 where there are none
    placed_fraction: float  # of those, how many agree in place alone
    max_score_difference: float  # over all anchors and findings, those below the floor too
    mean_score_difference: float  # over the boxes above the floor
    ap50_loss_tune: float | None = None  # macro AP50 of torch less the export's; None without true boxes
    ap50_loss_test: float | None = None  # the same on test; told, and no reason to ship or to refuse

    def passes(self, tolerance: ToleranceConfig, *, lossy: bool) -> bool:
        """Whether it is near enough. Without any box above the floor every score must be.

        An export of lower precision cannot match box by box: it passes by its AP50 on tune. Where tune has no true
        boxes, it must match like the others.
        """
        if lossy and self.ap50_loss_tune is not None:
            return self.ap50_loss_tune <= tolerance.ap50_loss
        if self.boxes:
            return self.matched_fraction >= tolerance.matched_fraction
        return self.max_score_difference <= tolerance.score_within


def compare(
    torch_side: BoxModel,
    export: BoxModel,
    prepared: Sequence[Image],
    tolerance: ToleranceConfig,
    *,
    in_order: bool = True,
) -> DetectorParity:
    """Runs torch and an export on the same images and compares box by box.

    Args:
        torch_side: the detector as trained.
        export: the exported one.
        prepared: images as `prepare` gives them.
        tolerance: what counts as a match.
        in_order: whether both give their boxes in the same order, as those of anchors are.

    Raises:
        RunError: if either side gives NaN or infinity.
    """
    boxes, matched, placed, largest, total = 0, 0, 0, 0.0, 0.0
    for start in range(0, len(prepared), BATCH):
        part = prepared[start : start + BATCH]
        expected, got = torch_side.raw(part), export.raw(part)
        check_finite({"torch": expected, "the exported graph": got})
        got = got if in_order else in_order_of(expected, got, len(part[0]))
        counted, near, over = match_anchors(expected, got, tolerance)
        difference = np.abs(expected[:, 4:] - got[:, 4:])
        boxes += int(counted.sum())
        matched += int((counted & near).sum())
        placed += int((counted & over).sum())
        total += float(difference[counted].sum())
        largest = max(largest, float(difference.max()))
    return DetectorParity(
        images=len(prepared),
        boxes=boxes,
        matched_fraction=matched / boxes if boxes else 1.0,
        placed_fraction=placed / boxes if boxes else 1.0,
        max_score_difference=largest,
        mean_score_difference=total / boxes if boxes else 0.0,
    )


def in_order_of(expected: FloatArray, got: FloatArray, size_px: int) -> FloatArray:
    """`got` with each image's boxes in the order of `expected`'s: pairs that lie apart least, places and scores added.

    Args:
        expected: `(n, 4 + k, boxes)`, as `match_anchors` takes it.
        got: the same boxes in another order.
        size_px: side of the images; distances count in parts of it.
    """
    out = np.empty_like(got)
    scale = np.where(np.arange(expected.shape[1]) < 4, size_px, 1)[:, None]
    for i, (own, other) in enumerate(zip(expected / scale, got / scale, strict=True)):
        out[i] = got[i][:, linear_sum_assignment(cdist(own.T, other.T, "cityblock"))[1]]
    return out


def match_anchors(
    expected: FloatArray, got: FloatArray, tolerance: ToleranceConfig
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Which boxes count, which of all boxes agree, and which agree in place; each `(n, k, anchors)` bool.

    Args:
        expected: torch's `(n, 4 + k, anchors)`: centre x, centre y, width, height in pixels, then scores.
        got: the export's.
        tolerance: floor of the score, and what counts as near.
    """
    shape = (expected.shape[0], 1, expected.shape[2])
    (low_a, high_a), (low_b, high_b) = _corners(expected), _corners(got)
    sides = np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None)
    shared = sides[:, 0] * sides[:, 1]
    union = np.prod(high_a - low_a, axis=1) + np.prod(high_b - low_b, axis=1) - shared
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).reshape(shape)
    scores_a, scores_b = expected[:, 4:], got[:, 4:]
    counted = np.maximum(scores_a, scores_b) > tolerance.score_above
    placed = np.broadcast_to(overlap >= tolerance.iou_at_least, counted.shape)
    return counted, placed & (np.abs(scores_a - scores_b) <= tolerance.score_within), placed


def _corners(raw: FloatArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    centre, half = raw[:, :2].astype(np.float64), np.clip(raw[:, 2:4].astype(np.float64), 0, None) / 2
    return centre - half, centre + half


def predict_prepared(
    model: BoxModel, prepared: Mapping[str, tuple[Image, Placement]], iou_above: float, max_boxes: int
) -> Predictions:
    """Boxes of images that are prepared already, image_id → boxes, down to a score of .001."""
    ids = list(prepared)
    predictions: Predictions = {}
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        raw = model.raw([prepared[image_id][0] for image_id in part])
        placements = [prepared[image_id][1] for image_id in part]
        boxes = decode_yolo(raw, placements, iou_above=iou_above, max_boxes=max_boxes)
        predictions |= dict(zip(part, boxes, strict=True))
    return predictions


def macro_ap50(predictions: Predictions, truth: BoxTruth, classes: int) -> float | None:
    """AP50, mean over the findings with a true box; None where none has one."""
    matches = match(predictions, truth, classes, (0.5,))
    known = matches.positives > 0
    return float(matches.average_precision()[known, 0].mean()) if known.any() else None
