"""Figures of labels: how often each value stands, ratios, which findings come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from weakray.taxonomy import Taxonomy

FloatMatrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Images with each value of one finding."""

    positive: int
    uncertain: int
    negative: int
    blank: int

    @classmethod
    def of(cls, values: pd.Series[float]) -> Counts:
        """Counts a column of 1, -1, 0 and NaN."""
        found = values.to_numpy()
        positive, uncertain, negative = (int((found == value).sum()) for value in (1, -1, 0))
        return cls(positive, uncertain, negative, int(np.isnan(found).sum()))

    @property
    def total(self) -> int:
        """All images."""
        return self.positive + self.uncertain + self.negative + self.blank

    @property
    def negatives_a_positive(self) -> float | None:
        """Neg / pos; None without a positive."""
        return self.negative / self.positive if self.positive else None

    @property
    def negatives_a_possible(self) -> float | None:
        """Neg / (pos + uncertain): the ratio when uncertain ones are taught as positive; None without either."""
        possible = self.positive + self.uncertain
        return self.negative / possible if possible else None

    @property
    def uncertainty(self) -> float | None:
        """Uncertain / (pos + uncertain), [0, 1]: of the images where it may be, those where nobody is sure."""
        possible = self.positive + self.uncertain
        return self.uncertain / possible if possible else None


@dataclass(frozen=True)
class FindingRow:
    """A finding's counts: all images, and each split."""

    name: str
    depth: int  # 0 for a root of the class tree
    counts: Counts
    by_split: dict[str, Counts]


def finding_rows(
    labels: pd.DataFrame, splits: pd.Series[str], names: Sequence[str], taxonomy: Taxonomy
) -> list[FindingRow]:
    """Counts of every finding.

    Args:
        labels: image_id × findings.
        splits: image_id → split.
        names: the splits to count.
        taxonomy: the findings.
    """
    parts = {split: labels[(splits == split).to_numpy()] for split in names}
    return [
        FindingRow(
            name=name,
            depth=len(taxonomy.path(class_id)) - 1,
            counts=Counts.of(labels[name]),
            by_split={split: Counts.of(part[name]) for split, part in parts.items()},
        )
        for class_id, name in enumerate(taxonomy.names)
    ]


def together(labels: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Images `(k, k)` in which two findings are both positive; the diagonal is each finding's positives."""
    positive = (labels.to_numpy() == 1).astype(np.int64)
    return np.asarray(positive.T @ positive)


def correlation(labels: pd.DataFrame) -> FloatMatrix:
    """Phi `(k, k)` of two findings over the images where both are 1 or 0; NaN where one does not vary there.

    φ = (n·n11 - n1·m1) / √(n1 (n - n1) m1 (n - m1)), Pearson's r of two columns of 0 and 1.
    """
    values = labels.to_numpy()
    one, known = (values == 1).astype(np.float64), np.isin(values, (0, 1)).astype(np.float64)
    n, both, mine = known.T @ known, one.T @ one, one.T @ known  # mine[i, j]: i positive where j is known too
    theirs = mine.T
    spread = mine * (n - mine) * theirs * (n - theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = np.where(spread > 0, (n * both - mine * theirs) / np.sqrt(spread), np.nan)
    return np.asarray(phi, np.float64)


def share_also(counts: npt.NDArray[np.int64]) -> FloatMatrix:
    """Of the images with the row's finding, the share `(k, k)` that has the column's too; NaN without a positive."""
    own = np.diag(counts).astype(np.float64)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(own > 0, counts / own, np.nan))


def closest(phi: FloatMatrix, taxonomy: Taxonomy) -> tuple[str, str, float] | None:
    """The two findings that go together most, and their φ; None where no pair can be compared.

    A finding and its ancestor do not count: the class tree ties them together.
    """
    upper = np.triu(np.ones_like(phi, bool), 1) & np.isfinite(phi)
    for class_id in range(len(taxonomy)):
        for above in taxonomy.path(class_id)[:-1]:
            upper[min(above, class_id), max(above, class_id)] = False
    if not upper.any():
        return None
    one, other = divmod(int(np.argmax(np.where(upper, phi, -np.inf))), len(taxonomy))
    return taxonomy.names[one], taxonomy.names[other], float(phi[one, other])


def plain_rows(rows: Sequence[FindingRow]) -> list[Mapping[str, object]]:
    """For `figures.json`."""
    return [
        {
            "finding": row.name,
            **row.counts.__dict__,
            "negatives_a_positive": row.counts.negatives_a_positive,
            "negatives_a_possible": row.counts.negatives_a_possible,
            "uncertainty": row.counts.uncertainty,
        }
        for row in rows
    ]
