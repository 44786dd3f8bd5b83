"""The one imaging path, torch-free: what a model was trained on is what it is served.

Decode → channels → min–max → scale to fit → planes of the mode → pad to the square. Min–max looks at all pixels of the
film as stored. CLAHE, equalisation and contrast look at the film scaled to the model's size, before padding: they cost
the same whatever the film's resolution, and the padding, black in every plane, is in none of their histograms.
Geometry comes back as a `Placement`, so that boxes travel both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from weakray.config import StrictModel
from weakray.detections import FloatArray
from weakray.errors import DataError

Image = npt.NDArray[np.uint8]  # (h, w) grey or (h, w, 3) RGB, 0…255


Mode = Literal["grey", "clahe", "contrast"]

_CLAHE_TILES = 8  # a side
_CLAHE_TILE_PX = 16  # at least: OpenCV's clip limit counts pixels of a grey value in a tile, and rounds down
_CONTRAST_PERCENTILES = (2.0, 98.0)
_LIGHT_PERCENTILES = (0.5, 99.5)  # of a film of more than 8 bits
# What a derived mode settles: there the planes are the channels, and what is stretched is part of the mode.
_SETTLED: dict[str, dict[str, Any]] = {
    "clahe": {"channels": 3, "minmax": True},
    "contrast": {"channels": 3, "minmax": False},
}


class InputSpec(StrictModel):
    """What a model sees: a square of `size_px` with one or three channels.

    `grey` is the film as it is; with three channels a colour file keeps its colours and a grey one is repeated. The
    other modes make three planes of the grey film: `clahe` min–max, CLAHE of it with clip limit 2, and with 4
    (Zuiderveld 1994); `contrast` the raw film, its histogram equalised, and its 2nd…98th percentile stretched.

    Raises:
        ValidationError: if a mode is given channels or a min–max that contradict it.
    """

    size_px: int = Field(224, ge=1, description="side of the square that a model sees")
    mode: Mode = Field("grey", description="grey; clahe: min-max, CLAHE 2, CLAHE 4; contrast: raw, equalised, contrast")
    channels: Literal[1, 3] = Field(1, description="1 or 3 in mode grey; 3 in the others, which need not name it")
    minmax: bool = Field(True, description="stretch each film to 0…255; part of mode clahe, not of mode contrast")

    @model_validator(mode="before")
    @classmethod
    def _settled_by_mode(cls, given: Any) -> Any:
        settled = _SETTLED.get(str(given.get("mode"))) if isinstance(given, dict) else None
        if settled is None:
            return given
        for name, value in settled.items():
            came = given.get(name, value)
            if came != value:
                raise ValueError(f"mode {given['mode']} has {name} {_yaml(value)}, got {_yaml(came)}; leave it out")
        return given | settled


def _yaml(value: object) -> str:
    return str(value).lower()


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
    """Decodes a PNG or JPEG file; see `decode`.

    Raises:
        DataError: if the file is missing or cannot be decoded.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: expected an image file, got {error.strerror or error}") from None
    return decode(content, str(path))


def decode(content: npt.NDArray[np.uint8] | bytes, name: str = "image") -> Image:
    """Decodes PNG or JPEG bytes to 8-bit grey `(h, w)` or RGB `(h, w, 3)`; grey stored as equal RGB stays RGB.

    A grey PNG of 16 bits becomes one of 8 by `to_eight_bits`: that is how films without loss come out of an archive.

    Raises:
        DataError: if the bytes are no image, or colour of more than 8 bits.
    """
    array = np.frombuffer(content, np.uint8)
    try:
        image = cv2.imdecode(array, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION) if len(array) else None
    except cv2.error:  # on some damaged files OpenCV raises where on others it gives nothing
        image = None
    if image is None:
        raise DataError(f"{name}: expected a PNG or JPEG image, could not decode it ({len(array)} bytes)")
    if image.dtype == np.uint16 and image.ndim == 2:
        return to_eight_bits(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(f"{name}: expected 8 bits a sample, or 16 of grey, got {image.dtype} of {image.shape}")
    if image.ndim == 3 and image.shape[2] == 4:
        image = image[..., :3]
    if image.ndim == 3 and image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, np.uint8)


def to_eight_bits(light: npt.NDArray[np.uint16]) -> Image:
    """Stretches the 0.5th…99.5th percentile of a film of up to 16 bits to 0…255, cutting what lies outside.

    The percentiles are of the pixels above the film's least value, so that black borders and padding, of whatever
    width, do not move them. A flat film comes back black.
    """
    counts = np.bincount(light.ravel(), minlength=1 << 16)
    least = int(np.flatnonzero(counts)[0])
    below = np.cumsum(counts[least + 1 :])
    if not below[-1:].any():
        return np.zeros(light.shape, np.uint8)
    low, high = (least + 1 + int(np.searchsorted(below, p / 100 * below[-1])) for p in _LIGHT_PERCENTILES)
    if low == high:
        low -= 1
    return np.asarray(_ramp(low, high, 1 << 16)[light], np.uint8)


def write_image(path: Path, image: Image | npt.NDArray[np.uint16]) -> None:
    """Writes a PNG; see `encode_png`.

    Not atomic: the folder that holds it is renamed or hashed by its stage.
    """
    path.write_bytes(encode_png(image))


