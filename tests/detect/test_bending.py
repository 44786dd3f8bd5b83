"""Films bent smoothly: boxes follow, nothing folds, and no other chance is moved."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detect.augment import AugmentConfig, augment
from detect.bending import bend_boxes, draw_shifts
from detect.yolo_folder import Example

STILL = AugmentConfig(scale=0, translate=0, rotate_deg=0, brightness=0, contrast=0)
MOST = 0.03  # what AugmentConfig allows
SIZE = 256


def an_ellipse(centre: tuple[int, int], sides: tuple[int, int]) -> Example:
    image = np.zeros((SIZE, SIZE, 1), np.uint8)
    cv2.ellipse(image, centre, (sides[0] // 2, sides[1] // 2), 0, 0, 360, 255, -1, cv2.LINE_AA)
    box = np.array([[(centre[0] + 0.5) / SIZE, (centre[1] + 0.5) / SIZE, sides[0] / SIZE, sides[1] / SIZE]])
    return Example("e", image, np.array([1]), box.astype(np.float32), np.ones(1, np.float32), np.ones(3, np.float32))


def sides_of(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Where the bright spot is seen, and where its box says it is: left, top, right, bottom, px."""
    rows, columns = np.nonzero(example.image[..., 0] > 100)
    cx, cy, width, height = example.boxes_cxcywh_rel[0] * SIZE
    told = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]), told


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("others", "off_px"),
    [(STILL, 2), (AugmentConfig(scale=0.3, translate=0.1, rotate_deg=15, flip=0.5), 3)],  # turned ellipses lie upright
)
def test_boxes_follow_a_bent_image(seed: int, others: AugmentConfig, off_px: float) -> None:
    before = an_ellipse((140, 120), (60, 34))
    after = augment(before, others.model_copy(update={"bend": MOST}), np.random.default_rng(seed))
    straight = augment(before, others, np.random.default_rng(seed))
    seen, told = sides_of(after)
    assert np.abs(seen - told).max() < off_px
    assert not np.array_equal(after.image, straight.image)


def test_a_bend_moves_boxes_by_more_than_they_are_off() -> None:
    before = an_ellipse((140, 120), (60, 34))
    config = STILL.model_copy(update={"bend": MOST})
    moved = [
        np.abs(sides_of(augment(before, config, np.random.default_rng(s)))[1] - sides_of(before)[1]) for s in range(8)
    ]
    assert max(each.max() for each in moved) > 6


def test_a_bend_moves_no_other_draw() -> None:
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 1)).astype(np.uint8), (0, 0), 4)[..., None]
    before = replace(an_ellipse((140, 120), (60, 34)), image=image)
    others = AugmentConfig(flip=0.5)
    for seed in range(5):
        straight = augment(before, others, np.random.default_rng(seed))
        hardly = augment(before, others.model_copy(update={"bend": 1e-6}), np.random.default_rng(seed))
        assert np.abs(straight.image.astype(int) - hardly.image).mean() < 0.5  # read to 1/32 px
        np.testing.assert_allclose(straight.boxes_cxcywh_rel, hardly.boxes_cxcywh_rel, atol=2e-3)


def test_nothing_folds() -> None:
    for seed in range(300):
        shifts = draw_shifts(96, MOST, np.random.default_rng(seed))
        across, down = np.gradient(shifts, axis=1), np.gradient(shifts, axis=0)
        area = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
        assert area.min() > 0


def test_a_box_of_a_pixel_goes() -> None:
    shifts = draw_shifts(SIZE, MOST, np.random.default_rng(0))
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 1 / SIZE, 1 / SIZE]], np.float32)
    assert bend_boxes(boxes, shifts)[1].tolist() == [True, False]


def test_no_box_is_no_trouble() -> None:
    boxes, visible = bend_boxes(np.zeros((0, 4), np.float32), draw_shifts(SIZE, MOST, np.random.default_rng(0)))
    assert boxes.shape == (0, 4)
    assert visible.shape == (0,)
