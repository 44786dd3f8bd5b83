"""What a detector learns from, in which order, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from detect.course import CourseConfig, Source, course, mixed, repeated
from detect.yolo_folder import Example


def example(name: str, *classes: int) -> Example:
    boxes = np.full((len(classes), 4), 0.5, np.float32)
    ones = np.ones(len(classes), np.float32)
    return Example(
        name, np.zeros((8, 8, 1), np.uint8), np.array(classes, np.int64), boxes, ones, np.ones(3, np.float32)
    )


@pytest.mark.parametrize(
    ("source", "rounds", "expected"),
    [
        ("pseudo", 0, [("pseudo", 11, 1.0)]),
        ("ceiling", 0, [("ceiling", 11, 1.0)]),
        ("tune", 0, [("tune", 11, 1.0)]),
        ("pseudo_then_tune", 0, [("pseudo", 8, 1.0), ("tune", 3, 0.5)]),
        ("pseudo_then_tune", 1, [("pseudo", 3, 1.0), ("tune", 2, 0.5), ("own_1", 4, 1.0), ("tune", 2, 0.5)]),
        ("pseudo", 1, [("pseudo", 5, 1.0), ("own_1", 6, 1.0)]),
        ("tune", 2, [("tune", 3, 1.0), ("own_1", 3, 1.0), ("tune", 1, 0.5), ("own_2", 3, 1.0), ("tune", 1, 0.5)]),
    ],
)
def test_stretches_by_hand(source: Source, rounds: int, expected: list[tuple[str, int, float]]) -> None:
    made = course(source, 11, CourseConfig(rounds=rounds, tune_share=0.3))
    assert [tuple(stretch) for stretch in made] == [(*row, 0, 0, 0) for row in expected]
    assert [stretch.own for stretch in made] == [name.startswith("own_") for name, _, _ in expected]
    assert [stretch.true for stretch in made] == [name in {"tune", "ceiling"} for name, _, _ in expected]


def test_no_step_on_tune_alone_keeps_its_images_at_hand() -> None:
    made = course("pseudo_then_tune", 11, CourseConfig(tune_share=0))
    assert [tuple(stretch) for stretch in made] == [("pseudo", 11, 1.0, 0, 0, 0), ("tune", 0, 0.5, 0, 0, 0)]


def test_rounds_that_are_one_training() -> None:
    made = course("pseudo_then_tune", 16, CourseConfig(rounds=3, continued=True, tune_share=0.25))
    front = [("pseudo", 3, 1.0, 0, 0, 0), ("tune", 1, 0.5, 0, 0, 3)]
    own = [("own_1", 4, 1.0, 0, 8, 4), ("own_2", 4, 1.0, 4, 4, 8), ("own_3", 4, 1.0, 8, 0, 12)]
    assert [tuple(stretch) for stretch in made] == [*front, *own]
    uneven = course("tune", 11, CourseConfig(rounds=2, continued=True))
    assert [tuple(stretch)[1:] for stretch in uneven] == [(3, 1.0, 0, 0, 0), (4, 1.0, 0, 4, 3), (4, 1.0, 4, 0, 7)]
    longer = course("tune", 11, CourseConfig(rounds=3, continued=True, first_share=0.4))  # 4 and 7 thirds
    assert [(stretch.steps, stretch.before, stretch.after) for stretch in longer] == [
        (4, 0, 0),
        (2, 0, 5),
        (2, 2, 3),
        (3, 4, 0),
    ]


def test_tune_is_a_share_of_what_is_shown() -> None:
    examples, tune = [example(str(i)) for i in range(6)], [example("a"), example("b"), example("c")]
    assert [e.image_id for e in mixed(examples, tune, 0.4)] == [*"012345", "a", "b", "c", "a"]  # 4 of 10
    assert mixed(examples, tune, 0) == examples


def test_rare_findings_come_more_often() -> None:
    # class 0 on 8 of 10, class 1 on 1 of 10: √(.4 / .1) = 2 times; class 2 on 2 of 10: √2 times
    rows = [(0,)] * 7 + [(0, 1), (2,), (2, 2)]
    examples = [example(str(i), *classes) for i, classes in enumerate(rows)]
    counts = np.zeros(10)
    for seed in range(200):
        names = [int(e.image_id) for e in repeated(examples, 0.4, seed)]
        assert names == sorted(names)
        counts += np.bincount(names, minlength=10)
    assert counts[:7].tolist() == [200] * 7
    assert counts[7] == 400
    assert counts[8:] / 200 == pytest.approx([2**0.5] * 2, abs=0.1)
