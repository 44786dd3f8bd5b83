"""`weakray ingest mimic`: MIMIC-CXR-JPG from its own CSV files.

The metadata lists the images; labels are those of a study, given to each of its images, by CheXpert's or NegBio's
labeller, or by a radiologist for the studies of a table of his (`test_labels`). The official list has train, validate
and test. Dates are shifted by patient: right in order, wrong in years.

Source of truth: MIMIC-CXR-JPG 2.0.0 and 2.1.0 (Johnson A. et al., 2019): `mimic-cxr-2.0.0-metadata.csv.gz` (dicom_id,
subject_id, study_id, PerformedProcedureStepDescription, ViewPosition, Rows, Columns, StudyDate, …),
`mimic-cxr-2.0.0-chexpert.csv.gz` and `…-negbio.csv.gz` (subject_id, study_id, 14 observations of 1.0, 0.0, -1.0 or
blank), `mimic-cxr-2.0.0-split.csv.gz` (dicom_id, study_id, subject_id, split), `mimic-cxr-2.1.0-test-set-labeled.csv`
(study_id, observations); images at `files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.box_csv import read_own_boxes
from ingest.chexpert import OBSERVATIONS
from ingest.coverage import Coverage
from ingest.findings import Vocabulary
from ingest.result import IngestResult
from ingest.settings import LabelledConfig
from ingest.source import Side, Source, image_rows, refuse_rows
from ingest.tables import ITEM, RAGGED, read_frame, read_label_columns
from ingest.taxonomies import load_taxonomy
from ingest.views import refuse_views
from weakray.dataset import Rejection
from weakray.detections import BoolArray, FloatArray
from weakray.errors import DataError

_OTHER_NAMES = ("Airspace Opacity",)  # in the radiologist's table
_SIDES: dict[str, Side] = {"train": "train", "validate": "val", "test": "test"}
_ORIGIN = "MIMIC-CXR-JPG (PhysioNet); Johnson A. et al., MIMIC-CXR-JPG, 2019"
_LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"


class MimicConfig(LabelledConfig):
    """Settings of `weakray ingest mimic`."""

    unhashed: ClassVar[frozenset[str]] = LabelledConfig.unhashed | {"metadata", "labels", "test_labels", "split_list"}

    metadata: Path = Field(description="mimic-cxr-2.0.0-metadata.csv.gz")
    labels: Path = Field(description="mimic-cxr-2.0.0-chexpert.csv.gz or …-negbio.csv.gz")
    split_list: Path | None = Field(
        default=None, description="mimic-cxr-2.0.0-split.csv.gz; none: images are split by patient"
    )
    test_labels: Path | None = Field(
        default=None,
        description="mimic-cxr-2.1.0-test-set-labeled.csv: a radiologist's labels go before the labeller's",
    )


def run(config: MimicConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if a table lacks a column, a finding is unknown, or there are too few images for the splits.
    """
    return assemble_reader(read_source(config), config, pair_by="ending")


def read_source(config: MimicConfig) -> Source:
    """MIMIC's tables, mapped into the taxonomy.

    Raises:
        DataError: if a table lacks a column.
    """
    vocabulary = Vocabulary.of(load_taxonomy(config.taxonomy).spoken_in("mimic"), config.findings)
    frame = _images(config.metadata)
    study_of = pd.Series(frame["study_id"].to_numpy(), frame.index)
    studies = [_studies(path) for path in (config.test_labels, config.labels) if path is not None]
    labels, known, odd = _labels_of_images(study_of, studies)
    frame = refuse_rows(
        frame,
        (odd, "bad_row", "its study's row of labels holds something other than 1.0, 0.0, -1.0 or nothing; mend it"),
        (~known, "no_labels", f"no row of {config.labels.name} is of its study; add one"),
    )
    sides, unlisted = _sides(config.split_list, frame)
    own = read_own_boxes(config.boxes, vocabulary, frame["image_id"], frame["file_name"])
    imageless = [row for study in studies for row in _without_image(study, set(study_of))]
    return Source(
        name="mimic",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.counted("mimic", config.taxonomy, vocabulary, labels, own.counts),
        rows=image_rows(refuse_views(frame, config.views), vocabulary.merge(labels), vocabulary.chosen),
        origin=_ORIGIN,
        licence=_LICENCE,
        boxes=own.boxes,
        looked_at=own.looked_at,
        sides=sides,
        rejected=own.rejected + imageless + unlisted,
    )


