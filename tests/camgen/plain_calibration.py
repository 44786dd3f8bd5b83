"""The search's inner loop one candidate, fold and strength at a time: slow, and plain enough to be read as the rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.plain_search import PlainBox, coco_truth, plain_precisions
from camgen.calibration import Array, from_centre_log, to_centre_log
from camgen.scoring import padded_iou
from camgen.tuning import IOUS, TuneFinding

Boxes = list[list[PlainBox]]


def features(box: PlainBox) -> Array:
    return np.concatenate([to_centre_log(np.array(box.box_rel)), box.shape])


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    return float(padded_iou(np.array([a]), np.array([b]))[0, 0])


def pairs(found: Boxes, finding: TuneFinding) -> list[tuple[int, Array, Array]]:
    """Image, features of the pseudo-box, and true box of each match."""
    matched = []
    for i, place in zip(*np.nonzero(finding.truth.valid), strict=True):
        true = finding.truth.boxes_rel[i, place]
        if not found[i]:
            continue
        overlaps = [iou(one.box_rel, true) for one in found[i]]
        apart = [
            np.linalg.norm((np.add(one.box_rel[:2], one.box_rel[2:]) - (true[:2] + true[2:])) / 2) for one in found[i]
        ]
        best = int(np.argmax(overlaps)) if max(overlaps) > 0 else int(np.argmin(apart))
        matched.append((int(i), features(found[i][best]), to_centre_log(true)))
    return matched


def corrected(found: Boxes, finding: TuneFinding, strength: float) -> Boxes:
    """Every image's boxes after a ridge regression, target by target, on the other folds."""
    matched, moved = pairs(found, finding), [list(boxes) for boxes in found]
    for fold in set(finding.fold_of.tolist()) if math.isfinite(strength) else ():
        seen = [(x, y) for i, x, y in matched if finding.fold_of[i] != fold]
        if not seen:
            continue
        x, y = np.array([x for x, _ in seen]), np.array([y for _, y in seen])
        centre, spread = x.mean(axis=0), x.std(axis=0)
        spread[spread <= 1e-6] = 1
        design = np.hstack([np.ones((len(x), 1)), np.clip((x - centre) / spread, -3, 3)])
        weights = []
        for t in range(4):
            penalty = np.ones(design.shape[1])
            penalty[0], penalty[1 + t] = 0.02, 0.1
            left = design.T @ design + strength * np.diag(penalty)
            weights.append(np.linalg.solve(left, design.T @ (y[:, t] - x[:, t])))
        for i in np.flatnonzero(finding.fold_of == fold):
            for j, box in enumerate(found[i]):
                own = features(box)
                row = np.concatenate([[1], np.clip((own - centre) / spread, -3, 3)])
                new = from_centre_log(own[:4] + np.array(weights) @ row)
                moved[i][j] = PlainBox((new[0], new[1], new[2], new[3]), box.shape)
    return moved


def judged(
    found: Boxes, probability: Array, finding: TuneFinding, gate: float, strengths: Sequence[float]
) -> tuple[list[float], list[float], list[bool]]:
    """Criterion, AP50 and trust at each strength."""
    coco = coco_truth(finding.truth)
    criterion, ap50, trusted = [], [], []
    plain: Array = np.zeros(0)
    for strength in strengths:
        boxes = corrected(found, finding, strength)
        gated = [own if probability[i] >= gate else [] for i, own in enumerate(boxes)]
        precision = plain_precisions(coco, gated, probability, IOUS)
        best, kept_best = [], []
        for i, place in zip(*np.nonzero(finding.truth.valid), strict=True):
            true, kept = finding.truth.boxes_rel[i, place], list[PlainBox]()
            for box in gated[i]:
                if all(iou(box.box_rel, other.box_rel) <= 0.5 for other in kept):
                    kept.append(box)
            best.append(max([iou(box.box_rel, true) for box in boxes[i]], default=0.0))
            kept_best.append(max([iou(box.box_rel, true) for box in kept], default=0.0))
        criterion.append(float(np.mean(precision) + 0.5 * np.mean(kept_best)))
        ap50.append(precision[IOUS.index(0.5)])
        if math.isinf(strength):
            plain = np.array(best)
            trusted.append(True)
        else:
            gain = np.array(best) - plain
            trusted.append(bool(gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain))))
    return criterion, ap50, trusted
