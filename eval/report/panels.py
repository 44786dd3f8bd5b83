"""The four panels of a gallery case: image with true boxes, map over the image, pseudo-boxes, detector boxes.

Image and overlay are small JPEGs; boxes and scores are drawn over them as vectors, so they stay sharp and readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from eval.report.content import GalleryCase
from eval.report.gallery import top_iou
from eval.report.wording import figure
from weakray.detections import Detections, FloatArray
from weakray.errors import DataError
from weakray.imaging import Image, Placement, to_channels
from weakray.pages.pictures import jpeg_uri

SIDE_PX = 448  # longer side of a panel's JPEG
_LETTER_PX, _LINE_PX = 11.5, 22.0  # what a letter and a line of text need, in px of the drawing
_SHOWN = 5  # boxes drawn a panel; the rest are counted in words
_FAINT = 0.05  # so are boxes scored less than this, unless they are the best


Spot = tuple[float, float, float, float]  # x0, y0, x1, y1 in px of the drawing


@dataclass(frozen=True)
class Rect:
    """A box in px of the drawing, with its text (score or name, may be empty) and where the text's baseline starts."""

    x: float
    y: float
    width: float
    height: float
    text: str
    text_x: float
    text_y: float


@dataclass(frozen=True)
class Panel:
    """One picture of a case."""

    kind: str  # truth | map | pseudo | detector: the colour its boxes have
    title: str
    told: str  # what it says in words, also for those who do not see it
    own: list[Rect]
    truth: list[Rect]  # thin, for comparison
    other: list[Rect]  # true boxes of other findings
    overlay: str | None  # data URI of the map over the image, None where the panel shows the image


@dataclass(frozen=True)
class CaseView:
    """A case ready to draw: everything in a `width` × `height` drawing, the image once."""

    anchor: str
    image_id: str
    kind: str
    caption: str
    width: int
    height: int
    uri: str
    panels: list[Panel]


