"""From the names in a data set's files to class ids: synonyms, refusals, a choice of findings, the class tree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from weakray.errors import DataError
from weakray.taxonomy import Taxonomy

_RANK = {0.0: 0, -1.0: 1, 1.0: 2}  # the order in which a parent is at least its child; not mentioned ranks below


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


def stronger(one: float, other: float) -> float:
    """The label that says more, in the order 0 < -1 < 1."""
    return max(one, other, key=_RANK.__getitem__)


def label_row(values: dict[int, float], count: int) -> list[float]:
    """One row of `labels.parquet`: `(count,)`, NaN where nothing is said."""
    return [values.get(class_id, math.nan) for class_id in range(count)]
