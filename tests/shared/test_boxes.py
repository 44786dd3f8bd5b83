from __future__ import annotations

import numpy as np
import pytest

from weakray.boxes.geometry import clip_to_image, iou, xywh_to_xyxy, xyxy_to_cxcywh_rel, xyxy_to_xywh
from weakray.boxes.nms import suppress
from weakray.detections import Detections


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 4, 2], [10, 10, 11, 11]], np.float32)
    b = np.array([[2, 0, 6, 2], [4, 0, 5, 2]], np.float32)  # half shared; touching only
    assert iou(a, b).tolist() == [[4 / 12, 0], [0, 0]]


def test_one_box_in_three_formats_only_one_scores_one() -> None:
    xyxy = np.array([[10, 20, 40, 60]], np.float32)
    assert iou(xyxy, xyxy)[0, 0] == 1
    assert iou(xyxy, xyxy_to_xywh(xyxy))[0, 0] < 1
    relative = xyxy_to_cxcywh_rel(xyxy, (100, 200))
    assert relative[0].tolist() == pytest.approx([0.125, 0.4, 0.15, 0.4])
    assert iou(xyxy, relative)[0, 0] < 1
    assert xywh_to_xyxy(xyxy_to_xywh(xyxy)).tolist() == xyxy.tolist()


def test_clip_keeps_half_open_border() -> None:
    boxes = clip_to_image(np.array([[-5, 3, 250, 90]], np.float32), (80, 200))
    assert boxes.tolist() == [[0, 3, 200, 80]]


def test_suppression_is_per_class_and_greedy() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [0, 0, 10, 10]], np.float32)
    found = Detections(boxes, np.array([0, 0, 0, 1]), np.array([0.9, 0.8, 0.7, 0.6]))
    # IoU of neighbours is 9/11 = .82, of first and third 8/12 = .67: the third survives, for the second is gone
    kept = suppress(found, 0.7)
    assert kept.score.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert len(suppress(found, 0.9)) == 4
    assert len(suppress(Detections.empty(), 0.5)) == 0
