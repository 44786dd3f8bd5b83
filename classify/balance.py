"""How rare each finding is among the labels that count, and the weights of the loss that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from classify.labels import Targets
from weakray.detections import FloatArray
from weakray.errors import ConfigError

Counts = npt.NDArray[np.float64]


def kinds(given: Targets) -> tuple[Counts, Counts]:
    """N_pos and N_neg of each finding `(k,)`; a soft label counts in part to either, one of the third class to none."""
    counted = given.graded
    positive = np.where(counted, given.values, 0).sum(axis=0, dtype=np.float64)
    return positive, counted.sum(axis=0) - positive


def positive_weights(given: Targets, cap: float) -> FloatArray:
    """Weight of the positive term of the loss per finding `(k,)`: min(N_neg / N_pos, cap), over what counts.

    A finding without positives gets `cap`: it has no positive term to weigh.
    """
    positive, negative = kinds(given)
    ratio = np.divide(negative, positive, out=np.full(len(positive), np.inf), where=positive > 0)
    return np.minimum(ratio, cap).astype(np.float32)


def chexnet_weights(given: Targets) -> tuple[FloatArray, FloatArray]:
    """Weights of the positive and of the negative term per finding, each `(k,)` (Rajpurkar et al. 2017).

    w₊ = N_neg / (N_pos + N_neg) and w₋ = N_pos / (N_pos + N_neg): the rarer kind weighs more, so that both kinds weigh
    the same in sum. One half each where nothing counts.
    """
    positive, negative = kinds(given)
    total = positive + negative
    high = np.divide(negative, total, out=np.full(len(total), 0.5), where=total > 0)
    return high.astype(np.float32), (1 - high).astype(np.float32)


def inverse_frequency(given: Targets) -> FloatArray:
    """Weight of each finding `(k,)`: (1/f) over the mean of 1/f, f its share of positives; so the mean is 1.

    A finding without positives has no f and weighs 1.
    """
    positive, negative = kinds(given)
    seen = positive > 0
    weight = np.ones(len(positive))
    if seen.any():
        inverse = (positive + negative)[seen] / positive[seen]
        weight[seen] = inverse / inverse.mean()
    return weight.astype(np.float32)


def named_weights(findings: Sequence[str], named: Mapping[str, float]) -> FloatArray:
    """Weight of each finding `(k,)` as named, 1 for the others.

    Raises:
        ConfigError: if a name is no finding, or a weight is negative.
    """
    for name, weight in named.items():
        if name not in findings:
            raise ConfigError(f"loss.class_weights: {name!r} is no finding; expected some of {', '.join(findings)}")
        if not 0 <= weight < np.inf:
            raise ConfigError(f"loss.class_weights.{name}: expected a finite weight >= 0, got {weight:g}")
    return np.array([named.get(name, 1.0) for name in findings], np.float32)