def encode_png(image: Image | npt.NDArray[np.uint16]) -> bytes:
    """The bytes of a PNG of 8 or 16 bits, grey `(h, w)` or RGB `(h, w, 3)` (fast compression)."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, content = cv2.imencode(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DataError(f"could not encode an image of shape {image.shape} as PNG")
    return bytes(content.tobytes())


def to_channels(image: Image, channels: Literal[1, 3]) -> Image:
    """Grey `(h, w)` for 1, RGB `(h, w, 3)` for 3; colour becomes grey by luma, grey becomes three equal planes."""
    if channels == 1 and image.ndim == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    if channels == 3 and image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return image


def stretch(image: Image) -> Image:
    """Min–max to 0…255 over all channels together; a flat image comes back unchanged."""
    low, high = int(image.min()), int(image.max())
    if low == high or (low == 0 and high == 255):
        return image
    return np.asarray(cv2.LUT(image, _ramp(low, high)), np.uint8)


def _ramp(low: float, high: float, count: int = 256) -> Image:
    """The table `(count,)` that takes `low` to 0 and `high` to 255."""
    table = np.clip(np.rint((np.arange(count) - low) * (255 / (high - low))), 0, 255)
    return np.asarray(table, np.uint8)


def equalise(image: Image) -> Image:
    """Histogram equalisation of a grey image; a flat one comes back unchanged."""
    return image if image.min() == image.max() else np.asarray(cv2.equalizeHist(image), np.uint8)


def clahe(image: Image, clip_limit: float) -> Image:
    """Contrast-limited adaptive histogram equalisation of a grey image; a flat one comes back unchanged.

    On 8 × 8 tiles, fewer where a tile would be narrower than 16 px.
    """
    if image.min() == image.max():
        return image
    down, across = (min(_CLAHE_TILES, max(1, side // _CLAHE_TILE_PX)) for side in image.shape)
    return np.asarray(cv2.createCLAHE(clip_limit, (across, down)).apply(image), np.uint8)


def stretch_contrast(image: Image) -> Image:
    """Stretches the 2nd…98th percentile of a grey image to 0…255, cutting what lies outside."""
    low, high = np.percentile(image, _CONTRAST_PERCENTILES)
    return image if low == high else np.asarray(cv2.LUT(image, _ramp(low, high)), np.uint8)


def planes(image: Image, mode: Mode) -> dict[str, Image]:
    """The named planes `(h, w)` that a mode makes of a grey image; mode grey leaves it whole, whatever its channels."""
    match mode:
        case "grey":
            return {"grey": image}
        case "clahe":
            return {"min–max": image, "CLAHE 2": clahe(image, 2.0), "CLAHE 4": clahe(image, 4.0)}
        case "contrast":
            return {"raw": image, "equalised": equalise(image), "contrast": stretch_contrast(image)}


def scale_to_fit(image: Image, size_px: int) -> Image:
    """Scales the longer side to `size_px`; aspect is kept up to rounding to whole pixels."""
    height, width = image.shape[:2]
    scale = size_px / max(height, width)
    new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
    if (new_h, new_w) == (height, width):
        return image
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (new_w, new_h), interpolation=how), np.uint8)


def pad_to_square(image: Image, size_px: int) -> tuple[Image, int, int]:
    """Centres an image on a black square; returns it with the left and top margin in pixels."""
    height, width = image.shape[:2]
    left, top = (size_px - width) // 2, (size_px - height) // 2
    out = np.zeros((size_px, size_px, *image.shape[2:]), np.uint8)
    out[top : top + height, left : left + width] = image
    return out, left, top


def letterbox(image: Image, size_px: int, mode: Mode = "grey") -> tuple[Image, Placement]:
    """Scales the longer side to `size_px`, makes the planes of the mode, centres them on a black square."""
    (height, width), scaled = image.shape[:2], scale_to_fit(image, size_px)
    made = list(planes(scaled, mode).values())
    out, left, top = pad_to_square(made[0] if mode == "grey" else np.stack(made, axis=2), size_px)
    scale_xy = (scaled.shape[1] / width, scaled.shape[0] / height)
    return out, Placement((height, width), scale_xy, left, top)


def prepare(image: Image, spec: InputSpec) -> tuple[Image, Placement]:
    """What a model sees of a decoded image: `(size, size)` or `(size, size, 3)` uint8, and where it went."""
    if image.ndim == 3:
        image = to_channels(image, spec.channels if spec.mode == "grey" else 1)
    seen, placement = letterbox(stretch(image) if spec.minmax else image, spec.size_px, spec.mode)
    # A grey film is repeated last: until then it is a third of the work, and each plane would go the same way.
    return to_channels(seen, spec.channels), placement


def to_batch(images: Sequence[Image]) -> npt.NDArray[np.float32]:
    """Prepared images → `(n, c, size, size)` float32 in [0, 1], in one copy; in memory, channels stand last."""
    first = images[0].shape
    batch = np.empty((len(images), *first[:2], *(first[2:] or (1,))), np.float32)
    for image, out in zip(images, batch, strict=True):
        np.divide(image if image.ndim == 3 else image[..., None], np.float32(255), out=out)
    return batch.transpose(0, 3, 1, 2)
