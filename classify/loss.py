"""The training loss and the learning rate's course."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

_START, _END = 25.0, 1e4  # OneCycle's first rate is the peak over 25, its last the first over 10,000


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


def one_cycle(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Learning rate of a step (from 0) of `steps`: cosine up to `peak`, then cosine down (Smith and Topin 2018).

    A function of the step alone, so an interrupted run needs no scheduler state. The momentum is not cycled.
    """
    top = warmup_fraction * steps - 1
    first, last = peak / _START, peak / _START / _END
    if step <= top:
        return _cosine(first, peak, step / top if top > 0 else 1.0)
    return _cosine(peak, last, (step - top) / max(steps - 1 - top, 1e-9))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
