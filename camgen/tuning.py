"""Choosing a recipe on *tune*: what is tried for a finding, and how a candidate is judged.

Average precision over 10 to 40 boxes is noisy, so three things steady the choice. The criterion averages AP over
several IoUs and adds mean IoU. A candidate's criterion is drawn towards its mean over the other findings,
the more so the fewer boxes a finding has. And a calibration must raise the held-out IoU by more than its standard
error, or boxes stay as the map gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camgen.calibration import PLAIN, STRENGTHS, held_out
from camgen.components import Components
from camgen.scoring import (
    DUPLICATE_IOU,
    PaddedTruth,
    average_precisions,
    best_iou,
    mean_best_iou,
    padded_iou,
    without_duplicates,
)
from weakray.coco import BoxTruth
from weakray.dataset import Dataset
from weakray.detections import Detections

Array = npt.NDArray[np.float64]
IOUS = (0.3, 0.4, 0.5, 0.6)  # mean AP over these steadies AP50
_AT_50 = IOUS.index(0.5)
_IOU_WEIGHT = 0.5  # of mean IoU in the criterion
_BORROWED_BOXES = 10.0  # other findings' mean counts as much as so many boxes
_TOLERANCE = 0.002  # criteria this near are a tie: the candidate that does less wins


@dataclass(frozen=True)
class TuneFinding:
    """One finding on the images that were annotated for it.

    Attributes:
        rows: `(n,)`, the images' rows among all tune images.
        truth: their true boxes.
        fold_of: `(n,)`; a patient's images share a fold.
    """

    rows: npt.NDArray[np.int64]
    truth: PaddedTruth
    fold_of: npt.NDArray[np.int64]

    def rounded(self, ap: float) -> float | None:
        """An average precision as files hold it: null without a true box."""
        return round(ap, 6) if self.truth.count else None


@dataclass(frozen=True)
class Judged:
    """Candidates at several calibration strengths.

    Attributes:
        criterion: `(o, s)`, what is maximised; 0 without a true box.
        ap50: `(o, s)`; NaN without a true box.
        trusted: `(o, s)`, where held-out IoU rose by more than its standard error; True for the identity.
    """

    criterion: Array
    ap50: Array
    trusted: npt.NDArray[np.bool_]


def tune_findings(
    dataset: Dataset, truth: BoxTruth, image_ids: Sequence[str], folds: int, seed: int
) -> list[TuneFinding]:
    """Every finding's annotated images, true boxes and folds.

    Args:
        dataset: for sizes and patients.
        truth: of *tune*.
        image_ids: all tune images, in the order of their maps.
        folds: number of folds; patients with boxes are spread evenly over them.
        seed: of the spread.
    """
    found = []
    for class_id in range(len(dataset.taxonomy)):
        rows = [i for i, image_id in enumerate(image_ids) if (image_id, class_id) in truth.annotated]
        ids = [image_ids[i] for i in rows]
        boxes = [truth.boxes.get(image_id, Detections.empty()).of_class(class_id) for image_id in ids]
        patients = [dataset.patient_of(image_id) for image_id in ids]
        found.append(
            TuneFinding(
                np.array(rows, np.int64),
                PaddedTruth.of(boxes, [dataset.size_hw(image_id) for image_id in ids]),
                patient_folds(patients, [len(b) for b in boxes], folds, seed),
            )
        )
    return found


def patient_folds(patients: Sequence[str], boxes: Sequence[int], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold `(n,)` of each image: patients are dealt in turn, those with most boxes first, ties by a seeded draw."""
    count: dict[str, int] = {}
    for patient, number in zip(patients, boxes, strict=True):
        count[patient] = count.get(patient, 0) + number
    names = sorted(count)
    draw = np.random.default_rng(seed).permutation(len(names))
    dealt = sorted(range(len(names)), key=lambda i: (-count[names[i]], draw[i]))
    fold = {names[i]: turn % folds for turn, i in enumerate(dealt)}
    return np.array([fold[patient] for patient in patients], np.int64)


