"""True boxes as a data set gives them → boxes in stored-image pixels, or the reason why not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from weakray.dataset import Rejection
from weakray.detections import Detections

MIN_SIDE_PX = 1.0  # a thinner box marks no pixel, and would not survive the 0.001 px of boxes.json
_SLACK_PX = 0.01  # rounding in the source, not a box that leaves its image
Edges = tuple[float, float, float, float]  # left, top, right, bottom in stored pixels


@dataclass(frozen=True)
class RawBox:
    """A box as read.

    Attributes:
        item: how `rejected.csv` names it.
        image_id: its image.
        class_id: its finding.
        xywh: left, top, width, height; NaN where the source had no number.
        frame_wh: width and height of the frame that `xywh` refers to; None when that is the stored image.
        crowd: True for a region of many instances, or one marked as difficult, which is no box to score by.
        label: the data set's own name of the finding.
    """

    item: str
    image_id: str
    class_id: int
    xywh: tuple[float, float, float, float]
    frame_wh: tuple[float, float] | None = None
    crowd: bool = False
    label: str = ""


@dataclass(frozen=True)
class TakenBoxes:
    """What `take_boxes` made of a data set's boxes.

    Attributes:
        boxes: image_id → its boxes (score 1), images without any left out.
        broken: (image_id, class_id) of boxes that were refused although the finding is said to be there: such a
            pair has no complete truth and is not scored.
        rejected: the boxes that were not taken.
        clipped: boxes taken after being cut at the image's border.
    """

    boxes: dict[str, Detections]
    broken: frozenset[tuple[str, int]]
    rejected: list[Rejection]
    clipped: int


def take_boxes(
    raw: Iterable[RawBox], sizes_hw: Mapping[str, tuple[int, int]], refused_images: Collection[str]
) -> TakenBoxes:
    """Scales, cuts and checks boxes.

    Args:
        raw: the boxes, in their source's order.
        sizes_hw: image_id → stored size, of the images that were taken.
        refused_images: ids of images that were named but not taken, so that the reason can say so.
    """
    rows: dict[str, dict[tuple[int, Edges], None]] = {}
    broken: set[tuple[str, int]] = set()
    rejected: list[Rejection] = []
    clipped = 0
    for box in raw:
        size_hw = sizes_hw.get(box.image_id)
        if size_hw is None:
            known = box.image_id in refused_images
            reason = "image_rejected" if known else "no_image"
            detail = "its image was rejected; see there" if known else f"no image {box.image_id!r} is listed"
            rejected.append(Rejection(box.item, reason, detail))
            continue
        placed = _place(box, size_hw)
        if isinstance(placed, Rejection):
            broken.add((box.image_id, box.class_id))
            rejected.append(placed)
            continue
        edges, was_cut = placed
        found = rows.setdefault(box.image_id, {})
        if (box.class_id, edges) in found:
            rejected.append(Rejection(box.item, "duplicated", "the same box of the same finding stands there already"))
            continue
        found[box.class_id, edges] = None
        clipped += was_cut
    boxes = {
        image_id: Detections(
            np.array([edges for _, edges in found], np.float32),
            np.array([class_id for class_id, _ in found], np.int64),
            np.ones(len(found), np.float32),
        )
        for image_id, found in rows.items()
    }
    return TakenBoxes(boxes, frozenset(broken), rejected, clipped)


def _place(box: RawBox, size_hw: tuple[int, int]) -> tuple[Edges, bool] | Rejection:
    """The box in its image to 0.001 px, and whether the border cut it."""
    if box.crowd:
        detail = "a region of many instances (iscrowd), or marked as difficult; draw a box round each, or leave it out"
        return Rejection(box.item, "crowd", detail)
    (left, top, width, height), (image_h, image_w) = box.xywh, size_hw
    frame_w, frame_h = box.frame_wh or (image_w, image_h)
    scale_x, scale_y = image_w / frame_w, image_h / frame_h
    edges = (left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y)
    if not all(map(math.isfinite, edges)):
        return Rejection(box.item, "bad_number", f"expected four numbers x, y, width, height, got {list(box.xywh)}")
    if width <= 0 or height <= 0:
        return Rejection(box.item, "no_area", f"width and height must be above 0, got {width:g} and {height:g}")
    inside = tuple(min(max(edge, 0.0), limit) for edge, limit in zip(edges, (image_w, image_h) * 2, strict=True))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        shown = [round(edge, 1) for edge in edges]
        detail = f"{shown} lies wholly outside its image of {image_h}×{image_w} px; is the frame right?"
        return Rejection(box.item, "outside", detail)
    if inside[2] - inside[0] < MIN_SIDE_PX or inside[3] - inside[1] < MIN_SIDE_PX:
        detail = f"less than {MIN_SIDE_PX:g} px wide or high inside its image; is the frame right?"
        return Rejection(box.item, "no_area", detail)
    was_cut = any(abs(edge - cut) > _SLACK_PX for edge, cut in zip(edges, inside, strict=True))
    x0, y0, x1, y1 = (round(edge, 3) for edge in inside)
    return (x0, y0, x1, y1), was_cut
