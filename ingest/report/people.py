"""Figures of patients and films: how many films each, age, sex, view, sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_BINS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 10), (11, 20), (21, None))
AGE_STEP = 10  # years a bin
AGE_BINS = 10  # the last takes all that are older


@dataclass(frozen=True)
class SplitPeople:
    """One split.

    Attributes:
        name: the split.
        images: how many.
        patients: how many.
        ages: images in each bin of `AGE_STEP` years; empty where ages are not known.
        age_quartiles: lower quartile, median, upper quartile in years; None without a known age.
        age_unknown: images without an age.
        sex: value → images, "" unknown; empty where the data set does not say.
        view: value → images, "" unknown.
    """

    name: str
    images: int
    patients: int
    ages: list[int]
    age_quartiles: tuple[float, float, float] | None
    age_unknown: int
    sex: dict[str, int]
    view: dict[str, int]


def split_people(images: pd.DataFrame, splits: Sequence[str]) -> list[SplitPeople]:
    """The figures of each split that holds an image."""
    parts = [(split, images[images["split"] == split]) for split in splits]
    return [_people(split, part) for split, part in parts if len(part)]


def _people(name: str, images: pd.DataFrame) -> SplitPeople:
    ages: list[int] = []
    quartiles = None
    unknown = len(images)
    if "age_years" in images:
        known = images["age_years"].dropna().to_numpy(np.float64)
        unknown = len(images) - len(known)
        ages = np.bincount(np.minimum(known // AGE_STEP, AGE_BINS - 1).astype(np.int64), minlength=AGE_BINS).tolist()
        if len(known):
            low, middle, high = (float(value) for value in np.quantile(known, (0.25, 0.5, 0.75)))
            quartiles = (low, middle, high)
    return SplitPeople(
        name=name,
        images=len(images),
        patients=int(images["patient_id"].nunique()),
        ages=ages,
        age_quartiles=quartiles,
        age_unknown=unknown,
        sex=_values(images, "sex"),
        view=_values(images, "view"),
    )


def _values(images: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in images or not (images[column] != "").any():
        return {}
    counted = Counter(str(value) for value in images[column].fillna(""))
    return dict(sorted(counted.items(), key=lambda pair: (pair[0] == "", -pair[1], pair[0])))


def images_a_patient(images: pd.DataFrame) -> list[tuple[str, int]]:
    """(number of images, patients that have so many), up to the bin that holds the largest."""
    counts = images.groupby("patient_id").size().to_numpy()
    rows = [(_bin_name(low, high), int(((counts >= low) & (counts <= (high or np.inf))).sum())) for low, high in _BINS]
    last = max((at for at, (_, patients) in enumerate(rows) if patients), default=0)
    return rows[: last + 1]


def _bin_name(low: int, high: int | None) -> str:
    return f"{low}" if low == high else f"{low} or more" if high is None else f"{low}–{high}"


def sizes(images: pd.DataFrame) -> list[tuple[int, int, int]]:
    """(height, width, images), the most frequent first."""
    counted = images.groupby(["height", "width"]).size()
    rows = [(int(h), int(w), int(n)) for (h, w), n in _pairs(counted)]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def _pairs(counted: Any) -> list[tuple[tuple[int, int], int]]:
    return list(counted.items())


def aspects(images: pd.DataFrame) -> list[tuple[float, int]]:
    """(lower end of the bin, images) of width / height, bins of 0.1 from the smallest to the largest."""
    ratio = images["width"].to_numpy(np.float64) / images["height"].to_numpy(np.float64)
    at = np.floor(ratio * 10 + 1e-9).astype(np.int64)
    counted = Counter(at.tolist())
    low, high = min(counted), max(counted)
    if high - low > 40:  # a stray panorama: its tail is one bin
        high = low + 40
        counted = Counter(np.minimum(at, high).tolist())
    return [(step / 10, counted.get(step, 0)) for step in range(low, high + 1)]