def judge(
    found: Components,
    probability: Array,
    finding: TuneFinding,
    *,
    gate: float,
    strengths: Sequence[float],
    features: tuple[str, ...] = PLAIN,
) -> Judged:
    """Scores candidates by held-out predictions, pooled over folds.

    Args:
        found: pseudo-boxes of the finding's n images under o options, before calibration.
        probability: `(n,)`, what gates and scores them.
        finding: truth and folds.
        gate: no box where the probability is lower.
        strengths: s of calibration; the first is infinity.
        features: what calibration looks at.
    """
    if finding.truth.count == 0:
        shape = (len(found.valid), len(strengths))
        return Judged(np.zeros(shape), np.full(shape, np.nan), np.ones(shape, bool))
    boxes = held_out(found, finding.truth, finding.fold_of, strengths, features)
    return judge_boxes(found, boxes, probability, finding, gate=gate)


def judge_boxes(found: Components, boxes: Array, probability: Array, finding: TuneFinding, *, gate: float) -> Judged:
    """Scores candidates whose corrected boxes are made already, of a finding that has true boxes.

    Args:
        found: pseudo-boxes of n images under o options, before correction.
        boxes: `(o, s, n, p, 4)`, the same after s corrections, each image's by fits that did not see its patient; the
            first correction leaves boxes as they are.
        probability: `(n,)`, what gates and scores them.
        finding: truth.
        gate: no box where the probability is lower.
    """
    shape = boxes.shape[:2]
    gated = found.valid & (probability >= gate)[:, None]
    keep = without_duplicates(boxes, gated[:, None], DUPLICATE_IOU)
    rows = np.flatnonzero(finding.truth.valid.any(axis=1))  # only these can hold a hit
    true, wanted = finding.truth.boxes_rel[rows], finding.truth.valid[rows]
    overlap = padded_iou(boxes[:, :, rows], true)
    score = np.clip(probability[:, None] * found.peak, 0, 1)[:, None]
    precision = average_precisions(overlap, keep, score, wanted, IOUS, rows)
    criterion = precision.mean(axis=-1) + _IOU_WEIGHT * mean_best_iou(overlap, keep[:, :, rows], wanted)
    trusted = np.ones(shape, bool)
    if shape[1] > 1:
        best = best_iou(overlap, found.valid[:, None, rows], wanted)  # (o, s, true boxes)
        gain = best[:, 1:] - best[:, :1]
        count = gain.shape[-1]
        error = gain.std(axis=-1, ddof=1) / math.sqrt(count) if count > 1 else np.inf
        trusted[:, 1:] = gain.mean(axis=-1) > error
    return Judged(criterion, precision[..., _AT_50], trusted)


def borrow(criterion: Array, boxes: npt.NDArray[np.int64]) -> Array:
    """Draws each finding's criteria `(findings, ...)` towards their mean over the other findings that have boxes.

    A finding with b boxes weighs its own criteria by b / (b + 10); one without boxes takes the others' mean.
    """
    if (boxes > 0).sum() == 0:
        return criterion
    steadied = np.empty_like(criterion)
    for f in range(len(criterion)):
        others = (boxes > 0) & (np.arange(len(boxes)) != f)
        if not others.any():
            steadied[f] = criterion[f]
            continue
        own = boxes[f] / (boxes[f] + _BORROWED_BOXES)
        steadied[f] = own * criterion[f] + (1 - own) * criterion[others].mean(axis=0)
    return steadied


def first_near_best(criterion: Array) -> int:
    """The first of the candidates whose criterion is within a hair of the best: put what does least first."""
    return int(np.flatnonzero(criterion >= criterion.max() - _TOLERANCE)[0])


def strengths_for(boxes: int, min_boxes: int, calibrate: bool) -> tuple[float, ...]:
    """Calibration strengths worth trying: all, or infinity alone with fewer than `min_boxes` true boxes."""
    return STRENGTHS if calibrate and boxes >= min_boxes else STRENGTHS[:1]
