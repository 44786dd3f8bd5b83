"""The view, the facts of the allow-list, and the warning about burnt-in text."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydicom import Dataset, Sequence

from tests.dicom.makers import content, dataset, light
from weakray.dicom.film import FILM_TAGS, decode_dicom
from weakray.dicom.header import DicomFacts
from weakray.dicom.reading import read_dicom
from weakray.limits import FilmLimits


def _facts(**elements: Any) -> DicomFacts:
    return decode_dicom(content(dataset(light(0), **elements)), "a.dcm", FilmLimits()).facts


def _code_item(meaning: str) -> Sequence:
    item = Dataset()
    item.CodeMeaning = meaning
    return Sequence([item])


@pytest.mark.parametrize(
    ("elements", "view", "told_by"),
    [
        ({"ViewPosition": "PA"}, "PA", "ViewPosition"),
        ({"ViewPosition": "ap"}, "AP", "ViewPosition"),
        ({"ViewPosition": "LL"}, "LATERAL", "ViewPosition"),
        ({"ViewPosition": "LLD", "SeriesDescription": "PA"}, "LLD", "ViewPosition"),
        ({"ViewPosition": "", "ViewCodeSequence": _code_item("postero-anterior")}, "PA", "ViewCodeSequence"),
        ({"ViewPosition": "", "ViewCodeSequence": _code_item("left lateral")}, "LATERAL", "ViewCodeSequence"),
        ({"ViewPosition": None, "SeriesDescription": "Chest a.p. bedside"}, "AP", "SeriesDescription"),
        ({"ViewPosition": None, "SeriesDescription": "THORAX profil"}, "LATERAL", "SeriesDescription"),
        ({"ViewPosition": None, "SeriesDescription": "Thorax de face"}, "FRONTAL", "SeriesDescription"),
        ({"ViewPosition": None, "SeriesDescription": "Chest PA frontal"}, "PA", "SeriesDescription"),
        ({"ViewPosition": None, "SeriesDescription": "W Chest PA/LAT"}, "", ""),
        ({"ViewPosition": None, "ProtocolName": "CHEST LAT"}, "LATERAL", "ProtocolName"),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"]}, "FRONTAL", "PatientOrientation"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "LATERAL", "PatientOrientation"),
        ({"ViewPosition": None, "PatientOrientation": ""}, "", ""),
        ({"ViewPosition": None, "SeriesDescription": "company map"}, "", ""),
    ],
)
def test_the_view(elements: dict[str, Any], view: str, told_by: str) -> None:
    facts = _facts(**elements)
    assert (facts.view, facts.view_from) == (view, told_by)


@pytest.mark.parametrize(
    ("age", "years"),
    [("045Y", 45), ("006M", 0), ("030M", 2), ("104Y", 90), ("", None), ("about 40", None), ("-1Y", None)],
)
def test_ages_are_whole_years_and_end_at_90(age: str, years: int | None) -> None:
    assert _facts(PatientAge=age).age_years == years


def test_odd_values_count_as_not_said() -> None:
    facts = _facts(PatientSex="Jane", Modality="D/X!", PixelSpacing=[0, 5], ImagerPixelSpacing=[0.14, 0.15])
    assert (facts.sex, facts.modality, facts.spacing_mm) == ("", "", (0.14, 0.15))


def test_nothing_but_the_allow_list_is_ever_parsed() -> None:
    made = content(dataset(light(0), InstitutionName="St Elsewhere", ReferringPhysicianName="Who^Dr"))
    found = read_dicom(made, "a.dcm", FilmLimits(), FILM_TAGS)
    assert not {"PatientName", "PatientBirthDate", "StudyDate", "InstitutionName"} & set(found.dir())
    assert not [element for element in found if element.tag.is_private]
    facts = decode_dicom(made, "a.dcm", FilmLimits()).facts
    told = " ".join(str(getattr(facts, field.name)) for field in fields(facts))
    assert not [word for word in ("Doe", "Jane", "1980", "2025", "Elsewhere", "Who") if word in told]


@pytest.mark.parametrize(
    ("elements", "warned"),
    [
        ({}, False),
        ({"BurnedInAnnotation": "NO", "Modality": "OT"}, False),
        ({"BurnedInAnnotation": "YES"}, True),
        ({"Modality": "OT"}, True),
        ({"ConversionType": "WSD"}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, False),
    ],
)
def test_burnt_in_text_is_warned_of(elements: dict[str, Any], warned: bool) -> None:
    notes = decode_dicom(
        content(dataset(light(0), 12, WindowCenter=2000, WindowWidth=4000, **elements)), "a", FilmLimits()
    ).notes
    assert [note.startswith("burnt-in text") for note in notes] == [True] * warned
