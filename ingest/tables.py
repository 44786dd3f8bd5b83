"""Reads CSV tables as they come: with or without a byte-order mark, rows of any length."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from weakray.errors import DataError


@dataclass(frozen=True)
class Table:
    """A CSV file: its first row, then (line number, cells) of each row that is not blank. Cells are stripped."""

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def column(self, name: str) -> int:
        """Position of a column, its name compared without case.

        Raises:
            DataError: if there is none.
        """
        plain = [cell.casefold() for cell in self.header]
        if name.casefold() not in plain:
            raise DataError(f"{self.path}: expected a column {name!r}, got {', '.join(self.header) or 'none'}")
        return plain.index(name.casefold())

    def item(self, line: int, name: str = "") -> str:
        """How `rejected.csv` names a row."""
        return f"{self.path.name}:{line} {name}".rstrip()


def read_table(path: Path) -> Table:
    """Reads a CSV file.

    Raises:
        DataError: if it is missing, empty, or no UTF-8 text.
    """
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows.extend((reader.line_num, [cell.strip() for cell in cells]) for cells in reader)
    except OSError as error:
        raise DataError(f"{path}: expected a CSV file, got {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected CSV in UTF-8, got something else ({error}); save it again") from None
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise DataError(f"{path}: expected a header and rows, got an empty file")
    return Table(path, rows[0][1], rows[1:])


def read_names(path: Path) -> list[str]:
    """The lines of a list of names, blank ones left out.

    Raises:
        DataError: if the file is missing or no UTF-8 text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: expected a list of file names, got {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected a list of file names in UTF-8, got something else ({error})") from None
