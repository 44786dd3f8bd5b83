"""`weakray ingest vindr`: VinDr-CXR, several readers' boxes made one, and how well the readers agree.

Each of the 15,000 train images was read by three of 17 radiologists, on their own; each of the 3,000 test images by
five in consensus. The readers' boxes and labels are joined by `consensus` (see `ingest/consensus.py`), and their
agreement per finding stands in `dataset.json` under `readers`. A finding that no reader of an image saw was looked
for and is absent. With the tables of test, they are the split: boxes of train images are the ceiling's, test is split
into tune and test. VinDr names no patients: each image counts as one.

Images may be DICOM, as published, or PNG or JPEG made of them; where these were made smaller, `sizes_csv` says what
size the boxes refer to.

Source of truth: VinDr-CXR 1.0.0 (Nguyen H. Q. et al., Scientific Data 2022): `annotations/annotations_train.csv`
(image_id, rad_id, class_name, x_min, y_min, x_max, y_max; `No finding` rows have no numbers), `annotations_test.csv`
(no rad_id), `image_labels_train.csv` (image_id, rad_id, 28 columns of 0 and 1), `image_labels_test.csv` (no rad_id;
`Other disease` for `Other diseases`), `train/<image_id>.dicom`, `test/<image_id>.dicom`. The `train.csv` of the
VinBigData challenge is the first of these with a column class_id; sizes there stand in `train_meta.csv` (image_id,
dim0, dim1: height, width).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.agreement import agreement
from ingest.assemble import assemble_reader
from ingest.boxes import RawBox
from ingest.consensus import Consensus, ReadersBox, agreed_boxes, agreed_label
from ingest.coverage import Coverage, LabelCount
from ingest.findings import Vocabulary, refuse_box
from ingest.result import IngestResult
from ingest.settings import TAXONOMY, BoxedConfig
from ingest.source import Side, Source, image_rows
from ingest.tables import ITEM, numbers, read_frame
from ingest.taxonomies import load_taxonomy
from ingest.vindr_csv import Reading, read_readings
from weakray.dataset import Rejection

_ORIGIN = "VinDr-CXR (VinBigData); Nguyen H. Q. et al., VinDr-CXR, Scientific Data 2022"
_LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"


class VindrConfig(BoxedConfig):
    """Settings of `weakray ingest vindr`."""

    unhashed: ClassVar[frozenset[str]] = BoxedConfig.unhashed | {
        *("annotations", "labels", "test_annotations", "test_labels", "sizes_csv"),
    }

    annotations: Path = Field(description="annotations_train.csv, or train.csv of the VinBigData challenge")
    labels: Path | None = Field(default=None, description="image_labels_train.csv: global labels beside the boxes")
    test_annotations: Path | None = Field(default=None, description="annotations_test.csv; none: split at random")
    test_labels: Path | None = Field(default=None, description="image_labels_test.csv")
    sizes_csv: Path | None = Field(
        default=None,
        description="train_meta.csv: sizes that the boxes refer to; none: the size of each image as stored",
    )
    taxonomy: str = Field(default="vindr", description=TAXONOMY)
    consensus: Consensus = Field(
        default="majority", description="majority: what more than half of the readers saw; fusion: what any reader saw"
    )
    same_iou: float = Field(default=0.4, gt=0, lt=1, description="boxes that overlap by more mean the same thing")


def run(config: VindrConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if a table lacks a column, a finding is unknown, or there are too few images for the splits.
    """
    return assemble_reader(read_source(config), config, pair_by="name")


def read_source(config: VindrConfig) -> Source:
    """VinDr's tables, mapped into the taxonomy.

    Raises:
        DataError: if a table lacks a column.
    """
    vocabulary = Vocabulary.of(load_taxonomy(config.taxonomy).spoken_in("vindr"), config.findings)
    sizes = {} if config.sizes_csv is None else _sizes(config.sizes_csv)
    readings: dict[Side, Reading] = {"train": read_readings(config.annotations, config.labels)}
    if config.test_annotations is not None:
        readings["test"] = read_readings(config.test_annotations, config.test_labels)
    frames: list[pd.DataFrame] = []
    labels: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    boxes: list[RawBox] = []
    rejected: list[Rejection] = []
    sides: dict[str, Side | None] = {}
    counts: dict[str, LabelCount] = {}
    for side, reading in readings.items():
        values = {name: _values(reading, name, config.consensus) for name in reading.asked}
        raw, unusable = _boxes(reading, vocabulary, config, sizes)
        frames.append(_images(reading))
        merged = vocabulary.merge(values)
        labels.append(merged if values else np.full((len(reading.first), len(vocabulary.chosen)), np.nan, np.float32))
        boxes += raw
        rejected += reading.rejected + unusable
        sides |= dict.fromkeys(reading.first, side)
        for name, value in values.items():
            drawn = sum(len(image.get(name, ())) for image in reading.boxes.values())
            counts[name] = _sum(counts.get(name, LabelCount()), value, drawn)
    frame = pd.concat(frames, ignore_index=True)
    rows = image_rows(frame, np.concatenate(labels), vocabulary.chosen)
    absent = {(row.image_id, class_id) for row in rows for class_id, value in row.values.items() if value == 0}
    return Source(
        name="vindr",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.of("vindr", config.taxonomy, vocabulary, counts),
        rows=rows,
        origin=_ORIGIN,
        licence=_LICENCE,
        boxes=boxes,
        looked_for=frozenset(absent),
        looked_at=frozenset(row.image_id for row in rows),
        sides=sides if len(readings) > 1 else {},
        rejected=rejected,
        info={"readers": _agreement(readings["train"])},
    )


