"""What a reader makes of a data set's own tables, before any image is opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from ingest.boxes import RawBox
from ingest.coverage import Coverage
from ingest.findings import lift_table
from ingest.tables import ITEM
from ingest.take import ImageRow
from weakray.dataset import Rejection
from weakray.detections import BoolArray, FloatArray
from weakray.taxonomy import Taxonomy

# What `image_rows` takes where a table has no such column.
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("study_id", "view", "sex", "acquired", "reason", "detail"), ""),
    "height": 0.0,
    "width": 0.0,
    "age_years": math.nan,
}
Side = Literal["train", "val", "tune", "test"]  # where an official list puts an image


@dataclass(frozen=True)
class Source:
    """A data set's tables, mapped into the taxonomy.

    Attributes:
        name: the value of the column `source`, and the data set's name in taxonomies.
        taxonomy: the findings that were chosen.
        coverage: what became of its labels.
        rows: the images that it names.
        boxes: its boxes, whatever the split.
        looked_for: (image_id, class_id) pairs that were looked for, with a box or without; None where boxes exist for
            a few images only: then pairs with a box, and (image with a box, finding labelled 0).
        looked_at: images that were looked at for boxes although they have none.
        sides: image_id → where the official lists put it, None for an image on none of them; empty without lists.
        rejected: rows that name no image.
        origin: where the data set comes from, and what to cite.
        licence: under which terms.
        info: what else `dataset.json` shall hold.
        warnings: what a reader of the figures should know.
    """

    name: str
    taxonomy: Taxonomy
    coverage: Coverage
    rows: list[ImageRow]
    origin: str
    licence: str
    boxes: list[RawBox] = field(default_factory=list)
    looked_for: frozenset[tuple[str, int]] | None = None
    looked_at: frozenset[str] = frozenset()
    sides: Mapping[str, Side | None] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    info: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def refuse_rows(frame: pd.DataFrame, *refusals: tuple[BoolArray, str, str]) -> pd.DataFrame:
    """Marks rows as refused, each for the first reason that holds; what was refused before stays so.

    Args:
        frame: a row an image.
        refusals: (which rows `(n,)`, reason, detail).
    """
    reason = frame["reason"].to_numpy(object) if "reason" in frame else np.full(len(frame), "", object)
    detail = frame["detail"].to_numpy(object) if "detail" in frame else np.full(len(frame), "", object)
    for which, code, text in refusals:
        hit = which & (reason == "")
        reason, detail = np.where(hit, code, reason), np.where(hit, text, detail)
    return frame.assign(reason=reason, detail=detail)


def image_rows(frame: pd.DataFrame, labels: FloatArray, taxonomy: Taxonomy) -> list[ImageRow]:
    """The rows of a table.

    Args:
        frame: a row an image: `ITEM`, image_id, file_name, patient_id; and where known study_id, view, sex, age_years
            (float, NaN unknown), acquired (ISO date), height, width, and reason and detail ("" where the row is sound).
        labels: `(n, k)` by finding, NaN blank.
        taxonomy: the class tree: an ancestor is at least its child.
    """
    values = [
        {class_id: value for class_id, value in enumerate(row) if not math.isnan(value)}
        for row in lift_table(labels, taxonomy).tolist()
    ]
    rest = {name: other for name, other in _DEFAULTS.items() if name not in frame}
    rows = frame.assign(**rest).rename(columns={ITEM: "item"})
    return [
        ImageRow(
            item=f"{row.item} {row.file_name}".strip(),
            image_id=row.image_id,
            file_name=row.file_name,
            patient_id=row.patient_id,
            study_id=row.study_id or row.image_id,
            view=row.view,
            values=said,
            size_hw=(int(row.height), int(row.width)) if row.height > 0 and row.width > 0 else None,
            problem=(row.reason, row.detail) if row.reason else None,
            sex=row.sex,
            age_years=None if math.isnan(row.age_years) else float(row.age_years),
            acquired=row.acquired,
        )
        for row, said in zip(_tuples(rows), values, strict=True)
    ]


def _tuples(rows: pd.DataFrame) -> Iterator[Any]:
    yield from rows[["item", "image_id", "file_name", "patient_id", *_DEFAULTS]].itertuples(index=False)
