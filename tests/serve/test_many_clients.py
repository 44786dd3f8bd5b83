"""Many clients at once: every request is answered or sent away with 429, and memory does not grow with them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.serve.films import noise, png
from tests.serve.processes import ServerProcess


async def press(url: str, clients: int, seconds: float) -> Counter[int]:
    """Statuses of what so many clients were answered; they go on without a pause, whatever the answer."""
    until, statuses = time.monotonic() + seconds, Counter[int]()

    async def one(number: int) -> None:
        film = png(noise(300, 200 + number % 7, number))
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=60) as client:  # noqa: S501
            while time.monotonic() < until:
                answer = await client.post("/v1/predict", files={"image": film}, params={"include": ["maps", "film"]})
                statuses[answer.status_code] += 1

    await asyncio.gather(*map(one, range(clients)))
    return statuses


@pytest.mark.parametrize(
    ("clients", "seconds"), [(40, 2), pytest.param(200, 120, marks=pytest.mark.soak)], ids=["sample", "soak"]
)
def test_no_error_but_429_and_memory_as_with_ten_clients(clients: int, seconds: float, tiny_bundle: Path) -> None:
    with ServerProcess(tiny_bundle, "--load.requests", "16") as server:
        few = asyncio.run(press(server.url, 10, seconds))
        with_ten = server.memory_bytes()
        many = asyncio.run(press(server.url, clients, seconds))
        with_many = server.memory_bytes()
        print(f"{few} {many}, resident MiB {with_ten >> 20} and {with_many >> 20}")
        assert set(few) == {200}
        assert set(many) == {200, 429}
        assert with_many <= 1.15 * with_ten
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            figures = client.get("/metrics").text
        assert "weakray_held_requests 0.0" in figures
        assert (
            f'weakray_request_seconds_count{{path="/v1/predict",status="200"}} {float(few[200] + many[200])}' in figures
        )
        assert server.stop() == 0
