"""Box calibration: recovers what is there, leaves alone what is not."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest

from camgen.calibration import (
    FEATURES,
    PLAIN,
    STRENGTHS,
    Array,
    Calibration,
    corrected,
    features_of,
    fit,
    from_centre_log,
    held_out,
    matched_pairs,
    to_centre_log,
    with_extra,
)
from camgen.components import SHAPE_NAMES, Components
from camgen.scoring import PaddedTruth, padded_iou
from camgen.tuning import Judged, TuneFinding, first_near_best, judge
from tests.camgen.makers import components


def true_boxes(rng: np.random.Generator, n: int) -> Array:
    centre = rng.uniform(0.3, 0.7, (n, 2))
    side = np.exp(rng.uniform(np.log(0.15), np.log(0.4), (n, 2)))
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def seen_through_a_distortion(true: Array) -> Array:
    """What a classifier's map would give: half as wide, 0.7 as high, moved by (0.05, -0.03)."""
    values = to_centre_log(true)
    return from_centre_log(values + np.array([0.05, -0.03, math.log(0.5), math.log(0.7)]))


def one_each(true: Array) -> PaddedTruth:
    return PaddedTruth(true[:, None], np.ones((len(true), 1), bool))


def mean_iou(boxes: Array, truth: PaddedTruth) -> float:
    return float(padded_iou(boxes, truth.boxes_rel)[:, 0, 0].mean())


@pytest.mark.parametrize("n", [12, 40])
def test_recovers_a_planted_distortion(n: int) -> None:
    rng = np.random.default_rng(n)
    train, new = true_boxes(rng, n), true_boxes(rng, 30)
    found, later = (
        components(seen_through_a_distortion(train)[:, None]),
        components(seen_through_a_distortion(new)[:, None]),
    )
    fitted = fit(matched_pairs(found, one_each(train)), 1.0)
    after = corrected(fitted, later.boxes_rel, features_of(later))
    assert mean_iou(later.boxes_rel, one_each(new)) < 0.4
    assert mean_iou(after, one_each(new)) > 0.97


def test_recovers_an_affine_distortion_of_place_and_size() -> None:
    rng = np.random.default_rng(0)
    matrix = np.diag([0.8, 0.9, 0.7, 0.6])
    train, new = true_boxes(rng, 60), true_boxes(rng, 30)

    def distort(true: Array) -> Components:
        return components(from_centre_log(to_centre_log(true) @ matrix + [0.08, 0.1, -0.5, -0.8])[:, None])

    fitted = fit(matched_pairs(distort(train), one_each(train)), 1.0)
    after = corrected(fitted, distort(new).boxes_rel, features_of(distort(new)))
    assert mean_iou(distort(new).boxes_rel, one_each(new)) < 0.5
    assert mean_iou(after, one_each(new)) > 0.9


def finding_of(true: Array) -> TuneFinding:
    return TuneFinding(np.arange(len(true)), one_each(true), np.arange(len(true)) % 5)


def judged(found: Components, true: Array) -> Judged:
    """At each strength `(s,)`."""
    result = judge(found.with_options, np.linspace(0.5, 0.9, len(true)), finding_of(true), gate=0, strengths=STRENGTHS)
    return Judged(result.criterion[0], result.ap50[0], result.trusted[0])


def test_identity_where_there_is_only_noise() -> None:
    chosen = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pseudo = true_boxes(rng, 30)
        true = from_centre_log(to_centre_log(pseudo) + rng.normal(0, [0.03, 0.03, 0.2, 0.2], (30, 4)))
        result = judged(components(pseudo[:, None]), true)
        chosen.append(first_near_best(np.where(result.trusted, result.criterion, -np.inf)))
        assert not result.trusted[-1]  # the weakest regularisation is never believed
    assert chosen.count(0) >= 17  # a standard error is passed by luck now and then


def test_trusted_where_it_helps() -> None:
    true = true_boxes(np.random.default_rng(2), 25)
    result = judged(components(seen_through_a_distortion(true)[:, None]), true)
    assert result.trusted[1:].sum() >= 5
    assert result.criterion[result.trusted].max() > result.criterion[0] + 0.5
    assert result.ap50[0] < 0.2
    assert result.ap50[-1] > 0.9


