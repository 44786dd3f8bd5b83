"""Scores of boxes as `summary.json` keeps them: AP at IoU 0.3 and 0.5, and averaged over 0.5…0.95, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.average_precision import COCO_IOUS, Matches, match
from eval.intervals import Comparison, Interval, Kind, PatientDraws, comparison_of, interval_of
from weakray.coco import BoxTruth, Predictions
from weakray.errors import DataError

Float64Array = npt.NDArray[np.float64]
Metric = Literal["ap30", "ap50", "map"]
METRICS: tuple[Metric, ...] = ("ap30", "ap50", "map")


def score_boxes(
    predictions: Predictions,
    truth: BoxTruth,
    patient_of: Mapping[str, str],
    names: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The entry of one source in `summary.json`'s `scores`.

    Args:
        predictions: image_id → scored boxes, of images of the truth only.
        truth: true boxes and annotated pairs of the split that is scored.
        patient_of: image_id → patient.
        names: the findings, in class-id order.
        draws: bootstrap draws.
        seed: of the bootstrap; the same for all sources, so that they can be compared.

    Returns:
        `{"ap30", "ap50", "map": {"value", "low", "high"}, "per_finding": {NAME: {"ap30", "ap50", "map",
        "positives"}}}`, all in [0, 1]; macro over the findings with a true box. A finding without one has no AP
        and is left out of `per_finding`; `threshold_table` lists it.

    Raises:
        DataError: if no finding has a true box, or predictions, truth and patients do not pair.
    """
    return score_matches(match(predictions, truth, len(names)), patient_of, names, draws, seed)


def score_matches(
    matches: Matches, patient_of: Mapping[str, str], names: Sequence[str], draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """`score_boxes` for boxes that are matched already (at IoU 0.3 and 0.5…0.95 at least)."""
    drawn = PatientDraws.of(matches.image_ids, patient_of, draws, seed)
    per_class = {metric: of_metric(matches, matches.average_precision(), metric) for metric in METRICS}
    positives = matches.positives
    return {
        **{metric: interval.to_dict() for metric, interval in macro_intervals(matches, drawn).items()},
        "per_finding": {
            name: {
                **{metric: float(per_class[metric][i]) for metric in METRICS},
                "positives": int(positives[i]),
            }
            for i, name in enumerate(names)
            if positives[i]
        },
    }


def macro_intervals(matches: Matches, drawn: PatientDraws) -> dict[Metric, Interval]:
    """Macro AP at each metric with its interval.

    On each draw, too, the mean goes over the findings that have a true box in it.

    Raises:
        DataError: if no finding has a true box.
    """
    whole, values = macro_draws(matches, drawn)
    return {metric: interval_of(whole[metric], values[metric]) for metric in METRICS}


def macro_draws(matches: Matches, drawn: PatientDraws) -> tuple[dict[Metric, float], dict[Metric, Float64Array]]:
    """Macro AP at each metric, on the images as they are, and on every draw `(n_draws,)`: NaN where it has no true box.

    Raises:
        DataError: if no finding has a true box.
    """
    if not matches.positives.any():
        raise DataError("expected a true box of at least one finding on the images scored, got none")
    whole = matches.average_precision()[None]
    chunks = np.concatenate([matches.average_precisions(weights) for weights in drawn.chunks()])
    return (
        {metric: float(_macro(of_metric(matches, whole, metric)[..., None])[0, 0]) for metric in METRICS},
        {metric: _macro(of_metric(matches, chunks, metric)[..., None])[:, 0] for metric in METRICS},
    )


def compare_boxes(
    first: Matches, second: Matches, drawn: PatientDraws, metric: Metric = "ap50", kind: Kind = "difference"
) -> Comparison:
    """Two sources of boxes on the same images and draws.

    Raises:
        DataError: if they were matched with different truths, or no finding has a true box.
    """
    same = first.image_ids == second.image_ids and len(first.classes) == len(second.classes)
    if not same or any((a.positives != b.positives).any() for a, b in zip(first.classes, second.classes, strict=True)):
        raise DataError("a paired comparison: expected both sources matched with the same truth, got different ones")
    (first_whole, first_values), (second_whole, second_values) = (macro_draws(m, drawn) for m in (first, second))
    return comparison_of(first_whole[metric], first_values[metric], second_whole[metric], second_values[metric], kind)


def recovered_fraction(
    weak: Matches, ceiling: Matches, patient_of: Mapping[str, str], draws: int = 1000, seed: int = 0
) -> dict[str, float] | None:
    """AP50 of the weak detector over that of the fully supervised one, by paired patient bootstrap.

    Above 1 where the weak one is the better. None where the ceiling's AP50 is 0, on the images as they are or on
    every draw: there is nothing to recover.

    Raises:
        DataError: if they were matched with different truths, or no finding has a true box.
    """
    drawn = PatientDraws.of(weak.image_ids, patient_of, draws, seed)
    interval = compare_boxes(weak, ceiling, drawn, "ap50", "ratio").interval
    return interval.to_dict() if np.isfinite([interval.value, interval.low, interval.high]).all() else None


def threshold_table(matches: Matches, names: Sequence[str]) -> pd.DataFrame:
    """AP of every finding at every IoU matched at: rows = findings, then `macro`; columns = positives, `AP10`, ….

    NaN for a finding without a true box; macro over the others.
    """
    precision = matches.average_precision()
    rows = np.vstack([precision, _macro(precision[None])[0]])
    table = pd.DataFrame(
        rows, index=pd.Index([*names, "macro"], name="finding"), columns=[f"AP{iou * 100:.0f}" for iou in matches.ious]
    )
    table.insert(0, "positives", [*matches.positives.tolist(), int(matches.positives.sum())])
    return table


def of_metric(matches: Matches, precision: Float64Array, metric: Metric) -> Float64Array:
    """A metric `(..., n_classes)` from average precision `(..., n_classes, n_iou)`."""
    ious = {"ap30": (0.3,), "ap50": (0.5,), "map": COCO_IOUS}[metric]
    return np.asarray(precision[..., matches.columns(ious)].mean(axis=-1))


def _macro(precision: Float64Array) -> Float64Array:
    """Mean over the classes that are not NaN: `(n, n_classes, m)` → `(n, m)`; NaN where all are."""
    known = ~np.isnan(precision)
    count = known.sum(axis=1)
    total = np.where(known, precision, 0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))
