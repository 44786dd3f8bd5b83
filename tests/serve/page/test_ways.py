"""Every way around the page: keys alone, languages, token, refusals."""

from __future__ import annotations

import re

from playwright.sync_api import FileChooser, Page, expect

from tests.serve.page.conftest import OpenPage, answered, drawn, drop, grey_at, shown, until
from tests.serve.page.fake import Fake, film, png


def readout(page: Page) -> list[int]:
    """Window, level and zoom as the page says them, after the next frame."""
    grey_at(page, 0.5, 0.5)
    return [int(number) for number in re.findall(r"\d+", page.locator("#readout").inner_text())]


def test_arrow_keys_walk_the_findings(page: Page) -> None:
    answered(page)
    page.keyboard.press("ArrowDown")
    expect(page.locator("#findings")).to_be_focused()
    assert shown(page) == "Enlarged Cardiomediastinum"
    page.keyboard.press("ArrowDown")
    assert shown(page) == "Cardiomegaly"
    active = page.locator("#findings").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert shown(page) == "Enlarged Cardiomediastinum"
    page.keyboard.press("End")
    assert shown(page) == "Strange_thing"
    page.keyboard.press("Home")
    assert shown(page) == "Enlarged Cardiomediastinum"
    page.keyboard.press("Escape")
    assert (shown(page), drawn(page)) == ("", 0)


def test_space_hides_what_is_laid_over_while_held(page: Page) -> None:
    answered(page)
    page.keyboard.press("ArrowDown")
    until(page, "performance.getEntriesByName('weakray:maps').length")
    before = drawn(page)
    page.keyboard.down(" ")
    assert drawn(page) == 0
    page.keyboard.up(" ")
    assert drawn(page) == before > 0


