"""How far boxes are believed: by their rank, in their finding or in all, and by the split into clean and noisy pairs.

A pair is an image and a finding. Of the pairs of a finding that have a box, those whose best box scores lowest are the
ones most likely wrong: they are noisy, and count less in the loss. (Sui et al., SoS-WSOD, CVPR 2022, split whole images
by their loss; here each finding is split for itself, for a film may show one plainly and another hardly.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from weakray.detections import BoolArray, Detections, FloatArray


def rank_weights(kept: Mapping[str, Detections], classes: int, least: float, pooled: bool) -> dict[str, FloatArray]:
    """A weight `(n,)` for each box of each image: `least` … 1 by the share of boxes scored no higher.

    Args:
        kept: image_id → scored boxes.
        classes: number of findings.
        least: weight of the lowest one, nearly.
        pooled: whether the share is of all boxes or of those of its finding.
    """
    every = Detections.concat(kept.values())
    of_class = [np.sort(every.score if pooled else every.of_class(k).score) for k in range(classes)]
    weights: dict[str, FloatArray] = {}
    for image_id, found in kept.items():
        share = [
            np.searchsorted(of_class[k], score, "right") / len(of_class[k])
            for k, score in zip(found.class_id.tolist(), found.score.tolist(), strict=True)
        ]
        weights[image_id] = least + (1 - least) * np.array(share)
    return weights


def noisy_pairs(kept: Mapping[str, Detections], classes: int, clean_share: float) -> dict[str, BoolArray]:
    """Which findings of an image are noisy, image_id → `(k,)`.

    Args:
        kept: image_id → scored boxes.
        classes: number of findings.
        clean_share: of a finding's pairs, those with the best boxes, rounded up, are clean; so are those that score as
            the last of them. A pair without a box is neither.
    """
    best = np.full((len(kept), classes), -1.0)  # of each pair; -1 where it has no box
    for row, found in zip(best, kept.values(), strict=True):
        np.maximum.at(row, found.class_id, found.score.astype(np.float64))
    noisy = np.zeros(best.shape, dtype=bool)
    for class_id, scores in enumerate(best.T):
        ranked = np.sort(scores[scores >= 0])[::-1]
        clean = math.ceil(clean_share * len(ranked) - 1e-9)  # 0.55 · 100 is 55.00000000000001
        if len(ranked):
            noisy[:, class_id] = (scores >= 0) & (scores < ranked[max(clean, 1) - 1])
    return dict(zip(kept, noisy, strict=True))
