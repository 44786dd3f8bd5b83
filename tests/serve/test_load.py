"""How much is held, what waits for what, and what is said to those who must come back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import httpx
import numpy as np
import pytest

from serve.admission import Admission
from serve.batching import Batcher, Outcome
from serve.engine import Loaded
from serve.refusals import Refusal
from serve.settings import LoadConfig
from tests.serve.conftest import Running
from tests.serve.films import grey, png
from weakray.bundle.runtime import Prepared

FILM = png(grey(16, 32, 51))
Start = Callable[..., Running]


class SlowBundle:
    """Stands for a bundle whose passes take as long as the test wants; a pass gives back what it was given."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Semaphore(0)
        self.passes: list[int] = []
        self.maps: list[bool] = []
        self.fails = False

    def predict_prepared(self, prepared: list[Any], *, with_maps: bool) -> list[Any]:
        self.passes.append(len(prepared))
        self.maps.append(with_maps)
        self.began.release()
        assert self.go.wait(30)
        if self.fails:
            raise RuntimeError("broken")
        return prepared


def slow() -> tuple[SlowBundle, Loaded]:
    bundle = SlowBundle()
    return bundle, Loaded(bundle, "0" * 64)  # type: ignore[arg-type]


def image(number: int) -> Prepared:
    return number  # type: ignore[return-value]


def number(future: Future[Outcome]) -> Any:
    return future.result(10).prediction


def test_what_comes_during_a_pass_makes_up_the_next() -> None:
    bundle, loaded = slow()
    told: list[int] = []
    batcher = Batcher(4, lambda images, _: told.append(images))
    first = batcher.submit(loaded, image(0), with_maps=False)
    assert bundle.began.acquire(timeout=10)  # an idle batcher begins at once, with one image
    later = [batcher.submit(loaded, image(n), with_maps=n == 3) for n in range(1, 8)]
    assert len(batcher) == 7
    time.sleep(0.02)
    bundle.go.set()
    assert [number(future) for future in (first, *later)] == list(range(8))
    assert bundle.passes == [1, 4, 3]
    assert bundle.maps == [False, True, False]
    assert later[-1].result().queue_s >= 0.02
    batcher.close()
    assert told == [1, 4, 3]


def test_a_pass_holds_images_of_one_bundle_alone() -> None:
    (before, old), (after, new) = slow(), slow()
    batcher = Batcher(8, lambda *_: None)
    futures = [batcher.submit(old, image(0), with_maps=False)]
    assert before.began.acquire(timeout=10)
    futures += [
        batcher.submit(bundle, image(n), with_maps=False) for n, bundle in enumerate([old, old, new, new, new], 1)
    ]
    before.go.set()
    after.go.set()
    assert [number(future) for future in futures] == list(range(6))
    assert (before.passes, after.passes) == ([1, 2], [3])
    batcher.close()


def test_who_left_takes_no_place_in_a_pass() -> None:
    bundle, loaded = slow()
    batcher = Batcher(8, lambda *_: None)
    futures = [batcher.submit(loaded, image(n), with_maps=False) for n in range(1)]
    assert bundle.began.acquire(timeout=10)
    futures += [batcher.submit(loaded, image(n), with_maps=False) for n in range(1, 4)]
    assert futures[2].cancel()
    bundle.go.set()
    batcher.close()
    assert bundle.passes == [1, 2]
    with pytest.raises(CancelledError):
        futures[2].result()
    assert number(futures[3]) == 3


def test_a_failing_pass_is_told_to_its_requests_and_the_next_goes_on() -> None:
    bundle, loaded = slow()
    bundle.fails = True
    bundle.go.set()
    batcher = Batcher(8, lambda *_: None)
    with pytest.raises(RuntimeError, match="broken"):
        batcher.submit(loaded, image(0), with_maps=False).result(10)
    bundle.fails = False
    assert number(batcher.submit(loaded, image(1), with_maps=False)) == 1
    batcher.close()


def test_a_closed_batcher_has_done_all_and_takes_no_more() -> None:
    bundle, loaded = slow()
    batcher = Batcher(2, lambda *_: None)
    futures = [batcher.submit(loaded, image(n), with_maps=False) for n in range(5)]
    threading.Timer(0.1, bundle.go.set).start()
    batcher.close()
    assert [number(future) for future in futures if future.done()] == list(range(5))
    assert not batcher.alive
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(loaded, image(0), with_maps=False)


def test_admission_counts_requests_and_bytes() -> None:
    admission = Admission(LoadConfig(requests=2, held_bytes=100), lambda: 3.2)
    with admission.admit() as one, admission.admit() as two:
        one.add(60)
        two.add(40)
        with pytest.raises(Refusal, match="fill the memory set aside for them; try again in 4 s") as refusal:
            one.add(1)
        assert (refusal.value.status, refusal.value.headers) == (429, {"Retry-After": "4"})
        with pytest.raises(Refusal, match="2 requests are being answered; try again in 4 s"), admission.admit():
            pytest.fail("let in")
        assert (admission.requests, admission.held_bytes) == (2, 100)
    assert (admission.requests, admission.held_bytes) == (0, 0)


