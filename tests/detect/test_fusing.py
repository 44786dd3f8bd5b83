"""Boxes of the detector and of the recipe made comparable by rank, and fused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.fusing import fuse_sources
from detect.self_training import OwnBoxConfig
from detect.train import run as train
from tests.detect.conftest import config_of, found_boxes
from weakray.coco import Predictions
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import ConfigError

MAY = {"a": np.array([True, True]), "b": np.array([True, False]), "c": np.array([False, True])}
FIRST = {
    "a": found_boxes([(0, 0, 10, 10)], [0], [0.9]),
    "b": found_boxes([(0, 0, 20, 10)], [0], [0.4]),
    "c": found_boxes([(5, 5, 9, 9)], [0], [0.95]),  # the labels exclude it
}
SECOND = {
    "a": found_boxes([(0, 0, 10, 20), (0, 0, 10, 10)], [0, 1], [0.2, 0.6]),
    "b": found_boxes([(40, 40, 60, 70)], [0], [0.1]),
}


def rows(found: Detections) -> list[Any]:
    return list(zip(found.boxes_xyxy_px.tolist(), found.class_id.tolist(), found.score.tolist(), strict=True))


def test_ranks_and_fusion_by_hand() -> None:
    # two images may hold finding 0: ranks 0 and 1 of each source score 2/2 and 2/3; the excluded box ranks 0 too
    fused, of_both = fuse_sources(FIRST, SECOND, MAY, 0.4)
    assert rows(fused["a"]) == [([0, 0, 10, 15], 0, 1.0), ([0, 0, 10, 10], 1, 0.5)]  # IoU 1/2; findings do not mix
    third = pytest.approx(1 / 3)
    assert rows(fused["b"]) == [([0, 0, 20, 10], 0, third), ([40, 40, 60, 70], 0, third)]
    assert rows(fused["c"]) == [([5, 5, 9, 9], 0, 0.5)]
    assert of_both == 1
    apart, none = fuse_sources(FIRST, SECOND, MAY, 0.5)
    assert rows(apart["a"])[:2] == [([0, 0, 10, 10], 0, 0.5), ([0, 0, 10, 20], 0, 0.5)]
    assert none == 0


def test_the_better_rank_weighs_more_where_boxes_lie() -> None:
    first = {"a": found_boxes([(0, 0, 10, 10)], [0], [0.9]), "b": found_boxes([(0, 0, 30, 10)], [0], [0.2])}
    second = {"a": Detections.empty(), "b": found_boxes([(0, 0, 20, 10)], [0], [0.7])}
    fused, _ = fuse_sources(first, second, MAY, 0.5)
    # in b ranks 1 and 0 of 2 images: weights 2/3 and 1, so (2/3 · 30 + 20) / (5/3) = 24
    assert rows(fused["b"]) == [(pytest.approx([0, 0, 24, 10]), 0, pytest.approx(5 / 6))]


def test_how_a_source_scales_its_scores_has_no_say() -> None:
    timid: Predictions = {
        image_id: Detections(found.boxes_xyxy_px, found.class_id, found.score**3 / 50)
        for image_id, found in SECOND.items()
    }
    here, there = fuse_sources(FIRST, SECOND, MAY, 0.4), fuse_sources(FIRST, timid, MAY, 0.4)
    assert [rows(found) for found in here[0].values()] == [rows(found) for found in there[0].values()]


def test_rounds_can_learn_from_the_recipe_s_boxes_too(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset, boxes = pseudo_boxes

    def taught(name: str, **own: Any) -> Any:
        settings = {"source": "tune", "course": {"rounds": 1}, "own": own, "boxes": boxes if own else None}
        return train(config_of(dataset, tmp_path / name, tiny_architecture, **settings)).training_sets["own_1"]

    alone, fused = taught("alone"), taught("fused", fuse="recipe", fuse_iou=0.01)
    assert alone.fused == 0
    assert fused.fused > 0
    alike = [
        (tmp_path / name / "training_set/own_1/labels/train/train0.txt").read_text() for name in ("alone", "fused")
    ]
    assert alike[0] != alike[1]
    lacking = {"source": "tune", "course": {"rounds": 1}, "own": {"fuse": "recipe"}}
    with pytest.raises(ConfigError, match=r"boxes: required for source=tune; give the boxes\.json"):
        train(config_of(dataset, tmp_path / "lacking", tiny_architecture, **lacking))
    assert OwnBoxConfig().fuse == "none"
