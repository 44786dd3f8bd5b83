from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from classify.labels import Targets
from classify.platt import Platt, fit_findings, fit_platt, fit_temperature


def drawn(count: int, slope: float, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, count)
    return logits, rng.random(count) < 1 / (1 + np.exp(-(slope * logits + offset)))


def test_without_a_pull_it_is_logistic_regression_on_smoothed_targets() -> None:
    logits, positive = drawn(200, 0.6, -1.5)
    found = fit_platt(logits, positive, strength=0)
    n_pos, n_neg = positive.sum(), (~positive).sum()
    target = np.where(positive, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    referee = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[logits, logits][:, None], np.r_[np.ones(200), np.zeros(200)], np.r_[target, 1 - target]
    )
    assert found.slope == pytest.approx(referee.coef_[0, 0], rel=1e-3)
    assert found.offset == pytest.approx(referee.intercept_[0], rel=1e-3)


def test_it_finds_the_truth_from_many_images() -> None:
    found = fit_platt(*drawn(20_000, 0.6, -1.5), strength=1)
    assert found.slope == pytest.approx(0.6, abs=0.03)
    assert found.offset == pytest.approx(-1.5, abs=0.06)


def test_the_slope_is_positive_even_for_a_classifier_that_is_wrong() -> None:
    logits, positive = drawn(300, -2.0, 0.0)
    assert 0 < fit_platt(logits, positive, strength=0).slope < 0.1


def test_the_pull_holds_the_slope_at_1() -> None:
    logits, positive = drawn(30, 3.0, 0.0)
    free, held = fit_platt(logits, positive, strength=0).slope, fit_platt(logits, positive, strength=1e4).slope
    assert abs(held - 1) < 0.01 < abs(free - 1)


def test_no_image_gives_the_identity_and_one_kind_stays_finite() -> None:
    assert fit_platt(np.zeros(0), np.zeros(0, bool), strength=1) == Platt(1.0, 0.0)
    for kind in (True, False):
        found = fit_platt(np.linspace(-1, 1, 8), np.full(8, kind), strength=1)
        assert np.isfinite([found.slope, found.offset]).all()
        assert (found.offset > 0) is kind
    # Eight equal logits without a positive: p = 1/(8 + 2).
    offset = fit_platt(np.zeros(8), np.zeros(8, bool), strength=1).offset
    assert 1 / (1 + np.exp(-offset)) == pytest.approx(0.1, abs=1e-4)


def test_masked_labels_do_not_count() -> None:
    logits, positive = drawn(60, 1.0, 0.5)
    values = np.stack([positive, ~positive], 1).astype(np.float32)
    mask = np.ones((60, 2), bool)
    mask[40:, 0] = False
    found = fit_findings(np.stack([logits, logits], 1), Targets(values, mask), 1.0)
    assert found[0] == fit_platt(logits[:40], positive[:40], 1.0)
    assert found[1] == fit_platt(logits, ~positive, 1.0)


def test_a_temperature_is_logistic_regression_without_an_offset() -> None:
    logits, positive = drawn(300, 0.6, -0.5)
    found = fit_temperature(logits, positive, strength=0)
    referee = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    assert found.slope == pytest.approx(referee.fit(logits[:, None], positive).coef_[0, 0], rel=1e-4)
    assert found.offset == 0


def test_a_temperature_is_pulled_to_1_and_needs_both_kinds() -> None:
    logits, positive = drawn(30, 3.0, 0.0)
    free, held = (fit_temperature(logits, positive, strength).slope for strength in (0, 1e4))
    assert abs(held - 1) < 0.01 < abs(free - 1)
    for kind in (True, False):
        assert fit_temperature(logits, np.full(30, kind), strength=0) == Platt(1.0, 0.0)
    assert fit_temperature(np.zeros(0), np.zeros(0, bool), strength=0) == Platt(1.0, 0.0)
    # Logits that tell the kinds apart want a slope without end: it stops at e^4.
    assert fit_temperature(np.array([-1.0, 1.0]), np.array([False, True]), 0).slope == pytest.approx(np.e**4, rel=1e-3)


def test_the_method_is_chosen_by_name() -> None:
    logits, positive = drawn(60, 0.5, 0.5)
    counted = Targets(positive[:, None].astype(np.float32), np.ones((60, 1), bool))
    assert fit_findings(logits[:, None], counted, 1.0, "none") == [Platt()]
    assert fit_findings(logits[:, None], counted, 1.0, "temperature") == [fit_temperature(logits, positive, 1.0)]
    assert fit_findings(logits[:, None], counted, 1.0, "platt") == [fit_platt(logits, positive, 1.0)]
