"""The answer to a study, by hand: the tiny bundle's every number can be worked out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from serve.answering import agreement, over_film
from serve.answers import Models, Predicted
from tests.bundle.conftest import NAMES
from tests.serve.conftest import Running
from tests.serve.films import grey, jpeg, noise, png
from weakray.bundle.runtime import Bundle
from weakray.imaging import Placement, decode


def pixels(text: str) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image, np.uint8)


def test_wide_grey_film_by_hand(running: Running) -> None:
    # 16 x 32 px in a square of 32, eight black rows above and below: see tests/bundle/test_runtime.py for the numbers.
    answer = running.predict(png(grey(16, 32, 51)), include=("maps", "film"))
    assert answer.status_code == 200
    told = Predicted.model_validate_json(answer.content)
    assert told.bundle.sha256 == running.service.engine.current.sha256
    assert answer.headers["x-request-id"] == told.request_id
    (image,) = told.images
    assert (image.index, image.height, image.width, image.source) == (0, 16, 32, "png")
    opacity, nodule, effusion = image.findings
    assert [finding.finding for finding in image.findings] == list(NAMES)
    assert [finding.parent for finding in image.findings] == [None, "Opacity", None]
    np.testing.assert_allclose([f.probability for f in image.findings], [0.1, 0.05, 0.9], atol=1e-6)
    assert [f.decision for f in image.findings] == [False, False, True]
    assert [f.threshold for f in image.findings] == [0.25, 0.25, 0.85]
    assert [f.agreement for f in image.findings] == ["box_without_decision", "agree", "agree"]
    assert [box.xyxy_px for box in opacity.boxes] == [(12, 6, 20, 10)]
    assert nodule.boxes == []
    assert [(box.xyxy_px, box.score) for box in effusion.boxes] == [((21, 2, 27, 10), 0.25)]
    # The map's four rows are 0, 0.2, 0.2, 0; the film is the middle two: flat.
    assert opacity.map is not None
    assert pixels(opacity.map.png).shape == (2, 4)
    assert opacity.map.low == pytest.approx(0.2, abs=1e-6)
    assert opacity.map.high == pytest.approx(0.2, abs=1e-6)
    assert image.film is not None
    np.testing.assert_array_equal(pixels(image.film), grey(16, 32, 51))
    assert [f.probability for f in told.study.findings] == [f.probability for f in image.findings]


def test_maps_and_film_only_where_asked_for(running: Running) -> None:
    told = Predicted.model_validate_json(running.predict(png(grey(16, 32, 51))).content)
    assert all(finding.map is None for finding in told.images[0].findings)
    assert told.images[0].film is None


def test_a_study_is_the_mean_of_its_images_logits(running: Running) -> None:
    # Square films of 51 and 204: opacity 0.2 and 0.8, logits -1.386 and 1.386, mean 0; nodule 0.1 and 0.4, logits
    # -2.1972 and -0.4055, mean -1.3014; effusion 0.8 and 0.2.
    told = Predicted.model_validate_json(running.predict(png(grey(32, 32, 51)), png(grey(32, 32, 204))).content)
    assert [image.index for image in told.images] == [0, 1]
    np.testing.assert_allclose([f.probability for f in told.study.findings], [0.5, 0.21394, 0.5], atol=1e-4)
    assert [f.decision for f in told.study.findings] == [True, False, False]
    np.testing.assert_allclose([image.findings[0].probability for image in told.images], [0.2, 0.8], atol=1e-6)


def test_a_study_of_certain_images_is_finite(running: Running) -> None:
    told = Predicted.model_validate_json(running.predict(png(grey(32, 32, 0)), png(grey(32, 32, 255))).content)
    assert told.study.findings[0].probability == pytest.approx(0.5, abs=1e-3)


def test_served_numbers_are_the_bundles(running: Running, tiny_bundle: Any) -> None:
    films = [png(noise(40, 31, 1)), jpeg(noise(33, 50, 2)), png(noise(32, 32, 3))]
    told = Predicted.model_validate_json(running.predict(*films, include=("maps",)).content)
    bundle = Bundle.load(tiny_bundle, threads=1)
    for film, image in zip(films, told.images, strict=True):
        (expected,) = bundle.predict([decode(film)], with_maps=True)
        np.testing.assert_allclose([f.probability for f in image.findings], expected.probabilities, atol=1e-6)
        served = [list(box.xyxy_px) for finding in image.findings for box in finding.boxes]
        assert (
            served
            == expected.detections.boxes_xyxy_px[np.argsort(expected.detections.class_id, kind="stable")].tolist()
        )
        assert expected.maps is not None
        for finding, raw in zip(image.findings, expected.maps, strict=True):
            assert finding.map is not None
            cut = over_film(raw, expected.placement, 32)
            scale = (finding.map.high - finding.map.low) / 255
            np.testing.assert_allclose(pixels(finding.map.png) * scale + finding.map.low, cut, atol=scale / 2 + 1e-6)
    assert [image.source for image in told.images] == ["png", "jpeg", "png"]


@pytest.mark.parametrize(
    ("decision", "boxes", "expected"),
    [
        (True, 2, "agree"),
        (False, 0, "agree"),
        (True, 0, "decision_without_box"),
        (False, 1, "box_without_decision"),
    ],
)
def test_agreement(*, decision: bool, boxes: int, expected: str) -> None:
    assert agreement(decision=decision, boxes=boxes) == expected


def test_map_without_padding_is_the_map_itself() -> None:
    raw = np.random.default_rng(1).random((3, 3), np.float32)
    assert over_film(raw, Placement((32, 32), (1.0, 1.0), 0, 0), 32) is raw


def test_map_over_a_film_between_cells() -> None:
    # Four cells of 8 px; the film covers columns 4…28: three cells, whose centres lie at 8, 16 and 24 px, the borders
    # of the map's cells: each is the mean of two.
    raw = np.tile(np.array([0, 2, 6, 12], np.float32), (4, 1))
    cut = over_film(raw, Placement((32, 24), (1.0, 1.0), 4, 0), 32)
    np.testing.assert_allclose(cut, np.tile([1, 4, 9], (4, 1)))


def test_models_names_the_bundle(running: Running) -> None:
    told = Models.model_validate_json(running.ask("GET", "/v1/models").content)
    manifest = running.service.engine.current.bundle.manifest
    assert told.files == {name: entry.sha256 for name, entry in manifest.files.items()}
    assert [(f.name, f.parent, f.threshold, f.score_threshold) for f in told.findings] == [
        ("Opacity", None, 0.25, 0.5),
        ("Nodule", "Opacity", 0.25, 0.5),
        ("Effusion", None, 0.85, 0.25),
    ]
    assert (told.members, told.maps, told.format_version) == (2, "pcam", 2)


def test_the_same_probabilities_alone_and_in_company(start: Callable[..., Running]) -> None:
    running = start(load={"requests": 64})
    films = [png(grey(16, 32, value)) for value in range(5, 245, 10)]
    answers = running.together(
        *(lambda client, film=film: client.post("/v1/predict", files={"image": film}) for film in films)
    )
    told = [Predicted.model_validate_json(answer.content).images[0].findings[0].probability for answer in answers]
    np.testing.assert_allclose(told, [value / 255 / 2 for value in range(5, 245, 10)], atol=1e-6)
