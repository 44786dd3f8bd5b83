"""The training set on disk, in YOLO's layout: prepared images, one label file each, `data.yaml`.

    images/train/ID.png     square, letterboxed and stretched by `imaging.prepare`: nothing is resized after this
    labels/train/ID.txt     a line a box: class, centre x, centre y, width, height, relative to the square
    data.yaml               names and folders; ultralytics' own command opens it (it demands a `val`: the same images)
    weights.json            how far its boxes and what lies elsewhere are believed, for images with any weight below 1

ID is the image's id, percent-encoded where it holds more than letters, digits, `_`, `.`, `-` and `~`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from detect.training_set import TrainingBoxes
from weakray.boxes.geometry import xyxy_to_cxcywh_rel
from weakray.dataset import Dataset
from weakray.detections import FloatArray, IntArray
from weakray.errors import DataError
from weakray.files import fresh_folder, read_json, read_yaml, write_json, write_text, write_yaml
from weakray.imaging import Image, InputSpec, prepare, read_image, write_image

_WEIGHTS = "weights.json"


@dataclass(frozen=True)
class Example:
    """One training image.

    Attributes:
        image_id: its id.
        image: `(size, size, c)` uint8, RGB where c = 3.
        class_id: `(n,)`, classes of its boxes.
        boxes_cxcywh_rel: `(n, 4)`, [0, 1].
        weights: `(n,)`, [0, 1], how far each box is believed; 1 for true boxes.
        elsewhere: `(k,)`, [0, 1], how far it is believed that a class is nowhere but in its boxes; see
            `detect.multilabel`.
    """

    image_id: str
    image: Image
    class_id: IntArray
    boxes_cxcywh_rel: FloatArray
    weights: FloatArray
    elsewhere: FloatArray


def write_yolo_folder(folder: Path, dataset: Dataset, training: TrainingBoxes, spec: InputSpec) -> None:
    """Writes the training set, emptying `folder` first.

    Raises:
        DataError: if an image cannot be read.
    """
    images, labels = fresh_folder(folder) / "images" / "train", folder / "labels" / "train"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for image_id, found in training.boxes.items():
        stem = quote(image_id, safe="")
        image, placement = prepare(read_image(dataset.path_of(image_id)), spec)
        write_image(images / f"{stem}.png", image)
        boxes = xyxy_to_cxcywh_rel(placement.forward(found.boxes_xyxy_px), (spec.size_px, spec.size_px))
        lines = [
            f"{class_id} " + " ".join(f"{value:.6f}" for value in box)
            for class_id, box in zip(found.class_id.tolist(), boxes.tolist(), strict=True)
        ]
        (labels / f"{stem}.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    write_text(folder / "images.txt", "".join(f"images/train/{quote(i, safe='')}.png\n" for i in training.boxes))
    everywhere = np.ones(len(dataset.taxonomy), np.float32)
    write_json(
        folder / _WEIGHTS,
        {
            image_id: {"boxes": _rounded(found.score), "elsewhere": _rounded(elsewhere)}
            for image_id, found in training.boxes.items()
            for elsewhere in (training.elsewhere.get(image_id, everywhere),)
            if (found.score < 1).any() or (elsewhere < 1).any()
        },
    )
    names = dict(enumerate(dataset.taxonomy.names))
    write_yaml(
        folder / "data.yaml",
        {"train": "images/train", "val": "images/train", "channels": spec.channels, "nc": len(names), "names": names},
    )


def read_yolo_folder(folder: Path, channels: int) -> list[Example]:
    """Reads the training set back: what stands in the files is what is learnt. In the dataset's order.

    Raises:
        DataError: if an image or a label file is missing or broken.
    """
    listed = (folder / "images.txt").read_text(encoding="utf-8").split()
    classes = int(read_yaml(folder / "data.yaml")["nc"])
    weights = read_json(folder / _WEIGHTS)
    return [_read_example(folder, name, channels, classes, weights) for name in listed]


def _read_example(folder: Path, name: str, channels: int, classes: int, weights: dict[str, Any]) -> Example:
    stem = Path(name).name.removesuffix(".png")
    image = read_image(folder / name)
    labels = folder / "labels" / "train" / f"{stem}.txt"
    try:
        rows = [[float(word) for word in line.split()] for line in labels.read_text(encoding="utf-8").splitlines()]
        table = np.array(rows, np.float64).reshape(-1, 5)
    except (OSError, ValueError) as error:
        raise DataError(f"{labels}: expected lines of class and four numbers, got {error}") from None
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[2] != channels:
        raise DataError(f"{folder / name}: expected {channels} channels, got {image.shape[2]}")
    own = weights.get(unquote(stem), {"boxes": np.ones(len(table)), "elsewhere": np.ones(classes)})
    return Example(
        unquote(stem),
        image,
        table[:, 0].astype(np.int64),
        table[:, 1:].astype(np.float32),
        np.array(own["boxes"], np.float32),
        np.array(own["elsewhere"], np.float32),
    )


def _rounded(values: FloatArray) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
