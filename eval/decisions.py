"""Figures of yes-or-no decisions: confusion, F1, sensitivity, specificity, probabilistic F1, and fitted thresholds.

A finding is called present from its threshold on. Figures come under many weightings of the images at once, which is
what a bootstrap needs; they are NaN where what they divide by has no weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from weakray.detections import BoolArray

Floats = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]


def confusion(called: BoolArray, positive: BoolArray, weights: Float64Array) -> dict[str, Float64Array]:
    """Weight of true and false, positive and negative decisions.

    Args:
        called: `(n,)`.
        positive: `(n,)`.
        weights: `(n, n_draws)`, ≥ 0.

    Returns:
        `tp`, `fp`, `fn`, `tn`, each `(n_draws,)`.
    """
    kinds = {"tp": called & positive, "fp": called & ~positive, "fn": ~called & positive, "tn": ~called & ~positive}
    return {name: kind.astype(np.float64) @ weights for name, kind in kinds.items()}


def decision_figures(called: BoolArray, positive: BoolArray, weights: Float64Array) -> dict[str, Float64Array]:
    """`f1` = 2 TP / (2 TP + FP + FN), `sensitivity` = TP / P and `specificity` = TN / N, each `(n_draws,)` in [0, 1].

    F1 and sensitivity are NaN without positives, specificity without negatives.
    """
    counts = confusion(called, positive, weights)
    tp, fp, fn, tn = (counts[name] for name in ("tp", "fp", "fn", "tn"))
    present = tp + fn > 0
    return {
        "f1": _share(2 * tp, 2 * tp + fp + fn, present),
        "sensitivity": _share(tp, tp + fn, present),
        "specificity": _share(tn, tn + fp, tn + fp > 0),
    }


def probabilistic_f1(probability: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """2 Σ p·y / (Σ p + Σ y): F1 with probabilities for decisions, so without a threshold (Yacouby and Axman 2020).

    `(n_draws,)` in [0, 1]; NaN without positives.
    """
    present = positive.astype(np.float64) @ weights
    return _share(2 * ((probability * positive) @ weights), probability @ weights + present, present > 0)


def _share(part: Float64Array, whole: Float64Array, defined: npt.NDArray[np.bool_]) -> Float64Array:
    return np.asarray(np.divide(part, whole, out=np.full_like(whole, np.nan), where=defined))


def decision_thresholds(
    probability: Floats, values: Floats, mask: BoolArray, findings: list[str]
) -> tuple[dict[str, float], list[str]]:
    """The probability of highest F1 = 2 TP / (called + present) for each finding, and the findings that have none.

    Args:
        probability: `(n, k)` in [0, 1].
        values: labels of the same images, 0 or 1.
        mask: which labels count.
        findings: k names.

    Returns:
        Finding → threshold in [0, 1], halfway between the lowest probability called present and the highest called
        absent; 0.5 for the findings listed second, which have no positive label.
    """
    found: dict[str, float] = {}
    without: list[str] = []
    for k, name in enumerate(findings):
        score, positive = probability[mask[:, k], k].astype(np.float64), values[mask[:, k], k] == 1
        if not positive.any():
            without.append(name)
            found[name] = 0.5
            continue
        order = np.argsort(-score, kind="stable")
        score, positive = score[order], positive[order]
        f1 = 2 * np.cumsum(positive) / (np.arange(1, len(score) + 1) + positive.sum())
        last_of_score = np.append(score[1:] < score[:-1], True)  # equal probabilities are called alike
        best = int(np.where(last_of_score, f1, -1.0).argmax())
        below = float(score[best + 1]) if best + 1 < len(score) else 0.0
        found[name] = (float(score[best]) + below) / 2
    return found, without
