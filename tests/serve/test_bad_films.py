"""Broken films of every kind, against a real server: a crash would show as no answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serve.answers import Predicted, Refused
from tests.dicom import makers
from tests.serve.conftest import Running
from tests.serve.films import noise, png
from tests.serve.mutations import KINDS, mutated, seeds_of
from tests.serve.processes import ServerProcess
from weakray.bundle.runtime import Bundle
from weakray.film import read_film

REFUSALS = {400: "bad_request", 413: "too_large", 415: "unsupported_type", 422: "unreadable"}


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tiny_bundle, "--load.answer-timeout-s", "20") as process:
        yield process


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.soak)])
def test_broken_films_are_answered_with_a_reason(kind: str, count: int, server: ServerProcess) -> None:
    whole, statuses = seeds_of(kind), Counter[int]()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        for seed in range(count):
            film = mutated(kind, seed, whole)
            start = time.monotonic()
            include = ["maps", "film"] if seed % 4 == 0 else []
            answer = client.post("/v1/predict", files={"image": film}, params={"include": include})
            assert time.monotonic() - start < 10, (kind, seed)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                Predicted.model_validate_json(answer.content)
            else:
                fault = Refused.model_validate_json(answer.content).error
                assert REFUSALS.get(answer.status_code) == fault.code, (kind, seed, fault)
                assert fault.message.startswith("image 0: ")
                assert "Doe" not in fault.message
        assert client.get("/readyz").status_code == 200
    assert statuses[422] > count / 10
    assert statuses[415] > 0
    log = "\n".join(server.lines)
    assert " 500 " not in log
    assert " ERROR weakray" not in log
    assert "Doe" not in log
    assert "MRN-77" not in log


@pytest.mark.parametrize("kind", KINDS)
def test_whole_films_of_each_kind_are_answered(kind: str, running: Running, tiny_bundle: Path) -> None:
    films = seeds_of(kind)
    answer = running.predict(*films[:8], include=("film",))
    told = Predicted.model_validate_json(answer.content)
    assert {image.source for image in told.images} == {kind}
    bundle = Bundle.load(tiny_bundle, threads=1)
    for film, image in zip(films, told.images, strict=True):
        decoded = read_film(film).image
        assert (image.height, image.width) == decoded.shape[:2]
        probabilities = [finding.probability for finding in image.findings]
        np.testing.assert_allclose(probabilities, bundle.predict([decoded])[0].probabilities, atol=1e-6)


def test_what_was_done_to_a_dicom_film_is_said(running: Running) -> None:
    shown = makers.dataset(
        makers.light(1), PhotometricInterpretation="MONOCHROME1", WindowCenter=2000, WindowWidth=3000
    )
    (image,) = Predicted.model_validate_json(running.predict(makers.content(shown)).content).images
    assert image.notes == ["window 2000 ± 1500, MONOCHROME1 inverted"]
    answer = running.predict(png(makers.light(1)))
    (image,) = Predicted.model_validate_json(answer.content).images
    assert (image.source, image.notes) == ("png16", ["percentile 0.5 to 99.5"])


def test_a_dicom_header_reaches_neither_answer_nor_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    odd = makers.dataset(makers.light(1), AccessionNumber="Doe" * 30, StudyDate="Doe the first", PatientAge="Doe")
    for film in (makers.content(odd), makers.content(odd)[:-500]):
        answer = running.predict(film, include=("maps",))
        assert answer.status_code in (200, 422)
        for secret in ("Doe", "MRN-77", "1.2.3.1", "ward 7", "19800101"):
            assert secret not in answer.text
            assert secret not in caplog.text


@pytest.mark.parametrize("size", [(1, 19_000), (19_000, 2), (1, 1), (25_000, 1)])
def test_films_of_odd_shapes(running: Running, size: tuple[int, int]) -> None:
    answer = running.predict(png(noise(*size)), include=("maps", "film"))
    assert answer.status_code == (413 if max(size) > 20_000 else 200)
