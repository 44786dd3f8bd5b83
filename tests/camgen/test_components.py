"""Boxes of hand-drawn maps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from camgen.components import SHAPE_NAMES, Components, Cut, components_at, find_components, fine_map
from tests.camgen.makers import placed, whole
from weakray.imaging import Placement


def found_in(maps: list[Any], value: float = 0.5, **changes: Any) -> Components:
    settings: dict[str, Any] = {"relative": True, "unit_range": True, "min_area": 0.0, "places": 3}
    return find_components(maps, value=value, **(settings | changes))


def test_a_drawn_rectangle_comes_back_to_the_pixel() -> None:
    drawn = np.zeros((10, 10))
    drawn[2:5, 3:9] = 0.8
    found = found_in([whole(drawn)])
    assert found.boxes_rel[0, 0] * 10 == pytest.approx([3, 2, 9, 5])
    assert found.valid.tolist() == [[True, False, False]]
    shape = dict(zip(SHAPE_NAMES, found.shape[0, 0], strict=True))
    assert found.peak[0, 0] == pytest.approx(0.8)
    assert shape["peak"] == pytest.approx(0.8)
    assert shape["mean"] == pytest.approx(0.8)
    assert shape["fill"] == 1
    assert shape["centroid_dx"] == pytest.approx(0, abs=1e-9)
    assert np.exp(shape["log_spread_x"]) == pytest.approx(6 / np.sqrt(12) / 10)  # a uniform strip of 6 pixels
    assert np.exp(shape["log_spread_y"]) == pytest.approx(3 / np.sqrt(12) / 10)
    assert shape["log_count"] == 0


def test_edges_lie_where_the_value_crosses_the_cut() -> None:
    ramp = np.tile([0.0, 0.2, 0.6, 1.0, 0.4, 0.0], (6, 1))
    found = found_in([whole(ramp)], 0.3)
    # 0.3 lies a quarter of the way from 0.2 (centre 1.5) to 0.6, and three quarters from 0.0 (centre 5.5) to 0.4.
    assert found.boxes_rel[0, 0] * 6 == pytest.approx([1.75, 0, 4.75, 6])


def test_a_non_square_image_in_its_square_with_padding() -> None:
    place = placed(40, 80, 16)  # lies in rows 4 to 12 of the square
    drawn = np.full((16, 16), 0.01)
    drawn[0:8, 2:6] = 0.9  # half of it over the padding
    found = found_in([fine_map(drawn.astype(np.float32), place, 1)])
    box = found.boxes_rel[0, 0] * [80, 40, 80, 40]
    assert box == pytest.approx([10, 0, 30, 20])
    assert box == pytest.approx(place.back(np.array([[2, 0, 6, 8]], np.float32))[0])


@pytest.mark.parametrize("size_hw", [(37, 90), (64, 41), (33, 33)])
def test_relative_boxes_are_those_of_placement_back(size_hw: tuple[int, int]) -> None:
    place = placed(*size_hw, 48)
    rows, columns = place.inner()
    drawn = np.zeros((48, 48), np.float32)
    y, x = rows.start + 3, columns.start + 2
    drawn[y : y + 5, x : x + 7] = 1
    found = found_in([fine_map(drawn, place, 1)])
    expected = place.back(np.array([[x, y, x + 7, y + 5]], np.float32))[0]
    height, width = size_hw
    assert found.boxes_rel[0, 0] * [width, height, width, height] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("upsample", [2, 4, 8])
def test_a_gaussian_hill_has_its_width_at_the_cut(upsample: int) -> None:
    at = np.arange(24) + 0.5
    hill = np.exp(-0.5 * ((at - 11.3) / 4) ** 2)[None] * np.exp(-0.5 * ((at - 13.1) / 3) ** 2)[:, None]
    found = found_in([whole(hill, upsample)], 0.4, relative=False)
    reach = np.sqrt(-2 * np.log(0.4))
    assert found.boxes_rel[0, 0] * 24 == pytest.approx(
        [11.3 - 4 * reach, 13.1 - 3 * reach, 11.3 + 4 * reach, 13.1 + 3 * reach], abs=0.06
    )


def test_range_and_value_cuts_differ() -> None:
    drawn = np.full((8, 8), 0.2)
    drawn[2:4, 2:4] = 0.4
    assert found_in([whole(drawn)], 0.5, relative=False).valid.sum() == 0
    assert found_in([whole(drawn)], 0.5, relative=True).valid.sum() == 1  # cut at 0.3
    everywhere = found_in([whole(drawn)], 0.1, relative=False)
    assert everywhere.boxes_rel[0, 0].tolist() == [0, 0, 1, 1]


def test_best_peak_first_at_most_so_many_and_no_specks() -> None:
    drawn = np.zeros((20, 20))
    drawn[1:4, 1:4], drawn[8:12, 8:12], drawn[15:19, 2:6], drawn[2, 15] = 0.7, 0.9, 0.8, 1.0
    found = found_in([whole(drawn)], 0.5, min_area=2 / 400, places=2)
    assert found.peak[0] == pytest.approx([0.9, 0.8])
    assert found.boxes_rel[0] * 20 == pytest.approx(np.array([[8, 8, 12, 12], [2, 15, 6, 19]]), abs=0.5)
    assert np.exp(found.shape[0, 0, SHAPE_NAMES.index("log_count")]) == pytest.approx(3)
    with_speck = found_in([whole(drawn)], 0.5)
    assert with_speck.peak[0, 0] == 1


def test_diagonal_neighbours_are_one_component() -> None:
    drawn = np.zeros((9, 9))
    drawn[2, 2] = drawn[3, 3] = 1
    assert found_in([whole(drawn)]).valid.sum() == 1


def test_near_components_are_one_box_with_the_sums_of_both() -> None:
    drawn = np.zeros((40, 40))
    drawn[5:10, 5:10], drawn[5:10, 13:17], drawn[30:34, 30:34] = 0.9, 0.6, 0.8  # the first two are 3 samples apart
    apart = found_in([whole(drawn)], 0.3, merge_gap=2 / 40)
    assert apart.valid.sum() == 3
    found = found_in([whole(drawn)], 0.3, merge_gap=4 / 40)
    assert found.valid.sum() == 2
    edge = (0.9 - 0.27) / 0.9 - 0.5, (0.6 - 0.27) / 0.6 - 0.5  # where the values fall to the cut
    assert found.boxes_rel[0, 0] * 40 == pytest.approx([5 - edge[0], 5 - edge[0], 17 + edge[1], 10 + edge[0]])
    shape = dict(zip(SHAPE_NAMES, found.shape[0, 0], strict=True))
    assert shape["peak"] == pytest.approx(0.9)
    assert shape["mean"] == pytest.approx((25 * 0.9 + 20 * 0.6) / 45)
    assert shape["fill"] == pytest.approx(45 / (5 * 12))
    assert np.exp(shape["log_count"]) == pytest.approx(2)
    assert found.boxes_rel[0, 1] == pytest.approx(apart.boxes_rel[0, 1])  # the third, by itself
    assert found_in([whole(drawn)], 0.3, merge_gap=0.6).valid.sum() == 1


def test_contrast_is_the_mean_inside_less_the_mean_of_the_rest() -> None:
    drawn = np.full((10, 10), 0.1)
    drawn[2:5, 3:9], drawn[8, 1:5] = 0.9, 0.4
    column = SHAPE_NAMES.index("contrast")
    found = found_in([whole(drawn)])
    # 18 samples of 0.9; outside 4 of 0.4 and 78 of 0.1; the range is 0.8.
    assert found.shape[0, 0, column] == pytest.approx((0.9 - 9.4 / 82) / 0.8)
    scaled = found_in([whole(drawn * 1e-5)], unit_range=False)
    assert scaled.shape[0, 0, column] == pytest.approx(found.shape[0, 0, column], abs=1e-6)
    everywhere = found_in([whole(drawn)], 0.05, relative=False)
    assert everywhere.shape[0, 0, column] == 0  # there is no rest
    assert (found.shape[found.valid][:, SHAPE_NAMES.index("agreement")] == 1).all()


def test_merging_joins_nothing_across_maps_or_cuts() -> None:
    low, high = np.zeros((30, 20)), np.zeros((30, 20))
    low[27:, 5:9], high[:3, 5:9] = 0.9, 0.8  # would touch if the maps lay one below the other
    cuts = [Cut(False, 0.1), Cut(False, 0.5), Cut(False, 0.85)]
    found = components_at([whole(low), whole(high)], cuts, unit_range=True, min_area=0, places=2, merge_gap=0.3)
    assert found.valid.sum(axis=2).tolist() == [[1, 1], [1, 1], [1, 0]]
    for c, cut in enumerate(cuts):
        for i, drawn in enumerate((low, high)):
            alone = found_in([whole(drawn)], cut.value, relative=False, places=2, merge_gap=0.3)
            assert alone.boxes_rel[0] == pytest.approx(found.boxes_rel[c, i])


def test_maps_without_a_scale_of_their_own_have_relative_peaks() -> None:
    drawn = np.zeros((9, 9))
    drawn[1:3, 1:3], drawn[5:8, 5:8] = 2e-5, 4e-5
    found = found_in([whole(drawn)], 0.3, unit_range=False)
    assert found.peak[0, :2] == pytest.approx([1, 0.5])


def test_empty_maps_are_a_state() -> None:
    flat, nothing, below = np.full((4, 4), 0.3), np.zeros((4, 4)), np.full((4, 4), -1.0)
    drawn = np.zeros((4, 4))
    drawn[1, 1] = 1
    found = found_in([whole(flat), whole(nothing), whole(below), whole(drawn)])
    assert found.empty.tolist() == [True, True, True, False]
    assert found.valid.any(axis=1).tolist() == [False, False, False, True]
    assert np.isfinite(found.boxes_rel).all()


def test_no_images_and_slices() -> None:
    assert found_in([]).boxes_rel.shape == (0, 3, 4)
    drawn = np.zeros((6, 6))
    drawn[1:3, 1:3] = 1
    found = found_in([whole(drawn)] * 3)
    assert found.first(1).boxes_rel.shape == (3, 1, 4)
    assert found.rows(np.array([True, False, True])).boxes_rel.shape == (2, 3, 4)


def test_random_maps_give_boxes_that_enclose_their_component() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        noise = cv2.GaussianBlur(rng.standard_normal((14, 14)), (0, 0), 1.5)
        fine = fine_map(noise.astype(np.float32), Placement((14, 14), (1, 1), 0, 0), 56)
        cut = fine.low + 0.4 * (fine.high - fine.low)
        found = found_in([fine], 0.4, places=50)
        boxes = found.boxes_rel[0, found.valid[0]]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()
        y, x = np.nonzero(fine.values > cut)
        centres = np.stack([(x + 0.5) / 56, (y + 0.5) / 56], axis=1)
        inside = (centres[:, None] >= boxes[None, :, :2]).all(2) & (centres[:, None] <= boxes[None, :, 2:]).all(2)
        assert inside.any(axis=1).all()
