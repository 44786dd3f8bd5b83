"""The search's fast average precision against the evaluator's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from camgen.scoring import PaddedTruth, average_precisions, mean_best_iou, padded_iou, without_duplicates
from eval.average_precision import match
from weakray.boxes.geometry import iou
from weakray.boxes.nms import suppress
from weakray.coco import BoxTruth
from weakray.detections import Detections

SIZE = (90, 160)
IOUS = (0.1, 0.3, 0.5, 0.7)


def random_boxes(rng: np.random.Generator, n: int) -> npt.NDArray[np.float32]:
    low = rng.uniform(0, [110, 50], (n, 2))
    return np.concatenate([low, low + rng.uniform(8, 45, (n, 2))], axis=1).astype(np.float32)


def of_class(rng: np.random.Generator, n: int) -> Detections:
    return Detections(random_boxes(rng, n), np.zeros(n, np.int64), np.sort(rng.random(n))[::-1])


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_the_evaluators(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [1, 3, 40][seed % 3]
    true = [of_class(rng, int(rng.integers(0, 4))) for _ in range(images)]
    found = [of_class(rng, 4) for _ in range(images)]
    true[0] = of_class(rng, 2)
    for boxes, wanted in zip(found, true, strict=True):  # half of the images have a near hit
        if len(wanted) and rng.random() < 0.5:
            boxes.boxes_xyxy_px[1] = wanted.boxes_xyxy_px[0] + rng.uniform(-4, 4, 4)
    names = [f"i{i}" for i in range(images)]
    truth = BoxTruth(dict(zip(names, true, strict=True)), frozenset((name, 0) for name in names))
    expected = match(dict(zip(names, found, strict=True)), truth, 1, IOUS).average_precision()[0]

    padded = PaddedTruth.of(true, [SIZE] * images)
    scale = np.array([160, 90, 160, 90], np.float64)
    made = np.stack([f.boxes_xyxy_px.astype(np.float64) / scale for f in found])
    score = np.stack([f.score.astype(np.float64) for f in found])
    valid = np.ones(score.shape, bool)
    ours = average_precisions(padded_iou(made, padded.boxes_rel), valid, score, padded.valid, IOUS)
    assert ours == pytest.approx(expected, abs=1e-9)
    assert 0 < ours[0] <= 1


def test_hand_computed() -> None:
    # Two true boxes in two images; ranked: hit, miss, hit. Precision 1 up to recall 0.5 (51 points), then 2/3 (50).
    truth = PaddedTruth(np.array([[[0, 0, 0.5, 0.5]], [[0, 0, 0.5, 0.5]]]), np.ones((2, 1), bool))
    boxes = np.array([[[0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], [[0, 0, 0.5, 0.4], [0, 0, 0, 0]]])
    valid = np.array([[True, True], [True, False]])
    overlap = padded_iou(boxes, truth.boxes_rel)
    found = average_precisions(overlap, valid, np.array([[0.9, 0.8], [0.7, 0.0]]), truth.valid, [0.5, 0.9])
    assert found == pytest.approx([(51 + 50 * 2 / 3) / 101, 51 / 101])
    assert mean_best_iou(overlap, valid, truth.valid) == pytest.approx((1 + 0.8) / 2)


def test_degenerate_cases() -> None:
    boxes, valid, score = np.zeros((3, 2, 4)), np.zeros((3, 2), bool), np.zeros((3, 2))
    nothing = PaddedTruth.of([Detections.empty()] * 3, [SIZE] * 3)
    assert nothing.count == 0
    assert np.isnan(average_precisions(padded_iou(boxes, nothing.boxes_rel), valid, score, nothing.valid, [0.5])).all()
    assert mean_best_iou(padded_iou(boxes, nothing.boxes_rel), valid, nothing.valid) == 0
    one = PaddedTruth.of([of_class(np.random.default_rng(0), 1)] * 3, [SIZE] * 3)
    assert average_precisions(padded_iou(boxes, one.boxes_rel), valid, score, one.valid, [0.5]).tolist() == [0]


def test_overlaps_are_those_in_pixels() -> None:
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 5), random_boxes(rng, 4)
    scale = np.array([160, 90, 160, 90], np.float64)
    assert padded_iou((a / scale)[None], (b / scale)[None])[0] == pytest.approx(iou(a, b), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_duplicates_go_as_in_non_maximum_suppression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = of_class(rng, 5)
    found.boxes_xyxy_px[3] = found.boxes_xyxy_px[1] + 1
    found.boxes_xyxy_px[4] = found.boxes_xyxy_px[3] + 4
    kept = suppress(found, 0.5)
    rel = found.boxes_xyxy_px.astype(np.float64)[None]
    keep = without_duplicates(rel, np.ones((1, 5), bool), 0.5)[0]
    assert found.score[keep].tolist() == kept.score.tolist()
    assert not keep[3]
    invalid_first = np.array([[True, False, True, True, True]])
    assert without_duplicates(rel, invalid_first, 0.5)[0, 3]  # a box that does not count suppresses nothing
