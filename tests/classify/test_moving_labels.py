from __future__ import annotations

import numpy as np
import pytest
import torch

from classify.labels import UNSURE, Targets
from classify.moving_labels import MovingLabels, moved
from weakray.errors import ConfigError, RunError

START = Targets(np.array([[1, 0], [0, 0.6], [0, 1]], np.float32), np.array([[True, True], [False, True], [True, True]]))


def test_moved_by_hand() -> None:
    found = moved(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.2, 0.2, 0.5]), 0.75)
    assert found.tolist() == pytest.approx([0.8, 0.05, 0.5])


def test_only_rows_that_were_seen_and_labels_that_count_move() -> None:
    labels = MovingLabels(START, alpha=0.9)
    probability = torch.tensor([[0.5, 0.5], [0.0, 1.0]], requires_grad=True)
    labels.update(torch.tensor([1, 0]), probability)
    expected = [[0.9, 0.1], [0.0, 0.9 * 0.6 + 0.05], [0.0, 1.0]]
    assert labels.state.flatten().tolist() == pytest.approx([value for row in expected for value in row])
    assert labels.of(torch.tensor([1])).tolist() == [pytest.approx(expected[1])]
    assert not labels.state.requires_grad
    assert START.values[0].tolist() == [1, 0]  # what was given stays


def test_a_row_given_twice_moves_twice() -> None:
    labels = MovingLabels(START, alpha=0.5)
    labels.update(torch.tensor([0, 0]), torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert labels.of(torch.tensor([0])).tolist() == [[0.75, 0.75]]


def test_they_go_on_from_a_state() -> None:
    rng = torch.Generator().manual_seed(0)
    looks = [(torch.tensor([i % 3, (i + 1) % 3]), torch.rand(2, 2, generator=rng)) for i in range(6)]
    whole, first, second = (MovingLabels(START, alpha=0.7) for _ in range(3))
    for look in looks:
        whole.update(*look)
    for look in looks[:3]:
        first.update(*look)
    second.restore(first.state)
    kept = first.state
    for look in looks[3:]:
        second.update(*look)
    assert torch.equal(second.state, whole.state)
    assert torch.equal(first.state, kept)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 <= alpha < 1, got 1"):
        MovingLabels(START, alpha=1.0)
    with pytest.raises(ConfigError, match="multiclass labels cannot move"):
        MovingLabels(Targets(np.full((1, 1), UNSURE, np.float32), np.ones((1, 1), bool)), 0.9)
    with pytest.raises(RunError, match=r"expected shape \(3, 2\), got \(2, 2\); the checkpoint is of another dataset"):
        MovingLabels(START, 0.9).restore(torch.zeros(2, 2))
