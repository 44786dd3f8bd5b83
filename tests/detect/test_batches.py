"""Augmentation and batches."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detect.augment import AugmentConfig, augment, move_boxes
from detect.batches import batches, collate
from detect.pasting import Regions
from detect.yolo_folder import Example

STILL = AugmentConfig(scale=0, translate=0, rotate_deg=0, brightness=0, contrast=0)
STRONG = AugmentConfig(scale=0.4, translate=0.15, rotate_deg=20, flip=0.5)


def example(seed: int = 0, size: int = 64, boxes: int = 2) -> Example:
    rng = np.random.default_rng(seed)
    centre_and_sides = np.concatenate([rng.uniform(0.3, 0.7, (boxes, 2)), rng.uniform(0.1, 0.3, (boxes, 2))], axis=1)
    image = rng.integers(0, 256, (size, size, 1)).astype(np.uint8)
    classes = rng.integers(0, 3, boxes)
    weights = np.linspace(1, 0.5, boxes, dtype=np.float32)
    elsewhere = np.array([1, 0.25 * (seed % 4), 1], np.float32)
    return Example(f"image{seed}", image, classes, centre_and_sides.astype(np.float32), weights, elsewhere)


def one_box(image: np.ndarray, box: np.ndarray) -> Example:
    return Example("e", image, np.array([1]), box, np.ones(1, np.float32), np.ones(3, np.float32))


def test_nothing_varies_when_all_is_off() -> None:
    still = augment(example(), STILL, np.random.default_rng(3))
    np.testing.assert_array_equal(still.image, example().image)
    np.testing.assert_allclose(still.boxes_cxcywh_rel, example().boxes_cxcywh_rel, atol=1e-7)


def test_mirror_by_hand() -> None:
    config = STILL.model_copy(update={"flip": 1.0})
    before = example()
    after = augment(before, config, np.random.default_rng(0))
    np.testing.assert_array_equal(after.image, before.image[:, ::-1])
    np.testing.assert_allclose(after.boxes_cxcywh_rel[:, 0], 1 - before.boxes_cxcywh_rel[:, 0], atol=1e-6)
    np.testing.assert_allclose(after.boxes_cxcywh_rel[:, 1:], before.boxes_cxcywh_rel[:, 1:], atol=1e-6)


def test_a_quarter_turn_and_a_shift_by_hand() -> None:
    # x' = -y + 40, y' = x + 10 in a square of 40: the box 10…20 × 4…10 goes to 30…36 × 20…30
    matrix = np.array([[0.0, -1.0, 40.0], [1.0, 0.0, 10.0]])
    boxes = np.array([[15 / 40, 7 / 40, 10 / 40, 6 / 40]], np.float32)
    moved, visible = move_boxes(boxes, matrix, 40)
    np.testing.assert_allclose(moved * 40, [[33, 25, 6, 10]], atol=1e-4)
    assert visible.tolist() == [True]


@pytest.mark.parametrize(("shift", "kept"), [(6.9, True), (7.1, False)])
def test_a_box_goes_when_less_than_three_tenths_stay_inside(shift: float, kept: bool) -> None:
    boxes = np.array([[0.875, 0.5, 0.25, 0.5]], np.float32)  # 30…40 of 40: 10 px wide at the right border
    matrix = np.array([[1.0, 0.0, shift], [0.0, 1.0, 0.0]])
    assert move_boxes(boxes, matrix, 40)[1].tolist() == [kept]


@pytest.mark.parametrize("seed", range(5))
def test_boxes_follow_the_image(seed: int) -> None:
    size, sides = 256, (60, 34)
    image = np.zeros((size, size, 1), np.uint8)
    cv2.ellipse(image, (140, 120), (sides[0] // 2, sides[1] // 2), 0, 0, 360, 255, -1, cv2.LINE_AA)
    box = np.array([[140.5 / size, 120.5 / size, sides[0] / size, sides[1] / size]], np.float32)
    moved = augment(one_box(image, box), STRONG, np.random.default_rng(seed))
    rows, columns = np.nonzero(moved.image[..., 0] > 100)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    cx, cy, width, height = moved.boxes_cxcywh_rel[0] * size
    told = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    assert np.abs(seen - told).max() < 2


def test_a_batch_depends_on_its_step_alone() -> None:
    examples = [example(seed) for seed in range(5)]
    whole = list(batches(examples, Regions(), STRONG, 3, (1, 0), range(6)))
    ahead = list(batches(examples, Regions(), STRONG, 3, (1, 0), range(6), makers=4))
    tail = list(batches(examples, Regions(), STRONG, 3, (1, 0), range(4, 6)))
    for a, b in zip([*whole, *whole[4:]], [*ahead, *tail], strict=True):
        assert all(a[name].equal(b[name]) for name in a)
    other = next(batches(examples, Regions(), STRONG, 3, (1, 1), range(1)))
    assert not other["img"].equal(whole[0]["img"])
    assert list(batches(examples, Regions(), STRONG, 3, (1, 0), range(2, 2))) == []


def test_every_pass_shows_every_example_once() -> None:
    examples = [example(seed, boxes=0) for seed in range(5)]
    marked = [replace(e, image=np.full_like(e.image, 10 * i)) for i, e in enumerate(examples)]
    shown = np.concatenate(
        [b["img"][:, 0, 0, 0].numpy() for b in batches(marked, Regions(), STILL, 3, (0, 0), range(5))]
    )
    passes = np.rint(shown * 25.5).astype(int).reshape(3, 5)
    assert [sorted(row) for row in passes.tolist()] == [[0, 1, 2, 3, 4]] * 3
    assert passes[0].tolist() != passes[1].tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_collated_shapes(count: int) -> None:
    batch = collate([example(seed, boxes=seed) for seed in range(count)])
    total = sum(range(count))
    assert batch["img"].shape == (count, 1, 64, 64)
    assert float(batch["img"].max()) <= 1
    assert (batch["cls"].shape, batch["bboxes"].shape) == ((total, 1), (total, 4))
    assert batch["batch_idx"].tolist() == [float(index) for index in range(count) for _ in range(index)]
    assert batch["weights"].tolist() == [1.0, 1.0, 0.5][:total]  # of one box, and of two
    assert batch["elsewhere"].tolist() == [[1, 0.25 * index, 1] for index in range(count)]


def test_a_box_that_leaves_takes_its_weight_along() -> None:
    boxes = np.array([[0.04, 0.5, 0.08, 0.2], [0.6, 0.5, 0.3, 0.2]], np.float32)
    whole = replace(example(boxes=2), boxes_cxcywh_rel=boxes)
    shift = AugmentConfig(scale=0, translate=0.3, rotate_deg=0)
    moved = [augment(whole, shift, np.random.default_rng(seed)) for seed in range(20)]
    left = {tuple(m.weights.tolist()) for m in moved}
    assert (0.5,) in left  # the first box is gone, the second one's weight stayed with it
    assert all(len(m.weights) == len(m.class_id) for m in moved)
