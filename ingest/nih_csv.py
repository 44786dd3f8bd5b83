"""NIH ChestX-ray14's own files: `Data_Entry_2017.csv` and `BBox_List_2017.csv`.

Both have headers whose brackets hold commas (`OriginalImage[Width,Height]`, `Bbox [x,y,w,h],,,`), quoted in some
copies and split in others, so columns are found by name up to the first bracket, and by place after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from pathlib import Path, PurePosixPath

from ingest.persons import age_in_years, sex_of
from ingest.tables import Table, read_table
from weakray.errors import DataError

_PEOPLE = ("patient gender", "patient age")  # columns that not every copy has


# What its labeller looked for: an image that names none of these has none of them.
NAMES = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)


@dataclass(frozen=True)
class Entry:
    """A row of `Data_Entry_2017.csv`.

    Attributes:
        item: how `rejected.csv` names it.
        file_name: as NIH spells it.
        findings: NIH's names.
        follow_up: number of the visit.
        patient_id: who.
        view: "PA" or "AP".
        sex: "F" or "M", "" where it is neither.
        age_years: None where it is nobody's: NIH's table holds ages of up to 414.
        problem: why it cannot be used, reason and detail.
    """

    item: str
    file_name: str
    findings: tuple[str, ...]
    follow_up: str
    patient_id: str
    view: str
    sex: str
    age_years: float | None
    problem: tuple[str, str] | None


@dataclass(frozen=True)
class BoxEntry:
    """A row of `BBox_List_2017.csv`; `xywh` holds NaN where there is no number."""

    item: str
    file_name: str
    finding: str
    xywh: tuple[float, float, float, float]


def read_entries(path: Path) -> list[Entry]:
    """The images that NIH lists, those that lack a name, patient or label among them.

    Raises:
        DataError: if the file is no table, or lacks a column.
    """
    table = read_table(path)
    columns = [
        table.column(name) for name in ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "View Position")
    ]
    people = [next((at for at, cell in enumerate(table.header) if cell.casefold() == name), None) for name in _PEOPLE]
    entries: list[Entry] = []
    for line, cells in table.rows:
        sex, age = (cells[at] if at is not None and at < len(cells) else "" for at in people)
        name, labels, follow_up, patient, view = (cells[at] if at < len(cells) else "" for at in columns)
        findings = tuple(part.strip() for part in labels.split("|") if part.strip())
        problem = None
        if not (image_id_of(name) and findings and patient):
            detail = "expected Image Index, Finding Labels and Patient ID, found one of them empty; fill it in"
            problem = ("bad_row", detail)
        entries.append(
            Entry(
                item=table.item(line, name),
                file_name=name,
                findings=findings,
                follow_up=follow_up,
                patient_id=patient,
                view=view,
                sex=sex_of(sex),
                age_years=age_in_years(age),
                problem=problem,
            )
        )
    return entries


def read_boxes(path: Path) -> list[BoxEntry]:
    """NIH's boxes, as they stand there.

    Raises:
        DataError: if the file is no table, or lacks a column.
    """
    table = read_table(path)
    image, finding, first = table.column("Image Index"), table.column("Finding Label"), _first_number(table)
    boxes: list[BoxEntry] = []
    for line, row in table.rows:
        cells = [*row, *[""] * (max(image, finding, first + 3) + 1 - len(row))]
        x, y, w, h = (_number(cell) for cell in cells[first : first + 4])
        boxes.append(BoxEntry(table.item(line, cells[image]), cells[image], cells[finding], (x, y, w, h)))
    return boxes


def image_id_of(file_name: str) -> str:
    """NIH's file names without folder and extension: they differ in the extension from copy to copy."""
    return PurePosixPath(file_name).stem


def _first_number(table: Table) -> int:
    for at, cell in enumerate(table.header):
        if cell.casefold().startswith("bbox") or cell.casefold() == "x":
            return at
    raise DataError(f"{table.path}: expected a column 'Bbox [x,y,w,h]', got {', '.join(table.header)}")


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return nan
