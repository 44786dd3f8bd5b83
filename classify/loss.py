"""The training loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from classify.labels import Targets, positive_weights
from weakray.config import StrictModel

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, values, mask, all (n, k) → ()


class LossConfig(StrictModel):
    """Binary cross-entropy."""

    pos_weight_cap: float = Field(10.0, ge=1, description="largest weight of the positives of a rare finding")


def criterion(config: LossConfig, counted: Targets, device: torch.device) -> Criterion:
    """The loss for labels as frequent as these."""
    weight = torch.from_numpy(positive_weights(counted, config.pos_weight_cap)).to(device)
    return lambda logits, values, mask: masked_bce(logits, values, mask, weight)


def masked_bce(logits: Tensor, values: Tensor, mask: Tensor, positive_weight: Tensor) -> Tensor:
    """Mean over the counted pairs of -[w·y·log p + (1 - y)·log(1 - p)]; 0 where none counts.

    Args:
        logits: `(n, k)`.
        values: `(n, k)`, 0 or 1.
        mask: `(n, k)` bool, True where the pair counts.
        positive_weight: `(k,)`, w.
    """
    each = binary_cross_entropy_with_logits(logits, values, pos_weight=positive_weight, reduction="none")
    return (each * mask).sum() / mask.sum().clamp(min=1)
