"""Reports, read back by highdicom and pydicom."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

import weakray
from serve.answers import Box, BundleName, ImageAnswer, ImageFinding
from serve.report_command import ReportConfig, run
from serve.report_source import read_source
from serve.secondary_capture import drawn, secondary_capture
from serve.structured_report import NOTHING, SOMETHING, closed_polyline, structured_report, to_bytes
from tests.dicom.damaging import damaged
from tests.dicom.makers import content, dataset, light
from weakray.bundle.runtime import Bundle
from weakray.config import validate
from weakray.errors import DataError
from weakray.film import read_film
from weakray.limits import FilmLimits

BUNDLE = BundleName(weakray="0.1.0", sha256="ab" * 32)


def _finding(name: str, probability: float, *boxes: tuple[float, ...]) -> ImageFinding:
    decision = probability >= 0.5
    return ImageFinding(
        finding=name,
        parent=None,
        probability=probability,
        threshold=0.5,
        decision=decision,
        agreement="agree" if decision == bool(boxes) else "box_without_decision",
        boxes=[Box(xyxy_px=(x0, y0, x1, y1), score=score) for x0, y0, x1, y1, score in boxes],
        map=None,
    )


def _answer(*findings: ImageFinding) -> ImageAnswer:
    return ImageAnswer(index=0, height=40, width=56, source="dicom", notes=[], findings=list(findings), film=None)


SICK = _answer(
    _finding("Effusion", 0.875, (3, 4, 20.5, 30, 0.75), (30, 4, 56, 40, 0.5)),
    _finding("A finding of our own, with a long name that DICOM would not take as a whole", 0.25),
)
WELL = _answer(_finding("Effusion", 0.125), _finding("Mass", 0.25))


def _source(**elements: Any) -> pydicom.Dataset:
    return read_source(content(dataset(light(0), **elements)), "a.dcm", FilmLimits())


def _read_back(answer: ImageAnswer, **elements: Any) -> hd.sr.ComprehensiveSR:
    made = to_bytes(structured_report(_source(**elements), answer, BUNDLE))
    found = hd.sr.srread(io.BytesIO(made))
    assert isinstance(found, hd.sr.ComprehensiveSR)
    return found


def _whole_film(report: hd.sr.ComprehensiveSR) -> dict[str, Any]:
    groups = report.content.get_image_measurement_groups()  # type: ignore[attr-defined]
    return {group.tracking_identifier: group for group in groups}


def _texts(items: Any) -> dict[str, list[str]]:
    """Every text of a content tree, by what it is called."""
    found: dict[str, list[str]] = {}
    for item in items:
        if item.ValueType == "TEXT":
            found.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, []).append(item.TextValue)
        for name, texts in _texts(item.get("ContentSequence", ())).items():
            found.setdefault(name, []).extend(texts)
    return found


def test_a_report_belongs_to_the_films_study_and_is_its_own_document() -> None:
    report = _read_back(SICK)
    assert (report.PatientID, str(report.PatientName), report.StudyInstanceUID) == ("MRN-77", "Doe^Jane", "1.2.3")
    assert report.SOPInstanceUID != "1.2.3.4"
    assert report.SeriesInstanceUID != "1.2.3.1"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert "PixelData" not in report
    assert not [element for element in report if element.tag.is_private]
    assert _read_back(SICK).SOPInstanceUID != report.SOPInstanceUID


def test_boxes_are_closed_polylines_with_score_and_algorithm() -> None:
    groups = _read_back(SICK).content.get_planar_roi_measurement_groups()  # type: ignore[attr-defined]
    assert [group.tracking_identifier for group in groups] == ["Effusion: region"] * 2
    region = groups[0].roi
    assert region.graphic_type == hd.sr.GraphicTypeValues.POLYLINE
    assert region.value.tolist() == [[3, 4], [20.5, 4], [20.5, 30], [3, 30], [3, 4]]
    assert groups[0].finding_type == codes.SCT.PleuralEffusion
    assert groups[0].get_measurements()[0].value == 0.75
    texts = _texts(groups[0])
    assert texts["Algorithm Name"] == ["weakray"]
    assert texts["Algorithm Version"] == [weakray.__version__]
    assert texts["Algorithm Parameters"] == [f"bundle sha256 {BUNDLE.sha256}", "bundle made by weakray 0.1.0"]
    assert groups[1].roi.value.max(axis=0).tolist() == [56, 40]
    assert closed_polyline((0, 1, 2, 3)).dtype == np.float32


def test_each_finding_is_present_or_absent_with_its_probability() -> None:
    groups = _whole_film(_read_back(SICK))
    effusion = groups["Effusion: whole film"]
    assert effusion.get_qualitative_evaluations()[0].value == codes.DCM.Present
    assert [measured.value for measured in effusion.get_measurements()] == [87.5, 0.5]
    assert effusion.get_measurements(name=codes.DCM.CertaintyOfFinding)[0].unit == codes.UCUM.Percent
    (other,) = (group for name, group in groups.items() if name.startswith("A finding"))
    assert other.get_qualitative_evaluations()[0].value == codes.DCM.Absent
    assert other.finding_type.scheme_designator == "99WEAKRAY"
    assert len(other.finding_type.meaning) == 64
    assert other.source_images[0].referenced_sop_instance_uid == "1.2.3.4"


@pytest.mark.parametrize(("answer", "words", "numbers"), [(WELL, NOTHING, [0, 0, 2]), (SICK, SOMETHING, [2, 1, 2])])
def test_that_it_ran_and_what_came_of_it_is_said(answer: ImageAnswer, words: str, numbers: list[int]) -> None:
    report = _read_back(answer)
    run = _whole_film(report)["the run as a whole"]
    said = {item.name.meaning: item.value for item in run.get_qualitative_evaluations()}
    assert said["Summary of Detections"] == codes.DCM.Succeeded
    assert said["Summary of Analyses"] == codes.DCM.Succeeded
    assert said["Result of the run"].meaning == words
    assert [measured.value for measured in run.get_measurements()] == numbers
    boxes = sum(len(finding.boxes) for finding in answer.findings)
    assert len(report.content.get_planar_roi_measurement_groups()) == boxes  # type: ignore[attr-defined]


def test_the_frame_that_was_read_is_named() -> None:
    frames = np.stack([light(seed) for seed in range(3)])
    made = content(dataset(frames, RepresentativeFrameNumber=2))
    report = structured_report(read_source(made, "a", FilmLimits()), SICK, BUNDLE)
    tree: Any = hd.sr.srread(io.BytesIO(to_bytes(report))).content
    group = tree.get_planar_roi_measurement_groups()[0]
    assert group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 2


def test_a_header_with_nothing_but_uids_is_enough() -> None:
    empty = dict.fromkeys(("PatientID", "PatientName", "PatientSex", "StudyDate", "PatientBirthDate"))
    report = _read_back(WELL, **empty)
    assert not report.PatientID
    assert report.StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_a_film_without_a_uid_cannot_be_reported_on(keyword: str) -> None:
    with pytest.raises(DataError, match=f"a.dcm: a report must name its film, but the header lacks {keyword}"):
        _source(**{keyword: None})


def test_an_answer_for_another_film_is_refused() -> None:
    with pytest.raises(DataError, match=r"report: the film is \(40, 60\) px, the answer is for \(40, 56\)"):
        structured_report(read_source(content(dataset(light(0, 40, 60))), "a", FilmLimits()), SICK, BUNDLE)


def test_a_secondary_capture_is_a_derived_image_of_its_own() -> None:
    film = light(1, bits=8).astype(np.uint8)
    before = film.copy()
    made = pydicom.dcmread(io.BytesIO(to_bytes(secondary_capture(_source(), film, SICK, BUNDLE))))
    np.testing.assert_array_equal(film, before)
    assert list(made.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert made.BurnedInAnnotation == "YES"
    assert made.SOPInstanceUID != "1.2.3.4"
    assert made.SeriesInstanceUID != "1.2.3.1"
    assert made.StudyInstanceUID == "1.2.3"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert made.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert BUNDLE.sha256 in made.DerivationDescription
    np.testing.assert_array_equal(made.pixel_array, drawn(film, SICK, BUNDLE))
    hd.imread(io.BytesIO(to_bytes(made)))


def test_boxes_are_drawn_where_they_are_and_words_for_nothing_too() -> None:
    film = np.full((400, 560), 9, np.uint8)
    answer = SICK.model_copy(update={"height": 400, "width": 560})
    shown = drawn(film, answer, BUNDLE)
    assert shown.shape == (400, 560, 3)
    assert (shown[18:30, 3] == (230, 159, 0)).all()
    assert (shown[18:29, 4:19] == 9).all()
    assert (shown[100:300] == 9).all()
    plain = drawn(film, WELL.model_copy(update={"height": 400, "width": 560}), BUNDLE)
    assert (plain[:300] == 9).all()
    assert (plain[380:] != 9).any()


def test_the_command_writes_what_the_bundle_finds(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "film.dcm").write_bytes(content(dataset(light(3, 300, 220), WindowCenter=2000, WindowWidth=4000)))
    plain = {"bundle": tiny_bundle, "film": tmp_path / "film.dcm", "out": tmp_path / "report.dcm", "threads": 1}
    result = run(validate(ReportConfig, {**plain, "capture": tmp_path / "picture.dcm"}))
    prediction = Bundle.load(tiny_bundle, 1).predict([read_film((tmp_path / "film.dcm").read_bytes()).image])[0]
    tree: Any = hd.sr.srread(tmp_path / "report.dcm").content
    regions = tree.get_planar_roi_measurement_groups()
    assert len(regions) == len(prediction.detections) == result.boxes
    for region in regions:
        corners = np.concatenate([region.roi.value.min(axis=0), region.roi.value.max(axis=0)])
        assert np.abs(prediction.detections.boxes_xyxy_px - corners).max(axis=1).min() < 1e-4
    assert pydicom.dcmread(tmp_path / "picture.dcm").Rows == 300
    with pytest.raises(DataError, match="none.dcm: expected a DICOM film, got No such file"):
        run(validate(ReportConfig, {**plain, "film": tmp_path / "none.dcm"}))
    (tmp_path / "film.dcm").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(DataError, match="film.dcm: expected a DICOM file, got none"):
        run(validate(ReportConfig, plain))


def test_a_damaged_header_gives_a_report_or_an_error() -> None:
    made = errors = 0
    for seed in range(80):
        try:
            source = read_source(damaged(seed)[1], "a film", FilmLimits())
            size = {"height": int(source.Rows), "width": int(source.Columns)}
            to_bytes(structured_report(source, SICK.model_copy(update=size), BUNDLE))
            made += 1
        except DataError:
            errors += 1
    assert made > 10
    assert errors > 10
