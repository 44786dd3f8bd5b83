"""Boxes: scaled to the stored image, cut, refused with a reason."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.boxes import RawBox, take_boxes

SIZES = {"film": (40, 60)}
XYWH = tuple[float, float, float, float]


def _raw(xywh: XYWH, class_id: int = 0, image_id: str = "film", **more: object) -> RawBox:
    return RawBox("row 7", image_id, class_id, xywh, **more)  # type: ignore[arg-type]  # keywords of one test


def test_a_box_is_scaled_from_its_frame_to_a_stored_image_that_is_not_square() -> None:
    found = take_boxes([_raw((256, 256, 512, 128), frame_wh=(1024.0, 1024.0))], SIZES, ())
    # x: 256 · 60 / 1024 = 15, y: 256 · 40 / 1024 = 10, right: 768 · 60 / 1024 = 45, bottom: 384 · 40 / 1024 = 15
    assert found.boxes["film"].boxes_xyxy_px.tolist() == [[15, 10, 45, 15]]
    assert (found.rejected, found.clipped, found.broken) == ([], 0, frozenset())


def test_a_box_partly_outside_is_cut_and_counted() -> None:
    found = take_boxes([_raw((-5, 30, 20, 30)), _raw((50, 2, 10.004, 5), 1)], SIZES, ())
    assert found.boxes["film"].boxes_xyxy_px.tolist() == [[0, 30, 15, 40], [50, 2, 60, 7]]
    assert found.clipped == 1  # 0.004 px is rounding


@pytest.mark.parametrize(
    ("xywh", "reason", "detail"),
    [
        ((10, 10, 0, 5), "no_area", "width and height must be above 0, got 0 and 5"),
        ((10, 10, 5, -3), "no_area", "width and height must be above 0, got 5 and -3"),
        ((10, 10, 0.5, 5), "no_area", "less than 1 px wide or high inside its image"),
        ((59.5, 10, 20, 5), "no_area", "less than 1 px wide or high inside its image"),
        ((60, 10, 20, 5), "outside", "lies wholly outside its image of 40×60 px; is the frame right?"),
        ((-30, -30, 20, 20), "outside", "lies wholly outside"),
        ((nan, 10, 5, 5), "bad_number", "expected four numbers x, y, width, height, got [nan, 10, 5, 5]"),
        ((1, 1, inf, 5), "bad_number", "expected four numbers"),
        ((1e308, 1, 1e308, 5), "bad_number", "expected four numbers"),
    ],
)
def test_a_box_that_cannot_be_taken(xywh: XYWH, reason: str, detail: str) -> None:
    found = take_boxes([_raw(xywh, 2)], SIZES, ())
    assert [(r.item, r.reason) for r in found.rejected] == [("row 7", reason)]
    assert detail in found.rejected[0].detail
    assert found.boxes == {}
    assert found.broken == {("film", 2)}


def test_images_that_are_not_there_duplicates_and_crowds() -> None:
    raw = [
        _raw((1, 2, 3, 4)),
        _raw((1, 2, 3, 4)),
        _raw((1, 2, 3, 4), 1),
        _raw((1, 2, 3, 4), image_id="gone"),
        _raw((1, 2, 3, 4), image_id="never"),
        _raw((5, 5, 9, 9), 2, crowd=True),
    ]
    found = take_boxes(raw, SIZES, {"gone"})
    assert [r.reason for r in found.rejected] == ["duplicated", "image_rejected", "no_image", "crowd"]
    assert found.boxes["film"].class_id.tolist() == [0, 1]
    assert found.broken == {("film", 2)}  # a duplicate leaves its pair whole


numbers = st.one_of(st.floats(), st.floats(-100, 100), st.integers(-5, 70).map(float))


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=12), frame=st.sampled_from([None, 512.0]))
def test_taken_and_rejected_boxes_are_all_boxes_and_those_taken_lie_in_the_image(
    rows: list[XYWH], frame: float | None
) -> None:
    frame_wh = None if frame is None else (frame, frame)
    found = take_boxes([_raw(xywh, frame_wh=frame_wh) for xywh in rows], SIZES, ())
    taken = found.boxes["film"].boxes_xyxy_px if found.boxes else np.zeros((0, 4), np.float32)
    assert len(taken) + len(found.rejected) == len(rows)
    assert (taken >= 0).all()
    assert (taken <= [60, 40, 60, 40]).all()
    assert (taken[:, 2:] - taken[:, :2] > 0.99).all()
