from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from classify.augment import AugmentConfig
from classify.batches import ahead, epoch_order, plain_batches, training_batches, turns
from classify.images import PreparedImages
from weakray.dataset import Dataset
from weakray.imaging import InputSpec, prepare, read_image

SPEC = InputSpec(size_px=48)


def test_cached_and_decoded_images_are_the_prepared_ones(dataset: Dataset) -> None:
    ids = dataset.ids_of("val")
    cached, decoded = (PreparedImages(dataset, ids, SPEC, cache) for cache in (True, False))
    expected = prepare(read_image(dataset.path_of(ids[2])), SPEC)[0]
    np.testing.assert_array_equal(decoded[2], expected)
    np.testing.assert_array_equal(cached[2], expected)
    assert cached[2] is cached[2]
    assert decoded[2] is not decoded[2]


def test_each_epoch_has_its_own_order_of_all_images() -> None:
    orders = [epoch_order(20, 1, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert epoch_order(20, 1, 0).tolist() == orders[0]
    assert epoch_order(20, 2, 0).tolist() != orders[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_workers_or_on_where_the_epoch_resumes(dataset: Dataset, workers: int) -> None:
    images = PreparedImages(dataset, dataset.ids_of("train"), SPEC, cache=True)
    batches = epoch_order(len(images), 9, 2)[:20].reshape(4, 5)
    whole = list(training_batches(images, list(batches), turns(list(batches)), AugmentConfig(), 9, 2, 1))
    rest = list(training_batches(images, list(batches[2:]), turns(list(batches))[2:], AugmentConfig(), 9, 2, workers))
    assert [pixels.shape for pixels in whole] == [(5, 1, 48, 48)] * 4
    assert whole[0].dtype == np.float32
    assert 0 <= whole[0].min() < whole[0].max() <= 1
    np.testing.assert_array_equal(np.stack(whole[2:]), np.stack(rest))


def test_plain_batches_keep_the_order_and_the_rest(dataset: Dataset) -> None:
    images = PreparedImages(dataset, dataset.ids_of("val"), SPEC, cache=False)
    made = list(plain_batches(images, np.arange(len(images)), 4, 2))
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


def test_opencv_works_on_one_thread_meanwhile() -> None:
    """Its pool would fight torch's for the cores."""
    before, seen = cv2.getNumThreads(), list[int]()
    cv2.setNumThreads(2)

    def make(part: np.ndarray) -> np.ndarray:
        seen.append(cv2.getNumThreads())
        return part.astype(np.float32)

    assert len(list(ahead(make, [np.array([i]) for i in range(5)], workers=2))) == 5
    assert seen == [1] * 5
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(before)
