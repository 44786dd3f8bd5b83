from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from eval.curves import pr_points, roc_points, thinned


@pytest.mark.parametrize("decimals", [1, 12])
def test_points_are_those_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    probability, positive = rng.random(60).round(decimals), rng.random(60) < 0.3
    x, y, _ = roc_curve(positive, probability, drop_intermediate=False)
    np.testing.assert_allclose(roc_points(probability, positive), np.stack([x, y], 1))
    precision, recall, _ = precision_recall_curve(positive, probability)
    found = np.array(pr_points(probability, positive))
    np.testing.assert_allclose(found[1:], np.stack([recall, precision], 1)[::-1][1:])
    assert found[0].tolist() == [0.0, found[1, 1]]


def test_thinning_keeps_both_ends_and_every_step() -> None:
    points = [(i / 1000, 0.0) for i in range(1001)]
    kept = thinned(points, 0.01)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert 95 <= len(kept) <= 102
    assert thinned([(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)], 0.1) == [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert thinned([(0.2, 0.3)], 0.1) == [(0.2, 0.3)]
