from __future__ import annotations

from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ingest.report.boxes import box_figures, heat_map
from ingest.report.drawing import bubbles, columns, log_axis, matrix, percent, spread, stacked
from ingest.report.examples import choose_examples, thumbnail
from ingest.report.people import aspects, images_a_patient, sizes, split_people
from weakray.dataset import SPLITS


def test_box_sizes_are_shares_of_each_image(tmp_path: Path, make_dataset: Any) -> None:
    rows = [("a", "1", "tune", (1, 0)), ("b", "2", "test", (1, 0))]
    data = make_dataset(
        tmp_path, rows, boxes={"a": [(0, (0, 0, 45, 30)), (0, (45, 30, 90, 60))], "b": [(0, (9, 6, 18, 12))]}
    )
    [figures] = box_figures(data.truth, data.sizes_hw, ["Mass", "Nodule"])
    assert (figures.name, figures.boxes, figures.images) == ("Mass", 3, 2)
    assert (figures.width[2], figures.height[2], figures.area[2]) == (0.5, 0.5, 0.25)
    assert figures.area[0] == pytest.approx(0.01 + 0.2 * 0.24)  # linear between 1 % and 25 %
    # the first box covers the upper left quarter, the third a hundredth of it
    assert figures.heat[0, 0] == pytest.approx(1 / 3)
    assert figures.heat[6, 6] == pytest.approx(2 / 3)
    assert figures.heat[40, 40] == pytest.approx(1 / 3)
    assert figures.heat[0, 40] == 0


def test_a_heat_map_holds_the_area_of_its_boxes() -> None:
    boxes = np.array([[0.1, 0.2, 0.35, 0.9], [0.5, 0.5, 0.51, 0.52]])
    heat = heat_map(boxes, 4)
    assert heat.mean() == pytest.approx(((0.25 * 0.7) + (0.01 * 0.02)) / 2)
    assert heat_map(np.array([[0.0, 0.0, 0.5, 0.25]]), 4).tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert heat_map(np.array([[0.125, 0.0, 0.25, 0.25]]), 4)[0, 0] == 0.5


def _images(**columns_: Any) -> pd.DataFrame:
    base = {
        "patient_id": ["1", "1", "1", "2", "3", "3"],
        "split": ["train", "train", "train", "val", "test", "test"],
        "height": [60, 60, 60, 30, 60, 60],
        "width": [90, 90, 90, 60, 90, 60],
        "view": ["PA", "AP", "PA", "", "PA", "PA"],
    }
    return pd.DataFrame({**base, **columns_})


