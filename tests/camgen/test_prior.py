"""The location prior by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camgen.prior import GRID, Prior, fit_prior, weight
from tests.camgen.makers import placed


def test_it_is_highest_where_boxes_are_and_1_there() -> None:
    boxes = np.array([[0.0, 0.5, 0.25, 1.0], [0.0, 0.625, 0.25, 1.0], [0.75, 0.0, 1.0, 0.25]])
    grid = fit_prior(boxes)
    assert grid.shape == (GRID, GRID)
    assert grid.max() == 1
    assert grid[-1, 0] == 1  # two boxes meet in the lower left
    assert grid[0, -1] == pytest.approx(0.5, abs=0.02)  # one box in the upper right
    assert grid[4, 4] < 0.01


def test_a_box_covers_its_part_of_a_cell() -> None:
    whole = fit_prior(np.array([[0, 0, 0.5 + 0.5 / GRID, 1.0]]))
    assert whole[5, : GRID // 2 - 3] == pytest.approx(1, abs=0.01)
    assert whole[5, GRID // 2] == pytest.approx(0.5, abs=0.01)  # half covered, and half of its neighbours too
    assert whole[5, GRID // 2 + 4 :] == pytest.approx(0, abs=0.01)


def test_without_boxes_every_place_is_alike() -> None:
    assert (fit_prior(np.zeros((0, 4))) == 1).all()


@pytest.mark.parametrize("size_hw", [(40, 80), (90, 33), (50, 50)])
def test_on_a_map_it_follows_the_letterbox(size_hw: tuple[int, int]) -> None:
    ramp = np.tile((np.arange(GRID) + 0.5) / GRID, (GRID, 1))  # the relative x of each place
    place = placed(*size_hw, 96)
    found = weight(ramp, 1.0, place, (24, 24))
    columns = place.inner()[1]
    centre = (np.arange(24) + 0.5) * 4
    relative = (centre - columns.start) / (columns.stop - columns.start)
    half = 0.5 / GRID
    expected = np.clip(relative, half, 1 - half)
    assert found[12] == pytest.approx(expected, abs=1e-5)
    assert (found == found[0]).all()  # nothing changes from top to bottom
    assert found.dtype == np.float32


def test_no_place_is_ruled_out_and_the_power_counts() -> None:
    grid = np.zeros((GRID, GRID))
    grid[:, GRID // 2 :] = 0.25
    found = Prior(exponent=0.5, grid=tuple(map(tuple, grid.tolist()))).weight(placed(40, 40, 32), (8, 8))
    assert found[0, 0] == pytest.approx(0.02**0.5)
    assert found[0, -1] == pytest.approx(0.5)
