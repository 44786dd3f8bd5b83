"""The learning rate's course, a function of the step.

An interrupted run needs no scheduler's state; `plateau` alone looks at the figures, and keeps two counts for it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from weakray.config import StrictModel

ScheduleName = Literal[
    "one_cycle",
    "constant",
    "cosine",
    "cosine_restarts",
    "triangular",
    "triangular2",
    "step",
    "warmup_cosine",
    "plateau",
]
_START, _END = 25.0, 1e4  # OneCycle's first rate is the peak over 25, its last the first over 10,000


class ScheduleConfig(StrictModel):
    """The learning rate's course over a training."""

    name: ScheduleName = Field(
        "one_cycle",
        description="one_cycle, constant, cosine, cosine_restarts, triangular or triangular2 (cyclic), step, "
        "warmup_cosine, or plateau (falls when early_stop.metric no longer gains)",
    )
    warmup_fraction: float = Field(
        0.3, ge=0, le=1, description="part of the steps in which the rate rises: one_cycle, warmup_cosine"
    )
    lowest_fraction: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="lowest rate over the peak: all but one_cycle, constant and step",
    )
    cycle_epochs: float = Field(
        5.0, gt=0, description="length of a cycle (the first, of restarts): cosine_restarts, triangular, triangular2"
    )
    cycle_growth: int = Field(1, ge=1, description="each cycle's length over the one's before: cosine_restarts")
    drop_factor: float = Field(0.1, gt=0, lt=1, description="rate after a drop over the one before: step, plateau")
    drop_epochs: int = Field(5, ge=1, description="epochs from drop to drop: step")
    patience_epochs: int = Field(3, ge=0, description="epochs without a gain that are waited for: plateau")


def learning_rate(
    config: ScheduleConfig, peak: float, step: int, steps: int, steps_per_epoch: int, drops: int = 0
) -> float:
    """Rate of a step.

    Args:
        config: which course.
        peak: highest rate, > 0.
        step: from 0.
        steps: of the whole training.
        steps_per_epoch: of one epoch.
        drops: how often `plateau` has fallen so far.
    """
    floor, cycle = peak * config.lowest_fraction, config.cycle_epochs * steps_per_epoch
    match config.name:
        case "one_cycle":
            return one_cycle(step, steps, peak, config.warmup_fraction)
        case "constant":
            return peak
        case "cosine":
            return _cosine(peak, floor, step / max(steps - 1, 1))
        case "cosine_restarts":
            return _cosine(peak, floor, _within_cycle(step, cycle, config.cycle_growth))
        case "triangular" | "triangular2":
            at = step / cycle  # cycles done
            height = 1.0 if config.name == "triangular" else 0.5 ** math.floor(at)
            return floor + (peak - floor) * height * (1 - abs(2 * (at % 1) - 1))
        case "step":
            return peak * config.drop_factor ** (step // steps_per_epoch // config.drop_epochs)
        case "warmup_cosine":
            warmup = round(config.warmup_fraction * steps)
            if step < warmup:
                return peak * (step + 1) / (warmup + 1)
            return _cosine(peak, floor, (step - warmup) / max(steps - 1 - warmup, 1))
        case "plateau":
            return max(peak * config.drop_factor**drops, floor)


def one_cycle(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Learning rate of a step (from 0) of `steps`: cosine up to `peak`, then cosine down (Smith and Topin 2018).

    The momentum is not cycled.
    """
    top = warmup_fraction * steps - 1
    first, last = peak / _START, peak / _START / _END
    if step <= top:
        return _cosine(first, peak, step / top if top > 0 else 1.0)
    return _cosine(peak, last, (step - top) / max(steps - 1 - top, 1e-9))


def after_epoch(config: ScheduleConfig, waited: int, drops: int, gained: bool) -> tuple[int, int]:
    """What `plateau` counts, after an epoch: epochs waited for a gain, and drops."""
    waited = 0 if gained else waited + 1
    return (0, drops + 1) if waited > config.patience_epochs else (waited, drops)


def _within_cycle(step: int, first: float, growth: int) -> float:
    """How much of its cycle is done at a step, [0, 1): cycles of first, first·growth, first·growth² … steps."""
    length, left = first, float(step)
    while left >= length:
        left, length = left - length, length * growth
    return left / length


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
