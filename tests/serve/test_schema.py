"""The OpenAPI document against the server: whatever it allows, and much that it does not, is answered without a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.answers import Predicted
from serve.app import create_app
from serve.example_answer import EXAMPLE
from serve.service import Service
from serve.settings import ServeConfig
from tests.serve.conftest import Running


@pytest.fixture(scope="module")
def schema(tiny_bundle: Path) -> Iterator[Any]:
    service = Service(ServeConfig(bundle=tiny_bundle, threads=1))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service), headers={"Host": "localhost"})
    service.close()


def test_the_document_names_every_place(running: Running) -> None:
    document = running.ask("GET", "/openapi.json").json()
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == {
        ("post", "/v1/predict"),
        ("post", "/v1/report"),
        ("post", "/v1/reload"),
        ("get", "/v1/models"),
        ("get", "/v1/examples"),
        ("get", "/v1/examples/{example_id}"),
        ("get", "/v1/examples/{example_id}/truth"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    refusals = set(document["paths"]["/v1/predict"]["post"]["responses"]) - {"200"}
    assert refusals == {"400", "401", "403", "408", "413", "415", "422", "429", "503"}
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_example_is_an_answer() -> None:
    assert Predicted.model_validate(EXAMPLE).model_dump(mode="json") == json.loads(json.dumps(EXAMPLE))


@pytest.mark.parametrize("count", [8, pytest.param(400, marks=pytest.mark.soak)])
def test_nothing_the_document_allows_is_a_failure(schema: Any, count: int) -> None:
    load_all_checks()
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.given(case=operation.as_strategy())
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            nonlocal asked
            answer = case.call(headers={"Host": "localhost"})
            case.validate_response(answer, checks=checks)
            asked += 1

        ask()
    assert asked >= 9
