"""`weakray report BUNDLE`: what a bundle finds on one DICOM film, as DICOM files, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from serve.answering import FilmFacts, image_of
from serve.engine import Engine
from serve.films import Film
from serve.report_source import read_source
from serve.secondary_capture import secondary_capture
from serve.structured_report import structured_report, to_bytes
from weakray.config import StrictModel
from weakray.errors import DataError
from weakray.files import write_bytes
from weakray.film import read_film
from weakray.limits import FilmLimits


class ReportConfig(StrictModel):
    """Settings of `weakray report`."""

    positional_folder: ClassVar[str] = "bundle"

    bundle: Path = Field(description="bundle folder")
    film: Path = Field(description="DICOM file of the film")
    out: Path = Field(description="DICOM file to write: a structured report (TID 1500)")
    capture: Path | None = Field(None, description="DICOM file to write: a picture of the findings; none: no picture")
    threads: int | None = Field(None, ge=1, description="threads of one pass; all cores when not given")
    limits: FilmLimits = FilmLimits()


class ReportResult(StrictModel):
    """What was found, and where it stands."""

    present: tuple[str, ...] = Field(description="findings that the classifiers call present")
    boxes: int = Field(description="regions that the detector found")
    out: Path = Field(description="the structured report")
    capture: Path | None = Field(description="the picture")


def run(config: ReportConfig) -> ReportResult:
    """Predicts, and writes the report.

    Raises:
        WeakrayError: if the bundle is not whole, or the film is no DICOM film that can be reported on.
    """
    try:
        content = config.film.read_bytes()
    except OSError as error:
        raise DataError(f"{config.film}: expected a DICOM film, got {error.strerror or error}") from None
    source = read_source(content, str(config.film), config.limits)
    film = read_film(content, str(config.film), config.limits)
    loaded = Engine(config.bundle, config.threads).current
    facts = FilmFacts.of(Film(film.image, film.kind, film.notes), with_png=False)
    answer = image_of(loaded, 0, facts, loaded.bundle.predict([film.image])[0])
    write_bytes(config.out, to_bytes(structured_report(source, answer, loaded.name)))
    if config.capture is not None:
        write_bytes(config.capture, to_bytes(secondary_capture(source, film.image, answer, loaded.name)))
    return ReportResult(
        present=tuple(finding.finding for finding in answer.findings if finding.decision),
        boxes=sum(len(finding.boxes) for finding in answer.findings),
        out=config.out,
        capture=config.capture,
    )
