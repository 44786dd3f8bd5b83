"""`weakray ingest padchest`: PadChest from its own CSV file.

`Labels` is a list of findings written as Python writes one. Its labellers looked for all findings, so one that is not
in the list is absent; except that a report of "unchanged" alone says nothing, and one that names findings beside it
leaves the others open. Images whose label or projection is "exclude" are not to be used, and are not. Its films are
grey PNG of 16 bits, which `weakray.imaging` makes 8 bits of by their percentiles.

Source of truth: `PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv` (Bustos A. et al., PadChest, Medical Image
Analysis 2020): a column without a name, then ImageID, ImageDir, StudyDate_DICOM, StudyID, PatientID, PatientBirth,
PatientSex_DICOM, ViewPosition_DICOM, Projection (PA, L, AP, AP_horizontal, COSTAL, EXCLUDE), MethodProjection,
Pediatric, …, Report, MethodLabel (Physician, RNN_model), Labels (`['cardiomegaly', ' pleural effusion']`),
Localizations, …; images in folders 0…54 or all in one.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.box_csv import read_own_boxes
from ingest.coverage import Coverage
from ingest.findings import Vocabulary
from ingest.persons import sex_of
from ingest.result import IngestResult
from ingest.settings import TAXONOMY, LabelledConfig
from ingest.source import Source, image_rows, refuse_rows
from ingest.tables import ITEM, RAGGED, numbers, read_frame
from ingest.taxonomies import load_taxonomy
from ingest.views import refuse_views
from weakray.detections import FloatArray

_REQUIRED = ("ImageID", "StudyID", "PatientID", "Projection", "Labels")
_OPTIONAL = ("ImageDir", "StudyDate_DICOM", "PatientBirth", "PatientSex_DICOM", "MethodLabel")
_EXCLUDE, _UNCHANGED = "exclude", "unchanged"
_STATEMENTS = (_EXCLUDE, _UNCHANGED, "suboptimal study")  # what a list may say that is no finding
_VIEWS = {"L": "LATERAL"}
_ORIGIN = "PadChest (BIMCV); Bustos A. et al., PadChest, Medical Image Analysis 2020"
_LICENCE = "PadChest Dataset Research Use Agreement"


class PadchestConfig(LabelledConfig):
    """Settings of `weakray ingest padchest`."""

    unhashed: ClassVar[frozenset[str]] = LabelledConfig.unhashed | {"labels"}

    labels: Path = Field(description="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv, gzipped or not")
    taxonomy: str = Field(default="padchest", description=TAXONOMY)
    labelled_by: Literal["all", "physician"] = Field(
        default="all", description="physician: leave out the rows that a network labelled (73 %)"
    )


def run(config: PadchestConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if the table lacks a column, a finding is unknown, or there are too few images for the splits.
    """
    return assemble_reader(read_source(config), config, pair_by="ending")


def read_source(config: PadchestConfig) -> Source:
    """PadChest's table, mapped into the taxonomy.

    Raises:
        DataError: if it lacks a column.
    """
    vocabulary = Vocabulary.of(load_taxonomy(config.taxonomy).spoken_in("padchest"), config.findings)
    table = read_frame(config.labels, _REQUIRED, _OPTIONAL)
    codes, spelt = pd.factorize(table["Labels"])
    lists = [_names(cell) for cell in spelt.tolist()]
    labels = _matrix(codes, lists)
    frame = _images(table)
    said = np.array([names is not None for names in lists], bool)[codes]
    empty = np.array([names == [] for names in lists], bool)[codes]
    excluded = np.array([_EXCLUDE in (names or ()) for names in lists], bool)[codes]
    excluded |= table["Projection"].str.upper().eq("EXCLUDE").to_numpy()
    machine = np.zeros(len(table), bool)
    if config.labelled_by == "physician" and "MethodLabel" in table:
        machine = table["MethodLabel"].str.casefold().ne("physician").to_numpy()
    frame = refuse_rows(
        frame,
        (table[RAGGED].to_numpy(), "bad_row", "more cells than the header has; quote the cell that holds a comma"),
        ((table["ImageID"].eq("") | table["PatientID"].eq("")).to_numpy(), "bad_row", "expected ImageID and PatientID"),
        (~said, "bad_row", "expected Labels as a list of names, ['normal'], got something else; mend it"),
        (excluded, "excluded", "PadChest marks it as not to be used"),
        (empty, "no_labels", "the row has no label"),
        (machine, "not_physician", "labelled by a network; set labelled_by to all to take it"),
    )
    own = read_own_boxes(config.boxes, vocabulary, frame["image_id"], frame["file_name"])
    statements = Counter(name for code in codes.tolist() for name in (lists[code] or ()) if name in _STATEMENTS)
    return Source(
        name="padchest",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.counted("padchest", config.taxonomy, vocabulary, labels, own.counts),
        rows=image_rows(refuse_views(frame, config.views), vocabulary.merge(labels), vocabulary.chosen),
        origin=_ORIGIN,
        licence=_LICENCE,
        boxes=own.boxes,
        looked_at=own.looked_at,
        rejected=own.rejected,
        info={"statements": {name: statements[name] for name in _STATEMENTS}},
    )


def _images(table: pd.DataFrame) -> pd.DataFrame:
    folder = table["ImageDir"].str.removesuffix(".0") + "/" if "ImageDir" in table else ""
    view = table["Projection"]
    date = table["StudyDate_DICOM"].str.removesuffix(".0") if "StudyDate_DICOM" in table else view.str[:0]
    birth = numbers(table["PatientBirth"]) if "PatientBirth" in table else np.full(len(table), np.nan)
    age = numbers(date.str[:4]) - birth
    dated = date.str.match(r"^\d{8}$")
    return pd.DataFrame(
        {
            ITEM: table[ITEM],
            "image_id": table["ImageID"].str.replace(r"\.\w+$", "", regex=True),
            "file_name": folder + table["ImageID"],
            "patient_id": table["PatientID"],
            "study_id": table["StudyID"],
            "view": view.map(_VIEWS).fillna(view),
            "sex": table["PatientSex_DICOM"].map(sex_of) if "PatientSex_DICOM" in table else "",
            "age_years": np.where((age >= 0) & (age <= 120), age, np.nan),
            "acquired": (date.str[:4] + "-" + date.str[4:6] + "-" + date.str[6:8]).where(dated, ""),
        }
    )


def _names(cell: str) -> list[str] | None:
    """The names in a cell; empty for a blank one, None for what is no list of names."""
    if cell in ("", "nan"):
        return []
    try:
        found: Any = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return None
    return [" ".join(name.split()) for name in found if name.strip()]


def _matrix(codes: np.ndarray[Any, np.dtype[np.intp]], lists: list[list[str] | None]) -> dict[str, FloatArray]:
    """Finding → `(n,)` labels of the rows; `codes` says which list is a row's."""
    names = sorted({name for found in lists for name in found or () if name not in _STATEMENTS}, key=str.casefold)
    column = {name: at for at, name in enumerate(names)}
    of_list = np.zeros((len(lists), len(names)), np.float32)
    for row, found in enumerate(lists):
        if not found or _UNCHANGED in found or _EXCLUDE in found:
            of_list[row] = np.nan
        of_list[row, [column[name] for name in found or () if name in column]] = 1
    return {name: of_list[:, at][codes] for name, at in column.items()}
