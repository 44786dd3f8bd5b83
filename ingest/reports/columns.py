"""From the findings of reports to the columns of a table of labels: the reports' own, or a dataset's."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.findings import lift, stronger
from ingest.reports.findings import COLUMNS, TREE
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy


@dataclass(frozen=True)
class Columns:
    """The columns of a table of labels.

    Attributes:
        names: in order.
        of: finding of the reports → column; a finding without one is not in it.
        taxonomy: the dataset's findings, None for the reports' own.
    """

    names: tuple[str, ...]
    of: Mapping[str, str]
    taxonomy: Taxonomy | None

    @classmethod
    def for_taxonomy(cls, taxonomy: Taxonomy | None) -> Columns:
        """A dataset's findings, met by name or synonym; None keeps all findings of the reports."""
        if taxonomy is None:
            return cls(COLUMNS, {name: name for name in COLUMNS}, None)
        of: dict[str, str] = {}
        for finding in COLUMNS:
            own = TREE.findings[TREE.index[finding]].synonyms if finding in TREE.index else ()
            for name in (finding, *own):
                try:
                    class_id = taxonomy.resolve(name)
                except DataError:
                    continue  # counted where labels are given up
                if class_id is not None:
                    of[finding] = taxonomy.names[class_id]
                break
        return cls(tuple(taxonomy.names), of, taxonomy)

    @property
    def without(self) -> list[str]:
        """Findings of the reports that have no column."""
        return [finding for finding in COLUMNS if finding not in self.of]

    def row(self, labels: Mapping[str, int]) -> dict[str, int]:
        """Column → label; of two findings in one column the stronger counts, and ancestors follow."""
        merged: dict[str, float] = {}
        for finding, value in labels.items():
            if finding in self.of:
                name = self.of[finding]
                merged[name] = stronger(float(value), merged.get(name, 0.0))
        if self.taxonomy is not None:
            ids = lift({self.taxonomy.index[name]: value for name, value in merged.items()}, self.taxonomy)
            merged = {self.taxonomy.names[class_id]: value for class_id, value in ids.items()}
        return {name: int(merged[name]) for name in self.names if name in merged}


def labels_csv(key: str, names: Sequence[str], rows: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """A table of labels, a row a report: the id, then 1, 0, -1 or nothing a column."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([key, *names])
    writer.writerows([report_id, *(row.get(name, "") for name in names)] for report_id, row in rows)
    return table.getvalue()
