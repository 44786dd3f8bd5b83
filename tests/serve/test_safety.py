"""Who may ask, what is taken, and that nothing of it stays."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.gate import SECURITY_HEADERS
from serve.settings import ServeConfig, is_loopback, read_token
from tests.serve.conftest import Running
from tests.serve.films import grey, jpeg, noise, png
from weakray.config import validate
from weakray.errors import BundleError, ConfigError, DataError

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - made up
FILM = png(grey(16, 32, 51))
FORM = "multipart/form-data; boundary=b"
Start = Callable[..., Running]


def why(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def guarded(start: Start, tmp_path: Path) -> Running:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return start(token_file=tmp_path / "token")


@pytest.mark.parametrize("given", [{}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": f"Bearer {TOKEN[:-1]}"}])
def test_without_the_token_nothing_is_told(guarded: Running, given: dict[str, str]) -> None:
    for method, path in (("POST", "/v1/predict"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/v1/none")):
        answer = guarded.ask(method, path, headers=given)
        assert why(answer) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.ask("GET", "/healthz").status_code == 200
    assert guarded.ask("GET", "/readyz").status_code == 200


def test_with_the_token_films_are_served_under_any_name(guarded: Running) -> None:
    headers = {"Authorization": f"bearer {TOKEN}", "Host": "films.hospital"}
    assert guarded.predict(FILM, headers=headers).status_code == 200


def test_a_token_that_is_not_ascii_is_refused_not_a_failure(guarded: Running) -> None:
    assert why(guarded.ask("GET", "/v1/models", headers={b"Authorization": "Bearer é".encode()})) == (
        401,
        "unauthorized",
    )


@pytest.mark.parametrize("host", ["films.hospital", "127.0.0.1.evil.example", "10.0.0.1:8080", "", "[::2]:80"])
def test_without_a_token_only_this_machine_is_served(running: Running, host: str) -> None:
    assert why(running.predict(FILM, headers={"Host": host})) == (403, "forbidden")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080", "127.1.2.3"])
def test_this_machine_has_several_names(running: Running, host: str) -> None:
    assert running.predict(FILM, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"), [("http://127.0.0.1", 200), ("http://evil.example", 403), ("null", 403), (None, 200)]
)
def test_pages_of_other_origins_may_not_send(running: Running, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert running.predict(FILM, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.9.1", True),
        ("0.0.0.0", False), ("::", False),  # noqa: S104 - refused
        ("192.168.1.4", False), ("films.hospital", False),
    ],
)  # fmt: skip
def test_it_listens_elsewhere_only_with_a_token(
    host: str, *, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEAKRAY_TOKEN", raising=False)
    assert is_loopback(host) is inside
    config = validate(ServeConfig, {"bundle": tmp_path, "host": host})
    if inside:
        assert read_token(config) is None
    else:
        with pytest.raises(
            ConfigError, match=f"host: {host} can be reached from other machines, and there is no token"
        ):
            read_token(config)
    monkeypatch.setenv("WEAKRAY_TOKEN", TOKEN)
    assert read_token(config) == TOKEN


@pytest.mark.parametrize("text", ["", "short", "é" * 20, "with a space in its middle"])
def test_a_bad_token_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)
    config = validate(ServeConfig, {"bundle": tmp_path, "token_file": tmp_path / "token"})
    with pytest.raises(ConfigError, match=r"token_file: .* expected a token of at least 16 printable ASCII characters"):
        read_token(config)


def test_a_missing_token_file_is_said(tmp_path: Path) -> None:
    config = validate(ServeConfig, {"bundle": tmp_path, "token_file": tmp_path / "none"})
    with pytest.raises(ConfigError, match="token_file: expected a readable file with a token, got"):
        read_token(config)


def test_every_answer_carries_the_security_headers(running: Running) -> None:
    for answer in (
        running.ask("GET", "/"),
        running.predict(FILM),
        running.ask("GET", "/none"),
        running.ask("PUT", "/"),
    ):
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert "server" not in answer.headers
    assert "unsafe" not in SECURITY_HEADERS["Content-Security-Policy"]
    assert running.predict(FILM).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("content_type", "content", "expected"),
    [
        (None, b"", (415, "unsupported_type")),
        ("image/png", FILM, (415, "unsupported_type")),
        ("application/x-www-form-urlencoded", b"image=x", (415, "unsupported_type")),
        ("multipart/form-data", b"--b--\r\n", (400, "bad_request")),
        ("multipart/form-data; boundary=" + "b" * 71, b"", (400, "bad_request")),
        (FORM, b"", (400, "bad_request")),
        (FORM, b"nothing of the kind", (400, "bad_request")),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx', (400, "bad_request")),
        (FORM, b"--b--\r\n", (422, "invalid")),
        (FORM, b"--b\r\nA: b\r\n\r\nx\r\n--b--\r\n", (422, "invalid")),
        (FORM, b"--b\r\n" + b"A: b\r\n" * 20 + b"\r\nx\r\n--b--\r\n", (400, "bad_request")),
        (FORM, b"--b\r\nA: " + b"b" * 2000 + b"\r\n\r\nx\r\n--b--\r\n", (400, "bad_request")),
    ],
)  # fmt: skip
def test_bodies_that_are_no_form(
    running: Running, content_type: str | None, content: bytes, expected: tuple[int, str]
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert why(running.ask("POST", "/v1/predict", content=content, headers=headers)) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (("f", FILM, "image/jpeg"), (415, "unsupported_type")),
        (("f", jpeg(noise(9, 7)), "application/dicom"), (415, "unsupported_type")),
        (("f", FILM, "text/html"), (415, "unsupported_type")),
        (("f", FILM, "image/png", {"Content-Transfer-Encoding": "base64"}), (415, "unsupported_type")),
        (("f", b"GIF89a" + bytes(200)), (415, "unsupported_type")),
        (("f", b""), (415, "unsupported_type")),
        (("f", FILM[:40], "image/png"), (422, "unreadable")),
        (("../../etc/passwd", FILM, "image/png"), (200, "")),
        (("f", FILM, "application/octet-stream"), (200, "")),
    ],
)
def test_kinds_of_parts(running: Running, part: Any, expected: tuple[int, str]) -> None:
    answer = running.ask("POST", "/v1/predict", files=[("image", part)])
    if expected[0] == 200:
        assert answer.status_code == 200
    else:
        assert why(answer) == expected


def test_limits_stop_a_request_before_anything_is_decoded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"images": 2, "image_bytes": 3000, "request_bytes": 5000, "pixels": 100 * 120}
    running = start(limits=limits)
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    small = png(grey(4, 6, 1))
    cases = {
        "at most 2 images": (small, small, small),
        "at most 3000 bytes": (bytes(3001),),
        "at most 5000 bytes": (bytes(2900), bytes(2900)),
        "at most 12000 pixels": (png(grey(101, 120, 0)),),
    }
    for message, films in cases.items():
        answer = running.predict(*films)
        assert why(answer) == (413, "too_large")
        assert message in answer.json()["error"]["message"]
    assert running.service.admission.requests == 0
    assert running.service.admission.held_bytes == 0


def test_a_body_without_a_length_is_counted_as_it_comes(start: Start) -> None:
    running = start(limits={"request_bytes": 5000})

    async def chunks() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        for _ in range(100):
            yield bytes(1000)

    headers = {"Content-Type": FORM}
    assert why(running.ask("POST", "/v1/predict", content=chunks(), headers=headers)) == (413, "too_large")
    assert running.service.admission.held_bytes == 0


def test_a_png_bomb_is_refused_by_its_header(running: Running) -> None:
    bomb = bytearray(FILM)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    assert why(running.predict(bytes(bomb))) == (413, "too_large")


def test_unknown_places_and_methods(running: Running) -> None:
    assert why(running.ask("GET", "/etc/passwd")) == (404, "not_found")
    assert why(running.ask("GET", "/page/../../settings.py")) == (404, "not_found")
    assert why(running.ask("GET", "/page/%2e%2e/settings.py")) == (404, "not_found")
    assert why(running.ask("GET", "/v1/examples/%2e%2e")) == (404, "not_found")
    assert why(running.ask("GET", "/v1/predict")) == (405, "method_not_allowed")
    assert why(running.ask("POST", "/v1/predict?include=everything")) == (422, "invalid")


def test_reload_is_for_guarded_servers(running: Running, guarded: Running) -> None:
    assert why(running.ask("POST", "/v1/reload")) == (403, "forbidden")
    answer = guarded.ask("POST", "/v1/reload", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == {"bundle": guarded.service.engine.current.name.model_dump(), "changed": False}


def test_reload_of_a_broken_bundle_is_a_conflict(
    guarded: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guarded.service.engine, "_path", tmp_path)
    answer = guarded.ask("POST", "/v1/reload", headers={"Authorization": f"Bearer {TOKEN}"})
    assert why(answer) == (409, "conflict")
    assert "the bundle before goes on answering" in answer.json()["error"]["message"]
    assert guarded.predict(FILM, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_changed_bundle_is_not_served(start: Start, tiny_bundle: Path, tmp_path: Path) -> None:
    for path in tiny_bundle.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "detector.onnx").write_bytes((tiny_bundle / "detector.onnx").read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"detector\.onnx: expected SHA-256"):
        start(bundle=tmp_path)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every attempt to open a file for writing, or a temporary one."""
    opened: list[Any] = []
    watching = True

    def hook(event: str, arguments: Any) -> None:
        if not watching:
            return
        writes = event == "open" and (
            any(letter in str(arguments[1]) for letter in "wax+")
            or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        )
        if writes or event.startswith("tempfile."):
            opened.append((event, arguments[0]))

    sys.addaudithook(hook)  # it cannot be taken away again: it is told to look elsewhere
    yield opened
    watching = False


