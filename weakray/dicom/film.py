"""DICOM bytes → a film: header, one frame, its light, and what a person should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weakray.dicom.grey import GREY_TAGS, Light, Rule, to_grey
from weakray.dicom.header import FACT_TAGS, DicomFacts, burnt_in_note, facts_of
from weakray.dicom.pixels import GREY, PIXEL_TAGS, Frame, decode_frame
from weakray.dicom.reading import damage, read_dicom
from weakray.imaging import Image
from weakray.limits import FilmLimits

if TYPE_CHECKING:
    from pydicom import Dataset

_PALETTE = (
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData"),
    *("SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData"),
    "PaletteColorLookupTableUID",
)
FILM_TAGS = (*FACT_TAGS, *PIXEL_TAGS, *GREY_TAGS, *_PALETTE)


@dataclass(frozen=True)
class DicomFilm:
    """A film out of a DICOM file.

    Attributes:
        image: 8 bits, grey `(h, w)` or RGB `(h, w, 3)`.
        light: the same without loss, where it is grey (see `weakray.dicom.grey`); None for colour.
        rule: how the 8 bits were made.
        frame: which frame it is, from 1.
        frames: of how many.
        bits: bits a sample that were stored.
        facts: what the allow-list lets through.
        notes: what a person should know.
    """

    image: Image
    light: Light | None
    rule: str
    frame: int
    frames: int
    bits: int
    facts: DicomFacts
    notes: tuple[str, ...]


def decode_dicom(
    content: bytes, name: str, limits: FilmLimits, *, rule: Rule = "voi", frame: int | None = None
) -> DicomFilm:
    """Decodes one frame of a DICOM file.

    Args:
        content: the whole file.
        name: how errors name it.
        limits: see `film_of`.
        rule: see `film_of`.
        frame: see `film_of`.

    Raises:
        LimitError: if it is larger than its limits.
        DataError: if it is no DICOM, holds no image, is of a kind that is not read, or is damaged.
    """
    return film_of(read_dicom(content, name, limits, FILM_TAGS), name, limits, rule=rule, frame=frame)


def film_of(
    found: Dataset, name: str, limits: FilmLimits, *, rule: Rule = "voi", frame: int | None = None
) -> DicomFilm:
    """Decodes one frame of a data set that was read with `FILM_TAGS`.

    Args:
        found: the data set.
        name: how errors name it.
        limits: checked before anything is decoded.
        rule: how 8 bits are made of a grey film.
        frame: which, from 1; None the representative one where the header names it, else the first.

    Raises:
        LimitError: if it is larger than its limits.
        DataError: if it holds no image, is of a kind that is not read, or is damaged.
    """
    decoded = decode_frame(found, name, limits, frame)
    with damage(name, "the DICOM header"):
        if str(found.PhotometricInterpretation) in GREY:
            grey = to_grey(found, decoded, rule)
            image, light, how, notes = grey.image, grey.light, grey.rule, list(grey.notes)
        else:
            image, light, how, notes = _colour(decoded), None, "colour as stored", []
        if decoded.count > 1:
            notes.append(f"frame {decoded.number} of {decoded.count} was read")
        if warning := burnt_in_note(found):
            notes.append(warning)
        facts = facts_of(found)
    return DicomFilm(image, light, how, decoded.number, decoded.count, decoded.bits, facts, tuple(notes))


def _colour(frame: Frame) -> Image:
    if frame.bits == 8:
        return frame.stored.astype(np.uint8)
    return np.asarray(np.rint(frame.stored * (255 / ((1 << frame.bits) - 1))), np.uint8)
