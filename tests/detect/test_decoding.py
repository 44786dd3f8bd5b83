"""`decode_yolo` and the suppression under it, by hand and against ultralytics' own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from detect.detector import Detector, predict_boxes
from detect.network import new_network
from detect.quiet_import import import_ultralytics
from weakray.boxes.nms import suppress
from weakray.bundle.yolo import decode_yolo
from weakray.detections import Detections, FloatArray
from weakray.errors import DataError
from weakray.imaging import Image, InputSpec, Placement

WHOLE = Placement((96, 128), (1.0, 1.0), 0, 0)


def raw_of(rows: list[list[float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Rows of cx, cy, w, h, scores… → `(1, 4 + k, anchors)`."""
    return np.array([rows], np.float32).transpose(0, 2, 1)


def test_one_anchor_gives_a_box_for_each_class_above_the_score() -> None:
    found = decode_yolo(raw_of([[50, 40, 20, 10, 0.9, 0.3, 0.05]]), [WHOLE], score_above=0.1)[0]
    assert found.boxes_xyxy_px.tolist() == [[40, 35, 60, 45], [40, 35, 60, 45]]
    assert found.class_id.tolist() == [0, 1]
    np.testing.assert_allclose(found.score, [0.9, 0.3])


def test_boxes_come_back_through_the_letterbox_and_are_cut_at_the_border() -> None:
    placement = Placement((100, 50), (0.5, 0.5), 12, 0)  # 50 wide becomes 25, centred in 50
    found = decode_yolo(raw_of([[12, 25, 10, 20, 0.5], [5, 25, 8, 20, 0.9]]), [placement])[0]
    assert found.boxes_xyxy_px.tolist() == [[0, 30, 10, 70]]  # the second lies in the padding alone


def test_a_worse_box_goes_only_for_overlap_above_the_limit_within_its_class() -> None:
    rows = [[50, 50, 20, 20, 0.9, 0.0], [55, 50, 20, 20, 0.8, 0.0], [55, 50, 20, 20, 0.0, 0.7]]  # IoU 0.6
    kept = decode_yolo(raw_of(rows), [WHOLE], iou_above=0.6)[0]
    assert len(kept) == 3
    kept = decode_yolo(raw_of(rows), [WHOLE], iou_above=0.59)[0]
    np.testing.assert_allclose(kept.score, [0.9, 0.7])


def test_limit_keeps_the_best_over_all_classes() -> None:
    rows = [[20, 20, 8, 8, 0.2, 0.0], [40, 20, 8, 8, 0.0, 0.6], [60, 20, 8, 8, 0.4, 0.0]]
    found = decode_yolo(raw_of(rows), [WHOLE], max_boxes=2)[0]
    np.testing.assert_allclose(found.score, [0.6, 0.4])


def test_what_labels_exclude_takes_no_allowed_box_s_place() -> None:
    class Fixed:
        findings, spec = ("A", "B"), InputSpec(size_px=96)

        def raw(self, images: Sequence[Image]) -> FloatArray:
            rows = [[20, 20, 8, 8, 0.2, 0.0], [40, 20, 8, 8, 0.0, 0.6], [60, 20, 8, 8, 0.4, 0.0]]
            return np.repeat(raw_of(rows), len(images), axis=0)

    films = [np.zeros((96, 96), np.uint8)] * 2
    found = predict_boxes(Fixed(), films, max_boxes=2, may_hold=np.array([[True, True], [True, False]]))
    assert [boxes.class_id.tolist() for boxes in found] == [[1, 0], [0, 0]]
    np.testing.assert_allclose(np.stack([boxes.score for boxes in found]), [[0.6, 0.4], [0.4, 0.2]])


def test_nothing_above_the_score_is_empty() -> None:
    assert [len(found) for found in decode_yolo(np.zeros((3, 6, 7), np.float32), [WHOLE] * 3)] == [0, 0, 0]


@pytest.mark.parametrize("batch", [1, 3])
def test_agrees_with_ultralytics(batch: int) -> None:
    import_ultralytics()
    from ultralytics.utils.nms import non_max_suppression

    rng = np.random.default_rng(batch)
    anchors, classes = 400, 5
    centre = rng.uniform([20, 20], [108, 76], (batch, anchors, 2))
    sides = rng.uniform(6, 36, (batch, anchors, 2))
    scores = rng.uniform(0, 1, (batch, anchors, classes)) ** 4
    raw = np.concatenate([centre, sides, scores], axis=2).astype(np.float32).transpose(0, 2, 1)
    ours = decode_yolo(raw, [WHOLE] * batch, score_above=0.02, iou_above=0.45, max_boxes=80)
    peers = non_max_suppression(torch.from_numpy(raw.copy()), 0.02, 0.45, multi_label=True, max_det=80)
    for mine, peer in zip(ours, peers, strict=True):
        assert len(mine) == len(peer) == 80
        np.testing.assert_allclose(mine.score, peer[:, 4].numpy(), atol=0)
        np.testing.assert_array_equal(mine.class_id, peer[:, 5].numpy())
        np.testing.assert_allclose(mine.boxes_xyxy_px, np.clip(peer[:, :4].numpy(), 0, [128, 96, 128, 96]), atol=1e-3)


def test_suppress_with_limit_is_the_head_of_suppress_without() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (200, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, (200, 2))], axis=1).astype(np.float32)
    found = Detections(boxes, rng.integers(0, 3, 200), rng.uniform(0, 1, 200).astype(np.float32))
    every, some = suppress(found, 0.4), suppress(found, 0.4, 20)
    assert len(every) > 20
    np.testing.assert_array_equal(some.boxes_xyxy_px, every.boxes_xyxy_px[:20])


def test_broken_output_is_refused() -> None:
    with pytest.raises(DataError, match=r"raw: expected shape \(n, 4 \+ classes, anchors\).*got \(1, 4, 9\)"):
        decode_yolo(np.zeros((1, 4, 9), np.float32), [WHOLE])
    with pytest.raises(DataError, match="placements: expected 2, one an image of raw, got 1"):
        decode_yolo(np.zeros((2, 6, 9), np.float32), [WHOLE])
    with pytest.raises(DataError, match="expected finite numbers"):
        decode_yolo(np.full((1, 6, 9), np.nan, np.float32), [WHOLE])


def test_a_folded_network_in_bfloat16_finds_the_same_places() -> None:
    network = new_network("yolo11n.yaml", ["A", "B"], InputSpec(size_px=256), 0)
    network.module.eval()
    with torch.no_grad():
        for branch in network.module.model[-1].cv2:  # fresh, they find each box's centre in the middle of its cell
            branch[-1].bias.copy_(torch.linspace(0, 5, len(branch[-1].bias)))
    shown = list(np.random.default_rng(0).integers(0, 256, (2, 256, 256), np.uint8))
    plain, folded = Detector(network).raw(shown), Detector(network.folded()).raw(shown)
    np.testing.assert_allclose(folded, plain, rtol=1e-4, atol=1e-3)
    rough = Detector(network.folded(), bf16=True).raw(shown)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough[:, 4:], plain[:, 4:], atol=5e-3)
    assert np.abs(rough[:, :4] - plain[:, :4]).mean() < 0.1  # pixels
    far = rough[:, :2][rough[:, :2] > 128]
    assert (np.abs(far - np.rint(far)) > 0.001).mean() > 0.9  # bfloat16 has whole numbers alone there
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.module.modules())  # it was left as it is
