"""Makers of small images and of data sets in the files of NIH and COCO."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

Maker = Callable[[int], bytes]


def noise(seed: int, height: int = 24, width: int = 36, channels: int = 0) -> Any:
    """A seeded image of noise, `(height, width)` or with channels."""
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png16(seed: int) -> bytes:
    return bytes(cv2.imencode(".png", noise(seed, channels=3).astype(np.uint16) * 257)[1])


def _animated(seed: int) -> bytes:
    frames = [Image.fromarray(noise(seed + at)) for at in range(3)]
    return encode(frames[0], "PNG", save_all=True, append_images=frames[1:])


def _rgba(seed: int, alpha: int) -> bytes:
    rgba = noise(seed, channels=4)
    rgba[..., 3] = 255
    rgba[5, 7, 3] = alpha
    return encode(Image.fromarray(rgba), "PNG")


# reason → (extension, bytes of a file that must be rejected for it)
BROKEN: dict[str, tuple[str, Maker]] = {
    "zero_byte": (".png", lambda _: b""),
    "truncated": (".jpg", lambda seed: encode(Image.fromarray(noise(seed, 64, 96)), "JPEG")[:-400]),
    "wrong_extension": (".png", lambda seed: encode(Image.fromarray(noise(seed)), "JPEG")),
    "sixteen_bit": (".png", _png16),
    "palette": (".png", lambda seed: encode(Image.fromarray(noise(seed)).convert("P"), "PNG")),
    "cmyk": (".jpg", lambda seed: encode(Image.fromarray(noise(seed, channels=3)).convert("CMYK"), "JPEG")),
    "alpha": (".png", lambda seed: _rgba(seed, 128)),
    "animated": (".png", _animated),
    "too_small": (".png", lambda seed: encode(Image.fromarray(noise(seed, 1, 1)), "PNG")),
    "unsupported_format": (".bmp", lambda seed: encode(Image.fromarray(noise(seed)), "BMP")),
    "unreadable": (".png", lambda _: b"no image at all"),
}
SOUND: dict[str, tuple[str, Maker]] = {
    "grey_png": (".png", lambda seed: encode(Image.fromarray(noise(seed)), "PNG")),
    "colour_jpg": (".jpg", lambda seed: encode(Image.fromarray(noise(seed, channels=3)), "JPEG")),
    "deep_grey_png": (".png", lambda seed: encode(Image.fromarray(noise(seed).astype(np.uint16) * 257), "PNG")),
    "opaque_alpha": (".png", lambda seed: _rgba(seed, 255)),
    "capital_extension": (".JPG", lambda seed: encode(Image.fromarray(noise(seed)), "JPEG")),
}


@dataclass(frozen=True)
class Files:
    """Where a made data set lies."""

    root: Path
    images: Path
    tables: dict[str, Path]


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NIH_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def write_rows(path: Path, header: str, rows: Sequence[Sequence[Any]]) -> None:
    """A CSV file whose header is written as it stands."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    path.write_text(f"{header}\n{buffer.getvalue()}", encoding="utf-8")


@pytest.fixture
def make_nih() -> Callable[..., Files]:
    """Writes a data set in NIH's files: (file name, findings, patient) rows and (file name, finding, xywh) boxes."""

    def make(
        root: Path,
        entries: Sequence[tuple[str, str, str]],
        boxes: Sequence[tuple[str, str, Sequence[Any]]],
        *,
        header: str = NIH_HEADER,
        box_header: str = NIH_BOX_HEADER,
        size_hw: tuple[int, int] = (24, 36),
    ) -> Files:
        images = root / "images"
        images.mkdir(parents=True)
        for seed, (name, _, _) in enumerate(entries):
            if name:
                (images / name).write_bytes(encode(Image.fromarray(noise(seed, *size_hw)), "PNG"))
        rows = [(name, labels, 0, patient, 50, "F", "PA", 2000, 2500, 0.1, 0.1) for name, labels, patient in entries]
        write_rows(root / "entries.csv", header, rows)
        write_rows(root / "boxes.csv", box_header, [(name, label, *xywh, "", "", "") for name, label, xywh in boxes])
        return Files(root, images, {"labels": root / "entries.csv", "boxes": root / "boxes.csv"})

    return make


@pytest.fixture
def make_coco() -> Callable[..., Files]:
    """Writes a COCO set; `count` images of 24 × 36 px, image i (from 0) with a box of category i % 3 + 5."""

    def make(root: Path, count: int, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Files:
        images = root / "images"
        (images / "deep").mkdir(parents=True)
        content: dict[str, Any] = {
            "images": [],
            "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}, {"id": 7, "name": "hen"}],
            "annotations": [],
        }
        for at in range(count):
            name = f"deep/{at:03d}.png"
            (images / name).write_bytes(encode(Image.fromarray(noise(at)), "PNG"))
            content["images"].append({"id": at + 1, "file_name": name, "height": 24, "width": 36})
            content["annotations"].append(
                {
                    "id": at + 1,
                    "image_id": at + 1,
                    "category_id": at % 3 + 5,
                    "bbox": [4, 3, 10 + at % 7, 8],
                    "iscrowd": 0,
                }
            )
        change(content)
        (root / "instances.json").write_text(json.dumps(content), encoding="utf-8")
        return Files(root, images, {"annotations": root / "instances.json"})

    return make


@pytest.fixture
def broken() -> dict[str, tuple[str, Maker]]:
    """Reason → (extension, maker of a file rejected for it)."""
    return BROKEN


@pytest.fixture
def sound() -> dict[str, tuple[str, Maker]]:
    """Kind → (extension, maker of a file that is taken)."""
    return SOUND
