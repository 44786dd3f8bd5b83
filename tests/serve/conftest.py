"""A server around the tiny bundle, in this process: requests go through ASGI, nothing listens anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.app import create_app
from serve.service import Service
from serve.settings import ServeConfig
from tests.bundle.conftest import WriteTiny, graphs, one_thread, write_tiny  # noqa: F401 - pytest finds fixtures by name
from weakray.config import validate

Ask = Callable[..., httpx.Response]


class Running:
    """A service behind its application, asked one request after another or several at once.

    Args:
        service: what answers.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.app = create_app(service)

    def together(self, *calls: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> list[Any]:
        """What the calls return, all made at once."""

        async def all_of_them() -> list[Any]:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return list(await asyncio.gather(*(call(client) for call in calls)))

        return asyncio.run(all_of_them())

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One answer."""
        (answer,) = self.together(lambda client: client.request(method, path, **more))
        assert isinstance(answer, httpx.Response)
        return answer

    def predict(self, *films: bytes, include: tuple[str, ...] = (), **more: Any) -> httpx.Response:
        """The answer to a study of some films."""
        files = [("image", ("film", film)) for film in films]
        return self.ask("POST", "/v1/predict", params={"include": list(include)}, files=files, **more)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, write_tiny: WriteTiny) -> Path:  # noqa: F811
    """The tiny bundle's folder; not to be changed."""
    folder = tmp_path_factory.mktemp("served") / "bundle"
    write_tiny(folder)
    return folder


@pytest.fixture
def start(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Starts a server of the tiny bundle under some settings; it ends with the test."""
    monkeypatch.delenv("WEAKRAY_TOKEN", raising=False)
    started: list[Service] = []

    def begin(**settings: Any) -> Running:
        service = Service(validate(ServeConfig, {"bundle": tiny_bundle, "threads": 1} | settings))
        started.append(service)
        return Running(service)

    yield begin
    for service in started:
        service.close()


@pytest.fixture
def running(start: Callable[..., Running]) -> Running:
    """A server under the settings as they come."""
    return start()
