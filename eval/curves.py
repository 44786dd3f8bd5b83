"""ROC and precision–recall curves as points, thinned to what a drawing can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weakray.detections import BoolArray

Float64Array = npt.NDArray[np.float64]
Point = tuple[float, float]


def roc_points(probability: Float64Array, positive: BoolArray) -> list[Point]:
    """(1 - specificity, sensitivity) at every distinct probability, from (0, 0) to (1, 1).

    Args:
        probability: `(n,)`.
        positive: `(n,)`, of both kinds.
    """
    true, false = _counts(probability, positive)
    return list(zip((false / false[-1]).tolist(), (true / true[-1]).tolist(), strict=True))


def pr_points(probability: Float64Array, positive: BoolArray) -> list[Point]:
    """(recall, precision) at every distinct probability, from the highest; the first precision is held to recall 0.

    Args:
        probability: `(n,)`.
        positive: `(n,)`, with a positive.
    """
    true, false = (count[1:] for count in _counts(probability, positive))
    precision, recall = true / (true + false), true / true[-1]
    return [(0.0, float(precision[0])), *zip(recall.tolist(), precision.tolist(), strict=True)]


def thinned(points: Sequence[Point], step: float) -> list[Point]:
    """The points that lie at least `step` from the last kept one along an axis, and both ends."""
    kept = [points[0]]
    for point in points[1:-1]:
        if max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) >= step:
            kept.append(point)
    return [*kept, points[-1]] if len(points) > 1 else kept


def _counts(probability: Float64Array, positive: BoolArray) -> tuple[Float64Array, Float64Array]:
    """True and false positives called at each distinct probability, best first, after a leading 0."""
    order = np.argsort(-probability, kind="stable")
    ranked, sign = probability[order], positive[order]
    last = np.append(ranked[1:] < ranked[:-1], True)
    true, false = np.cumsum(sign)[last], np.cumsum(~sign)[last]
    return np.append(0.0, true), np.append(0.0, false)
