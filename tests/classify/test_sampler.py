from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from classify.sampler import Sampler, SamplerConfig, image_weights
from weakray.errors import ConfigError, DataError

# finding 0 on four of eight images, finding 1 on one (with finding 0), three without any
VALUES = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [0, 0], [0, 0], [0, 0], [0, 1]], np.float32)


def sampler(images: int = 20, batch_size: int = 4, seed: int = 0, **settings: Any) -> Sampler:
    return Sampler.make(SamplerConfig(**settings), np.ones((images, 1), np.float32), batch_size, seed)


def test_each_epoch_has_its_own_order_of_all_images() -> None:
    orders = [sampler(seed=1).order(epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert sampler(seed=1).order(0).tolist() == orders[0]
    assert sampler(seed=2).order(0).tolist() != orders[0]


def test_what_does_not_fill_a_batch_waits_for_another_epoch() -> None:
    ten = sampler(10)
    assert [len(rows) for rows in ten.batches(0)] == [4, 4]
    assert np.concatenate(ten.batches(0)).tolist() == ten.order(0)[:8].tolist()
    assert (ten.batches_per_epoch, ten.left_out) == (2, 2)
    assert [len(rows) for rows in sampler(3).batches(0)] == [3]
    assert sampler(3).left_out == 0


def test_fewer_images_an_epoch_are_other_ones_each_time() -> None:
    drawn = [sampler(images_per_epoch=8).order(epoch).tolist() for epoch in range(20)]
    assert all(len(set(order)) == 8 for order in drawn)
    assert set().union(*drawn) == set(range(20))


def test_weights_by_hand() -> None:
    assert image_weights(SamplerConfig(), VALUES).tolist() == [1] * 8
    none_rarely = image_weights(SamplerConfig(no_finding_weight=0.1), VALUES)
    assert none_rarely.tolist() == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 1])
    rare_often = image_weights(SamplerConfig(weights="inverse_frequency", no_finding_weight=0.5), VALUES)
    # 8 images: finding 0 on 4, finding 1 on 2, none on 3
    assert rare_often.tolist() == pytest.approx([2, 2, 2, 4, 4 / 3, 4 / 3, 4 / 3, 4])


def drawn_often(replacement: bool, epochs: int, **settings: Any) -> np.ndarray:
    config = SamplerConfig(replacement=replacement, **settings)
    made = Sampler.make(config, VALUES, 2, 5)
    return np.array([np.bincount(made.order(epoch), minlength=8) for epoch in range(epochs)])


def test_with_replacement_images_come_as_often_as_they_weigh() -> None:
    counts = drawn_often(True, 400, images_per_epoch=50, weights="inverse_frequency", no_finding_weight=0.5)
    share = np.array([2, 2, 2, 4, 4 / 3, 4 / 3, 4 / 3, 4]) / 18
    np.testing.assert_allclose(counts.sum(0) / counts.sum(), share, atol=0.01)
    assert counts.max() > 1


def test_without_replacement_the_draws_are_numpys_weighted_ones() -> None:
    counts = drawn_often(False, 4000, images_per_epoch=3, no_finding_weight=0.1)
    assert counts.max() == 1
    random = np.random.default_rng(0)
    weights = np.array([1, 1, 1, 1, 0.1, 0.1, 0.1, 1])
    peer = np.zeros(8)
    for _ in range(4000):
        peer[random.choice(8, 3, replace=False, p=weights / weights.sum())] += 1
    np.testing.assert_allclose(counts.mean(0), peer / 4000, atol=0.03)


def test_images_of_no_weight_are_never_shown() -> None:
    for replacement in (False, True):
        counts = drawn_often(replacement, 50, no_finding_weight=0)
        assert counts[:, 4:7].sum() == 0
        assert (counts.sum(1) == 5).all()


@pytest.mark.parametrize(
    ("settings", "images", "error", "says"),
    [
        ({"images_per_epoch": 21}, 20, ConfigError, "images_per_epoch: expected at most 20, .* got 21"),
        ({}, 1, DataError, r"expected at least 2 images to draw from, got 1 \(of 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings: dict[str, Any], images: int, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        sampler(images, **settings)


def test_weights_that_change_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights change nothing where an epoch shows each of the 8 images once"):
        Sampler.make(SamplerConfig(no_finding_weight=0.1), VALUES, 2, 0)
    Sampler.make(SamplerConfig(no_finding_weight=0.1, replacement=True), VALUES, 2, 0)
    Sampler.make(SamplerConfig(no_finding_weight=0.1, images_per_epoch=7), VALUES, 2, 0)
