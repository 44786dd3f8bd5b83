"""Average precision against pycocotools, against hand-computed figures, and at the edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.average_precision import ALL_IOUS, COCO_IOUS, LOOSE_IOUS, Matches, match
from weakray.boxes.geometry import xywh_to_xyxy
from weakray.coco import BoxTruth, Predictions
from weakray.detections import Detections
from weakray.errors import DataError

BOX = [10.0, 20.0, 40.0, 80.0]  # 30 wide, 60 high
ELSEWHERE = [100.0, 5.0, 130.0, 50.0]


def detections(*rows: tuple[Sequence[float], int, float]) -> Detections:
    boxes, classes, scores = zip(*rows, strict=True)
    return Detections(np.array(boxes), np.array(classes), np.array(scores))


def truth_of(boxes: dict[str, Detections], n_classes: int = 1) -> BoxTruth:
    return BoxTruth(boxes, frozenset((image_id, k) for image_id in boxes for k in range(n_classes)))


def test_thresholds_are_those_of_the_published_figures() -> None:
    assert LOOSE_IOUS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert np.array_equal(COCO_IOUS, np.linspace(0.5, 0.95, 10))
    assert len(ALL_IOUS) == 14


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools(seed: int, make_world: Callable[..., Any], referee: Callable[..., Any]) -> None:
    predictions, truth = make_world(seed, n_images=(1, 3, 9)[seed % 3])
    ours = match(predictions, truth, 3).average_precision()
    np.testing.assert_allclose(ours, referee(predictions, truth, 3, ALL_IOUS), rtol=0, atol=1e-9)


def test_equals_pycocotools_on_more_than_a_hundred_boxes_a_class(
    make_world: Callable[..., Any], referee: Callable[..., Any]
) -> None:
    predictions, truth = make_world(5, n_images=4, n_classes=2, extra=300)
    ours = match(predictions, truth, 2)
    assert max(np.bincount(found.image).max() for found in ours.classes) == 100
    np.testing.assert_allclose(ours.average_precision(), referee(predictions, truth, 2, ALL_IOUS), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_on_equal_scores_in_the_same_order(
    seed: int, make_world: Callable[..., Any], referee: Callable[..., Any]
) -> None:
    predictions, truth = make_world(seed, score_decimals=1)
    ours = match(predictions, truth, 3).average_precision()
    np.testing.assert_allclose(ours, referee(predictions, truth, 3, ALL_IOUS), rtol=0, atol=1e-9)


# Few distinct corners and scores: equal overlaps, equal scores, IoUs that meet a threshold exactly.
CORNERS = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 4), st.integers(1, 3))
IMAGE = st.tuples(
    st.lists(CORNERS, max_size=4), st.lists(st.tuples(CORNERS, st.sampled_from([0.25, 0.5, 0.75])), max_size=6)
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(images=st.lists(IMAGE, min_size=1, max_size=3))
def test_equals_pycocotools_on_coarse_grids(images: list[Any], referee: Callable[..., Any]) -> None:
    boxes, predictions = {}, {}
    for i, (true, found) in enumerate(images):
        corners = xywh_to_xyxy(np.array(true, np.float32)) if true else np.zeros((0, 4))
        boxes[f"i{i}"] = Detections(corners, np.zeros(len(true), np.int64), np.ones(len(true)))
        if found:
            corners = xywh_to_xyxy(np.array([box for box, _ in found], np.float32))
            scores = np.array([score for _, score in found])
            predictions[f"i{i}"] = Detections(corners, np.zeros(len(found), np.int64), scores)
    truth = truth_of(boxes)
    ours = match(predictions, truth, 1).average_precision()
    np.testing.assert_allclose(ours, referee(predictions, truth, 1, ALL_IOUS), rtol=0, atol=1e-9)


def test_two_images_by_hand() -> None:
    truth = truth_of({"a": detections((BOX, 0, 1)), "b": detections((BOX, 0, 1))})
    predictions = {"a": detections((BOX, 0, 0.9)), "b": detections((ELSEWHERE, 0, 0.8), (BOX, 0, 0.7))}
    # Ranks: hit, miss, hit. Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: 51 recall points at 1, 50 at 2/3.
    precision = match(predictions, truth, 1, ious=[0.5]).average_precision()
    assert precision.shape == (1, 1)
    assert precision[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    assert precision[0, 0] == pytest.approx(0.8349834983498350, abs=1e-12)


def test_a_box_missed_by_hand() -> None:
    truth = truth_of({"a": detections((BOX, 0, 1)), "b": detections((BOX, 0, 1))})
    # Recall ends at 1/2: 51 of the 101 recall points are reached, all at precision 1.
    assert match({"a": detections((BOX, 0, 0.9))}, truth, 1).average_precision()[0] == pytest.approx(51 / 101)


def test_a_shifted_box_hits_up_to_its_iou_by_hand() -> None:
    truth = truth_of({"a": detections(([0, 0, 30, 10], 0, 1))})
    # Shifted by 10 of 30: shared 20, union 40, IoU exactly 1/2.
    matches = match({"a": detections(([10, 0, 40, 10], 0, 0.3))}, truth, 1, ious=[0.4, 0.5, 0.51])
    assert matches.average_precision().tolist() == [[1.0, 1.0, 0.0]]


def test_of_equal_overlaps_the_last_true_box_is_taken(referee: Callable[..., Any]) -> None:
    left, right, between = [0, 0, 10, 10], [10, 0, 20, 10], [5, 0, 15, 10]  # `between` overlaps each by 1/3
    truth = truth_of({"a": detections((left, 0, 1), (right, 0, 1))})
    predictions = {"a": detections((between, 0, 0.9), (right, 0, 0.8), (left, 0, 0.7))}
    matches = match(predictions, truth, 1, ious=[0.3])
    assert matches.classes[0].hit.tolist() == [[True, False, True]]
    np.testing.assert_allclose(matches.average_precision(), referee(predictions, truth, 1, [0.3]), rtol=0, atol=1e-9)


def test_an_iou_of_one_may_be_a_rounding_less(referee: Callable[..., Any]) -> None:
    truth = truth_of({"a": detections(([0, 0, 1, 2], 0, 1))})
    predictions = {"a": detections(([1e-12, 0, 1, 2], 0, 0.9))}
    assert match(predictions, truth, 1, ious=[1.0]).average_precision() == 1
    assert referee(predictions, truth, 1, [1.0]) == pytest.approx(1)


def test_a_second_box_on_the_same_finding_is_a_false_one() -> None:
    truth = truth_of({"a": detections((BOX, 0, 1), (ELSEWHERE, 0, 1))})
    predictions = {"a": detections((BOX, 0, 0.9), (BOX, 0, 0.8), (ELSEWHERE, 0, 0.7))}
    matches = match(predictions, truth, 1, ious=[0.5])
    assert matches.classes[0].hit.tolist() == [[True, False, True]]


@pytest.mark.parametrize(("reading", "expected"), [("xyxy", 0.0), ("xywh", 1.0), ("cxcywh", 0.0)])
def test_one_box_in_three_formats_only_one_scores(reading: str, expected: float) -> None:
    numbers = np.array([[60.0, 50.0, 70.0, 90.0]])  # the file means left, top, width, height
    low, size = numbers[:, :2], numbers[:, 2:]
    read = {
        "xyxy": numbers,
        "xywh": np.concatenate([low, low + size], axis=1),
        "cxcywh": np.concatenate([low - size / 2, low + size / 2], axis=1),
    }[reading]
    truth = truth_of({"a": detections(([60, 50, 130, 140], 0, 1))})
    assert (
        match({"a": Detections(read, np.zeros(1, np.int64), np.ones(1))}, truth, 1, ious=[0.5]).average_precision()
        == expected
    )


def test_equal_scores_rank_in_the_truths_order_which_is_luck(referee: Callable[..., Any]) -> None:
    hit, miss = detections((BOX, 0, 0.5)), detections((ELSEWHERE, 0, 0.5))
    nothing, one = Detections.empty(), detections((BOX, 0, 1))
    lucky, unlucky = truth_of({"a": one, "b": nothing}), truth_of({"b": nothing, "a": one})
    predictions = {"a": hit, "b": miss}
    for truth, expected in ((lucky, 1.0), (unlucky, 0.5)):
        assert match(predictions, truth, 1, ious=[0.5]).average_precision() == pytest.approx(expected)
        assert referee(predictions, truth, 1, [0.5]) == pytest.approx(expected)
        shuffled = dict(reversed(predictions.items()))  # the order of the predictions says nothing
        assert match(shuffled, truth, 1, ious=[0.5]).average_precision() == pytest.approx(expected)


def test_the_first_annotation_counts_unlike_id_zero_in_pycocotools(referee: Callable[..., Any]) -> None:
    truth = truth_of({"0": detections((BOX, 0, 1))})
    predictions = {"0": detections((BOX, 0, 0.9))}
    assert referee(predictions, truth, 1, [0.5], first_annotation_id=0) == 0  # the trap
    assert match(predictions, truth, 1, ious=[0.5]).average_precision() == 1


def test_only_annotated_pairs_count_and_the_rest_is_counted() -> None:
    boxes = {"a": detections((BOX, 0, 1)), "b": Detections.empty()}
    truth = BoxTruth(boxes, frozenset({("a", 0), ("b", 1)}))
    # The better-scored boxes stand where nobody looked: class 0 on "b", class 1 on "a".
    predictions = {"a": detections((BOX, 0, 0.2), (BOX, 1, 0.9)), "b": detections((BOX, 0, 0.9))}
    matches = match(predictions, truth, 2, ious=[0.5])
    assert matches.average_precision()[0] == 1
    assert (matches.ignored_predictions, matches.ignored_truth) == (2, 0)
    outside = match(predictions, BoxTruth(boxes, frozenset({("b", 0)})), 2, ious=[0.5])
    assert (outside.ignored_predictions, outside.ignored_truth) == (2, 1)
    assert np.isnan(outside.average_precision()).all()


@pytest.mark.parametrize(("better", "expected"), [(99, 1 / 100), (100, 0.0)])
def test_only_the_best_hundred_boxes_of_an_image_count(better: int, expected: float) -> None:
    rows = [(ELSEWHERE, 0, 0.9)] * better + [(BOX, 0, 0.1)]
    found = match({"a": detections(*rows)}, truth_of({"a": detections((BOX, 0, 1))}), 1, ious=[0.5])
    assert found.average_precision() == pytest.approx(expected)


def test_no_predictions_score_zero_and_no_truth_is_undefined() -> None:
    truth = truth_of({"a": detections((BOX, 1, 1))}, n_classes=2)
    for nothing in ({}, {"a": Detections.empty()}):
        precision = match(nothing, truth, 2).average_precision()
        assert np.isnan(precision[0]).all()
        assert (precision[1] == 0).all()
    assert np.isnan(
        match({"a": detections((BOX, 0, 1))}, truth_of({"a": Detections.empty()}), 1).average_precision()
    ).all()
    assert match({}, BoxTruth(), 3).average_precision().shape == (3, 14)
    assert match({}, BoxTruth(), 0).average_precision().shape == (0, 14)


def test_images_annotated_without_boxes_may_be_absent_from_the_boxes() -> None:
    truth = BoxTruth({"b": detections((BOX, 0, 1))}, frozenset({("b", 0), ("c", 0), ("a", 0)}))
    matches = match({"a": detections((BOX, 0, 0.9)), "b": detections((BOX, 0, 0.8))}, truth, 1, ious=[0.5])
    assert matches.image_ids == ["b", "a", "c"]
    assert matches.average_precision() == pytest.approx(0.5)


def duplicated(predictions: Predictions, truth: BoxTruth, weights: dict[str, int]) -> Matches:
    copies = {image_id: [f"{image_id}#{i}" for i in range(n)] for image_id, n in weights.items()}
    return match(
        {copy: found for image_id, found in predictions.items() for copy in copies[image_id]},
        BoxTruth(
            {copy: found for image_id, found in truth.boxes.items() for copy in copies[image_id]},
            frozenset((copy, k) for image_id, k in truth.annotated for copy in copies[image_id]),
        ),
        3,
    )


@pytest.mark.parametrize("seed", range(6))
def test_weights_equal_physical_copies(seed: int, make_world: Callable[..., Any]) -> None:
    predictions, truth = make_world(seed)
    matches = match(predictions, truth, 3)
    weights = np.random.default_rng(seed).integers(0, 4, len(matches.image_ids))
    physical = duplicated(predictions, truth, dict(zip(matches.image_ids, weights.tolist(), strict=True)))
    weighted = matches.average_precision(weights)
    np.testing.assert_allclose(weighted, physical.average_precision(), rtol=0, atol=1e-12)
    assert not np.allclose(np.nan_to_num(weighted), np.nan_to_num(matches.average_precision()))


def test_a_class_whose_positives_are_not_drawn_is_undefined() -> None:
    truth = truth_of({"a": detections((BOX, 0, 1)), "b": Detections.empty()})
    matches = match({"a": detections((BOX, 0, 0.9)), "b": detections((BOX, 0, 0.8))}, truth, 1, ious=[0.5])
    assert matches.average_precision([3, 0]) == 1
    assert np.isnan(matches.average_precision([0, 3])).all()


def test_many_weightings_equal_one_at_a_time(make_world: Callable[..., Any]) -> None:
    predictions, truth = make_world(3)
    matches = match(predictions, truth, 3)
    weights = np.random.default_rng(0).integers(0, 3, (131, len(matches.image_ids)))  # more than one batch
    together = matches.average_precisions(weights)
    assert together.shape == (131, 3, 14)
    for draw in (0, 127, 128, 130):
        alone = matches.average_precision(weights[draw])
        np.testing.assert_allclose(together[draw], alone, rtol=0, atol=1e-14)


def test_mistakes_are_named() -> None:
    truth = truth_of({"a": detections((BOX, 0, 1)), "b": Detections.empty()})
    with pytest.raises(DataError, match=r"1 predicted images are not in the truth, e.g. 'z'; keep the predictions"):
        match({"z": detections((BOX, 0, 1))}, truth, 1)
    with pytest.raises(DataError, match="expected class ids below 1, got 4"):
        match({"a": detections((BOX, 4, 1))}, truth, 1)
    with pytest.raises(DataError, match="annotated: expected class ids below 1, got 2 for image 'a'"):
        match({}, BoxTruth({}, frozenset({("a", 2)})), 1)
    with pytest.raises(ValueError, match=r"expected thresholds in \(0, 1\]"):
        match({}, truth, 1, ious=[0.0])
    with pytest.raises(ValueError, match=r"expected thresholds in \(0, 1\]"):
        match({}, truth, 1, ious=[])
    matches = match({}, truth, 1, ious=[0.5])
    with pytest.raises(ValueError, match=r"expected shape \(n_draws, 2\), got \(1, 3\)"):
        matches.average_precision([1, 1, 1])
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got \(1, 2\)"):
        matches.average_precision([[1, 1]])
    with pytest.raises(ValueError, match="expected whole numbers >= 0"):
        matches.average_precision([0.5, 1])
    with pytest.raises(ValueError, match="expected whole numbers >= 0"):
        matches.average_precision([-1, 1])
    with pytest.raises(ValueError, match=r"expected an IoU among \(0.5,\), got 0.3"):
        matches.columns([0.3])
