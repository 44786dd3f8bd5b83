"""`weakray ingest rsna`: the RSNA pneumonia detection challenge, one finding with complete boxes.

A row is a box (Target 1) or says that there is none (Target 0). Its `patientId` names an image: the 26,684 films of the
train set come from NIH ChestX-ray14, several of one patient among them. Only the mapping file tells whose they are, so
without `mapping` films of one patient may stand in two splits; a warning says so.

Source of truth: `stage_2_train_labels.csv` (patientId, x, y, width, height, Target; boxes in the film's 1,024 px),
`stage_2_detailed_class_info.csv` (patientId, class: `Lung Opacity`, `Normal`, `No Lung Opacity / Not Normal`),
`stage_2_train_images/<patientId>.dcm`, and `pneumonia-challenge-dataset-mappings_2018.json` (a list of
{subset_img_id, img_id, …}); Shih G. et al., Radiology: Artificial Intelligence 2019.
"""

from __future__ import annotations

from collections import Counter
from math import isnan
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.boxes import RawBox
from ingest.coverage import Coverage, LabelCount
from ingest.findings import Vocabulary
from ingest.result import IngestResult
from ingest.settings import BoxedConfig
from ingest.source import Source, image_rows
from ingest.tables import ITEM, RAGGED, numbers, read_frame
from ingest.taxonomies import load_taxonomy
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import read_json

OPACITY = "Lung Opacity"
_XYWH = ("x", "y", "width", "height")
_ORIGIN = "RSNA Pneumonia Detection Challenge 2018; Shih G. et al., Radiology: Artificial Intelligence 2019"
_LICENCE = "terms of use of the RSNA Pneumonia Detection Challenge"


class RsnaConfig(BoxedConfig):
    """Settings of `weakray ingest rsna`."""

    unhashed: ClassVar[frozenset[str]] = BoxedConfig.unhashed | {"labels", "classes", "mapping"}

    labels: Path = Field(description="stage_2_train_labels.csv")
    classes: Path | None = Field(
        default=None, description="stage_2_detailed_class_info.csv: checked against the labels"
    )
    mapping: Path | None = Field(
        default=None, description="pneumonia-challenge-dataset-mappings_2018.json: which patient a film is of"
    )
    findings: tuple[str, ...] | None = Field(default=(OPACITY,), description="findings to keep; it knows but this one")
    box_frame_px: int = Field(default=1024, gt=0, description="side of the square that the boxes refer to, in pixels")


def run(config: RsnaConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if a table lacks a column, the taxonomy lacks `Lung Opacity`, or there are too few images.
    """
    return assemble_reader(read_source(config), config, pair_by="name")


def read_source(config: RsnaConfig) -> Source:
    """RSNA's tables, mapped into the taxonomy.

    Raises:
        DataError: if a table lacks a column, or the taxonomy has no place for the finding.
    """
    vocabulary = Vocabulary.of(load_taxonomy(config.taxonomy).spoken_in("rsna"), config.findings)
    class_id = vocabulary.fate(OPACITY).class_id
    if class_id is None:
        raise DataError(f"taxonomy: {config.taxonomy} has no place for {OPACITY!r}, the one finding of this data set")
    table = read_frame(config.labels, ["patientId", *_XYWH, "Target"])
    rows = zip(
        table[ITEM],
        table["patientId"],
        np.stack([numbers(table[name]) for name in _XYWH], axis=1).tolist(),
        numbers(table["Target"]).tolist(),
        table[RAGGED],
        strict=True,
    )
    first: dict[str, str] = {}
    target: dict[str, float] = {}
    boxes: list[RawBox] = []
    rejected: list[Rejection] = []
    frame_wh = (float(config.box_frame_px), float(config.box_frame_px))
    for item, image, (x, y, w, h), value, ragged in rows:
        named = f"{item} {image}".rstrip()
        numberless = all(map(isnan, (x, y, w, h)))
        if ragged or not image or value not in (0.0, 1.0) or (value == 0 and not numberless):
            detail = "expected patientId, and Target 1 with four numbers or Target 0 with none; mend the row"
            rejected.append(Rejection(named, "bad_row", detail))
            continue
        if image in first and (value == 0 or target[image] == 0):
            detail = f"{first[image]} says Target {target[image]:g} of this film; keep what is right"
            rejected.append(Rejection(named, "duplicated", detail))
            continue
        first.setdefault(image, item)
        target[image] = value
        if value == 1:
            boxes.append(RawBox(named, image, class_id, (x, y, w, h), frame_wh, label=OPACITY))
    patient_of = {} if config.mapping is None else _patients(config.mapping)
    frame = pd.DataFrame(
        {
            ITEM: list(first.values()),
            "image_id": list(first),
            "file_name": [f"{image}.dcm" for image in first],
            "patient_id": [patient_of.get(image, image) for image in first],
        }
    )
    labels = {OPACITY: np.array(list(target.values()), np.float32)}
    image_table = image_rows(frame, vocabulary.merge(labels), vocabulary.chosen)
    counts = Counter(target.values())
    classes, conflicts, strays = (
        ({}, 0, list[Rejection]()) if config.classes is None else _classes(config.classes, target)
    )
    unmapped = sum(image not in patient_of for image in first)
    return Source(
        name="rsna",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.of(
            "rsna", config.taxonomy, vocabulary, {OPACITY: LabelCount(counts[1.0], counts[0.0], 0, len(boxes))}
        ),
        rows=image_table,
        origin=_ORIGIN,
        licence=_LICENCE,
        boxes=boxes,
        looked_for=frozenset((row.image_id, k) for row in image_table for k, value in row.values.items() if value == 0),
        looked_at=frozenset(first),
        rejected=rejected + strays,
        info={"classes": classes, "class_conflicts": conflicts, "films_of_unknown_patients": unmapped},
        warnings=_warnings(config, unmapped, conflicts),
    )


def _warnings(config: RsnaConfig, unmapped: int, conflicts: int) -> list[str]:
    found: list[str] = []
    if config.mapping is None:
        found.append("a patientId names a film, not a patient; without `mapping` one patient may stand in two splits")
    elif unmapped:
        found.append(f"the mapping names no patient for {unmapped} films; each counts as a patient of its own")
    if conflicts:
        found.append(f"{conflicts} films have a class that contradicts their Target; the Target is taken")
    return found


def _patients(path: Path) -> dict[str, str]:
    """Film → NIH's patient, the part of NIH's file name before the underscore."""
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of films with subset_img_id and img_id, got {type(content).__name__}")
    found: dict[str, str] = {}
    for entry in content:
        film, image = (entry.get(key) if isinstance(entry, dict) else None for key in ("subset_img_id", "img_id"))
        if isinstance(film, str) and isinstance(image, str) and "_" in image:
            found[film] = f"nih{image.partition('_')[0]}"
    return found


def _classes(path: Path, target: dict[str, float]) -> tuple[dict[str, int], int, list[Rejection]]:
    """Class → films; films whose class contradicts their target; rows of films that have no label."""
    table = read_frame(path, ["patientId", "class"])
    found: dict[str, str] = {}
    strays: list[Rejection] = []
    for item, image, name in zip(table[ITEM], table["patientId"], table["class"], strict=True):
        if image in target:
            found[image] = name
        else:
            strays.append(Rejection(f"{item} {image}".rstrip(), "no_image", "the table of labels names no such film"))
    conflicts = sum((name == OPACITY) != (target[image] == 1) for image, name in found.items())
    counts: dict[str, Any] = dict(sorted(Counter(found.values()).items()))
    return counts, conflicts, strays