def test_a_large_film_touches_no_disk_and_no_log(
    running: Running, no_files: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="weakray")
    large = png(noise(2000, 1500))
    assert len(large) > 2 * 2**20
    answer = running.ask(
        "POST",
        "/v1/predict",
        files=[("image", ("secret^name.png", large)), ("image", ("secret^name.png", large))],
        headers={"User-Agent": "secret agent", "X-Patient": "secret patient"},
    )
    assert answer.status_code == 200
    assert running.ask("GET", "/secret-path?name=secret").status_code == 404
    assert running.predict(large[:-1000] + b"secret").status_code in (200, 422)
    assert no_files == []
    assert "secret" not in caplog.text
    lines = [record.getMessage() for record in caplog.records if record.name == "weakray.serve"]
    assert len(lines) == 3
    assert lines[0].startswith(f"{answer.headers['x-request-id']}: POST /v1/predict 200 ")
    assert ": GET other 404 " in lines[1]


def test_that_test_can_fail(no_files: list[Any]) -> None:
    with tempfile.SpooledTemporaryFile(max_size=10) as file:
        file.write(bytes(100))
    assert no_files


def test_a_failure_tells_neither_client_nor_log_what_was_sent(
    running: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr("serve.service.read_film", fails)
    answer = running.predict(FILM)
    assert why(answer) == (500, "internal")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in answer.text + caplog.text
    assert f"{answer.headers['x-request-id']}: RuntimeError at {__file__}:" in caplog.text


def test_needs_no_torch_pandas_or_pyarrow(tiny_bundle: Path) -> None:
    code = f"""
import asyncio, sys
import httpx, cv2, numpy as np
import serve.command, serve.client
from pathlib import Path
from serve.app import create_app
from serve.service import Service
from serve.settings import ServeConfig
service = Service(ServeConfig(bundle=Path({str(tiny_bundle)!r}), threads=1))
async def ask():
    transport = httpx.ASGITransport(app=create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as c:
        film = cv2.imencode(".png", np.zeros((9, 7), np.uint8))[1].tobytes()
        return await c.post("/v1/predict", files={{"image": film}}, params={{"include": ["maps", "film"]}})
assert asyncio.run(ask()).status_code == 200
service.close()
heavy = ("torch", "pandas", "pyarrow", "sklearn", "matplotlib", "ultralytics", "timm", "onnx", "classify", "detect")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_examples_are_served_by_name(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILM)
    (tmp_path / "b.jpg").write_bytes(jpeg(noise(9, 7)))
    (tmp_path / "examples.json").write_text(
        '{"examples": [{"id": "a", "title": "One", "file": "a.png", "boxes": '
        '[{"finding": "Opacity", "xyxy_px": [1, 2, 3, 4.5]}]}, {"id": "b-2", "title": "Two", "file": "b.jpg"}]}'
    )
    running = start(examples=tmp_path)
    assert running.ask("GET", "/v1/examples").json() == {
        "examples": [{"id": "a", "title": "One", "truth": True}, {"id": "b-2", "title": "Two", "truth": False}]
    }
    answer = running.ask("GET", "/v1/examples/a")
    assert (answer.content, answer.headers["content-type"]) == (FILM, "image/png")
    assert running.ask("GET", "/v1/examples/b-2").headers["content-type"] == "image/jpeg"
    boxes = [{"finding": "Opacity", "xyxy_px": [1, 2, 3, 4.5]}]
    assert running.ask("GET", "/v1/examples/a/truth").json() == {"boxes": boxes}
    assert why(running.ask("GET", "/v1/examples/b-2/truth")) == (404, "not_found")
    assert running.ask("GET", "/").status_code in (200, 404)  # the page may not be there


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ('{"examples": [{"id": "a", "title": "t", "file": "../a.png"}]}', "expected the file '../a.png' beside it"),
        ('{"examples": [{"id": "a/b", "title": "t", "file": "a.png"}]}', r"examples\.0\.id: string should match"),
        ('{"examples": [{"id": "a", "title": "t", "file": "c.txt"}]}', "expected PNG, JPEG or DICOM"),
        (
            '{"examples": [{"id": "a", "title": "t", "file": "a.png"}, {"id": "a", "title": "t", "file": "a.png"}]}',
            "two examples are called 'a'",
        ),
    ],
)
def test_wrong_examples_stop_the_start(start: Start, tmp_path: Path, listing: str, message: str) -> None:
    (tmp_path / "a.png").write_bytes(FILM)
    (tmp_path / "c.txt").write_text("text")
    (tmp_path / "examples.json").write_text(listing)
    with pytest.raises((DataError, ConfigError), match=message):
        start(examples=tmp_path)
