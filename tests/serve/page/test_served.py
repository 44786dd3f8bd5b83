"""The page as the real server sends it: its policy, its answers, its token."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bench.page import served
from tests.serve.page.conftest import DESK, drop
from tests.serve.page.fake import film, png

TOKEN = "0123456789abcdef-made-up"  # noqa: S105 - made up


@pytest.mark.timeout(120)
def test_real_server(browser: Browser, tiny_bundle: Path) -> None:
    complaints = list[str]()
    with served(tiny_bundle, "--threads", "1", token=TOKEN) as url:
        context = browser.new_context(viewport=DESK, locale="en")
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(url)
        expect(page.locator("#token-value")).to_be_focused()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#bundle")).to_contain_text("bundle ")
        drop(page, png(film()))
        page.wait_for_selector(".finding")
        assert page.locator(".finding").count() == 3
        page.keyboard.press("ArrowDown")
        expect(page.locator("#detail h3")).to_contain_text("Opacity")
        drop(page, b"no film at all")
        expect(page.get_by_role("alert")).to_contain_text("The server says: ")
        page.keyboard.press("Escape")
        drop(page, png(film().astype("uint16") * 200))  # 16 bits: the film that is shown is the server's
        expect(page.locator("#film-name")).to_contain_text("200 × 220")
        context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []
