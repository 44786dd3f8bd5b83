"""Decisions against scikit-learn and hand-computed figures, and thresholds of highest F1."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from eval.decisions import confusion, decision_figures, decision_thresholds, probabilistic_f1


@pytest.mark.parametrize("images", [1, 3, 60])
def test_figures_equal_scikit_learn_under_weights(images: int) -> None:
    rng = np.random.default_rng(images)
    called, positive = rng.random(images) < 0.5, rng.random(images) < 0.4
    positive[0] = True
    weights = rng.integers(0, 4, (images, 3)).astype(float)
    weights[0] += 1
    found, counts = decision_figures(called, positive, weights), confusion(called, positive, weights)
    for draw, weight in enumerate(weights.T):
        matrix = confusion_matrix(positive, called, labels=[False, True], sample_weight=weight)
        assert [[counts["tn"][draw], counts["fp"][draw]], [counts["fn"][draw], counts["tp"][draw]]] == matrix.tolist()
        once = {"sample_weight": weight, "zero_division": 0.0}
        assert found["f1"][draw] == pytest.approx(f1_score(positive, called, **once))
        assert found["sensitivity"][draw] == pytest.approx(recall_score(positive, called, **once))
        if weight[~positive].sum():
            assert found["specificity"][draw] == pytest.approx(recall_score(~positive, ~called, **once))
        else:
            assert np.isnan(found["specificity"][draw])


def test_figures_by_hand() -> None:
    called, positive = np.array([True, True, True, False, False]), np.array([True, True, False, True, False])
    found = decision_figures(called, positive, np.ones((5, 1)))  # TP 2, FP 1, FN 1, TN 1
    assert found["f1"] == pytest.approx(4 / 6)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    doubled = decision_figures(called, positive, np.array([[1.0], [1.0], [1.0], [2.0], [1.0]]))  # FN 2
    assert doubled["f1"] == pytest.approx(4 / 7)


def test_without_one_kind_figures_are_undefined() -> None:
    called = np.array([True, False, False])
    absent = decision_figures(called, np.zeros(3, bool), np.ones((3, 1)))
    assert np.isnan([absent["f1"], absent["sensitivity"]]).all()
    assert absent["specificity"] == pytest.approx(2 / 3)
    assert np.isnan(decision_figures(called, np.ones(3, bool), np.ones((3, 1)))["specificity"])
    assert np.isnan(probabilistic_f1(np.array([0.3, 0.2, 0.1]), np.zeros(3, bool), np.ones((3, 1))))


def test_probabilistic_f1_by_hand() -> None:
    probability, positive = np.array([0.9, 0.4, 0.2]), np.array([True, False, True])
    # 2 (.9 + .2) / (.9 + .4 + .2 + 2); the last image twice: 2 (.9 + .4) / (1.5 + .2 + 3).
    found = probabilistic_f1(probability, positive, np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(found, [2.2 / 3.5, 2.6 / 4.7])
    # With decisions for probabilities it is F1.
    called = np.array([1.0, 1.0, 0.0])
    assert probabilistic_f1(called, positive, np.ones((3, 1))) == pytest.approx(f1_score(positive, called == 1))


def test_decision_thresholds_by_hand() -> None:
    # F1 = 2 TP / (called + 3), calling one more each time: 2/4, 2/5, 4/6, 4/7, 4/8, 4/9, 6/10. Best: 0.6 and above.
    probability = np.array([[0.4, 0.9, 0.2, 0.1, 0.8, 0.6, 0.3], [0.5] * 7], np.float32).T
    values = np.array([[0, 1, 0, 1, 0, 1, 0], [0] * 7], np.float32).T
    mask = np.ones((7, 2), bool)
    found, without = decision_thresholds(probability, values, mask, ["A", "B"])
    assert found["A"] == pytest.approx(0.5)
    assert found["B"] == 0.5
    assert without == ["B"]
    mask[[0, 2, 6], 0] = False  # without 0.4, 0.3 and 0.2 calling all four is best, 6/7: half the lowest
    assert decision_thresholds(probability, values, mask, ["A", "B"])[0]["A"] == pytest.approx(0.05)


def test_equal_probabilities_are_called_alike() -> None:
    probability = np.array([[0.8], [0.5], [0.5], [0.2]], np.float32)
    values = np.array([[1], [1], [0], [0]], np.float32)
    # At 0.8: 2·1/3. At 0.5 both ties are called: 2·2/5. Cutting between the ties would give 1, and cannot be had.
    found, _ = decision_thresholds(probability, values, np.ones((4, 1), bool), ["A"])
    assert found["A"] == pytest.approx(0.35)
