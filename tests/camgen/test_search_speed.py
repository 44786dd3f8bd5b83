"""The search's fast path gives what the plain one gives: cv2 a threshold, a fit a fold and strength, COCOeval."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from bench.plain_search import plain_boxes
from camgen.calibration import FEATURES, STRENGTHS
from camgen.components import Components, Cut, FineMap, components_at, find_components, fine_map
from camgen.cut_tree import grow
from camgen.scoring import PaddedTruth
from camgen.tuning import TuneFinding, judge
from tests.camgen.makers import placed
from tests.camgen.plain_calibration import Boxes, judged

CUTS = [Cut(True, v) for v in (0.1, 0.2, 0.3, 0.5, 0.5, 0.7, 0.9)] + [Cut(False, v) for v in (0.05, 0.3, 0.5, 0.8)]
SIZES_HW = ((40, 60), (60, 40), (50, 50), (33, 60))


def maps_of(kind: str, n: int, seed: int = 0) -> list[FineMap]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        noise = rng.random((14, 14))
        smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
        steps = np.round((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 5) / 5
        drawn = {"noise": noise, "smooth": smooth, "steps": steps, "flat": np.full((14, 14), 0.4)}[kind]
        found.append(fine_map(drawn.astype(np.float32), placed(*SIZES_HW[i % len(SIZES_HW)], 56), 28))
    return found


def by_hand(maps: list[FineMap], cut: Cut, unit_range: bool, min_area: float, places: int) -> Boxes:
    found: Boxes = []
    for fine in maps:
        at = fine.low + cut.value * (fine.high - fine.low) if cut.relative else cut.value
        if fine.empty or fine.high <= at:
            found.append([])
        else:
            found.append(plain_boxes(fine, at, min_area, 1.0 if unit_range else fine.high, places))
    return found


def assert_same(found: Components, expected: Boxes) -> None:
    assert found.valid.sum(axis=1).tolist() == [len(boxes) for boxes in expected]
    for i, boxes in enumerate(expected):
        for j, box in enumerate(boxes):
            assert found.boxes_rel[i, j] == pytest.approx(box.box_rel, abs=1e-12)
            assert found.shape[i, j] == pytest.approx(box.shape, abs=1e-9)
            assert found.peak[i, j] == box.shape[0]


@pytest.mark.parametrize("n", [1, 3, 9])
@pytest.mark.parametrize("kind", ["noise", "smooth", "steps", "flat"])
def test_all_cuts_in_one_pass_are_those_made_one_by_one(kind: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = maps_of(kind, n)
    monkeypatch.setattr("camgen.components._SAMPLES", 20_000)  # a few maps at once
    for unit_range, min_area, places in ((True, 0.0, 3), (False, 0.004, 2)):
        found = components_at(maps, CUTS, unit_range=unit_range, min_area=min_area, places=places)
        for c, cut in enumerate(CUTS):
            assert_same(found.option(c), by_hand(maps, cut, unit_range, min_area, places))
            single = find_components(
                *(maps,),
                value=cut.value,
                relative=cut.relative,
                unit_range=unit_range,
                min_area=min_area,
                places=places,
            )
            for part in ("boxes_rel", "valid", "peak"):
                assert (getattr(single, part) == getattr(found, part)[c]).all()
            assert single.shape == pytest.approx(found.shape[c], abs=1e-12)  # sums in another order
    assert found.valid.any() == (kind != "flat")


def test_what_a_tree_holds_by_hand() -> None:
    values = np.array([[[0.2, 0.2, 0.0, 0.9], [0.2, 0.8, 0.0, 0.0]]], np.float32)
    tree = grow(values, np.array([[0.1, 0.5, 0.85]]))
    own = np.flatnonzero(tree.area)
    held = {
        (int(tree.level[c]), round(float(tree.peak[c]), 3)): (
            tree.area[c],
            *tree.low[:, c].tolist(),
            *tree.high[:, c].tolist(),
            round(float(tree.total[c]), 6),
        )
        for c in own
    }
    assert held == {  # level, peak: area, first row and column, past the last row and column, sum
        (0, 0.8): (4, 0, 0, 2, 2, 1.4),
        (1, 0.8): (1, 1, 1, 2, 2, 0.8),
        (0, 0.9): (1, 0, 3, 1, 4, 0.9),
        (1, 0.9): (1, 0, 3, 1, 4, 0.9),
        (2, 0.9): (1, 0, 3, 1, 4, 0.9),
    }
    low = next(c for c in own if tree.area[c] == 4)
    # Rows lie half a sample above and below the middle, columns 1.5 and 0.5 to the left of it.
    assert tree.moment[:, low] == pytest.approx([-0.5 * 0.4 + 0.5 * 1.0, -1.5 * 0.4 - 0.5 * 1.0], abs=1e-6)
    assert tree.square[:, low] == pytest.approx([0.25 * 1.4, 2.25 * 0.4 + 0.25 * 1.0], abs=1e-6)


def finding(n: int, seed: int, boxes: int | None = None) -> TuneFinding:
    rng = np.random.default_rng(seed)
    valid = rng.random((n, 2)) < [0.6, 0.2]
    if boxes is not None:
        valid[:] = False
        valid[:boxes, 0] = True
    low, side = rng.uniform(0.1, 0.5, (n, 2, 2)), rng.uniform(0.15, 0.45, (n, 2, 2))
    return TuneFinding(np.arange(n), PaddedTruth(np.concatenate([low, low + side], axis=2), valid), np.arange(n) % 3)


@pytest.mark.parametrize(("n", "seed", "gate"), [(12, 0, 0.0), (12, 1, 0.4), (3, 2, 0.0)])
def test_candidates_judged_together_are_those_judged_alone(n: int, seed: int, gate: float) -> None:
    maps, cuts, strengths = maps_of("smooth", n, seed), CUTS[2:7:2], STRENGTHS[::3]
    rng = np.random.default_rng(seed)
    truth, probability = finding(n, seed), rng.uniform(0.1, 0.9, n)
    found = components_at(maps, cuts, unit_range=True, min_area=0.0, places=3)
    ours = judge(found, probability, truth, gate=gate, strengths=strengths, features=FEATURES)
    for c, cut in enumerate(cuts):
        criterion, ap50, trusted = judged(by_hand(maps, cut, True, 0.0, 3), probability, truth, gate, strengths)
        assert ours.criterion[c] == pytest.approx(criterion, abs=1e-9)
        assert ours.ap50[c] == pytest.approx(ap50, abs=1e-9)
        assert ours.trusted[c].tolist() == trusted
    assert ours.criterion.max() > 0.05


def test_one_true_box_is_never_fitted_to_itself() -> None:
    maps = maps_of("smooth", 6)
    found = components_at(maps, CUTS[:2], unit_range=True, min_area=0.0, places=2)
    ours = judge(found, np.full(6, 0.5), finding(6, 0, boxes=1), gate=0, strengths=(math.inf, 10.0))
    assert ours.criterion[:, 1] == pytest.approx(ours.criterion[:, 0], abs=1e-12)  # its own fold has nothing to fit on
    assert not ours.trusted[:, 1].any()


def test_plain_boxes_are_boxes() -> None:
    drawn = np.zeros((6, 6), np.float32)
    drawn[1:3, 2:5] = 1
    place = placed(60, 60, 6)
    (found,) = plain_boxes(fine_map(drawn, place, 6), 0.5, 0.0, 1.0, 3)
    assert found.box_rel == pytest.approx((2 / 6, 1 / 6, 5 / 6, 3 / 6))
    spread = (math.log(math.sqrt(0.75) / 6), math.log(math.sqrt(1 / 3) / 6))
    assert found.shape == pytest.approx((1, 1, 0, 0, *spread, 1, 0, 1, 1), abs=1e-9)
