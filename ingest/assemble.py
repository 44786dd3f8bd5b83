"""From what a data set's tables say to a dataset folder: the images are looked at, split, and all of it written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.assign import Sizes, assign
from ingest.boxes import TakenBoxes, take_boxes
from ingest.findings import lift
from ingest.listing import PairBy, list_folder
from ingest.result import IngestResult
from ingest.settings import ReaderConfig
from ingest.source import Side, Source
from ingest.splits import SplitSettings, split_warnings
from ingest.stored_films import store_dicom
from ingest.take import TakenImage, TakenImages, take_images
from ingest.thin import thin_train
from ingest.write import refuse_empty, refuse_nested, write_taken
from weakray.dataset import Rejection, Split
from weakray.errors import DataError
from weakray.files import sha256_file, sha256_json
from weakray.taxonomy import Taxonomy


def assemble(
    source: Source,
    *,
    out: Path,
    images: Path,
    inputs: Mapping[str, Path | None],
    label_files: Sequence[Path],
    settings: Mapping[str, Any],
    sizes: Sizes,
    split: SplitSettings,
    seed: int,
    min_side_px: int,
    workers: int,
    pair_by: PairBy,
) -> IngestResult:
    """Takes the images of a source and writes the dataset folder.

    In tune and test a box makes its finding's label 1 where the label said otherwise (counted), never in train or val.
    Labels are then lifted along the class tree.

    Args:
        source: the data set's tables.
        out: the folder to write.
        images: the folder of the images; DICOM files there become films in the dataset folder.
        inputs: files that were read, by setting.
        label_files: other files that were read, many of one kind: `dataset.json` holds one hash of them all.
        settings: for `dataset.json`.
        sizes: of the splits.
        split: how patients are drawn where no list decides.
        seed: of the splits.
        min_side_px: images with a shorter side are rejected.
        workers: threads.
        pair_by: see `take_images`.

    Raises:
        DataError: if no image, or no box of a source that has boxes, can be taken; or the splits are impossible.
    """
    refuse_nested(out, images)
    folder = list_folder(images, besides=[*label_files, *(path for path in inputs.values() if path is not None)])
    stored = store_dicom(source.rows, folder, pair_by, out, min_side_px, workers)
    rows, strays = source.rows, list[Rejection]()
    if stored is not None:
        rows, folder, pair_by, strays = stored.rows, stored.folder, "path", stored.rejected
    taken = take_images(rows, folder, pair_by=pair_by, min_side_px=min_side_px, workers=workers)
    rejected = [*source.rejected, *taken.rejected, *strays]
    for image_id in [i for i in taken.images if source.sides and source.sides.get(i) is None]:
        item = taken.images.pop(image_id).row.item
        rejected.append(Rejection(item, "not_in_lists", "on none of the official lists; add it to one"))
    refuse_empty(taken, rejected, images)
    boxes = take_boxes(source.boxes, taken.sizes_hw, {row.image_id for row in source.rows})
    rejected += boxes.rejected
    annotated = _annotated_images(source, taken, boxes)
    _refuse_unscored(source, annotated)
    row_of = {image_id: image.row for image_id, image in taken.images.items()}
    sides = {image_id: source.sides.get(image_id) for image_id in row_of} if source.sides else {}
    split_of, drawn = assign(row_of, annotated, sides, sizes, seed, split)
    share = split.no_finding_share
    taken, thinned = thin_train(taken, split_of, share=share, seed=seed, keep=boxes.boxes)
    rejected += thinned
    taken, raised = _final_labels(taken, boxes, split_of, source.taxonomy)
    return write_taken(
        out,
        images_root=folder.root,
        source=source.name,
        taken=taken,
        split_of=split_of,
        taxonomy=source.taxonomy,
        coverage=source.coverage,
        boxes=boxes,
        annotated=_pairs(source, taken, boxes),
        rejected=rejected,
        info={
            "origin": source.origin,
            "licence": source.licence,
            "settings": dict(settings),
            "paired_by_stem": taken.by_stem,
            "labels_raised_by_a_box": raised,
            **({"label_files": _hash_of(label_files)} if label_files else {}),
            **source.info,
        },
        inputs=inputs,
        warnings=[*source.warnings, *(text for part in drawn for text in split_warnings(part, source.taxonomy.names))],
    )


def _hash_of(files: Sequence[Path]) -> dict[str, Any]:
    """How many files, and one hash of what they hold, in their order."""
    return {"files": len(files), "sha256": sha256_json([[path.name, sha256_file(path)] for path in files])}


def assemble_reader(
    source: Source, config: ReaderConfig, *, pair_by: PairBy, label_files: Sequence[Path] = ()
) -> IngestResult:
    """`assemble` with the settings that all readers share.

    Args:
        source: the data set's tables.
        config: the reader's settings.
        pair_by: see `take_images`.
        label_files: files that were read and are no setting of their own.
    """
    return assemble(
        source,
        out=config.out,
        images=config.images,
        inputs=config.inputs(),
        label_files=label_files,
        settings=config.plain(),
        sizes=config.sizes,
        split=config.split,
        seed=config.seed,
        min_side_px=config.min_side_px,
        workers=config.workers,
        pair_by=pair_by,
    )


def _annotated_images(source: Source, taken: TakenImages, boxes: TakenBoxes) -> dict[str, set[int]]:
    """image_id → class ids of its boxes, of the images that were looked at for boxes."""
    looked_at = {image_id for image_id, _ in source.looked_for or ()} | source.looked_at
    found = {image_id: set(found.class_id.tolist()) for image_id, found in boxes.boxes.items()}
    return {i: found.get(i, set()) for i in taken.images if i in found or i in looked_at}


def _refuse_unscored(source: Source, annotated: Mapping[str, object]) -> None:
    scored: set[Side] = {"tune", "test"}
    usable = [i for i in annotated if not source.sides or source.sides.get(i) in scored]
    if source.boxes and not usable:
        raise DataError(
            f"{source.name}: not one of {len(source.boxes)} boxes is of an image that tune or test could take; see the "
            f"names in the table of boxes (first: {source.boxes[0].item}) and the official lists"
        )


def _pairs(source: Source, taken: TakenImages, boxes: TakenBoxes) -> set[tuple[str, int]]:
    """(image_id, class_id) that were looked for.

    A finding that is there only through a child in the class tree, without a box of its own, is not among them.
    """
    own = {(image_id, class_id) for image_id, found in boxes.boxes.items() for class_id in found.class_id.tolist()}
    implied = {(image_id, above) for image_id, class_id in own for above in source.taxonomy.path(class_id)[:-1]}
    if source.looked_for is not None:
        others = {pair for pair in source.looked_for if pair[0] in taken.images}
    else:
        looked_at = {*boxes.boxes, *source.looked_at}
        others = {
            (image_id, class_id)
            for image_id, image in taken.images.items()
            if image_id in looked_at
            for class_id, value in image.row.values.items()
            if value == 0
        }
    return own | (others - implied)


def _final_labels(
    taken: TakenImages, boxes: TakenBoxes, split_of: Mapping[str, Split], taxonomy: Taxonomy
) -> tuple[TakenImages, int]:
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
