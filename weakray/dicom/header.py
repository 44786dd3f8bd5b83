"""What may be kept of a DICOM header: the few fields that an allow-list names, none of them free text.

Everything else is never even parsed (`read_dicom` is given `FACT_TAGS`), private elements least of all. Names, dates,
places and accession numbers are not on the list. Descriptions are read for the view alone, and not kept. Ids are
handed on for grouping; whoever stores them replaces them first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

_ID_TAGS = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
_DESCRIPTIONS = ("SeriesDescription", "AcquisitionDeviceProcessingDescription", "ProtocolName")
_VIEW_TAGS = ("ViewPosition", "ViewCodeSequence", "PatientOrientation", *_DESCRIPTIONS)
_KEPT_TAGS = (
    *("Modality", "BodyPartExamined", "Manufacturer", "ManufacturerModelName", "PatientSex", "PatientAge"),
    *("PixelSpacing", "ImagerPixelSpacing", "BurnedInAnnotation", "ConversionType", "ImageType"),
)
ID_FACTS = ("patient_id", "study_uid", "sop_uid")  # of `DicomFacts`
FACT_TAGS = (*_ID_TAGS, *_VIEW_TAGS, *_KEPT_TAGS)
_OLDEST_YEARS = 90  # older ages single people out; they are told as 90
_AGE_UNITS = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}  # a year's
_FRONTAL, _LATERAL = "FRONTAL", "LATERAL"
_WORDS = {
    "PA": r"\bP\.?A\b|POSTERO-? ?ANTERIOR",
    "AP": r"\bA\.?P\b|ANTERO-? ?POSTERIOR",
    _LATERAL: r"\bLAT\b|LATERAL|\bPROFIL\b|\bLL\b|\bRL\b",
    _FRONTAL: r"FRONTAL|\bFACE\b",
}


@dataclass(frozen=True)
class DicomFacts:
    """What is known of a film from its header, "" or None where it says nothing.

    Attributes:
        patient_id: as the hospital wrote it: replace it before storing.
        study_uid: likewise.
        sop_uid: likewise.
        view: PA, AP, FRONTAL (one of the two), LATERAL, another ViewPosition as it stands, or "".
        view_from: the element that told the view.
        modality: CR, DX, …
        body_part: BodyPartExamined.
        manufacturer: of the machine.
        model: of the machine.
        sex: F, M or O.
        age_years: 0…90, older ones told as 90.
        spacing_mm: between rows and between columns, at the patient where known, else at the detector.
    """

    patient_id: str = ""
    study_uid: str = ""
    sop_uid: str = ""
    view: str = ""
    view_from: str = ""
    modality: str = ""
    body_part: str = ""
    manufacturer: str = ""
    model: str = ""
    sex: str = ""
    age_years: int | None = None
    spacing_mm: tuple[float, float] | None = None


def facts_of(found: Dataset) -> DicomFacts:
    """Reads the facts; what is malformed counts as not said."""
    view, view_from = _view(found)
    sex = _code(found, "PatientSex")
    return DicomFacts(
        patient_id=_text(found, "PatientID"),
        study_uid=_text(found, "StudyInstanceUID"),
        sop_uid=_text(found, "SOPInstanceUID"),
        view=view,
        view_from=view_from,
        modality=_code(found, "Modality"),
        body_part=_code(found, "BodyPartExamined"),
        manufacturer=_text(found, "Manufacturer")[:64],
        model=_text(found, "ManufacturerModelName")[:64],
        sex=sex if sex in ("F", "M", "O") else "",
        age_years=_age(_text(found, "PatientAge")),
        spacing_mm=_spacing(found),
    )


def burnt_in_note(found: Dataset) -> str | None:
    """What the header says or leaves open about text in the pixels; None where it says that there is none."""
    said = _code(found, "BurnedInAnnotation")
    if said == "YES":
        return "burnt-in text: the header says that the pixels hold annotations, which may name the patient"
    made = {_code(found, "Modality"), *re.split(r"[^A-Z ]+", _text(found, "ImageType").upper())}
    if said != "NO" and (made & {"OT", "SC", "SCREEN SAVE"} or _text(found, "ConversionType")):
        return "burnt-in text is likely: a secondary capture whose header does not rule it out"
    return None


def _view(found: Dataset) -> tuple[str, str]:
    position = _code(found, "ViewPosition")
    if position:
        return _in_words(position) or position, "ViewPosition"
    for item in found.get("ViewCodeSequence") or ():
        if told := _in_words(_text(item, "CodeMeaning").upper()):
            return told, "ViewCodeSequence"
    for keyword in _DESCRIPTIONS:
        if told := _in_words(_text(found, keyword).upper()):
            return told, keyword
    rows = (_text(found, "PatientOrientation").upper().strip("[]' ") or " ")[0]
    view = {"L": _FRONTAL, "R": _FRONTAL, "A": _LATERAL, "P": _LATERAL}.get(rows, "")
    return view, "PatientOrientation" if view else ""


def _in_words(text: str) -> str:
    """The one view that a text names, "" where it names none or several."""
    named = [view for view, pattern in _WORDS.items() if re.search(pattern, text)]
    exact = [view for view in named if view != _FRONTAL] or named
    return exact[0] if len(exact) == 1 else ""


def _age(text: str) -> int | None:
    """`045Y`, `006M` … → whole years."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text)
    return min(_OLDEST_YEARS, int(int(match[1]) / _AGE_UNITS[match[2]])) if match else None


def _spacing(found: Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            rows, columns = (float(part) for part in found.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if 0 < rows < 100 and 0 < columns < 100:
            return rows, columns
    return None


def _text(found: Dataset, keyword: str) -> str:
    value = found.get(keyword)
    return "" if value is None else "".join(part for part in str(value) if part.isprintable()).strip()


def _code(found: Dataset, keyword: str) -> str:
    """A code string: capitals, digits, blanks and underscores, at most 16 (PS3.5 6.2); "" for anything else."""
    text = _text(found, keyword).upper()
    return text if re.fullmatch(r"[A-Z0-9 _]{1,16}", text) else ""
