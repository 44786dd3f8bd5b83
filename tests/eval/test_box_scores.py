"""Scores in the form of `summary.json`, comparisons on the same draws, and the recovered fraction."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eval.average_precision import COCO_IOUS, match
from eval.box_scores import compare_boxes, recovered_fraction, score_boxes, score_matches, threshold_table
from eval.intervals import PatientDraws
from weakray.coco import BoxTruth
from weakray.detections import Detections
from weakray.errors import DataError

NAMES = ["Nodule", "Mass", "Effusion"]
WIDE = [0.0, 0.0, 30.0, 10.0]
SHIFTED = [10.0, 0.0, 40.0, 10.0]  # IoU with WIDE: 20 / 40 = 1/2


def one(box: list[float], class_id: int, score: float = 1.0) -> Detections:
    return Detections(np.array([box]), np.array([class_id]), np.array([score]))


@pytest.fixture
def by_hand() -> tuple[dict[str, Detections], BoxTruth, dict[str, str]]:
    """Nodule found exactly, Mass found at an IoU of 1/2, no Effusion anywhere."""
    boxes = {"a": one(WIDE, 0), "b": one(WIDE, 1), "c": Detections.empty()}
    truth = BoxTruth(boxes, frozenset((image_id, k) for image_id in boxes for k in range(3)))
    predictions = {"a": one(WIDE, 0, 0.9), "b": one(SHIFTED, 1, 0.8), "c": one(WIDE, 2, 0.7)}
    return predictions, truth, {"a": "p", "b": "q", "c": "q"}


def test_scores_by_hand(by_hand: Any) -> None:
    predictions, truth, patient_of = by_hand
    scores = score_boxes(predictions, truth, patient_of, NAMES, draws=50)
    assert json.loads(json.dumps(scores)) == scores
    assert list(scores) == ["ap30", "ap50", "map", "per_finding"]
    # Mass reaches only the first of the ten thresholds 0.5 ... 0.95; without a true box there is no Effusion.
    assert scores["per_finding"] == {
        "Nodule": {"ap30": 1.0, "ap50": 1.0, "map": 1.0, "positives": 1},
        "Mass": {"ap30": 1.0, "ap50": 1.0, "map": pytest.approx(0.1), "positives": 1},
    }
    assert scores["ap30"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    # Drawn are p p, p q or q q: map is 1, the mean 0.55, or 0.1.
    assert scores["map"] == {"value": pytest.approx(0.55), "low": pytest.approx(0.1), "high": pytest.approx(1.0)}


def test_the_macro_goes_over_findings_with_a_true_box(make_world: Callable[..., Any]) -> None:
    predictions, truth = make_world(2, n_images=12)
    scores = score_boxes(predictions, truth, {i: i for i in truth.boxes}, [*NAMES, "Never seen"], draws=40)
    assert "Never seen" not in scores["per_finding"]
    precision = match(predictions, truth, 3).average_precision()
    for metric, ious in (("ap30", [0.3]), ("ap50", [0.5]), ("map", COCO_IOUS)):
        columns = match(predictions, truth, 3, ious=ious).average_precision()
        assert scores[metric]["value"] == pytest.approx(np.nanmean(columns))
        assert 0 <= scores[metric]["low"] <= scores[metric]["high"] <= 1
        assert scores[metric]["low"] < scores[metric]["high"]
    assert [entry["ap30"] for entry in scores["per_finding"].values()] == pytest.approx(precision[:, 2].tolist())


def test_intervals_are_those_of_images_repeated_by_hand(make_world: Callable[..., Any]) -> None:
    predictions, truth = make_world(4, n_images=9)
    matches = match(predictions, truth, 3)
    drawn = PatientDraws.of(matches.image_ids, {i: i for i in matches.image_ids}, 20, seed=5)
    ap50 = drawn.values(
        lambda weights: float(np.nanmean(matches.average_precision(weights)[:, matches.columns([0.5])]))
    )
    scores = score_matches(matches, {i: i for i in matches.image_ids}, NAMES, draws=20, seed=5)
    assert scores["ap50"]["low"] == pytest.approx(np.percentile(ap50, 2.5))
    assert scores["ap50"]["high"] == pytest.approx(np.percentile(ap50, 97.5))
    assert scores == score_matches(matches, {i: i for i in matches.image_ids}, NAMES, draws=20, seed=5)
    assert scores != score_matches(matches, {i: i for i in matches.image_ids}, NAMES, draws=20, seed=6)


def test_the_recovered_fraction_is_paired(make_world: Callable[..., Any]) -> None:
    ceiling, truth = make_world(6, n_images=30)
    patient_of = {i: i for i in truth.boxes}
    same = match(ceiling, truth, 3)
    assert recovered_fraction(same, same, patient_of, draws=60) == {"value": 1.0, "low": 1.0, "high": 1.0}
    kept = {image_id: found for i, (image_id, found) in enumerate(ceiling.items()) if i % 2}
    weak = match(kept, truth, 3)
    fraction = recovered_fraction(weak, same, patient_of, draws=60)
    assert fraction is not None
    ap50 = [float(np.nanmean(m.average_precision()[:, m.columns([0.5])])) for m in (weak, same)]
    assert fraction["value"] == pytest.approx(ap50[0] / ap50[1])
    assert 0 < fraction["low"] < fraction["value"] < fraction["high"]
    # By hand, on the same draws.
    drawn = PatientDraws.of(same.image_ids, patient_of, 60)
    weights = np.concatenate(list(drawn.chunks()))
    both = [np.nanmean(m.average_precisions(weights)[:, :, m.columns([0.5])[0]], axis=1) for m in (weak, same)]
    expected = np.percentile(both[0] / both[1], [2.5, 97.5])
    assert [fraction["low"], fraction["high"]] == pytest.approx(expected.tolist())


def test_nothing_is_recovered_from_a_ceiling_of_zero(by_hand: Any) -> None:
    predictions, truth, patient_of = by_hand
    assert recovered_fraction(match(predictions, truth, 3), match({}, truth, 3), patient_of, draws=20) is None


def test_two_sources_are_told_apart_or_tie(make_world: Callable[..., Any]) -> None:
    predictions, truth = make_world(6, n_images=30)
    drawn = PatientDraws.of(list(truth.boxes), {i: i for i in truth.boxes}, 60)
    full, none = match(predictions, truth, 3), match({}, truth, 3)
    assert not compare_boxes(full, none, drawn, "ap30").tie
    assert compare_boxes(full, full, drawn, "map").tie


def test_the_table_holds_every_threshold_and_the_findings_without_a_box(by_hand: Any) -> None:
    predictions, truth, _ = by_hand
    table = threshold_table(match(predictions, truth, 3), NAMES)
    assert list(table.index) == [*NAMES, "macro"]
    assert list(table.columns[:3]) == ["positives", "AP10", "AP20"]
    assert table.columns[-1] == "AP95"
    assert table["positives"].tolist() == [1, 1, 0, 2]
    assert table["AP50"].tolist()[:2] == [1.0, 1.0]
    assert table.loc["macro", "AP55"] == pytest.approx(0.5)
    assert table.loc["Effusion"].isna().sum() == 14


def test_mistakes_are_named(by_hand: Any) -> None:
    predictions, truth, patient_of = by_hand
    bare = BoxTruth({"a": Detections.empty()}, frozenset({("a", 0)}))
    with pytest.raises(DataError, match="expected a true box of at least one finding"):
        score_boxes({}, bare, patient_of, NAMES, draws=5)
    with pytest.raises(DataError, match="3 images have no patient, e.g. 'a'"):
        score_boxes(predictions, truth, {}, NAMES, draws=5)
    with pytest.raises(DataError, match="expected both sources matched with the same truth"):
        recovered_fraction(match(predictions, truth, 3), match({}, bare, 3), patient_of, draws=5)
    moved = BoxTruth({**truth.boxes, "c": one(WIDE, 1)}, truth.annotated)
    with pytest.raises(DataError, match="expected both sources matched with the same truth"):
        recovered_fraction(match(predictions, truth, 3), match({}, moved, 3), patient_of, draws=5)
