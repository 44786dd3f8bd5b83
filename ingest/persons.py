"""What tables say of a patient, in one spelling: sex and age."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from weakray.errors import DataError

_SEX = {"f": "F", "female": "F", "w": "F", "femme": "F", "m": "M", "male": "M", "h": "M", "homme": "M", "o": "O"}
_YEARS_OF = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
_OLDEST = 120.0  # what is above it is a slip of the key: NIH has a patient of 414


def sex_of(cell: str) -> str:
    """Sex as F, M or O, empty for anything else."""
    return _SEX.get(cell.strip().casefold(), "")


def age_in_years(cell: str) -> float | None:
    """Years of `58`, `58.0`, `058Y` or `011M`; None where it is blank, no age, or nobody's."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([YMWDymwd]?)\s*", cell)
    if found is None:
        return None
    years = float(found[1]) * _YEARS_OF[found[2].casefold() or "y"]
    return round(years, 2) if math.isfinite(years) and years <= _OLDEST else None


def patients_of(paths: Sequence[str], image_ids: Sequence[str], pattern: str | None) -> list[str]:
    """The patient of each image: the first group of a pattern found in its path, else the image itself.

    Raises:
        DataError: if the pattern is no regular expression with a group.
    """
    if pattern is None:
        return list(image_ids)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"patient_pattern: expected a regular expression, got {pattern!r} ({error})") from None
    if compiled.groups < 1:
        raise DataError(f"patient_pattern: expected a group in round brackets that is the patient, got {pattern!r}")
    found = (compiled.search(path) for path in paths)
    return [(hit[1] or own) if hit else own for hit, own in zip(found, image_ids, strict=True)]
