"""Boxes in the forms other programs read: COCO, YOLO, CSV; and pictures with the boxes drawn in."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import cv2
import numpy as np

from weakray.boxes.geometry import xyxy_to_cxcywh_rel, xyxy_to_xywh
from weakray.coco import Predictions
from weakray.detections import Detections
from weakray.files import fresh_folder, write_json, write_text
from weakray.imaging import Image, to_channels, write_image

BoxFormat = Literal["coco", "yolo", "csv"]
SizesHw = Mapping[str, tuple[int, int]]
# Told apart on grey films, and by the colour-blind as far as ten colours can be (after Okabe and Ito, 2008).
_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    *((160, 160, 255), (140, 220, 120), (255, 150, 150)),
)
_TRUE = (255, 255, 255)


def write_boxes(
    root: Path, formats: Sequence[BoxFormat], predictions: Predictions, sizes_hw: SizesHw, names: Sequence[str]
) -> None:
    """Writes `coco.json`, the folder `yolo`, or `boxes.csv`; images without a box are listed in the first two.

    Args:
        root: folder to write into.
        formats: which of them.
        predictions: image_id → boxes, in the order to write them.
        sizes_hw: image_id → height and width in pixels.
        names: findings, in class-id order.
    """
    for form in formats:
        match form:
            case "coco":
                write_json(root / "coco.json", _coco(predictions, sizes_hw, names), indent=None)
            case "yolo":
                _write_yolo(root / "yolo", predictions, sizes_hw, names)
            case "csv":
                write_text(root / "boxes.csv", _csv(predictions, names))


def file_stem(image_id: str) -> str:
    """A file's name for an image: its id, percent-encoded where it holds more than letters, digits, `_.-~`."""
    return quote(image_id, safe="")


def _coco(predictions: Predictions, sizes_hw: SizesHw, names: Sequence[str]) -> dict[str, object]:
    """COCO's instances, each with its `score`; `annotations` alone is a COCO result list."""
    annotations: list[dict[str, object]] = []
    for number, found in enumerate(predictions.values(), 1):
        rows = zip(
            xyxy_to_xywh(found.boxes_xyxy_px).tolist(), found.class_id.tolist(), found.score.tolist(), strict=True
        )
        for box, class_id, score in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": class_id + 1,
                    "bbox": [round(value, 3) for value in box],
                    "area": round(box[2] * box[3], 3),
                    "iscrowd": 0,
                    "score": round(score, 6),
                }
            )
    return {
        "images": [
            {"id": number, "file_name": image_id, "height": sizes_hw[image_id][0], "width": sizes_hw[image_id][1]}
            for number, image_id in enumerate(predictions, 1)
        ],
        "categories": [{"id": class_id + 1, "name": name} for class_id, name in enumerate(names)],
        "annotations": annotations,
    }


def _write_yolo(folder: Path, predictions: Predictions, sizes_hw: SizesHw, names: Sequence[str]) -> None:
    """A text file an image: class, centre x, centre y, width, height relative to the image, score."""
    labels = fresh_folder(folder) / "labels"
    labels.mkdir()
    for image_id, found in predictions.items():
        boxes = xyxy_to_cxcywh_rel(found.boxes_xyxy_px, sizes_hw[image_id])
        lines = [
            f"{class_id} " + " ".join(f"{value:.6f}" for value in (*box, score)) + "\n"
            for box, class_id, score in zip(boxes.tolist(), found.class_id.tolist(), found.score.tolist(), strict=True)
        ]
        (labels / f"{file_stem(image_id)}.txt").write_text("".join(lines), encoding="utf-8")
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in names))


def _csv(predictions: Predictions, names: Sequence[str]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image_id", "finding", "score", "x0", "y0", "x1", "y1"])
    for image_id, found in predictions.items():
        rows = zip(found.boxes_xyxy_px.tolist(), found.class_id.tolist(), found.score.tolist(), strict=True)
        writer.writerows(
            [image_id, names[class_id], f"{score:.6f}", *(f"{value:.3f}" for value in box)]
            for box, class_id, score in rows
        )
    return table.getvalue()


def picture(image: Image, found: Detections, names: Sequence[str], true: Detections | None = None) -> Image:
    """An RGB copy of an image with its boxes drawn in, best on top; true boxes in white, thin, without a name.

    Args:
        image: grey `(h, w)` or RGB `(h, w, 3)` uint8.
        found: boxes to draw, with finding and score.
        names: findings, in class-id order.
        true: true boxes, where they are known.
    """
    shown = np.ascontiguousarray(to_channels(image, 3)).copy()
    unit = max(1, round(max(shown.shape[:2]) / 512))
    for box in (Detections.empty() if true is None else true).boxes_xyxy_px:
        _frame(shown, box.tolist(), _TRUE, unit)
    worst_first = found.best_first().where(np.arange(len(found))[::-1])
    rows = zip(
        worst_first.boxes_xyxy_px.tolist(), worst_first.class_id.tolist(), worst_first.score.tolist(), strict=True
    )
    for box, class_id, score in rows:
        colour = _COLOURS[class_id % len(_COLOURS)]
        _frame(shown, box, colour, 2 * unit)
        _label(shown, f"{names[class_id]} {score:.2f}", (round(box[0]), round(box[1])), colour, unit)
    return np.asarray(shown, np.uint8)


def _frame(shown: Image, box: Sequence[float], colour: tuple[int, int, int], width_px: int) -> None:
    low, high = (round(box[0]), round(box[1])), (round(box[2]) - 1, round(box[3]) - 1)
    cv2.rectangle(shown, low, high, colour, width_px)


def _label(shown: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], unit: int) -> None:
    """A filled tag over the box's upper edge, moved inside where it would leave the image."""
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
    (width, height), below = cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, 0.35 * unit, unit)
    left = max(0, min(corner[0], shown.shape[1] - width))
    bottom = max(height + below, corner[1])
    cv2.rectangle(shown, (left, bottom - height - below), (left + width, bottom), colour, -1)
    cv2.putText(
        shown, plain, (left, bottom - below // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.35 * unit, (0, 0, 0), unit, cv2.LINE_AA
    )


def write_picture(
    folder: Path, image_id: str, image: Image, found: Detections, names: Sequence[str], true: Detections | None
) -> None:
    """Writes `picture` as PNG under the image's id."""
    folder.mkdir(exist_ok=True)
    write_image(folder / f"{file_stem(image_id)}.png", picture(image, found, names, true))
