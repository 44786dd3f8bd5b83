"""Seeded damage: cut, flipped, lengthened, shuffled and lying files of every kind that is read."""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.dicom.makers import LOSSLESS, content, dataset, light


@cache
def sound_files() -> dict[str, bytes]:
    """A file of every kind."""
    grey = light(1, bits=8).astype(np.uint8)
    frames = np.stack([light(seed) for seed in range(3)])
    colour = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    window: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 3000}
    files = {syntax: content(dataset(light(2), **window), syntax) for syntax in LOSSLESS}
    files |= {f"frames_{syntax}": content(dataset(frames), syntax) for syntax in ("explicit", "jpeg_2000", "rle")}
    files |= {
        f"colour_{syntax}": content(dataset(colour, 8), syntax) for syntax in ("explicit", "jpeg_2000", "jpeg_ls")
    }
    files["jpeg_in_dicom"] = content(dataset(grey, 8), "jpeg")
    images: dict[str, Any] = {"png": grey, "jpeg": grey, "png16": light(1), "colour_png": colour}
    for kind, image in images.items():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG" if kind == "jpeg" else "PNG")
        files[kind] = buffer.getvalue()
    return files


def damaged(seed: int) -> tuple[str, bytes]:
    """A damaged file: which kind, and its bytes."""
    rng = np.random.default_rng(seed)
    files = sound_files()
    kind = sorted(files)[seed % len(files)]
    made = bytearray(files[kind])
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, max(1, len(made))))
        match int(rng.integers(0, 8)):
            case 0:
                del made[at:]
            case 1:
                for place in rng.integers(0, max(1, len(made)), 8):
                    made[place : place + 1] = bytes([int(rng.integers(0, 256))])
            case 2:
                del made[at : at + int(rng.integers(1, 64))]
            case 3:
                made[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 64)), dtype=np.uint8))
            case 4:
                made[at : at + 4] = struct.pack("<I", int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE])))
            case 5:
                made[at:at] = made[at : at + 2000]
            case 6:  # a number of the header, where there is one
                tag = struct.pack("<HH", 0x28, int(rng.choice([0x2, 0x8, 0x10, 0x11, 0x100, 0x101, 0x103])))
                place = made.find(tag)
                if place >= 0:
                    made[place + 8 : place + 10] = struct.pack("<H", int(rng.choice([0, 1, 3, 9, 16, 32, 4000, 65535])))
            case _:  # within the pixels, behind every header
                place = len(made) - int(rng.integers(1, max(2, len(made) // 2)))
                made[place : place + 1] = bytes([int(rng.integers(0, 256))])
    return kind, bytes(made)
