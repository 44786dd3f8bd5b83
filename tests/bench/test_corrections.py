"""Ways to correct boxes: by hand, against the search's own, and left alone where there is nothing to learn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bench.corrections import ROUNDS, SHARED, WAYS, Array, affine, boosting, chosen, ridge, shared
from camgen.calibration import FEATURES, PLAIN, STRENGTHS, Pairs, from_centre_log, matched_pairs, to_centre_log
from camgen.components import Components
from camgen.tuning import TuneFinding, borrow, first_near_best, judge
from tests.camgen.makers import components
from tests.camgen.test_calibration import finding_of, mean_iou, one_each, seen_through_a_distortion, true_boxes


def pairs(seen: Array, target: Array) -> Pairs:
    """Of boxes as (cx, cy, log w, log h), on featureless maps."""
    features = np.zeros((len(seen), len(PLAIN)))
    features[:, :4] = seen
    return Pairs(features, np.asarray(target, np.float64), np.arange(len(seen)))


def at(values: list[float]) -> Components:
    return components(from_centre_log(np.array([[values]])))


NONE = pairs(np.zeros((0, 4)), np.zeros((0, 4)))


def test_affine_by_hand() -> None:
    log = math.log
    seen = np.array([[0.2, 0.5, log(0.1), log(0.2)], [0.4, 0.5, log(0.4), log(0.2)]])
    true = np.array([[0.3, 0.6, log(0.2), log(0.3)], [0.7, 0.6, log(0.4), log(0.3)]])
    (correct,) = affine([pairs(seen, true), NONE])
    # x: 2 cx - 0.1; log w: half of it, and log 0.2 - log 0.1 / 2; y and h have no spread, and are shifted.
    moved = to_centre_log(correct(0, at([0.3, 0.4, log(0.16), log(0.1)])))[0, 0]
    assert moved == pytest.approx([0.5, 0.5, log(0.4 * 0.2 / math.sqrt(0.1)), log(0.15)])
    still = at([0.3, 0.4, log(0.2), log(0.1)])
    assert correct(1, still) == pytest.approx(still.boxes_rel)


def test_what_findings_share_by_hand() -> None:
    """Boxes that are all alike leave shifts alone: one for all, and each finding's own."""
    alike = [0.5, 0.5, math.log(0.2), math.log(0.2)]
    boxes = {n: np.array([alike] * n) for n in (2, 3)}
    few, many = (pairs(boxes[n], boxes[n] + np.array([by, 0, 0, 0])) for n, by in ((2, -0.2), (3, 0.1)))
    correct = shared([many, few, NONE])[SHARED.index((100.0, 3.0))]
    # Shifts pay 0.02 x 100 = 2, own ones 6. A finding of n pairs draws the common shift with a weight of 6 n / (n + 6):
    common = (2 * 0.1 + 1.5 * -0.2) / (2 + 2 + 1.5)
    for k, (n, mean) in enumerate(((3, 0.1), (2, -0.2), (0, 0.0))):
        own = n * (mean - common) / (n + 6)
        moved = to_centre_log(correct(k, at(alike)))[0, 0]
        assert moved == pytest.approx([0.5 + common + own, *alike[1:]])


def test_what_one_finding_has_learnt_helps_one_with_few_boxes() -> None:
    rng = np.random.default_rng(0)
    many, few, new = true_boxes(rng, 60), true_boxes(rng, 3), true_boxes(rng, 30)

    def seen(true: Array) -> Components:
        noise = rng.normal(0, [0.03, 0.03, 0.2, 0.2], (len(true), 4))
        return components(from_centre_log(to_centre_log(seen_through_a_distortion(true)) + noise)[:, None])

    known = [matched_pairs(seen(true), one_each(true)) for true in (many, few)]
    later = components(seen_through_a_distortion(new)[:, None])
    together, alone = (max(mean_iou(own(1, later), one_each(new)) for own in way(known)) for way in (shared, ridge))
    assert together > alone + 0.05
    without_own = shared([known[0], NONE])[SHARED.index((3.0, 10.0))](1, later)
    assert mean_iou(without_own, one_each(new)) > 0.75


