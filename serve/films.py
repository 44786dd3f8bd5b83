"""An upload → a film, with every limit checked before a pixel is decoded, and nothing of its header kept."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from serve.answers import Source
from serve.refusals import Refusal
from serve.settings import LimitConfig
from serve.uploads import Upload
from weakray.errors import DataError, LimitError
from weakray.film import Kind, kind_of
from weakray.film import read_film as decode_film
from weakray.imaging import Image
from weakray.limits import FilmLimits

MEDIA_TYPES: dict[Kind, str] = {
    "png": "image/png",
    "png16": "image/png",
    "jpeg": "image/jpeg",
    "dicom": "application/dicom",
}


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


def film_limits(limits: LimitConfig) -> FilmLimits:
    """The server's limits in the decoders' words."""
    return FilmLimits(
        max_bytes=limits.image_bytes, max_side=limits.side_px, max_pixels=limits.pixels, max_frames=limits.frames
    )


def read_film(upload: Upload, index: int, limits: FilmLimits) -> Film:
    """Decodes an upload.

    Args:
        upload: the file.
        index: which image of the request it is, for messages.
        limits: what is taken.

    Raises:
        Refusal: if it is of no known kind, of another than it says, too large, or broken.
    """
    name, content = f"image {index}", bytes(upload.content)
    kind = kind_of(content)
    if kind is None:
        raise Refusal("unsupported_type", f"{name}: expected the bytes of a PNG, JPEG or DICOM file, got none of them")
    if upload.declared not in (MEDIA_TYPES[kind], "application/octet-stream"):
        raise Refusal("unsupported_type", f"{name}: its type says {upload.declared}, its bytes are {MEDIA_TYPES[kind]}")
    try:
        film = decode_film(content, name, limits)
    except LimitError as error:
        raise Refusal("too_large", str(error)) from None
    except DataError as error:
        raise Refusal("unreadable", str(error)) from None
    except cv2.error:  # on some damaged files OpenCV raises where on others it gives nothing
        raise Refusal("unreadable", f"{name}: it could not be decoded; save it again") from None
    made = () if kind in ("png", "jpeg") else (film.rule,)
    return Film(film.image, film.kind, (*made, *film.notes))
