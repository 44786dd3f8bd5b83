"""Weights of an ensemble's members, ≥ 0 and of sum 1, fitted on validation labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from classify.labels import Targets
from eval.classification import areas_under_pr, areas_under_roc
from eval.reliability import log_loss

Float64Array = npt.NDArray[np.float64]
GreedyMetric = Literal["macro_auroc", "macro_auprc", "log_loss"]

_LEAST = 1e-7  # probabilities are kept so far from 0 and 1 where their log is taken


def fit_weights(logits: Float64Array, counted: Targets, strength: float, *, of_logits: bool) -> list[float]:
    """Minimises Σ cross-entropy(y, p) + strength·m·Σ (w - 1/m)² over weights w ≥ 0 of sum 1; a convex problem.

    p = σ(Σ w·l) for weights of logits, Σ w·σ(l) for weights of probabilities. The sum runs over all labels that count
    of all findings: one weight a member, for few labels cannot tell apart one a member and finding.

    Args:
        logits: calibrated, `(m, n, k)`.
        counted: labels `(n, k)`.
        strength: of the pull to equal weights, in units of one label's cross-entropy; a single member that takes all
            costs `strength·(m - 1)`.
        of_logits: whether logits are averaged, or probabilities.

    Returns:
        A weight a member; equal ones where no label counts.
    """
    members = len(logits)
    equal = np.full(members, 1 / members)
    positive = counted.values[counted.mask] == 1
    if members == 1 or len(positive) == 0:
        return equal.tolist()
    given = np.asarray(logits, np.float64)[:, counted.mask]  # (m, labels)
    if not of_logits:
        given = np.exp(-np.logaddexp(0, -given))

    def objective(weights: Float64Array) -> tuple[float, Float64Array]:
        mixed = weights @ given
        if of_logits:
            loss = np.logaddexp(0, mixed) - positive * mixed
            slope = np.exp(-np.logaddexp(0, -mixed)) - positive
        else:
            kept = np.clip(mixed, _LEAST, 1 - _LEAST)
            loss = -np.log(np.where(positive, kept, 1 - kept))
            slope = np.where(positive, -1 / kept, 1 / (1 - kept))
        away = weights - equal
        # Per label: the solver's tolerance should not depend on how many there are.
        return (
            float(loss.sum() + strength * members * (away @ away)) / len(positive),
            (given @ slope + 2 * strength * members * away) / len(positive),
        )

    found = minimize(
        objective,
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda _: np.ones(members)},
        options={"ftol": 1e-10, "maxiter": 500},
    )
    kept = np.clip(found.x, 0, 1)
    return (kept / kept.sum()).tolist()


def greedy_weights(
    units: Float64Array, score: Callable[[Float64Array], float | None], rounds: int
) -> tuple[list[float], float | None]:
    """Forward selection with replacement (Caruana et al. 2004): shares of the members in the best bag met.

    Each round adds to the bag the member that makes the mean of its probabilities score best; among equals the first.

    Args:
        units: the members' own probabilities `(m, n, k)`.
        score: of a mean of them `(n, k)`, higher is better; None where it is undefined.
        rounds: members put into the bag; the bag of the highest score, the smallest of such, is returned.

    Returns:
        A weight a member, and the score; equal weights and None where the score is undefined.
    """
    members = len(units)
    counts, total = np.zeros(members), np.zeros(units.shape[1:])
    best: tuple[float, Float64Array] | None = None
    for size in range(1, rounds + 1):
        scores = [score((total + own) / size) for own in units]
        defined = [value for value in scores if value is not None]
        if len(defined) < members:
            return [1 / members] * members, None
        chosen = int(np.argmax(defined))
        counts[chosen] += 1
        total = total + units[chosen]
        if best is None or defined[chosen] > best[0]:
            best = defined[chosen], counts / size
    if best is None:
        return [1 / members] * members, None
    return best[1].tolist(), best[0]


def mean_score(probability: Float64Array, full: Targets, metric: GreedyMetric) -> float | None:
    """Macro AUROC, macro AUPRC or minus the macro log loss, higher is better.

    Args:
        probability: `(n, k)` in [0, 1].
        full: labels of the same images; masked ones do not count.
        metric: which.

    Returns:
        The mean over the findings that have both positives and negatives; None where none has.
    """
    figure = {"macro_auroc": areas_under_roc, "macro_auprc": areas_under_pr, "log_loss": log_loss}[metric]
    found: list[float] = []
    for k in range(probability.shape[1]):
        counts = full.mask[:, k]
        positive = full.values[counts, k] == 1
        if 0 < positive.sum() < len(positive):
            found.append(float(figure(probability[counts, k], positive, np.ones((len(positive), 1)))[0]))
    if not found:
        return None
    return -float(np.mean(found)) if metric == "log_loss" else float(np.mean(found))
