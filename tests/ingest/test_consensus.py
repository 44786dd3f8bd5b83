"""Fusion of boxes, consensus and agreement, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.agreement import fleiss_kappa, matches, pairwise_f1
from ingest.consensus import ReadersBox, agreed_boxes, agreed_label
from weakray.boxes.fusion import fuse_boxes


def test_fusion_is_the_weighted_mean_of_what_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [30, 30, 40, 40]], float)
    fused = fuse_boxes(boxes, np.array([0.9, 0.3, 0.5]), 0.5)
    # IoU of the first two 80 / 120 = .67; (0.9·0 + 0.3·2) / 1.2 = 0.5
    assert [f.members for f in fused] == [(0, 1), (2,)]
    assert fused[0].box_xyxy.tolist() == pytest.approx([0.5, 0, 10.5, 10])
    assert [f.members for f in fuse_boxes(boxes, np.ones(3), 0.7)] == [(0,), (1,), (2,)]
    assert fuse_boxes(np.zeros((0, 4)), np.zeros(0), 0.5) == []


def test_a_box_joins_the_mean_of_a_group_and_not_its_first_member() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [7, 0, 17, 10]], float)
    # 4…14 overlaps 0…10 by 60 / 140 = .43; their mean 2…12 and 7…17 by 50 / 150 = .33
    assert [f.members for f in fuse_boxes(boxes, np.ones(3), 0.4)] == [(0, 1), (2,)]
    assert [f.members for f in fuse_boxes(boxes, np.ones(3), 0.3)] == [(0, 1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 9)] * 2), min_size=1, max_size=7),
    data=st.data(),
)
def test_the_order_of_readers_does_not_matter_and_no_box_is_lost(
    rows: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in rows], float)
    order = data.draw(st.permutations(range(len(rows))))
    one, other = (fuse_boxes(b, np.ones(len(b)), 0.4) for b in (boxes, boxes[order]))
    assert sorted(m for f in one for m in f.members) == list(range(len(rows)))
    assert [f.box_xyxy.tolist() for f in one] == [f.box_xyxy.tolist() for f in other]


@pytest.mark.parametrize(
    ("votes", "readers", "majority", "fusion"),
    [(0, 3, 0, 0), (1, 3, -1, 1), (2, 3, 1, 1), (3, 3, 1, 1), (1, 2, -1, 1), (1, 1, 1, 1)],
)
def test_votes(votes: int, readers: int, majority: float, fusion: float) -> None:
    assert agreed_label(votes, readers, "majority") == majority
    assert agreed_label(votes, readers, "fusion") == fusion


def test_two_boxes_of_one_reader_are_one_voice() -> None:
    twice = [ReadersBox("R1", (0, 0, 10, 10)), ReadersBox("R1", (1, 0, 11, 10))]
    assert agreed_boxes(twice, 3, "majority", 0.4) == []
    assert agreed_boxes([*twice, ReadersBox("R2", (0.5, 0, 10.5, 10))], 3, "majority", 0.4) == [(0.5, 0, 10.5, 10)]
    assert agreed_boxes(twice, 3, "fusion", 0.4) == [(0.5, 0, 10.5, 10)]


def test_kappa_by_hand_and_where_it_is_none() -> None:
    # Two readers, 10 images: 4 yes-yes, 3 no-no, 3 apart. P = .7; share 11/20; P_e = .3025 + .2025; κ = .195 / .495
    yes = [2] * 4 + [0] * 3 + [1] * 3
    assert fleiss_kappa(yes, [2] * 10) == pytest.approx((0.7 - 0.505) / 0.495)
    assert fleiss_kappa([3, 0, 3], [3, 3, 3]) == pytest.approx(1)
    assert fleiss_kappa([0, 0], [3, 3]) is None
    assert fleiss_kappa([1, 0], [1, 1]) is None  # of one reader each


def test_matches_use_each_box_once_and_the_best_first() -> None:
    one = [(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 9.0)]
    assert matches(one, [(0.0, 0.0, 10.0, 10.0)]) == 1
    assert matches(one, [(0.0, 0.0, 10.0, 5.0)]) == 1  # IoU .5 with the first, .56 with the second
    assert matches(one, [(0.0, 0.0, 10.0, 4.9)]) == 1  # .54 with the second
    assert matches(one, [(0.0, 0.0, 10.0, 4.0)]) == 0
    assert matches(one, []) == 0


def test_f1_over_pairs_of_readers() -> None:
    box, far = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    images = [(["a", "b", "c"], {"a": [box], "b": [box, far]}), (["a", "b"], {})]
    # ab: 2 of 3; ac: 0 of 1; bc: 0 of 2
    assert pairwise_f1(images) == pytest.approx(2 / 6)
    assert pairwise_f1([(["a", "b"], {})]) is None
