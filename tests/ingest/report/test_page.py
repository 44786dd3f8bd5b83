from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from math import nan
from pathlib import Path
from typing import Any

import pytest

from ingest.report.command import ReportConfig, run
from weakray.config import validate
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import write_json
from weakray.taxonomy import Finding

VOID = {"meta", "input", "br"}
ROWS = [
    ("a", "1", "train", (1, 0)),
    ("b", "1", "train", (0, nan)),
    ("c", "2", "val", (-1, 0)),
    ("d", "3", "tune", (1, 0)),
    ("e", "4", "test", (1, 0)),
]
BOXES = {"d": [(0, (9, 6, 18, 12))], "e": [(0, (0, 0, 45, 30))]}


class Reader(HTMLParser):
    """Collects visible text, and fails on a tag that is not closed where it should be."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), f"<{tag}> repeats an attribute"
        assert not [name for name in found if name.startswith("on")]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.targets += [found["href"] or ""] if "href" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def _page(data: Any, out: Path, **settings: Any) -> tuple[str, Reader, str]:
    result = run(validate(ReportConfig, {"data": data.root, "out": out, "thumbnail_px": 48, **settings}))
    source = result.report.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    return source, reader, re.sub(r"\s+", " ", " ".join(reader.text))


def test_a_page_of_a_small_data_set_says_what_it_holds(tmp_path: Path, make_dataset: Any) -> None:
    data = make_dataset(
        tmp_path / "d",
        ROWS,
        boxes=BOXES,
        columns={"sex": ["F", "F", "M", "M", ""], "age_years": [50, 51, 20, nan, 80]},
        rejected=[Rejection("z.png", "zero_byte", "the file is empty; copy it again"), Rejection("y", "zero_byte", "")],
        info={"warnings": ["val: no positive image of Mass"]},
    )
    source, reader, text = _page(data, tmp_path / "r", title="Small & neat")
    assert "Small & neat" in text
    assert "5 images of 4 patients: 1 finding seen, 1 with boxes." in text
    assert "2 images in train, 1 image in val, 1 image in tune and 1 image in test." in text
    assert "2 annotated images hold 2 boxes." in text
    assert "No patient stands in two splits." in text
    assert "val: no positive image of Mass" in text
    assert "No positive image of Nodule." in text
    assert "Without a box in tune and test: Nodule." in text
    assert "zero_byte 2" in text
    assert "z.png" in text
    assert str(data.info["split_proof"]["assignment_sha256"]) in text
    assert "as dataset.json has it" in text
    assert {"labels", "splits", "boxes", "examples", "patients", "duplicates"} <= set(reader.ids)
    assert "together" not in reader.ids  # one finding alone comes with no other
    assert len(reader.ids) == len(set(reader.ids))
    anchors = {target for target in reader.targets if target.startswith("#")}
    assert {f"#{anchor}" for anchor in reader.ids} >= anchors
    assert all(target.startswith(("#", "data:image/")) for target in reader.targets)  # nothing is fetched
    assert "<script" not in source
    assert "@import" not in source
    figures = json.loads((tmp_path / "r/figures.json").read_text())
    assert figures["findings"][0] == {
        "finding": "Mass",
        "positive": 3,
        "uncertain": 1,
        "negative": 1,
        "blank": 0,
        "negatives_a_positive": 1 / 3,
        "negatives_a_possible": 0.25,
        "uncertainty": 0.25,
    }
    assert figures["findings"][1]["negatives_a_positive"] is None
    assert figures["boxes"][0]["area"][2] == pytest.approx((0.01 + 0.25) / 2)


HOSTILE = '<img src=x onerror="alert(1)">&\'"</script><b>'


def test_hostile_names_are_text(tmp_path: Path, make_dataset: Any) -> None:
    rows = [(HOSTILE, HOSTILE, "train", (1, 1)), ("b", "2", "tune", (1, 1)), ("c", "3", "val", (0, 1))]
    data = make_dataset(
        tmp_path / "d",
        rows,
        findings=(HOSTILE, "Nodule"),
        boxes={"b": [(0, (9, 6, 18, 12))]},
        rejected=[Rejection(HOSTILE, HOSTILE, HOSTILE)],
        columns={"sex": [HOSTILE, "F", "M"]},
        info={"origin": HOSTILE, "warnings": [HOSTILE], "settings": {HOSTILE: HOSTILE}},
    )
    source, _, text = _page(data, tmp_path / "r", title=HOSTILE)
    assert "<img" not in source
    assert "<b>" + "</b>" not in source
    assert "</script>" not in source
    assert text.count(HOSTILE) >= 10


def test_nothing_to_show_is_said_and_breaks_nothing(tmp_path: Path, make_dataset: Any) -> None:
    rows = [("a", "a", "train", (nan, nan)), ("b", "b", "train", (0, nan))]
    data = make_dataset(tmp_path / "d", rows)
    (data.root / "rejected.csv").unlink()
    _, reader, text = _page(data, tmp_path / "r", examples=0)
    assert "2 images: 0 findings seen, none with boxes." in text
    assert "No patient is known: each image counts as one" in text
    assert "No image of tune or test has a box" in text
    assert "Every input was taken" in text
    assert "Age and sex are not known in this data set." in text
    assert "examples" not in reader.ids


def test_a_tree_a_blank_column_and_forty_findings(tmp_path: Path, make_dataset: Any) -> None:
    names = [Finding("Root"), *(Finding(f"Finding with a rather long name {at}", "Root") for at in range(39))]
    rows = [(f"i{at}", f"p{at}", "train", [1, *(float(at % (k + 2) == 0) for k in range(39))]) for at in range(6)]
    _, _, text = _page(make_dataset(tmp_path / "d", rows, findings=names), tmp_path / "r", examples=1)
    assert "Finding with a rather…" in text
    assert "40 findings seen" in text


def test_unread_images_and_a_changed_split_are_told_first(tmp_path: Path, make_dataset: Any) -> None:
    data = make_dataset(tmp_path / "d", ROWS, boxes=BOXES)
    data.path_of("d").write_bytes(b"no image")
    info = data.info
    write_json(data.root / "dataset.json", {**info, "split_proof": {**info["split_proof"], "assignment_sha256": "0"}})
    _, _, text = _page(data, tmp_path / "r")
    assert "1 image could not be read, first d:" in text
    assert "The splits are not those that dataset.json was written with: images.parquet was changed." in text
    assert "not what dataset.json has" in text
    assert "could not be read" in text


def test_a_split_by_time_that_does_not_hold_is_told(tmp_path: Path, make_dataset: Any) -> None:
    days = ["2015-01-01", "2016-01-01", "2016-05-05", "2015-12-31", "2017-01-01"]
    info = {"settings": {"split": {"method": "time"}}}
    for name, test_day, told in (("a", "2015-06-06", True), ("b", "2017-01-01", False)):
        data = make_dataset(tmp_path / name, ROWS, columns={"acquired": [*days[:4], test_day]}, info=info)
        _, _, text = _page(data, tmp_path / f"r{name}")
        note = "Split by time, but train holds images up to 2016-01-01 and test from 2015-06-06 on."
        assert (note in text) is told
        assert "images taken from 2015-01-01 to 2016-01-01" in text


def test_coverage_is_shown_where_a_reader_wrote_it(tmp_path: Path, make_dataset: Any) -> None:
    row = {"label": "Masse <1>", "positive": 7, "negative": 0, "uncertain": 1234, "boxes": 12}
    coverage = {
        "taken": [{**row, "finding": "Mass"}, {**row, "label": "tumour", "finding": "Mass"}],
        "merged": [{"finding": "Mass", "labels": ["Masse <1>", "tumour"]}],
        "dropped": [{**row, "label": "Gout", "why": "not_chosen"}],
        "unnamed": ["Nodule"],
    }
    data = make_dataset(tmp_path / "d", ROWS, info={"coverage": coverage})
    _, _, text = _page(data, tmp_path / "r")
    assert "Masse <1> Mass 7 1,234 0 12" in text
    assert "dropped: not among the findings chosen" in text
    assert "Masse <1>, tumour are one: Mass." in text
    assert "No label of the data set stands for Nodule." in text


def test_the_same_folder_gives_the_same_bytes_and_is_not_made_twice(tmp_path: Path, make_dataset: Any) -> None:
    data = make_dataset(tmp_path / "d", ROWS, boxes=BOXES)
    first, _, _ = _page(data, tmp_path / "r", workers=1)
    again, _, _ = _page(data, tmp_path / "r2", workers=3)
    assert first == again
    page = tmp_path / "r/report.html"
    page.write_text("left alone")
    config = validate(ReportConfig, {"data": data.root, "out": tmp_path / "r", "thumbnail_px": 48})
    assert run(config).images == 5
    assert page.read_text() == "left alone"
    page.unlink()
    run(config)
    assert page.read_text(encoding="utf-8") == first


def test_boxes_of_train_images_are_not_opened(tmp_path: Path, make_dataset: Any) -> None:
    data = make_dataset(tmp_path / "d", ROWS, boxes=BOXES)
    first, _, _ = _page(data, tmp_path / "r")
    (data.root / "ceiling_boxes.json").write_text("{}")
    assert _page(data, tmp_path / "r2")[0] == first


def test_what_is_no_dataset_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a dataset folder"):
        run(validate(ReportConfig, {"data": tmp_path, "out": tmp_path / "r"}))
