"""Writes what an ingest verb took as a dataset folder, with counts and warnings a reader should see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import weakray
from ingest.boxes import TakenBoxes
from ingest.coverage import Coverage
from ingest.findings import label_row
from ingest.gaps import split_gaps
from ingest.listing import printable
from ingest.result import IngestResult
from ingest.take import TakenImage, TakenImages
from weakray.coco import BoxTruth
from weakray.dataset import IMAGE_COLUMNS, OPTIONAL_COLUMNS, SPLITS, Rejection, Split, write_dataset
from weakray.errors import DataError
from weakray.files import sha256_file, write_text
from weakray.taxonomy import Taxonomy


def refuse_empty(taken: TakenImages, rejected: Sequence[Rejection], setting: Path) -> None:
    """Stops where nothing is left to write.

    Raises:
        DataError: if no image was taken, with the reasons counted.
    """
    if not taken.images:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r.reason for r in rejected).most_common())
        example = f"; first: {rejected[0].item}: {rejected[0].detail}" if rejected else ""
        raise DataError(f"{setting}: not one image could be taken ({reasons or 'none is listed'}){example}")


def refuse_nested(out: Path, images: Path) -> None:
    """Keeps the dataset folder out of the images folder, where the next run would take it for images.

    Raises:
        DataError: if `out` is the images folder or lies in it.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise DataError(f"out: {out} lies inside the images folder {images}; name a folder outside of it")


def write_taken(
    out: Path,
    *,
    images_root: Path,
    source: str,
    taken: TakenImages,
    split_of: Mapping[str, Split],
    taxonomy: Taxonomy,
    coverage: Coverage | None,
    boxes: TakenBoxes,
    annotated: Iterable[tuple[str, int]],
    rejected: Sequence[Rejection],
    info: Mapping[str, Any],
    inputs: Mapping[str, Path | None],
    warnings: Sequence[str],
) -> IngestResult:
    """Writes the dataset folder.

    Args:
        out: the folder.
        images_root: where the images lie; they are not copied. Inside `out`, the folder can be moved with them.
        source: value of the column `source`.
        taken: the images; their `values` are the labels.
        split_of: image_id → split, of every image taken.
        taxonomy: the findings.
        coverage: what became of the data set's labels; None where it has none.
        boxes: true boxes: those of tune and test images go to `boxes.json`, those of train images to
            `ceiling_boxes.json`, those of val images nowhere.
        annotated: (image_id, class_id) pairs that were looked for, in any split; broken ones are left out here.
        rejected: all inputs not taken.
        info: origin, licence, settings and counts for `dataset.json`.
        inputs: name → file read, whose hash goes into `dataset.json`; None where a setting is off.
        warnings: what the caller has to say; splits without a finding are added.
    """
    whole = BoxTruth(boxes.boxes, frozenset(pair for pair in annotated if pair not in boxes.broken))
    ids_of = {split: [image_id for image_id in taken.images if split_of[image_id] == split] for split in SPLITS}
    truth, ceiling, val = (whole.only(ids) for ids in (ids_of["tune"] + ids_of["test"], ids_of["train"], ids_of["val"]))
    labels = pd.DataFrame(
        [label_row(image.row.values, len(taxonomy)) for image in taken.images.values()],
        index=list(taken.images),
        columns=taxonomy.names,
    )
    frame = pd.DataFrame(
        [_image_row(image, source, split_of[image_id]) for image_id, image in taken.images.items()],
        columns=[*IMAGE_COLUMNS, *OPTIONAL_COLUMNS],
    )
    unknown = [name for name in OPTIONAL_COLUMNS if not (frame[name].notna() & (frame[name] != "")).any()]
    said = [] if coverage is None else coverage.warnings
    if coverage is not None:
        write_text(out / "coverage.md", coverage.to_text())
    dataset = write_dataset(
        out,
        images=frame.drop(columns=unknown),
        labels=labels,
        taxonomy=taxonomy,
        truth=truth,
        ceiling=ceiling if ceiling.boxes else None,
        rejected=[Rejection(printable(r.item), r.reason, printable(r.detail)) for r in rejected],
        info={
            **info,
            "versions": {"weakray": weakray.__version__},
            "inputs_sha256": {name: sha256_file(path) for name, path in inputs.items() if path is not None},
            "boxes": {
                "tune_and_test": sum(map(len, truth.boxes.values())),
                "ceiling": sum(map(len, ceiling.boxes.values())),
                "val_unused": sum(map(len, val.boxes.values())),
                "clipped": boxes.clipped,
            },
            "coverage": None if coverage is None else coverage.to_dict(),
            "warnings": [*warnings, *said, *split_gaps(ids_of, labels, truth)],
        },
        images_root=_root_in_dataset(images_root, out),
    )
    return IngestResult.of(dataset)


def _root_in_dataset(images_root: Path, out: Path) -> str:
    inside = images_root.resolve().is_relative_to(out.resolve())
    return images_root.resolve().relative_to(out.resolve()).as_posix() if inside else str(images_root.resolve())


def _image_row(image: TakenImage, source: str, split: Split) -> dict[str, Any]:
    row, facts = image.row, image.facts
    return {
        "image_id": row.image_id,
        "path": image.path,
        "patient_id": row.patient_id,
        "study_id": row.study_id,
        "view": row.view,
        "height": facts.height,
        "width": facts.width,
        "split": split,
        "sha256": facts.sha256,
        "source": source,
        "sex": row.sex,
        "age_years": row.age_years,
        "acquired": row.acquired,
    }