def test_the_mean_box_is_within_reach() -> None:
    """Where maps say nothing about place and size, the fit becomes the mean true box."""
    rng = np.random.default_rng(0)
    target = from_centre_log(np.array([0.4, 0.6, np.log(0.3), np.log(0.2)]))
    true = np.repeat(target[None], 60, axis=0)
    found = components(true_boxes(rng, 60)[:, None])
    fitted = fit(matched_pairs(found, one_each(true)), 1.0)
    after = corrected(fitted, found.boxes_rel, features_of(found))
    assert mean_iou(found.boxes_rel, one_each(true)) < 0.5
    assert mean_iou(after, one_each(true)) > 0.93


def test_the_path_from_identity_to_shift_to_shrinkage() -> None:
    rng = np.random.default_rng(4)
    true = true_boxes(rng, 30)
    found = components(from_centre_log(to_centre_log(true) + np.array([0.05, 0, -0.5, -0.5]))[:, None])
    pairs = matched_pairs(found, one_each(true))
    assert fit(pairs, math.inf) is None
    near = fit(pairs, 1e9)
    assert near is not None
    assert np.abs(np.array(near.coefficients)).max() < 1e-5
    assert corrected(near, found.boxes_rel, features_of(found)) == pytest.approx(found.boxes_rel, abs=1e-5)
    strong = fit(pairs, 300.0)
    assert strong is not None
    shift, weights = np.array(strong.coefficients[0]), np.array(strong.coefficients[1:])
    # 30 pairs against 300 x 0.02: the shift is 30 / 36 of the residual's mean.
    assert shift == pytest.approx([-0.05 * 30 / 36, 0, 0.5 * 30 / 36, 0.5 * 30 / 36], abs=1e-6)
    assert np.abs(weights).max() < 0.02


def test_infinite_strength_and_no_pairs_are_the_identity() -> None:
    found = components(true_boxes(np.random.default_rng(0), 3)[:, None])
    nothing = PaddedTruth(np.zeros((3, 0, 4)), np.zeros((3, 0), bool))
    pairs = matched_pairs(found, nothing)
    assert len(pairs.image) == 0
    assert fit(pairs, 1.0) is None
    assert corrected(None, found.boxes_rel, features_of(found)) is found.boxes_rel
    boxes = held_out(found.with_options, nothing, np.array([0, 1, 2]), (math.inf, 10.0))
    assert boxes.shape == (1, 2, 3, 1, 4)
    assert (boxes == found.boxes_rel).all()


def test_held_out_boxes_do_not_see_their_own_fold() -> None:
    rng = np.random.default_rng(6)
    true = true_boxes(rng, 20)
    found, folds = components(seen_through_a_distortion(true)[:, None]), np.arange(20) % 4
    before = held_out(found.with_options, one_each(true), folds, STRENGTHS)[0]
    changed = true.copy()
    changed[folds == 2] = true_boxes(np.random.default_rng(99), 5)
    after = held_out(found.with_options, one_each(changed), folds, STRENGTHS)[0]
    assert (before[:, folds == 2] == after[:, folds == 2]).all()
    assert (before[1:, folds != 2] != after[1:, folds != 2]).any()
    seen = fit(matched_pairs(found.rows(folds != 2), one_each(true[folds != 2])), 30.0)
    expected = corrected(seen, found.boxes_rel, features_of(found))[folds == 2]
    assert before[STRENGTHS.index(30.0)][folds == 2] == pytest.approx(expected, abs=1e-12)


def test_pairs_take_the_best_overlap_else_the_nearest_centre() -> None:
    boxes = np.array([[[0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]], [[0, 0, 0.1, 0.1], [0.6, 0.6, 0.7, 0.7]]])
    found = components(boxes)
    found.valid[1, 0] = False
    true = np.array([[[0.6, 0.6, 1, 1], [0, 0.3, 0.1, 0.4]], [[0, 0, 0.1, 0.1], [0, 0, 0, 0]]])
    pairs = matched_pairs(found, PaddedTruth(true, np.array([[True, True], [True, False]])))
    assert pairs.image.tolist() == [0, 0, 1]
    assert pairs.features[:, 0] == pytest.approx([0.7, 0.1, 0.65])  # the last one's own image has no other valid box
    assert pairs.target[:, 0] == pytest.approx([0.8, 0.05, 0.05])


