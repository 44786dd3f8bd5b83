"""Image-level labels: the truth, and what text mining makes of the report about it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ingest.phantom.difficulty import Difficulty
from ingest.phantom.taxonomy import FINDINGS, PARENTS, leaves_first

TrueLabels = npt.NDArray[np.int8]  # (findings,), 0 or 1
ReportLabels = npt.NDArray[np.float32]  # (findings,), 1, 0, -1 uncertain, NaN blank

_SMALL_AREA = 0.04  # share of the film below which a finding is easily overlooked


def labels_of(class_id: npt.NDArray[np.int64]) -> TrueLabels:
    """Labels of a film whose boxes have these classes; an ancestor is 1 where a child is."""
    present = np.zeros(len(FINDINGS), np.int8)
    present[class_id] = 1
    for name in leaves_first():
        if name in PARENTS and present[FINDINGS.index(name)]:
            present[FINDINGS.index(PARENTS[name])] = 1
    return present


def report_labels(
    true_labels: TrueLabels,
    boxes_xyxy_px: npt.NDArray[np.float32],
    class_id: npt.NDArray[np.int64],
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    level: Difficulty,
) -> ReportLabels:
    """What the report says: findings overlooked (small ones more often), invented, hedged, or not mentioned.

    Drawn for each finding that is not only an ancestor; ancestors then follow with the order 0 < -1 < 1: each is at
    least its highest child. Only true absences turn blank, and never one with a reported child.

    Args:
        true_labels: `(findings,)`, 0 or 1.
        boxes_xyxy_px: `(n, 4)`, the true boxes.
        class_id: `(n,)`, index into FINDINGS.
        size_hw: of the film.
        rng: source of the mistakes.
        level: the rates.
    """
    area = (boxes_xyxy_px[:, 2] - boxes_xyxy_px[:, 0]) * (boxes_xyxy_px[:, 3] - boxes_xyxy_px[:, 1])
    share = np.zeros(len(FINDINGS))
    np.maximum.at(share, class_id, area / (size_hw[0] * size_hw[1]))
    dice = rng.random((len(FINDINGS), 3))
    overlooked = 1 + (level.missed_small_times - 1) * np.clip(1 - share / _SMALL_AREA, 0, 1)
    missed = level.missed_rate * overlooked
    hedge = dice[:, 1] < np.where(true_labels == 1, level.uncertain_positive_rate, level.uncertain_negative_rate)
    positive = np.where(true_labels == 1, dice[:, 0] >= missed, dice[:, 0] < level.invented_rate)
    said = np.where(hedge, 1.0, np.where(positive, 2.0, 0.0))  # 0 absent, 1 uncertain, 2 present: ordered
    implied = np.array([_implied(name, true_labels) for name in FINDINGS])
    said[implied] = 0.0
    for name in leaves_first():
        if name in PARENTS:
            parent = FINDINGS.index(PARENTS[name])
            said[parent] = max(said[parent], said[FINDINGS.index(name)])
    labels = np.array([0.0, -1.0, 1.0], np.float32)[said.astype(int)]
    labels[(said == 0) & (true_labels == 0) & (dice[:, 2] < level.blank_rate)] = np.nan
    return np.asarray(labels, np.float32)


def _implied(name: str, true_labels: TrueLabels) -> bool:
    """Whether a finding is there only because a child of it is: then the report speaks of the child."""
    return any(parent == name and true_labels[FINDINGS.index(child)] for child, parent in PARENTS.items())
