"""Score cut-offs chosen on tune."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.cutoffs import IOU_AT_LEAST, choose_cutoffs, keep_above, matches, matching_counts
from tests.detect.conftest import found_boxes
from weakray.coco import BoxTruth
from weakray.detections import Detections

TRUE = found_boxes([(0, 0, 10, 20)], [0], [1.0])
HIT, MISS = (0, 0, 10, 18), (40, 40, 60, 50)


def test_cutoff_of_highest_f1_by_hand() -> None:
    # scores .9 hit, .6 miss, .5 hit, .2 miss, two true boxes: F1 after each 2/3, 2/4, 4/5, 4/6 → cut between .5 and .2
    predictions = {
        "a": found_boxes([HIT, MISS], [0, 0], [0.9, 0.6]),
        "b": found_boxes([HIT, MISS], [0, 0], [0.5, 0.2]),
    }
    truth = BoxTruth({"a": TRUE, "b": TRUE}, frozenset({("a", 0), ("b", 0)}))
    assert choose_cutoffs(predictions, truth, 1) == pytest.approx([0.35])


def test_a_class_of_low_f1_keeps_no_box() -> None:
    predictions = {"a": found_boxes([HIT, MISS, MISS], [0, 0, 1], [0.5, 0.9, 0.8])}
    truth = BoxTruth({"a": Detections.concat([TRUE, found_boxes([HIT], [1], [1.0])])}, frozenset({("a", 0), ("a", 1)}))
    # class 0: F1 2·1/(2+1) = .67; class 1 has no hit
    assert choose_cutoffs(predictions, truth, 2, least_f1=0.6) == [0.0, math.inf]
    assert choose_cutoffs(predictions, truth, 2, least_f1=0.7) == [math.inf, math.inf]
    assert choose_cutoffs(predictions, truth, 2)[0] == 0.0


def test_equal_scores_are_kept_or_dropped_together() -> None:
    # both boxes at .5: keeping them gives 2·1/(2+1) whichever stands first, and the .9 miss cannot be told from them
    predictions = {"a": found_boxes([MISS, HIT], [0, 0], [0.5, 0.5])}
    assert choose_cutoffs(predictions, BoxTruth({"a": TRUE}, frozenset({("a", 0)})), 1) == [0.0]


def test_matching_counts_by_hand() -> None:
    two = found_boxes([(0, 0, 10, 20), (20, 0, 40, 20), (0, 30, 9, 40)], [0, 0, 1], [1.0, 1.0, 1.0])
    truth = BoxTruth({"a": two, "b": TRUE, "c": Detections.empty()}, frozenset())  # class 0: 3 boxes on 2 images
    predictions = {
        "d": found_boxes([MISS] * 4, [0, 0, 1, 2], [0.9, 0.8, 0.7, 0.6]),
        "e": found_boxes([MISS] * 3, [0, 0, 2], [0.4, 0.3, 0.5]),
    }
    # class 0: 1.5 · 2 images = 3 boxes → .4; class 1: 1 · 3 = 3 of 1 box → all; class 2 has no true box: 4 boxes on 3
    # (image, class) pairs, 4/3 · 1 image = 1 box → .6; class 3: no image
    cutoffs = matching_counts(predictions, np.array([2, 3, 1, 0]), truth)
    assert cutoffs == pytest.approx([0.4, 0.0, 0.6, 0.0])
    nobody = BoxTruth({}, frozenset())  # a box an image: class 0 keeps 2, class 1 wants 3 of 1, class 2 keeps 1
    assert matching_counts(predictions, np.array([2, 3, 1, 0]), nobody) == pytest.approx([0.8, 0.0, 0.6, 0.0])


def test_pairs_not_annotated_do_not_count() -> None:
    predictions = {
        "a": found_boxes([HIT, MISS], [0, 0], [0.8, 0.4]),
        "b": found_boxes([MISS, MISS], [0, 0], [0.95, 0.9]),
    }
    truth = BoxTruth({"a": TRUE, "b": Detections.empty()}, frozenset({("a", 0)}))
    assert choose_cutoffs(predictions, truth, 1) == pytest.approx([0.6])
    looked = BoxTruth(truth.boxes, frozenset({("a", 0), ("b", 0)}))
    assert choose_cutoffs(predictions, looked, 1) == pytest.approx([0.6])  # the best that is left


def test_a_class_without_a_hit_takes_the_pooled_cutoff() -> None:
    predictions = {"a": found_boxes([HIT, MISS, MISS], [0, 0, 1], [0.8, 0.4, 0.7])}
    truth = BoxTruth({"a": TRUE}, frozenset({("a", 0), ("a", 1)}))
    assert choose_cutoffs(predictions, truth, 2) == pytest.approx([0.6, 0.75])
    assert choose_cutoffs({}, truth, 2) == [0.0, 0.0]


def test_a_true_box_is_taken_once_by_the_better_box() -> None:
    found = found_boxes([(0, 0, 10, 20), (0, 0, 10, 18)], [0, 0], [0.3, 0.7])
    assert matches(found, TRUE, IOU_AT_LEAST).tolist() == [False, True]
    assert matches(found, Detections.empty(), IOU_AT_LEAST).tolist() == [False, False]


def test_keep_above_keeps_a_box_at_its_cutoff() -> None:
    found = found_boxes([HIT, HIT, MISS], [0, 1, 1], [0.5, 0.5, 0.75])
    assert keep_above(found, [0.5, 0.6]).score.tolist() == [0.5, 0.75]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_no_other_cutoff_has_a_higher_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, true = {}, {}
    for name in "abc":
        corner = rng.integers(0, 30, (4, 2))
        all_boxes = np.concatenate([corner, corner + rng.integers(8, 24, (4, 2))], axis=1).astype(np.float32)
        true[name] = _first(all_boxes, rng)
        moved = all_boxes + rng.integers(-6, 7, (4, 1)).astype(np.float32)
        predictions[name] = found_boxes(moved, [0] * 4, (rng.integers(1, 10, 4) / 10).tolist())
    truth = BoxTruth(true, frozenset((name, 0) for name in "abc"))
    chosen = choose_cutoffs(predictions, truth, 1)[0]
    best = max(_f1(predictions, true, cut) for cut in np.arange(0, 1.05, 0.05))
    assert _f1(predictions, true, chosen) == pytest.approx(best)


def _first(all_boxes: np.ndarray[tuple[int, ...], np.dtype[np.float32]], rng: np.random.Generator) -> Detections:
    count = int(rng.integers(0, 4))
    return found_boxes(all_boxes[:count], [0] * count, [1.0] * count)


def _f1(predictions: dict[str, Detections], true: dict[str, Detections], cut: float) -> float:
    hits = kept = 0
    for name, found in predictions.items():
        above = keep_above(found, [cut])
        hits += int(matches(above, true[name], IOU_AT_LEAST).sum())
        kept += len(above)
    wanted = sum(map(len, true.values()))
    return 2 * hits / (kept + wanted) if kept + wanted else 0.0
