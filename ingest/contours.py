"""CheXlocalize's contours as boxes: each contour's extent, in the pixels of the image that it was drawn on.

Source of truth: `gt_annotations_val.json` and `gt_annotations_test.json` of CheXlocalize (Saporta 2022):
`{"patient64622_study1_view1_frontal": {"img_size": [2320, 2828], "Cardiomegaly": [[[x, y], …], …]}, …}`, height first.
"""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from typing import Any

from ingest.boxes import RawBox
from ingest.findings import Vocabulary, refuse_box
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import read_json

_NOWHERE = (nan, nan, nan, nan)


def read_contours(path: Path, vocabulary: Vocabulary) -> tuple[list[RawBox], list[Rejection], set[str]]:
    """The boxes, the contours of no finding that was chosen, and the images that were looked at.

    Raises:
        DataError: if the file is no such JSON.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise DataError(f"{path}: expected CheXlocalize's JSON of image → observations → contours, got another one")
    boxes: list[RawBox] = []
    rejected: list[Rejection] = []
    for image_id, entry in content.items():
        frame = _frame(entry.get("img_size"))
        for name, contours in entry.items():
            if name == "img_size":
                continue
            class_id = vocabulary.fate(name).class_id
            for at, contour in enumerate(contours if isinstance(contours, list) else [contours]):
                item = f"{path.name}:{image_id} {name}[{at}]"
                if class_id is None:
                    rejected.append(refuse_box(item, name, vocabulary))
                else:
                    xywh = _extent(contour) if frame is not None else _NOWHERE
                    boxes.append(RawBox(item, image_id, class_id, xywh, frame, label=name))
    return boxes, rejected, set(content)


def _frame(value: Any) -> tuple[float, float] | None:
    numbers = value if isinstance(value, list) and len(value) == 2 else []
    if len(numbers) != 2 or not all(isinstance(side, int | float) and 0 < side < 1e6 for side in numbers):
        return None
    return float(numbers[1]), float(numbers[0])


def _extent(contour: Any) -> tuple[float, float, float, float]:
    points = (
        [point for point in contour if isinstance(point, list) and len(point) == 2] if isinstance(contour, list) else []
    )
    flat = [value for point in points for value in point]
    if not flat or not all(isinstance(value, int | float) and isfinite(value) for value in flat):
        return _NOWHERE
    xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
