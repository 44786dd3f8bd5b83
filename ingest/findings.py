"""From the names in a data set's files to class ids: synonyms, refusals, a choice of findings, the class tree.

A label is 1, 0, -1 or blank. Whatever is joined (two names of one finding, a child and its parent) keeps the one that
says more, in the order blank < 0 < -1 < 1. One image's labels are a dict, a whole table's an array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakray.dataset import Rejection
from weakray.detections import FloatArray
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy

_RANK = {0.0: 0, -1.0: 1, 1.0: 2}  # the order in which a parent is at least its child; not mentioned ranks below
_OF_RANK = np.array([np.nan, 0.0, -1.0, 1.0], np.float32)  # of the array form, where blank has the rank 0


@dataclass(frozen=True)
class Fate:
    """What a name stands for.

    Attributes:
        class_id: its class id in the chosen taxonomy, None where it has none.
        finding: that finding's name.
        why: "taken"; "none": it means "no finding"; "not_chosen": its finding was not chosen; "unknown".
    """

    class_id: int | None
    finding: str | None
    why: Literal["taken", "none", "not_chosen", "unknown"]


@dataclass(frozen=True)
class Vocabulary:
    """Resolves names by the whole taxonomy, and numbers them by the findings that were chosen of it.

    Attributes:
        whole: every finding whose name is understood.
        chosen: the dataset's taxonomy.
    """

    whole: Taxonomy
    chosen: Taxonomy

    @classmethod
    def of(cls, whole: Taxonomy, findings: Sequence[str] | None) -> Vocabulary:
        """All findings of a taxonomy, or some of them by name or synonym.

        A chosen finding whose parent is not chosen hangs below its nearest chosen ancestor. The order is the
        taxonomy's.

        Raises:
            DataError: if a chosen name is unknown, or none is chosen.
        """
        if findings is None:
            return cls(whole, whole)
        ids = {class_id for class_id in resolve_all(findings, whole, "findings").values() if class_id is not None}
        if not ids:
            raise DataError(f"findings: expected at least one of {', '.join(whole.names)}, got {list(findings)}")
        kept = []
        for class_id in sorted(ids):
            above = [at for at in whole.path(class_id)[:-1] if at in ids]
            kept.append(replace(whole.findings[class_id], parent=whole.names[above[-1]] if above else None))
        return cls(whole, Taxonomy(tuple(kept), whole.ignored))

    def ids(self, names: Iterable[str], where: str) -> dict[str, int | None]:
        """Name → class id in `chosen`; None for a name that is understood but stands for no chosen finding.

        Raises:
            DataError: naming every unknown finding at once, and how to mend it.
        """
        resolved = resolve_all(names, self.whole, where)
        return {
            name: None if class_id is None else self.chosen.index.get(self.whole.names[class_id])
            for name, class_id in resolved.items()
        }

    def fate(self, name: str) -> Fate:
        """What a name stands for; one that the taxonomy does not know is no error here."""
        try:
            at = self.whole.resolve(name)
        except DataError:
            return Fate(None, None, "unknown")
        if at is None:
            return Fate(None, None, "none")
        class_id = self.chosen.index.get(self.whole.names[at])
        return Fate(None, None, "not_chosen") if class_id is None else Fate(class_id, self.whole.names[at], "taken")

    def merge(self, labels: Mapping[str, FloatArray]) -> FloatArray:
        """Labels by the data set's names → labels by finding `(n, k)`, blank where no name stands for the finding.

        Args:
            labels: name → `(n,)` of 1, 0, -1 and NaN; names without a place in the taxonomy are left out.
        """
        count = max((len(values) for values in labels.values()), default=0)
        ranks = np.zeros((count, len(self.chosen)), np.int8)
        for name, values in labels.items():
            class_id = self.fate(name).class_id
            if class_id is not None:
                ranks[:, class_id] = np.maximum(ranks[:, class_id], _ranks(values))
        return np.asarray(_OF_RANK[ranks])

    def understood(self, names: Iterable[str]) -> set[int]:
        """Class ids in `chosen` of those names that the taxonomy knows."""
        known: set[int] = set()
        for name in names:
            try:
                known |= {class_id for class_id in self.ids([name], "").values() if class_id is not None}
            except DataError:
                continue  # another data set's taxonomy need not know all names
        return known


def resolve_all(names: Iterable[str], taxonomy: Taxonomy, where: str) -> dict[str, int | None]:
    """Name → class id, None for one that means "no finding".

    Raises:
        DataError: naming every unknown finding at once, and how to mend it.
    """
    found: dict[str, int | None] = {}
    unknown: list[str] = []
    for name in sorted(set(names)):
        try:
            found[name] = taxonomy.resolve(name)
        except DataError:
            unknown.append(name)
    if unknown:
        raise DataError(
            f"{where}: unknown findings {', '.join(map(repr, unknown))}; known are {', '.join(taxonomy.names)}. "
            "Give a taxonomy that names them, as findings, as synonyms, or under `ignored:`"
        )
    return found


def refuse_box(item: str, name: str, vocabulary: Vocabulary) -> Rejection:
    """Why a box of this name is not taken, where the name stands for no chosen finding."""
    match vocabulary.fate(name).why:
        case "not_chosen":
            return Rejection(item, "not_chosen", f"{name!r} is not among the findings that were chosen")
        case "none":
            return Rejection(item, "ignored_class", f"the taxonomy ignores {name!r}")
        case _:
            known = ", ".join(vocabulary.whole.names)
            return Rejection(
                item, "unknown_class", f"unknown finding {name!r}; expected one of {known}, or add it as a synonym"
            )


def lift(values: dict[int, float], taxonomy: Taxonomy) -> dict[int, float]:
    """Labels of one image made consistent: every ancestor is at least its child, in the order 0 < -1 < 1.

    Args:
        values: class_id → 1, 0 or -1; a finding that is not mentioned is absent. An absent child says nothing, and
            an absent parent is mentioned only where its child is -1 or 1.
        taxonomy: the class tree.
    """
    lifted = dict(values)
    for class_id in reversed(taxonomy.top_down):
        parent, value = taxonomy.parents[class_id], lifted.get(class_id, 0.0)
        if parent is not None and value != 0:
            lifted[parent] = stronger(value, lifted.get(parent, 0.0))
    return lifted


def lift_table(labels: FloatArray, taxonomy: Taxonomy) -> FloatArray:
    """`lift` of a whole table `(n, k)`; NaN is blank."""
    ranks = _ranks(labels)
    for class_id in reversed(taxonomy.top_down):
        parent = taxonomy.parents[class_id]
        if parent is not None:
            said = np.where(ranks[:, class_id] >= 2, ranks[:, class_id], 0)
            ranks[:, parent] = np.maximum(ranks[:, parent], said)
    return np.asarray(_OF_RANK[ranks])


def _ranks(labels: FloatArray) -> npt.NDArray[np.int8]:
    """0 for blank, 1 for 0, 2 for -1, 3 for 1."""
    return np.select([labels == 1, labels == -1, labels == 0], [3, 2, 1], 0).astype(np.int8)


def stronger(one: float, other: float) -> float:
    """The label that says more, in the order 0 < -1 < 1."""
    return max(one, other, key=_RANK.__getitem__)


def label_row(values: dict[int, float], count: int) -> list[float]:
    """One row of `labels.parquet`: `(count,)`, NaN where nothing is said."""
    return [values.get(class_id, math.nan) for class_id in range(count)]
