from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from classify.labels import Targets
from classify.weights import GreedyMetric, fit_weights, greedy_weights, mean_score

Array = np.ndarray


def made(members: int = 3, images: int = 150, seed: int = 0) -> tuple[Array, Targets]:
    """Members of falling quality: the first follows the labels most."""
    rng = np.random.default_rng(seed)
    values = (rng.random((images, 2)) < 0.4).astype(np.float32)
    noise = np.arange(1, members + 1)[:, None, None] * rng.normal(0, 1.2, (members, images, 2))
    return 2 * values - 1 + noise, Targets(values, np.ones((images, 2), bool))


def loss(weights: Array, logits: Array, counted: Targets, strength: float, of_logits: bool) -> float:
    sigmoid = 1 / (1 + np.exp(-(np.tensordot(weights, logits, 1) if of_logits else logits)))
    mixed = sigmoid if of_logits else np.tensordot(weights, sigmoid, 1)
    members = len(weights)
    given = np.where(counted.values == 1, mixed, 1 - mixed)[counted.mask]
    return float(-np.log(given).sum() + strength * members * ((weights - 1 / members) ** 2).sum())


@pytest.mark.parametrize("of_logits", [True, False])
@pytest.mark.parametrize("strength", [0.0, 5.0])
def test_weights_are_the_best_on_a_fine_grid(of_logits: bool, strength: float) -> None:
    logits, counted = made()
    counted.mask[20:40, 1] = False
    found = np.array(fit_weights(logits, counted, strength, of_logits=of_logits))
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    grid = [np.array([a, b, 40 - a - b]) / 40 for a in range(41) for b in range(41 - a)]
    best = min(loss(point, logits, counted, strength, of_logits) for point in grid)
    assert loss(found, logits, counted, strength, of_logits) <= best + 1e-6


def test_the_better_member_weighs_more_and_the_pull_evens_out() -> None:
    logits, counted = made()
    free, held = (fit_weights(logits, counted, strength, of_logits=False) for strength in (0.0, 1e6))
    assert free[0] > free[1] > free[2]
    assert held == pytest.approx([1 / 3] * 3, abs=1e-3)
    assert fit_weights(logits, Targets(counted.values, np.zeros((150, 2), bool)), 1.0, of_logits=True) == [1 / 3] * 3
    assert fit_weights(logits[:1], counted, 1.0, of_logits=True) == [1.0]


def test_a_member_that_is_sure_and_wrong_gets_nothing() -> None:
    values = np.array([[1.0], [0.0], [1.0], [0.0]], np.float32)
    sure = 80 * (2 * values - 1)
    found = fit_weights(np.stack([sure, -sure]), Targets(values, np.ones((4, 1), bool)), 0.0, of_logits=False)
    assert found == pytest.approx([1.0, 0.0], abs=1e-6)


def test_forward_selection_by_hand() -> None:
    # The score is minus the distance from 0.5: of 0.2 alone 0.3, of 0.2 and 0.9 (mean 0.55) 0.05, of 0.2 twice and 0.9
    # (0.43) 0.07. The best bag met has one of each.
    units = np.array([0.9, 1.0, 0.2]).reshape(3, 1, 1)

    def near_half(mixed: Array) -> float:
        return -abs(float(mixed[0, 0]) - 0.5)

    for rounds, bag, reached in ((1, [0.0, 0.0, 1.0], -0.3), (2, [0.5, 0.0, 0.5], -0.05), (3, [0.5, 0.0, 0.5], -0.05)):
        weights, score = greedy_weights(units, near_half, rounds)
        assert weights == bag
        assert score == pytest.approx(reached)
    # With replacement: five times 0.4 and once 1.0 have the mean 0.5.
    weights, score = greedy_weights(np.array([1.0, 0.4]).reshape(2, 1, 1), near_half, 6)
    assert weights == pytest.approx([1 / 6, 5 / 6])
    assert score == pytest.approx(0.0)


def test_among_equals_the_first_is_taken_and_an_undefined_score_gives_equal_weights() -> None:
    units = np.full((3, 1, 1), 0.4)
    assert greedy_weights(units, lambda mixed: float(mixed.max()), 5)[0] == [1.0, 0.0, 0.0]
    assert greedy_weights(units, lambda _: None, 5) == ([1 / 3] * 3, None)


@pytest.mark.parametrize("metric", ["macro_auroc", "macro_auprc", "log_loss"])
def test_mean_score_is_that_of_scikit_learn(metric: GreedyMetric) -> None:
    rng = np.random.default_rng(1)
    probability, values = rng.random((60, 3)), (rng.random((60, 3)) < 0.3).astype(np.float32)
    mask = rng.random((60, 3)) < 0.8
    values[:, 2] = 0  # no positive: not in the mean
    referee = {"macro_auroc": roc_auc_score, "macro_auprc": average_precision_score, "log_loss": log_loss}[metric]
    expected = np.mean([referee(values[mask[:, k], k], probability[mask[:, k], k]) for k in (0, 1)])
    sign = -1 if metric == "log_loss" else 1
    assert mean_score(probability, Targets(values * mask, mask), metric) == pytest.approx(sign * expected)
    assert mean_score(probability, Targets(values * 0, mask), metric) is None
