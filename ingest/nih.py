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

Source of truth: the files of the NIH Clinical Center (`Data_Entry_2017.csv`, `BBox_List_2017.csv`,
`train_val_list.txt`, `test_list.txt`) and Wang 2017.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ingest.assemble import assemble
from ingest.assign import Sizes
from ingest.boxes import RawBox
from ingest.coverage import Coverage, LabelCount
from ingest.findings import Vocabulary, refuse_box
from ingest.nih_csv import NAMES, BoxEntry, Entry, image_id_of, read_boxes, read_entries
from ingest.result import IngestResult
from ingest.settings import TAXONOMY
from ingest.source import Side, Source
from ingest.splits import SplitSettings
from ingest.tables import read_names
from ingest.take import ImageRow
from ingest.taxonomies import load_taxonomy
from weakray.config import StrictModel
from weakray.dataset import Rejection
from weakray.errors import DataError

_BEYOND_SHARE, _BEYOND_COUNT = 0.05, 3  # more boxes than this beyond the frame: the frame is wrong, not the boxes
_HALF_FRAME_BOXES = 50  # so many boxes, all within the first half of the frame, are no chance
_ORIGIN = "NIH ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC); Wang X. et al., ChestX-ray8, CVPR 2017, 3462-3471"
_LICENCE = "usage of the data set is unrestricted (NIH Clinical Center); link, acknowledge and cite"


class NihConfig(StrictModel):
    """Settings of `weakray ingest nih`."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"images", "labels", "boxes", "train_list", "test_list", "out", "workers"}
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
    taxonomy: str = Field(default="nih", description=TAXONOMY)
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
    return assemble(
        read_source(config),
        out=config.out,
        images=config.images,
        inputs={name: getattr(config, name) for name in ("labels", "boxes", "train_list", "test_list")},
        label_files=(),
        settings=config.model_dump(mode="json", exclude={"out", "workers"}),
        sizes=Sizes(config.tune_images, config.val_fraction),
        split=config.split,
        seed=config.seed,
        min_side_px=config.min_side_px,
        workers=config.workers,
        pair_by="name",
    )


def read_source(config: NihConfig) -> Source:
    """NIH's tables, mapped into the taxonomy."""
    vocabulary = Vocabulary.of(load_taxonomy(config.taxonomy).spoken_in("nih"), config.findings)
    entries = read_entries(config.labels)
    box_entries = read_boxes(config.boxes)
    warnings = check_frame(box_entries, config.box_frame_px, config.boxes)
    rows = _rows(entries, vocabulary)
    raw, unknown = _raw_boxes(box_entries, vocabulary, config.box_frame_px)
    return Source(
        name="nih",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.of("nih", config.taxonomy, vocabulary, _counts(entries, box_entries)),
        rows=rows,
        origin=_ORIGIN,
        licence=_LICENCE,
        boxes=raw,
        sides=_official_sides(rows, config.train_list, config.test_list),
        rejected=unknown,
        warnings=warnings,
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


def _counts(entries: Sequence[Entry], boxes: Sequence[BoxEntry]) -> dict[str, LabelCount]:
    """How often NIH gives each of its names. Its labeller looked for all of them: what is not named is absent."""
    sound = [entry for entry in entries if entry.problem is None]
    named = Counter(name for entry in sound for name in set(entry.findings))
    drawn = Counter(box.finding for box in boxes)
    return {
        name: LabelCount(named[name], len(sound) - named[name] if name in named else 0, 0, drawn[name])
        for name in sorted({*named, *drawn})
    }


def _rows(entries: Sequence[Entry], vocabulary: Vocabulary) -> list[ImageRow]:
    fates = {name: vocabulary.fate(name).class_id for name in {n for entry in entries for n in entry.findings}}
    looked_for = sorted({c for c in (*fates.values(), *(vocabulary.fate(n).class_id for n in NAMES)) if c is not None})
    rows: list[ImageRow] = []
    for entry in entries:
        present = {fates[name] for name in entry.findings}
        rows.append(
            ImageRow(
                item=entry.item,
                image_id=image_id_of(entry.file_name),
                file_name=entry.file_name,
                patient_id=entry.patient_id,
                study_id=f"{entry.patient_id}_{entry.follow_up}",
                view=entry.view,
                values={class_id: float(class_id in present) for class_id in looked_for},
                problem=entry.problem,
                sex=entry.sex,
                age_years=entry.age_years,
            )
        )
    return rows


def _raw_boxes(
    entries: Sequence[BoxEntry], vocabulary: Vocabulary, frame_px: int
) -> tuple[list[RawBox], list[Rejection]]:
    raw: list[RawBox] = []
    rejected: list[Rejection] = []
    frame = (float(frame_px), float(frame_px))
    for entry in entries:
        class_id = vocabulary.fate(entry.finding).class_id
        if class_id is None:
            rejected.append(refuse_box(entry.item, entry.finding, vocabulary))
        else:
            raw.append(RawBox(entry.item, image_id_of(entry.file_name), class_id, entry.xywh, frame))
    return raw, rejected


def _official_sides(
    rows: Sequence[ImageRow], train_list: Path | None, test_list: Path | None
) -> dict[str, Side | None]:
    """image_id → side, None for an image on neither of two lists. Empty without lists."""
    if train_list is None and test_list is None:
        return {}
    train, test = ({image_id_of(n) for n in read_names(p)} if p is not None else None for p in (train_list, test_list))
    sides: dict[str, Side | None] = {}
    for row in rows:
        in_train = row.image_id in train if train is not None else row.image_id not in (test or ())
        in_test = row.image_id in test if test is not None else not in_train
        if in_train and in_test:
            raise DataError(f"{train_list}: {row.file_name} stands in {test_list} too; keep it in one list")
        sides[row.image_id] = "train" if in_train else "test" if in_test else None
    return sides
