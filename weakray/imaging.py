"""The one imaging path, torch-free: what a model was trained on is what it is served.

Decode → min–max → letterbox. Geometry comes back as a `Placement`, so that boxes travel both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from weakray.config import StrictModel
from weakray.detections import FloatArray
from weakray.errors import DataError

Image = npt.NDArray[np.uint8]  # (h, w) grey or (h, w, 3) RGB, 0…255


class InputSpec(StrictModel):
    """What a model sees: a square of `size_px`, grey or RGB, stretched to the full range or not."""

    size_px: int = 224
    channels: Literal[1, 3] = 1
    minmax: bool = True  # stretch each image to 0…255: exposure differs from film to film


@dataclass(frozen=True)
class Placement:
    """Where an image of `source_hw` went: x' = x · scale + left, y' = y · scale + top."""

    source_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    left_px: int
    top_px: int

    def forward(self, boxes_xyxy_px: FloatArray) -> FloatArray:
        """Boxes of the source image → boxes in the letterboxed one."""
        sx, sy = self.scale_xy
        shift = np.array([self.left_px, self.top_px, self.left_px, self.top_px])
        return np.asarray(np.asarray(boxes_xyxy_px, np.float64) * [sx, sy, sx, sy] + shift, np.float32)

    def back(self, boxes_xyxy_px: FloatArray) -> FloatArray:
        """Boxes in the letterboxed image → boxes of the source image, cut at its border."""
        (sx, sy), (height, width) = self.scale_xy, self.source_hw
        moved = np.asarray(boxes_xyxy_px, np.float64) - [self.left_px, self.top_px, self.left_px, self.top_px]
        return np.asarray(np.clip(moved / [sx, sy, sx, sy], 0, [width, height, width, height]), np.float32)

    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the letterboxed image that the source image covers (the rest is padding)."""
        (sx, sy), (height, width) = self.scale_xy, self.source_hw
        rows = slice(self.top_px, self.top_px + round(height * sy))
        return rows, slice(self.left_px, self.left_px + round(width * sx))


def read_image(path: Path) -> Image:
    """Decodes an 8-bit grey or colour file.

    Raises:
        DataError: if the file is missing or cannot be decoded.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: expected an image file, got {error.strerror or error}") from None
    return decode(content, str(path))


def decode(content: npt.NDArray[np.uint8] | bytes, name: str = "image") -> Image:
    """Decodes 8-bit PNG or JPEG bytes to grey `(h, w)` or RGB `(h, w, 3)`; grey stored as equal RGB stays RGB.

    Raises:
        DataError: if the bytes are no image, or not 8-bit grey or RGB.
    """
    array = np.frombuffer(content, np.uint8)
    image = cv2.imdecode(array, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION) if len(array) else None
    if image is None:
        raise DataError(f"{name}: expected a PNG or JPEG image, could not decode it ({len(array)} bytes)")
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(f"{name}: expected 8 bits a sample, got {image.dtype}; convert it (window it) to 8 bits first")
    if image.ndim == 3 and image.shape[2] == 4:
        image = image[..., :3]
    if image.ndim == 3 and image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)


def write_image(path: Path, image: Image) -> None:
    """Writes a PNG (fast compression). Not atomic: the folder that holds it is renamed or hashed by its stage."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, content = cv2.imencode(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DataError(f"{path}: could not encode an image of shape {image.shape}")
    path.write_bytes(content.tobytes())


def to_channels(image: Image, channels: Literal[1, 3]) -> Image:
    """Grey `(h, w)` for 1, RGB `(h, w, 3)` for 3; colour becomes grey by luma, grey becomes three equal planes."""
    if channels == 1 and image.ndim == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    if channels == 3 and image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image


def stretch(image: Image) -> Image:
    """Min–max to 0…255 over all channels together; a flat image comes back unchanged."""
    low, high = int(image.min()), int(image.max())
    if low == high or (low == 0 and high == 255):
        return image
    table = np.clip(np.rint((np.arange(256) - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    return np.asarray(table[image], np.uint8)


def letterbox(image: Image, size_px: int) -> tuple[Image, Placement]:
    """Scales the longer side to `size_px`, centres on a black square; aspect is kept up to rounding to whole pixels."""
    height, width = image.shape[:2]
    scale = size_px / max(height, width)
    new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = image if (new_h, new_w) == (height, width) else cv2.resize(image, (new_w, new_h), interpolation=how)
    left, top = (size_px - new_w) // 2, (size_px - new_h) // 2
    out = np.zeros((size_px, size_px, *image.shape[2:]), np.uint8)
    out[top : top + new_h, left : left + new_w] = resized
    return out, Placement((height, width), (new_w / width, new_h / height), left, top)


def prepare(image: Image, spec: InputSpec) -> tuple[Image, Placement]:
    """What a model sees of a decoded image: `(size, size)` or `(size, size, 3)` uint8, and where it went."""
    image = to_channels(image, spec.channels)
    return letterbox(stretch(image) if spec.minmax else image, spec.size_px)


def to_batch(images: list[Image]) -> npt.NDArray[np.float32]:
    """Prepared images → `(n, c, size, size)` float32 in [0, 1]."""
    stacked: npt.NDArray[Any] = np.stack([i[None] if i.ndim == 2 else i.transpose(2, 0, 1) for i in images])
    return stacked.astype(np.float32) / np.float32(255)
