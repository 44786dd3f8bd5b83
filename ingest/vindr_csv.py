"""VinDr-CXR's tables: what each reader drew, and what each reader says of the image as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ingest.consensus import Corners
from ingest.tables import ITEM, RAGGED, numbers, read_frame, read_label_columns
from weakray.dataset import Rejection

LOCAL = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion"),
)
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease", "Other diseases", "No finding")
NO_FINDING = "no finding"
TOGETHER = "consensus"  # stands for the readers of the test set, whose tables name none
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


@dataclass
class Reading:
    """One table set, read.

    Attributes:
        readers: image → who looked at it, in order; images in the order in which they are first named.
        seen: image → finding → readers who say that it is there.
        boxes: image → finding → (item, reader, corners) of each box, NaN where there is no number.
        asked: findings that somebody was asked about: columns of labels, and names of boxes.
        first: image → the row that names it first.
        rejected: rows that cannot be used.
    """

    readers: dict[str, list[str]] = field(default_factory=dict)
    seen: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    boxes: dict[str, dict[str, list[tuple[str, str, Corners]]]] = field(default_factory=dict)
    asked: dict[str, None] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)

    def look(self, item: str, image: str, reader: str) -> None:
        """A reader looked at an image."""
        self.first.setdefault(image, item)
        readers = self.readers.setdefault(image, [])
        if reader not in readers:
            readers.append(reader)

    def see(self, image: str, finding: str, reader: str) -> None:
        """A reader says that a finding is there."""
        self.seen.setdefault(image, {}).setdefault(finding, set()).add(reader)


def read_readings(annotations: Path, labels: Path | None) -> Reading:
    """Reads `annotations_*.csv`, and `image_labels_*.csv` where there is one.

    Raises:
        DataError: if a table lacks a column.
    """
    found = Reading()
    _read_boxes(annotations, found)
    if labels is not None:
        _read_labels(labels, found)
    return found


def _read_boxes(path: Path, found: Reading) -> None:
    table = read_frame(path, ["image_id", "class_name", *_CORNERS], ["rad_id"])
    corners = np.stack([numbers(table[name]) for name in _CORNERS], axis=1)
    reader = table["rad_id"] if "rad_id" in table else [TOGETHER] * len(table)
    rows = zip(
        table[ITEM], table["image_id"], reader, table["class_name"], corners.tolist(), table[RAGGED], strict=True
    )
    for item, image, who, name, (x0, y0, x1, y1), ragged in rows:
        if ragged or not (image and who and name):
            detail = "expected image_id, rad_id, class_name and four numbers; mend the row"
            found.rejected.append(Rejection(f"{item} {image}".rstrip(), "bad_row", detail))
            continue
        found.look(item, image, who)
        if name.casefold() == NO_FINDING:
            continue
        found.asked.setdefault(name)
        found.see(image, name, who)
        found.boxes.setdefault(image, {}).setdefault(name, []).append((f"{item} {image}", who, (x0, y0, x1, y1)))


def _read_labels(path: Path, found: Reading) -> None:
    table = read_frame(path, ["image_id"], ["rad_id", *LOCAL, *GLOBAL])
    labels, odd = read_label_columns(table, [*LOCAL, *GLOBAL])
    labels = {name: values for name, values in labels.items() if name.casefold() != NO_FINDING}
    found.asked.update(dict.fromkeys(labels))
    reader = table["rad_id"] if "rad_id" in table else [TOGETHER] * len(table)
    odd |= table[RAGGED].to_numpy()
    positive = _positive_names(
        np.stack(list(labels.values()), axis=1) if labels else np.zeros((len(table), 0)), list(labels)
    )
    for item, image, who, wrong, names in zip(
        table[ITEM], table["image_id"], reader, odd.tolist(), positive, strict=True
    ):
        if wrong or not (image and who):
            detail = "expected image_id, rad_id and 0 or 1 a label; mend the row"
            found.rejected.append(Rejection(f"{item} {image}".rstrip(), "bad_row", detail))
            continue
        found.look(item, image, who)
        for name in names:
            found.see(image, name, who)


def _positive_names(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], names: list[str]) -> Iterator[list[str]]:
    for row in values == 1:
        yield [names[at] for at in np.flatnonzero(row).tolist()]
