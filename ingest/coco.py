"""`weakray ingest coco`: a COCO detection set, whose train boxes become image-level labels.

COCO boxes are complete: whatever category has no box in an image was looked for and is absent. So every
(image, category) pair of tune and test is annotated, except where one of its boxes was refused (a crowd region, no
area, outside the image), and except a finding that is present only through a child in the class tree.

Labels are 1 for the categories that have an annotation in the image, 0 for the others; or those of a table. Categories
are the user's own names, so one that the taxonomy does not know is an error and not dropped.

Source of truth: the data format of the COCO data set (cocodataset.org, "Object detection").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ingest.boxes import RawBox, take_boxes
from ingest.coco_json import CocoBox, CocoFile, CocoImage, read_coco
from ingest.coverage import Coverage, LabelCount
from ingest.findings import Vocabulary, lift, refuse_box, stronger
from ingest.label_csv import LabelTable, read_labels
from ingest.listing import list_folder
from ingest.result import IngestResult
from ingest.settings import TAXONOMY
from ingest.splits import SplitSettings, count_patients, split_patients, split_warnings
from ingest.take import ImageRow, TakenImages, take_images
from ingest.taxonomies import load_taxonomy
from ingest.thin import thin_train
from ingest.write import refuse_empty, refuse_nested, write_taken
from weakray.config import StrictModel
from weakray.dataset import Rejection, Split
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy


class CocoConfig(StrictModel):
    """Settings of `weakray ingest coco`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"images", "annotations", "labels", "out", "workers"})

    images: Path = Field(description="folder that the file names are relative to")
    annotations: Path = Field(description="COCO json with images, annotations and categories")
    out: Path = Field(description="dataset folder to write")
    tune_images: int = Field(ge=1, description="images in tune, whose boxes choose and calibrate")
    test_images: int = Field(ge=1, description="images in test, whose boxes score")
    val_images: int = Field(ge=1, description="images in val, whose labels say when to stop; all others train")
    labels: Path | None = Field(
        default=None,
        description="CSV of image_id (the json's id) or file_name, then a column a finding with 1, 0, -1 or nothing; "
        "none: labels from the categories present",
    )
    taxonomy: str | None = Field(default=None, description=f"{TAXONOMY}; none: the categories, no tree")
    patient_key: str = Field(
        default="patient_id", description="key of a json image that names its patient; without it each image is one"
    )
    min_side_px: int = Field(default=16, ge=1, description="images with a shorter side are rejected")
    split: SplitSettings = SplitSettings()
    seed: int = Field(default=0, description="another seed, another split")
    workers: int = Field(default=2, ge=1, description="threads that decode images; any number gives the same result")


