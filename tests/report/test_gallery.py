from __future__ import annotations

import numpy as np
import pytest

from eval.report.gallery import choose_cases, top_iou
from weakray.coco import BoxTruth
from weakray.detections import Detections


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    """`x0, y0, x1, y1, class, score` a row."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


TRUE = (0.0, 0.0, 10.0, 20.0, 1, 1.0)


def test_top_iou_looks_at_the_best_scored_box_alone() -> None:
    truth = boxes(TRUE, (50, 50, 60, 60, 1, 1))
    found = boxes((0, 0, 10, 20, 1, 0.2), (0, 0, 10, 10, 1, 0.9))  # the perfect box has the lower score
    assert top_iou(found, truth) == pytest.approx(0.5)
    assert top_iou(boxes(), truth) == 0.0
    assert top_iou(found, boxes()) == 0.0


def made() -> tuple[BoxTruth, dict[str, Detections]]:
    """Seven positives of class 1 with top IoU 1, .75, .5, .25, and 0 three times; class 0 has none."""
    images = ["a", "b", "c", "d", "e", "f", "g"]
    truth = BoxTruth(
        {**{i: boxes(TRUE) for i in images}, "negative": boxes(), "unannotated": boxes(TRUE)},
        frozenset({*((i, 1) for i in images), ("negative", 1), ("a", 0)}),
    )
    found = {
        "d": boxes((0, 0, 10, 20, 1, 0.3)),  # IoU 1
        "a": boxes((0, 0, 10, 15, 1, 0.8)),  # .75
        "g": boxes((0, 0, 10, 10, 1, 0.8), (0, 0, 10, 20, 0, 0.99)),  # .5; the other finding's box is not counted
        "b": boxes((0, 0, 10, 5, 1, 0.8)),  # .25
        "c": boxes((80, 80, 90, 90, 1, 0.4)),  # 0
        "e": boxes((80, 80, 90, 90, 1, 0.9)),  # 0, and sure of it
        "unannotated": boxes((0, 0, 10, 20, 1, 0.9)),
        "negative": boxes((0, 0, 10, 20, 1, 0.9)),
    }  # f: no box at all
    return truth, found


def test_best_typical_and_worst_by_hand() -> None:
    truth, found = made()
    assert choose_cases(truth, found, ["Nodule", "Mass"], 1) == [
        ("d", 1, "best"),
        ("b", 1, "typical"),  # the middle of a, g, b, f, c
        ("e", 1, "worst"),
    ]
    assert choose_cases(truth, found, ["Nodule", "Mass"], 2) == [
        *(("d", 1, "best"), ("a", 1, "best")),
        *(("g", 1, "typical"), ("b", 1, "typical")),
        *(("e", 1, "worst"), ("c", 1, "worst")),
    ]


def test_the_choice_does_not_depend_on_the_order_of_images() -> None:
    truth, found = made()
    turned = BoxTruth(dict(reversed(truth.boxes.items())), truth.annotated)
    again = choose_cases(turned, dict(reversed(found.items())), ["Nodule", "Mass"], 2)
    assert again == choose_cases(truth, found, ["Nodule", "Mass"], 2)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("a", [("a", "best")]),
        ("ab", [("a", "best"), ("b", "worst")]),
        ("abc", [("a", "best"), ("b", "best"), ("c", "worst")]),
        ("abce", [("a", "best"), ("b", "best"), ("e", "worst"), ("c", "worst")]),
    ],
)
def test_few_images_stand_once_each(images: str, expected: list[tuple[str, str]]) -> None:
    truth, found = made()
    chosen = choose_cases(truth.only(list(images)), found, ["Nodule", "Mass"], 2)
    assert [(image_id, kind) for image_id, _, kind in chosen] == expected


def test_no_positive_and_no_place_choose_nothing() -> None:
    truth, found = made()
    assert choose_cases(truth.only(["negative"]), found, ["Nodule", "Mass"], 2) == []
    assert choose_cases(truth, found, ["Nodule", "Mass"], 0) == []