def test_boosting_learns_steps() -> None:
    rng = np.random.default_rng(1)

    def stepped(pseudo: Array) -> Array:
        step = np.where(np.abs(pseudo[:, 0] + pseudo[:, 2] - 1) < 0.2, 0.5, -0.5)
        return from_centre_log(to_centre_log(pseudo) + np.array([0, 0, 1, 1]) * step[:, None])

    old, new = true_boxes(rng, 80), true_boxes(rng, 40)
    known, later = [matched_pairs(components(old[:, None]), one_each(stepped(old)))], components(new[:, None])
    grown = [mean_iou(correct(0, later), one_each(stepped(new))) for correct in boosting(known)]
    assert len(grown) == len(ROUNDS)
    assert grown == sorted(grown)
    assert grown[-1] > max(mean_iou(correct(0, later), one_each(stepped(new))) for correct in ridge(known)) + 0.1
    still = [correct(0, later) for correct in boosting([NONE])]
    assert all((boxes == later.boxes_rel).all() for boxes in still)


def test_the_ridge_is_chosen_as_the_search_chooses_it() -> None:
    rng = np.random.default_rng(3)
    true = true_boxes(rng, 25)
    noisy = from_centre_log(to_centre_log(seen_through_a_distortion(true)) + rng.normal(0, 0.05, (25, 4)))
    found, finding, probability = components(noisy[:, None]), finding_of(true), np.linspace(0.5, 0.9, 25)
    picked = chosen(ridge, [found], [probability], [finding], 6)
    judged = judge(found.with_options, probability, finding, gate=0, strengths=STRENGTHS)
    best = first_near_best(np.where(judged.trusted[0], borrow(judged.criterion, np.array([25]))[0], -np.inf))
    assert picked.at == [best]
    assert best > 0
    assert picked.criterion == pytest.approx(judged.criterion[0, best])
    assert picked.ap50 == pytest.approx(judged.ap50[0, best])


@pytest.mark.parametrize("way", WAYS)
def test_ways_help_where_boxes_are_distorted_and_leave_findings_without_boxes_alone(way: str) -> None:
    rng = np.random.default_rng(5)
    true, new = true_boxes(rng, 40), true_boxes(rng, 20)
    found, none = components(seen_through_a_distortion(true)[:, None]), components(true_boxes(rng, 40)[:, None])
    finding = finding_of(true)
    nothing = dataclasses.replace(finding, truth=dataclasses.replace(finding.truth, valid=np.zeros((40, 1), bool)))
    given = [found, none], [np.linspace(0.5, 0.9, 40)] * 2, [finding, nothing]
    picked = chosen(WAYS[way], *given, 6)
    later, still = components(seen_through_a_distortion(new)[:, None]), components(new[:, None])
    boxes = picked.boxes([later, still])
    before, after = (mean_iou(own, one_each(new)) for own in (later.boxes_rel, boxes[0]))
    assert after > before + 0.2 if way != "identity" else after == before
    assert picked.at[1] == 0
    assert boxes[1] is still.boxes_rel
    kept = chosen(WAYS[way], *given, 41)
    assert kept.at == [0, 0]  # fewer true boxes than asked for


@pytest.mark.parametrize("way", ["ridge", "shared", "boosting"])
def test_nothing_is_believed_where_there_is_only_noise(way: str) -> None:
    chosen_at = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        pseudo = true_boxes(rng, 30)
        true = from_centre_log(to_centre_log(pseudo) + rng.normal(0, [0.03, 0.03, 0.2, 0.2], (30, 4)))
        picked = chosen(WAYS[way], [components(pseudo[:, None])], [np.full(30, 0.5)], [finding_of(true)], 6)
        chosen_at += picked.at
    assert chosen_at.count(0) >= 2  # a standard error is passed by luck now and then


def test_held_out_boxes_have_not_seen_their_patients() -> None:
    """Boxes that can only be learnt by heart: each its own shift."""
    rng = np.random.default_rng(9)
    true = true_boxes(rng, 30)
    found = components(true_boxes(rng, 30)[:, None])
    twins = TuneFinding(np.arange(30), one_each(true), np.arange(30) // 6)
    learnt = boosting([matched_pairs(found, one_each(true))])[-1](0, found)
    assert mean_iou(learnt, one_each(true)) > 0.6
    picked = chosen(boosting, [found], [np.full(30, 0.5)], [twins], 6)
    assert picked.criterion < 0.5


def test_extra_features_are_taken_by_name() -> None:
    rng = np.random.default_rng(8)
    pseudo = true_boxes(rng, 60)
    found, told = components(pseudo[:, None]), rng.uniform(0, 1, 60)
    found.shape[:, 0, FEATURES.index("contrast") - 4] = told
    true = from_centre_log(to_centre_log(pseudo) + np.array([0, 0, 1, 0]) * told[:, None])
    given = [found], [np.full(60, 0.5)], [finding_of(true)]
    for way in (ridge, shared, boosting):
        plain, extra = (chosen(way, *given, 6, names) for names in (PLAIN, FEATURES))
        assert extra.criterion > plain.criterion + 0.05
