"""A film's pixel grid and the warped thorax coordinates that shapes are drawn in.

Thorax coordinates: x runs from -1 to 1 over the chest, with the patient's right side at negative x (the left of
the film); y runs from 0 at the neck to about 0.85 at the costophrenic angles. One unit of y is two units of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # (n, 2), x and y, thorax coordinates unless a name ends in _px
Mask = npt.NDArray[np.uint8]  # (h, w), 0..255
Field = npt.NDArray[np.float32]  # (h, w)

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Pose:
    """How one exposure of a patient lies on the film: zoom, shift, rotation and a smooth warp."""

    zoom: float  # 1 = the chest just fills the film
    shift_xy: tuple[float, float]  # thorax units
    rotation_rad: float
    waves: Points  # (k, 5): amplitude x, amplitude y, frequency x, frequency y, phase


def draw_pose(rng: np.random.Generator, spread: float) -> Pose:
    """A random pose; `spread` 1 is what radiographers let through, 0 a perfect position."""
    waves = np.stack(
        [
            rng.normal(0, 0.016 * spread, 4),
            rng.normal(0, 0.008 * spread, 4),
            rng.uniform(1.0, 4.0, 4),
            rng.uniform(2.0, 8.0, 4),
            rng.uniform(0, 2 * np.pi, 4),
        ],
        axis=1,
    )
    return Pose(
        zoom=float(np.clip(rng.normal(1.10, 0.075 * spread), 0.88, 1.32)),
        shift_xy=(float(rng.normal(0, 0.055 * spread)), float(rng.normal(0, 0.022 * spread))),
        rotation_rad=float(rng.normal(0, 0.045 * spread)),
        waves=waves,
    )


class Canvas:
    """Draws thorax-coordinate shapes as masks of one film.

    Args:
        size_hw: height and width of the film in pixels.
        pose: how the patient lies on it.
    """

    def __init__(self, size_hw: tuple[int, int], pose: Pose) -> None:
        height, width = size_hw
        self.size_hw = size_hw
        self.pose = pose
        stretch = (height / width) ** 0.5
        self.px_x = pose.zoom * width / 2.22 * min(1.0, stretch)  # pixels a unit of x
        self.px_y = pose.zoom * height / 1.08 / max(1.0, stretch)  # pixels a unit of y

    def to_px(self, points: Points) -> Points:
        """Thorax coordinates `(n, 2)` to pixels `(n, 2)`, outside the film where they lie outside."""
        x, y = points[:, 0] + self.pose.shift_xy[0], points[:, 1] + self.pose.shift_xy[1]
        wave = self.pose.waves
        angle = points @ wave[:, 2:4].T + wave[:, 4]  # (n, k)
        swing = np.sin(angle)
        x = x + swing @ wave[:, 0]
        y = y + swing @ wave[:, 1] - 0.46
        sin, cos = np.sin(self.pose.rotation_rad), np.cos(self.pose.rotation_rad)
        x, y = x * cos - 2 * y * sin, x * sin / 2 + y * cos
        height, width = self.size_hw
        return np.stack([width / 2 + x * self.px_x, height * 0.47 + y * self.px_y], axis=1)

    def blank(self) -> Mask:
        """An empty mask of the film's size."""
        return np.zeros(self.size_hw, np.uint8)

    def fill(self, *polygons: Points) -> Mask:
        """The union of closed polygons as an anti-aliased mask."""
        mask = self.blank()
        for polygon in polygons:
            cv2.fillPoly(mask, [_fixed(self.to_px(polygon))], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask

    def stroke(self, mask: Mask, curves: Sequence[Points], width: float, value: int = 255) -> Mask:
        """Draws open curves of `width` (units of x; at least one pixel) onto `mask`, and returns it."""
        if len(curves):
            joined = _fixed(self.to_px(np.concatenate(curves)))
            ends = np.cumsum([len(curve) for curve in curves]).tolist()
            lines = [joined[end - len(curve) : end] for curve, end in zip(curves, ends, strict=True)]
            thickness = max(1, round(width * self.px_x))
            cv2.polylines(mask, lines, False, value, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask

    def soften(self, mask: Mask, sigma: float) -> Field:
        """The mask blurred by `sigma` (units of x), as float in [0, 1]; wide blurs work on a smaller grid."""
        return blur(mask, sigma * self.px_x).astype(np.float32) * np.float32(1 / 255)

    def noise(self, rng: np.random.Generator, grain: float) -> Field:
        """Smooth noise of unit variance at its nodes, whose grain is `grain` units of x."""
        height, width = self.size_hw
        step = max(1.0, grain * self.px_x)
        grid = rng.standard_normal((int(height / step) + 3, int(width / step) + 3), dtype=np.float32)
        return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))


def blur(mask: Mask, sigma_px: float) -> Mask:
    """Gaussian blur of a mask with a standard deviation in pixels; below 0.3 nothing is done."""
    if sigma_px < 0.3:
        return mask
    if sigma_px < 3:
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE))
    factor = int(sigma_px / 1.5)
    height, width = mask.shape
    small = cv2.resize(mask, (-(-width // factor), -(-height // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / factor, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _fixed(points_px: Points) -> npt.NDArray[np.int32]:
    limited = np.clip(points_px, -2000, 4000) * (1 << _SUBPIXEL_BITS)
    return np.rint(limited).astype(np.int32).reshape(-1, 1, 2)
