"""The plain way to score a candidate: cv2 on one map at one threshold after another, then pycocotools' COCOeval.

The referee of the recipe search, in the bench and in the tests; written to be read, not to be fast.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from camgen.components import FineMap
from camgen.scoring import DUPLICATE_IOU, PaddedTruth

Array = npt.NDArray[np.float64]
_SCALE = 1000.0  # relative boxes become pixels of an image of this size


@dataclass(frozen=True)
class PlainBox:
    """A box and what the map looks like inside, as `camgen.components.Components` has them."""

    box_rel: tuple[float, float, float, float]
    shape: tuple[float, ...]


def plain_boxes(fine: FineMap, cut: float, min_area: float, unit: float, places: int) -> list[PlainBox]:
    """The components of highest peak above one cut, one component at a time."""
    values = fine.values
    rows, columns = values.shape
    height, width = fine.size_yx
    above = values > cut
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.view(np.uint8), connectivity=8)
    big = 1 + np.flatnonzero(stats[1:count, cv2.CC_STAT_AREA] >= min_area * height * width)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, labels[above], values[above])
    first = np.lexsort((stats[big, cv2.CC_STAT_TOP], stats[big, cv2.CC_STAT_LEFT], -peaks[big]))[:places]
    found = []
    for label in big[first].tolist():
        c0, r0, w, h, cells = (int(v) for v in stats[label])
        r1, c1 = r0 + h, c0 + w
        part, inside = labels[r0:r1, c0:c1] == label, values[r0:r1, c0:c1]
        y0 = x0 = 0.0
        y1 = x1 = 1.0
        if r0 > 0:
            y0 = max(0.0, r0 + 0.5 - _reach(inside[0], values[r0 - 1, c0:c1], part[0], cut) + fine.first_yx[0]) / height
        if c0 > 0:
            reach = _reach(inside[:, 0], values[r0:r1, c0 - 1], part[:, 0], cut)
            x0 = max(0.0, c0 + 0.5 - reach + fine.first_yx[1]) / width
        if r1 < rows:
            y1 = min(1.0, (r1 - 0.5 + _reach(inside[-1], values[r1, c0:c1], part[-1], cut) + fine.first_yx[0]) / height)
        if c1 < columns:
            reach = _reach(inside[:, -1], values[r0:r1, c1], part[:, -1], cut)
            x1 = min(1.0, (c1 - 0.5 + reach + fine.first_yx[1]) / width)
        weight = np.where(part, inside, 0).astype(np.float64)
        total, peak = float(weight.sum()), float(weight.max())
        across, down = weight.sum(axis=0) / total, weight.sum(axis=1) / total
        at_x, at_y = np.arange(w) + (c0 + 0.5 + fine.first_yx[1]), np.arange(h) + (r0 + 0.5 + fine.first_yx[0])
        mean_x, mean_y = float(across @ at_x), float(down @ at_y)
        spread_x = math.sqrt(max(float(across @ (at_x - mean_x) ** 2), 0.0) + 1 / 12) / width
        spread_y = math.sqrt(max(float(down @ (at_y - mean_y) ** 2), 0.0) + 1 / 12) / height
        shape = (
            min(1.0, peak / unit),
            min(1.0, total / cells / unit),
            mean_x / width - (x0 + x1) / 2,
            mean_y / height - (y0 + y1) / 2,
            math.log(spread_x),
            math.log(spread_y),
            cells / (w * h),
            math.log(len(big)),
            _contrast(fine, total, cells),
            1.0,  # a map agrees with itself
        )
        found.append(PlainBox((x0, y0, x1, y1), shape))
    return found


def _reach(edge: Any, beyond: Any, part: Any, cut: float) -> float:
    """How far past its outermost samples a component goes, in cells: the furthest crossing of the cut."""
    inner, outer = edge[part].astype(np.float64), beyond[part].astype(np.float64)
    return float(((inner - cut) / (inner - outer)).max())


def _contrast(fine: FineMap, total: float, cells: int) -> float:
    """The mean inside less the mean of the rest, in parts of the map's range; 0 where there is no rest."""
    rest = fine.values.size - cells
    outside = (float(fine.values.sum(dtype=np.float64)) - total) / max(rest, 1)
    return (total / cells - outside) / (fine.high - fine.low) if rest else 0.0


def coco_truth(truth: PaddedTruth) -> Any:
    """The true boxes of one finding as a pycocotools `COCO`."""
    from pycocotools.coco import COCO

    coco = COCO()
    image, place = np.nonzero(truth.valid)
    coco.dataset = {
        "images": [{"id": i + 1} for i in range(len(truth.valid))],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": j + 1, "image_id": int(i) + 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for j, (i, box) in enumerate(zip(image, _xywh(truth.boxes_rel[image, place]), strict=True))
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def plain_precisions(
    coco: Any, found: Sequence[Sequence[PlainBox]], probability: Array, ious: Sequence[float]
) -> list[float]:
    """AP at each IoU of one candidate, by COCOeval, after overlapping boxes of an image are thinned out.

    Args:
        coco: from `coco_truth`.
        found: boxes of each image, best first.
        probability: `(n,)`.
        ious: thresholds.
    """
    from pycocotools import mask
    from pycocotools.cocoeval import COCOeval

    results = []
    for i, boxes in enumerate(found):
        kept: list[list[float]] = []
        for one in boxes:
            box = _xywh(np.array([one.box_rel]))[0]
            if kept and mask.iou([box], kept, [0] * len(kept)).max() > DUPLICATE_IOU:
                continue
            kept.append(box)
            score = min(1.0, float(probability[i]) * one.shape[0])
            results.append({"image_id": i + 1, "category_id": 1, "bbox": box, "score": score})
    if not results:
        return [0.0] * len(ious)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluated = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluated.params.iouThrs = np.array(ious)
        evaluated.params.areaRng, evaluated.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluated.params.maxDets = [100]
        evaluated.evaluate()
        evaluated.accumulate()
    return [float(value) for value in evaluated.eval["precision"][:, :, 0, 0, 0].mean(axis=1)]


def _xywh(boxes_rel: Array) -> list[list[float]]:
    return [[x0 * _SCALE, y0 * _SCALE, (x1 - x0) * _SCALE, (y1 - y0) * _SCALE] for x0, y0, x1, y1 in boxes_rel.tolist()]
