"""`weakray ingest csv`: a table of one's own, with what its columns are declared, and a few boxes where one has them.

A row is an image. `columns` says which column is what: `file_name` (or `image_id`, the name without extension) must
be there; `patient_id` should be, for without it each image counts as a patient of its own. Labels stand in a column
each, or as names in one column (`label_list`); in the latter a finding that is not named is absent.

Source of truth: the settings; with none of them, the columns are called as above and all others are findings.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, cast

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.box_csv import read_own_boxes
from ingest.coverage import Coverage
from ingest.findings import Vocabulary
from ingest.persons import age_in_years, sex_of
from ingest.result import IngestResult
from ingest.settings import TAXONOMY, LabelledConfig
from ingest.source import Side, Source, image_rows, refuse_rows
from ingest.tables import ITEM, RAGGED, label_values, read_frame, read_header
from ingest.taxonomies import load_taxonomy
from ingest.views import refuse_views
from weakray.detections import BoolArray, FloatArray
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy

Column = Literal["file_name", "image_id", "patient_id", "study_id", "view", "sex", "age_years", "acquired", "split"]
_COLUMNS: tuple[Column, ...] = (
    *("file_name", "image_id", "patient_id", "study_id", "view", "sex", "age_years", "acquired", "split"),
)
_WORDS = {
    **dict.fromkeys(("yes", "true", "y", "present", "positive", "oui", "vrai", "présent"), "1"),
    **dict.fromkeys(("no", "false", "n", "absent", "negative", "non", "faux"), "0"),
    **dict.fromkeys(("uncertain", "possible", "maybe", "incertain", "u"), "-1"),
    **dict.fromkeys(("nan", "na", "n/a", "null", "none", "-", "unknown"), ""),
}
_SIDES: dict[str, Side] = {
    "train": "train",
    "training": "train",
    "tune": "tune",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
}


class PlainCsvConfig(LabelledConfig):
    """Settings of `weakray ingest csv`."""

    unhashed: ClassVar[frozenset[str]] = LabelledConfig.unhashed | {"table"}

    table: Path = Field(description="the CSV file, gzipped or not")
    columns: dict[Column, str] = Field(
        default={},
        description="what a column is: its name, e.g. {file_name: path, patient_id: subject}; file_name, image_id, "
        "patient_id, study_id, view, sex, age_years, acquired (ISO date), split",
    )
    labels: tuple[str, ...] | None = Field(
        default=None, description="columns of labels; none: all that are nothing else"
    )
    label_list: str | None = Field(
        default=None, description="column that lists the findings there are; none: a column each"
    )
    separator: str = Field(default="|", min_length=1, description="between the names in label_list")
    values: dict[str, Literal[1, 0, -1] | None] = Field(
        default={},
        description="what other cells mean, e.g. {'++': 1, '?': -1}; yes, no, true, false, oui, non … are known",
    )
    taxonomy: str | None = Field(default=None, description=f"{TAXONOMY}; none: the labels, no tree")  # type: ignore[assignment]


def run(config: PlainCsvConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if the table lacks a column, a finding is unknown, or there are too few images for the splits.
    """
    return assemble_reader(read_source(config), config, pair_by="ending")


