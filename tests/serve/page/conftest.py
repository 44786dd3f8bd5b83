"""A real browser (Debian's Chromium, driven by Playwright) on the page, before a server made for the tests."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

from tests.serve.page.fake import Fake, film, png, serving

WAIT_S = 20  # on a machine that others use too
expect.set_options(timeout=1000 * WAIT_S)
os.environ["PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"] = "1"  # the driver brings no browser of its own
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESK: ViewportSize = {"width": 1280, "height": 720}

_DROP = """files => {
  const data = new DataTransfer();
  for (const [name, text] of files) data.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
  for (const kind of ["dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


# Playwright holds an event loop while it runs: of a module, not of the session, so that other tests can run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: `make browser` brings it where apt and root can")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def server() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: Fake) -> Iterator[OpenPage]:
    """Opens the page in a context of its own; at the end, whatever it complained of fails the test."""
    contexts, complaints = [], list[str]()

    def heard(message: ConsoleMessage) -> None:
        # Chromium reports every refused request as an error of its own: those are the tests' doing.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def open_one(**settings: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, "locale": "en-GB", **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * WAIT_S)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", heard)
        page.goto(server.url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """At 1280 × 720, in English."""
    return open_page()


def drop(page: Page, *contents: bytes, names: tuple[str, ...] = ()) -> None:
    """Drops files on the page."""
    given = names or tuple(f"film{i}.png" for i in range(len(contents)))
    page.evaluate(
        _DROP, [[name, base64.b64encode(content).decode()] for name, content in zip(given, contents, strict=True)]
    )


def until(page: Page, expression: str) -> None:
    """Waits for an expression to be true. Playwright's own waiting evaluates text, which the page's policy forbids."""
    end = time.monotonic() + WAIT_S
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(10)


def answered(page: Page, films: int = 1) -> Page:
    """The page with an answer on it."""
    drop(page, *(png(film(seed=i)) for i in range(films)))
    page.wait_for_selector(".finding")
    return page


def drawn(page: Page) -> int:
    """How many pixels of the upper canvas are not transparent."""
    return int(
        page.evaluate(
            """() => {
              const canvas = document.getElementById("finding-layer");
              const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
              let count = 0;
              for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
              return count;
            }"""
        )
    )


def grey_at(page: Page, across: float, down: float) -> int:
    """Red value of the lower canvas at fractions of the view, after the next frame."""
    return int(
        page.evaluate(
            """([x, y]) => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
              const canvas = document.getElementById("film-layer");
              done(canvas.getContext("2d").getImageData(canvas.width * x, canvas.height * y, 1, 1).data[0]);
            })))""",
            [across, down],
        )
    )


def shown(page: Page) -> str:
    """The finding that the page shows; empty for the plain film."""
    return str(page.evaluate("document.documentElement.dataset.shown"))
