"""`weakray ingest nih`: NIH ChestX-ray14 from its own CSV files.

Which images go where:

- Without official lists, patients with a boxed image are split into tune (`tune_images` boxed images) and test (all
  other boxed images); everyone else into train and val.
- With official lists, the lists decide first. Patients of the test list: those with boxes into tune and test as
  above, the others into test. Patients of the train list into train and val; their boxes, where they have any, go to
  `ceiling_boxes.json`. With one list given, whoever is not on it is on the other side.
- An image without boxes follows its patient: in tune and test it has labels and no annotated pair, so it counts for
  classification and not for boxes. Nothing is set aside.

Annotated pairs are those with a box, and (boxed image, finding labelled 0). A positive without a box is ignored: NIH
boxed only some. In tune and test a box also makes the label 1 where text mining missed it (counted).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ingest.boxes import RawBox, TakenBoxes, take_boxes
from ingest.findings import Vocabulary, lift
from ingest.listing import list_folder
from ingest.nih_csv import BoxEntry, Entry, image_id_of, read_boxes, read_entries
from ingest.nih_taxonomy import nih_taxonomy
from ingest.result import IngestResult
from ingest.splits import SplitSettings, count_patients, split_patients, split_warnings
from ingest.tables import read_names
from ingest.take import ImageRow, TakenImage, TakenImages, take_images
from ingest.thin import thin_train
from ingest.write import refuse_empty, refuse_nested, write_taken
from weakray.config import StrictModel
from weakray.dataset import Rejection, Split
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy

_BEYOND_SHARE, _BEYOND_COUNT = 0.05, 3  # more boxes than this beyond the frame: the frame is wrong, not the boxes
_HALF_FRAME_BOXES = 50  # so many boxes, all within the first half of the frame, are no chance
_ORIGIN = "NIH ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC); Wang X. et al., ChestX-ray8, CVPR 2017, 3462-3471"
_LICENCE = "usage of the data set is unrestricted (NIH Clinical Center); link, acknowledge and cite"


class NihConfig(StrictModel):
    """Settings of `weakray ingest nih`."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"images", "labels", "boxes", "train_list", "test_list", "taxonomy", "out", "workers"}
    )

    images: Path = Field(description="folder of the images; folders below it are searched too")
    labels: Path = Field(description="Data_Entry_2017.csv")
    boxes: Path = Field(description="BBox_List_2017.csv")
    out: Path = Field(description="dataset folder to write")
    box_frame_px: int = Field(
        gt=0, description="side of the square frame that the boxes refer to, in pixels: 1024 in NIH's own files"
    )
    train_list: Path | None = Field(default=None, description="official train_val_list.txt; none: split by patient")
    test_list: Path | None = Field(default=None, description="official test_list.txt; none: split by patient")
    taxonomy: Path | None = Field(default=None, description="taxonomy YAML; none: NIH's 14 findings, no tree")
    findings: tuple[str, ...] | None = Field(default=None, description="findings to keep, by name; none: all")
    tune_images: int = Field(default=100, ge=1, description="boxed images in tune; the other boxed ones are test")
    val_fraction: float = Field(default=0.1, gt=0, lt=1, description="share of the other images that becomes val")
    min_side_px: int = Field(default=16, ge=1, description="images with a shorter side are rejected")
    split: SplitSettings = SplitSettings()
    seed: int = Field(default=0, description="another seed, another split")
    workers: int = Field(default=2, ge=1, description="threads that decode images; any number gives the same result")


