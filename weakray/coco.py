"""COCO json at the edge: true boxes with their `annotated` pairs, and scored results.

COCO image ids are the image's row in `images.parquet` plus 1, category ids the class id plus 1: pycocotools
ignores a matched annotation of id 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from weakray.boxes.geometry import xywh_to_xyxy, xyxy_to_xywh
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import read_json, write_json

Predictions = dict[str, Detections]  # image_id → scored boxes; an image without boxes may be absent


@dataclass(frozen=True)
class BoxTruth:
    """True boxes, and which (image, finding) pairs were really looked for.

    Attributes:
        boxes: image_id → true boxes (score 1); an annotated image without boxes is present and empty.
        annotated: (image_id, class_id) pairs that were looked for, absent ones included. Only these are scored.
    """

    boxes: dict[str, Detections] = field(default_factory=dict)
    annotated: frozenset[tuple[str, int]] = frozenset()

    @property
    def image_ids(self) -> list[str]:
        """Ids of the annotated images, sorted."""
        return sorted({image_id for image_id, _ in self.annotated})

    def only(self, image_ids: Sequence[str]) -> BoxTruth:
        """The truth of some images."""
        kept = set(image_ids)
        return BoxTruth(
            {image_id: boxes for image_id, boxes in self.boxes.items() if image_id in kept},
            frozenset(pair for pair in self.annotated if pair[0] in kept),
        )


def truth_to_coco(
    truth: BoxTruth, image_ids: Sequence[str], sizes_hw: Mapping[str, tuple[int, int]], names: Sequence[str]
) -> dict[str, Any]:
    """The COCO form. `image_ids` are those of `images.parquet`, in its order; only annotated ones are listed."""
    coco_id = {image_id: row + 1 for row, image_id in enumerate(image_ids)}
    listed = sorted({*truth.boxes, *(image_id for image_id, _ in truth.annotated)}, key=coco_id.__getitem__)
    annotations: list[dict[str, Any]] = []
    for image_id in listed:
        found = truth.boxes.get(image_id, Detections.empty())
        for box, class_id in zip(xyxy_to_xywh(found.boxes_xyxy_px).tolist(), found.class_id.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": coco_id[image_id],
                    "category_id": class_id + 1,
                    "bbox": [round(v, 3) for v in box],
                    "area": round(box[2] * box[3], 3),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [
            {"id": coco_id[i], "file_name": i, "height": sizes_hw[i][0], "width": sizes_hw[i][1]} for i in listed
        ],
        "categories": [{"id": class_id + 1, "name": name} for class_id, name in enumerate(names)],
        "annotations": annotations,
        "annotated": sorted([coco_id[image_id], class_id + 1] for image_id, class_id in truth.annotated),
    }


def truth_from_coco(content: dict[str, Any]) -> BoxTruth:
    """Reads what `truth_to_coco` made; `file_name` is the image_id."""
    ids = {image["id"]: str(image["file_name"]) for image in content["images"]}
    rows: dict[str, list[tuple[list[float], int]]] = {image_id: [] for image_id in ids.values()}
    for annotation in content["annotations"]:
        rows[ids[annotation["image_id"]]].append((annotation["bbox"], annotation["category_id"] - 1))
    boxes = {
        image_id: Detections(
            xywh_to_xyxy(np.array([box for box, _ in found], np.float32)).astype(np.float32),
            np.array([class_id for _, class_id in found], np.int64),
            np.ones(len(found), np.float32),
        )
        for image_id, found in rows.items()
    }
    return BoxTruth(boxes, frozenset((ids[image], category - 1) for image, category in content["annotated"]))


def save_results(
    path: Path, predictions: Predictions, image_ids: Sequence[str], recipe_sha256: str | None = None
) -> None:
    """Writes `{"recipe_sha256", "images", "results"}`; `results` is a COCO result list, best box first an image.

    Args:
        path: file to write.
        predictions: image_id → boxes.
        image_ids: ids of `images.parquet`, in its order (they give the COCO image ids).
        recipe_sha256: what made the boxes; None where no recipe did.
    """
    coco_id = {image_id: row + 1 for row, image_id in enumerate(image_ids)}
    unknown = sorted(set(predictions) - set(coco_id))
    if unknown:
        raise DataError(f"{path}: {len(unknown)} predicted images are not in the dataset, e.g. {unknown[0]!r}")
    results = [
        {
            "image_id": coco_id[image_id],
            "category_id": class_id + 1,
            "bbox": [round(v, 3) for v in box],
            "score": round(score, 6),
        }
        for image_id in sorted(predictions, key=coco_id.__getitem__)
        for found in [predictions[image_id].best_first()]
        for box, class_id, score in zip(
            xyxy_to_xywh(found.boxes_xyxy_px).tolist(), found.class_id.tolist(), found.score.tolist(), strict=True
        )
    ]
    listed = {str(coco_id[image_id]): image_id for image_id in sorted(predictions, key=coco_id.__getitem__)}
    write_json(path, {"recipe_sha256": recipe_sha256, "images": listed, "results": results}, indent=None)


def load_results(path: Path) -> Predictions:
    """Reads what `save_results` wrote."""
    content = read_json(path)
    listed: dict[str, str] = content["images"]
    rows: dict[str, list[dict[str, Any]]] = {image_id: [] for image_id in listed.values()}
    for result in content["results"]:
        rows[listed[str(result["image_id"])]].append(result)
    return {
        image_id: Detections(
            xywh_to_xyxy(np.array([r["bbox"] for r in found], np.float32)).astype(np.float32),
            np.array([r["category_id"] - 1 for r in found], np.int64),
            np.array([r["score"] for r in found], np.float32),
        )
        for image_id, found in rows.items()
    }
