"""The header of the film that a report speaks of: read by an allow-list, without its pixels.

A report repeats who was examined, in which study, and names the film. Nothing else of the header is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weakray.dicom.reading import damage, read_dicom
from weakray.errors import DataError
from weakray.limits import FilmLimits

if TYPE_CHECKING:
    from pydicom import Dataset

# Elements that a report's own modules repeat, and must hold at least as empty ones (PS3.3 C.7.1.1, C.7.2.1).
_REPEATED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_NAMES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_LOOKED_AT = ("Rows", "Columns", "Modality", "PatientOrientation", "NumberOfFrames", "RepresentativeFrameNumber")


def read_source(content: bytes, name: str, limits: FilmLimits) -> Dataset:
    """What a report needs to know of a film.

    Args:
        content: the film's DICOM file.
        name: how errors name it.
        limits: of which the bytes are checked.

    Raises:
        DataError: if it is no DICOM, or lacks a UID by which a report could name it.
    """
    found = read_dicom(content, name, limits, (*_REPEATED, *_NAMES, *_LOOKED_AT))
    with damage(name, "the DICOM header"):
        missing = [keyword for keyword in (*_NAMES, "Rows", "Columns") if not found.get(keyword)]
        for keyword in _REPEATED:
            if keyword not in found:
                setattr(found, keyword, None)
    if missing:
        raise DataError(f"{name}: a report must name its film, but the header lacks {', '.join(missing)}")
    return found
