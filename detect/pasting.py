"""Small findings of annotated films added onto other films: many surroundings for the few boxes that are surely right.

Radiographs add up: a finding darkens or brightens what lies before and behind it. So what it adds is taken from the
annotated film, the region around its true box less what the surroundings lead one to expect there (painted in), and is
added to another film near the same place; that film's own ribs, heart and findings stay. Its boxes come with it. What
is painted in is a guess, so a region cut at that place from a film without a finding there is added now and then too:
it looks as odd and has no box. (Ghiasi et al., Simple Copy-Paste, CVPR 2021, copy objects by their masks; there is none
here.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from detect.yolo_folder import Example
from weakray.boxes.geometry import area, clip_to_image, intersection, iou, xyxy_to_cxcywh_rel
from weakray.config import StrictModel
from weakray.detections import FloatArray, IntArray

_INSIDE = 0.7  # share of a box that lies in a region at least, for it to come along; and in the square, once pasted
_OUTSIDE = 0.15  # share of it that lies in a region at most, for it to stay behind; between the two, none is cut
_EDGE = 0.25  # width of the soft edge around a box, as a share of its half side
_ROUND = 3  # a region is |x|³ + |y|³ = 1 in its box: rounder than the box, fuller than its ellipse
_SAME = 0.9  # overlap above which two boxes are one place
_OVERLAP = 0.2  # share of a box, pasted or there before, that one of the same finding may cover
_ZOOM = 0.15  # ± of both sides together, and of each
_SHIFT = 0.04  # ± this share of the square
_STRENGTH = (0.6, 1.15)  # factor on what is added


class PasteConfig(StrictModel):
    """How often findings are pasted, and which."""

    probability: float = Field(
        0.0, ge=0, le=1, description="of pasting regions of films with true boxes onto a training image; 0: off"
    )
    most: int = Field(2, ge=1, description="regions pasted onto one image, at most")
    largest: float = Field(0.03, gt=0, le=1, description="largest box that is pasted, as a share of the square")
    empty: float = Field(0.2, ge=0, le=1, description="share of regions without a finding, cut where others have one")


@dataclass(frozen=True)
class Region:
    """What a place of a film adds to what its surroundings lead one to expect.

    Attributes:
        added: `(h, w, c)` float32, grey levels, falling to 0 at the edge.
        corner_xy: its left and top in the square, px.
        class_id: `(n,)`, of the boxes in it.
        boxes_xyxy_px: `(n, 4)`, from its own corner.
    """

    added: npt.NDArray[np.float32]
    corner_xy: tuple[int, int]
    class_id: IntArray
    boxes_xyxy_px: FloatArray


@dataclass(frozen=True)
class Regions:
    """Regions with a finding, and some without."""

    findings: tuple[Region, ...] = ()
    empty: tuple[Region, ...] = ()


def cut_regions(examples: Sequence[Example], config: PasteConfig, seed: int) -> Regions:
    """The regions of images whose boxes are all true ones.

    Args:
        examples: the images.
        config: which boxes; none are cut where nothing is to be pasted.
        seed: of the images that empty regions are cut from.
    """
    if not config.probability:
        return Regions()
    rng = np.random.default_rng(seed)
    findings, empty = list[Region](), list[Region]()
    for example in examples:
        boxes = _pixels(example)
        for box in _places(boxes[area(boxes) <= config.largest * example.image.shape[0] ** 2]):
            own, other = _cut(example, box), _cut(examples[int(rng.integers(len(examples)))], box)
            findings += [] if own is None else [own]
            empty += [] if other is None or len(other.class_id) else [other]
    return Regions(tuple(findings), tuple(empty))


def paste(example: Example, regions: Regions, config: PasteConfig, flip: float, rng: np.random.Generator) -> Example:
    """A training image with regions added, or without.

    Args:
        example: the image; its boxes stay.
        regions: what there is to add.
        config: how much is added.
        flip: probability that a region is added to the other side, mirrored.
        rng: all chance comes from it.
    """
    if not regions.findings or rng.random() >= config.probability:
        return example
    for _ in range(int(rng.integers(1, config.most + 1))):
        held = regions.empty if regions.empty and rng.random() < config.empty else regions.findings
        region = _varied(held[int(rng.integers(len(held)))], example.image.shape[0], flip, rng)
        if _fits(region, example):
            example = _added(region, example)
    return example


def _places(boxes: FloatArray) -> FloatArray:
    """The boxes, those in one place once: a finding's box is that of its parents too."""
    earlier = np.tril(iou(boxes, boxes) > _SAME, -1).any(axis=1)
    return boxes[~earlier]


