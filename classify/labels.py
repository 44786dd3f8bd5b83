"""Image-level labels → training targets: what an uncertain or blank label counts as, and which labels count at all.

Labels are 1 present, 0 absent, -1 uncertain, NaN not mentioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from weakray.detections import BoolArray, FloatArray
from weakray.errors import ConfigError, DataError
from weakray.taxonomy import Taxonomy

Uncertainty = Literal["ignore", "zeros", "ones"]
Blanks = Literal["zeros", "ignore"]


@dataclass(frozen=True)
class Targets:
    """What the loss and the scores compare with.

    Attributes:
        values: `(n, k)` float32, 0 or 1; 0 where `mask` is False.
        mask: `(n, k)` bool, True where the label counts.
    """

    values: FloatArray
    mask: BoolArray


def policies(findings: Sequence[str], default: Uncertainty, named: dict[str, Uncertainty]) -> list[Uncertainty]:
    """The uncertainty policy of each finding, `named` over `default`.

    Raises:
        ConfigError: if `named` holds something that is no finding.
    """
    unknown = sorted(set(named) - set(findings))
    if unknown:
        raise ConfigError(f"uncertainty_of: {unknown[0]!r} is no finding; expected some of {', '.join(findings)}")
    return [named.get(name, default) for name in findings]


def targets(labels: npt.NDArray[Any], uncertainty: Sequence[Uncertainty], blanks: Blanks) -> Targets:
    """Labels `(n, k)` → targets and mask.

    Args:
        labels: 1, 0, -1 or NaN.
        uncertainty: what -1 counts as, per finding.
        blanks: what NaN counts as.

    Raises:
        DataError: on any other value, or another number of findings than policies.
    """
    values = np.asarray(labels, np.float32)
    if values.ndim != 2 or values.shape[1] != len(uncertainty):
        raise DataError(f"labels: expected shape (n, {len(uncertainty)}), got {values.shape}")
    blank, unsure = np.isnan(values), values == -1
    odd = ~(blank | unsure | (values == 0) | (values == 1))
    if odd.any():
        raise DataError(f"labels: expected 1, 0, -1 (uncertain) or blank, got {float(values[odd][0]):g}")
    mask = ~(unsure & (np.array(uncertainty) == "ignore")[None])
    if blanks == "ignore":
        mask &= ~blank
    ones = (values == 1) | (unsure & (np.array(uncertainty) == "ones")[None])
    return Targets((ones & mask).astype(np.float32), mask)


def lift_ancestors(labels: npt.NDArray[Any], taxonomy: Taxonomy) -> FloatArray:
    """Labels `(n, k)` in which every ancestor is at least its descendants' value, in the order absent or blank, -1, 1.

    A report that names a pneumonia has named an opacity. A blank ancestor of an absent child stays blank.
    """
    lifted = np.array(labels, np.float32)
    for child in reversed(taxonomy.top_down):
        parent = taxonomy.parents[child]
        if parent is not None:
            higher = _rank(lifted[:, child]) > _rank(lifted[:, parent])
            lifted[higher, parent] = lifted[higher, child]
    return lifted


def _rank(values: FloatArray) -> npt.NDArray[np.int64]:
    return np.where(values == 1, 2, np.where(values == -1, 1, 0))


def conditional(full: Targets, taxonomy: Taxonomy) -> Targets:
    """Targets in which a child counts only where all its ancestors count and are 1 (conditional training)."""
    mask = full.mask.copy()
    for child in taxonomy.top_down:
        parent = taxonomy.parents[child]
        if parent is not None:
            mask[:, child] &= mask[:, parent] & (full.values[:, parent] == 1)
    return Targets(np.where(mask, full.values, 0).astype(np.float32), mask)


def positive_weights(given: Targets, cap: float) -> FloatArray:
    """Weight of the positive term of the loss per finding `(k,)`: min(N_neg / N_pos, cap), over what counts.

    A finding without positives gets `cap`: it has no positive term to weigh.
    """
    positive = given.values.sum(0, dtype=np.float64)
    negative = given.mask.sum(0) - positive
    ratio = np.divide(negative, positive, out=np.full(len(positive), np.inf), where=positive > 0)
    return np.minimum(ratio, cap).astype(np.float32)
