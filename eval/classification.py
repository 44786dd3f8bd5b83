"""Figures of multi-label classifiers: AUROC, AUPRC, Brier score and calibration error per finding, with intervals.

Only labels 1 and 0 count; uncertain (-1) and blank (NaN) ones are masked, finding by finding. Areas are computed
on raw probabilities, never on thresholded ones. Every figure stands beside its numbers of positives and
negatives, and findings with too few of either are shown but left out of the means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.intervals import PatientDraws, interval_of
from weakray.detections import BoolArray
from weakray.errors import DataError

Float64Array = npt.NDArray[np.float64]
CurveArea = Callable[[Float64Array, BoolArray, Float64Array], Float64Array]

MIN_POSITIVES = 10
_BINS = 15


def areas_under_roc(score: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Area under the ROC curve under many weightings: the chance that a positive outranks a negative, ties half.

    Args:
        score: `(n,)`.
        positive: `(n,)`.
        weights: `(n, n_draws)`, ≥ 0.

    Returns:
        `(n_draws,)` in [0, 1]; NaN where positives or negatives have no weight.
    """
    gained, lost = _weights_by_score(score, positive, weights)
    beaten = lost.sum(axis=0) - np.cumsum(lost, axis=0)  # negatives scored strictly lower
    pairs = gained.sum(axis=0) * lost.sum(axis=0)
    won = (gained * (beaten + lost / 2)).sum(axis=0)
    return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))