def test_whole_way_by_keyboard(page: Page) -> None:
    choosers = list[FileChooser]()

    def chosen(chooser: FileChooser) -> None:
        choosers.append(chooser)

    page.on("filechooser", chosen)  # from the start: the browser takes a while to heed it
    page.wait_for_selector("#cards canvas")
    page.keyboard.press("e")
    expect(page.locator("#cards button").first).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".finding")
    page.keyboard.press("ArrowDown")
    assert shown(page) == "Enlarged Cardiomediastinum"
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("ArrowDown")  # the help is open: the page behind it rests
    assert shown(page) == "Enlarged Cardiomediastinum"
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("e")
    expect(page.locator("#start")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#start")).to_be_hidden()
    page.keyboard.press("o")
    for _ in range(200):
        if choosers:
            break
        page.wait_for_timeout(20)
    assert len(choosers) == 1


def test_tab_reaches_every_control_once_and_shows_where_it_is(page: Page) -> None:
    answered(page)
    seen = list[str]()
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => {
              const element = document.activeElement;
              return [element.id || element.textContent, getComputedStyle(element).outlineStyle];
            }"""
        )
        if here[0] in seen or page.evaluate("document.activeElement === document.body"):
            break
        assert here[1] == "solid", here
        seen.append(here[0])
    for name in (
        "open",
        "examples-button",
        "lang-fr",
        "theme",
        "help-button",
        "view",
        "drag-window",
        "Lungs",
        "invert",
        "zoom-in",
        "findings",
        "show-map",
        "opacity",
        "show-boxes",
    ):
        assert name in seen, name


def test_window_and_zoom_by_keys(page: Page) -> None:
    answered(page)
    whole = readout(page)
    assert whole[:2] == [255, 128]
    for key, expected in (("w", [222, 128]), ("W", [255, 128]), ("l", [255, 136]), ("L", [255, 128])):
        page.keyboard.press(key)
        assert readout(page)[:2] == expected, key
    page.keyboard.press("+")
    assert readout(page)[2] > whole[2]
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("i")
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("3")
    assert readout(page)[0] < 255
    expect(page.locator("[data-preset=lungs]")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("0")
    assert readout(page) == whole
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "false")


def test_digits_of_a_french_keyboard_count(page: Page) -> None:
    answered(page)
    press = "keys => document.body.dispatchEvent(new KeyboardEvent('keydown', {bubbles: true, ...keys}))"
    page.evaluate(press, {"key": "é", "code": "Digit2"})
    expect(page.locator("[data-preset=auto]")).to_have_attribute("aria-pressed", "true")
    page.evaluate(press, {"key": "i", "code": "KeyI", "ctrlKey": True})
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "false")


def test_invert_and_window_change_the_film(page: Page) -> None:
    answered(page)
    grey = grey_at(page, 0.5, 0.5)
    page.keyboard.press("i")
    assert grey_at(page, 0.5, 0.5) == 255 - grey
    page.keyboard.press("i")
    page.keyboard.press("L")
    assert grey_at(page, 0.5, 0.5) == grey + 8  # the window is as wide as the greys: eight levels are eight greys


def test_mouse_moves_windows_and_zooms(page: Page) -> None:
    answered(page)
    whole = readout(page)
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -240)
    for _ in range(100):
        zoomed = readout(page)
        if zoomed != whole:
            break
    assert zoomed[2] > whole[2]
    page.mouse.down()
    page.mouse.move(340, 330, steps=3)
    page.mouse.up()
    assert readout(page) == zoomed  # moved, not windowed
    page.mouse.down(button="right")
    page.mouse.move(400, 330, steps=3)
    page.mouse.up(button="right")
    assert readout(page)[0] == 255 + round(0.6 * 60)
    page.click("#drag-window")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(300, 350, steps=2)
    page.mouse.up()
    assert readout(page)[1] == round(127.5 + 0.6 * 50)
    page.mouse.dblclick(300, 300)
    assert readout(page)[2] == whole[2]


def test_a_click_on_the_film_brings_the_plain_film_back(page: Page) -> None:
    answered(page)
    page.keyboard.press("ArrowDown")
    page.mouse.click(300, 300)
    assert (shown(page), drawn(page)) == ("", 0)


def test_language_follows_the_browser_and_the_switch(open_page: OpenPage) -> None:
    page = answered(open_page(locale="fr-CA"))
    assert page.evaluate("document.documentElement.lang") == "fr"
    expect(page.locator("#headline")).to_have_text(
        "Probable\u00a0: Cardiomégalie. Possible\u00a0: Épanchement pleural."
    )
    expect(page.locator("[data-finding=Strange_thing] .name")).to_have_text("Strange thing")  # not in the dictionary
    assert page.locator("#help-button").get_attribute("aria-label") == "Touches et significations"
    page.keyboard.press("ArrowDown")
    page.get_by_role("button", name="English").click()
    assert page.evaluate("document.documentElement.lang") == "en"
    expect(page.locator("#headline")).to_have_text("Likely: Cardiomegaly. Possible: Pleural Effusion.")
    assert shown(page) == "Enlarged Cardiomediastinum"  # what was shown stays shown
    other = open_page(locale="de-DE")
    assert other.evaluate("document.documentElement.lang") == "en"


def test_help_lists_every_key_that_does_something(page: Page) -> None:
    page.keyboard.press("?")
    keys = page.evaluate("async () => (await import('/page/keys.js')).KEYS.map(row => [row.show, Object.keys(row.on)])")
    assert page.locator("#key-list dt").count() == len(keys)
    listed = page.locator("#key-list kbd").all_inner_texts()
    for show, on in keys:
        for key in on:
            if len(key) == 1 and key.isalnum():
                assert key.upper() in listed, (show, key)


def test_token_is_asked_for_kept_in_memory_and_sent(page: Page, server: Fake) -> None:
    server.token = "open-sesame"  # noqa: S105 - made up
    page.reload()
    dialog = page.get_by_role("dialog", name="This server asks for a token")
    expect(dialog).to_be_visible()
    expect(page.locator("#token-value")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The server did not accept that token.")
    assert page.locator("#token-value").input_value() == ""
    page.keyboard.type("open-sesame")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#bundle")).to_have_text("weakray 0.1.0, bundle abababababab")
    answered(page)
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    expect(dialog).to_be_visible()  # forgotten


def test_refused_token_dialog_is_an_error_in_words(page: Page, server: Fake) -> None:
    server.token = "open-sesame"  # noqa: S105 - made up
    drop(page, png(film()))
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("The server wants a token")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#token-value")).to_be_focused()
    page.keyboard.type("open-sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector(".finding")


def test_refusals_are_said_in_words_with_the_servers_own(page: Page, server: Fake) -> None:
    for status, words in (
        (413, "The file is larger than the server takes."),
        (415, "This is no kind of file that the server reads"),
        (422, "The file is broken, or holds no film."),
        (500, "This is not your film’s fault."),
    ):
        server.refusals.append((status, f"expected {status}, got something else", {}))
        drop(page, b"no film at all")
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.locator("#alert-detail")).to_have_text(f"The server says: expected {status}, got something else")
        expect(page.locator("#alert-retry")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#start")).to_be_visible()


def test_busy_server_is_asked_again_when_it_says(page: Page, server: Fake) -> None:
    server.refusals += [(429, "expected a free place, got none", {"Retry-After": "2"})]
    drop(page, png(film()))
    expect(page.locator("#headline")).to_have_text("The server is busy. Asking again in 2 seconds.")
    page.wait_for_selector(".finding")
    assert len(server.bodies) == 2


def test_silent_server_is_said(page: Page) -> None:
    page.route("**/v1/predict*", lambda route: route.abort())
    page.evaluate("window.kept = console.error; console.error = () => null")
    drop(page, png(film()))
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")


def test_drop_without_a_file_is_said(page: Page) -> None:
    drop(page)
    expect(page.get_by_role("alert")).to_contain_text("What you dropped holds no file.")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#start")).to_be_visible()
