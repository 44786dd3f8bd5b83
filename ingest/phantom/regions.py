"""What a drawn finding hands back, and boxes around masks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from ingest.phantom.canvas import Field, Mask

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open

_SMALLEST_SIDE_PX = 4


@dataclass(frozen=True)
class Effect:
    """A finding on a film.

    Attributes:
        added: attenuation it adds, `(h, w)`; negative where it lets more through.
        boxes: around each of its separate parts; empty when nothing of it lies on the film.
        vessels_left: share of the lung vessels still seen, `(h, w)` in [0, 1]; None when all are.
    """

    added: Field
    boxes: tuple[Box, ...]
    vessels_left: Field | None = None


def box_around(mask: Mask, above: int = 64) -> tuple[Box, ...]:
    """The box of all pixels above a value: one box, or none where less than 4 pixels wide or high."""
    x, y, width, height = cv2.boundingRect((mask > above).astype("uint8"))
    if min(width, height) < _SMALLEST_SIDE_PX:
        return ()
    return ((x, y, x + width, y + height),)


def merge_nested(boxes: list[Box], shared: float = 0.6) -> list[Box]:
    """Joins boxes of one class that lie largely in one another.

    Two boxes become the box of both when their overlap is at least `shared` of the smaller one's area, again and
    again until no such pair is left. Order does not matter.
    """
    merged = sorted(set(boxes))
    changed = True
    while changed:
        changed = False
        for i in range(len(merged)):
            for j in range(i + 1, len(merged)):
                a, b = merged[i], merged[j]
                if _overlap(a, b) >= shared * min(_area(a), _area(b)):
                    joined = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
                    merged = sorted({*merged[:i], *merged[i + 1 : j], *merged[j + 1 :], joined})
                    changed = True
                    break
            if changed:
                break
    return merged


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Box, b: Box) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
