from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from classify.data import (
    AugmentConfig,
    Augmenter,
    PreparedImages,
    ahead,
    epoch_batches,
    epoch_order,
    plain_batches,
    training_batches,
)
from weakray.dataset import Dataset
from weakray.imaging import InputSpec, prepare, read_image

OFF = AugmentConfig(translate=0, rotate_deg=0, scale=0, brightness_contrast=0)
SPEC = InputSpec(size_px=48)


def film(seed: int = 0, channels: int = 1) -> np.ndarray:
    shape = (48, 48) if channels == 1 else (48, 48, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_cached_and_decoded_images_are_the_prepared_ones(dataset: Dataset) -> None:
    ids = dataset.ids_of("val")
    cached, decoded = (PreparedImages(dataset, ids, SPEC, cache) for cache in (True, False))
    expected = prepare(read_image(dataset.path_of(ids[2])), SPEC)[0]
    np.testing.assert_array_equal(decoded[2], expected)
    np.testing.assert_array_equal(cached[2], expected)
    assert cached[2] is cached[2]
    assert decoded[2] is not decoded[2]


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_depends_on_seed_epoch_and_row_alone(channels: int) -> None:
    image = film(channels=channels)
    first, second = Augmenter(AugmentConfig(), 5), Augmenter(AugmentConfig(), 5)
    second(image, 0, 0)  # what was asked before does not matter
    changed = first(image, 3, 7)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, second(image, 3, 7))
    for other in (first(image, 4, 7), first(image, 3, 8), Augmenter(AugmentConfig(), 6)(image, 3, 7), image):
        assert (changed != other).mean() > 0.5


def test_augmentation_leaves_the_original_alone_and_0_turns_it_off() -> None:
    image = film()
    before = image.copy()
    Augmenter(AugmentConfig(), 0)(image, 0, 0)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(Augmenter(OFF, 0)(image, 0, 0), image)


def test_the_flip_mirrors_half_of_the_images_sideways() -> None:
    augmenter = Augmenter(OFF.model_copy(update={"horizontal_flip": True}), 0)
    image = film()
    made = [augmenter(image, 0, row) for row in range(200)]
    flipped = [np.array_equal(one, image[:, ::-1]) for one in made]
    assert all(flip or np.array_equal(one, image) for flip, one in zip(flipped, made, strict=True))
    assert 70 < sum(flipped) < 130


def test_rotation_and_shift_stay_within_their_limits() -> None:
    image = np.zeros((96, 96), np.uint8)
    image[47:50, 47:50] = 255  # a spot in the centre moves by the shift alone
    augmenter = Augmenter(OFF.model_copy(update={"translate": 0.1, "rotate_deg": 15.0}), 0)
    at = np.array([np.argwhere(augmenter(image, 0, row) > 60).mean(0) for row in range(60)])
    assert np.abs(at - 48).max() <= 0.1 * 96 + 1.5
    assert np.ptp(at, axis=0).min() > 8


def test_each_epoch_has_its_own_order_of_all_images() -> None:
    orders = [epoch_order(20, 1, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert epoch_order(20, 1, 0).tolist() == orders[0]
    assert epoch_order(20, 2, 0).tolist() != orders[0]


def test_what_does_not_fill_a_batch_waits_for_another_epoch() -> None:
    batches = epoch_batches(10, 4, 0, 0)
    assert [len(rows) for rows in batches] == [4, 4]
    assert np.concatenate(batches).tolist() == epoch_order(10, 0, 0)[:8].tolist()
    assert [len(rows) for rows in epoch_batches(3, 4, 0, 0)] == [3]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_workers_or_on_where_the_epoch_resumes(dataset: Dataset, workers: int) -> None:
    images = PreparedImages(dataset, dataset.ids_of("train"), SPEC, cache=True)
    batches = epoch_batches(len(images), 5, 9, 2)
    whole = list(training_batches(images, batches, AugmentConfig(), 9, 2, 1))
    rest = list(training_batches(images, batches[2:], AugmentConfig(), 9, 2, workers))
    assert [pixels.shape for pixels in whole] == [(5, 1, 48, 48)] * 4
    assert whole[0].dtype == np.float32
    assert 0 <= whole[0].min() < whole[0].max() <= 1
    np.testing.assert_array_equal(np.stack(whole[2:]), np.stack(rest))


def test_plain_batches_keep_the_order_and_the_rest(dataset: Dataset) -> None:
    images = PreparedImages(dataset, dataset.ids_of("val"), SPEC, cache=False)
    made = list(plain_batches(images, 4, 2))
    assert [len(pixels) for pixels in made] == [4, 4, 2]
    np.testing.assert_array_equal(made[2][1, 0], images[9].astype(np.float32) / np.float32(255))


def test_batches_are_not_made_far_ahead_and_errors_come_through() -> None:
    made: list[int] = []
    lock = threading.Lock()

    def make(part: np.ndarray) -> np.ndarray:
        with lock:
            made.append(int(part[0]))
        if part[0] == 8:
            raise ValueError("broken file")
        return part.astype(np.float32)

    iterator = ahead(make, [np.array([i]) for i in range(9)], workers=2)
    assert next(iterator)[0] == 0
    time.sleep(0.05)
    assert len(made) <= 4
    assert [int(part[0]) for part in (next(iterator) for _ in range(7))] == list(range(1, 8))
    with pytest.raises(ValueError, match="broken file"):
        next(iterator)