def test_people_by_hand() -> None:
    images = _images(age_years=[8.0, 31, 35, np.nan, 99, 120], sex=["F", "F", "M", "", "M", "M"])
    train, val, test = split_people(images, SPLITS)
    assert (train.images, train.patients, train.age_unknown) == (3, 1, 0)
    assert train.ages == [1, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    assert train.age_quartiles == (19.5, 31, 33)
    assert train.sex == {"F": 2, "M": 1}
    assert train.view == {"PA": 2, "AP": 1}
    assert (val.ages, val.age_quartiles, val.age_unknown) == ([0] * 10, None, 1)
    assert (val.sex, val.view) == ({}, {})
    assert test.ages == [0] * 9 + [2]
    bare = split_people(_images(), SPLITS)[0]
    assert (bare.ages, bare.age_quartiles, bare.sex) == ([], None, {})


def test_images_a_patient_sizes_and_aspects_by_hand() -> None:
    images = _images()
    assert images_a_patient(images) == [("1", 1), ("2", 1), ("3", 1)]
    many = pd.DataFrame({"patient_id": ["a"] * 25 + ["b"] * 7 + ["c"]})
    assert images_a_patient(many) == [
        *[("1", 1), ("2", 0), ("3", 0), ("4", 0), ("5", 0)],
        *[("6–10", 1), ("11–20", 0), ("21 or more", 1)],
    ]
    assert sizes(images) == [(60, 90, 4), (30, 60, 1), (60, 60, 1)]
    assert aspects(images) == [(1.0, 1), (1.1, 0), (1.2, 0), (1.3, 0), (1.4, 0), (1.5, 4), *_zeros(16, 20), (2.0, 1)]


def _zeros(first: int, last: int) -> list[tuple[float, int]]:
    return [(step / 10, 0) for step in range(first, last)]


def test_a_stray_panorama_does_not_stretch_the_aspects() -> None:
    images = pd.DataFrame({"width": [60, 60000], "height": [60, 60]})
    found = aspects(images)
    assert (len(found), found[0], found[-1]) == (41, (1.0, 1), (5.0, 1))


def test_examples_are_boxed_first_and_each_patient_once(tmp_path: Path, make_dataset: Any) -> None:
    rows = [
        ("a", "1", "tune", (1, 1)),
        ("b", "1", "tune", (1, 0)),
        ("c", "2", "train", (1, 0)),
        ("d", "3", "train", (0, 1)),
        ("e", "4", "train", (1, 0)),
    ]
    data = make_dataset(tmp_path, rows, boxes={"b": [(0, (9, 6, 18, 12)), (1, (0, 0, 45, 30))]})
    chosen = choose_examples(data.labels, data.truth, data.patients, 0, 10)
    assert chosen[0] == "b"
    assert set(chosen[:3]) == {"b", "c", "e"}
    assert chosen[3] == "a"  # patient 1 stood already
    assert choose_examples(data.labels, data.truth, data.patients, 0, 2) == chosen[:2]
    assert set(choose_examples(data.labels, data.truth, data.patients, 1, 9)) == {"a", "b", "d"}  # b by its box alone
    picture = thumbnail(data, "b", 0, 45, data.taxonomy.names)
    assert (picture.width, picture.height, picture.split, picture.patient) == (45, 30, "tune", "1")
    assert [(r.x, r.y, r.width, r.height, r.own) for r in picture.rects] == [
        (0, 0, 22.5, 15, False),
        (4.5, 3, 4.5, 3, True),
    ]
    assert picture.uri is not None
    assert thumbnail(data, "a", 0, 45, data.taxonomy.names).others == "Nodule"
    data.path_of("b").unlink()
    assert thumbnail(data, "b", 0, 45, data.taxonomy.names).uri is None


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.123, "12 %"), (0.0346, "3.5 %"), (0.0005, "0.05 %"), (0.00001, "< 0.01 %")],
)
def test_shares_in_words(share: float, text: str) -> None:
    assert percent(share).replace("\u00a0", " ") == text


def test_drawings_are_placed_by_hand() -> None:
    parts = stacked({"positive": 1, "uncertain": 0, "negative": 3})
    assert [(part.kind, part.percent) for part in parts] == [("positive", 25), ("negative", 75)]
    assert parts[0].told.replace("\u00a0", " ") == "positive: 1 (25 %)"
    chart = columns("t", "u", [("1", 10.0), ("2", 5.0), ("3", 0.0)], width=110, height=144)
    # 100 px for three columns from x 4, the base at 120 and the top at 20; a third of a slot is not for columns
    assert [column[1] for column in chart.columns] == [20, 70, 120]
    assert [column[3] for column in chart.columns] == [100, 50, 0]
    assert [text for _, _, text in chart.values] == ["10", "5"]
    axis, ticks = log_axis(0.004, 1.0, 0.0, 300.0)
    assert [(tick.at, tick.text.replace("\u00a0", " ")) for tick in ticks] == [
        *[(0, "0.1 %"), (100, "1 %"), (200, "10 %"), (300, "100 %")]
    ]
    placed = spread((0.001, 0.01, 0.05, 0.1, 1.0), axis)
    assert (placed.p10, placed.p25, placed.p75, placed.p90) == (0, 100, 200, 300)
    assert placed.p50 == pytest.approx(100 * (3 + log10(0.05)), abs=0.1)
    drawn = matrix(
        "t", "u", ["A", "B"], np.array([[np.nan, 0.5], [-2.0, 0.1]]), [["", "a"], ["b", "c"]], [["w"] * 2] * 2, 1.0
    )
    assert [cell.depth for cell in drawn.cells] == [None, 0.5, -1, 0.1]
    assert drawn.cells[3].x - drawn.cells[2].x == drawn.side == drawn.cells[2].y - drawn.cells[0].y


def test_circles_of_sizes_have_areas_of_their_counts_and_many_are_joined() -> None:
    found = bubbles([(60, 90, 100), (60, 60, 25)])
    assert [circle[2] for circle in found.circles] == [17, 8.5]
    assert found.circles[0][3] == "90 × 60 px: 100"
    crowd = bubbles([(500 + at, 700 + at, 1) for at in range(900)])
    assert len(crowd.circles) < 40
    assert crowd.circles[0][3].startswith("about ")
    assert max(circle[2] for circle in crowd.circles) == 7