def read_source(config: PlainCsvConfig) -> Source:
    """The table, mapped into the taxonomy.

    Raises:
        DataError: if it lacks a column, or a finding is unknown.
    """
    header = read_header(config.table)
    column_of = {name: config.columns.get(name, name) for name in _COLUMNS}
    declared = [config.columns[name] for name in config.columns]
    taken = {name: column for name, column in column_of.items() if column in header}
    named = config.labels or tuple(c for c in header if c and c not in (*column_of.values(), *declared))
    wanted = (config.label_list,) if config.label_list is not None else named
    if not wanted:
        raise DataError(
            f"{config.table}: expected columns of labels, got {', '.join(header)}; see labels and label_list"
        )
    if "file_name" not in taken and "image_id" not in taken:
        raise DataError(
            f"{config.table}: expected a column file_name or image_id, got {', '.join(header)}; name it in `columns`"
        )
    table = read_frame(config.table, [*dict.fromkeys([*declared, *wanted])], list(taken.values()))
    labels, odd = _listed(table, config) if config.label_list is not None else _columns(table, named, config)
    whole = Taxonomy.flat(list(labels)) if config.taxonomy is None else load_taxonomy(config.taxonomy).spoken_in("csv")
    vocabulary = Vocabulary.of(whole, config.findings)
    vocabulary.ids(labels, str(config.table))
    frame, sides = _images(table, taken)
    frame = refuse_rows(
        frame,
        (table[RAGGED].to_numpy(), "bad_row", "more cells than the header has; quote the cell that holds a comma"),
        (frame["image_id"].eq("").to_numpy(), "bad_row", "the row names no image"),
        (odd, "bad_row", "expected 1, 0, -1, a word for one of them, or nothing; mend it, or see the setting `values`"),
    )
    own = read_own_boxes(config.boxes, vocabulary, frame["image_id"], frame["file_name"])
    alone = (
        []
        if "patient_id" in taken
        else ["no column names the patient: each image counts as one, so a patient may stand in two splits"]
    )
    return Source(
        name="csv",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.counted("csv", config.taxonomy or "of its own labels", vocabulary, labels, own.counts),
        rows=image_rows(refuse_views(frame, config.views), vocabulary.merge(labels), vocabulary.chosen),
        origin=f"CSV file {config.table.name}",
        licence="",
        boxes=own.boxes,
        looked_at=own.looked_at,
        sides=sides,
        rejected=own.rejected,
        warnings=alone,
    )


def _columns(
    table: pd.DataFrame, names: tuple[str, ...], config: PlainCsvConfig
) -> tuple[dict[str, FloatArray], BoolArray]:
    """Labels of a column each, and the rows that hold a cell which is none."""
    words = _WORDS | {word.casefold(): "" if v is None else str(v) for word, v in config.values.items()}
    labels: dict[str, FloatArray] = {}
    odd = np.zeros(len(table), bool)
    for name in names:
        plain = table[name].str.casefold()
        labels[name], strange = label_values(plain.map(words).fillna(plain))
        odd |= strange
    return labels, odd


def _listed(table: pd.DataFrame, config: PlainCsvConfig) -> tuple[dict[str, FloatArray], BoolArray]:
    """Labels of a column that lists them; a blank cell says nothing."""
    codes, spelt = pd.factorize(table[cast("str", config.label_list)])
    lists = [[name.strip() for name in cell.split(config.separator) if name.strip()] for cell in spelt.tolist()]
    names = sorted({name for found in lists for name in found})
    of_list = np.zeros((len(lists), len(names)), np.float32)
    for row, found in enumerate(lists):
        of_list[row] = np.nan if not found else [name in found for name in names]
    return {name: of_list[:, at][codes] for at, name in enumerate(names)}, np.zeros(len(table), bool)


def _images(table: pd.DataFrame, taken: dict[Column, str]) -> tuple[pd.DataFrame, dict[str, Side | None]]:
    """The frame for `image_rows`, and the official sides."""
    cells = {name: table[column] for name, column in taken.items()}
    files = cells["file_name"] if "file_name" in cells else cells["image_id"]
    ids = cells["image_id"] if "image_id" in cells else files.map(_id_of)
    patients = cells.get("patient_id", ids)
    frame = pd.DataFrame(
        {
            ITEM: table[ITEM],
            "image_id": ids,
            "file_name": files,
            "patient_id": patients.where(patients.ne(""), ids),
            "study_id": cells.get("study_id", ids),
            "view": cells.get("view", ""),
            "sex": cells["sex"].map(sex_of) if "sex" in cells else "",
            "age_years": cells["age_years"].map(age_in_years).astype(float) if "age_years" in cells else np.nan,
            "acquired": cells["acquired"].where(cells["acquired"].str.match(r"^\d{4}-\d{2}-\d{2}"), "").str[:10]
            if "acquired" in cells
            else "",
        }
    )
    sides: dict[str, Side | None] = {}
    if "split" in cells:
        sides = {name: _SIDES.get(word.casefold()) for name, word in zip(ids, cells["split"], strict=True)}
    return frame, sides


def _id_of(file_name: str) -> str:
    """The path without its extension, folders joined by two underscores."""
    return PurePosixPath(file_name).with_suffix("").as_posix().lstrip("/").replace("/", "__") if file_name else ""
