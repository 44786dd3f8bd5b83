"""A table of one's own boxes, for data sets that have labels and no boxes.

`image_id` or `file_name`, `finding`, and either `x, y, width, height` or `x_min, y_min, x_max, y_max`, in pixels of
the stored image, or of a frame whose size stands in `frame_width, frame_height`. A row without a finding and without
numbers says that the image was looked at and nothing was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ingest.boxes import RawBox
from ingest.findings import Vocabulary, refuse_box
from ingest.tables import ITEM, RAGGED, numbers, read_frame
from weakray.dataset import Rejection
from weakray.errors import DataError

_KEYS = ("image_id", "file_name")
_XYWH, _XYXY = ("x", "y", "width", "height"), ("x_min", "y_min", "x_max", "y_max")
_FRAME = ("frame_width", "frame_height")


@dataclass(frozen=True)
class OwnBoxes:
    """The table, read.

    Attributes:
        boxes: its boxes.
        looked_at: images named there without a finding.
        rejected: rows of another finding or without a name.
        counts: label → boxes.
    """

    boxes: list[RawBox] = field(default_factory=list)
    looked_at: frozenset[str] = frozenset()
    rejected: list[Rejection] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def counts_with(self, others: Iterable[RawBox]) -> Counter[str]:
        """Label → boxes, those of another source counted too."""
        return self.counts + Counter(box.label for box in others)


def read_own_boxes(
    path: Path | None, vocabulary: Vocabulary, image_ids: Iterable[str], file_names: Iterable[str]
) -> OwnBoxes:
    """Reads the table.

    Args:
        path: the CSV file; None: there is none.
        vocabulary: what the findings' names mean.
        image_ids: the data set's images, and
        file_names: their files, in the same order: `file_name` may be the path, or its name where that is one image's.

    Raises:
        DataError: if it lacks a column.
    """
    if path is None:
        return OwnBoxes()
    table = read_frame(path, ["finding"], [*_KEYS, *_XYWH, *_XYXY, *_FRAME])
    keys = [key for key in _KEYS if key in table]
    corners = all(name in table for name in _XYXY)
    if not keys or not (corners or all(name in table for name in _XYWH)):
        raise DataError(
            f"{path}: expected image_id or file_name, finding, and x, y, width, height or x_min, y_min, x_max, y_max; "
            f"got {', '.join(c for c in table.columns if not c.startswith('#'))}"
        )
    names = table[keys[0]].tolist()
    ids = names if keys[0] == "image_id" else _ids_of_files(names, image_ids, file_names)
    edges = np.stack([numbers(table[name]) for name in (_XYXY if corners else _XYWH)], axis=1)
    if corners:
        edges = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)
    frames = _frames(table)
    boxes: list[RawBox] = []
    looked_at: set[str] = set()
    rejected: list[Rejection] = []
    counts: Counter[str] = Counter()
    for item, name, image_id, finding, xywh, frame, ragged in zip(
        table[ITEM], names, ids, table["finding"], edges.tolist(), frames, table[RAGGED], strict=True
    ):
        named = f"{item} {name}".rstrip()
        blank = all(np.isnan(xywh))
        if ragged or not name or (not finding and not blank):
            detail = "expected an image, a finding and four numbers (or an image alone), in as many cells as the header"
            rejected.append(Rejection(named, "bad_row", detail))
            continue
        if not finding:
            looked_at.add(image_id)
            continue
        counts[finding] += 1
        class_id = vocabulary.fate(finding).class_id
        if class_id is None:
            rejected.append(refuse_box(named, finding, vocabulary))
        else:
            x, y, w, h = xywh
            boxes.append(RawBox(named, image_id, class_id, (x, y, w, h), frame, label=finding))
    return OwnBoxes(boxes, frozenset(looked_at), rejected, counts)


def _frames(table: pd.DataFrame) -> list[tuple[float, float] | None]:
    """The frame of each row, None for the stored image."""
    if not all(name in table for name in _FRAME):
        return [None] * len(table)
    sides = np.stack([numbers(table[name]) for name in _FRAME], axis=1).tolist()
    return [(w, h) if w > 0 and h > 0 else None for w, h in sides]


def _ids_of_files(names: Sequence[str], image_ids: Iterable[str], file_names: Iterable[str]) -> list[str]:
    by_path: dict[str, str] = {}
    by_name: dict[str, set[str]] = {}
    for image_id, file_name in zip(image_ids, file_names, strict=True):
        by_path[file_name] = image_id
        by_name.setdefault(PurePosixPath(file_name).name, set()).add(image_id)
    found: list[str] = []
    for name in names:
        alike = by_name.get(PurePosixPath(name).name, set())
        found.append(by_path.get(name) or (next(iter(alike)) if len(alike) == 1 else name))
    return found