def case_view(case: GalleryCase, findings: Sequence[str], number: int) -> CaseView:
    """Draws a case.

    Args:
        case: the case.
        findings: names of all findings, in class-id order.
        number: position in the gallery; names the drawing inside the page.

    Raises:
        DataError: if the case's finding is not among `findings`, or a box is of none of them.
    """
    if case.finding not in findings:
        raise DataError(f"case {case.image_id!r}: unknown finding {case.finding!r}; expected one of {list(findings)}")
    highest = max(int(boxes.class_id.max(initial=0)) for boxes in (case.truth, case.pseudo, case.detector))
    if highest >= len(findings):
        raise DataError(f"case {case.image_id!r}: expected class ids below {len(findings)}, got {highest}")
    class_id = list(findings).index(case.finding)
    scale = min(1.0, SIDE_PX / max(case.image.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (case.image.shape[1], case.image.shape[0]))
    small = cv2.resize(case.image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else case.image
    # The drawing is measured in JPEG pixels times `zoom`, so that lines and letters are as thick on a small image.
    zoom = SIDE_PX / max(width, height)
    size = (width * zoom, height * zoom)
    space_xy = (size[0] / case.image.shape[1], size[1] / case.image.shape[0])
    true = case.truth.of_class(class_id)
    others = case.truth.where(case.truth.class_id != class_id)
    thin = _rects(true, [""] * len(true), space_xy, size)
    named = _rects(others, [findings[i] for i in others.class_id.tolist()], space_xy, size)
    map_uri, map_told = _overlay(case, small)
    panels = [
        Panel("truth", "True boxes", _count(len(true)), thin, [], named, None),
        Panel("map", "Map", map_told, [], thin, [], map_uri),
    ]
    for kind, title, boxes in (("pseudo", "Pseudo-boxes", case.pseudo), ("detector", "Detector", case.detector)):
        found = boxes.of_class(class_id).best_first()
        shown = _drawn(found)
        own = _rects(shown, [figure(score) for score in shown.score.tolist()], space_xy, size)
        panels.append(Panel(kind, title, _told(found, true), own, thin, [], None))
    return CaseView(
        anchor=f"image-{number}",
        image_id=case.image_id,
        kind=case.kind,
        caption=case.caption,
        width=round(size[0]),
        height=round(size[1]),
        uri=jpeg_uri(np.asarray(small, np.uint8)),
        panels=panels,
    )


def heat_on_image(heat: FloatArray, placement: Placement, size_hw: tuple[int, int]) -> FloatArray:
    """The part of a map that lies over the image, resized to it: undoes the letterbox.

    Args:
        heat: `(h', w')` over the whole letterboxed square.
        placement: where the image lies in it.
        size_hw: height and width of the result, of the image's aspect.

    Returns:
        `(h, w)` float32, bilinear between the map's cell centres.
    """
    rows, columns = placement.inner()
    square = max(rows.stop - rows.start, columns.stop - columns.start)  # letterbox fills it along the longer side
    (height, width), (source_h, source_w) = size_hw, placement.source_hw
    x = ((np.arange(width) + 0.5) * source_w / width * placement.scale_xy[0] + placement.left_px) / square
    y = ((np.arange(height) + 0.5) * source_h / height * placement.scale_xy[1] + placement.top_px) / square
    map_x = np.broadcast_to(x * heat.shape[1] - 0.5, size_hw).astype(np.float32)
    map_y = np.broadcast_to((y * heat.shape[0] - 0.5)[:, None], size_hw).astype(np.float32)
    moved = cv2.remap(heat.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)


def _overlay(case: GalleryCase, small: npt.NDArray[np.uint8]) -> tuple[str | None, str]:
    """Data URI of the map over the image, and what there is to say about it."""
    if case.heat is None or case.placement is None:
        return None, "no map kept"
    if not np.isfinite(case.heat).all():
        return None, "the map holds NaN: not drawn"
    heat = heat_on_image(case.heat, case.placement, (small.shape[0], small.shape[1]))
    peak = float(heat.max())
    if peak <= 0:
        return None, "the map is empty: nowhere above 0"
    return jpeg_uri(glowing(small, heat / peak)), f"peak {peak:.3g}"


def glowing(image: Image, share: FloatArray) -> Image:
    """RGB `(h, w, 3)`: a map `(h, w)`, cut to [0, 1], over an image; where it says nothing, the image stays."""
    share = np.clip(share, 0, 1)
    coloured = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = (0.75 * share**0.8)[..., None]
    blended = to_channels(image, 3) * (1 - weight) + coloured * weight
    return np.asarray(np.rint(blended), np.uint8)


def _rects(
    found: Detections, texts: Sequence[str], space_xy: tuple[float, float], size: tuple[float, float]
) -> list[Rect]:
    """Boxes of the image → rectangles of a drawing of `size` (width, height), each with its text where room is."""
    sx, sy = space_xy
    drawn: list[Rect] = []
    taken: list[Spot] = []
    for (x0, y0, x1, y1), text in zip(found.boxes_xyxy_px.tolist(), texts, strict=True):
        left, top, right, bottom = x0 * sx, y0 * sy, x1 * sx, y1 * sy
        spot = _spot((left, top, right, bottom), _LETTER_PX * len(text), size, taken)
        taken.append(spot)
        drawn.append(
            Rect(
                x=round(left, 1),
                y=round(top, 1),
                width=round(right - left, 1),
                height=round(bottom - top, 1),
                text=text,
                text_x=round(spot[0], 1),
                text_y=round(spot[1] + _LINE_PX - 4, 1),
            )
        )
    return drawn


def _spot(box: Spot, text_px: float, size: tuple[float, float], taken: Sequence[Spot]) -> Spot:
    """Where a box's text stands, `(x0, y0, x1, y1)`: the first place around its corners that is free and inside."""
    left, top, right, bottom = box
    starts = (left, right - text_px)
    lines = (top - _LINE_PX, bottom + 1, top + 1)
    places = [(x, y, x + text_px, y + _LINE_PX) for y in lines for x in starts]
    for place in places:
        inside = place[0] >= 0 and place[1] >= 0 and place[2] <= size[0] and place[3] <= size[1]
        if inside and not any(_touch(place, other) for other in taken):
            return place
    x, y = min(max(left, 0.0), size[0] - text_px), min(max(top - _LINE_PX, 0.0), size[1] - _LINE_PX)
    return x, y, x + text_px, y + _LINE_PX


def _touch(a: Spot, b: Spot) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _count(boxes: int) -> str:
    return "none" if boxes == 0 else "1 box" if boxes == 1 else f"{boxes} boxes"


def _told(found: Detections, true: Detections) -> str:
    """What a panel of scored boxes says in words; `found` is sorted, best first."""
    if not len(found):
        return "no box"
    said = f"score {figure(float(found.score[0]))}"
    if len(true):
        said += f", IoU {figure(top_iou(found, true))}"
    drawn = len(_drawn(found))
    if len(found) > drawn:
        said += f"; {len(found) - drawn} more at {figure(float(found.score[drawn]))} or less not drawn"
    return said


def _drawn(found: Detections) -> Detections:
    """The boxes that a panel draws, of boxes sorted best first."""
    strong = found.where(found.score >= _FAINT)
    return (strong if len(strong) else found.best_first(1)).best_first(_SHOWN)