def _images(reading: Reading) -> pd.DataFrame:
    names = list(reading.first)
    return pd.DataFrame(
        {
            ITEM: list(reading.first.values()),
            "image_id": names,
            "file_name": [f"{name}.dicom" for name in names],
            "patient_id": names,
        }
    )


def _values(reading: Reading, name: str, rule: Consensus) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The label that the readers agree on, of each image."""
    votes = (len(reading.seen.get(image, {}).get(name, ())) for image in reading.first)
    readers = (len(who) for who in reading.readers.values())
    return np.array([agreed_label(v, n, rule) for v, n in zip(votes, readers, strict=True)], np.float32)


def _boxes(
    reading: Reading, vocabulary: Vocabulary, config: VindrConfig, sizes: Mapping[str, tuple[float, float]]
) -> tuple[list[RawBox], list[Rejection]]:
    """The boxes that the readers agree on, and those without a number or a finding.

    Names that are one finding are joined before the readers are: a nodule and a mass may be the same box.
    """
    boxes: list[RawBox] = []
    rejected: list[Rejection] = []
    for image, named in reading.boxes.items():
        of_finding: dict[int, list[tuple[str, ReadersBox]]] = {}
        for name, drawn in named.items():
            class_id = vocabulary.fate(name).class_id
            for item, reader, corners in drawn:
                if class_id is None:
                    rejected.append(refuse_box(item, name, vocabulary))
                elif not (corners[2] > corners[0] and corners[3] > corners[1]):  # NaN is not above
                    detail = (
                        f"expected x_min < x_max and y_min < y_max, got {[round(c, 1) for c in corners]}; mend the row"
                    )
                    rejected.append(Rejection(item, "no_area", detail))
                else:
                    of_finding.setdefault(class_id, []).append((name, ReadersBox(reader, corners)))
        for class_id, found in sorted(of_finding.items()):
            readers = len(reading.readers[image])
            agreed = agreed_boxes([box for _, box in found], readers, config.consensus, config.same_iou)
            names = "/".join(sorted({name for name, _ in found}))
            for at, (x0, y0, x1, y1) in enumerate(agreed):
                item = f"{reading.first[image]} {image} {names} consensus[{at}]"
                boxes.append(RawBox(item, image, class_id, (x0, y0, x1 - x0, y1 - y0), sizes.get(image), label=names))
    return boxes, rejected


def _agreement(reading: Reading) -> dict[str, Any]:
    seen = {name: {i: found[name] for i, found in reading.seen.items() if name in found} for name in reading.asked}
    boxes: dict[str, dict[str, dict[str, list[tuple[float, float, float, float]]]]] = {}
    for image, named in reading.boxes.items():
        for name, drawn in named.items():
            for _, reader, corners in drawn:
                if not any(np.isnan(corners)):
                    boxes.setdefault(name, {}).setdefault(image, {}).setdefault(reader, []).append(corners)
    return agreement(reading.readers, seen, boxes)


def _sizes(path: Path) -> dict[str, tuple[float, float]]:
    """image_id → width and height."""
    table = read_frame(path, ["image_id", "dim0", "dim1"])
    sides = zip(table["image_id"], numbers(table["dim1"]).tolist(), numbers(table["dim0"]).tolist(), strict=True)
    return {image: (width, height) for image, width, height in sides if width > 0 and height > 0}


def _sum(count: LabelCount, values: np.ndarray[Any, np.dtype[np.float32]], boxes: int) -> LabelCount:
    return LabelCount(
        count.positive + int((values == 1).sum()),
        count.negative + int((values == 0).sum()),
        count.uncertain + int((values == -1).sum()),
        count.boxes + boxes,
    )
