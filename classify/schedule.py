"""The learning rate's course."""

from __future__ import annotations

import math

from pydantic import Field

from weakray.config import StrictModel

_START, _END = 25.0, 1e4  # OneCycle's first rate is the peak over 25, its last the first over 10,000


class ScheduleConfig(StrictModel):
    """OneCycle over all epochs."""

    warmup_fraction: float = Field(0.3, ge=0, le=1, description="part of the steps in which the rate rises")


def learning_rate(config: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """Rate of a step (from 0) of `steps`."""
    return one_cycle(step, steps, peak, config.warmup_fraction)


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
