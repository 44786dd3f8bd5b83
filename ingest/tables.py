"""Reads CSV tables as they come: with or without a byte-order mark, gzipped or not, rows of any length.

Small tables are read as lists of cells (`read_table`), large ones as a frame of the columns that are wanted
(`read_frame`).
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from weakray.detections import FloatArray
from weakray.errors import DataError

LINE, ITEM, RAGGED = "#line", "#item", "#ragged"  # columns that `read_frame` adds; no data set has such names


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
    rows = [(line, cells) for line, cells in _rows(path) if any(cells)]
    if not rows:
        raise DataError(f"{path}: expected a header and rows, got an empty file")
    return Table(path, rows[0][1], rows[1:])


def read_frame(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Reads some columns of a CSV file, each cell a stripped string, "" where a row is short.

    Args:
        path: the file; `.gz` is unpacked.
        required: columns that must be there, compared without case.
        optional: columns that may be there; the frame has those that are.

    Returns:
        The columns as asked for, and `LINE` (int), `ITEM` (how `rejected.csv` names the row) and `RAGGED` (the row has
        more cells than the header: a comma too many, so that its columns cannot be trusted).

    Raises:
        DataError: if the file is missing, empty, no UTF-8 text, or lacks a required column.
    """
    rows = _rows(path)
    header = next((cells for _, cells in rows if any(cells)), None)
    if header is None:
        raise DataError(f"{path}: expected a header and rows, got an empty file")
    plain = [cell.casefold() for cell in header]
    missing = [name for name in required if name.casefold() not in plain]
    if missing:
        wanted, given = ", ".join(map(repr, missing)), ", ".join(cell or "(blank)" for cell in header)
        raise DataError(f"{path}: expected the columns {wanted}, got {given}")
    names = [name for name in (*required, *optional) if name.casefold() in plain]
    places = [plain.index(name.casefold()) for name in names]
    columns: list[list[str]] = [[] for _ in names]
    lines: list[int] = []
    ragged: list[bool] = []
    for line, cells in rows:
        if any(cells):
            lines.append(line)
            ragged.append(any(cells[len(header) :]))
            for column, at in zip(columns, places, strict=True):
                column.append(cells[at] if at < len(cells) else "")
    frame = pd.DataFrame({name: pd.Series(c, dtype=object) for name, c in zip(names, columns, strict=True)})
    frame[LINE] = np.array(lines, np.int64)
    frame[ITEM] = pd.Series([f"{path.name}:{line}" for line in lines], dtype=object)
    frame[RAGGED] = np.array(ragged, bool)
    return frame


def read_header(path: Path) -> list[str]:
    """The names of a CSV file's columns.

    Raises:
        DataError: if the file is missing, empty, or no UTF-8 text.
    """
    header = next((cells for _, cells in _rows(path) if any(cells)), None)
    if header is None:
        raise DataError(f"{path}: expected a header and rows, got an empty file")
    return header


def label_values(cells: pd.Series[Any]) -> tuple[FloatArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """A column of 1, 0, -1 and blank cells → `(n,)` float32 with NaN for blank, and which cells are none of these."""
    codes, found = pd.factorize(cells)
    values = np.array([_label(cell) for cell in found.tolist()], np.float32)
    odd = np.array([np.isnan(value) and cell != "" for value, cell in zip(values, found.tolist(), strict=True)], bool)
    return values[codes], odd[codes]


def read_label_columns(
    frame: pd.DataFrame, names: Sequence[str]
) -> tuple[dict[str, FloatArray], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Those of the named columns that the frame has, as labels, and which rows hold a cell that is no label."""
    labels: dict[str, FloatArray] = {}
    odd = np.zeros(len(frame), bool)
    for name in names:
        if name in frame:
            labels[name], strange = label_values(frame[name])
            odd |= strange
    return labels, odd


def _label(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return np.nan
    return value if value in (1.0, 0.0, -1.0) else np.nan


def numbers(cells: pd.Series[Any]) -> FloatArray:
    """A column of numbers → `(n,)` float64, NaN where there is none."""
    return np.asarray(pd.to_numeric(cells, errors="coerce"), np.float64)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of each row."""
    try:
        with (
            gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        ):
            reader = csv.reader(file)
            for cells in reader:
                yield reader.line_num, [cell.strip() for cell in cells]
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: expected CSV in UTF-8, got something else ({error}); save it again") from None
    except OSError as error:
        raise DataError(f"{path}: expected a CSV file, got {error.strerror or error}") from None


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
