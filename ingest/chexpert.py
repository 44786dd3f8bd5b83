"""`weakray ingest chexpert`: CheXpert from its own CSV files, with CheXlocalize's contours where one has them.

The tables are the splits, unless `lists` is false: `train.csv` is train, from which val is drawn; `valid.csv` (three
radiologists' labels, none uncertain) goes where `valid_as` says; `test.csv` is test. CheXpert has no boxes. They come
from CheXlocalize, whose contours of valid and test images are read as boxes (`valid_as: tune` then makes the pair
that this system needs), or from a table of one's own (`boxes`).

Source of truth: CheXpert-v1.0 and CheXpert-v1.0-small (Irvin J. et al., CheXpert, AAAI 2019), whose rows are
`Path,Sex,Age,Frontal/Lateral,AP/PA,` and 14 observations of 1.0, 0.0, -1.0 or blank, with paths such as
`CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`; CheXlocalize (Saporta A. et al., 2022), whose
`test_labels.csv` has `Path` and observations alone, and whose `gt_annotations_*.json` hold `{image: {"img_size": [h,
w], OBSERVATION: [[[x, y], …], …]}}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.box_csv import read_own_boxes
from ingest.boxes import RawBox
from ingest.contours import read_contours
from ingest.coverage import Coverage
from ingest.findings import Vocabulary
from ingest.persons import sex_of
from ingest.result import IngestResult
from ingest.settings import LabelledConfig
from ingest.source import Side, Source, image_rows, refuse_rows
from ingest.tables import ITEM, RAGGED, numbers, read_frame, read_label_columns
from ingest.taxonomies import load_taxonomy
from ingest.views import refuse_views
from weakray.dataset import Rejection
from weakray.errors import DataError

OBSERVATIONS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
_OTHER_NAMES = ("Airspace Opacity",)  # in CheXlocalize
_ABOUT = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_PATH = r"(?:^|/)(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<name>view\d+_(?P<view>frontal|lateral))\.\w+$"
_ORIGIN = "CheXpert (Stanford ML Group); Irvin J. et al., CheXpert, AAAI 2019"
_LICENCE = "Stanford University Dataset Research Use Agreement"


class ChexpertConfig(LabelledConfig):
    """Settings of `weakray ingest chexpert`."""

    unhashed: ClassVar[frozenset[str]] = LabelledConfig.unhashed | {"train", "valid", "test", "contours"}

    train: Path = Field(description="train.csv")
    valid: Path | None = Field(default=None, description="valid.csv; none: val is drawn from train")
    test: Path | None = Field(default=None, description="test.csv, or CheXlocalize's test_labels.csv")
    contours: tuple[Path, ...] = Field(default=(), description="CheXlocalize's gt_annotations_val.json and …_test.json")
    valid_as: Literal["val", "tune", "test"] = Field(default="val", description="the split that valid.csv becomes")
    lists: bool = Field(default=True, description="the tables are the splits; false: all images are split by patient")


def run(config: ChexpertConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if a table lacks a column, a finding is unknown, or there are too few images for the splits.
    """
    return assemble_reader(read_source(config), config, pair_by="ending", label_files=config.contours)


