"""What the readers' tests look at in a dataset folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from weakray.dataset import Dataset


def rejected(root: Path) -> list[tuple[str, str]]:
    """(item, reason) of every row of rejected.csv."""
    with (root / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return [(row["item"], row["reason"]) for row in csv.DictReader(file)]


def said(data: Dataset, image_id: str) -> dict[str, float]:
    """The labels of an image that are not blank."""
    row = data.labels.loc[[image_id]].iloc[0]
    return {str(name): float(value) for name, value in row.items() if value == value}  # noqa: PLR0124  # NaN is blank


def about(data: Dataset, image_id: str, *names: str) -> tuple[Any, ...]:
    """Cells of an image's row."""
    return tuple(data.images.at[image_id, name] for name in names)


def sides(data: Dataset) -> dict[str, str]:
    """image_id → split."""
    return {str(image_id): str(split) for image_id, split in data.images["split"].items()}
