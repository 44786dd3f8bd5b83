"""Thumbnails with boxes, chosen by a fixed rule and never by taste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from weakray.coco import BoxTruth
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import sha256_bytes
from weakray.imaging import read_image, scale_to_fit
from weakray.pages.pictures import jpeg_uri

_QUALITY = 72


@dataclass(frozen=True)
class Rect:
    """A box in pixels of the thumbnail; `own` where it is of the finding that the example stands for."""

    x: float
    y: float
    width: float
    height: float
    own: bool


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of an image, `width` × `height` px; `uri` is None where the image could not be read."""

    image_id: str
    patient: str
    split: str
    uri: str | None
    width: int
    height: int
    rects: list[Rect]
    others: str  # its other positive findings


def choose_examples(
    labels: pd.DataFrame, truth: BoxTruth, patients: Mapping[str, str], class_id: int, count: int
) -> list[str]:
    """Images that are positive of a finding: those with a box of it first, then by a hash of their id.

    Args:
        labels: image_id × findings.
        truth: true boxes.
        patients: image_id → patient; each stands once, as long as there are others.
        class_id: the finding.
        count: at most so many.
    """
    boxed = {i for i, boxes in truth.boxes.items() if (boxes.class_id == class_id).any()}
    positive = {str(i) for i in labels.index[labels.iloc[:, class_id] == 1]} | boxed
    seen: dict[str, int] = {}
    ranked: list[tuple[int, bool, str]] = []
    for image_id in sorted(positive, key=lambda i: (i not in boxed, sha256_bytes(i.encode()), i)):
        nth = seen.get(patients[image_id], 0)
        seen[patients[image_id]] = nth + 1
        ranked.append((nth, image_id not in boxed, image_id))
    order = sorted(range(len(ranked)), key=lambda at: (ranked[at][:2], at))
    return [ranked[at][2] for at in order[:count]]


def thumbnail(dataset: Dataset, image_id: str, class_id: int | None, side_px: int, names: Sequence[str]) -> Thumbnail:
    """An image, its longer side `side_px`, with its true boxes where it has any.

    Args:
        dataset: the dataset folder.
        image_id: the image.
        class_id: the finding it stands for; None for none.
        side_px: longer side.
        names: the findings.
    """
    height, width = dataset.size_hw(image_id)
    scale = side_px / max(height, width)
    try:
        uri = jpeg_uri(scale_to_fit(read_image(dataset.path_of(image_id)), side_px), _QUALITY)
    except DataError:
        uri = None
    rects: list[Rect] = []
    if image_id in dataset.truth.boxes and class_id is not None:
        boxes = dataset.truth.boxes[image_id]
        for (x0, y0, x1, y1), of in zip(boxes.boxes_xyxy_px.tolist(), boxes.class_id.tolist(), strict=True):
            x, y, w, h = (round(value * scale, 1) for value in (x0, y0, x1 - x0, y1 - y0))
            rects.append(Rect(x, y, w, h, own=of == class_id))
    row = dataset.labels.loc[image_id]
    others = [name for at, name in enumerate(names) if at != class_id and row.iloc[at] == 1]
    return Thumbnail(
        image_id=image_id,
        patient=dataset.patient_of(image_id),
        split=str(dataset.images.loc[image_id, "split"]),
        uri=uri,
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        rects=sorted(rects, key=lambda rect: rect.own),
        others=", ".join(others),
    )
