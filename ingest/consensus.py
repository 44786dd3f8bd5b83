"""Several readers of one image → one set of labels and boxes.

Two rules, chosen by the user:

- `fusion`: what any reader saw is there. The readers' boxes of a finding are joined by weighted box fusion, each with
  the same weight, and every fused box stays (Solovyev 2021, as used on this data set).
- `majority`: a finding is there when more than half of the image's readers saw it, uncertain when fewer did, absent
  when none did; of the fused boxes those stay that more than half of the readers drew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from weakray.boxes.fusion import fuse_boxes

Consensus = Literal["fusion", "majority"]
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class ReadersBox:
    """A reader's box of one finding: left, top, right, bottom."""

    reader: str
    corners: Corners


def agreed_label(votes: int, readers: int, rule: Consensus) -> float:
    """1, 0 or -1 of a finding that `votes` of `readers` saw."""
    if votes == 0:
        return 0.0
    return 1.0 if rule == "fusion" or 2 * votes > readers else -1.0


def agreed_boxes(drawn: Sequence[ReadersBox], readers: int, rule: Consensus, iou_above: float) -> list[Corners]:
    """The boxes of one finding that the readers of an image agree on.

    Args:
        drawn: all readers' boxes.
        readers: how many looked at the image, those who drew nothing too.
        rule: see above.
        iou_above: boxes that overlap by more mean the same thing.
    """
    corners = np.array([box.corners for box in drawn], np.float64).reshape(-1, 4)
    found: list[Corners] = []
    for fused in fuse_boxes(corners, np.ones(len(corners)), iou_above):
        voices = {drawn[member].reader for member in fused.members}
        if rule == "fusion" or 2 * len(voices) > readers:
            left, top, right, bottom = fused.box_xyxy.tolist()
            found.append((left, top, right, bottom))
    return sorted(found)