def run(config: NihConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if a table lacks a column, a finding is unknown, the boxes exceed their frame, the official lists
            cut a patient in two, or there are too few images for the splits.
    """
    refuse_nested(config.out, config.images)
    taxonomy = nih_taxonomy() if config.taxonomy is None else Taxonomy.load(config.taxonomy)
    vocabulary = Vocabulary.of(taxonomy, config.findings)
    entries = read_entries(config.labels)
    box_entries = read_boxes(config.boxes)
    warnings = check_frame(box_entries, config.box_frame_px, config.boxes)
    inputs = {name: getattr(config, name) for name in ("labels", "boxes", "train_list", "test_list", "taxonomy")}
    folder = list_folder(config.images, besides=[path for path in inputs.values() if path is not None])
    rows = _rows(entries, vocabulary, str(config.labels))
    taken = take_images(rows, folder, pair_by="name", min_side_px=config.min_side_px, workers=config.workers)
    rejected = list(taken.rejected)
    sides = _official_sides(taken, config.train_list, config.test_list)
    for image_id in [image_id for image_id in taken.images if sides.get(image_id, "train") is None]:
        item = taken.images.pop(image_id).row.item
        rejected.append(Rejection(item, "not_in_lists", "neither in train_list nor in test_list; add it to one"))
    refuse_empty(taken, rejected, config.images)
    raw, unknown = _raw_boxes(box_entries, vocabulary, config.box_frame_px)
    boxes = take_boxes(raw, taken.sizes_hw, {row.image_id for row in rows})
    rejected += unknown + boxes.rejected
    split_of, short = _split(taken, boxes, sides, config, vocabulary.chosen.names)
    share = config.split.no_finding_share
    taken, thinned = thin_train(taken, split_of, share=share, seed=config.seed, keep=boxes.boxes)
    rejected += thinned
    taken, raised = _final_labels(taken, boxes, split_of, vocabulary.chosen)
    return write_taken(
        config.out,
        images_root=config.images,
        source="nih",
        taken=taken,
        split_of=split_of,
        taxonomy=vocabulary.chosen,
        boxes=boxes,
        annotated=_annotated(taken, boxes),
        rejected=rejected,
        info={
            "origin": _ORIGIN,
            "licence": _LICENCE,
            "settings": config.model_dump(mode="json", exclude={"out", "workers"}),
            "paired_by_stem": taken.by_stem,
            "labels_raised_by_a_box": raised,
        },
        inputs=inputs,
        warnings=warnings + short,
    )


def check_frame(boxes: Sequence[BoxEntry], frame_px: int, path: Path) -> list[str]:
    """Warnings about boxes that do not look like boxes of this frame.

    Raises:
        DataError: if so many boxes reach beyond the frame that it must be another one.
    """
    reach = [max(x + w, y + h) for x, y, w, h in (box.xywh for box in boxes)]
    numbers = [value for value in reach if abs(value) < float("inf")]
    beyond = [value for value in numbers if value > frame_px + 1]
    if len(beyond) >= _BEYOND_COUNT and len(beyond) > _BEYOND_SHARE * len(numbers):
        raise DataError(
            f"{path}: {len(beyond)} of {len(numbers)} boxes reach beyond the frame of box_frame_px={frame_px} "
            f"(to {max(beyond):g}); set it to the side of the square that the boxes refer to, 1024 in NIH's own files"
        )
    if len(numbers) >= _HALF_FRAME_BOXES and max(numbers) <= frame_px / 2:
        return [f"no box reaches beyond {max(numbers):g} of box_frame_px={frame_px}: is the frame really that large?"]
    return []


def _rows(entries: Sequence[Entry], vocabulary: Vocabulary, where: str) -> list[ImageRow]:
    ids = vocabulary.ids((name for entry in entries for name in entry.findings), where)
    spoken = {name for finding in nih_taxonomy().findings for name in (finding.name, *finding.synonyms)}
    looked_for = sorted(vocabulary.understood(spoken) | {c for c in ids.values() if c is not None})
    rows: list[ImageRow] = []
    for entry in entries:
        present = {ids[name] for name in entry.findings}
        rows.append(
            ImageRow(
                item=entry.item,
                image_id=image_id_of(entry.file_name),
                file_name=entry.file_name,
                patient_id=entry.patient_id,
                study_id=f"{entry.patient_id}_{entry.follow_up}",
                view=entry.view,
                sex=entry.sex,
                age_years=entry.age_years,
                values={class_id: float(class_id in present) for class_id in looked_for},
                problem=entry.problem,
            )
        )
    return rows


def _raw_boxes(
    entries: Sequence[BoxEntry], vocabulary: Vocabulary, frame_px: int
) -> tuple[list[RawBox], list[Rejection]]:
    raw: list[RawBox] = []
    rejected: list[Rejection] = []
    for entry in entries:
        try:
            class_id = vocabulary.ids([entry.finding], entry.item)[entry.finding]
        except DataError as error:
            rejected.append(Rejection(entry.item, "unknown_class", str(error)))
            continue
        if class_id is None:
            detail = f"{entry.finding!r} is not among the findings that were chosen"
            rejected.append(Rejection(entry.item, "not_chosen", detail))
            continue
        frame = (float(frame_px), float(frame_px))
        raw.append(RawBox(entry.item, image_id_of(entry.file_name), class_id, entry.xywh, frame))
    return raw, rejected


def _official_sides(
    taken: TakenImages, train_list: Path | None, test_list: Path | None
) -> dict[str, Literal["train", "test"] | None]:
    """image_id → side, None for an image on neither of two lists. Empty without lists."""
    if train_list is None and test_list is None:
        return {}
    train, test = ({image_id_of(n) for n in read_names(p)} if p is not None else None for p in (train_list, test_list))
    sides: dict[str, Literal["train", "test"] | None] = {}
    side_of_patient: dict[str, tuple[str, str]] = {}
    for image_id, image in taken.images.items():
        in_train = image_id in train if train is not None else image_id not in (test or ())
        in_test = image_id in test if test is not None else not in_train
        if in_train and in_test:
            raise DataError(f"{train_list}: {image.row.file_name} stands in {test_list} too; keep it in one list")
        side: Literal["train", "test"] | None = "train" if in_train else "test" if in_test else None
        sides[image_id] = side
        if side is not None:
            other, example = side_of_patient.setdefault(image.row.patient_id, (side, image.row.file_name))
            if other != side:
                raise DataError(
                    f"{train_list or test_list}: patient {image.row.patient_id} is cut in two: {example} is on the "
                    f"{other} side and {image.row.file_name} on the {side} side; keep a patient's images together"
                )
    return sides


def _split(
    taken: TakenImages,
    boxes: TakenBoxes,
    sides: Mapping[str, Literal["train", "test"] | None],
    config: NihConfig,
    names: Sequence[str],
) -> tuple[dict[str, Split], list[str]]:
    """image_id → split, and warnings."""
    if config.split.method == "official" and not sides:
        raise DataError("split.method: official needs NIH's own lists; give train_list and test_list")
    images = taken.images
    patients = {image.row.patient_id for image in images.values()}
    boxed = {images[image_id].row.patient_id for image_id in boxes.boxes}
    if sides:
        test_side = {image.row.patient_id for image_id, image in images.items() if sides[image_id] == "test"}
        boxed &= test_side
    else:
        test_side = boxed
    if not boxed:
        raise DataError(
            f"{config.boxes}: not one box of an image that tune or test could take; see the lists and names"
        )
    by_boxes: list[tuple[str, list[int], str]] = []
    by_labels: list[tuple[str, list[int], str]] = []
    for image_id, image in images.items():
        patient = image.row.patient_id
        if patient in boxed and image_id in boxes.boxes:
            by_boxes.append((patient, boxes.boxes[image_id].class_id.tolist(), ""))
        elif patient not in test_side:
            by_labels.append((patient, image.positive, ""))
    tune: dict[Split, float] = {"tune": config.tune_images}
    val: dict[Split, float] = {"val": config.val_fraction}
    scored = split_patients(count_patients(by_boxes), tune, "test", config.seed, config.split)
    taught = split_patients(count_patients(by_labels), val, "train", config.seed, config.split)
    of_patient: dict[str, Split] = {**dict.fromkeys(sorted(patients & test_side), "test"), **scored.of, **taught.of}
    split_of = {image_id: of_patient[image.row.patient_id] for image_id, image in images.items()}
    return split_of, split_warnings(scored, names) + split_warnings(taught, names)


def _final_labels(
    taken: TakenImages, boxes: TakenBoxes, split_of: Mapping[str, Split], taxonomy: Taxonomy
) -> tuple[TakenImages, int]:
    """Labels raised by boxes in tune and test, never in train or val, and lifted along the class tree."""
    images: dict[str, TakenImage] = {}
    raised = 0
    for image_id, image in taken.images.items():
        values = dict(image.row.values)
        if split_of[image_id] in ("tune", "test") and image_id in boxes.boxes:
            for class_id in sorted(set(boxes.boxes[image_id].class_id.tolist())):
                raised += values.get(class_id) == 0
                values[class_id] = 1.0
        images[image_id] = replace(image, row=replace(image.row, values=lift(values, taxonomy)))
    return replace(taken, images=images), raised


def _annotated(taken: TakenImages, boxes: TakenBoxes) -> set[tuple[str, int]]:
    pairs: set[tuple[str, int]] = set()
    for image_id, found in boxes.boxes.items():
        pairs |= {(image_id, class_id) for class_id in found.class_id.tolist()}
        pairs |= {(image_id, c) for c, value in taken.images[image_id].row.values.items() if value == 0}
    return pairs
