"""Image-level labels → training targets: what an uncertain or blank label counts as, and which labels count at all.

Labels are 1 present, 0 absent, -1 uncertain, NaN not mentioned. What an uncertain one counts as is a policy of its
finding (Irvin et al. 2019; the soft ones, label smoothing regularisation, Pham et al. 2021):

- `ignore`: nothing; `zeros`: absent; `ones`: present.
- `lsr-ones`, `lsr-zeros`: a number drawn once from a range near 1 or near 0.
- `multiclass`: a third class beside absent and present.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from weakray.config import StrictModel
from weakray.detections import BoolArray, FloatArray
from weakray.errors import ConfigError, DataError
from weakray.taxonomy import Taxonomy

Uncertainty = Literal["ignore", "zeros", "ones", "lsr-ones", "lsr-zeros", "multiclass"]
Blanks = Literal["zeros", "ignore"]
Consistency = Literal["order", "parents-present"]

UNSURE = -1.0  # target of a pair of the third class
PRESENT_ABOVE = 0.5  # a soft target above it counts as present where one must be or not be


@dataclass(frozen=True)
class Targets:
    """What the loss and the scores compare with.

    Attributes:
        values: `(n, k)` float32: 0, 1, between them where a policy is soft, or `UNSURE` where one is `multiclass`;
            0 where `mask` is False.
        mask: `(n, k)` bool, True where the label counts.
    """

    values: FloatArray
    mask: BoolArray

    @property
    def hard(self) -> BoolArray:
        """`(n, k)`, True where the label counts and is 0 or 1: all that a score may compare with."""
        return self.mask & ((self.values == 0) | (self.values == 1))

    @property
    def graded(self) -> BoolArray:
        """`(n, k)`, True where the label counts and lies on the scale from 0 to 1: not of the third class."""
        return self.mask & (self.values != UNSURE)


class SoftLabelConfig(StrictModel):
    """Ranges from which the soft policies draw, uniformly, once for each seed, image and finding."""

    ones: tuple[float, float] = Field((0.55, 0.85), description="range of lsr-ones: lowest, highest")
    zeros: tuple[float, float] = Field((0.0, 0.3), description="range of lsr-zeros: lowest, highest")


@dataclass(frozen=True)
class SoftLabels:
    """Soft values of uncertain labels, each a function of (seed, image id, finding) alone.

    So neither the order of the images, nor the number of workers, nor an interruption changes one.

    Attributes:
        config: the ranges.
        seed: another gives other values.
        image_ids: n.
        findings: k names.

    Raises:
        ConfigError: if a range does not lie within 0 and 1.
    """

    config: SoftLabelConfig
    seed: int
    image_ids: Sequence[str]
    findings: Sequence[str]

    def __post_init__(self) -> None:
        for name, (low, high) in (("ones", self.config.ones), ("zeros", self.config.zeros)):
            if not 0 <= low <= high <= 1:
                raise ConfigError(f"soft_labels.{name}: expected 0 <= lowest <= highest <= 1, got {low:g} and {high:g}")

    def value(self, row: int, column: int, policy: Uncertainty) -> float:
        """The value that `lsr-ones` or `lsr-zeros` gives to the uncertain label of an image and a finding."""
        low, high = self.config.ones if policy == "lsr-ones" else self.config.zeros
        return low + (high - low) * unit_draw(self.seed, self.image_ids[row], self.findings[column])


def unit_draw(seed: int, image_id: str, finding: str) -> float:
    """A number from [0, 1), uniform over images and findings, always the same for the same three."""
    digest = hashlib.blake2b(f"{seed}\0{image_id}\0{finding}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def policies(findings: Sequence[str], default: Uncertainty, named: dict[str, Uncertainty]) -> list[Uncertainty]:
    """The uncertainty policy of each finding, `named` over `default`.

    Raises:
        ConfigError: if `named` holds something that is no finding.
    """
    unknown = sorted(set(named) - set(findings))
    if unknown:
        raise ConfigError(f"uncertainty_of: {unknown[0]!r} is no finding; expected some of {', '.join(findings)}")
    return [named.get(name, default) for name in findings]


def targets(
    labels: npt.NDArray[Any], uncertainty: Sequence[Uncertainty], blanks: Blanks, soft: SoftLabels | None = None
) -> Targets:
    """Labels `(n, k)` → targets and mask.

    Args:
        labels: 1, 0, -1 or NaN.
        uncertainty: what -1 counts as, per finding.
        blanks: what NaN counts as.
        soft: of the same images and findings; needed where a policy is soft.

    Raises:
        DataError: on any other value, or another number of findings than policies.
        ValueError: if a policy is soft and `soft` is None or of another number of images.
    """
    values = np.asarray(labels, np.float32)
    if values.ndim != 2 or values.shape[1] != len(uncertainty):
        raise DataError(f"labels: expected shape (n, {len(uncertainty)}), got {values.shape}")
    blank, unsure = np.isnan(values), values == -1
    odd = ~(blank | unsure | (values == 0) | (values == 1))
    if odd.any():
        raise DataError(f"labels: expected 1, 0, -1 (uncertain) or blank, got {float(values[odd][0]):g}")
    mask = ~blank if blanks == "ignore" else np.ones(values.shape, bool)
    made = (values == 1).astype(np.float32)
    for column, policy in enumerate(uncertainty):
        rows = unsure[:, column]
        match policy:
            case "ignore":
                mask[rows, column] = False
            case "zeros":
                made[rows, column] = 0
            case "ones":
                made[rows, column] = 1
            case "multiclass":
                made[rows, column] = UNSURE
            case "lsr-ones" | "lsr-zeros":
                if soft is None or len(soft.image_ids) != len(values):
                    given = "none" if soft is None else f"those of {len(soft.image_ids)}"
                    raise ValueError(f"{policy}: expected soft labels of {len(values)} images, got {given}")
                made[rows, column] = [soft.value(row, column, policy) for row in np.flatnonzero(rows).tolist()]
    return Targets(np.where(mask, made, 0).astype(np.float32), mask)


def lift_ancestors(labels: npt.NDArray[Any], taxonomy: Taxonomy, consistency: Consistency = "order") -> FloatArray:
    """Labels `(n, k)` made to agree with the class tree: a report that names a pneumonia has named an opacity.

    - `order`: every ancestor is at least its descendants' value, in the order absent or blank, -1, 1.
    - `parents-present`: every ancestor of a present or uncertain finding is present: whatever it may be, it is seen.

    A blank ancestor of an absent child stays blank under either.
    """
    lifted = np.array(labels, np.float32)
    for child in reversed(taxonomy.top_down):
        parent = taxonomy.parents[child]
        if parent is None:
            continue
        if consistency == "order":
            higher = _rank(lifted[:, child]) > _rank(lifted[:, parent])
            lifted[higher, parent] = lifted[higher, child]
        else:
            lifted[_rank(lifted[:, child]) > 0, parent] = 1
    return lifted


def _rank(values: FloatArray) -> npt.NDArray[np.int64]:
    return np.where(values == 1, 2, np.where(values == -1, 1, 0))


def conditional(full: Targets, taxonomy: Taxonomy) -> Targets:
    """Targets in which a child counts only where all its ancestors count and are present (conditional training).

    A soft ancestor is present above `PRESENT_ABOVE`, so that `lsr-ones` goes with `ones` and `lsr-zeros` with
    `zeros`; one of the third class is not.
    """
    mask = full.mask.copy()
    for child in taxonomy.top_down:
        parent = taxonomy.parents[child]
        if parent is not None:
            mask[:, child] &= mask[:, parent] & (full.values[:, parent] > PRESENT_ABOVE)
    return Targets(np.where(mask, full.values, 0).astype(np.float32), mask)


def constant_findings(full: Targets) -> list[int]:
    """Class ids of the findings without a present or without an absent label that counts: nothing tells them apart."""
    present = (full.graded & (full.values > PRESENT_ABOVE)).any(axis=0)
    absent = (full.graded & (full.values <= PRESENT_ABOVE)).any(axis=0)
    return [int(k) for k in np.flatnonzero(~(present & absent))]


def without(given: Targets, class_ids: Sequence[int]) -> Targets:
    """Targets in which no label of these findings counts."""
    mask = given.mask.copy()
    mask[:, list(class_ids)] = False
    return Targets(np.where(mask, given.values, 0).astype(np.float32), mask)
