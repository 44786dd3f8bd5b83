"""Calibration of logits per finding: p = σ(a·l + b), fitted on validation labels (Platt 1999).

The slope is kept positive (a = exp u, so no ranking changes) and drawn to 1; the targets are smoothed as Platt did,
so that few or no positives give no infinite offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from classify.labels import Targets

Floats = npt.NDArray[np.floating[Any]]


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
        loss = np.logaddexp(0, moved) - target * moved  # -t·log σ - (1 - t)·log(1 - σ)
        error = np.exp(-np.logaddexp(0, -moved)) - target
        return (
            float(loss.sum() + strength * log_slope**2),
            np.array([slope * (error @ given) + 2 * strength * log_slope, error.sum()]),
        )

    # A slope of e^±4 turns any classifier into a coin or a step; past it lies only a separable handful of images.
    found = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-4, 4), (None, None)])
    return Platt(float(np.exp(found.x[0])), float(found.x[1]))


def fit_findings(logits: Floats, counted: Targets, strength: float) -> list[Platt]:
    """`fit_platt` of each finding `(n, k)`, over the labels that count and are 0 or 1."""
    return [
        fit_platt(logits[counted.hard[:, k], k], counted.values[counted.hard[:, k], k] == 1, strength)
        for k in range(logits.shape[1])
    ]
