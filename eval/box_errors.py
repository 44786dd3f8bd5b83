"""What a detector still gets wrong: its errors in six types, each worth the AP that mending it alone would give.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. Average precision alone does
not say whether boxes lie badly, carry the wrong finding or are missing. So each false box is given one type, by its
overlap with the true boxes of its own and of other findings, and AP50 is computed again with all errors of one type
mended and the others left: the gain dAP50 is what that type costs. Gains of different types do not add up.

Only annotated (image, finding) pairs count, as everywhere here: a box on another pair is no error of any type, and a
box is held only against the true boxes of annotated pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.average_precision import ClassMatches, Matches, ScoredBoxes, assign, scored_boxes
from eval.intervals import PatientDraws, interval_of
from weakray.boxes.geometry import iou
from weakray.coco import BoxTruth, Predictions
from weakray.detections import BoolArray, FloatArray, IntArray

Float64Array = npt.NDArray[np.float64]
ErrorType = Literal["class", "location", "both", "duplicate", "background", "missed"]
ERROR_TYPES: tuple[ErrorType, ...] = ("class", "location", "both", "duplicate", "background", "missed")
FOUND_IOU, BACKGROUND_IOU = 0.5, 0.1  # a box is right from the first on, and looks at nothing below the second


@dataclass(frozen=True, eq=False)
class ErrorSplit:
    """A source's boxes as they are, and with the errors of one type mended.

    Attributes:
        as_found: the boxes as they are, matched at `FOUND_IOU` alone.
        mended: error type → the boxes with its errors mended.
        counts: error type → number of such boxes (of true boxes, where missed) of each class `(n_classes,)`.
    """

    as_found: Matches
    mended: dict[ErrorType, Matches]
    counts: dict[ErrorType, IntArray]

    def gains(self, image_weights: npt.ArrayLike) -> dict[ErrorType, Float64Array]:
        """dAP50 of each type under many weightings of the images `(n_draws, n_images)`: `(n_draws, n_classes)`.

        NaN for a class without a true box. A class whose every true box was missed gains all there is to gain: with
        those boxes found, nothing is left to find.
        """
        before = self.as_found.average_precisions(image_weights)[..., 0]
        gains: dict[ErrorType, Float64Array] = {}
        for kind, matches in self.mended.items():
            after = matches.average_precisions(image_weights)[..., 0]
            gains[kind] = np.where(np.isnan(after) & ~np.isnan(before), 1.0, after) - before
        return gains


def split_errors(predictions: Predictions, truth: BoxTruth, n_classes: int) -> ErrorSplit:
    """Types every false box and every true box that was not found, and mends one type at a time.

    A box that hits no true box of its finding (as `match` pairs them) is the first of these that fits, where "near"
    means an IoU of at least `BACKGROUND_IOU` but below `FOUND_IOU`:

    - location: near a true box of its finding. Mended: it lies exactly on it.
    - class: on a true box of another finding, IoU ≥ `FOUND_IOU`. Mended: it carries that finding.
    - duplicate: on a true box of its finding that a better box has taken. Mended: it is gone.
    - background: near no true box at all. Mended: it is gone.
    - both: what is left: near a true box of another finding. Mended: it is gone.

    A true box is missed when no box hits it and no location or class error is about it. Mended: it need not be found,
    as though the detector were as precise on it as on the others. Where several boxes would hit one true box, the best
    scored does and the others are gone.

    Args:
        predictions: image_id → scored boxes; images of the truth may be absent.
        truth: true boxes and annotated pairs.
        n_classes: number of findings.

    Raises:
        DataError: on predictions for an image that the truth does not know, or a class id ≥ `n_classes`.
    """
    scored = scored_boxes(predictions, truth, n_classes)
    typed = _types(scored)
    found, true = scored.found.class_id, scored.true.class_id
    everything = np.ones(len(scored.found), bool)
    right = typed.kind == "right"
    mended: dict[ErrorType, Matches] = {}
    counts: dict[ErrorType, IntArray] = {}
    positives = _per_class(true, scored.true_image, scored, n_classes)
    for kind in ERROR_TYPES:
        wrong = typed.kind == kind
        counts[kind] = np.bincount(found[wrong], minlength=n_classes).astype(np.int64)
        match kind:
            case "location" | "class":
                best = _best_of_each(typed.target, scored.found.score, right | wrong, right)
                class_id = np.where(wrong, true[typed.target], found) if len(true) else found
                mended[kind] = _matches(scored, class_id, ~(right | wrong) | best, best, positives)
            case "missed":
                missed = np.ones(len(true), bool)
                missed[typed.target[np.isin(typed.kind, ("right", "location", "class"))]] = False
                counts[kind] = np.bincount(true[missed], minlength=n_classes).astype(np.int64)
                left = positives - _per_class(true[missed], scored.true_image[missed], scored, n_classes)
                mended[kind] = _matches(scored, found, everything, right, left)
            case _:
                mended[kind] = _matches(scored, found, ~wrong, right, positives)
    return ErrorSplit(_matches(scored, found, everything, right, positives), mended, counts)


def score_errors(
    split: ErrorSplit, patient_of: Mapping[str, str], names: Sequence[str], draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The `errors` of one source in `summary.json`'s `scores`.

    Returns:
        `{TYPE: {"value", "low", "high"}, …, "per_finding": {NAME: {TYPE: dAP50}}, "boxes": {TYPE: count}}`, dAP50 in
        [0, 1] up to rounding; macro over the findings with a true box, on each draw those of the draw.
    """
    drawn = PatientDraws.of(split.as_found.image_ids, patient_of, draws, seed)
    whole = split.gains(np.ones((1, len(drawn.patient))))
    chunks = [split.gains(weights) for weights in drawn.chunks()]
    macro: dict[str, Any] = {
        kind: interval_of(
            float(np.nanmean(whole[kind])), np.concatenate([_mean_of_known(chunk[kind]) for chunk in chunks])
        ).to_dict()
        for kind in ERROR_TYPES
    }
    per_finding = {
        name: {kind: float(whole[kind][0, i]) for kind in ERROR_TYPES}
        for i, name in enumerate(names)
        if split.as_found.positives[i]
    }
    boxes = {kind: int(split.counts[kind].sum()) for kind in ERROR_TYPES}
    return {**macro, "per_finding": per_finding, "boxes": boxes}


