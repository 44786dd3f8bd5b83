"""Reports as they come: a CSV, a JSONL, or a folder of text files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.listing import list_folder, printable
from ingest.tables import read_table
from weakray.dataset import Rejection
from weakray.errors import DataError

_TEXT_COLUMNS = ("report", "text", "report_text", "findings", "compte_rendu")
_ID_COLUMNS = ("image_id", "file_name", "study_id", "report_id", "accession", "id")


@dataclass(frozen=True)
class Report:
    """A report's id and text."""

    report_id: str
    text: str


@dataclass(frozen=True)
class ReportSet:
    """All reports of a source.

    Attributes:
        key: what the ids are ids of: the name of their column.
        reports: in the source's order, each id once.
        rejected: what was not taken.
        repaired: texts that were no UTF-8 and were read as Windows-1252.
    """

    key: str
    reports: list[Report]
    rejected: list[Rejection]
    repaired: int = 0


def read_reports(path: Path, id_column: str | None, text_column: str | None) -> ReportSet:
    """Reads a source by what it is: a folder, `.jsonl`, else CSV.

    Args:
        path: the file or folder.
        id_column: column of the ids; None: the first of image_id, file_name, study_id, report_id, accession, id. Of a
            folder, the name its ids get in the table of labels; None: image_id.
        text_column: column of the texts; None: the first of report, text, report_text, findings, compte_rendu.

    Raises:
        DataError: if there is nothing there, or no such column.
    """
    if path.is_dir():
        return _folder(path, id_column or "image_id")
    rows = _jsonl(path) if path.suffix in (".jsonl", ".ndjson") else _csv(path)
    names = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    key = _column(path, names, id_column, _ID_COLUMNS, "id_column")
    said = _column(path, names, text_column, _TEXT_COLUMNS, "text_column")
    found: dict[str, Report] = {}
    rejected: list[Rejection] = []
    for item, row in rows:
        if not isinstance(row, dict):
            rejected.append(Rejection(item, "bad_row", f"expected a JSON object, got {row}; mend the line"))
            continue
        report_id, text = printable(_text_of(row.get(key))), row.get(said)
        if not report_id:
            rejected.append(Rejection(item, "bad_row", f"expected a value for {key}; mend the row"))
        elif report_id in found:
            rejected.append(Rejection(item, "duplicated", f"{report_id!r} has a report already; keep one"))
        elif not isinstance(text, str) or not text.strip():
            rejected.append(Rejection(item, "no_text", f"expected a text for {said}; add it or drop the row"))
        else:
            found[report_id] = Report(report_id, text)
    return ReportSet(key, list(found.values()), rejected)


def _text_of(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _column(path: Path, names: list[str], given: str | None, usual: tuple[str, ...], setting: str) -> str:
    wanted = (given,) if given is not None else usual
    for name in wanted:
        if name in names:
            return name
    raise DataError(f"{path}: expected a column {' or '.join(wanted)}, got {', '.join(names)}; name it by {setting}")


def _csv(path: Path) -> list[tuple[str, dict[str, Any] | str]]:
    table = read_table(path)
    return [
        (table.item(line), dict(zip(table.header, [*cells, *[""] * (len(table.header) - len(cells))], strict=False)))
        for line, cells in table.rows
    ]


def _jsonl(path: Path) -> list[tuple[str, dict[str, Any] | str]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: expected a file of JSON lines, got {error.strerror or error}") from None
    rows: list[tuple[str, dict[str, Any] | str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            value = type(error).__name__
        rows.append((f"{path.name}:{number}", value if isinstance(value, dict) else type(value).__name__))
    if not rows:
        raise DataError(f"{path}: expected a JSON object a line, got an empty file")
    return rows


def _folder(root: Path, key: str) -> ReportSet:
    listing = list_folder(root)
    reports: dict[str, Report] = {}
    rejected = [Rejection(name, "bad_name", "its name is no UTF-8; rename it") for name in listing.undecodable]
    repaired = 0
    for name in listing.paths:
        if not name.lower().endswith(".txt"):
            rejected.append(Rejection(name, "not_text", "expected a file .txt; rename it or take it out"))
            continue
        report_id = name[: -len(".txt")]
        content = (root / name).read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text, repaired = content.decode("cp1252", "replace"), repaired + 1
        if not text.strip():
            rejected.append(Rejection(name, "no_text", "the file is empty"))
        elif report_id in reports:
            rejected.append(Rejection(name, "duplicated", f"{report_id!r} has a report already; keep one"))
        else:
            reports[report_id] = Report(report_id, text)
    return ReportSet(key, list(reports.values()), rejected, repaired)
