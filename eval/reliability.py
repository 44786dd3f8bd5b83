"""How far probabilities can be believed: Brier score, log loss, expected calibration error, and reliability bins.

Figures come under many weightings of the images at once, as in `eval.decisions`; NaN where no image has weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakray.detections import BoolArray

Float64Array = npt.NDArray[np.float64]

BINS = 15
_LEAST = 1e-7  # a probability of 0 or 1 that is wrong costs -ln of this, not infinity


def brier_score(probability: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Mean squared difference between probability and outcome, [0, 1]; 0 is best (Brier 1950).

    Args:
        probability: `(n,)` in [0, 1].
        positive: `(n,)`.
        weights: `(n, n_draws)`, ≥ 0.

    Returns:
        `(n_draws,)`.
    """
    return _mean((probability - positive) ** 2, weights)


def log_loss(probability: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Mean cross-entropy -ln of the probability given to what was the case, ≥ 0, in nats; cut at -ln 1e-7."""
    given = np.where(positive, probability, 1 - probability)
    return _mean(-np.log(np.maximum(given, _LEAST)), weights)


def calibration_error(probability: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Expected calibration error, [0, 1]: |mean probability - share of positives| in 15 bins of equal width.

    Bins are `[i/15, (i+1)/15)`, the last with its end, weighted by how many images they hold (Naeini 2015).
    The noise of small bins counts as error, so that a bootstrap's draws lie above the figure of the images as they are.
    """
    bins = _bins(probability)
    gaps = np.zeros((BINS, len(probability)))
    gaps[bins, np.arange(len(probability))] = probability - positive
    total = weights.sum(axis=0)
    summed = np.abs(gaps @ weights).sum(axis=0)
    return np.asarray(np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0))


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose probability falls into one bin.

    Attributes:
        probability: their mean probability.
        share: the share of positives among them.
        images: how many they are.
    """

    probability: float
    share: float
    images: int


def reliability_bins(probability: Float64Array, positive: BoolArray) -> list[ReliabilityBin]:
    """The bins of `calibration_error` that hold an image, lowest first."""
    bins = _bins(probability)
    return [
        ReliabilityBin(float(probability[bins == i].mean()), float(positive[bins == i].mean()), int((bins == i).sum()))
        for i in np.unique(bins).tolist()
    ]


def _bins(probability: Float64Array) -> npt.NDArray[np.int64]:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def _mean(values: Float64Array, weights: Float64Array) -> Float64Array:
    total = weights.sum(axis=0)
    return np.asarray(np.divide(values @ weights, total, out=np.full_like(total, np.nan), where=total > 0))
