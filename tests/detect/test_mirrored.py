"""A detector's own boxes, found in films and in their mirror images."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from detect.fusing import fuse_views
from detect.self_training import OwnBoxConfig, mirrored, own_boxes
from tests.detect.conftest import DatasetMaker, found_boxes
from weakray.detections import Detections


def test_left_and_right_change_places() -> None:
    found = found_boxes([(0, 2, 10, 7), (30, 0, 40, 5)], [1, 0], [0.9, 0.2])
    seen = mirrored(found, 40)
    assert seen.boxes_xyxy_px.tolist() == [[30, 2, 40, 7], [0, 0, 10, 5]]
    assert seen.class_id.tolist() == [1, 0]
    np.testing.assert_array_equal(mirrored(seen, 40).boxes_xyxy_px, found.boxes_xyxy_px)


def test_views_by_hand() -> None:
    one = found_boxes([(0, 0, 10, 10), (50, 50, 60, 60)], [0, 0], [0.6, 0.4])
    other = found_boxes([(0, 0, 10, 16), (0, 0, 10, 10)], [0, 1], [0.2, 0.8])
    fused, of_both = fuse_views([one, other], 0.5)
    # (0.6 · 10 + 0.2 · 16) / 0.8 = 11.5; what one view alone has found counts half; findings do not mix
    assert fused.boxes_xyxy_px.tolist() == [[0, 0, 10, pytest.approx(11.5)], [50, 50, 60, 60], [0, 0, 10, 10]]
    assert fused.class_id.tolist() == [0, 0, 1]
    assert fused.score.tolist() == pytest.approx([0.4, 0.2, 0.4])
    assert of_both == 1
    assert len(fuse_views([Detections.empty(), Detections.empty()], 0.5)[0]) == 0


def test_both_views_have_a_say(make_dataset: DatasetMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that always finds the same place of what it is shown finds the mirrored place of the mirror image."""
    dataset, model = make_dataset(), Mock()

    def predict(of: Any, images: list[Any], *_: Any) -> list[Detections]:
        assert of is model
        return [found_boxes([(2, 3, 12, 13)], [0], [0.5]) for _ in images]

    monkeypatch.setattr("detect.self_training.predict_boxes", predict)
    plain, both = (
        own_boxes(dataset, model, OwnBoxConfig(score_at_least=0.0, mirrored=on), 4, 0) for on in (False, True)
    )
    taught = [image_id for image_id, found in plain.boxes.items() if len(found)]
    assert taught
    for image_id in taught:
        width = dataset.size_hw(image_id)[1]
        assert plain.boxes[image_id].boxes_xyxy_px.tolist() == [[2, 3, 12, 13]]
        assert sorted(both.boxes[image_id].boxes_xyxy_px.tolist()) == [[2, 3, 12, 13], [width - 12, 3, width - 2, 13]]
