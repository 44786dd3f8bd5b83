"""Calibration of logits per finding: p = σ(a·l + b), fitted on validation labels.

`platt` fits both (Platt 1999): the targets are smoothed as he did, so that few or no positives give no infinite offset.
`temperature` fits a = 1/T alone (Guo et al. 2017). The slope is kept positive (a = exp u, so no ranking changes) and
drawn to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar

from classify.labels import Targets

Floats = npt.NDArray[np.floating[Any]]
Calibration = Literal["platt", "temperature", "none"]

# A slope of e^±4 turns any classifier into a coin or a step; past it lies only a separable handful of images.
_LOG_SLOPE = 4.0


@dataclass(frozen=True)
class Platt:
    """Slope and offset of one finding's logit."""

    slope: float = 1.0
    offset: float = 0.0


def fit_platt(logits: Floats, positive: npt.NDArray[np.bool_], strength: float) -> Platt:
    """Minimises Σ cross-entropy(t, σ(a·l + b)) + strength·(log a)² over a > 0 and b.

    t = (N₊ + 1)/(N₊ + 2) for positives and 1/(N₋ + 2) for negatives.

    Args:
        logits: `(n,)`.
        positive: `(n,)`.
        strength: of the pull to slope 1, in units of one image's cross-entropy.

    Returns:
        The identity where there is no image at all.
    """
    if len(logits) == 0:
        return Platt()
    given = np.asarray(logits, np.float64)
    positives = int(positive.sum())
    target = np.where(positive, (positives + 1) / (positives + 2), 1 / (len(given) - positives + 2))

    def objective(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        log_slope, offset = point
        slope = np.exp(log_slope)
        moved = slope * given + offset
        error = _sigmoid(moved) - target
        return (
            _cross_entropy(moved, target) + strength * log_slope**2,
            np.array([slope * (error @ given) + 2 * strength * log_slope, error.sum()]),
        )

    bounds = [(-_LOG_SLOPE, _LOG_SLOPE), (None, None)]
    found = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds)
    return Platt(float(np.exp(found.x[0])), float(found.x[1]))


def fit_temperature(logits: Floats, positive: npt.NDArray[np.bool_], strength: float) -> Platt:
    """Minimises Σ cross-entropy(y, σ(l/T)) + strength·(log T)² over T > 0; the offset stays 0.

    Args:
        logits: `(n,)`.
        positive: `(n,)`.
        strength: of the pull to T = 1, in units of one image's cross-entropy.

    Returns:
        The identity where positives or negatives are missing: logits of one kind know no temperature.
    """
    if positive.all() or not positive.any():
        return Platt()
    given, target = np.asarray(logits, np.float64), positive.astype(np.float64)

    def objective(log_slope: float) -> float:
        return _cross_entropy(np.exp(log_slope) * given, target) + strength * log_slope**2

    bounds = (-_LOG_SLOPE, _LOG_SLOPE)
    found = minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return Platt(float(np.exp(found.x)), 0.0)


def fit_findings(logits: Floats, counted: Targets, strength: float, method: Calibration = "platt") -> list[Platt]:
    """The calibration of each finding `(n, k)`, over the labels that count and are 0 or 1."""
    if method == "none":
        return [Platt() for _ in range(logits.shape[1])]
    fit = fit_platt if method == "platt" else fit_temperature
    return [
        fit(logits[counted.hard[:, k], k], counted.values[counted.hard[:, k], k] == 1, strength)
        for k in range(logits.shape[1])
    ]


def _cross_entropy(logits: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> float:
    """Σ -t·log σ(l) - (1 - t)·log(1 - σ(l))."""
    return float((np.logaddexp(0, logits) - target * logits).sum())


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
