"""Boxes around masks, and joining of nested ones."""

from __future__ import annotations

import numpy as np

from ingest.phantom.regions import box_around, merge_nested


def test_box_around_is_half_open() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 7:19] = 200
    assert box_around(mask) == ((7, 5, 19, 10),)


def test_box_around_leaves_out_faint_pixels_and_slivers() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 7:19] = 50
    assert box_around(mask) == ()
    mask[5:8, 7:19] = 255
    assert box_around(mask) == ()


def test_a_box_within_another_is_joined_and_neighbours_stay() -> None:
    inner, outer, apart = (12, 12, 16, 18), (10, 10, 30, 20), (29, 10, 50, 20)
    assert merge_nested([inner, apart, outer]) == [outer, apart]


def test_joining_goes_on_until_nothing_nests() -> None:
    # a and b share 6 of 10 columns; c lies in what they make, in neither alone
    a, b, c = (0, 0, 10, 10), (4, 0, 14, 10), (9, 1, 12, 12)
    assert merge_nested([a, b, c]) == [(0, 0, 14, 12)]
    assert merge_nested([c, b, a]) == [(0, 0, 14, 12)]
    assert merge_nested([]) == []
