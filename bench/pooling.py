"""AP50 with its bootstrap draws, pooled over seeds: a figure of several seeds is the mean over them, draw by draw.

The seeds' test films have no patient in common and their draws differ, so that the interval narrows as it should. It
tells of the films that are scored, not of the chance in the films and steps of a training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eval.box_scores import Float64Array
from eval.intervals import Comparison, Interval, comparison_of, interval_of

Draws = tuple[float | None, ...]  # as a file holds them: None where a figure is undefined
_DIGITS = 5


def rounded(drawn: Float64Array) -> Draws:
    """Figures on draws as a file holds them."""
    return tuple(round(value, _DIGITS) if math.isfinite(value) else None for value in drawn.tolist())


@dataclass(frozen=True, eq=False)
class Figure:
    """AP50, and the same on every draw `(n_draws,)`; NaN where it is undefined."""

    value: float
    drawn: Float64Array

    @classmethod
    def of(cls, value: float, drawn: Draws) -> Figure:
        """From a file."""
        return cls(value, np.array(drawn, np.float64))

    @classmethod
    def mean(cls, figures: Iterable[Figure]) -> Figure:
        """The mean over seeds, draw by draw; each must have as many draws."""
        each = list(figures)
        return cls(float(np.mean([own.value for own in each])), np.mean([own.drawn for own in each], axis=0))

    @property
    def interval(self) -> Interval:
        """With its 95 % interval."""
        return interval_of(self.value, self.drawn)

    def less(self, other: Figure) -> Comparison:
        """The difference on the same draws."""
        return comparison_of(self.value, self.drawn, other.value, other.drawn)

    def over(self, other: Figure) -> Interval:
        """The ratio on the same draws."""
        return comparison_of(self.value, self.drawn, other.value, other.drawn, "ratio").interval
