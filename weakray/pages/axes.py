"""Where things stand on the axis of an inline SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where (px of the drawing) and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low`…`high` (data) to `start`…`end` (px of the drawing)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Position of a value, cut at the axis' ends, to a tenth of a px."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def nice_step(span: float, at_most: int) -> float:
    """The smallest of 1, 2, 2.5, 5 × 10ⁿ that cuts `span` > 0 into at most `at_most` steps."""
    raw = span / at_most
    scale = 10.0 ** math.floor(math.log10(raw))
    return next(scale * m for m in (1, 2, 2.5, 5, 10) if scale * m >= raw * (1 - 1e-9))
