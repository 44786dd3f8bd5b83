"""Desk, tablet and telephone; names, roles and what the eye can tell apart."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.serve.page.conftest import DESK, OpenPage, answered, drawn, shown
from tests.serve.page.fake import FINDINGS

TABLET = {"viewport": {"width": 1024, "height": 768}, "has_touch": True, "is_mobile": True}

# Elements that a reader operates, without a name to call them by.
_OPERATED = "button, input, [role], [tabindex], dialog, section"
_NAMELESS = """operated => [...document.querySelectorAll(operated)].filter(element => {
  if (!element.checkVisibility() || ["presentation", "none"].includes(element.getAttribute("role"))) return false;
  const by = element.getAttribute("aria-labelledby");
  const label = by ? document.getElementById(by)?.textContent : element.getAttribute("aria-label");
  const own = element.matches("button, [role=tab], [role=option], [role=alert]") ? element.textContent : "";
  return !((label || own || element.labels?.[0]?.textContent || "").trim());
}).map(element => element.outerHTML.slice(0, 90))"""

_CLIPPED = """() => [...document.querySelectorAll("button, .name, #headline, .group-name")].filter(element =>
  element.checkVisibility() && (element.scrollWidth > element.clientWidth + 1)).map(element => element.textContent)"""


def scrolls(page: Page, selector: str) -> bool:
    return bool(
        page.locator(selector).evaluate("e => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1")
    )


@pytest.mark.parametrize("locale", ["en", "fr"])
def test_desk_needs_no_scrolling(open_page: OpenPage, locale: str) -> None:
    page = open_page(locale=locale)
    page.click("#cards li:first-child button")  # with truth: every control is there
    page.wait_for_selector(".finding")
    assert len(FINDINGS) == 14
    for key in ("t", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
        assert not scrolls(page, "html")
        assert not scrolls(page, "#findings")
        assert not scrolls(page, "#detail")
    assert page.evaluate(_CLIPPED) == []
    assert page.locator("#layers").evaluate("e => e.clientHeight") < 50  # one line
    page.keyboard.press("?")
    assert not scrolls(page, "#help")


@pytest.mark.parametrize("size", [(1024, 768), (768, 1024)])
def test_tablet_holds_film_findings_and_tools(open_page: OpenPage, size: tuple[int, int]) -> None:
    page = answered(open_page(**{**TABLET, "viewport": {"width": size[0], "height": size[1]}}))
    assert not scrolls(page, "html")
    view = page.locator("#view").bounding_box()
    assert view
    assert view["width"] * view["height"] > 0.35 * size[0] * size[1]
    heights = page.locator("button:visible, .finding").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 40  # a finger's width


def test_tap_shows_a_finding_and_a_second_tap_the_plain_film(open_page: OpenPage) -> None:
    page = answered(open_page(**TABLET))
    page.tap("[data-finding=Cardiomegaly]")
    assert shown(page) == "Cardiomegaly"
    assert drawn(page) > 0
    page.tap("[data-finding=Cardiomegaly]")
    assert (shown(page), drawn(page)) == ("", 0)
    page.tap("[data-finding=Cardiomegaly]")
    page.tap("#view")
    assert shown(page) == ""


def test_pinch_zooms(open_page: OpenPage) -> None:
    page = answered(open_page(**TABLET))
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[int, int]) -> None:
        spots = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    def zoom() -> int:
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return int("".join(filter(str.isdigit, page.locator("#readout").inner_text().rpartition("zoom")[2])))

    fitted = zoom()
    send("touchStart", (250, 300), (350, 300))
    send("touchMove", (225, 300), (375, 300))
    send("touchMove", (200, 300), (400, 300))
    send("touchEnd")
    assert abs(zoom() / fitted - 2) < 0.05


def test_telephone_scrolls_down_to_the_findings(open_page: OpenPage) -> None:
    page = answered(open_page(**{**TABLET, "viewport": {"width": 390, "height": 844}}))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.tap("[data-finding=Cardiomegaly]")
    assert shown(page) == "Cardiomegaly"


@pytest.mark.parametrize("locale", ["en", "fr"])
def test_everything_has_a_name(open_page: OpenPage, locale: str) -> None:
    page = open_page(locale=locale)
    page.wait_for_selector("#cards canvas")
    assert page.evaluate(_NAMELESS, _OPERATED) == []
    answered(page, films=2)
    page.keyboard.press("ArrowDown")
    assert page.evaluate(_NAMELESS, _OPERATED) == []
    page.keyboard.press("?")
    assert page.evaluate(_NAMELESS, _OPERATED) == []


def test_roles_are_what_they_look_like(page: Page) -> None:
    answered(page)
    assert page.get_by_role("listbox", name="Findings").count() == 1
    assert page.get_by_role("option").count() == len(FINDINGS)
    assert page.get_by_role("group", name="Flagged").get_by_role("option").count() == 3
    assert page.get_by_role("heading", level=1).inner_text() == "weakray"
    film = page.locator("#view")
    assert film.get_attribute("aria-label") == "Film. Plain film."
    page.keyboard.press("ArrowDown")
    assert "Enlarged Cardiomediastinum: likely, 72" in str(film.get_attribute("aria-label"))
    ids = page.locator("[id]").evaluate_all("all => all.map(element => element.id)")
    assert len(ids) == len(set(ids))


def test_theme_is_dark_until_asked_otherwise(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 24)"
    page.keyboard.press("d")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(252, 251, 248)"
    assert page.locator("#theme").inner_text() == "Dark"


def test_stillness_where_motion_is_unwanted(open_page: OpenPage, server: Any) -> None:
    page = open_page(reduced_motion="reduce", viewport=DESK)
    moving = """() => [...document.querySelectorAll("*")].map(element => getComputedStyle(element)).filter(
      style => style.animationName !== "none" || parseFloat(style.transitionDuration) > 0).length"""
    assert page.evaluate(moving) == 0
    assert open_page().evaluate(moving) == 1  # the line that runs while a film is read
