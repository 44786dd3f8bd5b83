"""The proof, in `dataset.json`, that no patient and no file stands in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from weakray.files import sha256_json


def split_proof(images: pd.DataFrame, splits: Sequence[str]) -> dict[str, Any]:
    """What anyone can count again from `images.parquet`.

    Args:
        images: a row an image, with image_id, patient_id, sha256 and split.
        splits: their names.

    Returns:
        `patients`: how many a split; `shared_patients` and `shared_files`: how many two splits have in common, a pair
        each; `acquired`: first and last date a split, where dates are known; `assignment_sha256`: the hash of the
        sorted list of (image_id, patient_id, split), the same wherever the same split was made.
    """
    patients = {split: set(images.loc[images["split"] == split, "patient_id"]) for split in splits}
    files = {split: set(images.loc[images["split"] == split, "sha256"]) for split in splits}
    rows = sorted(map(list, images[["image_id", "patient_id", "split"]].astype(str).itertuples(index=False, name=None)))
    proof: dict[str, Any] = {
        "patients": {split: len(found) for split, found in patients.items()},
        "shared_patients": _shared(patients),
        "shared_files": _shared(files),
        "assignment_sha256": sha256_json(rows),
    }
    if "acquired" in images:
        dates = {s: images.loc[(images["split"] == s) & (images["acquired"] != ""), "acquired"] for s in splits}
        proof["acquired"] = {split: [str(d.min()), str(d.max())] for split, d in dates.items() if len(d)}
    return proof


def _shared(sets: dict[str, set[Any]]) -> dict[str, int]:
    return {f"{one}/{other}": len(sets[one] & sets[other]) for one, other in combinations(sets, 2)}
