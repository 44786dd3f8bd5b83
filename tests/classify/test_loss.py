from __future__ import annotations

import math

import pytest
import torch

from classify.loss import masked_bce


def test_masked_bce_by_hand() -> None:
    three = math.log(3)  # σ(log 3) = 3/4
    logits = torch.tensor([[three, -three], [three, 50.0]])
    values = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    # -log 3/4 · 2, -log 1/4 · 5, -log 1/4
    expected = (2 * math.log(4 / 3) + 5 * math.log(4) + math.log(4)) / 3
    assert masked_bce(logits, values, mask, torch.tensor([2.0, 5.0])).item() == pytest.approx(expected, rel=1e-6)


def test_masked_pairs_have_no_gradient_and_an_empty_batch_is_0() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    mask = torch.tensor([[True, False]] * 3)
    masked_bce(logits, torch.zeros(3, 2), mask, torch.ones(2)).backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].abs().sum() == 0
    assert logits.grad[:, 0].tolist() == pytest.approx([1 / 6] * 3)
    assert masked_bce(logits, torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bool), torch.ones(2)).item() == 0
