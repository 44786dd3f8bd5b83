"""Figures of true boxes, as shares of their film: how large, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weakray.coco import BoxTruth

GRID = 48  # cells of a heat map along each side
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
FloatMatrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BoxFigures:
    """The boxes of one finding.

    Attributes:
        name: the finding.
        boxes: how many.
        images: on how many images.
        width: quantiles (`QUANTILES`) of the width, share of the film's, [0, 1].
        height: of the height.
        area: of the area.
        heat: `(GRID, GRID)`, share of the boxes that lie over a cell of the film, [0, 1].
    """

    name: str
    boxes: int
    images: int
    width: tuple[float, ...]
    height: tuple[float, ...]
    area: tuple[float, ...]
    heat: FloatMatrix


def box_figures(truth: BoxTruth, sizes_hw: Mapping[str, tuple[int, int]], names: Sequence[str]) -> list[BoxFigures]:
    """The figures of every finding that has a box.

    Args:
        truth: boxes in pixels of the stored image.
        sizes_hw: image_id → height and width.
        names: the findings, in class-id order.
    """
    found: list[list[FloatMatrix]] = [[] for _ in names]
    images = [0] * len(names)
    for image_id in sorted(truth.boxes):
        height, width = sizes_hw[image_id]
        boxes = truth.boxes[image_id]
        relative = boxes.boxes_xyxy_px.astype(np.float64) / (width, height, width, height)
        for class_id in sorted(set(boxes.class_id.tolist())):
            found[class_id].append(relative[boxes.class_id == class_id])
            images[class_id] += 1
    return [
        _figures(name, np.concatenate(parts), count)
        for name, parts, count in zip(names, found, images, strict=True)
        if parts
    ]


def _figures(name: str, boxes: FloatMatrix, images: int) -> BoxFigures:
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]

    def quantiles(values: FloatMatrix) -> tuple[float, ...]:
        return tuple(float(value) for value in np.quantile(values, QUANTILES))

    return BoxFigures(
        name, len(boxes), images, quantiles(width), quantiles(height), quantiles(width * height), heat_map(boxes)
    )


def heat_map(boxes: FloatMatrix, grid: int = GRID) -> FloatMatrix:
    """Boxes `(n, 4)`, shares of the film → share of them `(grid, grid)` that covers each cell, cut cells in part."""
    edges = np.linspace(0, 1, grid + 1)

    def covered(low: FloatMatrix, high: FloatMatrix) -> FloatMatrix:
        inside = np.minimum(high[:, None], edges[None, 1:]) - np.maximum(low[:, None], edges[None, :-1])
        return np.asarray(np.clip(inside, 0, None) * grid)  # (n, grid), [0, 1]

    rows, columns = covered(boxes[:, 1], boxes[:, 3]), covered(boxes[:, 0], boxes[:, 2])
    return np.asarray(rows.T @ columns / len(boxes))
