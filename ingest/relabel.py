"""`weakray ingest relabel`: a dataset with other labels, such as those read out of its reports."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ingest.findings import Vocabulary, label_row, lift, stronger
from ingest.label_csv import read_labels
from ingest.result import IngestResult
from weakray.config import StrictModel
from weakray.dataset import Dataset, Rejection, Split, write_dataset
from weakray.errors import DataError
from weakray.files import sha256_file


class RelabelConfig(StrictModel):
    """A dataset, a table of labels, and which splits take them."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "labels", "out"})

    data: Path = Field(description="dataset folder")
    labels: Path = Field(description="CSV: image_id or file_name, then a column a finding with 1, 0, -1 or nothing")
    out: Path = Field(description="dataset folder to write; the images stay where they are")
    splits: tuple[Split, ...] = Field(("train",), description="splits whose labels are replaced; others keep theirs")


def run(config: RelabelConfig) -> IngestResult:
    """Writes the dataset again, with the table's labels; an image that the table lacks has no label there.

    Columns that the dataset's taxonomy does not know are left out and counted in `dataset.json`; of two columns for
    one finding the stronger label counts, and ancestors follow their children.

    Raises:
        DataError: if no row of the table is an image of these splits, or no column a finding.
    """
    dataset = Dataset.load(config.data)
    if config.out.resolve() == config.data.resolve():
        raise DataError(f"{config.out}: expected another folder than the dataset's own; labels are not overwritten")
    table = read_labels(config.labels)
    taxonomy = dataset.taxonomy
    vocabulary = Vocabulary.of(taxonomy, None)
    ids: dict[str, int] = {}
    for column in table.findings:
        for class_id in vocabulary.understood([column]):
            ids[column] = class_id
    if not ids:
        known = ", ".join(taxonomy.names)
        raise DataError(f"{config.labels}: expected a column a finding, of {known}; got {', '.join(table.findings)}")
    labels = dataset.labels.copy()
    split_of = dataset.images["split"].to_dict()
    names = _names(dataset, table.key)
    served: set[str] = set()
    for image_id in dataset.image_ids:
        if split_of[image_id] not in config.splits:
            continue
        values: dict[int, float] = {}
        row = table.rows.get(names[image_id])
        if row is not None:
            served.add(names[image_id])
            for column, value in row.values.items():
                if column in ids:
                    values[ids[column]] = stronger(value, values.get(ids[column], 0.0))
        labels.loc[image_id] = label_row(lift(values, taxonomy), len(taxonomy))
    if not served:
        raise DataError(f"{config.labels}: expected rows for images of {', '.join(config.splits)} by {table.key}")
    chosen = [image_id for image_id in dataset.image_ids if split_of[image_id] in config.splits]
    everywhere = {names[image_id] for image_id in dataset.image_ids}
    unused = [
        Rejection(row.item, "no_image", "the dataset has no such image; drop the row")
        for name, row in table.rows.items()
        if name not in everywhere
    ]
    unlabelled = sum(names[image_id] not in served for image_id in chosen)
    info: dict[str, Any] = {name: v for name, v in dataset.info.items() if name not in ("counts", "images_root")}
    given_up = sorted(set(table.findings) - set(ids))
    warnings = [*info.get("warnings", ())]
    if unlabelled:
        warnings.append(f"{unlabelled} of {len(chosen)} images of {', '.join(config.splits)} have no row of labels")
    relabelled = {
        "labels_sha256": sha256_file(config.labels),
        "splits": list(config.splits),
        "images": len(chosen) - unlabelled,
        "without_row": unlabelled,
        "columns_left_out": given_up,
        "changed": _changed(dataset, labels.to_numpy().tolist()),
    }
    images_root = os.path.relpath(dataset.root / str(dataset.info["images_root"]), config.out)
    written = write_dataset(
        config.out,
        images=dataset.images.reset_index(drop=True),
        labels=labels,
        taxonomy=taxonomy,
        truth=dataset.truth,
        ceiling=dataset.ceiling_truth(),
        rejected=[*table.rejected, *unused],
        info={**info, "relabelled": relabelled, "warnings": warnings},
        images_root=images_root,
    )
    return IngestResult.of(written)


def _names(dataset: Dataset, key: str) -> dict[str, str]:
    """Image id → how the table names it."""
    if key == "file_name":
        return {str(i): Path(str(path)).name for i, path in dataset.images["path"].items()}
    return {image_id: image_id for image_id in dataset.image_ids}


def _changed(dataset: Dataset, rows: list[list[float]]) -> int:
    """How many labels are others than before."""
    pairs = zip(dataset.labels.to_numpy().ravel().tolist(), (v for row in rows for v in row), strict=True)
    return sum(not (one == other or (math.isnan(one) and math.isnan(other))) for one, other in pairs)
