"""Figures of multi-label classifiers per finding, their macro and support-weighted means, all with intervals.

Only labels 1 and 0 count; uncertain (-1) and blank (NaN) ones are masked, finding by finding. Areas are computed
on raw probabilities, never on thresholded ones. Every figure stands beside its numbers of positives and
negatives, and findings with too few of either are shown but left out of the means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.decisions import confusion, decision_figures, probabilistic_f1
from eval.intervals import Interval, PatientDraws, interval_of
from eval.reliability import brier_score, calibration_error, log_loss
from weakray.detections import BoolArray
from weakray.errors import DataError

Float64Array = npt.NDArray[np.float64]

MIN_POSITIVES = 10


def areas_under_roc(score: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Area under the ROC curve under many weightings: the chance that a positive outranks a negative, ties half.

    Args:
        score: `(n,)`.
        positive: `(n,)`.
        weights: `(n, n_draws)`, ≥ 0.

    Returns:
        `(n_draws,)` in [0, 1]; NaN where positives or negatives have no weight.
    """
    return curve_areas(score, positive, weights)[0]


def areas_under_pr(score: Float64Array, positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Average precision, Σ (R_n - R_{n-1}) P_n over distinct scores, under many weightings; see `areas_under_roc`.

    No interpolation (Davis and Goadrich 2006 show why). NaN where positives have no weight.
    """
    return curve_areas(score, positive, weights)[1]


def curve_areas(score: Float64Array, positive: BoolArray, weights: Float64Array) -> tuple[Float64Array, Float64Array]:
    """`areas_under_roc` and `areas_under_pr` from one ranking.

    Both are sums over the positives, of what each outranks and of the precision where it stands; only the cumulated
    weight of the negatives is needed of all images.
    """
    order = np.argsort(-score, kind="stable")
    sign, ranked = positive[order], weights[order]
    gained = ranked[sign]  # (p, n_draws), best first
    ranked[sign] = 0
    lost = np.cumsum(ranked, axis=0, out=ranked)
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))  # of the images of equal score
    ends = np.append(starts[1:], len(order)) - 1
    group = np.searchsorted(starts, np.flatnonzero(sign), side="right") - 1
    lost_with_ties = lost[ends[group]]
    lost_before = np.where(starts[group, None] > 0, lost[starts[group] - 1], 0)
    found = np.cumsum(gained, axis=0)[np.searchsorted(group, group, side="right") - 1]  # positives, ties counted
    positives, negatives = gained.sum(axis=0), lost[-1] if len(lost) else np.zeros(weights.shape[1])
    won = (gained * (negatives - (lost_with_ties + lost_before) / 2)).sum(axis=0)
    called = found + lost_with_ties
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return (
        _share(won, positives * negatives, positives * negatives > 0),
        _share((gained * precision).sum(axis=0), positives, positives > 0),
    )


def _share(part: Float64Array, whole: Float64Array, defined: BoolArray) -> Float64Array:
    return np.asarray(np.divide(part, whole, out=np.full_like(whole, np.nan), where=defined))


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


@dataclass(frozen=True, eq=False)
class FigureDraws:
    """All figures of a classifier on the images as they are and on every bootstrap draw.

    Two classifiers of the same images, on the same draws, can be compared draw by draw.

    Attributes:
        paired: what was scored.
        cut: `(n, k)` fitted thresholds of each image and finding (they differ between images where they were fitted
            with some of them left out), None where none were fitted.
        whole: figure → `(k,)`, NaN where it is undefined.
        drawn: figure → `(n_draws, k)`.
    """

    paired: LabelledScores
    cut: Float64Array | None
    whole: dict[str, Float64Array]
    drawn: dict[str, Float64Array]

    @classmethod
    def of(cls, paired: LabelledScores, draws: PatientDraws, cut: Float64Array | None = None) -> FigureDraws:
        """Computes every figure on every draw."""
        weightings = (np.ones((1, len(paired.image_ids))), *draws.chunks())
        parts = [_figures(paired, weights, cut) for weights in weightings]
        drawn = {name: np.concatenate([part[name] for part in parts[1:]]) for name in parts[0]}
        return cls(paired, cut, {name: found[0] for name, found in parts[0].items()}, drawn)

    def in_mean(self, min_positives: int) -> list[bool]:
        """Which findings have enough positives, and as many negatives, to enter the means."""
        kinds = zip(self.paired.positives, self.paired.negatives, strict=True)
        return [min(both) >= max(min_positives, 1) for both in kinds]

    def mean(self, name: str, min_positives: int, *, weighted: bool = False) -> tuple[float, Float64Array]:
        """A figure's mean over findings, macro or weighted by positives, and on every draw `(n_draws,)`.

        A draw on which some findings are undefined has the mean of the others; NaN where all are.
        """
        included = self.in_mean(min_positives)
        weight = np.array(self.paired.positives, np.float64) if weighted else np.ones(len(included))
        whole, drawn = (
            _mean(part[:, included], weight[included]) for part in (self.whole[name][None], self.drawn[name])
        )
        return float(whole[0]), drawn

    def interval(self, name: str, k: int) -> Interval:
        """A finding's figure with its interval."""
        return interval_of(self.whole[name][k], self.drawn[name][:, k])

    def to_dict(self, min_positives: int = MIN_POSITIVES) -> dict[str, Any]:
        """All figures, ready for JSON; see `score_classification`."""
        included, paired = self.in_mean(min_positives), self.paired
        scores: dict[str, Any] = {}
        for name in self.whole:
            for kind, weighted in (("macro", False), ("weighted", True)):
                mean = interval_of(*self.mean(name, min_positives, weighted=weighted)) if any(included) else None
                scores[f"{kind}_{name}"] = mean.to_dict() if mean is not None else None
        cuts: dict[str, Float64Array] = {"half": np.full(paired.probability.shape, 0.5)}
        if self.cut is not None:
            cuts["fitted"] = self.cut
        tables = {
            f"confusion_at_{at}": [_confusion(paired, k, cut) for k in range(len(included))] for at, cut in cuts.items()
        }
        for name, table in tables.items():
            scores[name] = {kind: sum(entry[kind] for entry in table) for kind in ("tp", "fp", "fn", "tn")}
        per_finding: dict[str, Any] = {}
        for k, finding in enumerate(paired.names):
            entry: dict[str, Any] = {
                "positives": paired.positives[k],
                "negatives": paired.negatives[k],
                "in_mean": included[k],
            }
            entry |= {name: self.interval(name, k).to_dict() if self._defined(name, k) else None for name in self.whole}
            if self.cut is not None and (self.cut[:, k] == self.cut[0, k]).all():
                entry["threshold"] = float(self.cut[0, k])
            per_finding[finding] = entry | {name: table[k] for name, table in tables.items()}
        return {**scores, "per_finding": per_finding}

    def _defined(self, name: str, k: int) -> bool:
        both = self.paired.positives[k] > 0 and self.paired.negatives[k] > 0
        return bool(np.isfinite(self.whole[name][k])) and (both or name not in ("auroc", "auprc"))


def score_classification(
    probabilities: pd.DataFrame,
    labels: pd.DataFrame,
    patient_of: Mapping[str, str],
    min_positives: int = MIN_POSITIVES,
    draws: int = 1000,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """All figures of a classifier, ready for JSON.

    Args:
        probabilities: image_id × findings, [0, 1]: the images that are scored.
        labels: image_id × findings: 1, 0, -1 or NaN; may hold more images.
        patient_of: image_id → patient.
        min_positives: a finding enters the means with at least as many positives, and as many negatives.
        draws: bootstrap draws over patients.
        seed: of the bootstrap.
        thresholds: finding → probability from which it counts as present, fitted on *other* images; None where there
            are none: decisions are then scored at 0.5 alone.

    Returns:
        `{"macro_FIGURE", "weighted_FIGURE": {"value", "low", "high"} or None where no finding has enough positives,
        "confusion_at_half", "confusion_at_fitted": {"tp", "fp", "fn", "tn"} summed over findings, "per_finding":
        {NAME: {"positives", "negatives", "in_mean", FIGURE: as above or None where it is undefined, "threshold",
        "confusion_at_half", "confusion_at_fitted"}}}`. FIGURE among `auroc auprc pf1 brier calibration_error
        log_loss`, and `f1 sensitivity specificity`, each `_at_half` and `_at_fitted`. What needs thresholds is absent
        without them. `weighted_…` weighs the findings by their positives.

    Raises:
        DataError: if probabilities, labels and patients do not pair, or hold odd values.
    """
    paired = LabelledScores.pair(probabilities, labels)
    drawn = PatientDraws.of(paired.image_ids, patient_of, draws, seed)
    cut = (
        None if thresholds is None else np.tile([thresholds[name] for name in paired.names], (len(paired.image_ids), 1))
    )
    return FigureDraws.of(paired, drawn, cut).to_dict(min_positives)


def _figures(paired: LabelledScores, weights: Float64Array, cut: Float64Array | None) -> dict[str, Float64Array]:
    """Every figure of each finding under image weights `(n_draws, n)`: `(n_draws, k)`."""
    by_image = np.ascontiguousarray(weights.T)
    columns: list[dict[str, Float64Array]] = []
    for k in range(len(paired.names)):
        known = paired.known[:, k]
        own = paired.probability[known, k], paired.positive[known, k], by_image[known]
        roc, pr = curve_areas(*own)
        found = {"auroc": roc, "auprc": pr, "pf1": probabilistic_f1(*own)}
        cuts = {"half": np.full(len(own[0]), 0.5)} | ({} if cut is None else {"fitted": cut[known, k]})
        for at, threshold in cuts.items():
            decided = decision_figures(own[0] >= threshold, *own[1:])
            found |= {f"{name}_at_{at}": values for name, values in decided.items()}
        found |= {"brier": brier_score(*own), "calibration_error": calibration_error(*own), "log_loss": log_loss(*own)}
        columns.append(found)
    return {name: np.stack([column[name] for column in columns], axis=1) for name in columns[0]}


def _confusion(paired: LabelledScores, k: int, cut: Float64Array) -> dict[str, int]:
    known = paired.known[:, k]
    called = paired.probability[known, k] >= cut[known, k]
    counts = confusion(called, paired.positive[known, k], np.ones((int(known.sum()), 1)))
    return {name: int(count[0]) for name, count in counts.items()}


def _mean(values: Float64Array, weight: Float64Array) -> Float64Array:
    """Weighted mean over findings, `(n_draws, k)` → `(n_draws,)`, of those that are defined; NaN where none is."""
    known = ~np.isnan(values)
    total = (known * weight).sum(axis=1)
    summed = (np.where(known, values, 0) * weight).sum(axis=1)
    return np.asarray(np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0))
