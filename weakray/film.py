"""One way in for every kind of film: PNG, JPEG, PNG of 16 bits, DICOM → 8 bits, with what was done to it.

What `serve` is sent and what `ingest` is given pass through here; sizes are looked at before anything is decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from weakray.dicom.codestream import frame_size_hw
from weakray.dicom.film import decode_dicom
from weakray.dicom.grey import Rule
from weakray.dicom.header import DicomFacts
from weakray.dicom.reading import is_dicom
from weakray.errors import DataError
from weakray.imaging import Image, decode
from weakray.limits import FilmLimits
from weakray.png_chunks import PNG_SIGNATURE, png_chunks

Kind = Literal["png", "jpeg", "png16", "dicom"]

_PNG_HEADER = 33  # signature and IHDR
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Film:
    """A decoded film.

    Attributes:
        image: 8 bits, grey `(h, w)` or RGB `(h, w, 3)`, 0…255.
        kind: what the bytes were.
        rule: how the 8 bits were made, in words.
        notes: what a person should know, e.g. which frame of several this is.
        facts: of a DICOM header, what an allow-list lets through; None for the other kinds.
    """

    image: Image
    kind: Kind
    rule: str
    notes: tuple[str, ...] = ()
    facts: DicomFacts | None = None


def kind_of(content: bytes) -> Kind | None:
    """What bytes are, by how they begin; None for none of the kinds that are read."""
    if content.startswith(PNG_SIGNATURE):
        return "png16" if content[24:25] == b"\x10" else "png"
    if content.startswith(_JPEG):
        return "jpeg"
    return "dicom" if is_dicom(content) else None


def read_film(
    content: bytes,
    name: str = "film",
    limits: FilmLimits | None = None,
    *,
    rule: Rule = "voi",
    frame: int | None = None,
) -> Film:
    """Decodes a film of any kind.

    Args:
        content: the whole file.
        name: how errors name it.
        limits: sizes above which it is refused; None: the defaults.
        rule: how 8 bits are made of a DICOM film; a PNG of 16 bits has nothing but its percentiles.
        frame: which frame of a DICOM file, from 1; None the representative one, else the first.

    Raises:
        LimitError: if it is larger than its limits; nothing was decoded then.
        DataError: if it is of no kind that is read, or damaged.
    """
    limits = limits or FilmLimits()
    limits.check_bytes(len(content), name)
    kind = kind_of(content)
    if kind is None:
        raise DataError(f"{name}: expected a PNG, JPEG or DICOM file, got none of them ({len(content)} bytes)")
    if kind == "dicom":
        film = decode_dicom(content, name, limits, rule=rule, frame=frame)
        return Film(film.image, kind, film.rule, film.notes, film.facts)
    size_hw = frame_size_hw(content) if kind == "jpeg" else _png_size_hw(content, name)
    if size_hw is None:
        raise DataError(f"{name}: expected a PNG or JPEG image, but it ends within its header; send it again")
    limits.check_size(*size_hw, name)
    image = decode(content, name)
    if image.shape[:2] != size_hw:
        raise DataError(f"{name}: its header says {size_hw} px, its pixels are {image.shape[:2]}; save it again")
    return Film(image, kind, "percentile 0.5 to 99.5" if kind == "png16" and image.ndim == 2 else "8 bits as stored")


def _png_size_hw(content: bytes, name: str) -> tuple[int, int]:
    """What the header says, of a PNG whose chunks all fit into the file."""
    chunks = list(png_chunks(content))
    if not chunks or chunks[0].kind != b"IHDR" or chunks[-1].kind != b"IEND" or len(content) < _PNG_HEADER:
        raise DataError(f"{name}: expected a whole PNG image, but it is cut or damaged; send it again")
    if any(chunk.kind == b"acTL" for chunk in chunks):
        raise DataError(f"{name}: expected one picture, got an animated PNG; send the one that counts")
    width, height = struct.unpack_from(">II", content, 16)
    return height, width