def error_table(errors: Mapping[str, Any]) -> pd.DataFrame:
    """`score_errors`' result as a table: a row a finding, then macro; a column a type."""
    rows = {**errors["per_finding"], "macro": {kind: errors[kind]["value"] for kind in ERROR_TYPES}}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(ERROR_TYPES)).rename_axis("finding")


@dataclass(frozen=True, eq=False)
class _Typed:
    """Of each predicted box: its type, or "right"; and the true box it hits or would hit once mended, else -1."""

    kind: npt.NDArray[np.str_]
    target: IntArray


def _types(scored: ScoredBoxes) -> _Typed:
    found, true = scored.found, scored.true
    kind, target = np.full(len(found), "background", dtype="<U10"), np.full(len(found), -1, dtype=np.int64)
    for image in np.unique(scored.found_image):
        mine, there = np.flatnonzero(scored.found_image == image), np.flatnonzero(scored.true_image == image)
        if not len(there):
            continue
        overlap = np.asarray(iou(found.boxes_xyxy_px[mine], true.boxes_xyxy_px[there]), np.float64)
        same = found.class_id[mine][:, None] == true.class_id[there]
        hit = np.full(len(mine), -1)
        for class_id in np.unique(found.class_id[mine]):
            rows, columns = np.flatnonzero(found.class_id[mine] == class_id), true.class_id[there] == class_id
            taken = assign(overlap[np.ix_(rows, columns)], np.array([FOUND_IOU]))[0]
            hit[rows] = np.where(taken >= 0, np.append(np.flatnonzero(columns), -1)[taken], -1)
        own, other = np.where(same, overlap, -1.0), np.where(same, -1.0, overlap)
        nearest, astray = own.max(axis=1), other.max(axis=1)
        right, located = hit >= 0, (nearest >= BACKGROUND_IOU) & (nearest < FOUND_IOU)
        kind[mine] = np.select(
            [right, located, astray >= FOUND_IOU, nearest >= FOUND_IOU, np.maximum(nearest, astray) < BACKGROUND_IOU],
            ["right", "location", "class", "duplicate", "background"],
            "both",
        )
        aims = [there[hit], there[own.argmax(axis=1)], there[other.argmax(axis=1)]]
        target[mine] = np.select([kind[mine] == name for name in ("right", "location", "class")], aims, -1)
    return _Typed(kind, target)


def _best_of_each(target: IntArray, score: FloatArray, candidates: BoolArray, right: BoolArray) -> BoolArray:
    """Of the candidates that aim at the same true box the best scored; of equals the one that hit it already."""
    rows = np.flatnonzero(candidates)
    order = rows[np.lexsort((~right[rows], -score[rows], target[rows]))]
    best = np.zeros(len(target), bool)
    best[order[np.unique(target[order], return_index=True)[1]]] = True
    return best


def _matches(scored: ScoredBoxes, class_id: IntArray, kept: BoolArray, hit: BoolArray, positives: IntArray) -> Matches:
    """The boxes kept, under their classes, as `match` would give them."""
    image = scored.found_image
    classes = []
    for number, true_boxes in enumerate(positives):
        rows = np.flatnonzero(kept & (class_id == number))
        rows = rows[np.lexsort((image[rows], -scored.found.score[rows]))]  # stable: equal scores rank by image, place
        classes.append(ClassMatches(scored.found.score[rows], image[rows], hit[rows][None], true_boxes))
    return Matches(scored.image_ids, (FOUND_IOU,), tuple(classes), scored.ignored_predictions, scored.ignored_truth)


def _per_class(class_id: IntArray, image: IntArray, scored: ScoredBoxes, n_classes: int) -> IntArray:
    """Boxes of each class in each image, `(n_classes, n_images)`."""
    table = np.zeros((n_classes, len(scored.image_ids)), np.int64)
    np.add.at(table, (class_id, image), 1)
    return table


def _mean_of_known(values: Float64Array) -> Float64Array:
    """Mean over the classes that are not NaN, `(n, n_classes)` → `(n,)`; NaN where all are."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))
