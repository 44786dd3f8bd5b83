"""An upload's bytes → a film, with every limit checked before a pixel is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from serve.answers import Source
from serve.refusals import Refusal
from serve.settings import LimitConfig
from serve.uploads import Upload
from weakray.errors import DataError
from weakray.imaging import Image, decode

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True, eq=False)
class Film:
    """A decoded film.

    Attributes:
        image: grey `(h, w)` or RGB `(h, w, 3)`, uint8.
        source: the kind of file it came in.
        notes: what was done to it; nothing that names a patient.
    """

    image: Image
    source: Source
    notes: tuple[str, ...] = ()


def sniff(content: bytes) -> str | None:
    """The media type that a file's first bytes tell; None for what is no film."""
    if content.startswith(_PNG):
        return "image/png"
    if content.startswith(_JPEG):
        return "image/jpeg"
    return "application/dicom" if content[128:132] == b"DICM" else None


def read_film(upload: Upload, index: int, limits: LimitConfig) -> Film:
    """Decodes an upload.

    Args:
        upload: the file.
        index: which image of the request it is, for messages.
        limits: what is taken.

    Raises:
        Refusal: if it is of no known kind, of another than it says, too large, or broken.
    """
    content = bytes(upload.content)
    kind = sniff(content)
    if kind is None:
        raise Refusal("unsupported_type", f"image {index}: expected PNG, JPEG or DICOM bytes, got something else")
    if upload.declared not in (kind, "application/octet-stream"):
        raise Refusal("unsupported_type", f"image {index}: its type says {upload.declared}, its bytes are {kind}")
    if kind == "image/png":
        width, height = struct.unpack(">II", content[16:24]) if len(content) >= 24 else (0, 0)
    else:
        width, height = _jpeg_size(content)
    if max(width, height) > limits.side_px or width * height > limits.pixels:
        raise Refusal(
            "too_large",
            f"image {index}: expected at most {limits.side_px} px a side and {limits.pixels} pixels, "
            f"got {width} x {height}",
        )
    try:
        image = decode(content, f"image {index}")
    except DataError as error:
        raise Refusal("unreadable", str(error)) from None
    return Film(image, "png" if kind == "image/png" else "jpeg")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return 0, 0
