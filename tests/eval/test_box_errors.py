"""The error split by hand, and against average precision of boxes that were mended one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eval.average_precision import match
from eval.box_errors import ERROR_TYPES, ErrorSplit, ErrorType, error_table, score_errors, split_errors
from tests.eval.conftest import World
from weakray.coco import BoxTruth, Predictions
from weakray.detections import Detections

NAMES = ["Nodule", "Mass", "Effusion"]
WIDE = [0.0, 0.0, 30.0, 10.0]
HALF = [10.0, 0.0, 40.0, 10.0]  # IoU with WIDE: 20 / 40 = 1/2
NEAR = [20.0, 0.0, 50.0, 10.0]  # 10 / 50 = 1/5
EDGE = [27.0, 0.0, 30.0, 10.0]  # 3 / 30 = 1/10
APART = [60.0, 20.0, 80.0, 60.0]


def boxes(*rows: tuple[Any, int, float]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    )


def truth_of(**images: list[tuple[list[float], int]]) -> BoxTruth:
    """Every (image, class) pair is annotated."""
    found = {
        i: boxes(*((box, k, 1.0) for box, k in rows)) if rows else Detections.empty() for i, rows in images.items()
    }
    return BoxTruth(found, frozenset((image_id, k) for image_id in images for k in range(3)))


def gains_of(split: ErrorSplit) -> dict[str, dict[int, float]]:
    """The gains that are not 0: type → class → dAP50."""
    whole = split.gains(np.ones((1, len(split.as_found.image_ids))))
    table = {kind: {k: v for k, v in enumerate(values[0].tolist()) if abs(v) > 1e-12} for kind, values in whole.items()}
    known = {kind: {k: v for k, v in row.items() if not np.isnan(v)} for kind, row in table.items()}
    return {kind: row for kind, row in known.items() if row}


def counts_of(split: ErrorSplit) -> dict[str, list[int]]:
    return {kind: values.tolist() for kind, values in split.counts.items() if values.any()}


# Two true boxes found by the first and the last of three boxes: precision is 1 up to a recall of 1/2 (51 of 101
# recall points) and 2/3 after. Without the box between them it is 1 throughout.
LOST_TO_ONE_FALSE_BOX = 50 / 101 / 3


def test_a_box_that_lies_badly() -> None:
    split = split_errors({"a": boxes((NEAR, 0, 0.9))}, truth_of(a=[(WIDE, 0)]), 3)
    assert counts_of(split) == {"location": [1, 0, 0]}
    assert gains_of(split) == {"location": {0: 1.0}}


@pytest.mark.parametrize(("box", "kind"), [(EDGE, "location"), ([28.0, 0.0, 30.0, 10.0], "background")])
def test_a_tenth_of_overlap_is_near(box: list[float], kind: str) -> None:
    split = split_errors({"a": boxes((box, 0, 0.9))}, truth_of(a=[(WIDE, 0)]), 3)
    assert counts_of(split)[kind] == [1, 0, 0]


def test_a_box_of_the_wrong_finding_costs_both() -> None:
    truth = truth_of(a=[(WIDE, 0)], b=[(APART, 1)])
    split = split_errors({"a": boxes((HALF, 1, 0.9)), "b": boxes((APART, 1, 0.8))}, truth, 3)
    assert counts_of(split) == {"class": [0, 1, 0]}  # Mass has a false box; the Nodule under it is not missed
    # Nodule is not found at all; Mass has a false box before its true one: precision 1/2 at every recall.
    assert gains_of(split) == {"class": {0: 1.0, 1: 0.5}}


def test_a_second_box_on_the_same_spot() -> None:
    truth = truth_of(a=[(WIDE, 0)], b=[(WIDE, 0)])
    split = split_errors({"a": boxes((WIDE, 0, 0.9), (HALF, 0, 0.8)), "b": boxes((WIDE, 0, 0.7))}, truth, 3)
    assert counts_of(split) == {"duplicate": [1, 0, 0]}
    assert gains_of(split) == {"duplicate": {0: pytest.approx(LOST_TO_ONE_FALSE_BOX)}}


def test_a_box_on_nothing() -> None:
    truth = truth_of(a=[(WIDE, 0)], b=[(WIDE, 0)], c=[])
    predictions = {"a": boxes((WIDE, 0, 0.9)), "b": boxes((WIDE, 0, 0.7)), "c": boxes((NEAR, 0, 0.8))}
    split = split_errors(predictions, truth, 3)
    assert counts_of(split) == {"background": [1, 0, 0]}
    assert gains_of(split) == {"background": {0: pytest.approx(LOST_TO_ONE_FALSE_BOX)}}


def test_a_box_that_is_wrong_in_both() -> None:
    truth = truth_of(a=[(WIDE, 0)], b=[(WIDE, 0)], c=[(WIDE, 1)])
    predictions = {"a": boxes((WIDE, 0, 0.9)), "b": boxes((WIDE, 0, 0.7)), "c": boxes((NEAR, 0, 0.8), (WIDE, 1, 0.5))}
    split = split_errors(predictions, truth, 3)
    assert counts_of(split) == {"both": [1, 0, 0]}
    assert gains_of(split) == {"both": {0: pytest.approx(LOST_TO_ONE_FALSE_BOX)}}


def test_a_true_box_that_nothing_is_about() -> None:
    split = split_errors({"a": boxes((WIDE, 0, 0.9))}, truth_of(a=[(WIDE, 0)], b=[(WIDE, 0)]), 3)
    assert counts_of(split) == {"missed": [1, 0, 0]}
    assert gains_of(split) == {"missed": {0: pytest.approx(50 / 101)}}


def test_a_finding_missed_throughout_gains_all() -> None:
    split = split_errors({}, truth_of(a=[(WIDE, 0)], b=[]), 3)
    assert gains_of(split) == {"missed": {0: 1.0}}
    noisy = split_errors({"b": boxes((WIDE, 0, 0.9))}, truth_of(a=[(WIDE, 0)], b=[]), 3)
    assert gains_of(noisy) == {"missed": {0: 1.0}}  # without the box on nothing, there is still no true one


@pytest.mark.parametrize("score", [0.9, 0.5])
def test_of_two_boxes_for_one_true_box_the_better_stays(score: float) -> None:
    """A badly placed box beside the right one: mended it may not count twice, wherever it ranks."""
    truth = truth_of(a=[(WIDE, 0)], b=[(APART, 0)])
    predictions = {"a": boxes((WIDE, 0, 0.7), (NEAR, 0, score)), "b": boxes((APART, 0, 0.6))}
    split = split_errors(predictions, truth, 3)
    assert counts_of(split) == {"location": [1, 0, 0]}
    mended = split.mended["location"].classes[0]
    assert mended.hit.tolist() == [[True, True]]
    np.testing.assert_allclose(mended.score, [max(0.7, score), 0.6])
    # Before: false, true, true gives 2/3 throughout; true, true, false gives 1.
    assert gains_of(split) == ({"location": {0: pytest.approx(1 / 3)}} if score == 0.9 else {})


def test_a_box_on_two_findings_at_once_is_right_for_its_own() -> None:
    split = split_errors({"a": boxes((WIDE, 0, 0.9))}, truth_of(a=[(WIDE, 0), (WIDE, 1)]), 3)
    assert counts_of(split) == {"missed": [0, 1, 0]}


def test_pairs_that_nobody_annotated_are_no_errors() -> None:
    whole = truth_of(a=[(WIDE, 0), (APART, 1)])
    truth = BoxTruth(whole.boxes, frozenset({("a", 0)}))
    predictions = {"a": boxes((WIDE, 0, 0.9), (APART, 0, 0.8), (WIDE, 1, 0.7), (APART, 2, 0.6))}
    split = split_errors(predictions, truth, 3)
    # The Nodule on the Mass is on nothing, for Mass was not looked for; boxes of Mass and Effusion are left out.
    assert counts_of(split) == {"background": [1, 0, 0]}
    assert split.as_found.ignored_predictions == 2


def test_the_split_of_all_types_in_one_image() -> None:
    truth = truth_of(a=[(WIDE, 0), (APART, 1), ([0.0, 40.0, 20.0, 70.0], 2)])
    found = boxes(
        (WIDE, 0, 0.9),  # right
        (HALF, 0, 0.8),  # duplicate
        ([66.0, 20.0, 86.0, 60.0], 0, 0.7),  # 14/26 of the Mass: class
        ([70.0, 20.0, 90.0, 60.0], 1, 0.6),  # 1/3 of the Mass: location
        ([75.0, 20.0, 95.0, 60.0], 0, 0.5),  # 1/7 of the Mass: both
        ([0.0, 100.0, 9.0, 130.0], 1, 0.4),  # background
    )
    split = split_errors({"a": found}, truth, 3)
    assert counts_of(split) == {
        "class": [1, 0, 0],
        "location": [0, 1, 0],
        "both": [1, 0, 0],
        "duplicate": [1, 0, 0],
        "background": [0, 1, 0],
        "missed": [0, 0, 1],
    }


def without(kind: ErrorType, predictions: Predictions, split: ErrorSplit) -> Predictions:
    """The predictions less the boxes that mending one type takes away; scores are all different."""
    kept = {
        (split.as_found.image_ids[row], k, score)
        for k, found in enumerate(split.mended[kind].classes)
        for row, score in zip(found.image.tolist(), found.score.tolist(), strict=True)
    }
    return {
        image_id: found.where(
            np.array(
                [
                    (image_id, k, score) in kept
                    for k, score in zip(found.class_id.tolist(), found.score.tolist(), strict=True)
                ],
                dtype=bool,
            )
        )
        for image_id, found in predictions.items()
    }


@pytest.mark.parametrize("kind", ["both", "duplicate", "background"])
def test_gains_are_those_of_boxes_taken_away(make_world: Callable[..., World], kind: ErrorType) -> None:
    predictions, truth = make_world(3, n_images=9)
    split = split_errors(predictions, truth, 3)
    assert split.counts[kind].sum() > 0
    fewer = without(kind, predictions, split)
    assert sum(map(len, fewer.values())) < sum(map(len, predictions.values()))
    before, after = (match(found, truth, 3, (0.5,)).average_precision()[:, 0] for found in (predictions, fewer))
    np.testing.assert_allclose(split.gains(np.ones((1, 9)))[kind][0], after - before, atol=1e-12)


def test_gains_are_those_of_boxes_mended_in_place() -> None:
    """Moved onto their true boxes, or given their findings, as boxes; true boxes far from one another."""
    rng = np.random.default_rng(7)
    places = [[0, 0, 30, 10], [60, 20, 80, 60], [0, 40, 20, 70]]
    true: dict[str, Any] = {}
    asis: dict[str, Any] = {}
    moved: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for number in range(12):
        classes = rng.permutation(3)
        rows = [(np.array(place, float), int(k), 1.0) for place, k in zip(places, classes, strict=True)]
        true[f"i{number}"] = boxes(*rows)
        made: list[list[Any]] = [[], [], []]
        for box, k, _ in rows:
            score = float(rng.random())
            shift = np.array([0.6, 0, 0.6, 0]) * (box[2] - box[0])  # IoU 0.4 / 1.6 = 1/4
            fault = rng.integers(0, 3)
            made[0].append((box + shift * (fault == 1), int((k + (fault == 2)) % 3), score))
            made[1].append((box, made[0][-1][1], score))
            made[2].append((made[0][-1][0], k, score))
        for into, found in zip((asis, moved, named), made, strict=True):
            into[f"i{number}"] = boxes(*found)
    truth = BoxTruth(true, frozenset((i, k) for i in true for k in range(3)))
    split = split_errors(asis, truth, 3)
    before = match(asis, truth, 3, (0.5,)).average_precision()[:, 0]
    ways: dict[ErrorType, Predictions] = {"location": moved, "class": named}
    for kind, mended in ways.items():
        assert split.counts[kind].sum() > 5
        after = match(mended, truth, 3, (0.5,)).average_precision()[:, 0]
        np.testing.assert_allclose(split.gains(np.ones((1, 12)))[kind][0], after - before, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_false_box_has_one_type_and_no_mending_harms(make_world: Callable[..., World], seed: int) -> None:
    predictions, truth = make_world(seed, n_images=9)
    split, matches = split_errors(predictions, truth, 3), match(predictions, truth, 3, (0.5,))
    np.testing.assert_array_equal(split.as_found.average_precision(), matches.average_precision())
    false = [int((~found.hit[0]).sum()) for found in matches.classes]
    assert np.sum([split.counts[kind] for kind in ERROR_TYPES if kind != "missed"], axis=0).tolist() == false
    for gain in split.gains(np.ones((1, 9))).values():
        assert (gain >= -1e-12).all()


def test_scores_hold_intervals_findings_and_counts() -> None:
    truth = truth_of(a=[(WIDE, 0)], b=[(WIDE, 0)], c=[(APART, 1)])
    predictions = {"a": boxes((WIDE, 0, 0.9)), "c": boxes((APART, 1, 0.8), (WIDE, 0, 0.95))}
    errors = score_errors(split_errors(predictions, truth, 3), {"a": "p", "b": "q", "c": "r"}, NAMES, draws=60, seed=1)
    assert json.loads(json.dumps(errors)) == errors
    assert list(errors) == [*ERROR_TYPES, "per_finding", "boxes"]
    assert errors["boxes"] == {"class": 0, "location": 0, "both": 0, "duplicate": 0, "background": 1, "missed": 1}
    # Nodule: false, true, of two: 1/2 up to a recall of 1/2. Without the false box 1; without the missed one 1/2.
    assert errors["per_finding"]["Nodule"]["background"] == pytest.approx(51 / 101 / 2)
    assert errors["per_finding"]["Nodule"]["missed"] == pytest.approx(50 / 101 / 2)
    assert list(errors["per_finding"]) == ["Nodule", "Mass"]
    assert errors["missed"]["value"] == pytest.approx(25 / 101 / 2)
    assert errors["missed"]["low"] == 0 < errors["missed"]["high"]
    table = error_table(errors)
    assert list(table.index) == ["Nodule", "Mass", "macro"]
    assert table.loc["macro", "missed"] == errors["missed"]["value"]
