"""The page's modules, function by function, in one page of the browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.serve.page.fake import serving


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    with serving() as server:
        page = browser.new_page()
        page.goto(server.url)
        yield page
        page.close()


def test_words_and_percentages_never_contradict(modules: Page) -> None:
    said = modules.evaluate(
        """async () => {
          const { sureness } = await import("/page/words.js");
          return [0.9, 0.8996, 0.65, 0.6496, 0.2, 0.1999, 0.05, 0.0499, 0.004, 0.997].map(sureness);
        }"""
    )
    assert [text.replace("\u00a0", " ") for text in said] == [
        "very likely, 90 %",
        "likely, 89 %",
        "likely, 65 %",
        "possible, 64 %",
        "possible, 20 %",
        "unlikely, 19 %",
        "unlikely, 5 %",
        "very unlikely, 4 %",
        "very unlikely, < 1 %",
        "very likely, > 99 %",
    ]


def test_overlap_of_half_open_boxes(modules: Page) -> None:
    found = modules.evaluate("async () => (await import('/page/words.js')).iou([0, 0, 10, 10], [5, 0, 15, 10])")
    assert abs(found - 50 / 150) < 1e-9


def test_only_plain_files_are_shown_by_the_browser(modules: Page) -> None:
    sniffed = modules.evaluate(
        """async () => {
          const { sniff } = await import("/page/film.js");
          const start = [0x89, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 9, 0, 0, 0, 7];
          const png = (depth, colour, more = "") => new Blob([new Uint8Array([...start, depth, colour]), more]);
          const jpeg = (more = "") => new Blob([new Uint8Array([0xff, 0xd8, 0xff]), more]);
          const pngs = [png(8, 0), png(16, 0), png(8, 2), png(8, 6), png(8, 3, "....tRNS")];
          const files = [...pngs, jpeg(), jpeg("....Exif"), new Blob(["text"])];
          return Promise.all(files.map(sniff));
        }"""
    )
    assert [(entry["type"].split("/")[1], entry["local"]) for entry in sniffed] == [
        ("png", True),
        ("png", False),
        ("png", True),
        ("png", False),
        ("png", False),
        ("jpeg", True),
        ("jpeg", False),
        ("octet-stream", False),
    ]


def test_tone_table(modules: Page) -> None:
    table = modules.evaluate("async () => [...(await import('/page/film.js')).toneTable(100, 100, false)]")
    assert [table[i] for i in (0, 50, 75, 100, 150, 255)] == [0, 0, 64, 128, 255, 255]


def test_tone_reaches_grey_films_and_every_plane_of_colour_films(modules: Page) -> None:
    shown = modules.evaluate(
        """async () => {
          const { Film } = await import("/page/film.js");
          return [[10, 10, 10, 255, 200, 200, 200, 255], [10, 90, 200, 255, 0, 0, 0, 255]].map(values => {
            const film = new Film(2, 1, new ImageData(Uint8ClampedArray.from(values), 2, 1));
            const first = film.picture({ level: 127.5, width: 255, invert: true });
            film.release();
            const again = film.picture({ level: 127.5, width: 255, invert: true });
            return [first, again].map(canvas => [...canvas.getContext("2d").getImageData(0, 0, 2, 1).data]);
          });
        }"""
    )
    assert shown[0] == [[245, 245, 245, 255, 55, 55, 55, 255]] * 2
    assert shown[1] == [[245, 165, 55, 255, 255, 255, 255, 255]] * 2


def test_presets_look_at_the_films_own_greys(modules: Page) -> None:
    found = modules.evaluate(
        """async () => {
          const { Film } = await import("/page/film.js");
          const values = Uint8ClampedArray.from({ length: 400 }, (_, i) => (i % 4 === 3 ? 255 : 100 + (i >> 2)));
          const film = new Film(20, 5, new ImageData(values, 20, 5));
          return ["full", "auto", "lungs", "mediastinum"].map(name => film.preset(name));
        }"""
    )
    # a hundred pixels of greys 100…199: the share p of them does not exceed 99 + 100 p
    assert [(tone["level"] - tone["width"] / 2, tone["level"] + tone["width"] / 2) for tone in found] == [
        (0, 255),
        (100, 198),
        (100, 159),
        (139, 199),
    ]


def test_maps_are_enlarged_smoothly_and_in_place(modules: Page) -> None:
    fine = modules.evaluate(
        """async () => {
          const { enlarged } = await import("/page/maps.js");
          const flat = enlarged(new Float32Array(6).fill(7), 3, 2, 12, 8);
          const peak = enlarged(new Float32Array([0, 0, 0, 0, 0, 9]), 3, 2, 12, 8);
          return [[...flat], [...peak]];
        }"""
    )
    assert all(abs(value - 7) < 1e-5 for value in fine[0])
    assert fine[1].index(max(fine[1])) % 12 in (10, 11)
    assert fine[1].index(max(fine[1])) // 12 in (6, 7)


def test_dictionaries_have_the_same_texts_places_and_plurals(modules: Page) -> None:
    en, fr = (modules.evaluate(f"async () => (await import('/page/{name}.js')).default") for name in ("en", "fr"))
    assert en.keys() == fr.keys()
    for key, text in en.items():
        assert type(text) is type(fr[key]), key
        forms = (
            [(text, fr[key])] if isinstance(text, str) else [(text[form], fr[key][form]) for form in ("one", "other")]
        )
        for ours, theirs in forms:
            assert sorted(re.findall(r"{\w+}", ours)) == sorted(re.findall(r"{\w+}", theirs)), key
            assert theirs.strip(), key


def test_every_text_is_used_and_every_text_used_is_there(modules: Page) -> None:
    sources = modules.evaluate(
        """async () => {
          const names = ["api", "detail", "dialogs", "examples", "i18n", "keys", "list", "main", "reading", "stage",
            "thumbs", "truth", "words"];
          const texts = await Promise.all(names.map(name => fetch(`/page/${name}.js`).then(answer => answer.text())));
          return texts.join("\\n") + document.documentElement.outerHTML;
        }"""
    )
    texts = modules.evaluate("async () => Object.keys((await import('/page/en.js')).default)")
    built = re.compile(r"^(error\d+|flaggedGroup|twiceGroup|absentGroup)$")  # their names are put together
    unused = [key for key in texts if not built.match(key) and not re.search(rf"[\"']{key}[\"']", sources)]
    assert unused == []
    said = set(re.findall(r"data-(?:say|label)=\"(\w+)\"", sources)) | set(re.findall(r"\bsay\(\"(\w+)\"", sources))
    assert said - set(texts) == set()
