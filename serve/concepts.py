"""Coded words of a report: DICOM's and SNOMED's where they fit, else our own under `99WEAKRAY`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

SCHEME = "99WEAKRAY"
# name in small letters → SNOMED CT code and meaning, as DICOM's own tables (PS3.16) give them
_SNOMED = {
    "cardiomegaly": ("287272002", "Cardiomegaly"),
    "edema": ("19242006", "Pulmonary edema"),
    "effusion": ("60046008", "Pleural effusion"),
    "pleural effusion": ("60046008", "Pleural effusion"),
    "pneumothorax": ("36118008", "Pneumothorax"),
}
_MEANING_CHARACTERS = 64


def finding_concept(name: str) -> CodedConcept:
    """The code of a finding."""
    from highdicom.sr import CodedConcept

    known = _SNOMED.get(re.sub(r"[\W_]+", " ", name.casefold()).strip())
    return CodedConcept(known[0], "SCT", known[1]) if known else own_concept(name, name)


def own_concept(value: str, meaning: str) -> CodedConcept:
    """A code of ours; its value keeps letters and digits of `value`."""
    from highdicom.sr import CodedConcept

    plain = re.sub(r"[^A-Z0-9]+", "_", value.upper()).strip("_") or "_"
    return CodedConcept(plain, SCHEME, meaning[:_MEANING_CHARACTERS])
