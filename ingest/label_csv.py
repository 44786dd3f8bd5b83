"""A table of image-level labels: `image_id` or `file_name`, then a column a finding with 1, 0, -1 or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.tables import read_table
from weakray.dataset import Rejection
from weakray.errors import DataError

_VALUES = {"": None, "1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0}


@dataclass(frozen=True)
class LabelRow:
    """One image's labels by the names in the header; a blank is absent."""

    item: str
    name: str
    values: dict[str, float]


@dataclass(frozen=True)
class LabelTable:
    """The table, checked.

    Attributes:
        key: the column that names the images, e.g. `image_id`.
        findings: the other columns.
        rows: by the image's name.
        rejected: rows with another value, or a name that stood before.
    """

    key: str
    findings: list[str]
    rows: dict[str, LabelRow]
    rejected: list[Rejection]


def read_labels(path: Path, names: Sequence[str] = ("image_id", "file_name")) -> LabelTable:
    """Reads the table.

    Args:
        path: the file.
        names: columns that may say whose labels a row holds; of several, the first in this order counts, and none of
            them is a finding.

    Raises:
        DataError: if it has none of these columns, or no finding, or one twice.
    """
    table = read_table(path)
    keys = [name for name in names if name in table.header]
    if not keys:
        raise DataError(f"{path}: expected a column {' or '.join(names)}, got {', '.join(table.header)}")
    key = keys[0]
    places = {at: name for at, name in enumerate(table.header) if name not in keys and name}
    if not places or len(set(places.values())) != len(places):
        raise DataError(f"{path}: expected a column a finding, each once, got {', '.join(table.header)}")
    rows: dict[str, LabelRow] = {}
    rejected: list[Rejection] = []
    for line, row in table.rows:
        cells = [*row, *[""] * (len(table.header) - len(row))]
        name = cells[table.header.index(key)]
        item = table.item(line, name)
        odd = [cells[at] for at in places if cells[at] not in _VALUES]
        if odd or not name:
            detail = f"expected 1, 0, -1 or nothing, got {odd[0]!r}" if odd else f"expected a value for {key}"
            rejected.append(Rejection(item, "bad_row", f"{detail}; mend the row"))
        elif name in rows:
            rejected.append(Rejection(item, "duplicated", f"{name!r} has labels already, at {rows[name].item}"))
        else:
            given = {finding: _VALUES[cells[at]] for at, finding in places.items()}
            rows[name] = LabelRow(item, name, {finding: v for finding, v in given.items() if v is not None})
    return LabelTable(key, list(places.values()), rows, rejected)
