from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from eval.reliability import brier_score, calibration_error, log_loss, reliability_bins

PROBABILITY, POSITIVE = np.array([0.68, 0.72, 1.0, 0.0]), np.array([True, False, True, True])
ONCE = np.ones((4, 1))


def test_brier_score_and_log_loss_equal_scikit_learn_under_weights() -> None:
    rng = np.random.default_rng(2)
    probability, positive = rng.random(50), rng.random(50) < 0.4
    weights = rng.integers(0, 4, (50, 3)).astype(float)
    brier, loss = brier_score(probability, positive, weights), log_loss(probability, positive, weights)
    for draw, weight in enumerate(weights.T):
        assert brier[draw] == pytest.approx(
            sklearn.metrics.brier_score_loss(positive, probability, sample_weight=weight)
        )
        assert loss[draw] == pytest.approx(sklearn.metrics.log_loss(positive, probability, sample_weight=weight))


def test_by_hand() -> None:
    probability, positive = np.array([0.8, 0.4, 1.0]), np.array([True, False, False])
    assert brier_score(probability, positive, np.ones((3, 1))) == pytest.approx((0.04 + 0.16 + 1) / 3)
    # A certain probability that is wrong costs ln 1e7, not infinity.
    expected = (-np.log(0.8) - np.log(0.6) + 7 * np.log(10)) / 3
    assert log_loss(probability, positive, np.ones((3, 1))) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # .68 and .72 share the bin [10/15, 11/15): mean .7, half positive, gap .2. 1.0 is in the last bin, gap 0.
    # 0 is in the first, gap 1: (2 * .2 + 0 + 1) / 4.
    assert calibration_error(PROBABILITY, POSITIVE, ONCE) == pytest.approx((2 * 0.2 + 1) / 4)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False]), np.ones((2, 1))) == 0


def test_a_weight_is_a_repetition() -> None:
    rng = np.random.default_rng(4)
    probability, positive = rng.random(30), rng.random(30) < 0.5
    times = rng.integers(0, 3, 30)
    again = np.repeat(probability, times), np.repeat(positive, times)
    found = calibration_error(probability, positive, times[:, None].astype(float))
    assert found == pytest.approx(calibration_error(*again, np.ones((len(again[0]), 1))))
    assert found > 0


def test_no_image_is_undefined() -> None:
    nothing = np.zeros(0), np.zeros(0, bool), np.zeros((0, 2))
    for figure in (brier_score, calibration_error, log_loss):
        assert np.isnan(figure(*nothing)).tolist() == [True, True]
    assert reliability_bins(*nothing[:2]) == []


def test_bins_hold_mean_share_and_number() -> None:
    bins = reliability_bins(PROBABILITY, POSITIVE)
    assert [(one.share, one.images) for one in bins] == [(1.0, 1), (0.5, 2), (1.0, 1)]
    assert [one.probability for one in bins] == pytest.approx([0.0, 0.7, 1.0])
    gap = sum(abs(one.probability - one.share) * one.images for one in bins) / 4
    assert gap == pytest.approx(calibration_error(PROBABILITY, POSITIVE, ONCE)[0])
