"""Findings that a split cannot teach or score: said aloud, for a figure of theirs would mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from weakray.coco import BoxTruth
from weakray.dataset import Split


def split_gaps(ids_of: Mapping[Split, Sequence[str]], labels: pd.DataFrame, truth: BoxTruth) -> list[str]:
    """A warning for each split that holds no positive, or in tune and test no box, of some findings.

    Args:
        ids_of: split → image ids.
        labels: image_id × findings.
        truth: boxes of tune and test.
    """
    found: list[str] = []
    for split, ids in ids_of.items():
        if not ids:
            found.append(f"{split}: no image at all")
            continue
        positive = (labels.loc[list(ids)] == 1).any()
        if names := [name for name in labels.columns if not positive[name]]:
            found.append(f"{split}: no positive image of {', '.join(names)}")
        if split in ("tune", "test"):
            boxed = {int(class_id) for boxes in truth.only(ids).boxes.values() for class_id in boxes.class_id}
            if names := [name for class_id, name in enumerate(labels.columns) if class_id not in boxed]:
                found.append(f"{split}: no box of {', '.join(names)}")
    return found
