"""The figures of an epoch on validation images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from classify.labels import Targets
from eval.classification import areas_under_pr, areas_under_roc

Floats = npt.NDArray[np.floating[Any]]


def finding_areas(probability: Floats, truth: Targets, findings: list[str]) -> dict[str, float | int | None]:
    """AUROC and AUPRC of each finding with its positives, and their means.

    Args:
        probability: `(n, k)` in [0, 1].
        truth: of the same images; masked and soft labels do not count.
        findings: k names.

    Returns:
        `macro_auroc`, `macro_auprc` (means over the findings that have both kinds), and for each finding
        `auroc/NAME`, `auprc/NAME`, `positives/NAME`. None where a finding, or every one, lacks positives or negatives.
    """
    found: dict[str, float | int | None] = {}
    for name, area in (("auroc", areas_under_roc), ("auprc", areas_under_pr)):
        defined: list[float] = []
        for k, finding in enumerate(findings):
            counted = truth.hard[:, k]
            positive = truth.values[counted, k] == 1
            both = 0 < positive.sum() < len(positive)
            score = np.asarray(probability[counted, k], np.float64)
            value = float(area(score, positive, np.ones((len(positive), 1)))[0]) if both else None
            found[f"{name}/{finding}"] = value
            if value is not None:
                defined.append(value)
        found[f"macro_{name}"] = float(np.mean(defined)) if defined else None
    for k, finding in enumerate(findings):
        found[f"positives/{finding}"] = int((truth.hard[:, k] & (truth.values[:, k] == 1)).sum())
    return found
