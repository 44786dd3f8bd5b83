"""A DICOM film in, a DICOM file out, over the API."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from serve.answers import Predicted
from tests.dicom.makers import content, dataset, light
from tests.serve.conftest import Running
from tests.serve.films import noise, png


def test_the_report_holds_the_boxes_of_the_answer(running: Running) -> None:
    film = content(dataset(light(2)))
    answer = running.ask("POST", "/v1/report", files={"image": film})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom")
    assert answer.headers["cache-control"] == "no-store"
    report = pydicom.dcmread(io.BytesIO(answer.content))
    assert (report.Modality, report.PatientID, report.StudyInstanceUID) == ("SR", "MRN-77", "1.2.3")
    (image,) = Predicted.model_validate_json(running.predict(film).content).images
    polylines = [
        np.array(element.value).reshape(-1, 2) for element in report.iterall() if element.keyword == "GraphicData"
    ]
    expected = [box.xyxy_px for finding in image.findings for box in finding.boxes]
    assert [(*line.min(axis=0), *line.max(axis=0)) for line in polylines] == [pytest.approx(box) for box in expected]


def test_the_picture_is_as_large_as_the_film(running: Running) -> None:
    answer = running.ask("POST", "/v1/report", files={"image": content(dataset(light(2)))}, params={"form": "picture"})
    picture = pydicom.dcmread(io.BytesIO(answer.content))
    assert picture.pixel_array.shape == (40, 56, 3)
    assert picture.BurnedInAnnotation == "YES"


@pytest.mark.parametrize(
    ("films", "form", "status", "message"),
    [
        ((png(noise(9, 7)),), "report", 415, "image 0: expected a DICOM film"),
        ((content(dataset(light(2))),) * 2, "report", 422, "expected one film, for a report speaks of one, got 2"),
        ((content(dataset(light(2), SeriesInstanceUID="")),), "report", 422, "header lacks SeriesInstanceUID"),
        ((content(dataset(light(2))),), "poem", 422, "query.form: Input should be 'report' or 'picture'"),
    ],
)
def test_what_a_report_cannot_speak_of(
    running: Running, films: tuple[bytes, ...], form: str, status: int, message: str
) -> None:
    files = [("image", film) for film in films]
    answer = running.ask("POST", "/v1/report", files=files, params={"form": form})
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