def _images(path: Path) -> pd.DataFrame:
    table = read_frame(path, ["dicom_id", "subject_id", "study_id"], ["ViewPosition", "StudyDate"])
    subject = table["subject_id"].str.removeprefix("p")
    study = table["study_id"].str.removeprefix("s")
    date = table["StudyDate"] if "StudyDate" in table else pd.Series("", index=table.index)
    frame = pd.DataFrame(
        {
            ITEM: table[ITEM],
            "image_id": table["dicom_id"],
            "file_name": "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + table["dicom_id"] + ".jpg",
            "patient_id": subject,
            "study_id": study,
            "view": table.get("ViewPosition", ""),
            "acquired": date.str.replace(r"^(\d{4})(\d{2})(\d{2})(?:\.0)?$", r"\1-\2-\3", regex=True).where(
                date.str.match(r"^\d{8}(?:\.0)?$"), ""
            ),
        }
    )
    blank = (table["dicom_id"].eq("") | subject.eq("") | study.eq("")).to_numpy()
    return refuse_rows(
        frame,
        (table[RAGGED].to_numpy(), "bad_row", "more cells than the header has; quote the cell that holds a comma"),
        (blank, "bad_row", "expected dicom_id, subject_id and study_id, found one of them empty; fill it in"),
    )


def _studies(path: Path) -> pd.DataFrame:
    """A table of studies: study, item, `label NAME`, odd; of several rows of a study the first."""
    table = read_frame(path, ["study_id"], [*OBSERVATIONS, *_OTHER_NAMES])
    labels, odd = read_label_columns(table, [*OBSERVATIONS, *_OTHER_NAMES])
    if not labels:
        raise DataError(f"{path}: expected columns of observations such as {OBSERVATIONS[1]!r}, got none of them")
    columns = {f"label {name}": values for name, values in labels.items()}
    study = table["study_id"].str.removeprefix("s")
    frame = pd.DataFrame({"study": study, ITEM: table[ITEM], "odd": odd | table[RAGGED].to_numpy(), **columns})
    frame["again"] = frame["study"].duplicated()
    return frame


def _labels_of_images(
    study_of: pd.Series[Any], studies: list[pd.DataFrame]
) -> tuple[dict[str, FloatArray], BoolArray, BoolArray]:
    """Label → `(n,)` of the images, which images have labels at all, and whose row is odd; the first table decides."""
    count = len(study_of)
    known, odd = np.zeros(count, bool), np.zeros(count, bool)
    columns = [str(column) for frame in studies for column in frame.columns]
    names = dict.fromkeys(c.removeprefix("label ") for c in columns if c.startswith("label "))
    labels: dict[str, FloatArray] = {name: np.full(count, np.nan, np.float32) for name in names}
    for frame in studies:
        first = frame[~frame["again"]].set_index("study")
        at = first.index.get_indexer(pd.Index(study_of))
        new = (at >= 0) & ~known
        odd[new] = first["odd"].to_numpy()[at[new]]
        for name in names:
            if f"label {name}" in first:
                labels[name][new] = first[f"label {name}"].to_numpy()[at[new]]
        known |= new
    return labels, known, odd


def _without_image(studies: pd.DataFrame, known: set[str]) -> list[Rejection]:
    again = studies["again"].to_numpy()
    lost = ~studies["study"].isin(known).to_numpy() & ~again
    rows = zip(studies[ITEM], studies["study"], again, strict=True)
    found: list[Rejection] = []
    for (item, study, twice), alone in zip(rows, lost, strict=True):
        if twice:
            found.append(Rejection(f"{item} {study}", "duplicated", "the study has labels already; keep one row"))
        elif alone:
            found.append(Rejection(f"{item} {study}", "no_image", "the metadata list no image of this study"))
    return found


def _sides(path: Path | None, frame: pd.DataFrame) -> tuple[dict[str, Side | None], list[Rejection]]:
    """image_id → side, None for an image that the list does not name; and rows of the list that are of no use."""
    if path is None:
        return {}, []
    table = read_frame(path, ["dicom_id", "split"])
    sides: dict[str, Side | None] = dict.fromkeys(frame["image_id"])
    rejected: list[Rejection] = []
    for item, name, word in zip(table[ITEM], table["dicom_id"], table["split"], strict=True):
        side = _SIDES.get(word.casefold())
        if side is None:
            rejected.append(Rejection(f"{item} {name}", "bad_row", f"expected train, validate or test, got {word!r}"))
        elif name not in sides:
            rejected.append(Rejection(f"{item} {name}", "no_image", "the metadata list no such image"))
        else:
            sides[name] = side
    return sides, rejected