def read_source(config: ChexpertConfig) -> Source:
    """CheXpert's tables, mapped into the taxonomy.

    Raises:
        DataError: if a table lacks a column, or a finding is unknown.
    """
    vocabulary = Vocabulary.of(load_taxonomy(config.taxonomy).spoken_in("chexpert"), config.findings)
    tables = {"train": config.train, "valid": config.valid, "test": config.test}
    frames = [_read(path).assign(table=name) for name, path in tables.items() if path is not None]
    frame = pd.concat(frames, ignore_index=True)
    labels = {name: frame[f"label {name}"].to_numpy(np.float32) for name in _named(frame)}
    sides: dict[str, Side | None] = {}
    if config.lists and (config.valid is not None or config.test is not None):
        side: dict[str, Side] = {"train": "train", "valid": config.valid_as, "test": "test"}
        sides = {name: side[table] for name, table in zip(frame["image_id"], frame["table"], strict=True)}
    own = read_own_boxes(config.boxes, vocabulary, frame["image_id"], frame["file_name"])
    drawn, unknown, contoured = _contours(config.contours, vocabulary)
    boxes = own.boxes + drawn
    return Source(
        name="chexpert",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.counted("chexpert", config.taxonomy, vocabulary, labels, own.counts_with(drawn)),
        rows=image_rows(refuse_views(frame, config.views), vocabulary.merge(labels), vocabulary.chosen),
        origin=_ORIGIN,
        licence=_LICENCE,
        boxes=boxes,
        looked_at=own.looked_at | contoured,
        sides=sides,
        rejected=own.rejected + unknown,
    )


def _contours(paths: tuple[Path, ...], vocabulary: Vocabulary) -> tuple[list[RawBox], list[Rejection], frozenset[str]]:
    boxes: list[RawBox] = []
    rejected: list[Rejection] = []
    images: set[str] = set()
    for path in paths:
        found, refused, named = read_contours(path, vocabulary)
        boxes += found
        rejected += refused
        images |= named
    return boxes, rejected, frozenset(images)


def _named(frame: pd.DataFrame) -> list[str]:
    return [column.removeprefix("label ") for column in frame.columns if column.startswith("label ")]


def _read(path: Path) -> pd.DataFrame:
    """A table: image_id, file_name, patient_id, study_id, view, sex, age_years, `label NAME`, and what is refused."""
    table = read_frame(path, ["Path"], [*_ABOUT, *OBSERVATIONS, *_OTHER_NAMES])
    labels, odd = read_label_columns(table, [*OBSERVATIONS, *_OTHER_NAMES])
    if not labels:
        raise DataError(f"{path}: expected columns of observations such as {OBSERVATIONS[1]!r}, got none of them")
    parts = table["Path"].str.extract(_PATH)
    plain = parts["patient"].isna()
    parts = parts.fillna("")
    frame = pd.DataFrame(
        {
            ITEM: table[ITEM],
            "file_name": table["Path"],
            "patient_id": parts["patient"],
            "study_id": parts["patient"] + "_" + parts["study"],
            "image_id": parts["patient"] + "_" + parts["study"] + "_" + parts["name"],
            "view": _views(table, parts["view"]),
            "sex": table["Sex"].map(sex_of) if "Sex" in table else "",
            "age_years": _ages(table),
            **{f"label {name}": values for name, values in labels.items()},
        }
    )
    shape = "expected a path …/patientN/studyN/viewN_frontal.jpg, or …_lateral.jpg; mend it"
    return refuse_rows(
        frame,
        (table[RAGGED].to_numpy(), "bad_row", "more cells than the header has; quote the cell that holds a comma"),
        (plain.to_numpy(), "bad_row", shape),
        (odd, "bad_row", "expected 1.0, 0.0, -1.0 or nothing as a label, got something else; mend the row"),
    )


def _views(table: pd.DataFrame, side: pd.Series[Any]) -> pd.Series[Any]:
    """AP or PA; FRONTAL where neither is said; LATERAL."""
    frontal = side != "lateral"
    if "Frontal/Lateral" in table:
        frontal = table["Frontal/Lateral"].str.casefold().map({"frontal": True, "lateral": False}).fillna(frontal)
    said = table["AP/PA"].str.upper() if "AP/PA" in table else pd.Series("", index=table.index)
    return said.where(said.isin(["AP", "PA"]), "FRONTAL").where(frontal.astype(bool), "LATERAL")


def _ages(table: pd.DataFrame) -> Any:
    """Years; CheXpert writes 0 where it does not know, and 90 for all who are older."""
    if "Age" not in table:
        return np.nan
    years = numbers(table["Age"])
    return np.where((years > 0) & (years <= 120), years, np.nan)
