"""One DICOM film through the server and out again as a DICOM file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from serve.answering import FilmFacts, image_of
from serve.engine import Loaded
from serve.films import read_film
from serve.refusals import Refusal
from serve.report_source import read_source
from serve.secondary_capture import secondary_capture
from serve.structured_report import structured_report, to_bytes
from serve.uploads import Upload
from weakray.bundle.runtime import Prediction, Prepared
from weakray.errors import DataError
from weakray.imaging import Image
from weakray.limits import FilmLimits

if TYPE_CHECKING:
    from pydicom import Dataset

ReportForm = Literal["report", "picture"]


@dataclass(frozen=True, eq=False)
class Reportable:
    """A film that waits for the graphs and then for its report.

    Attributes:
        source: what a report repeats of its header.
        facts: what an answer says of it.
        prepared: what the graphs see.
        image: its pixels, where a picture is to be made of them.
    """

    source: Dataset
    facts: FilmFacts
    prepared: Prepared
    image: Image | None


def reportable(loaded: Loaded, upload: Upload, index: int, limits: FilmLimits, *, with_image: bool) -> Reportable:
    """Decodes a film that a report is to speak of.

    Raises:
        Refusal: if it is no DICOM film, cannot be read, or lacks what a report must repeat.
    """
    film = read_film(upload, index, limits)
    if film.source != "dicom":
        raise Refusal("unsupported_type", f"image {index}: expected a DICOM film, for a report names it, got another")
    try:
        source = read_source(bytes(upload.content), f"image {index}", limits)
    except DataError as error:
        raise Refusal("unreadable", str(error)) from None
    upload.content = bytearray()
    facts = FilmFacts.of(film, with_png=False)
    return Reportable(source, facts, loaded.bundle.prepare(film.image), film.image if with_image else None)


def written(loaded: Loaded, film: Reportable, prediction: Prediction) -> bytes:
    """The DICOM file: a picture where the film's pixels were kept, else a structured report.

    Raises:
        Refusal: if the header cannot be repeated.
    """
    answer = image_of(loaded, 0, film.facts, prediction.without_maps())
    try:
        if film.image is None:
            return to_bytes(structured_report(film.source, answer, loaded.name))
        return to_bytes(secondary_capture(film.source, film.image, answer, loaded.name))
    except DataError as error:
        raise Refusal("unreadable", str(error)) from None
