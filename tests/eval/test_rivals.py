"""Rivals that need no model: what they learn from tune, and what they do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.average_precision import match
from eval.rivals import centre_box, mean_box
from weakray.coco import BoxTruth
from weakray.detections import Detections
from weakray.errors import DataError

SIZES = {"t1": (100, 200), "t2": (50, 80), "new": (300, 100), "a": (10, 20), "b": (30, 20)}
NAMES = ["Heart", "Nodule", "Never"]
PROBABILITIES = pd.DataFrame(
    [[0.9, 0.2, 0.1], [0.8, 0.4, 0.1], [0.7, 0.3, 0.6], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
    index=list(SIZES),
    columns=NAMES,
)


def found(boxes: list[list[float]], classes: list[int]) -> Detections:
    return Detections(np.array(boxes), np.array(classes), np.ones(len(boxes)))


@pytest.fixture
def tune() -> BoxTruth:
    """Hearts 0.4 wide and 0.6 high in the middle; nodules in the upper left, far from the middle."""
    boxes = {
        "t1": found([[60, 20, 140, 80], [20, 10, 40, 20]], [0, 1]),
        "t2": found([[24, 10, 56, 40], [16, 10, 24, 15]], [0, 1]),
    }
    return BoxTruth(boxes, frozenset((image_id, k) for image_id in boxes for k in range(3)))


@pytest.mark.parametrize("rival", [centre_box, mean_box])
def test_the_heart_is_found_and_scored_by_its_probability(rival: Callable[..., Any], tune: BoxTruth) -> None:
    predictions = rival(tune, SIZES, PROBABILITIES, ["new"])
    heart = predictions["new"].of_class(0)
    np.testing.assert_allclose(heart.boxes_xyxy_px, [[30, 60, 70, 240]], rtol=1e-6)  # 0.4 of 100, 0.6 of 300
    assert heart.score.tolist() == pytest.approx([0.7])


@pytest.mark.parametrize("rival", [centre_box, mean_box])
@pytest.mark.parametrize("image_ids", [["new"], ["new", "a", "b"], []])
def test_one_box_an_image_and_finding(rival: Callable[..., Any], tune: BoxTruth, image_ids: list[str]) -> None:
    predictions = rival(tune, SIZES, PROBABILITIES, image_ids)
    assert list(predictions) == image_ids
    for boxes in predictions.values():
        assert boxes.class_id.tolist() == [0, 1]  # "Never" has no box on tune, so none is known


def test_the_mean_box_by_hand(tune: BoxTruth) -> None:
    # Nodules, relative: (.1, .1, .2, .2) and (.2, .2, .3, .3).
    nodule = mean_box(tune, SIZES, PROBABILITIES, ["b"])["b"].of_class(1)
    np.testing.assert_allclose(nodule.boxes_xyxy_px, [[0.15 * 20, 0.15 * 30, 0.25 * 20, 0.25 * 30]], rtol=1e-6)


def test_a_finding_off_centre_gets_the_size_that_overlaps_most(tune: BoxTruth) -> None:
    # No centred box reaches IoU 0.5. Of the nodules (.1 to .2) and (.2 to .3) a square of side .6 holds nothing and
    # .01: mean IoU .01 / .36 / 2 = .0139; side .8 holds both: .01 / .64 = .0156; side 1 holds both: .01.
    predictions = centre_box(tune, SIZES, PROBABILITIES, ["t1", "t2"])
    assert match(predictions, tune, 3, ious=[0.5]).average_precision()[1] == 0
    np.testing.assert_allclose(predictions["t1"].of_class(1).boxes_xyxy_px, [[20, 10, 180, 90]], rtol=1e-5)


def test_the_centre_box_is_chosen_by_ap50_not_by_overlap() -> None:
    """Six hearts are 0.9 wide, and overlap favours them; the four 0.2 wide are those the classifier is sure of."""
    sizes = {f"i{n}": (100, 200) for n in range(10)}
    boxes = {
        image_id: found([[10, 0, 190, 100] if n < 6 else [80, 0, 120, 100]], [0]) for n, image_id in enumerate(sizes)
    }
    probabilities = pd.DataFrame({"Heart": [(n + 1) / 20 for n in range(10)]}, index=list(sizes))
    truth = BoxTruth(boxes, frozenset((image_id, 0) for image_id in boxes))
    predictions = centre_box(truth, sizes, probabilities, list(sizes))
    # Narrow: precision 1 up to recall 0.4, AP 41 / 101. Wide: precision 0.6 up to recall 0.6, AP 0.6 * 61 / 101.
    assert match(predictions, truth, 1, ious=[0.5]).average_precision() == pytest.approx(41 / 101)
    np.testing.assert_allclose(predictions["i0"].boxes_xyxy_px, [[80, 0, 120, 100]], rtol=1e-6)


def test_boxes_of_pairs_that_nobody_annotated_teach_nothing(tune: BoxTruth) -> None:
    only_hearts = BoxTruth(tune.boxes, frozenset(pair for pair in tune.annotated if pair[1] == 0))
    for rival in (centre_box, mean_box):
        assert rival(only_hearts, SIZES, PROBABILITIES, ["new"])["new"].class_id.tolist() == [0]


def test_without_tune_boxes_there_are_no_boxes() -> None:
    bare = BoxTruth({"t1": Detections.empty()}, frozenset({("t1", 0)}))
    for rival in (centre_box, mean_box):
        assert len(rival(bare, SIZES, PROBABILITIES, ["new"])["new"]) == 0


@pytest.mark.parametrize("rival", [centre_box, mean_box])
def test_mistakes_are_named(rival: Callable[..., Any], tune: BoxTruth) -> None:
    with pytest.raises(DataError, match="probabilities: 1 images are missing, e.g. 'z'; predict them"):
        rival(tune, {**SIZES, "z": (5, 6)}, PROBABILITIES, ["new", "z"])
    with pytest.raises(DataError, match="sizes: image 'new' is missing"):
        rival(tune, {k: v for k, v in SIZES.items() if k != "new"}, PROBABILITIES, ["new"])
    with pytest.raises(DataError, match=r"score: expected values in \[0, 1\], got 1.5"):
        rival(tune, SIZES, PROBABILITIES.assign(Heart=1.5), ["new"])