@pytest.mark.parametrize(("wait_s", "told"), [(0.0, "1"), (1e9, "30")])
def test_nobody_is_sent_away_for_no_time_or_for_good(wait_s: float, told: str) -> None:
    assert Admission(LoadConfig(), lambda: wait_s).busy("full").headers == {"Retry-After": told}


def held(running: Running, bundle: SlowBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no pass of the running server end until `bundle.go` is set."""
    current = running.service.engine.current.bundle
    through = type(current).predict_prepared

    def wait(self: Any, prepared: Any, *, with_maps: bool) -> Any:
        bundle.predict_prepared(prepared, with_maps=with_maps)
        return through(self, prepared, with_maps=with_maps)

    monkeypatch.setattr(type(current), "predict_prepared", wait)


def test_beyond_its_places_a_server_says_429_and_answers_all_it_took(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, bundle = start(load={"requests": 3}), SlowBundle()
    held(running, bundle, monkeypatch)

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/predict", files={"image": FILM})

    async def late(client: httpx.AsyncClient) -> list[httpx.Response]:
        while running.service.admission.requests < 3:
            await asyncio.sleep(0.001)
        refused = [await ask(client), await ask(client)]
        bundle.go.set()
        return refused

    first, second, third, refused = running.together(ask, ask, ask, late)
    assert [answer.status_code for answer in (first, second, third)] == [200] * 3
    for answer in refused:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "3 requests are being answered" in answer.json()["error"]["message"]
    figures = running.ask("GET", "/metrics").text
    assert 'weakray_refused_total{reason="busy"} 2.0' in figures
    assert "weakray_held_requests 0.0" in figures


def test_an_answer_that_takes_too_long_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running, bundle = start(load={"answer_timeout_s": 0.3}), SlowBundle()
    held(running, bundle, monkeypatch)
    before = time.monotonic()
    answer = running.predict(FILM, FILM)
    assert time.monotonic() - before < 5
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert running.service.admission.requests == 0
    bundle.go.set()
    assert running.predict(FILM).status_code == 200


def test_a_client_that_leaves_frees_its_place(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running, bundle = start(load={"requests": 1, "batch_images": 1}), SlowBundle()
    held(running, bundle, monkeypatch)
    sent: list[str] = []

    async def leave() -> None:
        form = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + FILM + b"\r\n--b--\r\n"
        messages = iter([{"type": "http.request", "body": form, "more_body": False}])

        async def receive() -> dict[str, Any]:
            message = next(messages, None)
            if message is None:
                await asyncio.to_thread(bundle.began.acquire)  # it leaves once its pass has begun
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            sent.append(message["type"])

        headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": headers}
        await running.app(scope | {"http_version": "1.1", "scheme": "http"}, receive, send)  # type: ignore[arg-type]

    asyncio.run(leave())
    assert running.service.admission.requests == 0
    assert 'weakray_refused_total{reason="gone"} 1.0' in running.service.metrics.text().decode()
    bundle.go.set()
    assert running.predict(FILM).status_code == 200


def test_figures(running: Running) -> None:
    assert running.predict(FILM, FILM).status_code == 200
    assert running.ask("GET", "/none").status_code == 404
    lines = running.ask("GET", "/metrics").text.splitlines()
    for line in (
        'weakray_positive_total{finding="Effusion"} 2.0',
        'weakray_disagreement_total{finding="Opacity",how="box_without_decision"} 2.0',
        'weakray_images_total{source="png"} 2.0',
        'weakray_refused_total{reason="not_found"} 1.0',
        'weakray_request_seconds_count{path="/v1/predict",status="200"} 1.0',
        'weakray_request_seconds_count{path="other",status="404"} 1.0',
        'weakray_predict_part_seconds_count{part="decode"} 1.0',
        "weakray_batch_images_sum 2.0",
        "weakray_queue_images 0.0",
        f'weakray_bundle_info{{sha256="{running.service.engine.current.sha256}"}} 1.0',
    ):
        assert line in lines


def test_a_sample_of_many_clients(start: Start) -> None:
    running = start(load={"requests": 8})

    async def ask(client: httpx.AsyncClient) -> int:
        return (await client.post("/v1/predict", files={"image": FILM})).status_code

    asks: list[Callable[[httpx.AsyncClient], Awaitable[int]]] = [ask] * 60
    statuses = running.together(*asks)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 8
    assert running.service.admission.requests == 0
    np.testing.assert_array_equal(len(running.service.batcher), 0)
