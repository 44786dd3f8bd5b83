"""Dropping films, and what the page says of the answer."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.serve.page.conftest import answered, drawn, drop, grey_at, shown, until
from tests.serve.page.fake import FINDINGS, Fake, film, png


def test_png_is_shown_before_the_answer(page: Page, server: Fake) -> None:
    server.hold.clear()
    drop(page, png(film()))
    until(page, "document.getElementById('readout').textContent !== ''")
    assert grey_at(page, 0.5, 0.5) > 60
    expect(page.locator("#headline")).to_have_text("Reading the film…")
    assert page.locator(".finding").count() == 0
    server.hold.set()
    page.wait_for_selector(".finding")
    assert page.locator(".finding").count() == len(FINDINGS)


def test_findings_stand_by_decision_then_down_the_class_tree(page: Page) -> None:
    answered(page)
    assert page.locator(".group-name").all_inner_texts() == ["Flagged", "Look twice", "Below threshold"]
    flagged = page.locator(".finding.flagged")
    assert flagged.evaluate_all("rows => rows.map(r => [r.dataset.finding, r.style.getPropertyValue('--depth')])") == [
        ["Enlarged Cardiomediastinum", "0"],
        ["Cardiomegaly", "1"],
        ["Pleural Effusion", "0"],
    ]
    assert page.locator(".finding.twice").all_inner_texts()[0].split() == ["Consolidation", "unlikely", "11", "%"]
    absent = page.locator(".finding.absent")
    assert absent.evaluate_all(
        "rows => rows.slice(0, 4).map(r => [r.dataset.finding, r.style.getPropertyValue('--depth')])"
    ) == [
        ["Lung Opacity", "0"],
        ["Pneumonia", "1"],  # its parent, Consolidation, stands in another group
        ["Atelectasis", "1"],
        ["Lung Lesion", "1"],
    ]


def test_headline_says_what_is_flagged_and_what_wants_a_second_look(page: Page) -> None:
    answered(page)
    # Enlarged Cardiomediastinum gives way to Cardiomegaly, which says more
    expect(page.locator("#headline")).to_have_text("Likely: Cardiomegaly. Possible: Pleural Effusion.")
    expect(page.locator("#standfirst")).to_have_text("Look twice at Consolidation: a box, yet below threshold.")


def test_confidence_stands_in_words_and_number_with_the_threshold(page: Page) -> None:
    row = answered(page).locator("[data-finding='Pleural Effusion']")
    assert row.get_attribute("aria-label") == (
        "Pleural Effusion: possible, 33\u00a0%. Threshold 25\u00a0%: flagged. 2 boxes, best score 0.81."
    )
    bar, fill, tick = (row.locator(name).bounding_box() for name in (".bar", ".fill", ".threshold"))
    assert bar
    assert fill
    assert tick
    assert abs(fill["width"] / bar["width"] - 0.33) < 0.01
    assert abs((tick["x"] + tick["width"] / 2 - bar["x"]) / bar["width"] - 0.25) < 0.01
    assert page.locator("[data-finding='Pneumonia'] .number").inner_text() == "< 1\u00a0%"


def test_disagreement_is_said(page: Page) -> None:
    answered(page)
    detail = page.locator("#detail")
    page.hover("[data-finding='Consolidation']")
    expect(detail).to_contain_text("They disagree: the detector drew a box, the classifier stays below its threshold.")
    page.hover("[data-finding='Enlarged Cardiomediastinum']")
    expect(detail).to_contain_text("They disagree: the classifier flags it, the detector drew no box.")
    page.hover("[data-finding='Cardiomegaly']")
    expect(detail).to_contain_text("Classifier and detector agree.")
    page.hover("[data-finding='Pneumothorax']")
    expect(detail).to_contain_text("Its map is flat: no place stands out.")


def test_pointing_shows_the_map_and_boxes_and_leaving_the_plain_film(page: Page) -> None:
    answered(page)
    assert drawn(page) == 0
    page.hover("[data-finding='Cardiomegaly']")
    until(page, "performance.getEntriesByName('weakray:maps').length")
    both = drawn(page)
    page.mouse.move(300, 300)
    assert (drawn(page), shown(page)) == (0, "")
    page.hover("[data-finding='Lung Opacity']")  # a map without boxes
    assert 0 < drawn(page) != both
    page.click("#show-map")
    page.hover("[data-finding='Cardiomegaly']")
    boxes = drawn(page)
    assert 0 < boxes < both


def test_map_and_boxes_lie_where_the_answer_says(page: Page) -> None:
    answered(page)
    until(page, "performance.getEntriesByName('weakray:maps').length")
    page.hover("[data-finding='Cardiomegaly']")  # its map peaks in column 1 of 6, row 4 of 7
    found = page.evaluate(
        """() => {
          const canvas = document.getElementById("finding-layer");
          const { width, height } = canvas;
          const scale = Math.min((width - 28) / 200, (height - 28) / 220);
          const [left, top] = [(width - 200 * scale) / 2, (height - 220 * scale) / 2];
          const context = canvas.getContext("2d");
          const alpha = (x, y) => context.getImageData(left + x * scale, top + y * scale, 1, 1).data[3];
          return [alpha(50, 141), alpha(180, 30), alpha(60, 120), alpha(170, 150)];
        }"""
    )
    peak, far, *edges = found
    assert peak > 100
    assert far == 0
    assert all(edge > 200 for edge in edges)  # the box's left and right side


def test_opacity_thins_the_map(page: Page) -> None:
    answered(page)
    until(page, "performance.getEntriesByName('weakray:maps').length")
    page.click("[data-finding='Cardiomegaly']")
    page.keyboard.press("b")  # without its boxes
    strongest = """() => {
      const canvas = document.getElementById("finding-layer");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let most = 0;
      for (let i = 3; i < data.length; i += 4) most = Math.max(most, data[i]);
      return most;
    }"""
    assert page.evaluate(strongest) in (127, 128)
    page.locator("#opacity").fill("100")
    assert page.evaluate(strongest) == 255


def test_a_chosen_finding_stays_until_it_is_chosen_again(page: Page) -> None:
    answered(page)
    page.click("[data-finding='Cardiomegaly']")
    page.mouse.move(300, 300)
    assert shown(page) == "Cardiomegaly"
    page.hover("[data-finding='Mass']")
    assert shown(page) == "Mass"
    page.mouse.move(300, 300)
    assert shown(page) == "Cardiomegaly"
    page.click("[data-finding='Cardiomegaly']")
    page.mouse.move(300, 300)
    assert shown(page) == ""


def test_dicom_waits_for_the_servers_film_and_sends_no_name(page: Page, server: Fake) -> None:
    content = b"\0" * 128 + b"DICM" + b"\0" * 400
    drop(page, content, names=("DOE^JANE.dcm",))
    page.wait_for_selector(".finding")
    assert [path for path in server.asked if "include=film" in path]
    assert b"application/dicom" in server.bodies[0]
    assert b"DOE" not in server.bodies[0]
    expect(page.locator("#film-name")).to_have_text("DOE^JANE.dcm · 200 × 220 · dicom · MONOCHROME1 inverted")
    assert grey_at(page, 0.5, 0.5) > 60


def test_study_of_two_films(page: Page, server: Fake) -> None:
    answered(page, films=2)
    assert server.bodies[0].count(b'name="image"') == 2
    tabs = page.get_by_role("tab")
    assert tabs.count() == 2
    expect(page.locator("#standfirst")).to_contain_text("2 films, read as one study")
    page.click("[data-finding='Cardiomegaly']")
    assert tabs.evaluate_all("tabs => tabs.map(t => t.getAttribute('aria-label'))") == ["Film 1, box here", "Film 2"]
    page.keyboard.press("n")
    expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#detail")).to_contain_text("On this film alone: possible, 56\u00a0%.")
    expect(page.locator("#detail")).to_contain_text("No box on this film.")
    assert shown(page) == "Cardiomegaly"
    tabs.nth(1).press("ArrowUp")
    expect(tabs.nth(0)).to_have_attribute("aria-selected", "true")
    expect(tabs.nth(0)).to_be_focused()


def test_example_with_truth(page: Page) -> None:
    page.get_by_role("button", name="film 0").click()
    page.wait_for_selector(".finding")
    page.get_by_role("button", name="Truth").click()
    assert drawn(page) > 0  # without a finding, all true boxes
    page.hover("[data-finding='Cardiomegaly']")
    expect(page.locator("#detail")).to_contain_text("Truth: 1 box, best overlap (IoU) 0.92.")
    assert page.locator("[data-finding='Cardiomegaly'] .true").count() == 1
    page.hover("[data-finding='Mass']")
    expect(page.locator("#detail")).to_contain_text("Truth: no box of it.")
    page.keyboard.press("t")
    page.mouse.move(300, 300)
    assert drawn(page) == 0


def test_example_without_truth_and_own_film_offer_none(page: Page) -> None:
    page.get_by_role("button", name="film 1").click()
    page.wait_for_selector(".finding")
    expect(page.locator("#show-truth")).to_be_hidden()
    answered(page)
    expect(page.locator("#show-truth")).to_be_hidden()


def test_a_second_film_takes_the_place_of_one_still_asked_for(page: Page, server: Fake) -> None:
    server.hold.clear()
    drop(page, png(film()), names=("first.png",))
    until(page, "document.getElementById('film-name').textContent === 'first.png'")
    drop(page, png(film(seed=2)), names=("second.png",))
    until(page, "document.getElementById('film-name').textContent === 'second.png'")
    server.hold.set()
    page.wait_for_selector(".finding")
    expect(page.locator("#film-name")).to_have_text("second.png · 200 × 220 · png")


def test_nothing_is_kept_in_the_browser(page: Page) -> None:
    answered(page)
    page.keyboard.press("ArrowDown")
    kept = page.evaluate(
        """async () => [localStorage.length, sessionStorage.length, (await indexedDB.databases()).length,
          (await caches.keys()).length, document.cookie, location.search + location.hash]"""
    )
    assert kept == [0, 0, 0, 0, "", ""]