def test_features_do_not_extrapolate_and_boxes_stay_inside() -> None:
    wild = Calibration(
        features=FEATURES,
        strength=1.0,
        centre=(0.0,) * len(FEATURES),
        spread=(0.01,) * len(FEATURES),
        coefficients=((0.0,) * 4, *((0.5,) * 4 for _ in FEATURES)),
    )
    found = components([[[0.1, 0.1, 0.3, 0.2]]])
    box = corrected(wild, found.boxes_rel, features_of(found))[0, 0]
    assert (box >= 0).all()
    assert (box <= 1).all()
    assert (box[2:] > box[:2]).all()
    # every feature is cut at 3 deviations, so that the correction is the same however far it lies
    far = corrected(wild, found.boxes_rel, features_of(found) * 100)
    assert far[0, 0] == pytest.approx(box)


@pytest.mark.parametrize("extra", ["contrast", "agreement"])
def test_an_extra_feature_is_looked_at_where_one_asks_for_it(extra: Literal["contrast", "agreement"]) -> None:
    """True boxes are wider than the maps' by a factor that only the extra feature tells."""
    rng = np.random.default_rng(8)

    def drawn(n: int) -> tuple[Components, PaddedTruth]:
        found, told = components(true_boxes(rng, n)[:, None]), rng.uniform(0, 1, n)
        found.shape[:, 0, SHAPE_NAMES.index(extra)] = told
        wider = to_centre_log(found.boxes_rel[:, 0]) + np.array([0, 0, 1, 0]) * told[:, None]
        return found, one_each(from_centre_log(wider))

    (found, truth), (later, wanted) = drawn(60), drawn(30)
    for names, least, most in ((PLAIN, 0, 0.9), (with_extra([extra]), 0.95, 1)):
        fitted = fit(matched_pairs(found, truth, names), 1.0)
        assert fitted is not None
        assert fitted.features == names
        assert least < mean_iou(corrected(fitted, later.boxes_rel, features_of(later)), wanted) < most
    folds = np.arange(60) % 4
    for names, gained in ((PLAIN, False), (with_extra([extra]), True)):
        boxes = held_out(found.with_options, truth, folds, (math.inf, 1.0), names)[0]
        assert (mean_iou(boxes[1], truth) > 0.95) == gained


def test_a_calibration_from_before_the_extra_features_is_read_as_it_was() -> None:
    true = true_boxes(np.random.default_rng(2), 25)
    found = components(seen_through_a_distortion(true)[:, None])
    fitted = fit(matched_pairs(found, one_each(true)), 10.0)
    assert fitted is not None
    old = fitted.model_dump(mode="json")
    del old["features"]
    assert Calibration.model_validate(old) == fitted
    assert len(fitted.centre) == 12


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"centre": (0.0,) * 9},
            "expected centre, spread and coefficients of its 12 features, got those of 9, 12 and 12",
        ),
        (
            {"features": FEATURES},
            "expected centre, spread and coefficients of its 14 features, got those of 12, 12 and 12",
        ),
        (
            {"features": (*FEATURES[:4], "hue")},
            "features: expected cx, cy, log_w, log_h and some of peak, .*log_h, hue",
        ),
        ({"features": ("peak", *FEATURES[:4])}, "features: expected cx, cy, log_w, log_h and some of .*got peak, cx"),
        ({"features": (*FEATURES[:4], "peak", "peak")}, "got cx, cy, log_w, log_h, peak, peak"),
    ],
)
def test_features_that_do_not_go_with_the_numbers_are_refused(changes: dict[str, Any], text: str) -> None:
    numbers: dict[str, Any] = {
        "strength": 1.0,
        "centre": (0.0,) * 12,
        "spread": (1.0,) * 12,
        "coefficients": ((0.0,) * 4,) * 13,
    }
    assert Calibration(**numbers).features == PLAIN
    with pytest.raises(ValueError, match=text):
        Calibration(**numbers | changes)


def test_box_forms_are_inverse() -> None:
    boxes = true_boxes(np.random.default_rng(0), 9)
    assert from_centre_log(to_centre_log(boxes)) == pytest.approx(boxes)
    assert to_centre_log(np.array([0.1, 0.2, 0.3, 0.6])) == pytest.approx([0.2, 0.4, math.log(0.2), math.log(0.4)])