def run(config: CocoConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if a file is not what it should be, a finding is unknown, or there are too few images.
    """
    refuse_nested(config.out, config.images)
    if config.split.method == "official":
        raise DataError("split.method: a COCO file names no split; choose another split.method")
    content = read_coco(config.annotations, config.patient_key)
    named = Taxonomy.flat(content.categories) if config.taxonomy is None else load_taxonomy(config.taxonomy)
    taxonomy = named.spoken_in("coco")
    vocabulary = Vocabulary.of(taxonomy, None)
    ids = vocabulary.ids(content.categories, str(config.annotations))
    present = _present(content.boxes, ids)
    rejected = list(content.rejected)
    if config.labels is None:
        rows = [_row(image, _from_boxes(image, present, ids), taxonomy) for image in content.images]
    else:
        rows, unused = _rows_of_table(content.images, read_labels(config.labels), vocabulary, config.labels)
        rejected += unused
    counts = _counts(content, rows, vocabulary)
    inputs = {name: getattr(config, name) for name in ("annotations", "labels")}
    folder = list_folder(config.images, besides=[path for path in inputs.values() if path is not None])
    taken = take_images(rows, folder, pair_by="path", min_side_px=config.min_side_px, workers=config.workers)
    rejected += taken.rejected
    refuse_empty(taken, rejected, config.images)
    id_of = _ids_of_taken(taken, content.images)
    raw, unknown = _raw_boxes(content, vocabulary, ids, id_of)
    boxes = take_boxes(raw, taken.sizes_hw, refused_images=())
    rejected += unknown + boxes.rejected
    sizes: dict[Split, int] = {"tune": config.tune_images, "test": config.test_images, "val": config.val_images}
    people = count_patients((image.row.patient_id, image.positive, "") for image in taken.images.values())
    split = split_patients(people, sizes, "train", config.seed, config.split)
    split_of = {image_id: split.of[image.row.patient_id] for image_id, image in taken.images.items()}
    share = config.split.no_finding_share
    taken, thinned = thin_train(taken, split_of, share=share, seed=config.seed, keep=boxes.boxes)
    rejected += thinned
    return write_taken(
        config.out,
        images_root=config.images,
        source="coco",
        taken=taken,
        split_of=split_of,
        taxonomy=taxonomy,
        coverage=Coverage.of("coco", config.taxonomy or "of its own categories", vocabulary, counts),
        boxes=boxes,
        annotated=_annotated(id_of, present, ids, taxonomy),
        rejected=rejected,
        info={
            "origin": f"COCO file {config.annotations.name}",
            "licence": content.licences,
            "settings": config.model_dump(mode="json", exclude={"out", "workers"}),
        },
        inputs=inputs,
        warnings=split_warnings(split, taxonomy.names),
    )


def _counts(content: CocoFile, rows: Sequence[ImageRow], vocabulary: Vocabulary) -> dict[str, LabelCount]:
    """How often each category is given; where several are one finding, images are counted for the finding."""
    said = [row.values for row in rows if row.problem is None]
    counts: dict[str, LabelCount] = {}
    for name in content.categories:
        class_id = vocabulary.fate(name).class_id
        values = [values.get(class_id) for values in said] if class_id is not None else []
        boxes = sum(box.category == name for box in content.boxes)
        counts[name] = LabelCount(values.count(1), values.count(0), values.count(-1), boxes)
    return counts


def _present(boxes: Sequence[CocoBox], ids: Mapping[str, int | None]) -> dict[str, set[int]]:
    """COCO image id → class ids that have an annotation there, whatever becomes of its box."""
    found: dict[str, set[int]] = {}
    for box in boxes:
        class_id = None if box.category is None else ids[box.category]
        if class_id is not None:
            found.setdefault(box.image_key, set()).add(class_id)
    return found


def _from_boxes(image: CocoImage, present: Mapping[str, set[int]], ids: Mapping[str, int | None]) -> dict[int, float]:
    here = present.get(image.key, set())
    return {class_id: float(class_id in here) for class_id in ids.values() if class_id is not None}


def _row(image: CocoImage, values: dict[int, float] | None, taxonomy: Taxonomy, table: str = "") -> ImageRow:
    problem = image.problem
    if problem is None and values is None:
        problem = ("no_labels", f"no row of {table} names it; add one")
    return ImageRow(
        item=image.item,
        image_id=image.image_id,
        file_name=image.file_name,
        patient_id=image.patient or image.image_id,
        study_id=image.image_id,
        view="",
        values=lift(values or {}, taxonomy),
        size_hw=image.size_hw,
        problem=problem,
    )


def _rows_of_table(
    images: Sequence[CocoImage], table: LabelTable, vocabulary: Vocabulary, path: Path
) -> tuple[list[ImageRow], list[Rejection]]:
    """The images with the table's labels, and the table's rows that serve no image."""
    ids = vocabulary.ids(table.findings, str(path))
    rows: list[ImageRow] = []
    served: set[str] = set()
    for image in images:
        name = image.key if table.key == "image_id" else image.file_name
        values: dict[int, float] | None = None
        if name in table.rows:
            served.add(name)
            values = {}
            for finding, value in table.rows[name].values.items():
                class_id = ids[finding]
                if class_id is not None:  # two columns may stand for one finding
                    values[class_id] = stronger(value, values.get(class_id, 0.0))
        rows.append(_row(image, values, vocabulary.chosen, path.name))
    detail = "the json lists no such image; drop the row"
    unused = [Rejection(row.item, "no_image", detail) for name, row in table.rows.items() if name not in served]
    return rows, table.rejected + unused


def _ids_of_taken(taken: TakenImages, images: Sequence[CocoImage]) -> dict[str, str | None]:
    """COCO image id → our id, None where the image was not taken (another entry may have taken its file)."""
    items = {image.row.item: image_id for image_id, image in taken.images.items()}
    return {image.key: items.get(image.item) for image in images if image.problem is None}


def _raw_boxes(
    content: CocoFile, vocabulary: Vocabulary, ids: Mapping[str, int | None], id_of: Mapping[str, str | None]
) -> tuple[list[RawBox], list[Rejection]]:
    raw: list[RawBox] = []
    rejected: list[Rejection] = []
    for box in content.boxes:
        class_id = None if box.category is None else ids[box.category]
        image_id = id_of.get(box.image_key)
        if box.category is None:
            rejected.append(Rejection(box.item, "unknown_class", "its category_id is not listed; add the category"))
        elif class_id is None:
            rejected.append(refuse_box(box.item, box.category, vocabulary))
        elif box.image_key not in id_of:
            detail = f"no image has the id {box.image_key}; add it or drop the box"
            rejected.append(Rejection(box.item, "no_image", detail))
        elif image_id is None:
            rejected.append(Rejection(box.item, "image_rejected", "its image was rejected; see there"))
        else:
            raw.append(RawBox(box.item, image_id, class_id, box.xywh, crowd=box.crowd))
    return raw, rejected


def _annotated(
    id_of: Mapping[str, str | None],
    present: Mapping[str, set[int]],
    ids: Mapping[str, int | None],
    taxonomy: Taxonomy,
) -> set[tuple[str, int]]:
    looked_for = {class_id for class_id in ids.values() if class_id is not None}
    pairs: set[tuple[str, int]] = set()
    for key, image_id in id_of.items():
        if image_id is not None:
            own = present.get(key, set())
            implied = {above for class_id in own for above in taxonomy.path(class_id)[:-1]}
            pairs |= {(image_id, class_id) for class_id in looked_for - (implied - own)}
    return pairs