def _cut(example: Example, box: FloatArray) -> Region | None:
    """The region around a box; None where a finding lies half in it."""
    boxes = _pixels(example)
    share = intersection(boxes, box[None])[:, 0] / np.maximum(area(boxes), 1e-9)
    if ((share > _OUTSIDE) & (share < _INSIDE)).any():
        return None
    size = example.image.shape[0]
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    reach = half * (1 + _EDGE) + 2  # past the edge: what is painted in grows from there
    left, top = np.maximum(np.floor(centre - reach), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(centre + reach), size).astype(int).tolist()
    across = np.abs(np.arange(left, right) + 0.5 - centre[0]) / half[0]
    down = np.abs(np.arange(top, bottom) + 0.5 - centre[1]) / half[1]
    distance = (across[None] ** _ROUND + down[:, None] ** _ROUND) ** (1 / _ROUND)
    ramp = np.clip((1 + _EDGE - distance) / _EDGE, 0, 1)
    believed = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)[..., None]
    patch = np.ascontiguousarray(example.image[top:bottom, left:right])
    expected = cv2.inpaint(patch, (ramp > 0).astype(np.uint8), 3, cv2.INPAINT_NS).reshape(patch.shape)
    comes = share >= _INSIDE
    return Region(
        (patch.astype(np.float32) - expected) * believed,
        (left, top),
        example.class_id[comes],
        (boxes[comes] - np.array([left, top, left, top])).astype(np.float32),
    )


def _varied(region: Region, size: int, flip: float, rng: np.random.Generator) -> Region:
    """The region a little larger or smaller, stronger or weaker, elsewhere, or on the other side of the square."""
    height, width = region.added.shape[:2]
    zoom_x, zoom_y = 1 + _ZOOM * rng.uniform(-1, 1, 2)
    zoom = 1 + _ZOOM * rng.uniform(-1, 1)
    new_w, new_h = (max(4, round(side)) for side in (width * zoom * zoom_x, height * zoom * zoom_y))
    moved = rng.uniform(-_SHIFT, _SHIFT, 2) * size
    added = cv2.resize(region.added, (new_w, new_h)).reshape(new_h, new_w, -1) * np.float32(rng.uniform(*_STRENGTH))
    left = round(region.corner_xy[0] + (width - new_w) / 2 + moved[0])
    top = round(region.corner_xy[1] + (height - new_h) / 2 + moved[1])
    boxes = region.boxes_xyxy_px * np.tile([new_w / width, new_h / height], 2)
    if rng.random() < flip:
        added, left = added[:, ::-1], size - left - new_w
        boxes[:, [0, 2]] = new_w - boxes[:, [2, 0]]
    return Region(added, (left, top), region.class_id, boxes)


def _fits(region: Region, example: Example) -> bool:
    """Whether its boxes stay in the square and lie on none of the same finding."""
    size = example.image.shape[0]
    new, old = region.boxes_xyxy_px + np.tile(region.corner_xy, 2), _pixels(example)
    if (area(clip_to_image(new, (size, size))) < _INSIDE * area(new)).any():
        return False
    smaller = np.minimum(area(new)[:, None], area(old)[None])
    same = region.class_id[:, None] == example.class_id[None]
    return not (same & (intersection(new, old) > _OVERLAP * smaller)).any()


def _added(region: Region, example: Example) -> Example:
    size, (left, top) = example.image.shape[0], region.corner_xy
    height, width = region.added.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, size), min(top + height, size)
    if x0 >= x1 or y0 >= y1:
        return example
    image = example.image.astype(np.float32)
    image[y0:y1, x0:x1] += region.added[y0 - top : y1 - top, x0 - left : x1 - left]
    pasted = clip_to_image(region.boxes_xyxy_px + np.tile(region.corner_xy, 2), (size, size))
    boxes = np.concatenate([example.boxes_cxcywh_rel, xyxy_to_cxcywh_rel(pasted, (size, size))])
    return replace(
        example,
        image=np.clip(np.rint(image), 0, 255).astype(np.uint8),
        class_id=np.concatenate([example.class_id, region.class_id]),
        boxes_cxcywh_rel=boxes.astype(np.float32),
        weights=np.concatenate([example.weights, np.ones(len(pasted), np.float32)]),
    )


def _pixels(example: Example) -> FloatArray:
    """The image's boxes `(n, 4)`, left, top, right, bottom in pixels of the square."""
    centre, half = example.boxes_cxcywh_rel[:, :2], example.boxes_cxcywh_rel[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * example.image.shape[0]