def areas_under_pr(score: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Average precision, Σ (R_n - R_{n-1}) P_n over distinct scores, under many weightings; see `areas_under_roc`.

    No interpolation (Davis and Goadrich 2006 show why). NaN where positives have no weight.
    """
    gained, lost = _weights_by_score(score, positive, weights)
    found, ranked = np.cumsum(gained, axis=0), np.cumsum(gained + lost, axis=0)
    precision = np.divide(found, ranked, out=np.zeros_like(found), where=ranked > 0)
    total, area = gained.sum(axis=0), (gained * precision).sum(axis=0)
    return np.asarray(np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0))


def _weights_by_score(
    score: Float64Array, positive: BoolArray, weights: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Weight of positives and of negatives at each distinct score, best first: two `(n_scores, n_draws)`."""
    order = np.argsort(-score, kind="stable")
    ranked, sign = weights[order], positive[order, None]
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    gained = ranked * sign
    lost = ranked - gained
    if len(starts) == len(order):
        return gained, lost
    return np.add.reduceat(gained, starts, axis=0), np.add.reduceat(lost, starts, axis=0)


def brier_score(probability: Float64Array, positive: BoolArray) -> float:
    """Mean squared difference between probability and outcome, [0, 1]; 0 is best (Brier 1950)."""
    return float(np.mean((probability - positive) ** 2))


def calibration_error(probability: Float64Array, positive: BoolArray) -> float:
    """Expected calibration error, [0, 1]: |mean probability - share of positives| in 15 bins of equal width.

    Bins are `[i/15, (i+1)/15)`, the last with its end, weighted by how many images they hold (Naeini 2015).
    """
    bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    gap = np.bincount(bins, weights=probability, minlength=_BINS) - np.bincount(
        bins, weights=positive.astype(np.float64), minlength=_BINS
    )
    return float(np.abs(gap).sum() / len(probability))


@dataclass(frozen=True, eq=False)
class LabelledScores:
    """Probabilities paired by id with labels, checked.

    Attributes:
        image_ids: the images, in the probabilities' order.
        names: the findings, in the labels' order.
        probability: `(n, k)` in [0, 1].
        positive: `(n, k)`.
        known: `(n, k)` whether the label is 1 or 0.
    """

    image_ids: list[str]
    names: list[str]
    probability: Float64Array
    positive: BoolArray
    known: BoolArray

    @classmethod
    def pair(cls, probabilities: pd.DataFrame, labels: pd.DataFrame) -> LabelledScores:
        """Pairs image_id × findings tables; images without a probability are not scored.

        Raises:
            DataError: on missing or repeated ids, other findings, a probability outside [0, 1], or a label that
                is none of 1, 0, -1 and NaN.
        """
        names = [str(name) for name in labels.columns]
        if sorted(map(str, probabilities.columns)) != sorted(names):
            raise DataError(f"probabilities: expected the findings {names}, got {list(probabilities.columns)}")
        if probabilities.index.has_duplicates:
            raise DataError("probabilities: expected one row an image, got image ids that repeat")
        missing = probabilities.index.difference(labels.index)
        if len(missing):
            raise DataError(f"labels: {len(missing)} predicted images have none, e.g. {missing[0]!r}; check the ids")
        probability = probabilities.loc[:, names].to_numpy(np.float64)
        if not ((probability >= 0) & (probability <= 1)).all():
            raise DataError("probabilities: expected values in [0, 1] and no NaN")
        values = labels.loc[probabilities.index].to_numpy(np.float64)
        odd = ~(np.isin(values, (1, 0, -1)) | np.isnan(values))
        if odd.any():
            raise DataError(f"labels: expected 1, 0, -1 (uncertain) or NaN (not mentioned), got {values[odd][0]}")
        return cls(
            [str(i) for i in probabilities.index], names, probability, values == 1, (values == 1) | (values == 0)
        )

    @property
    def positives(self) -> list[int]:
        """Number of positives of each finding."""
        return [int(n) for n in self.positive.sum(axis=0)]

    @property
    def negatives(self) -> list[int]:
        """Number of negatives of each finding."""
        return [int(n) for n in (self.known & ~self.positive).sum(axis=0)]

    def areas(self, area: CurveArea, weights: Float64Array) -> Float64Array:
        """A curve's area of each finding under image weights `(n_draws, n)`: `(n_draws, k)`."""
        by_image = np.ascontiguousarray(weights.T)
        columns = []
        for k in range(len(self.names)):
            known = self.known[:, k]
            columns.append(area(self.probability[known, k], self.positive[known, k], by_image[known]))
        return np.stack(columns, axis=1)


def score_classification(
    probabilities: pd.DataFrame,
    labels: pd.DataFrame,
    patient_of: Mapping[str, str],
    min_positives: int = MIN_POSITIVES,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of a classifier, ready for JSON.

    Args:
        probabilities: image_id × findings, [0, 1]: the images that are scored.
        labels: image_id × findings: 1, 0, -1 or NaN; may hold more images.
        patient_of: image_id → patient.
        min_positives: a finding enters the means with at least as many positives, and as many negatives.
        draws: bootstrap draws over patients.
        seed: of the bootstrap.

    Returns:
        `{"macro_auroc", "macro_auprc", "weighted_auroc", "weighted_auprc": {"value", "low", "high"} or None where
        no finding has enough positives, "per_finding": {NAME: {"positives", "negatives", "in_mean", "auroc",
        "auprc", "brier", "calibration_error"}}}`; areas have intervals, and are None without both kinds.
        `weighted_…` weighs the findings by their positives.

    Raises:
        DataError: if probabilities, labels and patients do not pair, or hold odd values.
    """
    paired = LabelledScores.pair(probabilities, labels)
    drawn = PatientDraws.of(paired.image_ids, patient_of, draws, seed)
    support = np.array(paired.positives, dtype=np.float64)
    included = [min(kinds) >= max(min_positives, 1) for kinds in zip(paired.positives, paired.negatives, strict=True)]
    scores: dict[str, Any] = {}
    per_finding: dict[str, dict[str, Any]] = {
        name: {"positives": p, "negatives": n, "in_mean": enough}
        for name, p, n, enough in zip(paired.names, paired.positives, paired.negatives, included, strict=True)
    }
    curves: dict[str, CurveArea] = {"auroc": areas_under_roc, "auprc": areas_under_pr}
    for metric, area in curves.items():
        whole, values = _whole_and_drawn(paired, area, drawn)
        for kind, weight in (("macro", np.ones(len(support))), ("weighted", support)):
            means = [_mean(part[:, included], weight[included]) for part in (whole, values)]
            scores[f"{kind}_{metric}"] = interval_of(means[0][0], means[1]).to_dict() if any(included) else None
        for k, name in enumerate(paired.names):
            both = per_finding[name]["positives"] and per_finding[name]["negatives"]
            per_finding[name][metric] = interval_of(whole[0, k], values[:, k]).to_dict() if both else None
    for k, name in enumerate(paired.names):
        known = paired.known[:, k]
        if known.any():
            outcome = paired.probability[known, k], paired.positive[known, k]
            per_finding[name] |= {"brier": brier_score(*outcome), "calibration_error": calibration_error(*outcome)}
        else:
            per_finding[name] |= {"brier": None, "calibration_error": None}
    return {**scores, "per_finding": per_finding}


def _whole_and_drawn(paired: LabelledScores, area: CurveArea, drawn: PatientDraws) -> tuple[Float64Array, Float64Array]:
    """Areas on the images as they are `(1, k)` and on every draw `(n_draws, k)`."""
    whole = paired.areas(area, np.ones((1, len(paired.image_ids))))
    return whole, np.concatenate([paired.areas(area, weights) for weights in drawn.chunks()])


def _mean(areas: Float64Array, weight: Float64Array) -> Float64Array:
    """Weighted mean over findings, `(n_draws, k)` → `(n_draws,)`, of those that are defined; NaN where none is."""
    known = ~np.isnan(areas)
    total = (known * weight).sum(axis=1)
    summed = (np.where(known, areas, 0) * weight).sum(axis=1)
    return np.asarray(np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0))
