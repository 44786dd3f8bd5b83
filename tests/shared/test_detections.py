from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from weakray.detections import Detections
from weakray.errors import DataError


def test_holds_typed_arrays_and_is_frozen() -> None:
    found = Detections([[1, 2, 3, 5]], [0], [0.5])  # type: ignore[arg-type]
    dtypes = [str(array.dtype) for array in (found.boxes_xyxy_px, found.class_id, found.score)]
    assert dtypes == ["float32", "int64", "float32"]
    with pytest.raises(FrozenInstanceError):
        found.score = found.score  # type: ignore[misc]


@pytest.mark.parametrize(
    ("boxes", "class_id", "score", "message"),
    [
        ([[0, 0, 1]], [0], [1], r"expected shape \(n, 4\), got \(1, 3\)"),
        ([[0, 0, 1, 1]], [0, 1], [1], r"class_id: expected shape \(1,\) to match the boxes, got \(2,\)"),
        ([[0, 0, 1, 1]], [0], [1, 1], r"score: expected shape \(1,\)"),
        ([[2, 0, 2, 1]], [0], [1], r"expected x0 < x1 and y0 < y1, got \[2.0, 0.0, 2.0, 1.0\]"),
        ([[0, 0, np.nan, 1]], [0], [1], "expected finite coordinates"),
        ([[0, 0, 1, 1]], [-1], [1], "class_id: expected values >= 0, got -1"),
        ([[0, 0, 1, 1]], [0], [1.5], r"score: expected values in \[0, 1\], got 1.5"),
        ([[0, 0, 1, 1]], [0], [np.nan], r"score: expected values in \[0, 1\], got nan"),
    ],
)
def test_refuses_what_is_malformed(boxes: object, class_id: object, score: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Detections(boxes, class_id, score)  # type: ignore[arg-type]


def test_masks_concat_and_order() -> None:
    a = Detections(np.array([[0, 0, 1, 1], [0, 0, 2, 2]]), np.array([0, 1]), np.array([0.2, 0.9]))
    b = Detections(np.array([[0, 0, 3, 3]]), np.array([1]), np.array([0.9]))
    both = Detections.concat([a, Detections.empty(), b])
    assert both.class_id.tolist() == [0, 1, 1]
    assert both.of_class(1).boxes_xyxy_px[:, 2].tolist() == [2, 3]
    assert both.best_first(2).boxes_xyxy_px[:, 2].tolist() == [2, 3]  # stable: equal scores keep their order
    assert len(Detections.concat([])) == 0
